//! What an upgrade in the middle of a period costs: the share of both bases that is still to come.
//!
//! Not for when an upgrade takes effect, nor for who pays it how: those are billing's.

use chrono::{DateTime, Utc};

use crate::invoice::{InvoiceDraft, InvoiceLine, LineKind, TAX_RATE_PPM_ONE};
use crate::money::{Currency, Money, MoneyError, round_half_away};
use crate::period::Period;
use crate::plan::Plan;

/// Everything a proration invoice is computed from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProrationCharge {
    /// The tenant's currency.
    pub currency: Currency,
    /// The tenant's tax rate, parts per million. Not negative.
    pub tax_rate_ppm: i64,
    /// Plan whose base was charged for the period.
    pub from: Plan,
    /// Plan that is in force from `at` on.
    pub to: Plan,
    /// The running period.
    pub period: Period,
    /// When the upgrade was asked for; within `period`.
    pub at: DateTime<Utc>,
}

/// Whole seconds of `period` from `at` on; what is left of a second begun is not charged.
/// Between 0 and the period's length.
#[must_use]
pub fn remaining_seconds(period: &Period, at: DateTime<Utc>) -> i64 {
    (period.end - at).num_seconds().clamp(0, period.seconds())
}

/// Two lines: the new base, and minus the old one, each × remaining seconds / the period's seconds,
/// rounded half away from zero, as is the tax on each. A line that comes to nothing is absent;
/// `None` where nothing is to be charged.
///
/// # Errors
/// `OutOfRange` if the tax rate is negative or an amount leaves 64 bits of minor units.
pub fn proration_invoice(charge: &ProrationCharge) -> Result<Option<InvoiceDraft>, MoneyError> {
    if charge.tax_rate_ppm < 0 {
        return Err(MoneyError::OutOfRange);
    }
    let mut lines = Vec::new();
    for (kind, plan) in [(LineKind::ProrationCharge, charge.to), (LineKind::ProrationCredit, charge.from)] {
        lines.extend(line(charge, kind, plan)?);
    }
    let total = lines.iter().try_fold(Money::zero(charge.currency), |sum, line: &InvoiceLine| {
        sum.checked_add(Money::new(charge.currency, line.amount_minor))?
            .checked_add(Money::new(charge.currency, line.tax_minor))
    })?;
    Ok((total.amount_minor > 0).then_some(InvoiceDraft { lines, total }))
}

