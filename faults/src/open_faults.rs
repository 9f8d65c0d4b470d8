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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        blast_radius::{Grant, Target},
        fault::{BoxFuture, Tolerance},
    };

    const ADDRESS: ([u8; 4], u16) = ([127, 0, 0, 1], 5432);
    const SHORT: Duration = Duration::from_millis(20);

    #[derive(Clone, Copy, PartialEq)]
    enum Does {
        Its,
        PanicsOnInstall,
        PanicsOnHeal,
        NeverHeals,
    }

    /// A fault without any harm.
    struct Odd(Does);

    impl Fault for Odd {
        fn name(&self) -> &str {
            "odd"
        }
        fn targets(&self) -> Vec<Target> {
            vec![Target::Postgres { address: ADDRESS.into() }]
        }
        fn tolerance(&self) -> Tolerance {
            Tolerance { goodput_ratio_min: 0.0, outage_ms_max: 0, recover_ms_max: 0 }
        }
        fn install<'a>(&'a mut self, _: &'a Grant) -> BoxFuture<'a, Result<Proof, InstallError>> {
            assert!(self.0 != Does::PanicsOnInstall, "half-way");
            Box::pin(async { Ok(Proof::new("stands", true.into())) })
        }
        fn control_proof(&mut self) -> BoxFuture<'_, Result<Proof, ProofError>> {
            Box::pin(async { Ok(Proof::new("stands", true.into())) })
        }
        fn heal(&mut self) -> BoxFuture<'_, Result<Proof, HealError>> {
            assert!(self.0 != Does::PanicsOnHeal, "half-way");
            let never = self.0 == Does::NeverHeals;
            Box::pin(async move {
                if never {
                    std::future::pending::<()>().await;
                }
                Ok(Proof::new("whole", true.into()))
            })
        }
    }

    async fn install(open: &OpenFaults, does: Does) -> Result<(FaultId, Proof), InstallError> {
        let mut radius = BlastRadius::new(SHORT);
        radius.allow_address(ADDRESS.into());
        open.install(&radius, SHORT, Box::new(Odd(does))).await
    }

    #[tokio::test]
    async fn a_healing_that_never_ends_meets_its_deadline_and_leaves_the_fault_open() {
        let open = OpenFaults::new();
        let (id, _) = install(&open, Does::NeverHeals).await.expect("installed");
        let error = open.heal(id, SHORT).await.expect_err("it never ends");
        assert!(matches!(&error, HealError::Deadline { fault, limit_ms: 20 } if fault == "odd"), "{error}");
        assert_eq!(open.open(), [id], "still to be healed");
        let report = open.heal_all(SHORT).await;
        assert!(matches!(report.failed[&id], HealError::Deadline { .. }), "{report:?}");
    }

    #[tokio::test]
    async fn a_fault_whose_install_panics_is_healed_with_all_the_others() {
        let open = OpenFaults::new();
        install(&open, Does::Its).await.expect("installed");
        let installing = open.clone();
        let panicked = tokio::spawn(async move { drop(install(&installing, Does::PanicsOnInstall).await) }).await;
        assert!(panicked.expect_err("it panics").is_panic());
        assert_eq!(open.open().len(), 2);
        let report = open.heal_all(SHORT).await;
        assert!(report.is_clean() && report.healed.len() == 2 && open.open().is_empty(), "{report:?}");
    }

    #[tokio::test]
    async fn a_healing_that_panics_is_told_and_keeps_no_other_from_being_healed() {
        let open = OpenFaults::new();
        let (frail, _) = install(&open, Does::PanicsOnHeal).await.expect("installed");
        let (sound, _) = install(&open, Does::Its).await.expect("installed");
        let report = open.heal_all(SHORT).await;
        assert!(report.healed.contains_key(&sound) && report.failed.contains_key(&frail), "{report:?}");
        assert_eq!(open.open(), [frail]);
    }
}
