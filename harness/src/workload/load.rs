//! Drives the load open loop: each operation starts when it is due, whatever the answers do.
//!
//! Only what is due while `in_flight_max` operations are under way is dropped, and each drop is counted and recorded.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context;
use nogo_invariants::history::F;
use rand::RngExt;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::{MutexGuard, OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use super::auth_probes::AuthProber;
use super::crowds::Manners;
use super::driver::Driver;
use super::foreign_attempts::ForeignProber;
use super::inputs::{InputShape, draw_input};
use super::plan::{Plan, PlannedOperation};
use super::seeding::seed_tenants;
use super::spec::LoadSpec;
use super::stories::Story;
use super::tenants::{CURRENCIES, TenantProfile};
use super::world::{LogicalClient, Tenant, TokenShelf};
use crate::randomness::{Randomness, pick};
use crate::recorder::RunClock;

/// Clients that read at once while forecasts drain and at the end.
const READERS: usize = 8;
/// Pause between two reads of the same pending forecast while draining.
const DRAIN_PAUSE: Duration = Duration::from_millis(200);

/// What stories and probes share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) driver: Arc<Driver>,
    pub(super) spec: LoadSpec,
    pub(super) randomness: Randomness,
    pub(super) shared_inputs: Vec<Value>,
    pub(super) shelf: TokenShelf,
    pub(super) manners: Manners,
}

/// The whole load of a run: seeded tenants, the mix, and both kinds of probes.
#[derive(Debug)]
pub struct Load {
    shared: Arc<Shared>,
    tenants: Arc<Vec<Tenant>>,
    plan: std::sync::Mutex<Plan>,
    foreign: Arc<ForeignProber>,
    auth: Arc<AuthProber>,
    started: AtomicU64,
    skipped: AtomicU64,
    /// Of operations beside the ordinary ones.
    places_beside: Arc<Semaphore>,
}

/// A load that goes on until it is stopped, or let go of.
#[derive(Debug)]
pub struct RunningLoad {
    load: Arc<Load>,
    stop: DropGuard,
    tasks: TaskTracker,
}

/// What was done so far.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoadSummary {
    /// Operations of the mix that were started.
    pub operations: u64,
    /// Operations dropped since too many were under way.
    pub skipped: u64,
    /// Foreign attempts sent.
    pub foreign_attempts: u64,
    /// Auth probes sent.
    pub auth_probes: u64,
    /// Forecasts accepted whose end has not been read.
    pub forecasts_pending: u64,
}

impl Load {
    /// Signs up `profiles`, plants their data, and makes ready mix and probes. Call in the seed phase.
    ///
    /// # Errors
    /// Where a tenant cannot be seeded, or the OpenAPI document or the JWKS cannot be read.
    pub async fn prepare(
        driver: Arc<Driver>,
        spec: LoadSpec,
        randomness: Randomness,
        profiles: Vec<TenantProfile>,
    ) -> anyhow::Result<Arc<Self>> {
        let shared_inputs = draw_shared_inputs(randomness, &spec);
        let plan = Plan::new(randomness, &spec, &profiles);
        let places_beside = Arc::new(Semaphore::new(spec.in_flight_max));
        let shelf = TokenShelf::new(Duration::from_secs(spec.clocks_apart_s));
        let shared = Arc::new(Shared { driver, spec, randomness, shared_inputs, shelf, manners: Manners::default() });
        let tenants = Arc::new(seed_tenants(&shared, profiles).await.context("seed tenants")?);
        let foreign = Arc::new(ForeignProber::new(Arc::clone(&shared), Arc::clone(&tenants)));
        let auth = AuthProber::prepare(Arc::clone(&shared), Arc::clone(&tenants)).await.context("prepare probes")?;
        Ok(Arc::new(Self {
            shared,
            tenants,
            plan: std::sync::Mutex::new(plan),
            foreign,
            auth: Arc::new(auth),
            started: AtomicU64::new(0),
            skipped: AtomicU64::new(0),
            places_beside,
        }))
    }

    /// The tenants that exist.
    pub fn tenants(&self) -> &[Tenant] {
        &self.tenants
    }

    /// What was done so far.
    pub fn summary(&self) -> LoadSummary {
        LoadSummary {
            operations: self.started.load(Ordering::Relaxed),
            skipped: self.skipped.load(Ordering::Relaxed),
            foreign_attempts: self.foreign.attempts(),
            auth_probes: self.auth.probes(),
            forecasts_pending: self.tenants.iter().map(|tenant| tenant.pending().len() as u64).sum(),
        }
    }

