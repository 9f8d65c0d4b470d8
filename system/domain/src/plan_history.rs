//! Which plan was in force when.
//!
//! Not for deciding whether a change is allowed: a history holds what was applied.

use chrono::{DateTime, Utc};

use crate::plan::Plan;
use crate::text_enum::text_enum;

text_enum! {
    /// Which way a change of plan goes.
    PlanChangeKind {
        /// To a dearer plan, at once.
        Upgrade = "upgrade",
        /// To a cheaper one, when the period ends.
        Downgrade = "downgrade",
    }
}

impl PlanChangeKind {
    /// The way from one plan to another; `None` where nothing changes.
    #[must_use]
    pub fn of(from: Plan, to: Plan) -> Option<Self> {
        match to.cmp(&from) {
            std::cmp::Ordering::Greater => Some(Self::Upgrade),
            std::cmp::Ordering::Less => Some(Self::Downgrade),
            std::cmp::Ordering::Equal => None,
        }
    }
}

text_enum! {
    /// How a tenant stands with what it owes.
    BillingState {
        /// Nothing is overdue, or it is still within its dunning.
        Current = "current",
        /// Dunning ended without money: FREE's limits until it is paid, base still billed.
        PastDue = "past_due",
    }
}

impl BillingState {
    /// The plan whose limits hold for a tenant subscribed to `subscribed`.
    #[must_use]
    pub const fn effective_plan(self, subscribed: Plan) -> Plan {
        match self {
            Self::Current => subscribed,
            Self::PastDue => Plan::Free,
        }
    }
}

/// A change that took effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AppliedChange {
    /// First instant of the new plan.
    pub effective_at: DateTime<Utc>,
    /// In force before.
    pub from: Plan,
    /// In force from then on.
    pub to: Plan,
}

/// A tenant's plans over time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlanHistory {
    first: Plan,
    changes: Vec<AppliedChange>,
}

impl PlanHistory {
    /// `current` is the plan of a tenant that never changed; `changes` in the order in which they took effect.
    ///
    /// # Panics
    /// If the changes are not in order: the store sorts them.
    #[must_use]
    pub fn new(current: Plan, changes: Vec<AppliedChange>) -> Self {
        assert!(changes.is_sorted_by_key(|change| change.effective_at), "plan changes in order");
        Self { first: changes.first().map_or(current, |change| change.from), changes }
    }

    /// Adds a change that takes effect after all others.
    ///
    /// # Panics
    /// If it does not.
    pub fn push(&mut self, change: AppliedChange) {
        let newest = self.changes.last().map(|last| last.effective_at);
        assert!(newest.is_none_or(|newest| newest <= change.effective_at), "plan changes in order");
        self.changes.push(change);
    }

    /// The plan in force at an instant: a change counts from its own instant on.
    #[must_use]
    pub fn at(&self, instant: DateTime<Utc>) -> Plan {
        self.last(|change| change.effective_at <= instant)
    }

    /// The plan in force when a half-open period ended at `end`: a change of that instant belongs to the
    /// next period.
    #[must_use]
    pub fn before(&self, end: DateTime<Utc>) -> Plan {
        self.last(|change| change.effective_at < end)
    }

    fn last(&self, counts: impl Fn(&AppliedChange) -> bool) -> Plan {
        self.changes.iter().rev().find(|change| counts(change)).map_or(self.first, |change| change.to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    fn change(instant: &str, from: Plan, to: Plan) -> AppliedChange {
        AppliedChange { effective_at: at(instant), from, to }
    }

    #[test]
    fn without_changes_the_current_plan_always_held() {
        let history = PlanHistory::new(Plan::Pro, vec![]);
        assert_eq!(
            (history.at(at("1970-01-01T00:00:00Z")), history.before(at("2200-01-01T00:00:00Z"))),
            (Plan::Pro, Plan::Pro)
        );
    }

    #[test]
    fn a_change_at_a_boundary_belongs_to_the_period_that_starts() {
        let boundary = "2026-02-01T00:00:00Z";
        let history = PlanHistory::new(Plan::Free, vec![change(boundary, Plan::Pro, Plan::Starter)]);
        assert_eq!(history.before(at(boundary)), Plan::Pro);
        assert_eq!(history.at(at(boundary)), Plan::Starter);
    }

    #[test]
    fn of_two_changes_at_one_instant_the_later_one_holds() {
        let instant = "2026-02-10T10:00:00Z";
        let history = PlanHistory::new(
            Plan::Pro,
            vec![change(instant, Plan::Free, Plan::Starter), change(instant, Plan::Starter, Plan::Pro)],
        );
        assert_eq!(history.before(at(instant)), Plan::Free);
        assert_eq!(history.at(at(instant)), Plan::Pro);
    }

    #[test]
    fn the_way_of_a_change_follows_the_price() {
        assert_eq!(PlanChangeKind::of(Plan::Free, Plan::Pro), Some(PlanChangeKind::Upgrade));
        assert_eq!(PlanChangeKind::of(Plan::Pro, Plan::Starter), Some(PlanChangeKind::Downgrade));
        assert_eq!(PlanChangeKind::of(Plan::Pro, Plan::Pro), None);
    }

    #[test]
    fn who_is_past_due_has_the_limits_of_free() {
        assert_eq!(BillingState::PastDue.effective_plan(Plan::Pro), Plan::Free);
        assert_eq!(BillingState::Current.effective_plan(Plan::Pro), Plan::Pro);
    }
}
