//! What a tenant must have been invoiced: the plan table, and the subscription invoices.
//!
//! The subscription invoice of period n is raised at the start of n. It holds the base of
//! period n in advance, at the plan in force at that start, and the overage of period n-1, at
//! the plan in force when n-1 ended. Period 0 has nothing behind it: base only. Where no line
//! has an amount there is no invoice. It is a draft for one hour; usage stamped in the ended
//! period and committed within that hour still joins, later commits go to the next period.
//! Not here: proration invoices, dunning, credit notes.
//!
//! Money is whole minor units. Re-derived from the specification on purpose: do not
//! deduplicate against the system.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::calendar::{CalendarError, Period, periods};
use super::exact::round_half_away;

/// How long an invoice stays a draft.
pub const DRAFT_HOURS: i64 = 1;

/// A tax rate of 100 %.
const PPM: i128 = 1_000_000;

/// What a tenant subscribes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Plan {
    /// No base; five forecasts and not one more.
    Free,
    /// 100 forecasts included.
    Starter,
    /// 1,000 forecasts included.
    Pro,
}

/// Currencies of the table, in the order of its columns.
const CURRENCIES: [&str; 5] = ["USD", "EUR", "GBP", "JPY", "KWD"];

impl Plan {
    /// Reads `FREE`, `STARTER` or `PRO`, in any case.
    pub fn named(name: &str) -> Option<Self> {
        [Self::Free, Self::Starter, Self::Pro].into_iter().find(|plan| plan.name().eq_ignore_ascii_case(name))
    }

    /// The name in capitals.
    pub fn name(self) -> &'static str {
        match self {
            Self::Free => "FREE",
            Self::Starter => "STARTER",
            Self::Pro => "PRO",
        }
    }

    /// Base of one period in minor units; `None` for a currency that is not sold.
    pub fn base_minor(self, currency: &str) -> Option<i64> {
        let row = match self {
            Self::Free => [0; 5],
            Self::Starter => [2_900, 2_700, 2_400, 4_300, 8_900],
            Self::Pro => [9_900, 9_200, 8_200, 14_800, 30_400],
        };
        column(currency).map(|column| row[column])
    }

    /// Price of one forecast beyond the included ones, in minor units; `None` where there is none.
    pub fn further_minor(self, currency: &str) -> Option<i64> {
        let row = match self {
            Self::Free => return None,
            Self::Starter => [20, 19, 16, 30, 61],
            Self::Pro => [10, 9, 8, 15, 31],
        };
        column(currency).map(|column| row[column])
    }

    /// Forecasts of a period that the base pays for.
    pub fn included(self) -> u64 {
        match self {
            Self::Free => 5,
            Self::Starter => 100,
            Self::Pro => 1_000,
        }
    }

    /// Forecasts of a period at most; `None` where more are sold.
    pub fn hard_cap(self) -> Option<u64> {
        (self == Self::Free).then(|| self.included())
    }
}

fn column(currency: &str) -> Option<usize> {
    CURRENCIES.iter().position(|known| *known == currency)
}

/// One forecast that reached succeeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UsageEvent {
    /// The stamp, which decides the period.
    pub at: Timestamp,
    /// When it became visible, on the clock that `as_of` is on; `None`: at its stamp.
    pub committed_at: Option<Timestamp>,
}

/// All that decides a tenant's subscription invoices.
#[derive(Debug, Clone)]
pub struct TenantFacts {
    /// IANA time zone.
    pub zone: String,
    /// Instant of sign-up; its local day is the anchor.
    pub signup: Timestamp,
    /// One of the five ISO 4217 codes.
    pub currency: String,
    /// Tax in parts per million, 0 to 1,000,000.
    pub tax_rate_ppm: u32,
    /// From when on which plan was in force, in any order; the later entry of one instant wins.
    /// The earliest also holds before its instant. Not empty.
    pub plans: Vec<(Timestamp, Plan)>,
    /// In any order.
    pub usage: Vec<UsageEvent>,
}

/// What a line charges for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LineKind {
    /// The starting period, in advance.
    Base,
    /// Forecasts of the ended period beyond the included ones.
    Overage,
}

/// A line of an invoice; lines without an amount are left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ExpectedLine {
    /// What it charges for.
    pub kind: LineKind,
    /// The plan whose price it is.
    pub plan: Plan,
    /// 1 for a base, forecasts for an overage.
    pub quantity: u64,
    /// Minor units, before tax.
    pub unit_minor: i64,
    /// `quantity * unit_minor`.
    pub amount_minor: i64,
    /// Tax on `amount_minor`, half away from zero.
    pub tax_minor: i64,
}

/// A subscription invoice that must exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExpectedInvoice {
    /// The starting period.
    pub period_index: u32,
    /// Start of the starting period; the draft is made then.
    pub period_start: Timestamp,
    /// End of the starting period.
    pub period_end: Timestamp,
    /// Always `subscription`.
    pub kind: &'static str,
    /// Base first.
    pub lines: Vec<ExpectedLine>,
    /// Sum of the lines with their tax.
    pub total_minor: i64,
    /// Sum of the lines' tax.
    pub tax_minor: i64,
    /// ISO 4217.
    pub currency: String,
    /// When the draft is issued, from which instant on lines and totals are final.
    pub issued_at: Timestamp,
    /// Whether `issued_at` has come by `as_of`; else usage may still join.
    pub is_final: bool,
}

