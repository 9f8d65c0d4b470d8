//! The phases in their order: provision, seed, steady, baseline, load with its faults, heal, quiesce, final.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use nogo_faults::{BookLimits, OpenFaults, RuleBook, Schedule};
use nogo_invariants::Canaries;
use nogo_invariants::checker::judge;
use nogo_invariants::evidence::{Evidence, Manifest as Facts};
use nogo_invariants::final_state::FinalState;
use nogo_invariants::history::Phase;
use nogo_invariants::verdict::Answer;
use nogo_invariants::{floors, laws};
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::books::{self, Share};
use super::last_look;
use crate::cli::SettingArgs;
use crate::client::Api;
use crate::environment::engine::Engine;
use crate::environment::supervisor::Supervisor;
use crate::environment::topology::{ALERTER, Topology, TopologySpec};
use crate::exit_code::EndsWith;
use crate::experiment::Experiment;
use crate::judgement::read_history_so_far;
use crate::nemesis::{Nemesis, Realised};
use crate::progress::Progress;
use crate::provider::{Provider, WebhookSecret};
use crate::randomness::Randomness;
use crate::recorder::Recorder;
use crate::run_directory::RunDirectory;
use crate::steady_state::Tolerances;
use crate::workload::{Driver, Load, draw_tenants};

/// Between two looks at the record with `--fail-fast`.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Seconds at the start of the load that the steady state is not measured in: caches and pools fill.
const WARM_UP_S: u64 = 2;
/// Rounds of foreign attempts after everything is healed.
const HEALED_FOREIGN_ROUNDS: usize = 20;

/// A run under way.
pub struct Run<'a> {
    /// The plan.
    pub experiment: &'a Experiment,
    /// Engine, binary, fail-fast.
    pub setting: &'a SettingArgs,
    /// What a person sees.
    pub progress: &'a Progress,
    /// The run's folder.
    pub directory: &'a RunDirectory,
    /// The run's own copy of the system's binary.
    pub binary: PathBuf,
    /// What provisions servers.
    pub engine: &'a dyn Engine,
    /// What starts and watches processes.
    pub supervisor: Arc<Supervisor>,
    /// The history.
    pub recorder: Recorder,
    /// The payment provider.
    pub provider: &'a Provider,
    /// The seed's streams.
    pub randomness: Randomness,
    /// Cancelled by Ctrl-C.
    pub interrupt: CancellationToken,
    /// Faults that stand.
    pub open: OpenFaults,
    /// What was read at the end.
    pub final_state: FinalState,
    /// What was injected.
    pub realised: Option<Realised>,
    /// Versions and digests of the servers.
    pub origins: BTreeMap<String, String>,
    /// The system, once started.
    pub topology: Option<Arc<Topology>>,
    /// Logs to search, by process.
    pub log_places: Vec<String>,
}

/// What the phases after the seed share.
pub struct Prepared {
    /// The system.
    pub topology: Arc<Topology>,
    /// The load.
    pub load: Arc<Load>,
    /// Read-only connections past every proxy.
    pub reader: PgPool,
    /// The marks of the run's tenants.
    pub canaries: Arc<Canaries>,
}

