//! SIGKILL of one process, struck while it is in the middle of a job.
//!
//! The process belongs to the caller's supervisor, which also restarts it; the proof of death
//! is read from `/proc` here, not taken from the supervisor.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::json;

use super::ProcessIdentity;
use crate::{
    blast_radius::{Grant, Target},
    fault::{BoxFuture, ControlError, Fault, HealError, InstallError, Proof, ProofError, Tolerance},
};

/// Who starts and ends one process of the run.
pub trait ProcessControl: Send + Sync {
    /// Name of the process within the run, such as `worker-1`.
    fn name(&self) -> String;

    /// The present incarnation, or the last one if it has ended; none before the first start.
    fn identity(&self) -> Option<ProcessIdentity>;

    /// Sends SIGKILL to this incarnation and to no other, and takes note that its end is
    /// intended. Need not wait for the end. [`ProcessIdentity::kill`] does the sending.
    fn kill(&self, identity: ProcessIdentity) -> BoxFuture<'_, Result<(), ControlError>>;

    /// Starts the process anew, reaping the old one; returns when the new one runs.
    fn restart(&self) -> BoxFuture<'_, Result<ProcessIdentity, ControlError>>;

    /// Whether the present incarnation runs, as the operating system or engine sees it.
    fn is_alive(&self) -> BoxFuture<'_, bool>;
}

/// Tells whether a process is in the middle of a job.
pub trait MidJobProbe: Send + Sync {
    /// The evidence (a job's id, its lease, its attempt), or none if it is idle right now.
    fn mid_job(&self) -> BoxFuture<'_, Option<String>>;
}

impl<F> MidJobProbe for F
where
    F: Fn() -> BoxFuture<'static, Option<String>> + Send + Sync,
{
    fn mid_job(&self) -> BoxFuture<'_, Option<String>> {
        self()
    }
}

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
        let (evidence, seen_at) = self.wait_for_mid_job().await?;
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

    async fn wait_for_mid_job(&self) -> Result<(String, Instant), InstallError> {
        let limit = Duration::from_millis(self.limits.mid_job_ms_max);
        let wait = async {
            let mut tick = tokio::time::interval(Duration::from_millis(self.limits.mid_job_poll_ms.max(1)));
            tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                tick.tick().await;
                if let Some(evidence) = self.mid_job.mid_job().await {
                    return (evidence, Instant::now());
                }
            }
        };
        tokio::time::timeout(limit, wait).await.map_err(|_| InstallError::ConditionNotMet {
            condition: format!("{} in the middle of a job", self.control.name()),
            limit_ms: self.limits.mid_job_ms_max,
        })
    }

    async fn revive(&mut self) -> Result<Proof, HealError> {
        if let Some(struck) = self.struck
            && !ends_within(struck, self.limits.death_ms_max).await
        {
            // SIGKILL was asked for and did not end it: alive, but in no state to be trusted.
            return Err(HealError::StillHurt {
                fault: Self::NAME.into(),
                limit_ms: self.limits.death_ms_max,
                reason: format!("{struck} neither ended nor can be replaced"),
            });
        }
        if let Some(identity) = self.control.identity()
            && identity.alive()
        {
            return Ok(self.runs(identity, false));
        }
        let limit = Duration::from_millis(self.limits.restart_ms_max);
        let identity = tokio::time::timeout(limit, self.control.restart())
            .await
            .map_err(|_| HealError::StillHurt {
                fault: Self::NAME.into(),
                limit_ms: self.limits.restart_ms_max,
                reason: "the restart did not return".into(),
            })?
            .map_err(|cause| HealError::Target { step: "restart process", reason: cause.to_string() })?;
        if Some(identity) == self.struck || !identity.alive() {
            return Err(HealError::StillHurt {
                fault: Self::NAME.into(),
                limit_ms: self.limits.restart_ms_max,
                reason: format!("{identity} does not run after the restart"),
            });
        }
        Ok(self.runs(identity, true))
    }

    fn runs(&self, identity: ProcessIdentity, restarted: bool) -> Proof {
        Proof::new(
            "process_runs",
            json!({
                "process": self.control.name(),
                "pid": identity.pid,
                "start_ticks": identity.start_ticks,
                "restarted": restarted,
            }),
        )
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
        Box::pin(self.revive())
    }
}

async fn ends_within(identity: ProcessIdentity, limit_ms: u64) -> bool {
    let wait = async {
        let mut tick = tokio::time::interval(Duration::from_millis(1));
        while identity.alive() {
            tick.tick().await;
        }
    };
    tokio::time::timeout(Duration::from_millis(limit_ms), wait).await.is_ok()
}
