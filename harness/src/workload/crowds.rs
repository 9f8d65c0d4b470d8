//! Clients that misbehave on purpose: what a fault lets loose, and calls off.
//!
//! All of it goes through the driver and is recorded like any other operation, but for the slow senders, whose requests
//! never become whole. Each crowd counts what it did, as it does it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nogo_faults::{BoxFuture, ControlError, Crowd};
use nogo_invariants::history::F;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::load::Load;
use super::plan::Plan;

/// How the ordinary clients behave, beyond what the plan says; all off at first.
#[derive(Debug, Default)]
pub(super) struct Manners {
    /// Every second operation is given up.
    pub(super) hang_up: AtomicBool,
    /// Every request with a key is sent twice.
    pub(super) duplicate: AtomicBool,
    /// Every read is given up and asked for again.
    pub(super) retry: AtomicBool,
    /// What was done of it.
    pub(super) done: AtomicU64,
}

impl Manners {
    /// Whether `which` is on now; counts it as done if so.
    pub(super) fn shows(&self, which: &AtomicBool) -> bool {
        let on = which.load(Ordering::Relaxed);
        self.done.fetch_add(u64::from(on), Ordering::Relaxed);
        on
    }
}

/// Reads that are given up before one is waited for.
pub(super) const RETRIES: u64 = 4;
/// Slow senders of each API.
const SLOW_SENDERS: usize = 40;
/// Between two bytes of a slow sender.
const BYTE_EVERY: Duration = Duration::from_millis(150);
/// The load beyond the ordinary one, in multiples of it.
const SPIKE: u32 = 9;
/// Operations of the plan of each spike: none has the number of another.
const SPIKE_INDEX: u64 = 1_000_000_000;

/// What a crowd does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CrowdKind {
    /// Gives up every second operation.
    HangUps,
    /// Sends requests a byte at a time.
    SlowSenders,
    /// Sends every request with a key twice at once.
    Duplicates,
    /// Gives up reads and asks again at once.
    RetryStorm,
    /// Logs in and reads, everybody at once.
    Herd,
    /// Ten times the load.
    Spike,
}

/// A crowd of this run's clients.
pub struct LoadCrowd {
    load: Arc<Load>,
    kind: CrowdKind,
    number: u64,
    servers: Vec<SocketAddr>,
    before: u64,
    sent: Arc<AtomicU64>,
    dropped: Arc<AtomicU64>,
    under_way: Mutex<Option<(CancellationToken, TaskTracker)>>,
}

impl LoadCrowd {
    /// A crowd before the APIs at `servers`; `number` tells it from others of the run.
    #[must_use]
    pub fn new(load: Arc<Load>, kind: CrowdKind, number: u64, servers: Vec<SocketAddr>) -> Self {
        let before = load.manners().done.load(Ordering::Relaxed);
        Self {
            load,
            kind,
            number,
            servers,
            before,
            sent: Arc::default(),
            dropped: Arc::default(),
            under_way: Mutex::default(),
        }
    }

    fn manner(&self) -> Option<&AtomicBool> {
        let manners = self.load.manners();
        match self.kind {
            CrowdKind::HangUps => Some(&manners.hang_up),
            CrowdKind::Duplicates => Some(&manners.duplicate),
            CrowdKind::RetryStorm => Some(&manners.retry),
            CrowdKind::SlowSenders | CrowdKind::Herd | CrowdKind::Spike => None,
        }
    }

    fn let_loose(&self) {
        if let Some(manner) = self.manner() {
            manner.store(true, Ordering::Relaxed);
            return;
        }
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        match self.kind {
            CrowdKind::SlowSenders => {
                for server in self.servers.iter().flat_map(|server| std::iter::repeat_n(*server, SLOW_SENDERS)) {
                    tasks.spawn(send_slowly(server, stop.clone(), Arc::clone(&self.sent)));
                }
            }
            CrowdKind::Herd => {
                let herd = (Arc::clone(&self.load), stop.clone(), Arc::clone(&self.sent));
                tasks.spawn(async move { herd.0.stampede(&herd.1, &herd.2).await });
            }
            _ => {
                let plan = self.load.plan_beside(self.number * SPIKE_INDEX, SPIKE);
                let (load, stop, spawning) = (Arc::clone(&self.load), stop.clone(), tasks.clone());
                let counts = [Arc::clone(&self.sent), Arc::clone(&self.dropped)];
                tasks.spawn(async move { load.run_beside(plan, &stop, &spawning, counts).await });
            }
        }
        *self.under_way.lock().unwrap_or_else(PoisonError::into_inner) = Some((stop, tasks));
    }
}

