//! Faults of the system's own processes, planted.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use nogo_faults::{
    AnyMoment, BlastRadius, BoxFuture, Burden, ClockApart, CpuStarved, DescriptorsExhausted, Fault, FaultRow, Harm,
    MemoryExhausted, MidJobProbe, ProcessControl, ProcessDrain, ProcessFreeze, ProcessKill, ProcessKillLimits,
    ProcessLimits, RestartStorm, RollingRestart, Struck,
};
use sqlx::PgPool;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{Planted, Site};
use crate::environment::registration::group_prefix;
use crate::environment::system_process::SystemProcess;
use crate::environment::topology::BILLERS;
use crate::nemesis::effect::{
    ClaimsNothing, ClockSeen, EffectProbe, LeasesLost, NewConnection, OrphanedJobs, Readiness, SlowAnswers, Unwell,
};
use crate::workload::Load;

/// Long jobs put into the queue so that the victim is in the middle of one.
const BAITS: usize = 4;
/// Paths of such a job: most of a second of one core.
const BAIT_PATHS: u32 = 30_000;
/// How many at most, and the time between two once the first few are there.
const BAITS_MAX: usize = 24;
const BAIT_EVERY: Duration = Duration::from_millis(500);
/// Months of such a job.
const BAIT_MONTHS: u32 = 36;
/// Jobs at a time for a worker that may map nothing: a few, since their kind goes to all workers.
const LARGE_JOBS: usize = 2;
/// Paths and months of such a job: 69 MiB of figures. The C library's allocator finds room for up to 64 MiB in what it
/// reserved for a thread before, and maps what is over that anew.
const LARGE_PATHS: u32 = 75_000;
const LARGE_MONTHS: u32 = 60;
/// The victim that stands for all APIs.
const APIS: &str = "apis";
/// How long each incarnation works in a storm.
const LIFE: Duration = Duration::from_millis(400);
/// What a starved process gets of one core, in hundredths: an API, a worker.
const STARVED_PERCENT: (u64, u64) = (10, 5);
/// An answer this late is a starved process's, milliseconds.
const STARVED_MS: u64 = 40;
/// How far a skewed clock is ahead, seconds: less than the leeway that tokens of another instance are given.
pub const SKEW_S: u64 = 4;
/// More than any leeway, seconds.
const STEP_S: i64 = 3_600;

/// Makes the fault of this family that `row` describes.
pub(super) async fn plant(row: &'static FaultRow, mut radius: BlastRadius, site: &Site<'_>) -> Result<Planted> {
    let target = site.step.target.as_str();
    if target == APIS {
        return rolling_restart(row, radius, site);
    }
    if BILLERS.contains(&target) {
        return super::biller::plant(row, radius, site).await;
    }
    let victim = site.topology.process_named(target)?;
    radius.allow_process(victim.current_identity().with_context(|| format!("find a running {target}"))?);
    let is_worker = site.topology.workers().iter().any(|worker| worker.process_name() == target);
    // Before the harm: what it shows is counted from here on.
    let probe = probe(row, site, &victim, is_worker).await?;
    let control: Arc<dyn ProcessControl> = Arc::clone(&victim) as Arc<dyn ProcessControl>;
    let limits = ProcessLimits::default();
    let fault: Box<dyn Fault> = match row.name {
        "worker-crash" => {
            let moment = Arc::new(mid_job(site));
            Box::new(ProcessKill::new(control, moment, ProcessKillLimits::default(), row.tolerance))
        }
        "api-crash" => {
            Box::new(ProcessKill::new(control, Arc::new(AnyMoment), ProcessKillLimits::default(), row.tolerance))
        }
        "worker-freeze" => struck(row, ProcessFreeze::new(row.name, control, Arc::new(mid_job(site)), limits)),
        "worker-drain" | "api-drain" => struck(row, ProcessDrain::new(row.name, control, limits)),
        "restart-storm" => {
            bait_if(is_worker, site).await;
            struck(row, RestartStorm::new(row.name, control, LIFE, limits))
        }
        "cpu-starved" => {
            let group = format!("{}f{}", group_prefix(site.topology.run_id()), site.number);
            let percent = if is_worker { STARVED_PERCENT.1 } else { STARVED_PERCENT.0 };
            struck(row, CpuStarved::new(row.name, control, group, percent, limits))
        }
        "memory-limit" => struck(row, MemoryExhausted::new(row.name, control, large_jobs(site), limits)),
        "clock-skew" | "clock-step" => {
            let file = site.topology.clock_file(target);
            struck(row, ClockApart::new(row.name, control, file, ahead_s(row), limits))
        }
        "descriptors" => struck(row, DescriptorsExhausted::new(row.name, control, limits)),
        other => bail!("fault '{other}' has a row and no implementation"),
    };
    Ok(Planted { row, fault, radius, probe })
}

fn struck<H: Harm + 'static>(row: &FaultRow, harm: H) -> Box<dyn Fault> {
    Box::new(Struck::new(harm, row.tolerance))
}

fn ahead_s(row: &FaultRow) -> i64 {
    if row.name == "clock-skew" { SKEW_S.cast_signed() } else { STEP_S }
}

