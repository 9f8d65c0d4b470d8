//! Requests at times fixed beforehand, whatever comes back: latency counts from the time a request was meant
//! to be sent, so a system that stalls cannot hide it by being asked less.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::client::Connection;
use crate::mix::{Ending, Mix, Operation};

/// How often the clock is looked at; requests that are due in between go out together.
const TICK: Duration = Duration::from_millis(1);

/// A phase of load.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    pub(crate) per_second: u32,
    pub(crate) time: Duration,
    /// Most requests under way at once; further ones wait, and their wait counts.
    pub(crate) connections: usize,
    /// A request that could not be sent for this long is given up.
    pub(crate) patience: Duration,
    /// Of the operations and customers drawn.
    pub(crate) seed: u64,
}

/// What came of it.
pub(crate) struct Outcome {
    /// µs, of those that were done.
    pub(crate) latency: Histogram<u64>,
    pub(crate) done: u64,
    pub(crate) refused: u64,
    pub(crate) errors: u64,
    /// Never sent, since too many were under way for too long.
    pub(crate) given_up: u64,
    /// First errors, for the reader.
    pub(crate) samples: Vec<String>,
}

impl Outcome {
    fn new() -> Self {
        let latency = Histogram::new_with_bounds(1, 120_000_000, 3).expect("the bounds are in order");
        Self { latency, done: 0, refused: 0, errors: 0, given_up: 0, samples: Vec::new() }
    }

    /// A percentile, ms.
    pub(crate) fn ms(&self, percentile: f64) -> f64 {
        self.latency.value_at_percentile(percentile) as f64 / 1e3
    }

    fn note_error(&mut self, operation: Operation, what: &str) {
        self.errors += 1;
        if self.samples.len() < 5 {
            self.samples.push(format!("{operation:?}: {what}"));
        }
    }
}

/// Connections at rest, for each target.
struct Pool {
    targets: Vec<(SocketAddr, Mutex<Vec<Connection>>)>,
}

impl Pool {
    async fn take(&self, target: usize) -> anyhow::Result<Connection> {
        let (address, idle) = &self.targets[target];
        // The one that rested longest lies at the bottom, and an instance closes what rests too long.
        let kept = {
            let mut idle = idle.lock().expect("not poisoned");
            std::iter::from_fn(|| idle.pop()).find(Connection::is_open)
        };
        match kept {
            Some(connection) => Ok(connection),
            None => Connection::open(*address).await,
        }
    }

    fn put(&self, target: usize, connection: Connection) {
        self.targets[target].1.lock().expect("not poisoned").push(connection);
    }
}

/// Sends the mix to the targets in turn, and waits for the last answer.
pub(crate) async fn drive(mix: &Arc<Mix>, targets: &[SocketAddr], load: Load) -> Outcome {
    let targets: Vec<_> = targets.iter().map(|address| (*address, Mutex::new(Vec::new()))).collect();
    let pool = Arc::new(Pool { targets });
    let slots = Arc::new(Semaphore::new(load.connections));
    let outcome = Arc::new(Mutex::new(Outcome::new()));
    let mut rng = StdRng::seed_from_u64(load.seed);
    let total = u64::from(load.per_second) * load.time.as_millis() as u64 / 1_000;
    let started = Instant::now();
    let mut tasks = JoinSet::new();
    let mut ticks = tokio::time::interval(TICK);
    let mut sent = 0;
    while sent < total {
        ticks.tick().await;
        let due = (started.elapsed().as_secs_f64() * f64::from(load.per_second)) as u64;
        while sent < total.min(due + 1) {
            let meant = started + Duration::from_secs_f64(sent as f64 / f64::from(load.per_second));
            let (operation, customer) = mix.draw(&mut rng);
            let simulates = rng.random_range(0..50) == 0;
            let target = sent as usize % pool.targets.len();
            let (mix, pool, slots, outcome) =
                (Arc::clone(mix), Arc::clone(&pool), Arc::clone(&slots), Arc::clone(&outcome));
            sent += 1;
            tasks.spawn(async move {
                let patience = load.patience.saturating_sub(meant.elapsed());
                let Ok(Ok(_slot)) = tokio::time::timeout(patience, slots.acquire()).await else {
                    outcome.lock().expect("not poisoned").given_up += 1;
                    return;
                };
                let ending = async {
                    let mut connection = pool.take(target).await?;
                    let ending = mix.perform(operation, &customer, simulates, &mut connection).await?;
                    pool.put(target, connection);
                    anyhow::Ok(ending)
                };
                let ending = ending.await;
                let latency = u64::try_from(meant.elapsed().as_micros()).unwrap_or(u64::MAX);
                let mut outcome = outcome.lock().expect("not poisoned");
                match ending {
                    Ok(Ending::Done) => {
                        outcome.done += 1;
                        outcome.latency.saturating_record(latency);
                    }
                    Ok(Ending::Refused) => outcome.refused += 1,
                    Ok(Ending::Error) => outcome.note_error(operation, "an unexpected answer"),
                    Err(error) => outcome.note_error(operation, &format!("{error:#}")),
                }
            });
        }
        while tasks.try_join_next().is_some() {}
    }
    while tasks.join_next().await.is_some() {}
    std::mem::replace(&mut *outcome.lock().expect("not poisoned"), Outcome::new())
}
