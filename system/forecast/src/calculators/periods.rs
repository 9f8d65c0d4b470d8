//! The number of periods until payments reach a future value: a quotient of logarithms.

use dashu_base::{Abs, Sign};
use dashu_int::IBig;
use serde_json::{Value, json};

use super::annuity::{money_or_zero, rate_of_period, read_when};
use super::logarithm::ln;
use super::ratio::{DIGITS, Ratio, print_units};
use super::series::MONEY;
use super::{Answer, OutOfRange};
use crate::exact::{AMOUNT_MAX, half_even};
use crate::reader::Reader;

/// Precision of the first try, bits; doubles until the value's rounding is certain.
const BITS_FIRST: usize = 256;
/// No value within the bounds needs as many.
const BITS_MAX: usize = 1 << 16;

/// `ln((z - fv) / (z + pv)) / ln(1 + r)` with `z = pmt (1 + r·w) / r`; for r = 0, `-(fv + pv) / pmt`. Null
/// where that is not defined.
pub(super) fn nper(reader: &Reader<'_>) -> Answer {
    reader.only(&["rate", "periods_per_year", "pmt", "pv", "fv", "when"]);
    let (rate, pmt, pv) = (rate_of_period(reader), reader.decimal("pmt", MONEY), reader.decimal("pv", MONEY));
    let (fv, at_beginning) = (money_or_zero(reader, "fv"), read_when(reader));
    let (rate, pmt, pv) = (rate?, Ratio::from(&pmt?), Ratio::from(&pv?));
    Some(periods(&rate, &pmt, &pv, &fv?, at_beginning?))
}

fn periods(rate: &Ratio, pmt: &Ratio, pv: &Ratio, fv: &Ratio, at_beginning: bool) -> Result<Value, OutOfRange> {
    if rate.is_zero() {
        if pmt.is_zero() {
            return Ok(json!({ "value": null }));
        }
        return fv.plus(pv).over(pmt).negated().print().map(|value| json!({ "value": value }));
    }
    let growth = Ratio::int(1).plus(rate);
    let first = if at_beginning { pmt.times(&growth) } else { pmt.clone() };
    let z = first.over(rate);
    let (target, start) = (z.minus(fv), z.plus(pv));
    if target.is_zero() || start.is_zero() {
        return Ok(json!({ "value": null }));
    }
    let quotient = target.over(&start);
    if !quotient.is_positive() {
        return Ok(json!({ "value": null }));
    }
    let units = quotient_of_logarithms(&quotient, &growth);
    if units.clone().abs() > IBig::from(AMOUNT_MAX) * IBig::from(10).pow(DIGITS) {
        return Err(OutOfRange);
    }
    Ok(json!({ "value": print_units(&units) }))
}

/// `ln(a) / ln(b)` in units of 1e-12, correctly rounded; a, b positive, b not 1.
///
/// The precision grows until both ends of the interval round alike. It does so: the quotient cannot
/// lie on a tie, which would make b a power of order 1e12 of some fraction, unless a is 1.
fn quotient_of_logarithms(a: &Ratio, b: &Ratio) -> IBig {
    if a.num == a.den {
        return IBig::ZERO;
    }
    let unit = IBig::from(10).pow(DIGITS);
    let mut bits = BITS_FIRST;
    while bits <= BITS_MAX {
        let ((top, top_error), (bottom, bottom_error)) = (ln(a, bits), ln(b, bits));
        // The divisor's whole interval must lie on one side of zero.
        if bottom.clone().abs() > bottom_error {
            let corners = [&top - &top_error, &top + &top_error].map(|numerator| {
                [&bottom - &bottom_error, &bottom + &bottom_error].map(|divisor| {
                    let numerator = &numerator * &unit;
                    if divisor.sign() == Sign::Negative {
                        half_even(&-numerator, &-divisor)
                    } else {
                        half_even(&numerator, &divisor)
                    }
                })
            });
            let [[first, second], [third, fourth]] = corners;
            if first == second && first == third && first == fourth {
                return first;
            }
        }
        bits *= 2;
    }
    unreachable!("a quotient of logarithms within the bounds is no tie")
}
