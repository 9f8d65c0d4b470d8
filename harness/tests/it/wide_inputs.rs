//! Scenario inputs drawn over the whole of the model's bounds, ends included: small ones by the thousand, and
//! some as large as the model allows. The workload's own inputs are drawn around what customers do; these are not.

use nogo_harness::randomness::{chance, pick};
use rand::{Rng, RngExt};
use rand_chacha::ChaCha8Rng;
use serde_json::{Map, Value, json};

const TRILLION: i64 = 1_000_000_000_000;
const MONTHS: (i64, i64) = (1970 * 12, 2199 * 12 + 11);

/// How much of the bounds one input uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Size {
    /// Up to 3 lines of a kind, up to 24 months.
    Small,
    /// Up to 8 and 12 lines, up to 60 months.
    Middle,
    /// Up to 50 and 200 lines, up to 120 months.
    Full,
}

impl Size {
    /// One in forty is full, one in eight middle.
    pub(crate) fn draw(rng: &mut ChaCha8Rng) -> Self {
        match rng.random_range(0..40) {
            0 => Self::Full,
            1..6 => Self::Middle,
            _ => Self::Small,
        }
    }

    fn bounds(self) -> (u32, u32, u32) {
        match self {
            Self::Small => (3, 3, 24),
            Self::Middle => (8, 12, 60),
            Self::Full => (50, 200, 120),
        }
    }
}

/// One input; about one in twelve simulates, with few paths.
pub(crate) fn draw(rng: &mut ChaCha8Rng, size: Size) -> Value {
    let (revenue_max, costs_max, horizon_max) = size.bounds();
    // Amounts of one input share a magnitude, or nearly every large one would leave the range.
    let scale = pick(rng, &[1, 1_000, 1_000_000, TRILLION]).to_owned();
    let start = rng.random_range(MONTHS.0..=MONTHS.1);
    let horizon = edge(rng, 1, i64::from(horizon_max)).min(MONTHS.1 - start + 1).max(1);
    let mut input = Map::new();
    input.insert("currency".into(), (*pick(rng, &["USD", "EUR", "GBP", "JPY", "KWD"])).into());
    input.insert("start_month".into(), month(start).into());
    input.insert("horizon_months".into(), horizon.into());
    input.insert("opening_cash".into(), decimal(rng, -scale, scale).into());
    input.insert("discount_rate_annual".into(), decimal(rng, 0, 1).into());
    input.insert("tax_rate".into(), if chance(rng, 0.3) { "0".into() } else { decimal(rng, 0, 1).into() });
    let simulated = size != Size::Full && chance(rng, 0.08);
    let revenue_lines = rng.random_range(0..=if simulated { 2 } else { revenue_max });
    let revenue: Vec<Value> = (0..revenue_lines).map(|n| revenue_line(rng, n, scale)).collect();
    input.insert("revenue".into(), revenue.into());
    let cost_lines = rng.random_range(0..=costs_max);
    let costs: Vec<Value> = (0..cost_lines).map(|n| cost_line(rng, n, start, scale)).collect();
    input.insert("costs".into(), costs.into());
    if simulated {
        let sigma = |rng: &mut ChaCha8Rng| {
            if chance(rng, 0.2) { "0".to_owned() } else { format!("0.{:03}", rng.random_range(0..400)) }
        };
        input.insert(
            "uncertainty".into(),
            json!({"paths": *pick(rng, &[1, 2, 37, 1_000, 2_000]), "price_sigma_monthly": sigma(rng),
                "adds_sigma_monthly": sigma(rng), "seed": rng.next_u64().to_string()}),
        );
    }
    Value::Object(input)
}

fn revenue_line(rng: &mut ChaCha8Rng, n: u32, scale: i64) -> Value {
    let units = scale.min(1_000_000_000);
    let mut line = Map::new();
    line.insert("name".into(), format!("Line {n} {}", pick(rng, &["é", "売上", "\"quoted\"", "a/b~c", "x"])).into());
    line.insert("opening_units".into(), decimal(rng, 0, units).into());
    line.insert("adds_per_month".into(), decimal(rng, 0, units).into());
    line.insert("adds_growth_monthly".into(), growth(rng).into());
    line.insert("churn_monthly".into(), decimal(rng, 0, 1).into());
    line.insert("price".into(), decimal(rng, 0, (scale / 1_000).clamp(1, 1_000_000_000)).into());
    line.insert("price_growth_annual".into(), growth(rng).into());
    if chance(rng, 0.4) {
        let factors: Vec<String> = (0..12).map(|_| decimal(rng, 0, 10)).collect();
        line.insert("seasonality".into(), json!(factors));
    }
    line.insert("collection_lag_months".into(), edge(rng, 0, 12).into());
    Value::Object(line)
}