impl Run<'_> {
    /// Goes through all phases.
    ///
    /// # Errors
    /// Whatever breaks the run off; what was recorded until then stays.
    pub async fn all_phases(&mut self) -> Result<()> {
        let topology = self.provision().await?;
        let prepared = self.seed(topology).await?;
        self.steady(&prepared).await?;
        self.load(&prepared).await?;
        self.heal(&prepared).await?;
        self.quiesce(&prepared).await?;
        self.last(&prepared).await
    }

    /// Heals what stands and stops what runs; on every way out.
    ///
    /// # Errors
    /// When something stays hurt or alive.
    pub async fn undo(&mut self) -> Result<()> {
        let report = self.open.heal_all(Duration::from_millis(self.experiment.limits.heal_ms)).await;
        for (id, proof) in &report.healed {
            self.recorder.note(&format!("{id} was healed on the way out: {}: {}", proof.kind, proof.detail));
        }
        let unhealed: Vec<String> = report.failed.values().map(ToString::to_string).collect();
        if let Some(topology) = self.topology.take() {
            self.progress.phase("stop", None, "stop the system");
            topology.stop().await?;
        }
        if unhealed.is_empty() { Ok(()) } else { bail!("not healed: {}", unhealed.join("; ")) }
    }

    /// What was injected, for replay: the windows that were begun as they were planned, each condition replaced by the time
    /// at which it came.
    pub fn realised_schedule(&self) -> Schedule {
        let planned = &self.experiment.schedule;
        match &self.realised {
            Some(realised) => Schedule { load_ms: planned.load_ms, steps: realised.steps.clone() },
            None => planned.clone(),
        }
    }

    /// Starts the servers and the system.
    ///
    /// # Errors
    /// If some part does not start in time.
    pub async fn provision(&mut self) -> Result<Arc<Topology>> {
        self.enter(
            Phase::Provision,
            0,
            None,
            &format!("start PostgreSQL with its replicas, Redis and the system, engine {}", self.engine.kind()),
        );
        let shape = &self.experiment.system;
        let mut spec = TopologySpec::smoke(self.binary.clone(), self.provider.address(), self.experiment.seed);
        spec.apis = shape.apis;
        spec.workers = shape.workers;
        spec.worker_concurrency = shape.worker_concurrency;
        spec.pool_max = shape.api_pool;
        spec.postgres_data_mib = self.experiment.postgres_data_mib();
        spec.clock_library = self.experiment.clock_library()?;
        let epoch = self.recorder.clock().at(0);
        spec.rule_book = self.experiment.follows_protocols().then(|| RuleBook::new(epoch, BookLimits::default()));
        spec.webhook_secret = self.experiment.bills_under_faults().then(WebhookSecret::generate);
        spec.api_arguments = arguments(&[
            ("access-ttl-s", shape.access_ttl_s.to_string()),
            ("acquire-timeout-ms", "1000".to_owned()),
            ("statement-timeout-ms", "2000".to_owned()),
            ("lock-timeout-ms", "800".to_owned()),
            ("trusted-proxies", "127.0.0.0/8".to_owned()),
        ]);
        spec.worker_arguments = arguments(&[
            ("lease-ms", shape.lease_ms.to_string()),
            ("heartbeat-ms", (shape.lease_ms / 4).to_string()),
            ("poll-ms", "250".to_owned()),
        ]);
        // What a tenant's lock is to a biller a lease is to a worker.
        spec.biller_arguments = arguments(&[("idle-transaction-timeout-ms", shape.lease_ms.to_string())]);
        let limit = Duration::from_millis(self.experiment.limits.provision_ms);
        let starting = Topology::start(spec, self.engine, Arc::clone(&self.supervisor));
        let topology = tokio::select! {
            () = self.interrupt.cancelled() => bail!("interrupted"),
            started = tokio::time::timeout(limit, starting) => {
                started.map_err(|_| EndsWith::environment(format!("the system did not start within {} s", limit.as_secs())))??
            }
        };
        let topology = Arc::new(topology);
        for line in topology.replication().await? {
            self.recorder.probe("replica streams", true, &line);
        }
        for (name, origin) in [("postgres", topology.postgres().origin()), ("redis", topology.redis().origin())] {
            self.origins.insert(name.to_owned(), format!("{} {} {}", origin.source, origin.version, origin.digest));
        }
        for (name, replica) in topology.replicas() {
            let origin = replica.origin();
            let text = format!("{} {} {}, streaming from postgres", origin.source, origin.version, origin.digest);
            self.origins.insert(name.clone(), text);
        }
        self.log_places = topology.processes().iter().map(|process| process.process_name().to_owned()).collect();
        self.topology = Some(Arc::clone(&topology));
        Ok(topology)
    }

    /// Signs up the tenants and makes the load ready.
    ///
    /// # Errors
    /// Where a tenant cannot be seeded.
    pub async fn seed(&mut self, topology: Arc<Topology>) -> Result<Prepared> {
        self.enter(Phase::Seed, 0, None, &format!("sign up {} tenants", self.experiment.load.tenants));
        let mut canaries = Canaries::new(self.experiment.seed.to_string());
        let profiles = draw_tenants(self.randomness, &self.experiment.load, &mut canaries);
        let canaries = Arc::new(canaries);
        let bases = topology.api_base_urls()?;
        let names = topology.apis().iter().map(|api| api.process_name().to_owned());
        let apis = names.zip(&bases).map(|(name, base)| Api::new(&name, base)).collect::<Result<Vec<_>>>()?;
        let timeout = Duration::from_millis(self.experiment.load.request_timeout_ms);
        let driver = Arc::new(Driver::new(self.recorder.clone(), apis, Arc::clone(&canaries), timeout));
        let load =
            Load::prepare(driver, self.experiment.load.clone(), self.randomness, profiles).await.context("seed")?;
        let reader = PgPoolOptions::new()
            .max_connections(4)
            .acquire_timeout(Duration::from_secs(10))
            .connect(&topology.read_dsn())
            .await
            .context("connect as the reading role")?;
        Ok(Prepared { topology, load, reader, canaries })
    }

    /// The first bills are drawn up and paid, so that probes find invoices, and the system is seen to be well.
    ///
    /// # Errors
    /// When the biller cannot be run.
    pub async fn steady(&mut self, prepared: &Prepared) -> Result<()> {
        self.enter(Phase::Steady, 0, None, "first bills");
        let as_of = match self.experiment.bills_under_faults() {
            true => books::time_of(Share::BEFORE, 1..=usize::MAX, &prepared.reader).await?,
            false => jiff::Timestamp::now(),
        };
        let run = books::bill_once(&prepared.topology, &self.recorder, as_of).await?;
        self.final_state.billing_runs.push(run);
        prepared.load.discover_invoices().await;
        let nothing_open = self.open.open().is_empty();
        self.recorder.probe("no fault stands", nothing_open, "before the load");
        Ok(())
    }

    async fn load(&mut self, prepared: &Prepared) -> Result<()> {
        let experiment = self.experiment;
        let schedule = &experiment.schedule;
        let offered = u64::from(experiment.load.operations_per_s);
        let nemesis = Nemesis {
            topology: Arc::clone(&prepared.topology),
            load: Arc::clone(&prepared.load),
            recorder: self.recorder.clone(),
            reader: prepared.reader.clone(),
            provider: self.provider.ledger(),
            open: self.open.clone(),
            limits: experiment.limits.clone(),
        };
        nemesis.announce(schedule);
        let baseline_ms = schedule.steps.first().map_or(schedule.load_ms / 4, |step| step.at_ms.saturating_sub(500));
        self.enter(Phase::Baseline, offered, Some(schedule.load_ms), "load without faults");
        let began = Instant::now();
        let began_s = self.recorder.clock().now_ns() / 1_000_000_000;
        let stop = self.interrupt.child_token();
        let running = prepared.load.start();
        let watching = self.watch(&stop, began);
        let driving = async {
            tokio::select! {
                () = stop.cancelled() => return Realised::default(),
                () = tokio::time::sleep_until(began + Duration::from_millis(baseline_ms)) => {}
            }
            self.judge_baseline(began_s + WARM_UP_S);
            self.enter(Phase::Load, offered, Some(schedule.load_ms), "load with faults");
            let realised = nemesis.drive(schedule, began, &stop).await;
            if realised.broke_off.is_none() {
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = tokio::time::sleep_until(began + Duration::from_millis(schedule.load_ms)) => {}
                }
            }
            stop.cancel();
            realised
        };
        let (realised, ()) = tokio::join!(driving, watching);
        let summary = running.stop().await;
        self.recorder.note(&format!("load: {}", serde_json::to_string(&summary)?));
        let broke_off = realised.broke_off.clone();
        self.realised = Some(realised);
        if self.interrupt.is_cancelled() {
            bail!("interrupted");
        }
        match broke_off {
            Some(why) => Err(EndsWith::inconclusive(why).into()),
            None => Ok(()),
        }
    }

    /// Progress, and with `--fail-fast` a look at the record now and then.
    async fn watch(&self, stop: &CancellationToken, began: Instant) {
        let mut last_look = Instant::now();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(Duration::from_millis(500)) => {}
            }
            let now_s = self.recorder.clock().now_ns() / 1_000_000_000;
            let figures = self.recorder.tally().figures(now_s.saturating_sub(3), now_s);
            let message = format!(
                "{:.0} /s good, {:.1} % refused, {:.1} % errors, p95 {:.0} ms",
                figures.goodput_per_s,
                figures.refused_share * 100.0,
                figures.error_share * 100.0,
                figures.p95_ms
            );
            self.progress.at(u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX), &message);
            if self.setting.fail_fast && last_look.elapsed() >= LOOK_EVERY {
                let directory = self.directory.clone();
                let law = tokio::task::spawn_blocking(move || violated_so_far(&directory)).await.ok().flatten();
                if let Some(law) = law {
                    self.recorder.note(&format!("fail-fast: {law} is violated, the load ends early"));
                    stop.cancel();
                    return;
                }
                last_look = Instant::now();
            }
        }
    }

    /// Whether the load without faults is within tolerances: what the faults are measured against.
    fn judge_baseline(&self, from_s: u64) {
        let now_s = self.recorder.clock().now_ns() / 1_000_000_000;
        let figures = self.recorder.tally().figures(from_s, now_s);
        let misses = Tolerances::default().misses(&figures, f64::from(self.experiment.load.operations_per_s));
        let detail = if misses.is_empty() {
            format!("{:.0} /s good, p95 {:.0} ms", figures.goodput_per_s, figures.p95_ms)
        } else {
            misses.join("; ")
        };
        self.recorder.probe("baseline within tolerances", misses.is_empty(), &detail);
    }

    async fn heal(&mut self, prepared: &Prepared) -> Result<()> {
        self.enter(Phase::Heal, 0, None, "heal everything");
        let report = self.open.heal_all(Duration::from_millis(self.experiment.limits.heal_ms)).await;
        if !report.is_clean() {
            let left: Vec<String> = report.failed.values().map(ToString::to_string).collect();
            return Err(EndsWith::inconclusive(format!("not healed: {}", left.join("; "))).into());
        }
        // Honest twins request real forecasts, so this comes before the queue drains and the last bills.
        prepared.load.probe_once(HEALED_FOREIGN_ROUNDS).await;
        Ok(())
    }

    async fn quiesce(&mut self, prepared: &Prepared) -> Result<()> {
        self.enter(Phase::Quiesce, 0, None, "let the queue drain");
        let limit = Duration::from_millis(self.experiment.limits.quiesce_ms);
        let began = Instant::now();
        let unread = prepared.load.drain_forecasts(limit).await;
        let unfinished =
            last_look::wait_for_empty_queue(&prepared.reader, limit.saturating_sub(began.elapsed())).await?;
        self.final_state.quiesced = unread == 0 && unfinished == 0;
        let detail = format!(
            "{unread} forecasts unread, {unfinished} jobs unfinished after {:.1} s",
            began.elapsed().as_secs_f64()
        );
        self.recorder.probe("queue drained", self.final_state.quiesced, &detail);
        Ok(())
    }

    async fn last(&mut self, prepared: &Prepared) -> Result<()> {
        self.enter(Phase::Final, 0, None, "last bills, last reads");
        let mut runs = books::close_the_month(&prepared.topology, &self.recorder).await?;
        self.final_state.billing_runs.append(&mut runs);
        let whole = prepared.load.final_client_reads().await;
        self.recorder.probe("honest sessions work", whole > 0, &format!("{whole} tenants read all that is theirs"));
        let runs = std::mem::take(&mut self.final_state.billing_runs);
        let quiesced = self.final_state.quiesced;
        self.final_state = last_look::read(prepared, self.provider).await?;
        self.final_state.billing_runs = runs;
        self.final_state.quiesced = quiesced;
        prepared.reader.close().await;
        // Logs are searched once nobody writes to them any more.
        self.undo().await?;
        let places: Vec<String> = self
            .log_places
            .iter()
            .map(String::as_str)
            .chain(["migrate", "biller-1", "biller-2", ALERTER])
            .map(str::to_owned)
            .collect();
        last_look::search_logs(self.directory, &places, &prepared.canaries, &mut self.final_state)?;
        last_look::search_sinks(&prepared.topology, &prepared.canaries, &mut self.final_state)
    }

    fn enter(&self, phase: Phase, offered_per_s: u64, length_ms: Option<u64>, message: &str) {
        self.recorder.enter_phase(phase, offered_per_s);
        self.progress.phase(phase.name(), length_ms, message);
    }
}

/// A no-go law that the history alone shows to be violated by now.
fn violated_so_far(directory: &RunDirectory) -> Option<String> {
    // Isolation is left to the end: what it knows of owners is whole only there.
    const BY_HISTORY: [&str; 3] = ["forecast.correctness", "forecast.determinism", "auth.fails_closed"];
    let history = read_history_so_far(directory);
    let (facts, state) = (Facts::default(), FinalState::default());
    let checkers: Vec<_> = laws::all().into_iter().filter(|law| BY_HISTORY.contains(&law.law())).collect();
    let evidence = Evidence { manifest: &facts, history: &history, final_state: &state };
    judge(evidence, &checkers, floors::ANY)
        .into_iter()
        .find(|verdict| verdict.answer == Answer::Violated)
        .map(|verdict| verdict.law)
}

fn arguments(flags: &[(&str, String)]) -> Vec<String> {
    flags.iter().flat_map(|(name, value)| [format!("--{name}"), value.clone()]).collect()
}
