//! A process whose wall clock is wrong, by libfaketime: it reads what to add from a file.
//!
//! The process must have been started with the library before it, and with that file; the monotonic clock stays right.

use std::{fs, path::PathBuf, sync::Arc, time::Duration};

use serde_json::json;

use super::{
    control::ProcessControl,
    victim::{ProcessLimits, Victim},
};
use crate::{
    blast_radius::Target,
    fault::{HealError, InstallError, Proof, ProofError},
    harm::{Harm, refused, unhealed},
};

/// What the file says where the clock is right.
pub const CLOCK_IS_RIGHT: &str = "+0\n";
/// The library's name, as it stands among a process's mappings.
const LIBRARY: &str = "libfaketime";
/// Time after which a process has read the file anew.
const READ_ANEW: Duration = Duration::from_millis(2_100);

/// Sets a process's wall clock ahead; healing sets it right.
pub struct ClockApart {
    victim: Victim,
    file: PathBuf,
    ahead_s: i64,
}

impl ClockApart {
    /// The clock, under `name`, of the process behind `control` moved by `ahead_s` seconds, through `file`.
    pub fn new(
        name: &'static str,
        control: Arc<dyn ProcessControl>,
        file: PathBuf,
        ahead_s: i64,
        limits: ProcessLimits,
    ) -> Self {
        Self { victim: Victim::new(name, control, limits), file, ahead_s }
    }

    fn words(&self) -> String {
        format!("{:+}\n", self.ahead_s)
    }

    fn look_apart(&self) -> Result<Proof, String> {
        let struck = self.victim.standing()?;
        let maps = fs::read_to_string(format!("/proc/{}/maps", struck.pid)).map_err(|error| error.to_string())?;
        if !maps.contains(LIBRARY) {
            return Err(format!("{struck} was started without {LIBRARY}"));
        }
        let said = fs::read_to_string(&self.file).map_err(|error| error.to_string())?;
        if said == self.words() {
            Ok(self.victim.proof("clock_apart", struck, json!({ "library_mapped": true, "ahead_s": self.ahead_s })))
        } else {
            Err(format!("its file says {:?}", said.trim()))
        }
    }
}

impl Harm for ClockApart {
    fn name(&self) -> &str {
        self.victim.fault
    }

    fn targets(&self) -> Vec<Target> {
        self.victim.targets()
    }

    async fn strike(&mut self) -> Result<Proof, InstallError> {
        self.victim.strike()?;
        fs::write(&self.file, self.words()).map_err(refused("set its clock apart"))?;
        tokio::time::sleep(READ_ANEW).await;
        self.victim.lands(|| self.look_apart()).await
    }

    async fn look(&mut self) -> Result<Proof, ProofError> {
        self.look_apart().map_err(ProofError::NoHarm)
    }

    async fn undo(&mut self) -> Result<Proof, HealError> {
        let to_heal = self.victim.to_heal()?;
        if self.victim.struck.is_some() && !self.victim.healed {
            fs::write(&self.file, CLOCK_IS_RIGHT).map_err(unhealed("set its clock right"))?;
            tokio::time::sleep(READ_ANEW).await;
        }
        match to_heal {
            Ok(identity) => Ok(self.victim.is_healed(identity)),
            Err(proof) => Ok(proof),
        }
    }
}