    /// Starts mix and probes. The plan goes on where a stopped load left off.
    pub fn start(self: &Arc<Self>) -> RunningLoad {
        let stop = CancellationToken::new();
        let tasks = TaskTracker::new();
        let mix = (Arc::clone(self), stop.clone(), tasks.clone());
        tasks.spawn(async move { mix.0.run_mix(&mix.1, &mix.2).await });
        for number in 0..ForeignProber::WORKERS {
            let (prober, stop) = (Arc::clone(&self.foreign), stop.clone());
            tasks.spawn(async move { prober.run(number, &stop).await });
        }
        for number in 0..AuthProber::WORKERS {
            let (prober, stop) = (Arc::clone(&self.auth), stop.clone());
            tasks.spawn(async move { prober.run(number, &stop).await });
        }
        RunningLoad { load: Arc::clone(self), stop: stop.drop_guard(), tasks }
    }

    async fn run_mix(self: &Arc<Self>, stop: &CancellationToken, tasks: &TaskTracker) {
        let clock = self.shared.driver.recorder().clock();
        let places = Arc::new(Semaphore::new(self.shared.spec.in_flight_max));
        let mut origin_ns = None;
        while let Some(planned) = self.next_planned() {
            // The first operation that this start sends is due now; the others keep their distance from it.
            let origin_ns = *origin_ns.get_or_insert_with(|| clock.now_ns().saturating_sub(planned.at_ns));
            let intended_ns = origin_ns + planned.at_ns;
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep_until(clock.at(intended_ns).into()) => {}
            }
            let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
                self.skipped.fetch_add(1, Ordering::Relaxed);
                self.shared.driver.recorder().note(&format!("skipped operation {}: too many under way", planned.index));
                continue;
            };
            self.started.fetch_add(1, Ordering::Relaxed);
            let load = Arc::clone(self);
            tasks.spawn(async move {
                load.perform(&planned, intended_ns).await;
                drop(place);
            });
        }
    }

    fn next_planned(&self) -> Option<PlannedOperation> {
        self.plan.lock().expect("plan lock").next()
    }

    /// How the clients behave, for crowds.
    pub(super) fn manners(&self) -> &Manners {
        &self.shared.manners
    }

    pub(super) fn clock(&self) -> RunClock {
        self.shared.driver.recorder().clock()
    }

    /// A plan of `times` the ordinary rate, whose operations count from `first`.
    pub(super) fn plan_beside(&self, first: u64, times: u32) -> Plan {
        let mut spec = self.shared.spec.clone();
        spec.operations_per_s = spec.operations_per_s.saturating_mul(times);
        let profiles: Vec<TenantProfile> = self.tenants.iter().map(|tenant| tenant.profile.clone()).collect();
        Plan::beside(self.shared.randomness, &spec, &profiles, first)
    }

    /// A place for one more operation beside the ordinary ones, if there is one.
    pub(super) fn place_beside(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.places_beside).try_acquire_owned().ok()
    }

    pub(super) async fn perform(&self, planned: &PlannedOperation, intended_ns: u64) {
        let tenant = &self.tenants[planned.tenant];
        let mut client = free_client(tenant, usize::try_from(planned.index).unwrap_or_default()).await;
        self.shared.perform(planned, intended_ns, tenant, &mut client).await;
    }

    /// Reads every accepted forecast until its end is known or `limit` is over; gives how many are still pending.
    pub async fn drain_forecasts(&self, limit: Duration) -> u64 {
        let deadline = tokio::time::Instant::now() + limit;
        let readers = (0..READERS).map(|reader| async move {
            for tenant in self.tenants.iter().skip(reader).step_by(READERS) {
                self.drain_tenant(tenant, deadline).await;
            }
        });
        futures_util::future::join_all(readers).await;
        self.summary().forecasts_pending
    }

    async fn drain_tenant(&self, tenant: &Tenant, deadline: tokio::time::Instant) {
        let mut client = tenant.clients[0].lock().await;
        let mut round = 0;
        loop {
            let pending = tenant.pending();
            if pending.is_empty() || tokio::time::Instant::now() >= deadline {
                return;
            }
            for forecast in pending {
                if tokio::time::Instant::now() >= deadline {
                    return;
                }
                if self.shared.driver.ensure_session(tenant, &mut client, &self.shared.shelf, round).await {
                    self.quiet_story(tenant, round).poll_forecast(&mut client, &forecast.id).await;
                }
            }
            round += 1;
            if !tenant.pending().is_empty() {
                tokio::time::sleep(DRAIN_PAUSE).await;
            }
        }
    }

    /// Every tenant lists its invoices, so that probes know objects to ask for. Call once a biller has run.
    pub async fn discover_invoices(&self) {
        let readers = (0..READERS).map(|reader| async move {
            for tenant in self.tenants.iter().skip(reader).step_by(READERS) {
                let mut client = tenant.clients[0].lock().await;
                if self.shared.driver.ensure_session(tenant, &mut client, &self.shared.shelf, reader).await {
                    self.quiet_story(tenant, reader).list_invoices(&mut client).await;
                }
            }
        });
        futures_util::future::join_all(readers).await;
    }

    /// One look of every tenant at all that is its own: account, lists, dashboard, each invoice. Call in the final
    /// phase; it shows that honest sessions work again, and what clients are told at the end. Gives the tenants whose
    /// every read succeeded.
    pub async fn final_client_reads(&self) -> u64 {
        let readers = (0..READERS).map(|reader| async move {
            let mut whole = 0;
            for tenant in self.tenants.iter().skip(reader).step_by(READERS) {
                whole += u64::from(self.final_reads_of(tenant).await);
            }
            whole
        });
        futures_util::future::join_all(readers).await.into_iter().sum()
    }

    async fn final_reads_of(&self, tenant: &Tenant) -> bool {
        let mut client = tenant.clients[0].lock().await;
        let instance = tenant.profile.index;
        if !self.shared.driver.ensure_session(tenant, &mut client, &self.shared.shelf, instance).await {
            return false;
        }
        let story = self.quiet_story(tenant, instance);
        let mut whole = true;
        let reads = [
            (F::Me, "/v1/me"),
            (F::Plan, "/v1/plan"),
            (F::Usage, "/v1/usage"),
            (F::Dashboard, "/v1/dashboard"),
            (F::ScenarioList, "/v1/scenarios"),
            (F::ForecastList, "/v1/forecasts"),
        ];
        for (f, route) in reads {
            whole &= story.read(&mut client, f, route, None).await.is_some_and(|done| done.success().is_some());
        }
        whole &= story.list_invoices(&mut client).await.is_some_and(|done| done.success().is_some());
        for id in tenant.invoices() {
            let read = story.read(&mut client, F::InvoiceRead, "/v1/invoices/{id}", Some(&id)).await;
            whole &= read.is_some_and(|done| done.success().is_some());
        }
        whole
    }

    /// One full round of auth probes over all protected operations, and `foreign_rounds` of foreign attempts, apart
    /// from any load: for the phases after heal.
    pub async fn probe_once(&self, foreign_rounds: usize) {
        self.auth.full_round().await;
        self.foreign.rounds(foreign_rounds).await;
    }

    /// Whether `client` holds a session that works, after logging in where it must.
    pub(super) async fn ensure_session_of(&self, tenant: &Tenant, client: &mut LogicalClient) -> bool {
        self.shared.driver.ensure_session(tenant, client, &self.shared.shelf, tenant.profile.index).await
    }

    /// The stream called `name` of this run's seed.
    pub(super) fn stream_of(&self, name: &str) -> rand_chacha::ChaCha8Rng {
        self.shared.randomness.stream(name)
    }

    pub(super) fn quiet_story<'a>(&'a self, tenant: &'a Tenant, instance: usize) -> Story<'a> {
        let intended_ns = self.shared.driver.recorder().clock().now_ns();
        Story { shared: &self.shared, tenant, instance, intended_ns, hangs_up: None }
    }

    /// Requests accepted per tenant label, pending ones among them, as the clients know it.
    pub fn accepted_forecasts(&self) -> BTreeMap<String, usize> {
        self.tenants.iter().map(|tenant| (tenant.profile.label.clone(), tenant.accepted_forecasts())).collect()
    }
}

