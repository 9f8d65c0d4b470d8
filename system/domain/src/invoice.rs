//! What a subscription invoice contains, and the states an invoice passes through.
//!
//! Not for numbers, dates or storing: those are given at issue, in the store's transaction.

use serde::{Deserialize, Serialize};

use crate::money::{Currency, Money, MoneyError, round_half_away};
use crate::plan::Plan;
use crate::text_enum::text_enum;

/// A tax rate of 1, in the parts per million that rates are stored in.
pub const TAX_RATE_PPM_ONE: i64 = 1_000_000;

text_enum! {
    /// Where an invoice stands. It only ever moves forward.
    InvoiceState {
        /// Lines may still change.
        Draft = "draft",
        /// Numbered and final; waiting for money.
        Issued = "issued",
        /// Settled in full.
        Paid = "paid",
        /// Withdrawn; owed by nobody.
        Void = "void",
        /// Given up after dunning.
        Uncollectible = "uncollectible",
    }
}

impl InvoiceState {
    /// Whether an invoice may move from `self` to `next`: draft → issued → one of the last three.
    #[must_use]
    pub const fn may_become(self, next: Self) -> bool {
        matches!(
            (self, next),
            (Self::Draft, Self::Issued) | (Self::Issued, Self::Paid | Self::Void | Self::Uncollectible)
        )
    }
}

text_enum! {
    /// Why an invoice exists; one per tenant, period, kind and sequence.
    InvoiceKind {
        /// Base of the starting period and usage of the ended one; sequence 0, so one for each period.
        Subscription = "subscription",
        /// Difference of two bases at an upgrade; sequence 1 for a period's first upgrade, then 2, 3 and so on.
        Proration = "proration",
    }
}

text_enum! {
    /// What one line charges.
    LineKind {
        /// A period's base price, in advance.
        Base = "base",
        /// Forecasts beyond the included ones, in arrears.
        Usage = "usage",
        /// The rest of a period at the plan upgraded to.
        ProrationCharge = "proration_charge",
        /// The rest of a period at the plan upgraded from, given back; its price is negative.
        ProrationCredit = "proration_credit",
    }
}

/// The period that has just ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EndedPeriod {
    /// Plan in force at the period's last instant; its price and allowance apply to all of it.
    pub plan: Plan,
    /// Usage events stamped within the period.
    pub usage_events: u64,
}

/// Everything a subscription invoice is computed from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SubscriptionCharge {
    /// The tenant's currency.
    pub currency: Currency,
    /// The tenant's tax rate, parts per million: 190 000 is 19 %. Not negative.
    pub tax_rate_ppm: i64,
    /// The period before the one that starts; `None` at sign-up.
    pub ended: Option<EndedPeriod>,
    /// Plan of the period that starts; `None` where none does (an account that closes).
    pub starting_plan: Option<Plan>,
}

/// One line. `amount_minor` is before tax; `tax_minor` was rounded on this line alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InvoiceLine {
    /// What the line charges.
    pub kind: LineKind,
    /// Plain English, no tenant data.
    pub description: String,
    /// How many; at least 1.
    pub quantity: i64,
    /// Price of one, minor units.
    pub unit_price_minor: i64,
    /// `quantity` × `unit_price_minor`, minor units.
    pub amount_minor: i64,
    /// Tax on `amount_minor`, half away from zero, minor units.
    pub tax_minor: i64,
}

/// The content of an invoice; at least one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvoiceDraft {
    /// Base first, then usage; a line that would charge nothing is absent.
    pub lines: Vec<InvoiceLine>,
    /// Σ of the lines' amounts and taxes.
    pub total: Money,
}

/// Computes the subscription invoice of a period's start; `None` where there is nothing to charge.
///
/// # Errors
/// `OutOfRange` if an amount leaves 64 bits of minor units, or the tax rate is negative.
pub fn subscription_invoice(charge: &SubscriptionCharge) -> Result<Option<InvoiceDraft>, MoneyError> {
    if charge.tax_rate_ppm < 0 {
        return Err(MoneyError::OutOfRange);
    }
    let mut lines = Vec::new();
    if let Some(plan) = charge.starting_plan {
        let price = plan.base_price_minor(charge.currency);
        lines.extend(line(charge, LineKind::Base, format!("{plan} plan"), 1, price)?);
    }
    if let Some(ended) = charge.ended {
        let included = ended.plan.included_forecasts();
        let beyond =
            i64::try_from(ended.usage_events.saturating_sub(included.into())).map_err(|_| MoneyError::OutOfRange)?;
        // A plan without an overage price refuses instead of charging.
        let price = ended.plan.overage_price_minor(charge.currency).unwrap_or(0);
        let description = format!("Forecasts beyond the {included} included in {}", ended.plan);
        lines.extend(line(charge, LineKind::Usage, description, beyond, price)?);
    }
    if lines.is_empty() {
        return Ok(None);
    }
    let total = lines.iter().try_fold(Money::zero(charge.currency), |sum, line| {
        sum.checked_add(Money::new(charge.currency, line.amount_minor))?
            .checked_add(Money::new(charge.currency, line.tax_minor))
    })?;
    Ok(Some(InvoiceDraft { lines, total }))
}

