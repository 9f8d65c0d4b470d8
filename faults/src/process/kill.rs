//! SIGKILL of one process, struck while it is in the middle of a job.
//!
//! The process belongs to the caller's supervisor, which also restarts it; the proof of death
//! is read from `/proc` here, not taken from the supervisor.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::json;

use super::{
    ProcessIdentity,
    control::{MidJobProbe, ProcessControl},
    revival::{Revival, ends_within},
};
use crate::{
    blast_radius::{Grant, Target},
    fault::{BoxFuture, Fault, HealError, InstallError, Proof, ProofError, Tolerance},
};

/// Limits of each wait of [`ProcessKill`], milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProcessKillLimits {
    /// Longest wait for the middle of a job.
    pub mid_job_ms_max: u64,
    /// Time between two looks at the middle-of-job probe.
    pub mid_job_poll_ms: u64,
    /// Longest wait for the process to be gone after SIGKILL.
    pub death_ms_max: u64,
    /// Longest wait for the new incarnation.
    pub restart_ms_max: u64,
}

impl Default for ProcessKillLimits {
    fn default() -> Self {
        Self { mid_job_ms_max: 10_000, mid_job_poll_ms: 2, death_ms_max: 5_000, restart_ms_max: 15_000 }
    }
}

/// Kills one process in the middle of a job; healing starts it again.
pub struct ProcessKill {
    control: Arc<dyn ProcessControl>,
    mid_job: Arc<dyn MidJobProbe>,
    limits: ProcessKillLimits,
    tolerance: Tolerance,
    struck: Option<ProcessIdentity>,
    used: bool,
}

impl ProcessKill {
    /// Name of this fault.
    pub const NAME: &'static str = "process-kill";

    /// A kill of the process behind `control` when `mid_job` first gives evidence.
    pub fn new(
        control: Arc<dyn ProcessControl>,
        mid_job: Arc<dyn MidJobProbe>,
        limits: ProcessKillLimits,
        tolerance: Tolerance,
    ) -> Self {
        Self { control, mid_job, limits, tolerance, struck: None, used: false }
    }

    async fn strike(&mut self, grant: &Grant) -> Result<Proof, InstallError> {
        if std::mem::replace(&mut self.used, true) {
            return Err(InstallError::Used { fault: Self::NAME.into() });
        }
        grant.covers(&self.targets())?;
        let look_every = Duration::from_millis(self.limits.mid_job_poll_ms.max(1));
        let (process, limit_ms) = (self.control.name(), self.limits.mid_job_ms_max);
        let (evidence, seen_at) = wait_for_mid_job(&process, self.mid_job.as_ref(), limit_ms, look_every).await?;
        // Asked again: a process that was restarted while we waited was never granted.
        grant.covers(&self.targets())?;
        let Some(identity) = self.control.identity() else {
            return Err(InstallError::DidNotLand {
                fault: Self::NAME.into(),
                reason: "the process is not running".into(),
            });
        };
        if !identity.alive() {
            return Err(InstallError::DidNotLand {
                fault: Self::NAME.into(),
                reason: format!("{identity} had ended before the blow"),
            });
        }
        self.struck = Some(identity);
        self.control
            .kill(identity)
            .await
            .map_err(|cause| InstallError::Target { step: "kill process", reason: cause.to_string() })?;
        let sent_after = seen_at.elapsed();
        if !ends_within(identity, self.limits.death_ms_max).await {
            return Err(InstallError::DidNotLand {
                fault: Self::NAME.into(),
                reason: format!("{identity} runs {} ms after SIGKILL", self.limits.death_ms_max),
            });
        }
        Ok(Proof::new(
            "process_gone",
            json!({
                "process": self.control.name(),
                "pid": identity.pid,
                "start_ticks": identity.start_ticks,
                "in_proc": identity.alive(),
                "mid_job": evidence,
                "killed_after_evidence_us": u64::try_from(sent_after.as_micros()).unwrap_or(u64::MAX),
            }),
        ))
    }
}

impl Fault for ProcessKill {
    fn name(&self) -> &str {
        Self::NAME
    }

    fn targets(&self) -> Vec<Target> {
        self.control
            .identity()
            .map(|identity| Target::Process { name: self.control.name(), identity })
            .into_iter()
            .collect()
    }

    fn tolerance(&self) -> Tolerance {
        self.tolerance
    }

    fn install<'a>(&'a mut self, grant: &'a Grant) -> BoxFuture<'a, Result<Proof, InstallError>> {
        Box::pin(self.strike(grant))
    }

    fn control_proof(&mut self) -> BoxFuture<'_, Result<Proof, ProofError>> {
        Box::pin(async {
            let Some(struck) = self.struck else {
                return Err(ProofError::NoHarm("nothing was killed".into()));
            };
            if struck.alive() {
                return Err(ProofError::NoHarm(format!("{struck} runs")));
            }
            if self.control.is_alive().await {
                return Err(ProofError::NoHarm(format!("{} runs again", self.control.name())));
            }
            Ok(Proof::new(
                "process_gone",
                json!({
                    "process": self.control.name(),
                    "pid": struck.pid,
                    "start_ticks": struck.start_ticks,
                    "in_proc": false,
                }),
            ))
        })
    }

    fn heal(&mut self) -> BoxFuture<'_, Result<Proof, HealError>> {
        let revival = Revival {
            fault: Self::NAME,
            control: self.control.as_ref(),
            struck: self.struck,
            death_ms_max: self.limits.death_ms_max,
            restart_ms_max: self.limits.restart_ms_max,
        };
        Box::pin(revival.run())
    }
}

/// Waits for the evidence; with the moment at which it was there.
pub(super) async fn wait_for_mid_job(
    process: &str,
    mid_job: &dyn MidJobProbe,
    limit_ms: u64,
    look_every: Duration,
) -> Result<(String, Instant), InstallError> {
    let wait = async {
        let mut tick = tokio::time::interval(look_every);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            if let Some(evidence) = mid_job.mid_job().await {
                return (evidence, Instant::now());
            }
        }
    };
    tokio::time::timeout(Duration::from_millis(limit_ms), wait)
        .await
        .map_err(|_| InstallError::ConditionNotMet { condition: format!("{process} in the middle of a job"), limit_ms })
}
