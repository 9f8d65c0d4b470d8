//! A process that stands still in the middle of a job, and later goes on as if no time had passed.

use std::{sync::Arc, time::Duration};

use serde_json::json;

use super::{
    control::{MidJobProbe, ProcessControl},
    kill::wait_for_mid_job,
    victim::{ProcessLimits, Victim},
};
use crate::{
    blast_radius::Target,
    fault::{HealError, InstallError, Proof, ProofError},
    harm::{Harm, Wait, refused, unhealed},
};

/// Between two looks at what it does.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// Stops a process (SIGSTOP) when `moment` first gives evidence; healing lets it go on (SIGCONT).
pub struct ProcessFreeze {
    victim: Victim,
    moment: Arc<dyn MidJobProbe>,
}

impl ProcessFreeze {
    /// The freezing, under `name`, of the process behind `control`.
    pub fn new(
        name: &'static str,
        control: Arc<dyn ProcessControl>,
        moment: Arc<dyn MidJobProbe>,
        limits: ProcessLimits,
    ) -> Self {
        Self { victim: Victim::new(name, control, limits), moment }
    }

    fn look_frozen(&self) -> Result<Proof, String> {
        let struck = self.victim.standing()?;
        if struck.is_paused() {
            Ok(self.victim.proof("process_stands_still", struck, json!({ "state": "T" })))
        } else {
            Err(format!("{struck} goes on"))
        }
    }
}

impl Harm for ProcessFreeze {
    fn name(&self) -> &str {
        self.victim.fault
    }

    fn targets(&self) -> Vec<Target> {
        self.victim.targets()
    }

    async fn strike(&mut self) -> Result<Proof, InstallError> {
        let identity = self.victim.strike()?;
        let process = self.victim.control.name();
        let limit_ms = self.victim.limits.land_ms_max;
        let (evidence, _) = wait_for_mid_job(&process, self.moment.as_ref(), limit_ms, LOOK_EVERY).await?;
        // One that was started anew while we waited was never granted.
        identity.pause().map_err(refused("stop the process"))?;
        let mut proof = self.victim.lands(|| self.look_frozen()).await?;
        proof.detail["mid_job"] = evidence.into();
        Ok(proof)
    }

    async fn look(&mut self) -> Result<Proof, ProofError> {
        self.look_frozen().map_err(ProofError::NoHarm)
    }

    async fn undo(&mut self) -> Result<Proof, HealError> {
        let identity = match self.victim.to_heal()? {
            Ok(identity) => identity,
            Err(proof) => return Ok(proof),
        };
        identity.resume().map_err(unhealed("let the process go on"))?;
        let wait = Wait::of_ms(self.victim.limits.heal_ms_max);
        while identity.is_paused() {
            wait.for_healing(self.victim.fault, format!("{identity} stands still")).await?;
        }
        Ok(self.victim.is_healed(identity))
    }
}
