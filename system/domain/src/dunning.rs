//! When an unpaid invoice is charged again, when its tenant is past due, and when it is given up.
//!
//! Every time is counted from the issue, so that a run that comes late, or brings a tenant over many
//! weeks at once, dates everything as a run each hour would have.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, Duration, Utc};

use crate::text_enum::UnknownName;

/// Charges of an invoice's own schedule: at issue, and the three of its dunning.
pub const SCHEDULED_CHARGES: u32 = 4;

/// The durations of a billing run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BillingTerms {
    /// From a period's start to the issue of its invoice; usage that commits meanwhile joins it.
    pub issue_after: Duration,
    /// From the issue to each further charge; ascending.
    pub retry_after: [Duration; 3],
    /// From the last declined charge, which makes the tenant past due, to giving the invoice up.
    pub give_up_after: Duration,
}

impl Default for BillingTerms {
    /// One hour; 1, 3 and 7 days; 7 days.
    fn default() -> Self {
        Self {
            issue_after: Duration::hours(1),
            retry_after: [Duration::days(1), Duration::days(3), Duration::days(7)],
            give_up_after: Duration::days(7),
        }
    }
}

/// What follows a declined charge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AfterDecline {
    /// The next charge.
    TryAgain {
        /// When.
        at: DateTime<Utc>,
    },
    /// There is none: the tenant is past due.
    PastDue {
        /// When the last charge was due.
        since: DateTime<Utc>,
        /// When the invoice is given up if it is not paid until then.
        give_up_at: DateTime<Utc>,
    },
}

impl BillingTerms {
    /// What follows the decline of charge number `step` (0 the one at issue) of an invoice issued at `issued_at`.
    #[must_use]
    pub fn after_decline(&self, issued_at: DateTime<Utc>, step: u32) -> AfterDecline {
        let retry = |step: u32| self.retry_after.get(step as usize).copied();
        match retry(step) {
            Some(after) => AfterDecline::TryAgain { at: issued_at + after },
            None => {
                let since = issued_at + self.retry_after[self.retry_after.len() - 1];
                AfterDecline::PastDue { since, give_up_at: since + self.give_up_after }
            }
        }
    }
}

/// Why a charge is asked for; with tenant and invoice it makes the key that the provider knows it by. A
/// decline is final for its key, so each try has a purpose of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ChargePurpose {
    /// At issue.
    Invoice,
    /// Dunning, 1 to 3.
    Dunning(u32),
    /// The customer asked for another try, 1 and on.
    Pay(u32),
}

impl ChargePurpose {
    /// The charge that follows `declined` declined ones of the schedule; `None` after the last.
    #[must_use]
    pub const fn of_step(declined: u32) -> Option<Self> {
        match declined {
            0 => Some(Self::Invoice),
            1..SCHEDULED_CHARGES => Some(Self::Dunning(declined)),
            _ => None,
        }
    }

    /// Its place in the schedule; `None` for what the customer asked for.
    #[must_use]
    pub const fn step(self) -> Option<u32> {
        match self {
            Self::Invoice => Some(0),
            Self::Dunning(step) => Some(step),
            Self::Pay(_) => None,
        }
    }
}

impl fmt::Display for ChargePurpose {
    /// `invoice`, `dunning-1`, `pay-1`: as stored and as in the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invoice => f.write_str("invoice"),
            Self::Dunning(step) => write!(f, "dunning-{step}"),
            Self::Pay(count) => write!(f, "pay-{count}"),
        }
    }
}

impl FromStr for ChargePurpose {
    type Err = UnknownName;

    fn from_str(word: &str) -> Result<Self, UnknownName> {
        let number = |text: &str| text.parse().ok().filter(|number| *number >= 1);
        let found = match word.split_once('-') {
            None if word == "invoice" => Some(Self::Invoice),
            Some(("dunning", text)) => number(text).filter(|step| *step < SCHEDULED_CHARGES).map(Self::Dunning),
            Some(("pay", text)) => number(text).map(Self::Pay),
            _ => None,
        };
        found.ok_or(UnknownName("ChargePurpose"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn declined_charges_are_tried_after_one_three_and_seven_days_then_past_due_then_given_up() {
        let issued: DateTime<Utc> = "2026-01-01T01:00:00Z".parse().unwrap();
        let terms = BillingTerms::default();
        let again = |days| AfterDecline::TryAgain { at: issued + Duration::days(days) };
        assert_eq!(terms.after_decline(issued, 0), again(1));
        assert_eq!(terms.after_decline(issued, 1), again(3));
        assert_eq!(terms.after_decline(issued, 2), again(7));
        let since = issued + Duration::days(7);
        let past_due = AfterDecline::PastDue { since, give_up_at: issued + Duration::days(14) };
        assert_eq!(terms.after_decline(issued, 3), past_due);
    }

    #[test]
    fn each_try_has_a_purpose_of_its_own_that_reads_back() {
        let scheduled: Vec<_> = (0..6).filter_map(ChargePurpose::of_step).map(|p| p.to_string()).collect();
        assert_eq!(scheduled, ["invoice", "dunning-1", "dunning-2", "dunning-3"]);
        for purpose in [ChargePurpose::Invoice, ChargePurpose::Dunning(3), ChargePurpose::Pay(12)] {
            assert_eq!(purpose.to_string().parse(), Ok(purpose));
        }
        for wrong in ["", "dunning", "dunning-0", "dunning-4", "pay-0", "pay-x", "invoice-1"] {
            assert!(wrong.parse::<ChargePurpose>().is_err(), "{wrong}");
        }
        assert_eq!(ChargePurpose::Dunning(2).step(), Some(2));
        assert_eq!(ChargePurpose::Pay(2).step(), None);
    }
}
