//! Every process of a role restarted, one after the other, as a deployment does it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use serde_json::json;
use tokio::{task::JoinHandle, time::Instant};

use super::{
    ProcessIdentity,
    control::ProcessControl,
    revival::ends_within,
    victim::{ProcessLimits, Victim, target},
};
use crate::{
    blast_radius::Target,
    fault::{HealError, InstallError, Proof, ProofError},
    harm::Harm,
};

/// Pause between two looks at whether it works.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Drains and restarts processes in turn, the next only once the one before works again; healing waits for the end of
/// the round.
pub struct RollingRestart {
    name: &'static str,
    controls: Vec<Arc<dyn ProcessControl>>,
    limits: ProcessLimits,
    /// Who ran before the round.
    before: Vec<ProcessIdentity>,
    restarted: Arc<AtomicU32>,
    under_way: Option<JoinHandle<Result<(), String>>>,
}

impl RollingRestart {
    /// The round, under `name`, over the processes behind `controls`, in their order.
    pub fn new(name: &'static str, controls: Vec<Arc<dyn ProcessControl>>, limits: ProcessLimits) -> Self {
        Self { name, controls, limits, before: Vec::new(), restarted: Arc::default(), under_way: None }
    }

    fn proof(&self, kind: &str) -> Proof {
        let now: Vec<_> = self.controls.iter().map(|control| (control.name(), control.identity())).collect();
        let restarted = self.restarted.load(Ordering::Relaxed);
        Proof::new(kind, json!({ "before": self.before, "now": now, "restarted": restarted, "of": now.len() }))
    }
}

impl Harm for RollingRestart {
    fn name(&self) -> &str {
        self.name
    }

    fn targets(&self) -> Vec<Target> {
        self.controls.iter().filter_map(|control| target(control.as_ref())).collect()
    }

    async fn strike(&mut self) -> Result<Proof, InstallError> {
        let Some(first) = self.controls.first().cloned() else {
            return Err(InstallError::DidNotLand { fault: self.name.into(), reason: "there is no process".into() });
        };
        let mut victim = Victim::new(self.name, first, self.limits);
        for control in &self.controls {
            self.before.push(Victim::new(self.name, Arc::clone(control), self.limits).strike()?);
        }
        let identity = victim.strike()?;
        let proof = victim.drains(identity).await?;
        let round = go_round(self.controls.clone(), self.limits, Arc::clone(&self.restarted));
        self.under_way = Some(tokio::spawn(round));
        Ok(proof)
    }

    async fn look(&mut self) -> Result<Proof, ProofError> {
        match self.before.first() {
            Some(first) if self.under_way.is_some() && !first.alive() => Ok(self.proof("processes_restarted_in_turn")),
            _ => Err(ProofError::NoHarm("no round is under way".to_owned())),
        }
    }

    async fn undo(&mut self) -> Result<Proof, HealError> {
        let failed = match self.under_way.take() {
            Some(round) => round.await.map_err(|panic| panic.to_string()).and_then(|ended| ended).err(),
            None => None,
        };
        for control in &self.controls {
            Victim::new(self.name, Arc::clone(control), self.limits).revival().run().await?;
        }
        match failed {
            None => Ok(self.proof("processes_run")),
            // All run again, and yet this was no round: a second healing finds nothing to do.
            Some(reason) => {
                Err(HealError::StillHurt { fault: self.name.into(), limit_ms: self.limits.land_ms_max, reason })
            }
        }
    }
}

/// The first has ended by now: starts it, and takes the others in turn.
async fn go_round(
    controls: Vec<Arc<dyn ProcessControl>>,
    limits: ProcessLimits,
    restarted: Arc<AtomicU32>,
) -> Result<(), String> {
    for (number, control) in controls.iter().enumerate() {
        let name = control.name();
        if number > 0
            && let Some(identity) = control.identity()
        {
            control.ask_to_end(identity).await.map_err(|error| format!("ask {name} to end: {error}"))?;
            if !ends_within(identity, limits.land_ms_max).await {
                // What does not drain is ended, so that all run again; the round has failed.
                let _ = control.kill(identity).await;
                return Err(format!("{name} runs {} ms after SIGTERM", limits.land_ms_max));
            }
        }
        control.restart().await.map_err(|error| format!("start {name} again: {error}"))?;
        let until = Instant::now() + Duration::from_millis(limits.land_ms_max);
        while let Err(reason) = control.is_ready().await {
            if Instant::now() > until {
                return Err(format!("{name} was started again and is not ready: {reason}"));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        restarted.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}