impl Crowd for LoadCrowd {
    fn begin(&self) -> BoxFuture<'_, Result<(), ControlError>> {
        self.let_loose();
        Box::pin(async { Ok(()) })
    }

    fn done(&self) -> u64 {
        let mannered = self.load.manners().done.load(Ordering::Relaxed).saturating_sub(self.before);
        if self.manner().is_some() { mannered } else { self.sent.load(Ordering::Relaxed) }
    }

    fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    fn end(&self) -> BoxFuture<'_, Result<(), ControlError>> {
        Box::pin(async {
            if let Some(manner) = self.manner() {
                manner.store(false, Ordering::Relaxed);
            }
            let under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some((stop, tasks)) = under_way {
                stop.cancel();
                tasks.close();
                tasks.wait().await;
            }
            Ok(())
        })
    }
}

impl Drop for LoadCrowd {
    fn drop(&mut self) {
        if let Some((stop, _)) = self.under_way.get_mut().unwrap_or_else(PoisonError::into_inner).take() {
            stop.cancel();
        }
    }
}

/// One request after the other, a byte at a time; counts the bytes.
async fn send_slowly(server: SocketAddr, stop: CancellationToken, sent: Arc<AtomicU64>) {
    let head = format!(
        "POST /v1/login HTTP/1.1\r\nhost: {server}\r\ncontent-type: application/json\r\ncontent-length: 4000\r\n\r\n"
    );
    let sending = async {
        loop {
            let Ok(mut stream) = TcpStream::connect(server).await else {
                tokio::time::sleep(BYTE_EVERY).await;
                continue;
            };
            // The head at once, so that somebody waits for the body; what ends the connection is the server's right.
            if stream.write_all(head.as_bytes()).await.is_err() {
                continue;
            }
            while stream.write_all(b" ").await.is_ok() {
                sent.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(BYTE_EVERY).await;
            }
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = sending => {}
    }
}

impl Load {
    /// Every client logs in and reads at once, in waves, until stopped; counts the logins.
    async fn stampede(self: &Arc<Self>, stop: &CancellationToken, sent: &Arc<AtomicU64>) {
        while !stop.is_cancelled() {
            let wave = TaskTracker::new();
            for tenant in 0..self.tenants().len() {
                for client in 0..self.tenants()[tenant].clients.len() {
                    let (load, sent, stop) = (Arc::clone(self), Arc::clone(sent), stop.clone());
                    wave.spawn(async move { load.log_in_and_read(tenant, client, &stop, &sent).await });
                }
            }
            wave.close();
            wave.wait().await;
        }
    }

    async fn log_in_and_read(&self, tenant: usize, client: usize, stop: &CancellationToken, sent: &AtomicU64) {
        let tenant = &self.tenants()[tenant];
        let mut holder = tenant.clients[client].lock().await;
        if stop.is_cancelled() {
            return;
        }
        sent.fetch_add(1, Ordering::Relaxed);
        let story = self.quiet_story(tenant, client);
        if story.log_in_again(&mut holder).await.is_some_and(|done| done.success().is_some()) {
            for (f, route) in [(F::Dashboard, "/v1/dashboard"), (F::ScenarioList, "/v1/scenarios")] {
                story.read(&mut holder, f, route, None).await;
            }
        }
    }

    /// Operations of `plan` beside the ordinary ones, until stopped; counts those that were started, and those dropped for
    /// want of a place.
    async fn run_beside(
        self: &Arc<Self>,
        plan: Plan,
        stop: &CancellationToken,
        tasks: &TaskTracker,
        [sent, dropped]: [Arc<AtomicU64>; 2],
    ) {
        let clock = self.clock();
        let mut first = None;
        for planned in plan {
            // The first is due now; the others keep their distance from it.
            let (now_ns, at_ns) = *first.get_or_insert_with(|| (clock.now_ns(), planned.at_ns));
            let intended_ns = now_ns + (planned.at_ns - at_ns);
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep_until(clock.at(intended_ns).into()) => {}
            }
            // Beyond the places there are clients wait elsewhere: nobody sees them refused.
            let Some(place) = self.place_beside() else {
                dropped.fetch_add(1, Ordering::Relaxed);
                continue;
            };
            sent.fetch_add(1, Ordering::Relaxed);
            let load = Arc::clone(self);
            tasks.spawn(async move {
                load.perform(&planned, intended_ns).await;
                drop(place);
            });
        }
    }
}
