//! Calculators over a list of values: net present value and percentile.

use dashu_int::IBig;
use serde_json::json;

use super::Answer;
use super::ratio::Ratio;
use crate::decimal::Decimal;
use crate::reader::{Bounds, Reader};

/// Most flows of a present value or a modified rate of return.
pub(super) const FLOWS_MAX: usize = 600;
/// Most values of a percentile.
const VALUES_MAX: usize = 10_000;

/// Amounts of money.
pub(super) const MONEY: Bounds =
    Bounds::new(-100_000_000_000_000, 100_000_000_000_000, "-1000000000000 and 1000000000000");
/// Rates of a period, above -1.
pub(super) const RATE: Bounds = Bounds::new(-99, 1_000, "-0.99 and 10");

/// `Σ flows[t] / (1 + rate)^t`, t from 0.
pub(super) fn npv(reader: &Reader<'_>) -> Answer {
    reader.only(&["rate", "flows"]);
    let rate = reader.decimal("rate", RATE);
    let flows = reader.decimals("flows", 1, FLOWS_MAX, MONEY);
    let (rate, flows) = (rate?, flows?);
    Some(present_value(&Ratio::from(&rate), &flows).print().map(|value| json!({ "value": value })))
}

/// As [`npv`], unrounded; `rate` above -1.
pub(super) fn present_value(rate: &Ratio, flows: &[Decimal]) -> Ratio {
    let growth = Ratio::int(1).plus(rate);
    // Σ f(t) den^t num^(n-t) over num^n, by Horner: one denominator, no greatest common divisor.
    let scale = flows.iter().map(|flow| flow.scale).max().unwrap_or(0);
    let ten = IBig::from(10);
    let mut sum = IBig::ZERO;
    let mut den_power = IBig::ONE;
    for flow in flows {
        let flow = &flow.int * ten.pow(scale - flow.scale);
        sum = sum * &growth.num + flow * &den_power;
        den_power *= &growth.den;
    }
    let last = flows.len().saturating_sub(1);
    Ratio::new(sum, growth.num.pow(last) * ten.pow(scale))
}

/// Percentile `p` of the values by type 7: position (n-1)p between the order statistics, linear.
pub(super) fn percentile(reader: &Reader<'_>) -> Answer {
    reader.only(&["values", "p"]);
    let values = reader.decimals("values", 1, VALUES_MAX, MONEY);
    let p = reader.decimal("p", Bounds::new(0, 100, "0 and 1"));
    let (values, p) = (values?, p?);
    let scale = values.iter().map(|value| value.scale).max().unwrap_or(0);
    let ten = IBig::from(10);
    let mut sorted: Vec<_> = values.iter().map(|value| &value.int * ten.pow(scale - value.scale)).collect();
    sorted.sort();
    let position = &p.int * IBig::from(sorted.len() - 1);
    let unit = ten.pow(p.scale);
    let below = usize::try_from(&position / &unit).expect("a position lies among the values");
    let part = position - &unit * IBig::from(below);
    let above = (below + 1).min(sorted.len() - 1);
    let value = &sorted[below] * &unit + part * (&sorted[above] - &sorted[below]);
    Some(Ratio::new(value, unit * ten.pow(scale)).print().map(|value| json!({ "value": value })))
}
