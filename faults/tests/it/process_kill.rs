//! A process killed in the middle of a job.

use std::{
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use nogo_faults::{
    BlastRadius, BoxFuture, ControlError, Fault, InstallError, MidJobProbe, OpenFaults, ProcessControl,
    ProcessIdentity, ProcessKill, ProcessKillLimits, ProofError, Tolerance,
};

const HOLD: Duration = Duration::from_secs(5);

/// Runs `cat`, which waits for input that never comes.
struct Worker(Mutex<(Child, ProcessIdentity)>);

fn start_cat() -> (Child, ProcessIdentity) {
    let child = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("start a worker");
    let identity = ProcessIdentity::of_pid(child.id()).expect("identify the worker");
    (child, identity)
}

impl Worker {
    fn start() -> Arc<Self> {
        Arc::new(Self(Mutex::new(start_cat())))
    }

    fn radius(&self) -> BlastRadius {
        let mut radius = BlastRadius::new(HOLD);
        radius.allow_process(self.identity().expect("running"));
        radius
    }

    fn end(child: &mut Child) {
        child.kill().expect("kill the worker");
        child.wait().expect("reap the worker");
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        Self::end(&mut self.0.get_mut().unwrap_or_else(PoisonError::into_inner).0);
    }
}

impl ProcessControl for Worker {
    fn name(&self) -> String {
        "worker-1".into()
    }
    fn identity(&self) -> Option<ProcessIdentity> {
        Some(self.0.lock().expect("worker").1)
    }
    fn kill(&self, identity: ProcessIdentity) -> BoxFuture<'_, Result<(), ControlError>> {
        Box::pin(async move { identity.kill().map_err(|error| ControlError::from_cause(&error)) })
    }
    fn restart(&self) -> BoxFuture<'_, Result<ProcessIdentity, ControlError>> {
        Box::pin(async {
            let mut held = self.0.lock().expect("worker");
            Self::end(&mut held.0);
            *held = start_cat();
            Ok(held.1)
        })
    }
    fn is_alive(&self) -> BoxFuture<'_, bool> {
        Box::pin(async { self.0.lock().expect("worker").1.alive() })
    }
}

/// In the middle of a job from the given look on.
struct BusyFromLook(u32, AtomicU32);

impl BusyFromLook {
    fn new(look: u32) -> Arc<Self> {
        Arc::new(Self(look, AtomicU32::new(0)))
    }
}

impl MidJobProbe for BusyFromLook {
    fn mid_job(&self) -> BoxFuture<'_, Option<String>> {
        let look = self.1.fetch_add(1, Ordering::Relaxed) + 1;
        Box::pin(async move { (look >= self.0).then(|| format!("job 7 at look {look}")) })
    }
}

fn kill(worker: &Arc<Worker>, probe: Arc<dyn MidJobProbe>, mid_job_ms_max: u64) -> ProcessKill {
    ProcessKill::new(
        worker.clone(),
        probe,
        ProcessKillLimits { mid_job_ms_max, ..ProcessKillLimits::default() },
        Tolerance { goodput_ratio_min: 0.9, outage_ms_max: 1_000, recover_ms_max: 5_000 },
    )
}

#[tokio::test]
async fn process_kill_bites_and_heals() {
    let worker = Worker::start();
    let bystander = Worker::start();
    let victim = worker.identity().expect("running");
    let probe = BusyFromLook::new(5);
    let mut fault = kill(&worker, probe.clone(), 5_000);
    let grant = worker.radius().grant(&fault, HOLD).expect("inside");
    let proof = fault.install(&grant).await.expect("install");
    assert_eq!(proof.kind, "process_gone");
    assert_eq!(proof.detail["pid"], victim.pid);
    assert_eq!(proof.detail["in_proc"], false);
    assert_eq!(proof.detail["mid_job"], "job 7 at look 5", "struck at the first look that gave evidence");
    assert!(!victim.alive());
    assert!(bystander.is_alive().await, "another process is outside the radius");
    fault.control_proof().await.expect("still gone");

    let healed = fault.heal().await.expect("heal");
    assert_eq!(healed.detail["restarted"], true);
    let successor = worker.identity().expect("running");
    assert_ne!(successor, victim);
    assert!(successor.alive());
    assert!(matches!(fault.control_proof().await, Err(ProofError::NoHarm(_))));
    assert_eq!(fault.heal().await.expect("heal is idempotent").detail["restarted"], false);
    assert_eq!(worker.identity(), Some(successor));
}

#[tokio::test]
async fn a_process_that_never_works_is_not_killed() {
    let worker = Worker::start();
    let faults = OpenFaults::new();
    let fault = kill(&worker, BusyFromLook::new(u32::MAX), 100);
    let error = faults.install(&worker.radius(), HOLD, Box::new(fault)).await.expect_err("cannot land");
    assert!(matches!(error, InstallError::ConditionNotMet { limit_ms: 100, .. }), "{error}");
    assert!(worker.is_alive().await);
    assert!(faults.open().is_empty());
}

#[tokio::test]
async fn a_process_restarted_after_the_grant_is_not_killed() {
    let worker = Worker::start();
    let mut fault = kill(&worker, BusyFromLook::new(1), 1_000);
    let grant = worker.radius().grant(&fault, HOLD).expect("inside");
    worker.restart().await.expect("restart");
    let error = fault.install(&grant).await.expect_err("not granted");
    assert!(matches!(error, InstallError::OutsideRadius(_)), "{error}");
    assert!(worker.is_alive().await);
}

#[tokio::test]
async fn a_fault_whose_task_panicked_is_healed_from_the_ledger() {
    let worker = Worker::start();
    let faults = OpenFaults::new();
    let radius = worker.radius();
    let fault = kill(&worker, BusyFromLook::new(1), 1_000);
    let ledger = faults.clone();
    let task = tokio::spawn(async move {
        ledger.install(&radius, HOLD, Box::new(fault)).await.expect("install");
        panic!("the run broke while a fault was installed");
    });
    assert!(task.await.expect_err("panicked").is_panic());
    assert!(!worker.is_alive().await);
    let report = faults.heal_all(HOLD).await;
    assert!(report.is_clean() && report.healed.len() == 1, "{report:?}");
    assert!(worker.is_alive().await);
}
