//! The scenario: what an input must look like, and its typed form once it does.
//!
//! Reading works on the parsed JSON value, so that every wrong field is reported with a pointer.
//! Not for storing: what is stored and hashed is the JSON value itself, without defaults filled in.

use chrono::NaiveDate;
use serde_json::Value;

use crate::calendar::Month;
use crate::decimal::Decimal;
use crate::field_error::FieldError;
use crate::reader::{Bounds, Faults, Reader};

const CASH: Bounds = Bounds::new(-100_000_000_000_000, 100_000_000_000_000, "-1000000000000 and 1000000000000");
const AMOUNT: Bounds = Bounds::new(0, 100_000_000_000_000, "0 and 1000000000000");
const UNITS: Bounds = Bounds::new(0, 100_000_000_000, "0 and 1000000000");
const RATE: Bounds = Bounds::new(0, 100, "0 and 1");
const GROWTH: Bounds = Bounds::new(-99, 100, "-0.99 and 1");
const FACTOR: Bounds = Bounds::new(0, 1_000, "0 and 10");
const SIGMA: Bounds = Bounds::new(0, 200, "0 and 2");

const HORIZON_MONTHS_MAX: i64 = 120;
const LAG_MONTHS_MAX: i64 = 12;
const PATHS_MAX: i64 = 100_000;
const REVENUE_LINES_MAX: usize = 50;
const COST_LINES_MAX: usize = 200;
const START_FIRST: Month = Month::new(1970, 1);
const START_LAST: Month = Month::new(2199, 12);

/// A scenario whose every field is within the model's bounds. Made only by [`validate`].
#[derive(Debug, Clone)]
pub struct ValidScenario {
    /// ISO 4217 code.
    pub currency: &'static str,
    /// Fractional digits of the currency's minor unit: 0, 2 or 3.
    pub minor_digits: usize,
    /// Month of t = 0, 1970-01 to 2199-12.
    pub start_month: Month,
    /// 1 to 120.
    pub horizon_months: usize,
    /// Cash before t = 0, ±1e12.
    pub opening_cash: Decimal,
    /// 0 to 1; a twelfth of it is taken each month.
    pub discount_rate_annual: Decimal,
    /// 0 to 1, on positive EBITDA.
    pub tax_rate: Decimal,
    /// At most 50, input order.
    pub revenue: Vec<Revenue>,
    /// At most 200, input order.
    pub costs: Vec<Cost>,
    /// Absent where only the exact forecast is wanted.
    pub uncertainty: Option<Uncertainty>,
}

/// A revenue line.
#[derive(Debug, Clone)]
pub struct Revenue {
    /// 1 to 200 characters.
    pub name: String,
    /// Units before t = 0, 0 to 1e9.
    pub opening_units: Decimal,
    /// Units added at t = 0, 0 to 1e9.
    pub adds_per_month: Decimal,
    /// Growth of the adds from month to month, -0.99 to 1.
    pub adds_growth_monthly: Decimal,
    /// Share of the units lost each month, 0 to 1.
    pub churn_monthly: Decimal,
    /// Per unit and month, 0 to 1e9.
    pub price: Decimal,
    /// Step every twelfth month from the start, -0.99 to 1.
    pub price_growth_annual: Decimal,
    /// Twelve factors from 0 to 10, January first; `None` is twelve ones.
    pub seasonality: Option<[Decimal; 12]>,
    /// Months from revenue to money, 0 to 12.
    pub collection_lag_months: usize,
}

/// A cost line.
#[derive(Debug, Clone)]
pub enum Cost {
    /// A monthly amount inside [`start`, `end`], both included.
    Fixed {
        /// 1 to 200 characters.
        name: String,
        /// At the line's own start, 0 to 1e12.
        amount: Decimal,
        /// Step every twelfth month from the line's own start, -0.99 to 1.
        growth_annual: Decimal,
        /// First month; `None` is the scenario's.
        start: Option<Month>,
        /// Last month; `None` is never.
        end: Option<Month>,
    },
    /// A share of the month's total revenue.
    PercentOfRevenue {
        /// 1 to 200 characters.
        name: String,
        /// 0 to 10.
        rate: Decimal,
    },
    /// A person's salary and what comes on top, by days employed.
    Headcount {
        /// 1 to 200 characters; reported as the line's name.
        role: String,
        /// 0 to 1e12.
        annual_salary: Decimal,
        /// On top of the salary, 0 to 10.
        burden_rate: Decimal,
        /// First day employed.
        start: NaiveDate,
        /// Last day employed; `None` is never.
        end: Option<NaiveDate>,
    },
    /// An amount in one month.
    OneOff {
        /// 1 to 200 characters.
        name: String,
        /// 0 to 1e12.
        amount: Decimal,
        /// Its month; no effect outside the horizon.
        month: Month,
    },
}

