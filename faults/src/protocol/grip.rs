//! A rule's hold on single requests.

use std::sync::{
    Arc,
    atomic::{AtomicU8, Ordering},
};

use super::{
    observer::Origin,
    rule::{Action, Place},
};

/// Whose request, for the record.
#[derive(Debug, Clone)]
pub(super) struct Connection {
    pub origin: Origin,
    pub number: u64,
}

/// What a rule does to one request.
#[derive(Debug, Clone)]
pub(super) struct Firing {
    pub action: Action,
    pub place: Place,
    pub operation: String,
    pub grip: Arc<Grip>,
}

/// A rule's hold on one request, until it is let go.
#[derive(Debug)]
pub(super) struct Grip {
    rule: String,
    state: AtomicU8,
}

/// What a grip says now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum GripState {
    Holding,
    Passed,
    Cut,
    /// The rule is gone: what was delayed goes on, what was held or dropped is cut.
    Removed,
}

impl Grip {
    pub(super) fn new(rule: String) -> Self {
        Self { rule, state: AtomicU8::new(0) }
    }

    /// Name of the rule.
    pub(super) fn rule(&self) -> &str {
        &self.rule
    }

    pub(super) fn state(&self) -> GripState {
        match self.state.load(Ordering::Acquire) {
            0 => GripState::Holding,
            1 => GripState::Passed,
            2 => GripState::Cut,
            _ => GripState::Removed,
        }
    }

    /// The first word counts.
    pub(super) fn set(&self, state: GripState) {
        let number = match state {
            GripState::Holding => return,
            GripState::Passed => 1,
            GripState::Cut => 2,
            GripState::Removed => 3,
        };
        // Failure means that it was let go before.
        let _ = self.state.compare_exchange(0, number, Ordering::AcqRel, Ordering::Acquire);
    }
}
