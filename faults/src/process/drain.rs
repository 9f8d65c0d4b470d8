//! A process that is asked to end, ends by itself, and is missing for a while.

use std::sync::Arc;

use serde_json::json;

use super::{
    control::ProcessControl,
    victim::{ProcessLimits, Victim},
};
use crate::{
    blast_radius::Target,
    fault::{HealError, InstallError, Proof, ProofError},
    harm::Harm,
};

/// Asks a process to end (SIGTERM) and waits until it has drained; healing starts it again.
///
/// One that outlives the limit did not land; its exit code stands in the proof, for a law to judge.
pub struct ProcessDrain {
    victim: Victim,
}

impl ProcessDrain {
    /// The drain, under `name`, of the process behind `control`.
    pub fn new(name: &'static str, control: Arc<dyn ProcessControl>, limits: ProcessLimits) -> Self {
        Self { victim: Victim::new(name, control, limits) }
    }
}

impl Harm for ProcessDrain {
    fn name(&self) -> &str {
        self.victim.fault
    }

    fn targets(&self) -> Vec<Target> {
        self.victim.targets()
    }

    async fn strike(&mut self) -> Result<Proof, InstallError> {
        let identity = self.victim.strike()?;
        self.victim.drains(identity).await
    }

    async fn look(&mut self) -> Result<Proof, ProofError> {
        let gone = self.victim.gone().await?;
        Ok(self.victim.proof("process_gone", gone, json!({ "ending": self.victim.control.ending(gone) })))
    }

    async fn undo(&mut self) -> Result<Proof, HealError> {
        if let Some(struck) = self.victim.struck
            && struck.alive()
        {
            // It outlived its drain, and what drains for ever serves nobody.
            let _ = self.victim.control.kill(struck).await;
        }
        self.victim.revival().run().await
    }
}