impl Cost {
    /// The line's name, or a headcount line's role.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Fixed { name, .. } | Self::PercentOfRevenue { name, .. } | Self::OneOff { name, .. } => name,
            Self::Headcount { role, .. } => role,
        }
    }
}

/// How far prices and adds may stray.
#[derive(Debug, Clone)]
pub struct Uncertainty {
    /// 1 to 100,000.
    pub paths: usize,
    /// 0 to 2.
    pub price_sigma_monthly: Decimal,
    /// 0 to 2.
    pub adds_sigma_monthly: Decimal,
    /// Key of the random streams.
    pub seed: u64,
}

/// Checks an input and gives its typed form.
///
/// # Errors
/// Every wrong field, in the order in which the fields of this module's types are read; within an
/// object unknown fields come first.
pub fn validate(input: &Value) -> Result<ValidScenario, Vec<FieldError>> {
    let faults = Faults::new();
    let scenario = Reader::new(input, String::new(), &faults).and_then(|reader| read_scenario(&reader));
    let faults = faults.into_vec();
    match scenario {
        Some(scenario) if faults.is_empty() => Ok(scenario),
        _ => {
            assert!(!faults.is_empty(), "a refused scenario names its faults");
            Err(faults)
        }
    }
}

fn read_scenario(r: &Reader<'_>) -> Option<ValidScenario> {
    r.only(&[
        "currency",
        "start_month",
        "horizon_months",
        "opening_cash",
        "discount_rate_annual",
        "tax_rate",
        "revenue",
        "costs",
        "uncertainty",
    ]);
    // All fields are read before the first `?`, so that one fault never hides another.
    let currency = read_currency(r);
    let start_month = r.month("start_month").filter(|month| {
        let inside = (START_FIRST..=START_LAST).contains(month);
        if !inside {
            r.fault("start_month", "out_of_range", "must lie between 1970-01 and 2199-12");
        }
        inside
    });
    let horizon_months = r.integer("horizon_months", 1, HORIZON_MONTHS_MAX);
    let opening_cash = r.decimal("opening_cash", CASH);
    let discount_rate_annual = r.decimal("discount_rate_annual", RATE);
    let tax_rate = r.decimal("tax_rate", RATE);
    let revenue = r.list("revenue", REVENUE_LINES_MAX, |line| read_revenue(&line));
    let costs = r.list("costs", COST_LINES_MAX, |line| read_cost(&line));
    let uncertainty = r.optional_object("uncertainty", |object| read_uncertainty(&object));
    let (currency, minor_digits) = currency?;
    Some(ValidScenario {
        currency,
        minor_digits,
        start_month: start_month?,
        horizon_months: horizon_months? as usize,
        opening_cash: opening_cash?,
        discount_rate_annual: discount_rate_annual?,
        tax_rate: tax_rate?,
        revenue: revenue?,
        costs: costs?,
        uncertainty: uncertainty?,
    })
}

fn read_currency(r: &Reader<'_>) -> Option<(&'static str, usize)> {
    let known = [("USD", 2), ("EUR", 2), ("GBP", 2), ("JPY", 0), ("KWD", 3)];
    let code = r.text("currency")?;
    let found = known.into_iter().find(|(known, _)| *known == code);
    if found.is_none() {
        r.fault("currency", "not_allowed", "must be one of USD, EUR, GBP, JPY, KWD");
    }
    found
}

