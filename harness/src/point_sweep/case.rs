//! One run of the story: set up, played with one fault at one point or with none, read, closed, recorded.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use nogo_faults::Point;
use nogo_invariants::final_state::FinalState;
use nogo_invariants::history::{Event, Header, Phase};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::plan::{PointFault, SweepPoint};
use super::play::Play;
use super::scene::{LOOK_EVERY, POLL_MS, Scene};
use super::stage::{CASE, Stage};
use super::strike::{Strike, TRAILING};
use super::template::Template;
use crate::final_reads::{provider_book, read_rows, scan_file};
use crate::run_directory::{Manifest, RunDirectory};

/// Time for a worker's next look at the queue.
const BEAT_LIMIT: Duration = Duration::from_millis(3 * POLL_MS);
/// How long nothing is done before the story is listed: what comes in it comes by itself, as a worker's looks for work do
/// and whatever an API keeps up.
const IDLE: Duration = Duration::from_secs(2);
/// Time for the queue to be empty once the story is over and everything is healed: more than three leases.
const QUIESCE_LIMIT: Duration = Duration::from_secs(10);

/// What a run of the story showed beside its record.
pub(super) struct Played {
    /// Whether the fault came about; true where there was none.
    pub landed: bool,
    /// Everything that passed the proxies from the story's beginning to its end.
    pub listed: Vec<Point>,
    /// What passed them while nothing was done; only without a fault.
    pub idle: Vec<Point>,
}

/// Runs the story once, in the folder `directory`, whose manifest is sealed whatever happens; with one fault at one
/// point, or with none.
///
/// # Errors
/// Only what makes the folder unusable: a harness that stumbled in between leaves a record that says so, and the reason
/// comes back as the second part.
pub(super) async fn run_case(
    stage: &Arc<Stage>,
    template: &Template,
    directory: &RunDirectory,
    mut manifest: Manifest,
    struck: Option<(&SweepPoint, PointFault)>,
    interrupt: &CancellationToken,
) -> Result<(Option<Played>, Option<String>)> {
    let rule = struck.map(|(point, fault)| point.rule(fault));
    let schedule = rule.map(|rule| toml::to_string(&rule)).transpose().context("write the case's rule")?;
    directory.write("schedule.toml", schedule.unwrap_or_default().as_bytes())?;
    directory.seal(&mut manifest)?;
    let mut final_state = FinalState { billing_runs: template.billing_runs.clone(), ..FinalState::default() };
    let went = act(stage, template, directory, struck, interrupt, &mut final_state).await;
    let state = zstd::encode_all(&serde_json::to_vec(&final_state)?[..], 3).context("compress the final state")?;
    directory.write("final_state.json.zst", &state)?;
    let (played, broke_off) = match went {
        Ok(played) => (Some(played), None),
        Err(error) => (None, Some(format!("{error:#}"))),
    };
    manifest.complete = broke_off.is_none();
    manifest.aborted_because = broke_off.clone().unwrap_or_default();
    directory.seal(&mut manifest)?;
    Ok((played, broke_off))
}

/// Sets up, plays, reads; closes on every way out.
async fn act(
    stage: &Arc<Stage>,
    template: &Template,
    directory: &RunDirectory,
    struck: Option<(&SweepPoint, PointFault)>,
    interrupt: &CancellationToken,
    final_state: &mut FinalState,
) -> Result<Played> {
    let mut before = template.before.clone();
    if let Some(Event::Header(Header { run_id, .. })) = before.first_mut() {
        *run_id = directory.id();
    }
    stage.set_up().await.context("set the stage")?;
    let charges = template.props.charges.clone();
    let scene = Scene::open(stage, CASE, directory.root(), before, charges).await?;
    let went = tokio::select! {
        () = interrupt.cancelled() => Err(anyhow::anyhow!("interrupted")),
        went = play(&scene, template, struck, final_state) => went,
    };
    final_state.billing_runs.extend(scene.billing_runs());
    let (recorder, book) = scene.close(false).await.context("close the case")?;
    final_state.provider = provider_book(&book);
    search_logs(stage, directory, final_state)?;
    tokio::task::spawn_blocking(move || recorder.finish()).await??;
    went
}

