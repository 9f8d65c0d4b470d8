//! The whole system under the suite's load, no window of a schedule gone through, for tests that plant rows of the catalogue themselves.
//!
//! `NOGO_ENGINE` chooses the engine (`auto` unless set).

use std::sync::Arc;

use clap::ValueEnum as _;
use nogo_faults::{FaultRow, OpenFaults, Step};
use nogo_harness::cli::{RunArgs, SettingArgs};
use nogo_harness::environment::docker::ImageOverrides;
use nogo_harness::environment::engine_choice::{EngineChoice, choose_engine};
use nogo_harness::environment::supervisor::Supervisor;
use nogo_harness::environment::system_binary;
use nogo_harness::experiment::Experiment;
use nogo_harness::nemesis::planting::{Planted, Site, plant};
use nogo_harness::progress::Progress;
use nogo_harness::provider::{Behaviour, Provider, ProviderBook};
use nogo_harness::randomness::Randomness;
use nogo_harness::recorder::{Recorder, RunClock};
use nogo_harness::run::books::Share;
use nogo_harness::run::phases::{Prepared, Run};
use nogo_harness::run_directory::RunDirectory;
use nogo_harness::workload::LoadSummary;
use nogo_invariants::final_state::FinalState;
use nogo_invariants::history::{F, Header, Phase};
use tokio_util::sync::CancellationToken;

use crate::environment_world::{World, not_exercised};

const SEED: u64 = 1;
/// Length of a window, milliseconds.
const WINDOW_MS: u64 = 7_000;
/// Forecasts requested by which the load is under way.
const UNDER_WAY: u64 = 40;

/// A row with a victim.
#[derive(Clone, Copy)]
pub struct Case {
    pub row: &'static FaultRow,
    pub target: &'static str,
    /// Tells it from the others, from 1.
    pub number: usize,
    pub share: Share,
}

/// What cases are planted in.
pub struct Ground<'a> {
    pub prepared: &'a Prepared,
    /// Of the cases asked for, those that can be done here.
    pub cases: Vec<Case>,
    /// The suite's plan.
    pub experiment: &'a Experiment,
    recorder: &'a Recorder,
    provider: Arc<ProviderBook>,
}

impl Ground<'_> {
    /// Made as in a run, and not installed.
    pub async fn planted(&self, case: Case) -> Planted {
        let step = step(case);
        let site = Site {
            step: &step,
            number: case.number,
            topology: &self.prepared.topology,
            load: &self.prepared.load,
            reader: &self.prepared.reader,
            recorder: self.recorder,
            provider: &self.provider,
            share: case.share,
        };
        plant(&site).await.unwrap_or_else(|error| panic!("{} on {}: {error:#}", case.row.name, case.target))
    }
}

fn step(case: Case) -> Step {
    Step {
        fault: case.row.name.to_owned(),
        target: case.target.to_owned(),
        at_ms: 0,
        when: None,
        duration_ms: WINDOW_MS,
        params: Default::default(),
    }
}

/// The suite's plan with a window for each case, which nobody goes through, in a system that could bear each of `cases`.
fn plan(setting: &SettingArgs, cases: &[Case], tenants: usize) -> Experiment {
    let args = RunArgs {
        suite: "smoke".to_owned(),
        seed: Some(SEED),
        faults: Some("none".to_owned()),
        schedule: None,
        load_s: None,
        rate: None,
        setting: setting.clone(),
    };
    let mut experiment = Experiment::plan(&args, SEED).unwrap();
    experiment.load.tenants = tenants;
    experiment.faults = cases.iter().map(|case| case.row.name.to_owned()).collect();
    experiment.schedule.steps = cases.iter().copied().map(step).collect();
    experiment
}

/// Starts the system with so many tenants, and the load; does `body` under it, and stops all. What `body` came to, and
/// what the load did.
pub async fn under_load<T>(
    mut cases: Vec<Case>,
    tenants: usize,
    body: impl AsyncFnOnce(&Ground<'_>) -> T,
) -> (T, LoadSummary) {
    let world = World::new();
    let asked = std::env::var("NOGO_ENGINE").unwrap_or_else(|_| "auto".to_owned());
    let setting =
        SettingArgs { engine: EngineChoice::from_str(&asked, true).unwrap(), system_bin: None, fail_fast: false };
    let built = system_binary::build(&system_binary::workspace_root(), None).await.unwrap();
    let binary = system_binary::keep_copy(&built, world.run.scratch()).unwrap();
    let engine = choose_engine(setting.engine, &world.run, &ImageOverrides::default()).await.unwrap();
    cases.retain(|case| match plan(&setting, &[*case], tenants).check_engine(engine.as_ref()) {
        Ok(()) => true,
        Err(error) => {
            not_exercised(Some(&engine.kind().to_string()), &format!("{}: {error:#}", case.row.name));
            false
        }
    });
    assert!(!cases.is_empty(), "none of the cases can be done here");
    let experiment = plan(&setting, &cases, tenants);

    let directory = RunDirectory::create(&world.store, world.run.run_id()).unwrap();
    let clock = RunClock::start();
    let header = Header {
        i: 0,
        t_ns: 0,
        format: nogo_invariants::history::FORMAT_VERSION,
        run_id: directory.id(),
        seed: SEED.to_string(),
        suite: experiment.suite.clone(),
        engine: engine.kind().to_string(),
        started_unix_us: jiff::Timestamp::now().as_microsecond(),
    };
    let recorder = Recorder::start(&directory.file("history.ndjson.zst"), header, clock).unwrap();
    let (supervisor, _events) = Supervisor::new(Arc::clone(&world.run), directory.file("logs")).unwrap();
    let randomness = Randomness::new(SEED);
    let provider = Provider::start(randomness, Behaviour::default(), clock).await.unwrap();
    let mut run = Run {
        experiment: &experiment,
        setting: &setting,
        progress: &Progress::new(true),
        directory: &directory,
        binary: binary.path,
        engine: engine.as_ref(),
        supervisor,
        recorder: recorder.clone(),
        provider: &provider,
        randomness,
        interrupt: CancellationToken::new(),
        open: OpenFaults::new(),
        final_state: FinalState::default(),
        realised: None,
        origins: Default::default(),
        topology: None,
        log_places: Vec::new(),
    };
    let topology = run.provision().await.unwrap();
    let prepared = run.seed(topology).await.unwrap();
    run.steady(&prepared).await.unwrap();
    recorder.enter_phase(Phase::Load, u64::from(experiment.load.operations_per_s));
    let running = prepared.load.start();
    recorder.wait_until_sent(F::ForecastRequest, UNDER_WAY).await;

    let ground = Ground {
        prepared: &prepared,
        cases,
        experiment: &experiment,
        recorder: &recorder,
        provider: provider.ledger(),
    };
    let outcome = body(&ground).await;
    let load = running.stop().await;
    run.undo().await.unwrap();
    (outcome, load)
}
