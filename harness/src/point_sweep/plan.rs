//! What a sweep visits: the points of a story, and what is done at each.

use std::str::FromStr;

use clap::ValueEnum;
use nogo_faults::{Action, Occurrence, Pattern, Place, Protocol, Rule};
use serde::{Deserialize, Serialize};

/// Name of the one rule of a case.
pub(super) const RULE: &str = "point";

/// One client's way through the system, with one end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Story {
    /// A forecast from its request to its paid bill.
    Forecast,
    /// The biller closes a month with usage in it.
    BillingRun,
    /// A refresh token is exchanged for the next.
    Refresh,
    /// A plan is changed for a larger one, which costs the rest of the period.
    Upgrade,
    /// The provider tells of a charge whose answer was lost.
    Webhook,
}

impl Story {
    /// As it is written on the command line and in the record.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Forecast => "forecast",
            Self::BillingRun => "billing-run",
            Self::Refresh => "refresh",
            Self::Upgrade => "upgrade",
            Self::Webhook => "webhook",
        }
    }

    /// Services that take part from the beginning.
    pub(super) const fn services(self) -> &'static [&'static str] {
        match self {
            Self::Forecast => &["api-1", "worker-1"],
            Self::BillingRun => &[],
            Self::Refresh | Self::Upgrade | Self::Webhook => &["api-1"],
        }
    }
}

/// What is done at a point.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PointFault {
    /// The request never reaches its server; the connection is closed.
    LostBefore,
    /// The server has done it, and its answer is lost; the connection is closed.
    LostAfter,
    /// The server has done it, and the process is killed before it knows.
    Kill,
    /// The process stands still just before it asks, past its lease and until others have moved on; then it wakes and asks.
    Stop,
}

impl PointFault {
    /// All, in the order in which they are tried.
    pub const ALL: [Self; 4] = [Self::LostBefore, Self::LostAfter, Self::Kill, Self::Stop];

    /// As it is written on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::LostBefore => "lost-before",
            Self::LostAfter => "lost-after",
            Self::Kill => "kill",
            Self::Stop => "stop",
        }
    }

    /// As the record calls it.
    pub(super) const fn kind(self) -> &'static str {
        match self {
            Self::LostBefore => "point_lost_before",
            Self::LostAfter => "point_lost_after",
            Self::Kill => "point_kill",
            Self::Stop => "point_stop",
        }
    }

    const fn place(self) -> Place {
        match self {
            Self::LostBefore | Self::Stop => Place::BeforeServer,
            Self::LostAfter | Self::Kill => Place::BeforeClient,
        }
    }

    const fn action(self) -> Action {
        match self {
            Self::LostBefore | Self::LostAfter => Action::Cut,
            Self::Kill | Self::Stop => Action::Hold { ms: None },
        }
    }
}

/// A place in a story where something lasting happens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SweepPoint {
    /// Its number in the listing, from 1.
    pub number: usize,
    /// Its name, the same in every listing of the same system: `worker/postgres/8f2c91d03b7e#1`.
    pub name: String,
    /// Who asks: `api`, `worker`, `biller`.
    pub role: String,
    /// Whom.
    pub protocol: Protocol,
    /// What, as people read it.
    pub operation: String,
    /// What matches it in another run.
    pub pattern: Pattern,
    /// The how many-th match it is, from the story's beginning.
    pub k: u64,
    /// It comes by itself, as a worker's look for work does; the first one after the story's beginning is visited.
    pub recurs: bool,
}

impl SweepPoint {
    /// The rule that strikes it.
    #[must_use]
    pub fn rule(&self, fault: PointFault) -> Rule {
        Rule {
            name: RULE.to_owned(),
            role: Some(self.role.clone()),
            pattern: self.pattern.clone(),
            k: Occurrence::Kth(self.k),
            place: fault.place(),
            action: fault.action(),
        }
    }
}

/// A point as somebody asks for it: by number or by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PointChoice {
    /// By its number in the listing.
    Number(usize),
    /// By its name.
    Name(String),
}

impl PointChoice {
    /// Whether it means this one.
    #[must_use]
    pub fn means(&self, point: &SweepPoint) -> bool {
        match self {
            Self::Number(number) => point.number == *number,
            Self::Name(name) => point.name == *name,
        }
    }
}

impl FromStr for PointChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse::<usize>() {
            Ok(0) => Err("points are numbered from 1".to_owned()),
            Ok(number) => Ok(Self::Number(number)),
            Err(_) if text.contains('#') => Ok(Self::Name(text.to_owned())),
            Err(_) => Err(format!("'{text}' is no point: give its number or its name, as --list shows them")),
        }
    }
}

impl std::fmt::Display for PointChoice {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Number(number) => write!(formatter, "{number}"),
            Self::Name(name) => formatter.write_str(name),
        }
    }
}

/// How a sweep is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SweepSettings {
    /// Root of everything drawn.
    pub seed: u64,
    /// Lease of a worker's claim, and how long an open transaction may be silent, milliseconds.
    pub lease_ms: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use nogo_faults::HttpPattern;

    fn point() -> SweepPoint {
        let pattern = HttpPattern { method: Some("POST".into()), path: Some("/v1/charges".into()) };
        SweepPoint {
            number: 7,
            name: "biller/http/POST /v1/charges#2".into(),
            role: "biller".into(),
            protocol: Protocol::Http,
            operation: "POST /v1/charges".into(),
            pattern: Pattern::Http(pattern),
            k: 2,
            recurs: false,
        }
    }

    #[test]
    fn every_fault_makes_a_rule_that_a_book_takes() {
        for fault in PointFault::ALL {
            let rule = point().rule(fault);
            rule.validate().unwrap();
            assert_eq!((rule.k, rule.role.as_deref()), (Occurrence::Kth(2), Some("biller")));
            let before = matches!(fault, PointFault::LostBefore | PointFault::Stop);
            assert_eq!(rule.place == Place::BeforeServer, before, "{}", fault.name());
        }
    }

    #[test]
    fn a_point_is_asked_for_by_number_or_by_name_and_nothing_else() {
        assert!("7".parse::<PointChoice>().unwrap().means(&point()));
        assert!("biller/http/POST /v1/charges#2".parse::<PointChoice>().unwrap().means(&point()));
        assert!(!"8".parse::<PointChoice>().unwrap().means(&point()));
        "0".parse::<PointChoice>().unwrap_err();
        "seven".parse::<PointChoice>().unwrap_err();
    }

    #[test]
    fn names_on_the_command_line_are_those_of_the_record() {
        for story in Story::value_variants() {
            assert_eq!(story.to_possible_value().unwrap().get_name(), story.name());
            assert_eq!(serde_json::to_value(story).unwrap(), story.name());
            assert!(nogo_invariants::laws::of_story(story.name()).is_some(), "{} has no law", story.name());
        }
        for fault in PointFault::ALL {
            assert_eq!(fault.to_possible_value().unwrap().get_name(), fault.name());
        }
    }
}