fn cost_line(rng: &mut ChaCha8Rng, n: u32, start: i64, scale: i64) -> Value {
    let name = format!("Cost {n}");
    match rng.random_range(0..4) {
        0 => {
            let mut line = Map::new();
            line.insert("kind".into(), "fixed".into());
            line.insert("name".into(), name.into());
            line.insert("amount".into(), decimal(rng, 0, scale).into());
            line.insert("growth_annual".into(), growth(rng).into());
            if chance(rng, 0.5) {
                let first = near(rng, start);
                line.insert("start_month".into(), month(first).into());
                if chance(rng, 0.5) {
                    line.insert("end_month".into(), month(rng.random_range(first..=MONTHS.1.min(first + 150))).into());
                }
            }
            Value::Object(line)
        }
        1 => json!({"kind": "percent_of_revenue", "name": name, "rate": decimal(rng, 0, 10)}),
        2 => {
            let first = near(rng, start);
            let first_day = rng.random_range(1..=days(first));
            let mut line = Map::new();
            line.insert("kind".into(), "headcount".into());
            line.insert("role".into(), name.into());
            line.insert("annual_salary".into(), decimal(rng, 0, scale).into());
            line.insert("burden_rate".into(), decimal(rng, 0, 10).into());
            line.insert("start_date".into(), format!("{}-{first_day:02}", month(first)).into());
            if chance(rng, 0.6) {
                let last = rng.random_range(first..=MONTHS.1.min(first + 40));
                let last_day = rng.random_range(if last == first { first_day } else { 1 }..=days(last));
                line.insert("end_date".into(), format!("{}-{last_day:02}", month(last)).into());
            }
            Value::Object(line)
        }
        _ => {
            json!({"kind": "one_off", "name": name, "amount": decimal(rng, 0, scale), "month": month(near(rng, start))})
        }
    }
}

/// Around the scenario's start, inside and outside its horizon.
fn near(rng: &mut ChaCha8Rng, start: i64) -> i64 {
    (start + rng.random_range(-140..=140)).clamp(MONTHS.0, MONTHS.1)
}

/// -0.99 to 1; mostly gentle, or compounding leaves the range at once.
fn growth(rng: &mut ChaCha8Rng) -> String {
    match rng.random_range(0..10) {
        0 => "1".to_owned(),
        1 => "-0.99".to_owned(),
        2 => format!("{}0.{:012}", pick(rng, &["", "-"]), rng.random_range(0..990_000_000_000_i64)),
        _ => format!("{}0.0{:03}", pick(rng, &["", "-"]), rng.random_range(0..500)),
    }
}

/// A whole number of the range; its ends come up more often.
fn edge(rng: &mut ChaCha8Rng, least: i64, most: i64) -> i64 {
    match rng.random_range(0..12) {
        0 => least,
        1 => most,
        _ => rng.random_range(least..=most),
    }
}

/// A decimal of the range with 0, 2 or up to 12 fractional digits; its ends come up more often.
fn decimal(rng: &mut ChaCha8Rng, least: i64, most: i64) -> String {
    let whole = edge(rng, least, most);
    if whole == least || whole == most {
        // A fraction might step over the end; below it, one of the unit interval is wanted too.
        return if (least, most) == (0, 1) && chance(rng, 0.85) {
            format!("0.{:012}", rng.random_range(0..TRILLION))
        } else {
            whole.to_string()
        };
    }
    match rng.random_range(0..3) {
        0 => whole.to_string(),
        1 => format!("{whole}.{:02}", rng.random_range(0..100)),
        _ => format!("{whole}.{:012}", rng.random_range(0..TRILLION)),
    }
}

fn month(index: i64) -> String {
    format!("{:04}-{:02}", index / 12, index % 12 + 1)
}

fn days(index: i64) -> i64 {
    let year = index / 12;
    match index % 12 + 1 {
        2 if (year % 4 == 0 && year % 100 != 0) || year % 400 == 0 => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}