/// How each shows itself.
async fn probe(
    row: &FaultRow,
    site: &Site<'_>,
    victim: &SystemProcess,
    is_worker: bool,
) -> Result<Box<dyn EffectProbe>> {
    let (reader, worker) = (site.reader.clone(), site.step.target.clone());
    Ok(match row.name {
        "worker-crash" => Box::new(OrphanedJobs::new(reader, worker)),
        "worker-drain" => Box::new(ClaimsNothing { reader, workers: vec![worker] }),
        "cpu-starved" => Box::new(SlowAnswers::new(asked_at(victim, is_worker)?, STARVED_MS).await),
        "clock-skew" | "clock-step" => {
            let field = if is_worker { "metrics" } else { "address" };
            let url = format!("http://{}/metrics", victim.address(field)?);
            Box::new(ClockSeen { url, ahead_s: ahead_s(row) })
        }
        "descriptors" => Box::new(NewConnection { url: asked_at(victim, is_worker)? }),
        "worker-freeze" | "restart-storm" | "memory-limit" if is_worker => {
            Box::new(LeasesLost::new(reader, worker).await?)
        }
        _ => Box::new(readiness(site)?.felt_by(vec![site.step.target.clone()])),
    })
}

/// Where a stranger asks the process.
fn asked_at(victim: &SystemProcess, is_worker: bool) -> Result<String> {
    let (field, path) = if is_worker { ("metrics", "/metrics") } else { ("address", "/livez") };
    Ok(format!("http://{}{path}", victim.address(field)?))
}

fn readiness(site: &Site<'_>) -> Result<Readiness> {
    Readiness::new(site.topology.api_base_urls()?, Unwell::NotReady)
}

/// Every API drained and started again, in turn.
fn rolling_restart(row: &'static FaultRow, mut radius: BlastRadius, site: &Site<'_>) -> Result<Planted> {
    let mut controls: Vec<Arc<dyn ProcessControl>> = Vec::new();
    for api in site.topology.apis() {
        let name = api.process_name();
        radius.allow_process(api.current_identity().with_context(|| format!("find a running {name}"))?);
        controls.push(Arc::clone(api) as Arc<dyn ProcessControl>);
    }
    let fault = struck(row, RollingRestart::new(row.name, controls, ProcessLimits::default()));
    Ok(Planted { row, fault, radius, probe: Box::new(readiness(site)?) })
}

async fn bait_if(is_worker: bool, site: &Site<'_>) {
    if is_worker {
        site.load.submit_long_forecasts(BAITS, BAIT_PATHS, BAIT_MONTHS).await;
    }
}

/// Puts jobs into the queue that no worker has the memory for by chance.
fn large_jobs(site: &Site<'_>) -> Arc<dyn Burden> {
    let load = Arc::clone(site.load);
    Arc::new(move || -> BoxFuture<'static, ()> {
        let load = Arc::clone(&load);
        // Its own task: whoever has seen enough lets go of this, and no request may be given up half-way.
        let laid = tokio::spawn(async move { load.submit_long_forecasts(LARGE_JOBS, LARGE_PATHS, LARGE_MONTHS).await });
        Box::pin(async move { drop(laid.await) })
    })
}

/// Puts long jobs into the queue, until the victim is seen to run one; tells when it does.
fn mid_job(site: &Site<'_>) -> LongJobHeld {
    let (baits, enough) = (Arc::new(Mutex::new(Vec::new())), CancellationToken::new());
    tokio::spawn(lay_baits(Arc::clone(site.load), Arc::clone(&baits), enough.clone()));
    LongJobHeld {
        reader: site.reader.clone(),
        worker: site.step.target.clone(),
        baits,
        _laying: enough.clone().drop_guard(),
        enough,
    }
}

/// A few at once, then one now and then: on a busy machine the first are done, or another worker's, before anybody looks.
async fn lay_baits(load: Arc<Load>, baits: Arc<Mutex<Vec<String>>>, enough: CancellationToken) {
    for laid in 0..BAITS_MAX {
        if laid >= BAITS {
            tokio::select! {
                () = enough.cancelled() => {}
                () = tokio::time::sleep(BAIT_EVERY) => {}
            }
        }
        // A request is never given up half-way: the history would not know its outcome.
        if enough.is_cancelled() {
            return;
        }
        let accepted = load.submit_long_forecasts(1, BAIT_PATHS, BAIT_MONTHS).await;
        baits.lock().unwrap_or_else(PoisonError::into_inner).extend(accepted);
    }
}

/// Whether the victim runs one of the long jobs right now.
struct LongJobHeld {
    reader: PgPool,
    worker: String,
    baits: Arc<Mutex<Vec<String>>>,
    enough: CancellationToken,
    _laying: DropGuard,
}

impl MidJobProbe for LongJobHeld {
    fn mid_job(&self) -> BoxFuture<'_, Option<String>> {
        Box::pin(async move {
            let baits = self.baits.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let held: Option<(String, i32)> = sqlx::query_as(
                "SELECT job_id::text, attempts FROM app.jobs
                 WHERE state = 'running' AND (worker = $1 OR worker LIKE $1 || '/%') AND subject_id::text = ANY($2) LIMIT 1",
            )
            .bind(&self.worker)
            .bind(&baits)
            .fetch_optional(&self.reader)
            .await
            .ok()
            .flatten();
            if held.is_some() {
                self.enough.cancel();
            }
            held.map(|(job, attempts)| format!("{} runs job {job}, attempt {attempts}", self.worker))
        })
    }
}
