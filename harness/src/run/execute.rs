//! The frame around a run: identity, folder, engine, record; healing and stopping on every way out; verdict.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use futures_util::FutureExt as _;
use nogo_faults::OpenFaults;
use nogo_invariants::Settings;
use nogo_invariants::final_state::FinalState;
use nogo_invariants::history::{Header, ProcessChange, ProcessEvent};
use nogo_invariants::results::Results;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::phases::Run;
use crate::cli::SettingArgs;
use crate::environment::docker::ImageOverrides;
use crate::environment::engine::Engine;
use crate::environment::engine_choice::choose_engine;
use crate::environment::registration::Registration;
use crate::environment::supervisor::{self, Supervisor};
use crate::environment::sweep::sweep;
use crate::environment::system_binary::{self, SystemBinary};
use crate::exit_code::{EndsWith, ExitCode, exit_code_of};
use crate::experiment::Experiment;
use crate::identity;
use crate::judgement::{Record, publish};
use crate::progress::Progress;
use crate::provider::{Behaviour, Provider};
use crate::randomness::Randomness;
use crate::recorder::{Recorder, RunClock};
use crate::run_directory::{MANIFEST_FORMAT, Manifest, RunDirectory};

/// What is to be run, where.
#[derive(Debug)]
pub struct Order<'a> {
    /// Folder that holds the runs.
    pub store: &'a Path,
    /// The plan.
    pub experiment: Experiment,
    /// Engine, binary, fail-fast.
    pub setting: &'a SettingArgs,
    /// No progress.
    pub quiet: bool,
}

/// What came of it.
#[derive(Debug)]
pub struct Executed {
    /// The run's folder.
    pub directory: RunDirectory,
    /// The verdict.
    pub results: Results,
    /// How to end.
    pub exit: ExitCode,
    /// Why the run broke off, where it did.
    pub broke_off: Option<String>,
}

/// Runs the plan, judges its record, writes its files.
///
/// # Errors
/// When there is no record to judge: no engine, no binary, no folder. Once there is one, whatever goes wrong makes it
/// partial, and the verdict says so.
pub async fn execute(order: Order<'_>) -> Result<Executed> {
    let progress = Progress::new(order.quiet);
    let swept = sweep(order.store).await.context("sweep what dead runs left")?;
    if !swept.is_empty() {
        tracing::warn!("removed what {} dead run(s) had left on this host", swept.runs.len());
    }
    let workspace = system_binary::workspace_root();
    progress.phase("build", None, "build the system");
    let built = match &order.setting.system_bin {
        Some(path) if path.is_file() => path.clone(),
        Some(path) => {
            let message = format!("--system-bin {}: no such file; leave the flag out to build it", path.display());
            return Err(EndsWith::usage(message).into());
        }
        None => {
            system_binary::build(&workspace, None).await.map_err(|error| EndsWith::environment(format!("{error:#}")))?
        }
    };
    let (run_id, at, unix_us) = new_run_id();
    let registration = Arc::new(Registration::register(order.store, &run_id)?);
    let outcome = with_registration(&order, &progress, &registration, built, Started { at, unix_us }).await;
    progress.done();
    registration.close().context("remove the run's scratch folder")?;
    outcome
}

/// When a run began, by the wall clock.
struct Started {
    at: String,
    unix_us: i64,
}

async fn with_registration(
    order: &Order<'_>,
    progress: &Progress,
    registration: &Arc<Registration>,
    built: PathBuf,
    started: Started,
) -> Result<Executed> {
    let binary =
        system_binary::keep_copy(&built, registration.scratch()).context("keep a copy of the system's binary")?;
    progress.phase("provision", None, "find an engine");
    let engine =
        choose_engine(order.setting.engine, registration, &ImageOverrides::default()).await.map_err(|error| {
            EndsWith::environment(format!("{error:#}\n`nogo doctor` tells more; ci/setup installs what is missing"))
        })?;
    order.experiment.check_engine(engine.as_ref())?;
    on_engine(order, progress, registration, binary, engine.as_ref(), started).await
}

