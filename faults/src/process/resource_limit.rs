//! A limit of the kernel drawn tight around a running process: no further memory, or no further descriptor.

use std::{collections::BTreeSet, fs, io, sync::Arc, time::Duration};

use rustix::process::{Resource, Rlimit, prlimit};
use serde_json::json;

use super::{
    ProcessIdentity,
    control::{Burden, ProcessControl},
    victim::{ProcessLimits, Victim},
};
use crate::{
    blast_radius::Target,
    fault::{HealError, InstallError, Proof, ProofError},
    harm::{Harm, Wait, refused, unhealed},
};

/// Soft limit of descriptors: all that a process opens has a higher number.
const DESCRIPTORS: u64 = 3;

/// Leaves a process with the descriptors it has; healing gives it back its limit.
pub struct DescriptorsExhausted {
    victim: Victim,
    former: Option<Rlimit>,
}

impl DescriptorsExhausted {
    /// The exhaustion, under `name`, of the descriptors of the process behind `control`.
    pub fn new(name: &'static str, control: Arc<dyn ProcessControl>, limits: ProcessLimits) -> Self {
        Self { victim: Victim::new(name, control, limits), former: None }
    }

    fn look_exhausted(&self) -> Result<Proof, String> {
        let struck = self.victim.standing()?;
        let soft = soft_limit(struck, "Max open files")?;
        let open = open_descriptors(struck).map_err(|error| error.to_string())?;
        if !is_exhausted(soft, &open) {
            return Err(format!("its soft limit is {soft:?}, open are {open:?}"));
        }
        Ok(self.victim.proof("descriptors_exhausted", struck, json!({ "soft_limit": soft, "open": open.len() })))
    }
}

/// Whether a limit is ours, and each number below it is taken: what is opened next would get the limit's own.
fn is_exhausted(soft: Option<u64>, open: &BTreeSet<u64>) -> bool {
    soft.is_some_and(|soft| soft <= DESCRIPTORS && (0..soft).all(|number| open.contains(&number)))
}

/// The numbers of the descriptors that it holds open.
fn open_descriptors(identity: ProcessIdentity) -> io::Result<BTreeSet<u64>> {
    fs::read_dir(format!("/proc/{}/fd", identity.pid))?
        .map(|entry| entry?.file_name().to_string_lossy().parse().map_err(io::Error::other))
        .collect()
}

impl Harm for DescriptorsExhausted {
    fn name(&self) -> &str {
        self.victim.fault
    }

    fn targets(&self) -> Vec<Target> {
        self.victim.targets()
    }

    async fn strike(&mut self) -> Result<Proof, InstallError> {
        let identity = self.victim.strike()?;
        self.former = Some(lower(identity, Resource::Nofile, DESCRIPTORS).map_err(refused("limit its descriptors"))?);
        self.victim.lands(|| self.look_exhausted()).await
    }

    async fn look(&mut self) -> Result<Proof, ProofError> {
        self.look_exhausted().map_err(ProofError::NoHarm)
    }

    async fn undo(&mut self) -> Result<Proof, HealError> {
        let identity = match self.victim.to_heal()? {
            Ok(identity) => identity,
            Err(proof) => return Ok(proof),
        };
        if let Some(former) = self.former {
            restore(identity, Resource::Nofile, former).map_err(unhealed("give back its descriptors"))?;
        }
        let wait = Wait::of_ms(self.victim.limits.heal_ms_max);
        loop {
            match soft_limit(identity, "Max open files") {
                Ok(Some(soft)) if soft <= DESCRIPTORS => {
                    wait.for_healing(self.victim.fault, format!("its soft limit is {soft}")).await?;
                }
                Ok(_) => return Ok(self.victim.is_healed(identity)),
                Err(reason) => wait.for_healing(self.victim.fault, reason).await?,
            }
        }
    }
}

/// Soft limit of the address space: whatever is mapped stays so, and nothing is ever mapped beside it, however much was
/// given back. A limit around what is mapped now would leave room for whatever has its like when it ends.
const MAPPED_BYTES: u64 = 0;
/// Between two burdens: one of them may have gone to another process.
const BURDEN_EVERY: Duration = Duration::from_secs(1);

/// Takes from a process the leave to grow, until its own allocator ends it; healing starts it again.
pub struct MemoryExhausted {
    victim: Victim,
    burden: Arc<dyn Burden>,
    former: Option<Rlimit>,
}

impl MemoryExhausted {
    /// The exhaustion, under `name`, of the memory of the process behind `control`, which `burden` makes need some.
    pub fn new(
        name: &'static str,
        control: Arc<dyn ProcessControl>,
        burden: Arc<dyn Burden>,
        limits: ProcessLimits,
    ) -> Self {
        Self { victim: Victim::new(name, control, limits), burden, former: None }
    }

