//! Features that an operator can switch for one tenant at a time.
//!
//! Law: what is not known to be allowed is not. A word that is no flag has no effect; no switch grants what the
//! plan does not; and where plan or switches cannot be read there are no [`Entitlements`] to ask.

use crate::plan::Plan;
use crate::text_enum::text_enum;

text_enum! {
    /// Every switch there is. A stored word that is none of these has no effect.
    Flag {
        /// Forecasts with an uncertainty block: many simulated paths in the place of one.
        Uncertainty = "uncertainty",
        /// Forecasts beyond those a plan includes, each charged. Paid for.
        Overage = "overage",
    }
}

impl Flag {
    /// What holds for a tenant without a switch of its own.
    #[must_use]
    pub const fn default_on(self) -> bool {
        match self {
            Self::Uncertainty | Self::Overage => true,
        }
    }

    /// Whether a plan includes it at all: no switch grants what the plan does not.
    #[must_use]
    pub const fn is_in(self, plan: Plan) -> bool {
        match self {
            Self::Uncertainty => true,
            Self::Overage => plan.forecast_cap().is_none(),
        }
    }
}

/// A tenant's plan and its own switches.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Entitlements {
    plan: Plan,
    switches: Vec<(String, bool)>,
}

impl Entitlements {
    /// From the stored words; unknown ones are dropped.
    #[must_use]
    pub fn new(plan: Plan, switches: Vec<(String, bool)>) -> Self {
        Self { plan, switches: switches.into_iter().filter(|(word, _)| word.parse::<Flag>().is_ok()).collect() }
    }

    /// The plan AND the switch.
    #[must_use]
    pub fn allow(&self, flag: Flag) -> bool {
        let own = self.switches.iter().rev().find(|(word, _)| word == flag.as_str());
        flag.is_in(self.plan) && own.map_or(flag.default_on(), |(_, on)| *on)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(plan: Plan, switches: &[(&str, bool)]) -> Entitlements {
        Entitlements::new(plan, switches.iter().map(|(word, on)| ((*word).to_owned(), *on)).collect())
    }

    #[test]
    fn a_paid_feature_needs_its_plan_and_its_switch() {
        for (plan, switch, allowed) in [
            (Plan::Free, None, false),
            (Plan::Free, Some(true), false),
            (Plan::Starter, None, true),
            (Plan::Starter, Some(true), true),
            (Plan::Pro, Some(false), false),
        ] {
            let switches: Vec<_> = switch.map(|on| ("overage", on)).into_iter().collect();
            assert_eq!(with(plan, &switches).allow(Flag::Overage), allowed, "{plan} {switch:?}");
        }
    }

    #[test]
    fn an_unknown_word_grants_nothing() {
        let odd = with(Plan::Free, &[("everything", true), ("Overage", true)]);
        assert!(!odd.allow(Flag::Overage));
        assert_eq!(odd, with(Plan::Free, &[]));
        assert!("monte_carlo".parse::<Flag>().is_err());
    }

    #[test]
    fn a_switch_holds_for_its_own_flag_only() {
        let off = with(Plan::Pro, &[("uncertainty", false)]);
        assert!(!off.allow(Flag::Uncertainty) && off.allow(Flag::Overage));
    }
}