async fn on_engine(
    order: &Order<'_>,
    progress: &Progress,
    registration: &Arc<Registration>,
    binary: SystemBinary,
    engine: &dyn Engine,
    started: Started,
) -> Result<Executed> {
    let workspace = system_binary::workspace_root();
    let directory = RunDirectory::create(order.store, registration.run_id())?;
    let experiment = &order.experiment;
    let (commit, dirty) = identity::commit_of(&workspace);
    let mut manifest = Manifest {
        format: MANIFEST_FORMAT,
        run_id: directory.id(),
        suite: experiment.suite.clone(),
        seed: experiment.seed,
        engine: engine.kind().to_string(),
        started_at: started.at,
        argv: std::env::args().collect(),
        commit,
        dirty,
        faults_requested: experiment.faults.clone(),
        settings: Settings { revocation_bound_ms: experiment.load.revocation_bound_ms, ..Settings::default() },
        lock_sha256: identity::lock_digest(&workspace),
        system_sha256: binary.digest.clone(),
        servers: [("engine".to_owned(), engine.description())].into(),
        nogo_version: env!("CARGO_PKG_VERSION").to_owned(),
        host: identity::host(),
        complete: false,
        aborted_because: "it did not come to its end".to_owned(),
        files: Default::default(),
    };
    directory.write("experiment.toml", toml::to_string(experiment).context("write the plan")?.as_bytes())?;
    directory.seal(&mut manifest)?;

    let clock = RunClock::start();
    let header = Header {
        i: 0,
        t_ns: 0,
        format: nogo_invariants::history::FORMAT_VERSION,
        run_id: directory.id(),
        seed: experiment.seed.to_string(),
        suite: experiment.suite.clone(),
        engine: manifest.engine.clone(),
        started_unix_us: started.unix_us,
    };
    let recorder = Recorder::start(&directory.file("history.ndjson.zst"), header, clock)?;
    let (supervisor, events) = Supervisor::new(Arc::clone(registration), directory.file("logs"))?;
    let pump = tokio::spawn(pump_process_events(events, recorder.clone()));
    let randomness = Randomness::new(experiment.seed);
    let provider =
        Provider::start(randomness, Behaviour::default(), clock).await.context("start the payment provider")?;
    let interrupt = CancellationToken::new();
    let listener = tokio::spawn(cancel_on_signal(interrupt.clone()));

    let mut run = Run {
        experiment,
        setting: order.setting,
        progress,
        directory: &directory,
        binary: binary.path,
        engine,
        supervisor,
        recorder: recorder.clone(),
        provider: &provider,
        randomness,
        interrupt: interrupt.clone(),
        open: OpenFaults::new(),
        final_state: FinalState::default(),
        realised: None,
        origins: Default::default(),
        topology: None,
        log_places: Vec::new(),
    };
    let went = without_panic(run.all_phases()).await;
    let undone = run.undo().await;
    manifest.servers.append(&mut run.origins);
    let schedule = run.realised_schedule();
    let final_state = std::mem::take(&mut run.final_state);
    drop(run);
    provider.stop().await;
    // The supervisor is gone, so the pump has seen every exit.
    tokio::time::timeout(Duration::from_secs(5), pump).await.ok();
    listener.abort();

    let mut broke_off = went.err().map(|error| (exit_code_of(&error), format!("{error:#}")));
    if let Err(error) = undone {
        broke_off.get_or_insert((ExitCode::Inconclusive, format!("{error:#}")));
    }
    if interrupt.is_cancelled() {
        broke_off = Some((ExitCode::Interrupted, "interrupted".to_owned()));
    }
    let finishing = recorder.clone();
    if let Err(error) = tokio::task::spawn_blocking(move || finishing.finish()).await? {
        broke_off.get_or_insert((ExitCode::Inconclusive, format!("{error:#}")));
    }
    directory.write("schedule.toml", toml::to_string(&schedule).context("write the schedule")?.as_bytes())?;
    let state = zstd::encode_all(&serde_json::to_vec(&final_state)?[..], 3).context("compress the final state")?;
    directory.write("final_state.json.zst", &state)?;
    manifest.complete = broke_off.is_none();
    manifest.aborted_because = broke_off.as_ref().map(|(_, why)| why.clone()).unwrap_or_default();
    directory.seal(&mut manifest)?;
    directory.mark_latest()?;

    progress.phase("check", None, "judge the record");
    let judging = directory.clone();
    let results = tokio::task::spawn_blocking(move || -> Result<Results> {
        let record = Record::read(&judging)?;
        let results = record.judge();
        publish(&judging, &record, &results)?;
        Ok(results)
    })
    .await??;
    let exit = ending(&results, broke_off.as_ref().map(|(code, _)| *code));
    Ok(Executed { directory, results, exit, broke_off: broke_off.map(|(_, why)| why) })
}

