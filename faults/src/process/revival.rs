//! A process that a fault ended, started again and seen to run.

use std::time::Duration;

use serde_json::json;

use super::{ProcessIdentity, control::ProcessControl};
use crate::fault::{HealError, Proof};

/// The healing of every fault that ends a process. Changes nothing where it runs.
pub(super) struct Revival<'a> {
    pub(super) fault: &'a str,
    pub(super) control: &'a dyn ProcessControl,
    /// The incarnation that the fault struck, if it came to that.
    pub(super) struck: Option<ProcessIdentity>,
    pub(super) death_ms_max: u64,
    pub(super) restart_ms_max: u64,
}

impl Revival<'_> {
    pub(super) async fn run(self) -> Result<Proof, HealError> {
        if let Some(struck) = self.struck
            && !ends_within(struck, self.death_ms_max).await
        {
            // Its end was asked for and did not come: alive, but in no state to be trusted.
            let reason = format!("{struck} neither ended nor can be replaced");
            return Err(self.still_hurt(self.death_ms_max, reason));
        }
        if let Some(identity) = self.control.identity()
            && identity.alive()
        {
            return Ok(runs(self.control, identity, false));
        }
        let limit = Duration::from_millis(self.restart_ms_max);
        let identity = tokio::time::timeout(limit, self.control.restart())
            .await
            .map_err(|_| self.still_hurt(self.restart_ms_max, "the restart did not return".into()))?
            .map_err(|cause| HealError::Target { step: "restart process", reason: cause.to_string() })?;
        if Some(identity) == self.struck || !identity.alive() {
            let reason = format!("{identity} does not run after the restart");
            return Err(self.still_hurt(self.restart_ms_max, reason));
        }
        Ok(runs(self.control, identity, true))
    }

    fn still_hurt(&self, limit_ms: u64, reason: String) -> HealError {
        HealError::StillHurt { fault: self.fault.into(), limit_ms, reason }
    }
}

/// Evidence that `identity` runs.
pub(super) fn runs(control: &dyn ProcessControl, identity: ProcessIdentity, restarted: bool) -> Proof {
    Proof::new(
        "process_runs",
        json!({
            "process": control.name(),
            "pid": identity.pid,
            "start_ticks": identity.start_ticks,
            "restarted": restarted,
        }),
    )
}

/// Whether it is gone within that time.
pub(super) async fn ends_within(identity: ProcessIdentity, limit_ms: u64) -> bool {
    let wait = async {
        let mut tick = tokio::time::interval(Duration::from_millis(1));
        while identity.alive() {
            tick.tick().await;
        }
    };
    tokio::time::timeout(Duration::from_millis(limit_ms), wait).await.is_ok()
}
