//! The modified internal rate of return: an n-th root, rounded without leaving the integers.

use std::cmp::Ordering;

use dashu_base::BitTest;
use dashu_int::IBig;
use serde_json::{Value, json};

use super::ratio::{DIGITS, Ratio, print_units};
use super::series::{FLOWS_MAX, MONEY, RATE, present_value};
use super::{Answer, OutOfRange};
use crate::decimal::Decimal;
use crate::exact::AMOUNT_MAX;
use crate::reader::Reader;

/// `(|PV of gains at the reinvestment rate| / |PV of losses at the finance rate|)^(1/(n-1)) × (1 + reinvestment) - 1`;
/// null without at least one gain and one loss.
pub(super) fn mirr(reader: &Reader<'_>) -> Answer {
    reader.only(&["flows", "finance_rate", "reinvestment_rate"]);
    let flows = reader.decimals("flows", 2, FLOWS_MAX, MONEY);
    let (finance, reinvestment) = (reader.decimal("finance_rate", RATE), reader.decimal("reinvestment_rate", RATE));
    let (flows, finance, reinvestment) = (flows?, Ratio::from(&finance?), Ratio::from(&reinvestment?));
    Some(rate_of(&flows, &finance, &reinvestment))
}

fn rate_of(flows: &[Decimal], finance: &Ratio, reinvestment: &Ratio) -> Result<Value, OutOfRange> {
    let only = |keep: fn(&Decimal) -> bool| -> Vec<Decimal> {
        flows.iter().map(|flow| if keep(flow) { flow.clone() } else { Decimal::from_int(0) }).collect()
    };
    let gains = only(|flow| !flow.is_negative() && !flow.is_zero());
    let losses = only(Decimal::is_negative);
    if gains.iter().all(Decimal::is_zero) || losses.iter().all(Decimal::is_zero) {
        return Ok(json!({ "value": null }));
    }
    let spans = flows.len() - 1;
    let gained = present_value(reinvestment, &gains);
    let lost = present_value(finance, &losses).negated();
    let power = gained.times(&Ratio::int(1).plus(reinvestment).power(spans)).over(&lost);
    let units = root_in_units(&power, spans) - IBig::from(10).pow(DIGITS);
    if units > IBig::from(AMOUNT_MAX) * IBig::from(10).pow(DIGITS) {
        return Err(OutOfRange);
    }
    Ok(json!({ "value": print_units(&units) }))
}

/// The `degree`-th root of a positive fraction in units of 1e-12, half to even.
fn root_in_units(value: &Ratio, degree: usize) -> IBig {
    // In half units, rounded down: t ≤ 2e12 × root < t + 1.
    let scale = (IBig::from(2) * IBig::from(10).pow(DIGITS)).pow(degree);
    let scaled = &value.num * scale;
    let whole = (&scaled / &value.den).try_into().map(|whole: dashu_int::UBig| whole.nth_root(degree));
    let half_units = IBig::from(whole.expect("the fraction is positive"));
    let units = &half_units / IBig::from(2);
    if !half_units.bit(0) {
        return units;
    }
    // t odd: the root lies in the upper half of its unit, or exactly in the middle.
    match (half_units.pow(degree) * &value.den).cmp(&scaled) {
        Ordering::Equal if !units.bit(0) => units,
        _ => units + IBig::ONE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exact_roots_and_ties_are_exact() {
        let units = |num: &str, den: &str, degree| {
            let ratio = Ratio::new(num.parse().unwrap(), den.parse().unwrap());
            root_in_units(&ratio, degree).to_string()
        };
        assert_eq!(units("8", "27", 3), "666666666667");
        assert_eq!(units("9", "4", 2), "1500000000000");
        // (1 / 2e12)² is a tie between 0 and 1 unit, (3 / 2e12)² one between 1 and 2.
        assert_eq!(units("1", "4000000000000000000000000", 2), "0");
        assert_eq!(units("9", "4000000000000000000000000", 2), "2");
        assert_eq!(units("2", "1", 2), "1414213562373");
    }
}
