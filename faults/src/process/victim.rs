//! One process as the victim of a harm: who it was when it was struck, and what holds of that incarnation.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{ProcessIdentity, control::ProcessControl};
use crate::{
    blast_radius::Target,
    fault::{HealError, InstallError, Proof, ProofError},
    harm::{Wait, refused},
    process::revival::{Revival, runs},
};

/// Limits of each wait of a harm to a process, milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProcessLimits {
    /// Longest wait for the harm to show.
    pub land_ms_max: u64,
    /// Longest wait for each part of the healing.
    pub heal_ms_max: u64,
}

impl Default for ProcessLimits {
    fn default() -> Self {
        Self { land_ms_max: 10_000, heal_ms_max: 20_000 }
    }
}

/// A process and the incarnation that was struck.
pub(super) struct Victim {
    pub(super) fault: &'static str,
    pub(super) control: Arc<dyn ProcessControl>,
    pub(super) limits: ProcessLimits,
    pub(super) struck: Option<ProcessIdentity>,
    /// The healing was read back once.
    pub(super) healed: bool,
}

impl Victim {
    pub(super) fn new(fault: &'static str, control: Arc<dyn ProcessControl>, limits: ProcessLimits) -> Self {
        Self { fault, control, limits, struck: None, healed: false }
    }

    pub(super) fn targets(&self) -> Vec<Target> {
        target(self.control.as_ref()).into_iter().collect()
    }

    /// Takes aim at the present incarnation.
    pub(super) fn strike(&mut self) -> Result<ProcessIdentity, InstallError> {
        let identity = self.control.identity().filter(ProcessIdentity::alive);
        let identity = identity.ok_or_else(|| InstallError::DidNotLand {
            fault: self.fault.into(),
            reason: format!("{} does not run", self.control.name()),
        })?;
        self.struck = Some(identity);
        Ok(identity)
    }

    /// The struck incarnation, while it runs and the harm was not undone.
    pub(super) fn standing(&self) -> Result<ProcessIdentity, String> {
        let struck = self.struck.ok_or("nothing was done to it")?;
        if self.healed {
            return Err("it was healed".to_owned());
        }
        if struck.alive() { Ok(struck) } else { Err(format!("{struck} has ended")) }
    }

    /// The struck incarnation, once it is gone and no other came after it.
    pub(super) async fn gone(&self) -> Result<ProcessIdentity, ProofError> {
        let struck = self.struck.ok_or_else(|| ProofError::NoHarm("nothing was done to it".to_owned()))?;
        if struck.alive() {
            return Err(ProofError::NoHarm(format!("{struck} runs")));
        }
        if self.control.is_alive().await {
            return Err(ProofError::NoHarm(format!("{} runs again", self.control.name())));
        }
        Ok(struck)
    }

    /// Waits until `shows` gives a proof.
    pub(super) async fn lands(&self, mut shows: impl FnMut() -> Result<Proof, String>) -> Result<Proof, InstallError> {
        let wait = Wait::of_ms(self.limits.land_ms_max);
        loop {
            match shows() {
                Ok(proof) => return Ok(proof),
                Err(seen) => wait.for_landing(self.fault, seen).await?,
            }
        }
    }

    /// What to heal: the struck incarnation, or at once the proof that the process runs, for where nothing was done,
    /// all was undone before, or it was replaced meanwhile.
    pub(super) fn to_heal(&self) -> Result<Result<ProcessIdentity, Proof>, HealError> {
        match (self.struck, self.control.identity()) {
            (Some(struck), _) if !self.healed && struck.alive() => Ok(Ok(struck)),
            (_, Some(now)) if now.alive() => Ok(Err(runs(self.control.as_ref(), now, false))),
            _ => Err(HealError::StillHurt {
                fault: self.fault.into(),
                limit_ms: 0,
                reason: format!("{} has ended, which nobody asked it to", self.control.name()),
            }),
        }
    }

    /// Notes that the healing was read back, from `identity`.
    pub(super) fn is_healed(&mut self, identity: ProcessIdentity) -> Proof {
        self.healed = true;
        runs(self.control.as_ref(), identity, false)
    }

    /// Starts it again if it has ended.
    pub(super) fn revival(&self) -> Revival<'_> {
        Revival {
            fault: self.fault,
            control: self.control.as_ref(),
            struck: self.struck,
            death_ms_max: self.limits.heal_ms_max,
            restart_ms_max: self.limits.heal_ms_max,
        }
    }

    /// A proof with the process's name and identity beside `detail`, an object.
    pub(super) fn proof(&self, kind: &str, identity: ProcessIdentity, detail: Value) -> Proof {
        let mut whole =
            json!({ "process": self.control.name(), "pid": identity.pid, "start_ticks": identity.start_ticks });
        if let (Value::Object(whole), Value::Object(detail)) = (&mut whole, detail) {
            whole.extend(detail);
        }
        Proof::new(kind, whole)
    }

    /// Asks the incarnation to end by itself and waits until it has.
    pub(super) async fn drains(&self, identity: ProcessIdentity) -> Result<Proof, InstallError> {
        let began = tokio::time::Instant::now();
        self.control.ask_to_end(identity).await.map_err(refused("ask the process to end"))?;
        self.lands(|| match self.control.ending(identity) {
            Some(ending) => {
                let after_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
                Ok(self.proof("process_drained", identity, json!({ "ending": ending, "ended_after_ms": after_ms })))
            }
            None => Err(format!("{identity} runs on after SIGTERM")),
        })
        .await
    }
}

/// The present incarnation as a target.
pub(super) fn target(control: &dyn ProcessControl) -> Option<Target> {
    control.identity().map(|identity| Target::Process { name: control.name(), identity })
}
