//! Processes of a role killed together and started again: what others then come back to is cold.

use std::sync::Arc;

use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::{
    ProcessIdentity,
    control::ProcessControl,
    victim::{ProcessLimits, Victim},
};
use crate::{
    blast_radius::Target,
    fault::{HealError, InstallError},
    harm::{Wait, refused},
};

/// Processes that are all killed at once, and work again.
pub(crate) struct AllRestarted {
    fault: &'static str,
    victims: Vec<Victim>,
}

impl AllRestarted {
    /// The processes behind `controls`, on behalf of `fault`.
    pub(crate) fn new(fault: &'static str, controls: Vec<Arc<dyn ProcessControl>>, limits: ProcessLimits) -> Self {
        let victims = controls.into_iter().map(|control| Victim::new(fault, control, limits)).collect();
        Self { fault, victims }
    }

    pub(crate) fn targets(&self) -> Vec<Target> {
        self.victims.iter().flat_map(Victim::targets).collect()
    }

    /// Kills all, and has each started again until it is ready; who ran before and who runs now.
    ///
    /// # Errors
    /// If one does not end, or is not ready again in time; part of them may be down.
    pub(crate) async fn strike(&mut self) -> Result<Value, InstallError> {
        let fault = self.fault;
        let before = self.victims.iter_mut().map(Victim::strike).collect::<Result<Vec<ProcessIdentity>, _>>()?;
        for (victim, identity) in self.victims.iter().zip(&before) {
            victim.control.kill(*identity).await.map_err(refused("kill the process"))?;
        }
        for (victim, identity) in self.victims.iter().zip(&before) {
            let wait = Wait::of_ms(victim.limits.land_ms_max);
            while identity.alive() {
                wait.for_landing(fault, format!("{identity} runs on after SIGKILL")).await?;
            }
        }
        let mut starts = JoinSet::new();
        for victim in &self.victims {
            starts.spawn(start_again(fault, Arc::clone(&victim.control), victim.limits.land_ms_max));
        }
        let mut after = Vec::new();
        while let Some(started) = starts.join_next().await {
            let panicked = |error: tokio::task::JoinError| InstallError::DidNotLand {
                fault: fault.to_owned(),
                reason: format!("its restart broke off: {error}"),
            };
            after.push(started.map_err(panicked)??);
        }
        Ok(json!({ "before": before, "after": after }))
    }

    /// All run, whatever came between.
    pub(crate) async fn undo(&self) -> Result<(), HealError> {
        for victim in &self.victims {
            victim.revival().run().await?;
        }
        Ok(())
    }
}

/// Starts it, and waits until it works; its name and new identity.
async fn start_again(
    fault: &'static str,
    control: Arc<dyn ProcessControl>,
    limit_ms: u64,
) -> Result<Value, InstallError> {
    let identity = control.restart().await.map_err(refused("start the process again"))?;
    let wait = Wait::of_ms(limit_ms);
    while let Err(reason) = control.is_ready().await {
        wait.for_landing(fault, format!("{} is not ready: {reason}", control.name())).await?;
    }
    Ok(json!({ "process": control.name(), "identity": identity }))
}
