//! The ledger of faults that stand, so that all can be healed whatever became of their tasks.
//!
//! A fault is entered before its first harm and leaves when its healing was read back. Dropping
//! the ledger heals nothing, for drop cannot wait: call [`OpenFaults::heal_all`].

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

use crate::{
    blast_radius::BlastRadius,
    fault::{Fault, HealError, InstallError, Proof, ProofError},
};

/// Number of a fault within one ledger, from 1, in the order of installing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct FaultId(
    /// The number.
    pub u64,
);

impl fmt::Display for FaultId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "fault {}", self.0)
    }
}

type Entry = Arc<tokio::sync::Mutex<Box<dyn Fault>>>;

/// What became of each open fault in [`OpenFaults::heal_all`], by number.
#[derive(Debug, Default)]
pub struct HealReport {
    /// Healed, with the evidence read back.
    pub healed: BTreeMap<FaultId, Proof>,
    /// Not healed; they stay in the ledger.
    pub failed: BTreeMap<FaultId, HealError>,
}

impl HealReport {
    /// Whether nothing is left hurt.
    pub fn is_clean(&self) -> bool {
        self.failed.is_empty()
    }
}

/// The ledger; clones share it.
#[derive(Clone, Default)]
pub struct OpenFaults {
    ledger: Arc<Mutex<Ledger>>,
}

#[derive(Default)]
struct Ledger {
    last: u64,
    open: BTreeMap<FaultId, (String, Entry)>,
}

impl OpenFaults {
    /// An empty ledger.
    pub fn new() -> Self {
        Self::default()
    }

    /// Grants, enters and installs a fault that will be held for `hold`.
    ///
    /// A fault whose install fails is healed at once, within its own limits; if that fails too
    /// it stays in the ledger.
    ///
    /// # Errors
    /// [`InstallError`]; [`InstallError::OutsideRadius`] comes before any harm.
    pub async fn install(
        &self,
        radius: &BlastRadius,
        hold: Duration,
        fault: Box<dyn Fault>,
    ) -> Result<(FaultId, Proof), InstallError> {
        let grant = radius.grant(fault.as_ref(), hold)?;
        let name = fault.name().to_owned();
        let entry: Entry = Arc::new(tokio::sync::Mutex::new(fault));
        let id = {
            let mut ledger = self.lock();
            ledger.last += 1;
            let id = FaultId(ledger.last);
            ledger.open.insert(id, (name.clone(), Arc::clone(&entry)));
            id
        };
        let mut fault = entry.lock().await;
        match fault.install(&grant).await {
            Ok(proof) => Ok((id, proof)),
            Err(error) => {
                match fault.heal().await {
                    Ok(_) => {
                        self.lock().open.remove(&id);
                    }
                    Err(heal_error) => {
                        tracing::error!(%id, name, %heal_error, "half-installed fault not healed");
                    }
                }
                Err(error)
            }
        }
    }

    /// Reads the control proof of an open fault.
    ///
    /// # Errors
    /// As the fault gives them; [`ProofError::NoHarm`] if it is not open.
    pub async fn control_proof(&self, id: FaultId) -> Result<Proof, ProofError> {
        let entry = self.lock().open.get(&id).map(|(_, entry)| Arc::clone(entry));
        match entry {
            Some(entry) => entry.lock().await.control_proof().await,
            None => Err(ProofError::NoHarm(format!("{id} is not open"))),
        }
    }

    /// Heals one fault within `limit` and strikes it off.
    ///
    /// Gives nothing if it is not open (any more).
    ///
    /// # Errors
    /// As the fault gives them, or [`HealError::Deadline`]; the fault stays open.
    pub async fn heal(&self, id: FaultId, limit: Duration) -> Result<Option<Proof>, HealError> {
        let Some((name, entry)) = self.lock().open.get(&id).cloned() else {
            return Ok(None);
        };
        let proof = tokio::time::timeout(limit, async { entry.lock().await.heal().await }).await.map_err(|_| {
            HealError::Deadline { fault: name, limit_ms: u64::try_from(limit.as_millis()).unwrap_or(u64::MAX) }
        })??;
        self.lock().open.remove(&id);
        Ok(Some(proof))
    }

    /// Heals every open fault at the same time, all within `limit`.
    pub async fn heal_all(&self, limit: Duration) -> HealReport {
        let mut healing = JoinSet::new();
        for id in self.open() {
            let ledger = self.clone();
            healing.spawn(async move { (id, ledger.heal(id, limit).await) });
        }
        let mut report = HealReport::default();
        while let Some(joined) = healing.join_next().await {
            match joined {
                Ok((id, Ok(Some(proof)))) => {
                    report.healed.insert(id, proof);
                }
                Ok((_, Ok(None))) => {}
                Ok((id, Err(error))) => {
                    report.failed.insert(id, error);
                }
                Err(panic) => tracing::error!(%panic, "healing a fault panicked"),
            }
        }
        // One whose healing panicked is still open and has no other entry.
        for id in self.open() {
            report
                .failed
                .entry(id)
                .or_insert_with(|| HealError::Target { step: "heal", reason: "still open after healing all".into() });
        }
        report
    }

    /// Numbers of the open faults, ascending.
    pub fn open(&self) -> Vec<FaultId> {
        self.lock().open.keys().copied().collect()
    }

    fn lock(&self) -> MutexGuard<'_, Ledger> {
        // A panic elsewhere must not keep us from healing; the map itself is never left torn.
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