async fn play(
    scene: &Scene,
    template: &Template,
    struck: Option<(&SweepPoint, PointFault)>,
    final_state: &mut FinalState,
) -> Result<Played> {
    scene.recorder.enter_phase(Phase::Provision, 0);
    scene.book.set_listing(true);
    let services = scene.stage.story.services();
    futures_util::future::try_join_all(services.iter().map(|name| scene.start(name))).await?;
    let has_worker = services.iter().any(|name| name.starts_with("worker"));
    let mut idle = Vec::new();
    if struck.is_none() && !services.is_empty() {
        scene.book.forget_points();
        tokio::time::sleep(IDLE).await;
        idle = scene.book.points().0;
    }
    if has_worker {
        // Right after a look for work the next one is far, so the first that comes is the one the story calls for.
        wait_for_beat(scene).await?;
    }
    scene.recorder.enter_phase(Phase::Load, 0);
    scene.book.forget_points();
    let strike = struck.map(|(point, fault)| Strike::arm(scene, point, fault)).transpose()?;
    let play = Play::new(scene, template.props.clone());
    let steps = play.steps();
    let (over, is_over) = watch::channel(false);
    let playing = async {
        let played = play.perform(scene.stage.story).await;
        over.send_replace(true);
        played
    };
    let striking = async {
        match &strike {
            Some(strike) => strike.carry_out(steps, is_over).await,
            None => Ok(true),
        }
    };
    let (played, landed) = tokio::join!(playing, striking);
    if strike.is_none() {
        tokio::time::sleep(TRAILING).await;
    }
    let listed = scene.book.points().0;
    played.context("play the story")?;
    let landed = landed.context("strike")?;
    scene.recorder.enter_phase(Phase::Quiesce, 0);
    if let Some(strike) = &strike {
        strike.recovered().await?;
    }
    let unfinished = wait_for_empty_queue(scene, has_worker).await?;
    scene.recorder.probe("queue drained", unfinished == 0, &format!("{unfinished} jobs unfinished"));
    scene.recorder.enter_phase(Phase::Final, 0);
    let runs = std::mem::take(&mut final_state.billing_runs);
    *final_state = read_rows(&scene.read_dsn(), &scene.stage.canaries).await?;
    final_state.billing_runs = runs;
    final_state.quiesced = unfinished == 0;
    Ok(Played { landed, listed, idle })
}

/// Waits until a worker has looked at the queue: for a while from then on it comes only when it is called.
async fn wait_for_beat(scene: &Scene) -> Result<()> {
    let looks = || {
        let (points, _) = scene.book.points();
        points.iter().filter(|point| point.origin.role == "worker" && point.outcome.is_some()).count()
    };
    let before = looks();
    let deadline = Instant::now() + BEAT_LIMIT;
    while looks() == before {
        if Instant::now() > deadline {
            bail!("no worker has looked at the queue for {} ms", BEAT_LIMIT.as_millis());
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Ok(())
}

async fn wait_for_empty_queue(scene: &Scene, has_worker: bool) -> Result<i64> {
    let deadline = Instant::now() + QUIESCE_LIMIT;
    loop {
        let statement = "SELECT count(*) FROM app.jobs WHERE state IN ('queued', 'running')";
        let unfinished: i64 = sqlx::query_scalar(statement).fetch_one(&scene.reader).await.context("read the queue")?;
        if unfinished == 0 || !has_worker || Instant::now() >= deadline {
            return Ok(unfinished);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Nobody writes to the logs any more.
fn search_logs(stage: &Stage, directory: &RunDirectory, final_state: &mut FinalState) -> Result<()> {
    let entries = std::fs::read_dir(directory.file("logs")).context("list the case's logs")?;
    let mut logs: Vec<std::path::PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    logs.sort();
    for path in logs {
        let process = path.file_stem().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        final_state.leaks.push(scan_file(&format!("log:{process}"), &path, &stage.canaries)?);
    }
    Ok(())
}
