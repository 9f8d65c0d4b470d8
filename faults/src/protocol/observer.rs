//! What became of each rule, and which points a run has passed.

use serde::{Deserialize, Serialize};

use super::{
    operation::{Outcome, Protocol},
    rule::{Action, Occurrence, Pattern, Place, Rule},
};
use crate::fault::FaultState;

/// Whose connection it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// The process that connects, such as `worker-1`.
    pub process: String,
    /// What it is, such as `worker`.
    pub role: String,
}

impl Origin {
    /// A process whose role is its name without a number at the end.
    pub fn of_process(process: &str) -> Self {
        let role = process.trim_end_matches(|character: char| character.is_ascii_digit()).trim_end_matches('-');
        let role = if role.is_empty() { process } else { role };
        Self { process: process.into(), role: role.into() }
    }
}

/// How far one rule has come. Times are nanoseconds since the book's epoch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleRecord {
    /// The rule.
    pub rule: Rule,
    /// When it was written into the book.
    pub planned_ns: u64,
    /// When it began to be asked for every request.
    pub installed_ns: Option<u64>,
    /// When its harm was done for the first time.
    pub observed_ns: Option<u64>,
    /// When it was taken out.
    pub removed_ns: Option<u64>,
    /// Requests that its pattern fitted.
    pub matched: u64,
    /// Requests that it chose, its k being met.
    pub acted: u64,
    /// Requests whose loss, delay or other answer came about.
    pub observed: u64,
    /// Of those before the client, and those sent twice: how many the server had answered with success.
    pub applied: u64,
}

impl RuleRecord {
    pub(super) fn new(rule: Rule, planned_ns: u64) -> Self {
        Self {
            rule,
            planned_ns,
            installed_ns: None,
            observed_ns: None,
            removed_ns: None,
            matched: 0,
            acted: 0,
            observed: 0,
            applied: 0,
        }
    }

    /// The last of planned, installed, observed and removed.
    pub fn state(&self) -> FaultState {
        if self.removed_ns.is_some() {
            FaultState::Removed
        } else if self.observed_ns.is_some() {
            FaultState::Observed
        } else if self.installed_ns.is_some() {
            FaultState::Installed
        } else {
            FaultState::Planned
        }
    }
}

/// Something that happened to a rule or to a connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WireEvent {
    /// Nanoseconds since the book's epoch.
    pub at_ns: u64,
    /// Name of the rule, if it is about one.
    pub rule: Option<String>,
    /// Whose connection, if it is about one.
    pub origin: Option<Origin>,
    /// Number of the connection within the book.
    pub connection: Option<u64>,
    /// The request, as people read it.
    pub operation: Option<String>,
    /// What happened.
    pub kind: WireEventKind,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WireEventKind {
    /// The rule was written into the book.
    Planned,
    /// It is asked for every request from now on.
    Installed,
    /// A request fitted its pattern.
    Matched {
        /// How many have, this one included.
        match_number: u64,
    },
    /// The rule chose this request.
    Acted,
    /// The server's own answer to the request, which the client does not have at this time.
    Confirmed {
        /// How it went.
        outcome: Outcome,
    },
    /// The harm came about.
    Observed {
        /// For a delay: how long it was in the end, milliseconds.
        late_ms: Option<u64>,
    },
    /// Another rule chose the same request, the connection was hurt already, or the request is too long to be kept.
    Overruled,
    /// What it held was let go.
    Released,
    /// It is asked no more, and what it held was let go or cut.
    Removed,
    /// The connection passes without being followed.
    Untracked {
        /// Why.
        reason: String,
    },
}

/// A place in a run where something lasting may change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Point {
    /// Nanoseconds since the book's epoch.
    pub at_ns: u64,
    /// Whose request.
    pub origin: Origin,
    /// Number of the connection within the book.
    pub connection: u64,
    /// The protocol.
    pub protocol: Protocol,
    /// The request, as people read it.
    pub operation: String,
    /// What matches this request and its equals.
    pub pattern: Pattern,
    /// The how many-th match of that pattern by that role it is, from 1.
    pub k: u64,
    /// The server's answer; none while it is awaited.
    pub outcome: Option<Outcome>,
}

impl Point {
    /// The rule that hits this point when the same story runs again.
    pub fn rule(&self, name: impl Into<String>, place: Place, action: Action) -> Rule {
        Rule {
            name: name.into(),
            role: Some(self.origin.role.clone()),
            pattern: self.pattern.clone(),
            k: Occurrence::Kth(self.k),
            place,
            action,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_is_a_process_without_its_number() {
        for (process, role) in [("worker-1", "worker"), ("api-12", "api"), ("biller", "biller"), ("7", "7")] {
            assert_eq!(Origin::of_process(process).role, role);
        }
    }
}