fn line(charge: &ProrationCharge, kind: LineKind, plan: Plan) -> Result<Option<InvoiceLine>, MoneyError> {
    let (remaining, whole) = (remaining_seconds(&charge.period, charge.at), charge.period.seconds());
    let sign = if kind == LineKind::ProrationCharge { 1 } else { -1 };
    let base = i128::from(sign * plan.base_price_minor(charge.currency));
    let amount_minor = round_half_away(base * i128::from(remaining), i128::from(whole))?;
    if amount_minor == 0 {
        return Ok(None);
    }
    let tax_minor =
        round_half_away(i128::from(amount_minor) * i128::from(charge.tax_rate_ppm), i128::from(TAX_RATE_PPM_ONE))?;
    let what = if sign > 0 { "plan" } else { "plan, not used" };
    let description = format!("{plan} {what}: {remaining} of {whole} seconds");
    // One of its kind: the price of the share is its amount.
    let (quantity, unit_price_minor) = (1, amount_minor);
    Ok(Some(InvoiceLine { kind, description, quantity, unit_price_minor, amount_minor, tax_minor }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn period(start: &str, end: &str) -> Period {
        Period { index: 3, start: start.parse().unwrap(), end: end.parse().unwrap() }
    }

    fn charge(currency: Currency, from: Plan, to: Plan, ppm: i64, at: &str) -> ProrationCharge {
        let period = period("2026-04-01T00:00:00Z", "2026-05-01T00:00:00Z");
        ProrationCharge { currency, tax_rate_ppm: ppm, from, to, period, at: at.parse().unwrap() }
    }

    /// Amount and tax of each line, and the total.
    fn figures(charge: &ProrationCharge) -> Option<(Vec<(i64, i64)>, i64)> {
        proration_invoice(charge).unwrap().map(|draft| {
            (draft.lines.iter().map(|l| (l.amount_minor, l.tax_minor)).collect(), draft.total.amount_minor)
        })
    }

    #[test]
    fn half_a_period_costs_half_of_both_bases() {
        let half = charge(Currency::Usd, Plan::Starter, Plan::Pro, 0, "2026-04-16T00:00:00Z");
        assert_eq!(figures(&half), Some((vec![(4950, 0), (-1450, 0)], 3500)));
        let free = charge(Currency::Usd, Plan::Free, Plan::Starter, 0, "2026-04-16T00:00:00Z");
        assert_eq!(figures(&free), Some((vec![(1450, 0)], 1450)), "FREE has no base to give back");
    }

    #[test]
    fn ties_go_away_from_zero_on_each_line_and_its_tax() {
        // A quarter: 14800/4 = 3700, 4300/4 = 1075; 10 % of 1075 = 107.5.
        let quarter = charge(Currency::Jpy, Plan::Starter, Plan::Pro, 100_000, "2026-04-23T12:00:00Z");
        assert_eq!(figures(&quarter), Some((vec![(3700, 370), (-1075, -108)], 3700 + 370 - 1075 - 108)));
        // An eighth: 2700/8 = 337.5, 9200/8 = 1150.
        let eighth = charge(Currency::Eur, Plan::Starter, Plan::Pro, 0, "2026-04-27T06:00:00Z");
        assert_eq!(figures(&eighth), Some((vec![(1150, 0), (-338, 0)], 812)));
    }

    #[test]
    fn a_second_begun_is_not_charged_and_the_last_instant_is_free() {
        let period = period("2026-04-01T00:00:00Z", "2026-05-01T00:00:00Z");
        assert_eq!(remaining_seconds(&period, "2026-04-30T23:59:58.001Z".parse().unwrap()), 1);
        assert_eq!(remaining_seconds(&period, period.start), 30 * 86_400);
        let last = charge(Currency::Kwd, Plan::Free, Plan::Pro, 190_000, "2026-04-30T23:59:59.5Z");
        assert_eq!(figures(&last), None);
    }

    #[test]
    fn a_period_with_a_change_of_clocks_is_measured_in_its_own_seconds() {
        // Europe/Berlin, March 2026: an hour short of 31 days.
        let period = period("2026-02-28T23:00:00Z", "2026-03-31T22:00:00Z");
        let at = period.start + chrono::Duration::seconds(period.seconds() / 2);
        let charge = ProrationCharge {
            currency: Currency::Gbp,
            tax_rate_ppm: 0,
            from: Plan::Free,
            to: Plan::Starter,
            period,
            at,
        };
        assert_eq!(period.seconds(), 31 * 86_400 - 3_600);
        assert_eq!(figures(&charge), Some((vec![(1200, 0)], 1200)));
    }

    #[test]
    fn a_negative_tax_rate_is_refused() {
        let bad = charge(Currency::Usd, Plan::Free, Plan::Pro, -1, "2026-04-16T00:00:00Z");
        assert_eq!(proration_invoice(&bad), Err(MoneyError::OutOfRange));
    }

    proptest! {
        #[test]
        fn an_upgrade_never_pays_out_and_never_costs_more_than_the_whole_difference(
            currency in proptest::sample::select(Currency::ALL),
            pair in proptest::sample::select(
                &[(Plan::Free, Plan::Starter), (Plan::Free, Plan::Pro), (Plan::Starter, Plan::Pro)][..]),
            second in 0_i64..(30 * 86_400),
            ppm in 0_i64..=1_000_000,
        ) {
            let mut charge = charge(currency, pair.0, pair.1, ppm, "2026-04-01T00:00:00Z");
            charge.at += chrono::Duration::seconds(second);
            let invoice = proration_invoice(&charge).unwrap();
            let most = pair.1.base_price_minor(currency) - pair.0.base_price_minor(currency);
            if let Some(draft) = invoice {
                let net: i64 = draft.lines.iter().map(|l| l.amount_minor).sum();
                prop_assert!(0 <= net && net <= most);
                prop_assert!(draft.lines.iter().all(|l| l.quantity * l.unit_price_minor == l.amount_minor));
                let sum: i64 = draft.lines.iter().map(|l| l.amount_minor + l.tax_minor).sum();
                prop_assert_eq!(sum, draft.total.amount_minor);
            }
        }
    }
}
