//! The three plans: what they cost, what they include, where they stop.

use crate::money::Currency;
use crate::text_enum::text_enum;

text_enum! {
    /// What a tenant pays for. Ordered: a later one costs more and allows more.
    Plan {
        /// No charge and no overage: the included forecasts are a hard cap.
        Free = "FREE",
        /// Paid, with overage.
        Starter = "STARTER",
        /// Paid, with cheaper overage and no scenario limit.
        Pro = "PRO",
    }
}

impl Plan {
    /// Price of one billing period, in minor units of `currency`, charged in advance.
    #[must_use]
    pub const fn base_price_minor(self, currency: Currency) -> i64 {
        match (self, currency) {
            (Self::Free, _) => 0,
            (Self::Starter, Currency::Usd) => 2_900,
            (Self::Starter, Currency::Eur) => 2_700,
            (Self::Starter, Currency::Gbp) => 2_400,
            (Self::Starter, Currency::Jpy) => 4_300,
            (Self::Starter, Currency::Kwd) => 8_900,
            (Self::Pro, Currency::Usd) => 9_900,
            (Self::Pro, Currency::Eur) => 9_200,
            (Self::Pro, Currency::Gbp) => 8_200,
            (Self::Pro, Currency::Jpy) => 14_800,
            (Self::Pro, Currency::Kwd) => 30_400,
        }
    }

    /// Forecasts a period includes; for FREE also the most it admits.
    #[must_use]
    pub const fn included_forecasts(self) -> u32 {
        match self {
            Self::Free => 5,
            Self::Starter => 100,
            Self::Pro => 1_000,
        }
    }

    /// Price of each forecast beyond the included ones, in minor units of `currency`.
    /// `None`: there are none to be had on this plan.
    #[must_use]
    pub const fn overage_price_minor(self, currency: Currency) -> Option<i64> {
        Some(match (self, currency) {
            (Self::Free, _) => return None,
            (Self::Starter, Currency::Usd) => 20,
            (Self::Starter, Currency::Eur) => 19,
            (Self::Starter, Currency::Gbp) => 16,
            (Self::Starter, Currency::Jpy) => 30,
            (Self::Starter, Currency::Kwd) => 61,
            (Self::Pro, Currency::Usd) => 10,
            (Self::Pro, Currency::Eur) => 9,
            (Self::Pro, Currency::Gbp) => 8,
            (Self::Pro, Currency::Jpy) => 15,
            (Self::Pro, Currency::Kwd) => 31,
        })
    }

    /// Most forecasts a period admits; `None` where further ones are charged instead of refused.
    #[must_use]
    pub const fn forecast_cap(self) -> Option<u32> {
        match self {
            Self::Free => Some(self.included_forecasts()),
            Self::Starter | Self::Pro => None,
        }
    }

    /// Most scenarios a tenant may keep; `None` is unlimited.
    #[must_use]
    pub const fn scenario_limit(self) -> Option<u32> {
        match self {
            Self::Free => Some(3),
            Self::Starter => Some(50),
            Self::Pro => None,
        }
    }

    /// Most users a tenant may have.
    #[must_use]
    pub const fn user_limit(self) -> u32 {
        match self {
            Self::Free => 1,
            Self::Starter => 5,
            Self::Pro => 50,
        }
    }

    /// The next plan up, named to a tenant who met a limit; `None` at the top.
    #[must_use]
    pub const fn upgrade(self) -> Option<Self> {
        match self {
            Self::Free => Some(Self::Starter),
            Self::Starter => Some(Self::Pro),
            Self::Pro => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prices(of: impl Fn(Currency) -> i64) -> Vec<i64> {
        Currency::ALL.iter().map(|c| of(*c)).collect()
    }

    #[test]
    fn base_prices_are_the_published_ones() {
        assert_eq!(prices(|c| Plan::Free.base_price_minor(c)), [0; 5]);
        assert_eq!(prices(|c| Plan::Starter.base_price_minor(c)), [2900, 2700, 2400, 4300, 8900]);
        assert_eq!(prices(|c| Plan::Pro.base_price_minor(c)), [9900, 9200, 8200, 14800, 30400]);
    }

    #[test]
    fn overage_prices_are_the_published_ones() {
        let overage = |plan: Plan| prices(|c| plan.overage_price_minor(c).unwrap());
        assert_eq!(overage(Plan::Starter), [20, 19, 16, 30, 61]);
        assert_eq!(overage(Plan::Pro), [10, 9, 8, 15, 31]);
        assert!(Currency::ALL.iter().all(|c| Plan::Free.overage_price_minor(*c).is_none()));
    }

    #[test]
    fn limits_are_the_published_ones() {
        let limits = |p: Plan| (p.included_forecasts(), p.forecast_cap(), p.scenario_limit(), p.user_limit());
        assert_eq!(limits(Plan::Free), (5, Some(5), Some(3), 1));
        assert_eq!(limits(Plan::Starter), (100, None, Some(50), 5));
        assert_eq!(limits(Plan::Pro), (1_000, None, None, 50));
    }

    #[test]
    fn exactly_the_capped_plan_has_no_overage() {
        for plan in Plan::ALL {
            assert_eq!(plan.forecast_cap().is_some(), plan.overage_price_minor(Currency::Usd).is_none());
        }
        assert_eq!(Plan::Free.upgrade(), Some(Plan::Starter));
        assert_eq!(Plan::Pro.upgrade(), None);
    }
}
