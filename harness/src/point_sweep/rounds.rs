//! A whole sweep: stage, template, listing, every case, the table; undone on every way out.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use nogo_invariants::Settings;
use nogo_invariants::history::{FORMAT_VERSION, Header};
use tokio_util::sync::CancellationToken;

use super::case::run_case;
use super::judged::{CaseResult, SCHEMA, SWEEP_FILE, SweepResults, together};
use super::listing::points_of;
use super::plan::{PointChoice, PointFault, Story, SweepPoint, SweepSettings};
use super::stage::Stage;
use super::template::{Template, prepare};
use crate::cli::SettingArgs;
use crate::environment::docker::ImageOverrides;
use crate::environment::engine::Engine;
use crate::environment::engine_choice::choose_engine;
use crate::environment::registration::Registration;
use crate::environment::supervisor::Supervisor;
use crate::environment::{sweep as leftovers, system_binary};
use crate::exit_code::{EndsWith, ExitCode};
use crate::identity;
use crate::judgement::{Record, SWEEP_OF};
use crate::progress::Progress;
use crate::recorder::RunClock;
use crate::run::{cancel_on_signal, new_run_id};
use crate::run_directory::{MANIFEST_FORMAT, Manifest, RunDirectory, pretty_json};

/// Folder of the cases, below the sweep's.
const CASES: &str = "cases";
/// Folder of the run without a fault, which lists the points.
const LISTING: &str = "listing";
/// Folder of the record before the story.
const TEMPLATE: &str = "template";

/// What is to be swept, where.
#[derive(Debug)]
pub struct SweepOrder<'a> {
    /// Folder that holds the runs.
    pub store: &'a Path,
    /// The story.
    pub story: Story,
    /// Seed and lease.
    pub settings: SweepSettings,
    /// Points to visit; empty for all.
    pub points: &'a [PointChoice],
    /// What to do at each; empty for all.
    pub faults: &'a [PointFault],
    /// Only list the points.
    pub only_list: bool,
    /// Engine, binary, fail-fast.
    pub setting: &'a SettingArgs,
    /// No progress.
    pub quiet: bool,
}

/// What came of it.
#[derive(Debug)]
pub struct Swept {
    /// The sweep's folder.
    pub directory: RunDirectory,
    /// The listing and the cases.
    pub results: SweepResults,
    /// How to end.
    pub exit: ExitCode,
}

/// A sweep under way.
struct Round<'a> {
    order: &'a SweepOrder<'a>,
    stage: Arc<Stage>,
    template: Template,
    directory: &'a RunDirectory,
    manifest: &'a Manifest,
    progress: &'a Progress,
    interrupt: &'a CancellationToken,
}

/// Sweeps a story.
///
/// # Errors
/// When there is nothing to judge: no engine, no binary, a story that does not come to its end without a fault, a point
/// that is not in the listing.
pub async fn sweep(order: SweepOrder<'_>) -> Result<Swept> {
    let progress = Progress::new(order.quiet);
    let swept = leftovers::sweep(order.store).await.context("sweep what dead runs left")?;
    if !swept.is_empty() {
        tracing::warn!("removed what {} dead run(s) had left on this host", swept.runs.len());
    }
    let built = binary(&order, &progress).await?;
    let (run_id, started_at, started_unix_us) = new_run_id();
    let clock = RunClock::start();
    let registration = Arc::new(Registration::register(order.store, &run_id)?);
    let outcome = with_registration(&order, &progress, &registration, built, clock, started_at, started_unix_us).await;
    progress.done();
    registration.close().context("remove the sweep's scratch folder")?;
    outcome
}

async fn binary(order: &SweepOrder<'_>, progress: &Progress) -> Result<PathBuf> {
    match &order.setting.system_bin {
        Some(path) if path.is_file() => Ok(path.clone()),
        Some(path) => {
            let message = format!("--system-bin {}: no such file; leave the flag out to build it", path.display());
            Err(EndsWith::usage(message).into())
        }
        None => {
            progress.phase("build", None, "build the system");
            let built = system_binary::build(&system_binary::workspace_root(), None).await;
            built.map_err(|error| EndsWith::environment(format!("{error:#}")).into())
        }
    }
}

