//! Every fault there is, a row each: what it does, how it is proven, on which engines, and how much harm is tolerated.
//!
//! A row for each fault and a fault for each row: the harness plants by the name, `nogo list faults` prints these. The
//! goodput floors are shares of what was due by the plan of the load, which offers as much in a window as in the baseline:
//! neither a system that refuses everybody passes, nor one that lets everybody wait.

use crate::fault::Tolerance;

pub use network::role_and_store;
pub use parameters::{Parameter, Takes};
pub use sink::sink_path;
pub use wire::rules_of;

mod client;
mod network;
mod parameters;
mod placebo;
mod postgres;
mod process;
mod provider;
mod redis;
mod sink;
mod wire;

/// A fault as a suite may ask for it.
#[derive(Debug, Clone, Copy)]
pub struct FaultRow {
    /// Name on the command line and in the schedule.
    pub name: &'static str,
    /// Kind in the history.
    pub kind: &'static str,
    /// Possible victims.
    pub targets: &'static [&'static str],
    /// The harm.
    pub what: &'static str,
    /// How it is known to be in place.
    pub control_proof: &'static str,
    /// How it is known to be felt.
    pub effect_proof: &'static str,
    /// Engines that can do it.
    pub engines: &'static [&'static str],
    /// How much harm a correct system may show.
    pub tolerance: Tolerance,
}

/// What a system still gives while it lacks something, beyond its goodput as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Service {
    /// Least share of the reads that must succeed, per cent.
    pub reads_percent_min: u64,
    /// How long the first that are refused for want of room (503) have waited for it at least, milliseconds.
    pub refusal_wait_ms_min: u64,
}

/// What a fault is done to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// The primary or a replica.
    Postgres,
    /// Redis.
    Redis,
    /// The system's own processes.
    Process,
    /// Links between its processes and its stores.
    Network,
    /// Single requests on those links, by what they say.
    Wire,
    /// The payment provider: its answers and its events.
    Provider,
    /// Where the system tells its errors and what it is used for.
    Sink,
    /// The APIs, by their clients.
    Client,
    /// Nothing.
    Placebo,
}

/// The families in the order in which they are listed, with their rows.
const FAMILIES: [(Family, &[FaultRow]); 9] = [
    (Family::Postgres, postgres::ROWS),
    (Family::Redis, redis::ROWS),
    (Family::Process, process::ROWS),
    (Family::Network, network::ROWS),
    (Family::Wire, wire::ROWS),
    (Family::Provider, provider::ROWS),
    (Family::Sink, sink::ROWS),
    (Family::Client, client::ROWS),
    (Family::Placebo, placebo::ROWS),
];

/// The families in the order in which they are listed, each with its rows.
pub fn families() -> impl Iterator<Item = (Family, &'static [FaultRow])> {
    FAMILIES.into_iter()
}

/// Every row, by family.
pub fn all() -> impl Iterator<Item = &'static FaultRow> {
    FAMILIES.iter().flat_map(|(_, rows)| rows.iter())
}

/// The family that a row belongs to.
///
/// # Panics
/// If it is no row of the catalogue.
#[must_use]
pub fn family_of(row: &FaultRow) -> Family {
    let found = FAMILIES.iter().find(|(_, rows)| rows.iter().any(|known| known.name == row.name));
    found.map(|(family, _)| *family).expect("a row of the catalogue")
}

impl FaultRow {
    /// Whether it is made of rules of a protocol, so that connections have to be followed.
    #[must_use]
    pub fn is_of_rules(&self) -> bool {
        matches!(family_of(self), Family::Wire | Family::Provider | Family::Sink)
    }

    /// Whether it keeps its store from answering as it should whoever greets it, whichever link the greeting comes by. Such a
    /// fault cannot be told from one of those links, nor be seen to be over while one stands.
    #[must_use]
    pub fn hurts_every_link(&self) -> bool {
        postgres::UNANSWERED.contains(&self.name) || redis::UNANSWERED.contains(&self.name)
    }

    /// What a schedule may say of it beyond victim and time.
    #[must_use]
    pub fn parameters(&self) -> &'static [Parameter] {
        match family_of(self) {
            Family::Wire => wire::parameters(self),
            Family::Provider => provider::parameters(self),
            Family::Sink => sink::parameters(self),
            _ => &[],
        }
    }

    /// What is promised of reads and of refusals while it stands, where something is.
    #[must_use]
    pub fn service(&self) -> Option<Service> {
        // Half of the 800 ms that a request may wait for a connection; of the reads 95 to 100 in a hundred were answered.
        (self.name == "pool-exhaustion").then_some(Service { reads_percent_min: 80, refusal_wait_ms_min: 400 })
    }

    /// How much harm a correct system may show where the fault is done to `victim`.
    #[must_use]
    pub fn tolerance_at(&self, victim: &str) -> Tolerance {
        match family_of(self) {
            Family::Network => network::tolerance_at(self, victim),
            _ => self.tolerance,
        }
    }
}

/// The row of a fault by its name.
#[must_use]
pub fn find(name: &str) -> Option<&'static FaultRow> {
    all().find(|row| row.name == name)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_default_is_what_its_parameter_takes() {
        for parameter in all().flat_map(FaultRow::parameters) {
            if let Some(value) = parameter.default_value() {
                parameter.check(&value).unwrap_or_else(|wrong| panic!("{}: {wrong}", parameter.name));
            }
        }
    }

    #[test]
    fn parameters_are_listed_where_rules_read_them_and_nowhere_else() {
        for row in all() {
            // A sink that is out of reach is so for all that it is told: only what it answers may be chosen.
            let takes_none = !row.is_of_rules() || matches!(row.name, "sink-reset" | "sink-blackhole");
            assert_eq!(row.parameters().is_empty(), takes_none, "{}", row.name);
        }
    }

    #[test]
    fn what_hurts_every_link_is_a_row_of_a_store() {
        for name in postgres::UNANSWERED.iter().chain(redis::UNANSWERED) {
            let row = find(name).unwrap_or_else(|| panic!("{name} is no row"));
            assert!(row.hurts_every_link() && matches!(family_of(row), Family::Postgres | Family::Redis));
        }
        // Their harm and its end are read by a greeting through every link, or by its absence.
        for name in ["postgres-slow", "postgres-blackhole", "postgres-reset", "redis-slow", "redis-blackhole"] {
            assert!(find(name).is_some_and(FaultRow::hurts_every_link), "{name}");
        }
    }

    #[test]
    fn names_and_kinds_are_unique_and_every_row_can_be_asked_for_and_judged() {
        let names: BTreeSet<_> = all().map(|row| row.name).collect();
        let kinds: BTreeSet<_> = all().map(|row| row.kind).collect();
        assert_eq!((names.len(), kinds.len()), (all().count(), all().count()));
        for row in all() {
            assert!(!row.targets.is_empty() && !row.engines.is_empty(), "{} has no victim or no engine", row.name);
            let tolerance = row.tolerance;
            assert!((0.0..=1.0).contains(&tolerance.goodput_ratio_min), "{}: {tolerance:?}", row.name);
            assert!(tolerance.recover_ms_max > 0, "{}: {tolerance:?}", row.name);
        }
    }
}