fn read_revenue(r: &Reader<'_>) -> Option<Revenue> {
    r.only(&[
        "name",
        "opening_units",
        "adds_per_month",
        "adds_growth_monthly",
        "churn_monthly",
        "price",
        "price_growth_annual",
        "seasonality",
        "collection_lag_months",
    ]);
    let name = r.name("name");
    let opening_units = r.decimal("opening_units", UNITS);
    let adds_per_month = r.decimal("adds_per_month", UNITS);
    let adds_growth_monthly = r.decimal("adds_growth_monthly", GROWTH);
    let churn_monthly = r.decimal("churn_monthly", RATE);
    let price = r.decimal("price", UNITS);
    let price_growth_annual = r.decimal("price_growth_annual", GROWTH);
    let seasonality = r.optional_twelve("seasonality", FACTOR);
    let collection_lag_months = r.integer("collection_lag_months", 0, LAG_MONTHS_MAX);
    Some(Revenue {
        name: name?,
        opening_units: opening_units?,
        adds_per_month: adds_per_month?,
        adds_growth_monthly: adds_growth_monthly?,
        churn_monthly: churn_monthly?,
        price: price?,
        price_growth_annual: price_growth_annual?,
        seasonality: seasonality?,
        collection_lag_months: collection_lag_months? as usize,
    })
}

fn read_cost(r: &Reader<'_>) -> Option<Cost> {
    match r.text("kind")? {
        "fixed" => read_fixed(r),
        "percent_of_revenue" => {
            r.only(&["kind", "name", "rate"]);
            let (name, rate) = (r.name("name"), r.decimal("rate", FACTOR));
            Some(Cost::PercentOfRevenue { name: name?, rate: rate? })
        }
        "headcount" => read_headcount(r),
        "one_off" => {
            r.only(&["kind", "name", "amount", "month"]);
            let (name, amount, month) = (r.name("name"), r.decimal("amount", AMOUNT), r.month("month"));
            Some(Cost::OneOff { name: name?, amount: amount?, month: month? })
        }
        _ => {
            r.fault("kind", "not_allowed", "must be fixed, percent_of_revenue, headcount or one_off");
            None
        }
    }
}

fn read_fixed(r: &Reader<'_>) -> Option<Cost> {
    r.only(&["kind", "name", "amount", "growth_annual", "start_month", "end_month"]);
    let name = r.name("name");
    let amount = r.decimal("amount", AMOUNT);
    let growth_annual = r.decimal("growth_annual", GROWTH);
    let (start, end) = (r.optional_month("start_month"), r.optional_month("end_month"));
    if let (Some(Some(start)), Some(Some(end))) = (start, end)
        && end < start
    {
        r.fault("end_month", "end_before_start", "must not lie before start_month");
        return None;
    }
    Some(Cost::Fixed { name: name?, amount: amount?, growth_annual: growth_annual?, start: start?, end: end? })
}

fn read_headcount(r: &Reader<'_>) -> Option<Cost> {
    r.only(&["kind", "role", "annual_salary", "burden_rate", "start_date", "end_date"]);
    let role = r.name("role");
    let annual_salary = r.decimal("annual_salary", AMOUNT);
    let burden_rate = r.decimal("burden_rate", FACTOR);
    let (start, end) = (r.date("start_date"), r.optional_date("end_date"));
    if let (Some(start), Some(Some(end))) = (start, end)
        && end < start
    {
        r.fault("end_date", "end_before_start", "must not lie before start_date");
        return None;
    }
    Some(Cost::Headcount {
        role: role?,
        annual_salary: annual_salary?,
        burden_rate: burden_rate?,
        start: start?,
        end: end?,
    })
}

fn read_uncertainty(r: &Reader<'_>) -> Option<Uncertainty> {
    r.only(&["paths", "price_sigma_monthly", "adds_sigma_monthly", "seed"]);
    let paths = r.integer("paths", 1, PATHS_MAX);
    let price_sigma_monthly = r.decimal("price_sigma_monthly", SIGMA);
    let adds_sigma_monthly = r.decimal("adds_sigma_monthly", SIGMA);
    let seed = r.text("seed").and_then(|text| {
        let plain = text == "0" || (text.bytes().all(|b| b.is_ascii_digit()) && !text.starts_with('0'));
        let seed = text.parse().ok().filter(|_| plain);
        if seed.is_none() {
            r.fault("seed", "malformed", "must be a whole number from 0 to 18446744073709551615, as a string");
        }
        seed
    });
    Some(Uncertainty {
        paths: paths? as usize,
        price_sigma_monthly: price_sigma_monthly?,
        adds_sigma_monthly: adds_sigma_monthly?,
        seed: seed?,
    })
}
