//! What a forecast is made from, for the document. Read, and every bound held, by the forecast crate; what
//! the fields mean stands in its `MODEL.md`.

use serde::Deserialize;
use utoipa::ToSchema;

use crate::texts::{
    Amount, CurrencyCode, DayText, Factor, Growth, MoneyText, MonthText, SeedText, Share, ShortText, Sigma, StartMonth,
    Units,
};

macro_rules! parts {
    ($($(#[$meta:meta])* $name:ident { $($(#[$of_field:meta])* $field:ident: $kind:ty,)* })*) => {
        $(
            $(#[$meta])*
            #[derive(Deserialize, ToSchema)]
            #[serde(deny_unknown_fields)]
            #[allow(dead_code, reason = "documents the body, which the forecast crate reads")]
            pub(crate) struct $name { $($(#[$of_field])* $field: $kind,)* }
        )*
    };
}

/// A word that tells the kinds of cost lines apart.
macro_rules! kinds {
    ($($name:ident = $word:ident;)*) => {
        $(
            #[derive(Deserialize, ToSchema)]
            #[serde(rename_all = "snake_case")]
            #[allow(dead_code, reason = "documents the body, which the forecast crate reads")]
            pub(crate) enum $name {
                $word,
            }
        )*
    };
}

kinds! {
    FixedKind = Fixed;
    PercentOfRevenueKind = PercentOfRevenue;
    HeadcountKind = Headcount;
    OneOffKind = OneOff;
}

parts! {
    /// A forecast's input. Decimals are strings.
    ScenarioInput {
        currency: CurrencyCode,
        /// Month of t = 0.
        start_month: StartMonth,
        #[schema(minimum = 1, maximum = 120)]
        horizon_months: u32,
        /// Cash before the first month.
        opening_cash: MoneyText,
        /// A twelfth of it is taken each month.
        discount_rate_annual: Share,
        /// On what is earned, where that is positive.
        tax_rate: Share,
        #[schema(max_items = 50)]
        revenue: Vec<RevenueLine>,
        #[schema(max_items = 200)]
        costs: Vec<CostLine>,
        /// Null or absent where only the exact forecast is wanted.
        uncertainty: Option<UncertaintyInput>,
    }
    /// Something that is sold month by month.
    RevenueLine {
        name: ShortText,
        /// Units before the first month.
        opening_units: Units,
        /// Units added in the first month.
        adds_per_month: Units,
        adds_growth_monthly: Growth,
        /// Share of the units lost each month.
        churn_monthly: Share,
        /// Per unit and month.
        price: Units,
        /// A step every twelfth month.
        price_growth_annual: Growth,
        /// Twelve factors, January first.
        #[schema(min_items = 12, max_items = 12)]
        seasonality: Option<Vec<Factor>>,
        /// Months from revenue to money.
        #[schema(minimum = 0, maximum = 12)]
        collection_lag_months: u32,
    }
    /// An amount a month.
    FixedCost {
        kind: FixedKind,
        name: ShortText,
        /// In the line's first month.
        amount: Amount,
        /// A step every twelfth month.
        growth_annual: Growth,
        /// The scenario's where absent.
        start_month: Option<MonthText>,
        /// Never where absent; not before `start_month`.
        end_month: Option<MonthText>,
    }
    /// A share of all revenue of a month.
    PercentOfRevenueCost {
        kind: PercentOfRevenueKind,
        name: ShortText,
        rate: Factor,
    }
    /// A person, by days employed.
    HeadcountCost {
        kind: HeadcountKind,
        role: ShortText,
        annual_salary: Amount,
        /// On top of the salary.
        burden_rate: Factor,
        start_date: DayText,
        /// Never where absent; not before `start_date`.
        end_date: Option<DayText>,
    }
    /// An amount in one month.
    OneOffCost {
        kind: OneOffKind,
        name: ShortText,
        amount: Amount,
        month: MonthText,
    }
    /// How far prices and additions may stray.
    UncertaintyInput {
        #[schema(minimum = 1, maximum = 100_000)]
        paths: u32,
        price_sigma_monthly: Sigma,
        adds_sigma_monthly: Sigma,
        /// The same seed gives the same figures.
        seed: SeedText,
    }
}

/// A cost line of one of four kinds.
#[derive(Deserialize, ToSchema)]
#[serde(untagged)]
#[allow(dead_code, reason = "documents the body, which the forecast crate reads")]
pub(crate) enum CostLine {
    Fixed(FixedCost),
    PercentOfRevenue(PercentOfRevenueCost),
    Headcount(HeadcountCost),
    OneOff(OneOffCost),
}
