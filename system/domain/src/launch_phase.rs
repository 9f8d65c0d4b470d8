//! How many customers are taken, and who: the steps of a launch.

use crate::text_enum::text_enum;

text_enum! {
    /// One step; each takes more customers than the one before.
    LaunchPhase {
        /// A hundred, by invitation: an address on the list, or a code.
        ClosedBeta = "closed-beta",
        /// The first thousand.
        First1000 = "1000",
        /// Five thousand.
        First5000 = "5000",
        /// Fifty thousand.
        First50000 = "50000",
        /// Two hundred thousand.
        First200000 = "200000",
    }
}

impl LaunchPhase {
    /// Most customers there may be in this phase.
    #[must_use]
    pub const fn customers_max(self) -> u64 {
        match self {
            Self::ClosedBeta => 100,
            Self::First1000 => 1_000,
            Self::First5000 => 5_000,
            Self::First50000 => 50_000,
            Self::First200000 => 200_000,
        }
    }

    /// Whether only the invited may sign up.
    #[must_use]
    pub const fn needs_invitation(self) -> bool {
        matches!(self, Self::ClosedBeta)
    }
}

/// The phase's limit and a further one, whichever is smaller; `None` is no limit.
#[must_use]
pub fn customers_max(phase: Option<LaunchPhase>, cap: Option<u64>) -> Option<u64> {
    match (phase.map(LaunchPhase::customers_max), cap) {
        (Some(phase), Some(cap)) => Some(phase.min(cap)),
        (phase, cap) => phase.or(cap),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_take_ever_more_customers_and_a_cap_only_lowers_them() {
        let limits: Vec<u64> = LaunchPhase::ALL.iter().map(|phase| phase.customers_max()).collect();
        assert_eq!(limits, [100, 1_000, 5_000, 50_000, 200_000]);
        assert_eq!(customers_max(Some(LaunchPhase::First1000), Some(5)), Some(5));
        assert_eq!(customers_max(Some(LaunchPhase::First1000), Some(5_000)), Some(1_000));
        assert_eq!(customers_max(None, Some(5_000)), Some(5_000));
        assert_eq!(customers_max(None, None), None);
    }
}
