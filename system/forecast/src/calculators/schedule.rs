//! A loan's schedule: interest, principal and balance of each period, payments at the period's end.

use serde_json::{Value, json};

use super::annuity::{PERIODS_MAX, growth, rate_of_period};
use super::ratio::Ratio;
use super::series::MONEY;
use super::{Answer, OutOfRange};
use crate::reader::Reader;

/// Each figure is exact and rounded once when printed, so rounded rows may differ from rounded totals
/// in the last decimal.
pub(super) fn amortisation(reader: &Reader<'_>) -> Answer {
    reader.only(&["rate", "periods_per_year", "periods", "pv"]);
    let (rate, periods) = (rate_of_period(reader), reader.integer("periods", 1, PERIODS_MAX));
    let pv = reader.decimal("pv", MONEY);
    let (rate, periods, pv) = (rate?, periods? as usize, Ratio::from(&pv?));
    Some(rows(&rate, periods, &pv))
}

fn rows(rate: &Ratio, periods: usize, pv: &Ratio) -> Result<Value, OutOfRange> {
    let (grown, paid) = growth(rate, periods, false);
    // Balances over one denominator: balance(t) = pv (grown^n - grown^t) / (grown^n - 1), closed form,
    // or in equal steps where there is no interest.
    let payment = pv.times(&grown).over(&paid).negated();
    let growth_of_period = Ratio::int(1).plus(rate);
    let mut grown_so_far = Ratio::int(1);
    let mut balance = pv.clone();
    let mut rows = Vec::with_capacity(periods);
    for period in 1..=periods {
        let next = if rate.is_zero() {
            pv.times(&Ratio::new((periods - period).into(), periods.into()))
        } else {
            grown_so_far = grown_so_far.times(&growth_of_period);
            pv.times(&grown.minus(&grown_so_far)).over(&grown.minus(&Ratio::int(1)))
        };
        let interest = balance.times(rate).negated();
        let principal = next.minus(&balance);
        rows.push(json!({
            "period": period,
            "interest": interest.print()?,
            "principal": principal.print()?,
            "balance": next.print()?,
        }));
        balance = next;
    }
    let total_paid = payment.times(&Ratio::int(periods as i64));
    Ok(json!({
        "payment": payment.print()?,
        "total_paid": total_paid.print()?,
        "total_interest": total_paid.plus(pv).print()?,
        "rows": rows,
    }))
}