/// Why nothing can be expected.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum BillingError {
    /// The periods cannot be computed.
    #[error(transparent)]
    Calendar(#[from] CalendarError),
    /// Not one of the five currencies.
    #[error("no prices in {0:?}")]
    Currency(String),
    /// No plan was ever in force.
    #[error("no plan in the history")]
    NoPlan,
    /// A tax rate above 100 %.
    #[error("tax rate of {0} ppm")]
    TaxRate(u32),
    /// An amount or instant beyond what its type holds.
    #[error("beyond the range of amounts or instants")]
    Overflow,
}

/// The subscription invoices of all periods that have begun by `as_of`, oldest first.
pub fn expected_invoices(facts: &TenantFacts, as_of: Timestamp) -> Result<Vec<ExpectedInvoice>, BillingError> {
    if i128::from(facts.tax_rate_ppm) > PPM {
        return Err(BillingError::TaxRate(facts.tax_rate_ppm));
    }
    if column(&facts.currency).is_none() {
        return Err(BillingError::Currency(facts.currency.clone()));
    }
    let plans = PlanHistory::of(facts)?;
    let periods = periods(&facts.zone, facts.signup, as_of)?;
    let usage = usage_per_period(facts, &periods)?;
    let mut invoices = Vec::new();
    for (index, period) in periods.iter().enumerate() {
        let mut lines = Vec::new();
        let plan = if index == 0 { plans.at(facts.signup.max(period.start)) } else { plans.at(period.start) };
        lines.extend(line(facts, LineKind::Base, plan, 1)?);
        if let Some(ended) = index.checked_sub(1) {
            let plan = plans.before(periods[ended].end);
            let over = usage[ended].saturating_sub(plan.included());
            lines.extend(line(facts, LineKind::Overage, plan, over)?);
        }
        if lines.is_empty() {
            continue;
        }
        let sum = |part: fn(&ExpectedLine) -> i64| {
            lines.iter().try_fold(0i64, |sum, line| sum.checked_add(part(line))).ok_or(BillingError::Overflow)
        };
        let tax_minor = sum(|line| line.tax_minor)?;
        let net_minor = sum(|line| line.amount_minor)?;
        let issued_at = after_the_draft(period.start)?;
        invoices.push(ExpectedInvoice {
            period_index: period.index,
            period_start: period.start,
            period_end: period.end,
            kind: "subscription",
            total_minor: net_minor.checked_add(tax_minor).ok_or(BillingError::Overflow)?,
            tax_minor,
            lines,
            currency: facts.currency.clone(),
            issued_at,
            is_final: issued_at <= as_of,
        });
    }
    Ok(invoices)
}

/// Tax on an amount, half away from zero. `None` on overflow.
pub fn tax_minor(amount_minor: i64, rate_ppm: u32) -> Option<i64> {
    let taxed = i128::from(amount_minor) * i128::from(rate_ppm);
    i64::try_from(round_half_away(taxed, PPM)?).ok()
}

fn line(facts: &TenantFacts, kind: LineKind, plan: Plan, quantity: u64) -> Result<Option<ExpectedLine>, BillingError> {
    let unit = match kind {
        LineKind::Base => plan.base_minor(&facts.currency),
        LineKind::Overage => plan.further_minor(&facts.currency),
    };
    let unit_minor = unit.unwrap_or(0);
    let amount_minor = i64::try_from(quantity)
        .ok()
        .and_then(|quantity| quantity.checked_mul(unit_minor))
        .ok_or(BillingError::Overflow)?;
    if amount_minor == 0 {
        return Ok(None);
    }
    let tax_minor = tax_minor(amount_minor, facts.tax_rate_ppm).ok_or(BillingError::Overflow)?;
    Ok(Some(ExpectedLine { kind, plan, quantity, unit_minor, amount_minor, tax_minor }))
}

/// Events that count for each period, by stamp and, where they came late, by commit.
fn usage_per_period(facts: &TenantFacts, periods: &[Period]) -> Result<Vec<u64>, BillingError> {
    let mut counts = vec![0u64; periods.len()];
    for event in &facts.usage {
        let committed = event.committed_at.unwrap_or(event.at);
        // A stamp before the first midnight cannot be; it is counted there, not dropped.
        let stamped = periods.partition_point(|period| period.end <= event.at);
        for index in stamped..periods.len() {
            if committed < after_the_draft(periods[index].end)? {
                counts[index] += 1;
                break;
            }
        }
    }
    Ok(counts)
}

fn after_the_draft(start: Timestamp) -> Result<Timestamp, BillingError> {
    start.checked_add(SignedDuration::from_hours(DRAFT_HOURS)).map_err(|_| BillingError::Overflow)
}

struct PlanHistory {
    first: Plan,
    changes: Vec<(Timestamp, Plan)>,
}

impl PlanHistory {
    fn of(facts: &TenantFacts) -> Result<Self, BillingError> {
        let mut changes = facts.plans.clone();
        // Stable: of two entries with one instant, the one given later stays the later.
        changes.sort_by_key(|(at, _)| *at);
        let first = changes.first().ok_or(BillingError::NoPlan)?.1;
        Ok(Self { first, changes })
    }

    /// In force at `instant`.
    fn at(&self, instant: Timestamp) -> Plan {
        self.last_of(self.changes.partition_point(|(at, _)| *at <= instant))
    }

    /// In force just before `instant`.
    fn before(&self, instant: Timestamp) -> Plan {
        self.last_of(self.changes.partition_point(|(at, _)| *at < instant))
    }

    fn last_of(&self, count: usize) -> Plan {
        count.checked_sub(1).map_or(self.first, |last| self.changes[last].1)
    }
}