async fn with_registration(
    order: &SweepOrder<'_>,
    progress: &Progress,
    registration: &Arc<Registration>,
    built: PathBuf,
    clock: RunClock,
    started_at: String,
    started_unix_us: i64,
) -> Result<Swept> {
    let kept =
        system_binary::keep_copy(&built, registration.scratch()).context("keep a copy of the system's binary")?;
    progress.phase("provision", None, "find an engine");
    let engine =
        choose_engine(order.setting.engine, registration, &ImageOverrides::default()).await.map_err(|error| {
            EndsWith::environment(format!("{error:#}\n`nogo doctor` tells more; ci/setup installs what is missing"))
        })?;
    let directory = RunDirectory::create(order.store, registration.run_id())?;
    let mut manifest = manifest(order, &directory, engine.as_ref(), started_at, kept.digest.clone());
    directory.seal(&mut manifest)?;
    let header = Header {
        i: 0,
        t_ns: 0,
        format: FORMAT_VERSION,
        run_id: directory.id(),
        seed: order.settings.seed.to_string(),
        suite: manifest.suite.clone(),
        engine: manifest.engine.clone(),
        started_unix_us,
    };
    let interrupt = CancellationToken::new();
    let listener = tokio::spawn(cancel_on_signal(interrupt.clone()));
    let (supervisor, _unread) = Supervisor::new(Arc::clone(registration), directory.file("logs"))?;
    let message = format!("start PostgreSQL and Redis, engine {}", engine.kind());
    progress.phase("provision", None, &message);
    let raising =
        Stage::raise(order.story, order.settings, engine.as_ref(), registration, kept.path, clock, &supervisor);
    let stage = Arc::new(tokio::select! {
        () = interrupt.cancelled() => return Err(interrupted()),
        stage = raising => stage.context("set up the stage")?,
    });
    for (name, origin) in [("postgres", stage.postgres.origin()), ("redis", stage.redis.origin())] {
        let text = format!("{} {} {}", origin.source, origin.version, origin.digest);
        manifest.servers.insert(name.to_owned(), text);
    }
    let went = rounds(order, &stage, header, &directory, &manifest, progress, &interrupt).await;
    progress.phase("stop", None, "stop the servers");
    let struck = stage.strike().await;
    listener.abort();
    let mut results = match went {
        Ok(results) => results,
        Err(error) => {
            manifest.aborted_because = format!("{error:#}");
            directory.seal(&mut manifest)?;
            return Err(error);
        }
    };
    struck.context("stop the servers")?;
    results.seconds = clock.now_ns() as f64 / 1e9;
    directory.write(SWEEP_FILE, &pretty_json(&results)?)?;
    directory.write("summary.md", results.table().as_bytes())?;
    manifest.complete = results.not_run.is_empty();
    if interrupt.is_cancelled() {
        manifest.aborted_because = "interrupted".to_owned();
    }
    directory.seal(&mut manifest)?;
    directory.mark_latest()?;
    let exit = match (interrupt.is_cancelled(), order.only_list) {
        (true, _) => ExitCode::Interrupted,
        (false, true) => ExitCode::Held,
        (false, false) => results.exit(),
    };
    Ok(Swept { directory, results, exit })
}

async fn rounds(
    order: &SweepOrder<'_>,
    stage: &Arc<Stage>,
    header: Header,
    directory: &RunDirectory,
    manifest: &Manifest,
    progress: &Progress,
    interrupt: &CancellationToken,
) -> Result<SweepResults> {
    progress.phase("template", None, "two customers and what happened before the story");
    let folder = directory.file(TEMPLATE);
    std::fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
    let template = tokio::select! {
        () = interrupt.cancelled() => return Err(interrupted()),
        template = prepare(stage, header, &folder) => template?,
    };
    let round = Round { order, stage: Arc::clone(stage), template, directory, manifest, progress, interrupt };
    let points = round.list().await?;
    round.visit(points).await
}

