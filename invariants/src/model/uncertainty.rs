//! Judges the uncertainty block of a result by laws that need no draws: its shape, ordered
//! percentiles, and means that lie within six standard errors of the exact forecast.
//!
//! Where both sigmas are 0 nothing is drawn: then either null or a block in which every figure
//! is the exact one and every standard error 0 is right (the specification leaves both open).
//!
//! A sample estimates its own standard error, and badly where the tail is heavy: of 1,000 draws
//! of one log-normal factor, none of 3,000 samples broke the law at sigma 1.5, 3 in 1,000 did
//! at sigma 2 and 56 in 1,000 at 2.83 (both sigmas 2, multiplied). A workload that is to prove
//! something stays at 0.5 or below.
//!
//! Re-derived from the specification on purpose: do not deduplicate against the system.

use num_bigint::BigInt;
use num_traits::ToPrimitive;
use serde_json::{Map, Value};

use super::compare::{Comparison, text_of};
use super::exact::{COMMON_DENOMINATOR, Exact};
use super::forecast::Books;
use super::scenario::{Scenario, UncertaintyInput};

/// Paths from which on the law of the mean is held to.
const PATHS_FOR_THE_MEAN_MIN: u64 = 1_000;

/// How many standard errors a mean may lie off.
const STANDARD_ERRORS_MAX: u64 = 6;

/// Fractional digits of a standard error beyond the currency's.
const STANDARD_ERROR_EXTRA_DIGITS: u32 = 6;

/// Fractional digits of the probability.
const PROBABILITY_DIGITS: u32 = 6;

/// Percentiles in rising order, as fields of a month.
const PERCENTILES: [&str; 5] = ["p5", "p25", "p50", "p75", "p95"];

/// Adds to `found` what is wrong with the block `actual`; `expected` is the exact result.
pub(super) fn judge(
    scenario: &Scenario,
    expected: &Map<String, Value>,
    actual: Option<&Value>,
    found: &mut Comparison,
) {
    let absent_or_null = actual.is_none_or(Value::is_null);
    let Some(asked) = &scenario.uncertainty else {
        if actual != Some(&Value::Null) {
            found.differs("/uncertainty", "null", text_of(actual));
        }
        return;
    };
    if asked.is_bypassed() && actual.is_some() && absent_or_null {
        return;
    }
    let Some(Value::Object(block)) = actual else {
        found.differs("/uncertainty", "an object", text_of(actual));
        return;
    };
    let fields = ["paths", "revenue", "cash", "probability_cash_negative"];
    only_these("/uncertainty", block, &fields, found);
    if block.get("paths").and_then(Value::as_u64) != Some(asked.paths) {
        let paths = text_of(block.get("paths"));
        found.differs("/uncertainty/paths", asked.paths.to_string(), paths);
    }
    let books = Books::of(scenario);
    for series in ["revenue", "cash"] {
        let pointer = format!("/uncertainty/{series}");
        let Some(Value::Array(rows)) = block.get(series) else {
            found.differs(pointer, "a list", text_of(block.get(series)));
            continue;
        };
        if rows.len() != books.months.len() {
            let length = format!("{} months", books.months.len());
            found.differs(pointer, length, format!("{} months", rows.len()));
            continue;
        }
        for (t, row) in rows.iter().enumerate() {
            let pointer = format!("/uncertainty/{series}/{t}");
            if asked.is_bypassed() {
                let printed = &expected["months"][t][series];
                judge_bypassed(scenario, printed, &pointer, row, found);
            } else {
                let exact = match series {
                    "revenue" => &books.months[t].flows.revenue,
                    _ => &books.months[t].cash,
                };
                let lawful =
                    asked.paths >= PATHS_FOR_THE_MEAN_MIN && (series == "revenue" || scenario.tax_rate.is_zero());
                let exact = lawful.then_some(exact);
                judge_drawn(scenario.exponent, exact, &pointer, row, found);
            }
        }
    }
    let certain = asked.is_bypassed().then(|| books.runway().is_some());
    judge_probability(asked, certain, block, found);
}

/// A month in which nothing was drawn: every figure is the `printed` one.
fn judge_bypassed(scenario: &Scenario, printed: &Value, pointer: &str, row: &Value, found: &mut Comparison) {
    let Some(row) = month_fields(pointer, row, found) else {
        return;
    };
    for field in PERCENTILES.into_iter().chain(["mean"]) {
        found.amounts_compared += u64::from(row.contains_key(field));
        if row.get(field) != Some(printed) {
            let actual = text_of(row.get(field));
            found.differs(format!("{pointer}/{field}"), text_of(Some(printed)), actual);
        }
    }
    let digits = scenario.exponent + STANDARD_ERROR_EXTRA_DIGITS;
    if fixed_point(row.get("standard_error"), digits).is_none_or(|error| !error.is_zero()) {
        let actual = text_of(row.get("standard_error"));
        found.differs(format!("{pointer}/standard_error"), "0", actual);
    }
}