fn line(
    charge: &SubscriptionCharge,
    kind: LineKind,
    description: String,
    quantity: i64,
    unit_price_minor: i64,
) -> Result<Option<InvoiceLine>, MoneyError> {
    let amount = Money::new(charge.currency, unit_price_minor).checked_mul(quantity)?;
    if amount.amount_minor == 0 {
        return Ok(None);
    }
    let tax_minor = round_half_away(
        i128::from(amount.amount_minor) * i128::from(charge.tax_rate_ppm),
        i128::from(TAX_RATE_PPM_ONE),
    )?;
    let amount_minor = amount.amount_minor;
    Ok(Some(InvoiceLine { kind, description, quantity, unit_price_minor, amount_minor, tax_minor }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn charge(currency: Currency, ended: Option<(Plan, u64)>, starting: Option<Plan>, ppm: i64) -> SubscriptionCharge {
        SubscriptionCharge {
            currency,
            tax_rate_ppm: ppm,
            ended: ended.map(|(plan, usage_events)| EndedPeriod { plan, usage_events }),
            starting_plan: starting,
        }
    }

    /// Kind, quantity, unit price, amount, tax.
    type LineFigures = (LineKind, i64, i64, i64, i64);

    fn figures(charge: &SubscriptionCharge) -> Option<(Vec<LineFigures>, i64)> {
        subscription_invoice(charge).unwrap().map(|draft| {
            let lines = draft.lines.iter();
            let lines = lines.map(|l| (l.kind, l.quantity, l.unit_price_minor, l.amount_minor, l.tax_minor));
            (lines.collect(), draft.total.amount_minor)
        })
    }

    #[test]
    fn sign_up_on_a_paid_plan_charges_the_base_alone() {
        let invoice = figures(&charge(Currency::Usd, None, Some(Plan::Starter), 0));
        assert_eq!(invoice, Some((vec![(LineKind::Base, 1, 2900, 2900, 0)], 2900)));
    }

    #[test]
    fn free_never_gets_an_invoice() {
        for usage in [0, 5, 6, 1_000_000] {
            assert_eq!(figures(&charge(Currency::Kwd, Some((Plan::Free, usage)), Some(Plan::Free), 190_000)), None);
        }
        assert_eq!(figures(&charge(Currency::Usd, Some((Plan::Starter, 100)), Some(Plan::Free), 0)), None);
    }

    #[test]
    fn overage_is_priced_by_the_plan_that_ended() {
        let invoice = figures(&charge(Currency::Eur, Some((Plan::Starter, 103)), Some(Plan::Pro), 0));
        let lines = vec![(LineKind::Base, 1, 9200, 9200, 0), (LineKind::Usage, 3, 19, 57, 0)];
        assert_eq!(invoice, Some((lines, 9257)));
        let downgraded = figures(&charge(Currency::Jpy, Some((Plan::Pro, 1_001)), Some(Plan::Free), 0));
        assert_eq!(downgraded, Some((vec![(LineKind::Usage, 1, 15, 15, 0)], 15)));
    }

    #[test]
    fn tax_is_rounded_on_each_line_half_away_from_zero() {
        // 10 % of 15 and 5 % of 30: both 1.5.
        let usage = figures(&charge(Currency::Jpy, Some((Plan::Pro, 1_001)), None, 100_000));
        assert_eq!(usage, Some((vec![(LineKind::Usage, 1, 15, 15, 2)], 17)));
        let starter = figures(&charge(Currency::Jpy, Some((Plan::Starter, 101)), None, 50_000));
        assert_eq!(starter, Some((vec![(LineKind::Usage, 1, 30, 30, 2)], 32)));
    }

    #[test]
    fn a_negative_tax_rate_and_an_overflow_are_refused() {
        let negative = charge(Currency::Usd, None, Some(Plan::Pro), -1);
        assert_eq!(subscription_invoice(&negative), Err(MoneyError::OutOfRange));
        let endless = charge(Currency::Usd, Some((Plan::Pro, u64::MAX)), None, 0);
        assert_eq!(subscription_invoice(&endless), Err(MoneyError::OutOfRange));
    }

    #[test]
    fn states_only_move_forward() {
        use InvoiceState::{Draft, Issued, Paid, Uncollectible, Void};
        let allowed: Vec<_> = InvoiceState::ALL
            .iter()
            .flat_map(|from| InvoiceState::ALL.iter().map(move |to| (*from, *to)))
            .filter(|(from, to)| from.may_become(*to))
            .collect();
        assert_eq!(allowed, [(Draft, Issued), (Issued, Paid), (Issued, Void), (Issued, Uncollectible)]);
    }

    proptest! {
        #[test]
        fn total_is_the_sum_of_the_lines(
            currency in proptest::sample::select(Currency::ALL),
            ended in proptest::sample::select(Plan::ALL),
            starting in proptest::sample::select(Plan::ALL),
            usage in 0_u64..100_000,
            ppm in 0_i64..1_000_000,
        ) {
            let invoice = figures(&charge(currency, Some((ended, usage)), Some(starting), ppm));
            if let Some((lines, total)) = invoice {
                prop_assert_eq!(lines.iter().map(|l| l.3 + l.4).sum::<i64>(), total);
                prop_assert!(lines.iter().all(|l| l.3 > 0 && l.1 * l.2 == l.3));
            }
        }
    }
}
