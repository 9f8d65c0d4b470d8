//! The loop: look at every process, evaluate every rule, tell what is new.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};

use crate::deliver::{Deliverer, Webhooks};
use crate::lifecycle::{Alert, Board};
use crate::rules::Rules;
use crate::scrape::{self, Target};
use crate::signal::{Look, read};

/// Everything the watch needs to know.
#[derive(Clone)]
pub struct WatchConfig {
    /// Who is watched.
    pub targets: Vec<Target>,
    /// By which rules.
    pub rules: Rules,
    /// Time between two looks.
    pub every: Duration,
    /// Longest look.
    pub scrape_timeout: Duration,
    /// Who is told.
    pub webhooks: Webhooks,
    /// How long a critical alert may fire unacknowledged before the second webhook is told.
    pub escalate_after: Duration,
}

/// Why a watch did not start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WatchError {
    /// No HTTP client could be made.
    #[error("make an HTTP client")]
    Client,
}

/// A running watch, to be asked from outside. Cheap to clone; the watch ends with its runtime.
#[derive(Clone)]
pub struct Watch {
    board: Arc<Mutex<Board>>,
}

impl Watch {
    /// What is firing now.
    #[must_use]
    pub fn firing(&self) -> Vec<Alert> {
        self.lock().firing()
    }

    /// Notes that somebody takes care of the alert with this id; false if it is not firing.
    pub fn acknowledge(&self, id: &str) -> bool {
        self.lock().acknowledge(id)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Board> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Starts watching in the background.
///
/// # Errors
/// If no HTTP client can be made.
pub fn watch(config: WatchConfig) -> Result<Watch, WatchError> {
    let scraper = scrape::client(config.scrape_timeout).ok_or(WatchError::Client)?;
    let teller = scrape::client(config.webhooks.timeout).ok_or(WatchError::Client)?;
    let deliverer = Deliverer::start(&config.webhooks, &teller);
    let watch = Watch { board: Arc::default() };
    let watching = watch.clone();
    tokio::spawn(async move {
        // One look more than the longest window holds, so that its beginning is in it.
        let looks_max = (config.rules.window_max().as_millis() / config.every.as_millis().max(1)) as usize + 2;
        let mut history: Vec<VecDeque<Look>> = vec![VecDeque::new(); config.targets.len()];
        let mut ticks = tokio::time::interval(config.every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let mut looking = JoinSet::new();
            for (index, target) in config.targets.iter().cloned().enumerate() {
                let scraper = scraper.clone();
                looking.spawn(async move { (index, target.look(&scraper).await) });
            }
            while let Some(looked) = looking.join_next().await {
                let Ok((index, look)) = looked else { continue };
                history[index].push_back(look);
                if history[index].len() > looks_max {
                    history[index].pop_front();
                }
            }
            watching.evaluate(&config, &history, &deliverer);
        }
    });
    Ok(watch)
}

impl Watch {
    fn evaluate(&self, config: &WatchConfig, history: &[VecDeque<Look>], deliverer: &Deliverer) {
        let now = Instant::now();
        let mut board = self.lock();
        for (target, looks) in config.targets.iter().zip(history) {
            for rule in &config.rules.all {
                let reading = read(&rule.signal, Duration::from_secs(rule.window_s), looks);
                if let Some(notice) = board.step(rule, &target.name, reading, now) {
                    deliverer.give(notice);
                }
            }
        }
        for notice in board.escalate(config.escalate_after, now) {
            deliverer.give(notice);
        }
        metrics::gauge!("forecastle_alerts_firing").set(board.firing().len() as f64);
    }
}
