//! A process that gets a small share of one core, and waits for the rest.

use std::{fs, path::PathBuf, sync::Arc};

use serde_json::json;

use super::{
    control::ProcessControl,
    control_group::ControlGroup,
    victim::{ProcessLimits, Victim},
};
use crate::{
    blast_radius::Target,
    fault::{HealError, InstallError, Proof, ProofError},
    harm::{Harm, refused, unhealed},
};

/// Puts a process into a control group with a cap; healing puts it back and removes the group.
pub struct CpuStarved {
    victim: Victim,
    group_name: String,
    percent: u64,
    standing: Option<(ControlGroup, Option<PathBuf>)>,
}

impl CpuStarved {
    /// The starving, under `name`, of the process behind `control`, to `percent` of one core, by the group `group_name`.
    pub fn new(
        name: &'static str,
        control: Arc<dyn ProcessControl>,
        group_name: String,
        percent: u64,
        limits: ProcessLimits,
    ) -> Self {
        Self { victim: Victim::new(name, control, limits), group_name, percent, standing: None }
    }

    fn look_starved(&self) -> Result<Proof, String> {
        let struck = self.victim.standing()?;
        let (group, _) = self.standing.as_ref().ok_or("nothing was done to it")?;
        if !group.holds(struck).map_err(|error| error.to_string())? {
            return Err(format!("{struck} is not in the group"));
        }
        match group.throttled().map_err(|error| error.to_string())? {
            0 => Err(format!("{struck} has not had to wait yet")),
            throttled => {
                let detail =
                    json!({ "group": self.group_name, "percent_of_a_core": self.percent, "nr_throttled": throttled });
                Ok(self.victim.proof("process_throttled", struck, detail))
            }
        }
    }
}

impl Harm for CpuStarved {
    fn name(&self) -> &str {
        self.victim.fault
    }

    fn targets(&self) -> Vec<Target> {
        self.victim.targets()
    }

    async fn strike(&mut self) -> Result<Proof, InstallError> {
        let identity = self.victim.strike()?;
        let group = ControlGroup::create(&self.group_name).map_err(refused("make a control group"))?;
        let (group, former) = self.standing.insert((group, None));
        group.cap(self.percent).map_err(refused("cap the control group"))?;
        *former = Some(group.take_in(identity).map_err(refused("move the process into the group"))?);
        self.victim.lands(|| self.look_starved()).await
    }

    async fn look(&mut self) -> Result<Proof, ProofError> {
        self.look_starved().map_err(ProofError::NoHarm)
    }

    async fn undo(&mut self) -> Result<Proof, HealError> {
        let to_heal = self.victim.to_heal()?;
        if let Some((group, former)) = &self.standing {
            if let (Ok(identity), Some(former)) = (&to_heal, former)
                && group.holds(*identity).unwrap_or(false)
            {
                fs::write(former.join("cgroup.procs"), identity.pid.to_string())
                    .map_err(unhealed("move the process back"))?;
            }
            group.remove().map_err(unhealed("remove the control group"))?;
        }
        match to_heal {
            Err(proof) => Ok(proof),
            Ok(identity) => {
                let is_member = match &self.standing {
                    Some((group, _)) => group.holds(identity).map_err(unhealed("read the process's group"))?,
                    None => false,
                };
                if is_member {
                    let (fault, limit_ms) = (self.victim.fault.to_owned(), self.victim.limits.heal_ms_max);
                    return Err(HealError::StillHurt { fault, limit_ms, reason: "it is in the group".into() });
                }
                Ok(self.victim.is_healed(identity))
            }
        }
    }
}