/// What `phases` came to; a panic of theirs is an error like any other (exit code 70), so that what stands is healed, what
/// runs is stopped and the record is kept. What they were at is not used any more, but for the ledger of open faults,
/// whose parts are whole at any time.
async fn without_panic(phases: impl Future<Output = Result<()>>) -> Result<()> {
    let caught = AssertUnwindSafe(phases).catch_unwind().await;
    caught.unwrap_or_else(|panic| Err(anyhow!("nogo panicked: {}", words_of(panic.as_ref()))))
}

fn words_of(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("without words")
}

/// A violation found is a violation, however the run ended; otherwise the way it ended counts.
fn ending(results: &Results, broke_off: Option<ExitCode>) -> ExitCode {
    let judged = ExitCode::from_number(results.exit_code).unwrap_or(ExitCode::HarnessBroke);
    match broke_off {
        Some(ExitCode::Interrupted) => ExitCode::Interrupted,
        Some(ExitCode::HarnessBroke) => ExitCode::HarnessBroke,
        Some(code) if judged != ExitCode::Violated => code,
        _ => judged,
    }
}

/// Id, wall-clock start as text, and the same as microseconds since 1970.
pub(crate) fn new_run_id() -> (String, String, i64) {
    let now = jiff::Timestamp::now();
    let stamp = now.strftime("%Y%m%d-%H%M%S");
    (format!("{stamp}-{:04x}", rand::random::<u16>()), now.to_string(), now.as_microsecond())
}

/// First Ctrl-C or SIGTERM: end in order. A second Ctrl-C ends the process; the next start sweeps.
pub(crate) async fn cancel_on_signal(interrupt: CancellationToken) {
    let Ok(mut terminate) = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) else { return };
    let mut count = 0;
    loop {
        tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            _ = terminate.recv() => {}
        }
        count += 1;
        interrupt.cancel();
        if count > 1 {
            eprintln!("ended at once; `nogo clean` removes what is left");
            std::process::exit(i32::from(ExitCode::Interrupted.number()));
        }
        eprintln!("healing and stopping; once more to end at once");
    }
}