    async fn keep_burdening(&self) -> ! {
        loop {
            self.burden.lay_on().await;
            tokio::time::sleep(BURDEN_EVERY).await;
        }
    }
}

impl Harm for MemoryExhausted {
    fn name(&self) -> &str {
        self.victim.fault
    }

    fn targets(&self) -> Vec<Target> {
        self.victim.targets()
    }

    async fn strike(&mut self) -> Result<Proof, InstallError> {
        let identity = self.victim.strike()?;
        let mapped = mapped_bytes(identity).map_err(refused("read what memory it has mapped"))?;
        self.victim.control.expect_end(identity, true).map_err(refused("expect its end"))?;
        self.former = Some(lower(identity, Resource::As, MAPPED_BYTES).map_err(refused("limit its memory"))?);
        let limit = soft_limit(identity, "Max address space").unwrap_or_default();
        let landed = self.victim.lands(|| match self.victim.control.ending(identity) {
            Some(ending) => {
                let detail = json!({ "mapped_bytes": mapped, "limit_bytes": limit, "ending": ending });
                Ok(self.victim.proof("process_out_of_memory", identity, detail))
            }
            None => Err(format!("{identity} lives on with the {mapped} bytes it had mapped")),
        });
        tokio::select! {
            proof = landed => proof,
            never = self.keep_burdening() => never,
        }
    }

    async fn look(&mut self) -> Result<Proof, ProofError> {
        let gone = self.victim.gone().await?;
        Ok(self.victim.proof("process_gone", gone, json!({ "ending": self.victim.control.ending(gone) })))
    }

    async fn undo(&mut self) -> Result<Proof, HealError> {
        if let (Some(former), Some(struck)) = (self.former, self.victim.struck.filter(ProcessIdentity::alive)) {
            // It never needed more than it had: it goes on without the limit.
            restore(struck, Resource::As, former).map_err(unhealed("give back its memory"))?;
            // Fails where it has just ended; then the next healing starts it again.
            self.victim.control.expect_end(struck, false).map_err(unhealed("expect no end of it"))?;
            return Ok(self.victim.is_healed(struck));
        }
        self.victim.revival().run().await
    }
}

/// Sets the soft limit of a live process; gives what it was.
fn lower(identity: ProcessIdentity, resource: Resource, soft: u64) -> io::Result<Rlimit> {
    let pid = Some(identity.raw_pid()?);
    let hard = hard_limit(identity, resource)?;
    Ok(prlimit(pid, resource, Rlimit { current: Some(soft), maximum: hard })?)
}

fn restore(identity: ProcessIdentity, resource: Resource, former: Rlimit) -> io::Result<()> {
    prlimit(Some(identity.raw_pid()?), resource, former)?;
    Ok(())
}

fn hard_limit(identity: ProcessIdentity, resource: Resource) -> io::Result<Option<u64>> {
    let row = if resource == Resource::Nofile { "Max open files" } else { "Max address space" };
    limit_in(identity, row, 1).map_err(io::Error::other)
}

/// The soft limit in a row of `/proc/<pid>/limits`; none is unlimited.
fn soft_limit(identity: ProcessIdentity, row: &str) -> Result<Option<u64>, String> {
    limit_in(identity, row, 0)
}

fn limit_in(identity: ProcessIdentity, row: &str, column: usize) -> Result<Option<u64>, String> {
    let text = fs::read_to_string(format!("/proc/{}/limits", identity.pid)).map_err(|error| error.to_string())?;
    let line = text.lines().find_map(|line| line.strip_prefix(row)).ok_or_else(|| format!("it has no '{row}'"))?;
    match line.split_ascii_whitespace().nth(column) {
        Some("unlimited") => Ok(None),
        Some(number) => number.parse().map(Some).map_err(|_| format!("its '{row}' is {number}")),
        None => Err(format!("its '{row}' is empty")),
    }
}

/// Bytes of address space that it has mapped (`VmSize`).
fn mapped_bytes(identity: ProcessIdentity) -> io::Result<u64> {
    let text = fs::read_to_string(format!("/proc/{}/status", identity.pid))?;
    let kib = text.lines().find_map(|line| line.strip_prefix("VmSize:")?.split_ascii_whitespace().next()?.parse().ok());
    kib.map(|kib: u64| kib << 10).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no VmSize in its status"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_are_exhausted_where_each_number_below_the_limit_is_taken() {
        for (soft, open, exhausted) in [
            (Some(3), &[0, 1, 2, 9][..], true),
            (Some(3), &[0, 1, 2], true),
            (Some(3), &[0, 2, 9, 10], false),
            (Some(3), &[], false),
            (Some(1_024), &[0, 1, 2], false),
            (None, &[0, 1, 2], false),
        ] {
            let open = open.iter().copied().collect();
            assert_eq!(is_exhausted(soft, &open), exhausted, "{soft:?} with {open:?} open");
        }
    }
}