impl RunningLoad {
    /// Figures while it runs.
    pub fn summary(&self) -> LoadSummary {
        self.load.summary()
    }

    /// Sends nothing new, waits for what is under way (each request has its own time-out), and gives the sums.
    pub async fn stop(self) -> LoadSummary {
        drop(self.stop);
        self.tasks.close();
        self.tasks.wait().await;
        self.load.summary()
    }
}

/// A client of `tenant` that does nothing now, else the one at `start`, once it is free.
async fn free_client(tenant: &Tenant, start: usize) -> MutexGuard<'_, LogicalClient> {
    let count = tenant.clients.len();
    for step in 0..count {
        if let Ok(client) = tenant.clients[(start + step) % count].try_lock() {
            return client;
        }
    }
    tenant.clients[start % count].lock().await
}

/// Inputs without any tenant's mark, so that many tenants may hold the very same one.
fn draw_shared_inputs(randomness: Randomness, spec: &LoadSpec) -> Vec<Value> {
    let mut rng = randomness.stream("data/shared-inputs");
    (0..spec.shared_inputs.max(1))
        .map(|_| {
            let currency = *pick(&mut rng, &CURRENCIES);
            // A few small simulations: the same paths on every worker.
            let paths = (rng.random_range(0..4) == 0).then_some(100);
            draw_input(&mut rng, InputShape { currency, mark: "", paths, out_of_range: false })
        })
        .collect()
}