/// Writes what happens to processes into the record, until nobody is left to tell of any.
pub(crate) async fn pump_process_events(mut events: mpsc::Receiver<supervisor::ProcessEvent>, recorder: Recorder) {
    while let Some(event) = events.recv().await {
        let (change, planned, code, signal) = match event.change {
            supervisor::ProcessChange::Started => (ProcessChange::Ready, true, None, None),
            supervisor::ProcessChange::Exited { code, signal, planned } => {
                let change = if signal.is_some() { ProcessChange::Killed } else { ProcessChange::Exited };
                (change, planned, code, signal)
            }
        };
        recorder.process(ProcessEvent { i: 0, t_ns: 0, name: event.process, event: change, planned, code, signal });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use futures_util::future::BoxFuture;
    use nogo_faults::{
        BlastRadius, Fault, Grant, HealError, InstallError, Proof, ProofError, Target, Tolerance, catalogue,
    };

    use super::*;
    use crate::cli::RunArgs;
    use crate::environment::engine::{EngineKind, PostgresSpec, RedisSpec};
    use crate::environment::engine_choice::EngineChoice;
    use crate::environment::servers::{PostgresServer, RedisServer};

    /// Breaks where it ought to start a server.
    struct Breaks;

    impl Engine for Breaks {
        fn kind(&self) -> EngineKind {
            EngineKind::Process
        }
        fn description(&self) -> String {
            "breaks".to_owned()
        }
        fn can_size_volumes(&self) -> Result<()> {
            Ok(())
        }
        fn start_postgres<'a>(&'a self, _: &'a PostgresSpec) -> BoxFuture<'a, Result<PostgresServer>> {
            panic!("no bricks today")
        }
        fn start_replica<'a>(
            &'a self,
            _: &'a PostgresSpec,
            _: &'a PostgresServer,
        ) -> BoxFuture<'a, Result<PostgresServer>> {
            panic!("no bricks today")
        }
        fn start_redis<'a>(&'a self, _: &'a RedisSpec) -> BoxFuture<'a, Result<RedisServer>> {
            panic!("no bricks today")
        }
    }

    #[tokio::test]
    async fn a_panic_in_a_run_keeps_its_record_and_means_that_the_harness_broke() {
        let folder = tempfile::tempdir().unwrap();
        let setting = SettingArgs { engine: EngineChoice::Process, system_bin: None, fail_fast: false };
        let args = RunArgs {
            suite: "smoke".to_owned(),
            seed: None,
            faults: Some("none".to_owned()),
            schedule: None,
            load_s: None,
            rate: None,
            setting: setting.clone(),
        };
        let experiment = Experiment::plan(&args, 1).unwrap();
        let order = Order { store: folder.path(), experiment, setting: &setting, quiet: true };
        let (run_id, at, unix_us) = new_run_id();
        let registration = Arc::new(Registration::register(folder.path(), &run_id).unwrap());
        let built = folder.path().join("forecastle");
        std::fs::write(&built, "no program").unwrap();
        let binary = system_binary::keep_copy(&built, registration.scratch()).unwrap();

        let progress = Progress::new(true);
        let ran = on_engine(&order, &progress, &registration, binary, &Breaks, Started { at, unix_us }).await;
        let executed = ran.expect("there is a record to judge");
        registration.close().unwrap();

        assert_eq!(executed.exit, ExitCode::HarnessBroke);
        assert_eq!(executed.broke_off.as_deref(), Some("nogo panicked: no bricks today"));
        let manifest = executed.directory.manifest().unwrap();
        assert!(!manifest.complete && manifest.aborted_because.contains("no bricks today"), "{manifest:?}");
        let history = crate::recorder::read_history(&executed.directory.file("history.ndjson.zst")).unwrap();
        assert!(!history.cut_off && history.events.len() > 1, "the record was ended in order");
    }

    /// Panics when it is asked for its proof.
    struct Frail(Arc<AtomicBool>);

    impl Fault for Frail {
        fn name(&self) -> &str {
            "frail"
        }
        fn targets(&self) -> Vec<Target> {
            vec![Target::Postgres { address: ([127, 0, 0, 1], 5432).into() }]
        }
        fn tolerance(&self) -> Tolerance {
            catalogue::find("placebo").unwrap().tolerance
        }
        fn install<'a>(&'a mut self, _: &'a Grant) -> BoxFuture<'a, Result<Proof, InstallError>> {
            self.0.store(true, Ordering::Relaxed);
            Box::pin(async { Ok(Proof::new("stands", true.into())) })
        }
        fn control_proof(&mut self) -> BoxFuture<'_, Result<Proof, ProofError>> {
            panic!("asked once too often")
        }
        fn heal(&mut self) -> BoxFuture<'_, Result<Proof, HealError>> {
            self.0.store(false, Ordering::Relaxed);
            Box::pin(async { Ok(Proof::new("whole", true.into())) })
        }
    }

    #[tokio::test]
    async fn what_stands_when_a_proof_panics_is_healed_all_the_same() {
        let stands = Arc::new(AtomicBool::new(false));
        let open = OpenFaults::new();
        let mut radius = BlastRadius::new(Duration::from_secs(1));
        radius.allow_address(([127, 0, 0, 1], 5432).into());
        let went = without_panic(async {
            let (id, _) = open.install(&radius, Duration::ZERO, Box::new(Frail(Arc::clone(&stands)))).await?;
            open.control_proof(id).await?;
            Ok(())
        });
        let error = went.await.unwrap_err();
        assert_eq!(exit_code_of(&error), ExitCode::HarnessBroke);
        assert!(error.to_string().contains("asked once too often"), "{error}");
        assert!(stands.load(Ordering::Relaxed));
        assert!(open.heal_all(Duration::from_secs(1)).await.is_clean());
        assert!(!stands.load(Ordering::Relaxed));
    }
}
