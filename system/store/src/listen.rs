//! One listening connection of a process, for one channel.
//!
//! It only saves time: whoever listens must also look by itself now and then. The link is connected again
//! whenever it breaks, and is asked something whenever it has been silent for a while, since a link that
//! swallows packets never says that it is dead.

use std::convert::Infallible;
use std::time::Duration;

use rand::RngExt;
use sqlx::Executor as _;
use sqlx::postgres::{PgListener, PgPoolOptions};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::error::StoreError;
use crate::pool::Db;

/// First pause after the link was lost; doubles up to `PAUSE_MAX` while it cannot be made.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// What comes over the link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard<'a> {
    /// It was made, for the first time or again: something may have been missed, so look.
    Connected,
    /// A transaction that rang has committed; with what it said.
    Rung(&'a str),
}

/// Listens for as long as it lives.
#[derive(Debug)]
pub struct Listening {
    task: JoinHandle<()>,
    channel: &'static str,
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.task.abort();
        metrics::gauge!("forecastle_listener_up", "channel" => self.channel).set(0.0);
    }
}

/// Listens on `channel` over a connection beside the pool's, and tells `hear`, which must not block. A
/// link that is silent for `keep_alive` is asked, and given up when it does not answer for as long again.
#[must_use]
pub fn listen(
    db: &Db,
    channel: &'static str,
    keep_alive: Duration,
    hear: impl Fn(Heard<'_>) + Send + Sync + 'static,
) -> Listening {
    let db = db.clone();
    let task = tokio::spawn(async move {
        let mut pause = PAUSE_MIN;
        loop {
            let mut was_up = false;
            let heard = |heard: Heard<'_>| {
                was_up = true;
                hear(heard);
            };
            let Err(reason) = session(&db, channel, keep_alive, heard).await;
            metrics::counter!("forecastle_listener_losses_total", "channel" => channel, "reason" => reason)
                .increment(1);
            metrics::gauge!("forecastle_listener_up", "channel" => channel).set(0.0);
            tracing::warn!(channel, reason, "listening link lost");
            pause = if was_up { PAUSE_MIN } else { (pause * 2).min(PAUSE_MAX) };
            let jitter = rand::rng().random_range(0.5..=1.0);
            tokio::time::sleep(pause.mul_f64(jitter)).await;
        }
    });
    Listening { task, channel }
}

/// One link's life; why it ended.
async fn session(
    db: &Db,
    channel: &'static str,
    keep_alive: Duration,
    mut hear: impl FnMut(Heard<'_>),
) -> Result<Infallible, &'static str> {
    let mut listener = timeout(db.options().acquire_timeout + keep_alive, connect(db, channel))
        .await
        .map_err(|_| "connect_timeout")?
        .map_err(|_| "connect_failed")?;
    metrics::counter!("forecastle_listener_connects_total", "channel" => channel).increment(1);
    metrics::gauge!("forecastle_listener_up", "channel" => channel).set(1.0);
    hear(Heard::Connected);
    loop {
        match timeout(keep_alive, listener.try_recv()).await {
            Ok(Ok(Some(notification))) => hear(Heard::Rung(notification.payload())),
            Ok(Ok(None)) => return Err("closed"),
            Ok(Err(_)) => return Err("broken"),
            // What arrives while it is asked is kept by the driver and comes with the next look.
            Err(_) => match timeout(keep_alive, listener.execute("SELECT 1")).await {
                Ok(Ok(_)) => {}
                Ok(Err(_)) => return Err("broken"),
                Err(_) => return Err("silent"),
            },
        }
    }
}

async fn connect(db: &Db, channel: &str) -> Result<PgListener, StoreError> {
    // A pool of its own: listening holds its connection for ever.
    let pool = PgPoolOptions::new()
        .max_connections(1)
        .acquire_timeout(db.options().acquire_timeout)
        .max_lifetime(None)
        .idle_timeout(None)
        .connect_lazy_with(db.options().connect_options()?);
    let mut listener = PgListener::connect_with(&pool).await?;
    // Making it again is the caller's business: it must know that something may have been missed.
    listener.eager_reconnect(false);
    listener.listen(channel).await?;
    Ok(listener)
}