/// A month with draws; `exact` (times the common denominator) where the law of the mean holds.
fn judge_drawn(exponent: u32, exact: Option<&Exact>, pointer: &str, row: &Value, found: &mut Comparison) {
    let Some(row) = month_fields(pointer, row, found) else {
        return;
    };
    let mut read = |field: &str, digits: u32| {
        let value = fixed_point(row.get(field), digits);
        if value.is_none() {
            let law = format!("a decimal with {digits} fractional digits");
            found.differs(format!("{pointer}/{field}"), law, text_of(row.get(field)));
        }
        value
    };
    let percentiles: Vec<Option<Exact>> = PERCENTILES.iter().map(|field| read(field, exponent)).collect();
    let mean = read("mean", exponent);
    let error = read("standard_error", exponent + STANDARD_ERROR_EXTRA_DIGITS);
    for (index, pair) in percentiles.windows(2).enumerate() {
        if let [Some(lower), Some(upper)] = pair
            && lower > upper
        {
            let (lower, upper) = (PERCENTILES[index], PERCENTILES[index + 1]);
            found.differs(
                format!("{pointer}/{upper}"),
                format!("at least {lower} = {}", text_of(row.get(lower))),
                text_of(row.get(upper)),
            );
        }
    }
    if error.as_ref().is_some_and(Exact::is_negative) {
        let actual = text_of(row.get("standard_error"));
        found.differs(format!("{pointer}/standard_error"), "at least 0", actual);
    }
    if let (Some(exact), Some(mean), Some(error)) = (exact, mean, error) {
        found.amounts_compared += 1;
        if !within_the_law(exact, &mean, &error, exponent) {
            let law = format!(
                "within {STANDARD_ERRORS_MAX} x {} of {}",
                text_of(row.get("standard_error")),
                super::exact::format_scaled(&exact.rounded_over(COMMON_DENOMINATOR, exponent), exponent),
            );
            found.differs(format!("{pointer}/mean"), law, text_of(row.get("mean")));
        }
    }
}

/// `|mean - exact| <= 6 SE`, widened by what writing the two down may have cost: half a minor
/// unit of the mean, half the last digit of the error, and 1e-12 of the value for the floats.
fn within_the_law(exact: &Exact, mean: &Exact, error: &Exact, exponent: u32) -> bool {
    let half_of_last = |digits: u32| {
        let text = format!("0.{}5", "0".repeat(digits as usize));
        Exact::parse(&text, text.len()).unwrap_or_else(|_| Exact::zero())
    };
    let error = error.plus(&half_of_last(exponent + STANDARD_ERROR_EXTRA_DIGITS));
    let mut room = error.times_whole(STANDARD_ERRORS_MAX);
    room.add(&half_of_last(exponent));
    let mut room = room.times_whole(COMMON_DENOMINATOR);
    if let Ok(relative) = Exact::parse("0.000000000001", 12) {
        room.add(&exact.abs().times(&relative));
    }
    mean.times_whole(COMMON_DENOMINATOR).minus(exact).abs() <= room
}

/// The share of paths on which cash is negative in some month.
fn judge_probability(
    asked: &UncertaintyInput,
    certain: Option<bool>,
    block: &Map<String, Value>,
    found: &mut Comparison,
) {
    let pointer = "/uncertainty/probability_cash_negative";
    let actual = block.get("probability_cash_negative");
    let Some(probability) = fixed_point(actual, PROBABILITY_DIGITS) else {
        let law = format!("a decimal with {PROBABILITY_DIGITS} fractional digits");
        found.differs(pointer, law, text_of(actual));
        return;
    };
    if probability.is_negative() || probability > Exact::whole(1) {
        found.differs(pointer, "between 0 and 1", text_of(actual));
        return;
    }
    if let Some(negative) = certain {
        if probability != Exact::whole(i64::from(negative)) {
            found.differs(pointer, i64::from(negative).to_string(), text_of(actual));
        }
        return;
    }
    // A share of `paths`: some whole count must round to what is written.
    let millionths = probability.scaled_to(PROBABILITY_DIGITS).and_then(|scaled| scaled.to_u64()).unwrap_or(0);
    let count = (millionths * asked.paths + 500_000) / 1_000_000;
    let off = (count * 1_000_000).abs_diff(millionths * asked.paths);
    if off * 2 > asked.paths {
        let law = format!("a whole count out of {}", asked.paths);
        found.differs(pointer, law, text_of(actual));
    }
}

/// The fields of a month, with those missing or too many noted.
fn month_fields<'a>(pointer: &str, row: &'a Value, found: &mut Comparison) -> Option<&'a Map<String, Value>> {
    let Value::Object(row) = row else {
        found.differs(pointer, "an object", text_of(Some(row)));
        return None;
    };
    let fields = ["p5", "p25", "p50", "p75", "p95", "mean", "standard_error"];
    only_these(pointer, row, &fields, found);
    Some(row)
}

/// Notes every field of `object` that is not among `fields`.
fn only_these(pointer: &str, object: &Map<String, Value>, fields: &[&str], found: &mut Comparison) {
    for (key, value) in object {
        if !fields.contains(&key.as_str()) {
            found.differs(format!("{pointer}/{key}"), "(absent)", text_of(Some(value)));
        }
    }
}

/// A decimal text with exactly `digits` fractional digits, and no `-0`.
fn fixed_point(value: Option<&Value>, digits: u32) -> Option<Exact> {
    let text = value?.as_str()?;
    let parsed = Exact::parse(text, digits as usize).ok()?;
    let rewritten: BigInt = parsed.scaled_to(digits)?;
    (super::exact::format_scaled(&rewritten, digits) == text).then_some(parsed)
}