impl Round<'_> {
    /// Runs the story without a fault, which must come to its end, and lists its points.
    async fn list(&self) -> Result<Vec<SweepPoint>> {
        self.progress.phase("list", None, &format!("the story {} without a fault", self.order.story.name()));
        let (directory, manifest) = self.folder(self.directory.root(), LISTING, None)?;
        let (played, broke_off) =
            run_case(&self.stage, &self.template, &directory, manifest, None, self.interrupt).await?;
        if self.interrupt.is_cancelled() {
            return Err(interrupted());
        }
        let results = Record::read(&directory)?.judge();
        directory.write("results.json", results.to_json().context("express the results")?.as_bytes())?;
        let Some(played) = played else {
            bail!("the story broke off without a fault: {}", broke_off.unwrap_or_default());
        };
        if results.exit_code != ExitCode::Held.number() {
            let code = ExitCode::from_number(results.exit_code).unwrap_or(ExitCode::HarnessBroke);
            let message =
                format!("without any fault the story is {}: {}", results.verdict.name(), results.reasons.join("; "));
            return Err(EndsWith { code, message }.into());
        }
        Ok(points_of(&played.listed, &played.idle))
    }

    /// Every case that was asked for.
    async fn visit(&self, points: Vec<SweepPoint>) -> Result<SweepResults> {
        let order = self.order;
        for choice in order.points {
            if !points.iter().any(|point| choice.means(point)) {
                let message = format!("point {choice} is not in the listing of {} points", points.len());
                return Err(EndsWith::usage(message).into());
            }
        }
        if points.is_empty() {
            let message = format!("the story {} has no points: nothing to visit", order.story.name());
            return Err(EndsWith { code: ExitCode::NothingSelected, message }.into());
        }
        let faults: &[PointFault] = if order.faults.is_empty() { &PointFault::ALL } else { order.faults };
        let wanted =
            |point: &&SweepPoint| order.points.is_empty() || order.points.iter().any(|choice| choice.means(point));
        let planned: Vec<(&SweepPoint, PointFault)> = points
            .iter()
            .filter(wanted)
            .flat_map(|point| faults.iter().map(move |fault| (point, *fault)))
            .filter(|_| !order.only_list)
            .collect();
        let (mut cases, mut not_run) = (Vec::new(), Vec::new());
        let count = planned.len();
        self.progress.phase("sweep", Some(count as u64), &format!("{} points, {count} cases", points.len()));
        for (index, (point, fault)) in planned.into_iter().enumerate() {
            let has_failed = order.setting.fail_fast && cases.iter().any(|case: &CaseResult| !case.violated.is_empty());
            if self.interrupt.is_cancelled() || has_failed {
                not_run.push(format!("{} at point {}", fault.name(), point.number));
                continue;
            }
            let at = format!("{}/{count} {} at {}", index + 1, fault.name(), point.name);
            self.progress.at(index as u64, &at);
            let case = self.case(point, fault).await.with_context(|| format!("run the case {at}"))?;
            match case {
                Some(case) => cases.push(case),
                None => not_run.push(format!("{} at point {}", fault.name(), point.number)),
            }
        }
        let manifest = self.manifest;
        Ok(SweepResults {
            schema: SCHEMA,
            run_id: self.directory.id(),
            story: order.story,
            settings: order.settings,
            engine: manifest.engine.clone(),
            commit: manifest.commit.clone(),
            dirty: manifest.dirty,
            system_sha256: manifest.system_sha256.clone(),
            verdict: together(&cases, &not_run),
            points,
            cases,
            not_run,
            seconds: 0.0,
        })
    }

    /// One case; none where it was interrupted.
    async fn case(&self, point: &SweepPoint, fault: PointFault) -> Result<Option<CaseResult>> {
        let began = Instant::now();
        let name = format!("{:03}-{}", point.number, fault.name());
        let (directory, manifest) = self.folder(&self.directory.file(CASES), &name, Some(fault))?;
        let (played, _) =
            run_case(&self.stage, &self.template, &directory, manifest, Some((point, fault)), self.interrupt).await?;
        if self.interrupt.is_cancelled() {
            return Ok(None);
        }
        let judging = directory.clone();
        let results = tokio::task::spawn_blocking(move || -> Result<_> {
            let results = Record::read(&judging)?.judge();
            judging.write("results.json", results.to_json().context("express the results")?.as_bytes())?;
            Ok(results)
        })
        .await??;
        let landed = played.is_some_and(|played| played.landed);
        let case = CaseResult::of(point, fault, format!("{CASES}/{name}"), landed, &results);
        Ok(Some(CaseResult { seconds: began.elapsed().as_secs_f64(), ..case }))
    }

    fn folder(&self, parent: &Path, name: &str, fault: Option<PointFault>) -> Result<(RunDirectory, Manifest)> {
        let directory = RunDirectory::create(parent, name)?;
        let manifest = Manifest {
            run_id: name.to_owned(),
            faults_requested: fault.iter().map(|fault| fault.kind().to_owned()).collect(),
            ..self.manifest.clone()
        };
        Ok((directory, manifest))
    }
}

fn interrupted() -> anyhow::Error {
    EndsWith { code: ExitCode::Interrupted, message: "interrupted".to_owned() }.into()
}

fn manifest(
    order: &SweepOrder<'_>,
    directory: &RunDirectory,
    engine: &dyn Engine,
    started_at: String,
    system_sha256: String,
) -> Manifest {
    let workspace = system_binary::workspace_root();
    let (commit, dirty) = identity::commit_of(&workspace);
    Manifest {
        format: MANIFEST_FORMAT,
        run_id: directory.id(),
        suite: format!("{SWEEP_OF}{}", order.story.name()),
        seed: order.settings.seed,
        engine: engine.kind().to_string(),
        started_at,
        argv: std::env::args().collect(),
        commit,
        dirty,
        faults_requested: Vec::new(),
        settings: Settings::default(),
        lock_sha256: identity::lock_digest(&workspace),
        system_sha256,
        servers: [("engine".to_owned(), engine.description())].into(),
        nogo_version: env!("CARGO_PKG_VERSION").to_owned(),
        host: identity::host(),
        complete: false,
        aborted_because: "it did not come to its end".to_owned(),
        files: Default::default(),
    }
}
