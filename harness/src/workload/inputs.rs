//! Scenario inputs drawn over the model's bounds: valid ones, and a few whose forecast must end `amount_out_of_range`.
//!
//! Pure: a stream in, JSON out. Decimals are strings with at most 12 fractional digits.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use serde_json::{Map, Value, json};

use crate::randomness::{chance, pick};

/// How one input is to be drawn.
#[derive(Debug, Clone, Copy)]
pub struct InputShape<'a> {
    /// ISO 4217, one of the model's five.
    pub currency: &'a str,
    /// Appended to every line's name; a tenant's canary, or empty for inputs that several tenants share.
    pub mark: &'a str,
    /// Simulated paths, or none.
    pub paths: Option<u32>,
    /// Draw amounts that leave ±1e15.
    pub out_of_range: bool,
}

/// One scenario input as the API takes it.
pub fn draw_input(rng: &mut ChaCha8Rng, shape: InputShape<'_>) -> Value {
    let start = Month::draw(rng);
    let horizon = draw_horizon(rng, shape.paths.is_some());
    let revenue_lines = if shape.paths.is_some() { rng.random_range(1..=2) } else { small_count(rng, 1, 8) };
    let cost_lines = small_count(rng, 0, 10);
    let revenue: Vec<Value> = (0..revenue_lines).map(|n| revenue_line(rng, n, shape)).collect();
    let costs: Vec<Value> = (0..cost_lines).map(|n| cost_line(rng, n, start, horizon, shape.mark)).collect();
    let mut input = Map::new();
    input.insert("currency".into(), shape.currency.into());
    input.insert("start_month".into(), start.text().into());
    input.insert("horizon_months".into(), horizon.into());
    input.insert("opening_cash".into(), decimal(rng, -500_000_000, 5_000_000_000, 2).into());
    input.insert("discount_rate_annual".into(), decimal(rng, 0, 2_500, 4).into());
    // Cash means are only bound to the exact model where nothing is taxed, so both kinds must occur.
    let tax = if chance(rng, 0.4) { "0".to_owned() } else { decimal(rng, 0, 450, 3) };
    input.insert("tax_rate".into(), tax.into());
    input.insert("revenue".into(), revenue.into());
    input.insert("costs".into(), costs.into());
    if let Some(paths) = shape.paths {
        input.insert("uncertainty".into(), uncertainty(rng, paths));
    }
    Value::Object(input)
}

fn draw_horizon(rng: &mut ChaCha8Rng, simulated: bool) -> u32 {
    match rng.random_range(0..100) {
        0..3 if !simulated => 120,
        0..8 => rng.random_range(1..12),
        8..12 if !simulated => rng.random_range(37..=60),
        _ => *pick(rng, &[12, 12, 18, 24, 24, 36]),
    }
}

/// Small counts are common, large ones occur.
fn small_count(rng: &mut ChaCha8Rng, least: u32, most: u32) -> u32 {
    let first = rng.random_range(least..=most);
    let second = rng.random_range(least..=most);
    let third = rng.random_range(least..=most);
    first.min(second).min(third).max(least)
}

fn revenue_line(rng: &mut ChaCha8Rng, n: u32, shape: InputShape<'_>) -> Value {
    let product = *pick(rng, &["Subscriptions", "Licences", "Support", "Consulting", "Hardware", "Trainings"]);
    let mut line = Map::new();
    line.insert("name".into(), marked(&format!("{product} {}", n + 1), shape.mark).into());
    if shape.out_of_range && n == 0 {
        line.insert("opening_units".into(), "1000000000".into());
        line.insert("adds_per_month".into(), "1000000000".into());
        line.insert("adds_growth_monthly".into(), "1".into());
        line.insert("churn_monthly".into(), "0".into());
        line.insert("price".into(), "1000000000".into());
    } else {
        line.insert("opening_units".into(), decimal(rng, 0, 20_000_000, 3).into());
        line.insert("adds_per_month".into(), decimal(rng, 0, 400_000, 3).into());
        line.insert("adds_growth_monthly".into(), decimal(rng, -150, 250, 4).into());
        line.insert("churn_monthly".into(), decimal(rng, 0, 1_200, 4).into());
        line.insert("price".into(), decimal(rng, 1, 500_000, 2).into());
    }
    line.insert("price_growth_annual".into(), decimal(rng, -1_000, 2_000, 4).into());
    if chance(rng, 0.35) {
        let factors: Vec<String> = (0..12).map(|_| decimal(rng, 0, 250, 2)).collect();
        line.insert("seasonality".into(), json!(factors));
    }
    line.insert("collection_lag_months".into(), (*pick(rng, &[0, 0, 1, 1, 2, 3, 12])).into());
    Value::Object(line)
}

fn cost_line(rng: &mut ChaCha8Rng, n: u32, start: Month, horizon: u32, mark: &str) -> Value {
    let name = |label: &str| marked(&format!("{label} {}", n + 1), mark);
    match rng.random_range(0..10) {
        0..4 => {
            let mut line = Map::new();
            line.insert("kind".into(), "fixed".into());
            line.insert("name".into(), name("Rent").into());
            line.insert("amount".into(), decimal(rng, 0, 2_500_000, 2).into());
            line.insert("growth_annual".into(), decimal(rng, -500, 1_500, 4).into());
            if chance(rng, 0.4) {
                // A line may start before the scenario does; its growth then counts from there.
                let first = start.plus(rng.random_range(-30..=6));
                line.insert("start_month".into(), first.text().into());
                if chance(rng, 0.5) {
                    line.insert("end_month".into(), first.plus(rng.random_range(0..=48)).text().into());
                }
            }
            Value::Object(line)
        }
        4..6 => json!({"kind": "percent_of_revenue", "name": name("Fees"), "rate": decimal(rng, 0, 350_000, 6)}),
        6..9 => headcount(rng, &name("Engineer"), start, horizon),
        _ => {
            let month = start.plus(rng.random_range(-2..=i64::from(horizon) + 2));
            json!({"kind": "one_off", "name": name("Move"), "amount": decimal(rng, 0, 9_000_000, 2), "month": month.text()})
        }
    }
}

fn headcount(rng: &mut ChaCha8Rng, role: &str, start: Month, horizon: u32) -> Value {
    let first = start.plus(rng.random_range(-6..=i64::from(horizon) / 2));
    let start_day = rng.random_range(1..=first.days());
    let mut line = Map::new();
    line.insert("kind".into(), "headcount".into());
    line.insert("role".into(), role.into());
    line.insert("annual_salary".into(), decimal(rng, 2_000_000, 18_000_000, 2).into());
    line.insert("burden_rate".into(), decimal(rng, 0, 400, 3).into());
    line.insert("start_date".into(), first.day(start_day).into());
    if chance(rng, 0.5) {
        // Mostly in the middle of a month, sometimes in the month of the start.
        let last = first.plus(rng.random_range(0..=18));
        let least = if last == first { start_day } else { 1 };
        line.insert("end_date".into(), last.day(rng.random_range(least..=last.days())).into());
    }
    Value::Object(line)
}

fn uncertainty(rng: &mut ChaCha8Rng, paths: u32) -> Value {
    let (price, adds) = if chance(rng, 0.1) {
        // Both zero must by-pass the simulation.
        ("0".to_owned(), "0".to_owned())
    } else {
        (decimal(rng, 0, 150, 3), decimal(rng, 0, 250, 3))
    };
    let seed: u64 = rng.random();
    json!({"paths": paths, "price_sigma_monthly": price, "adds_sigma_monthly": adds, "seed": seed.to_string()})
}

fn marked(name: &str, mark: &str) -> String {
    if mark.is_empty() { name.to_owned() } else { format!("{name} {mark}") }
}

/// A decimal drawn evenly from `least..=most` units of 10^-scale, written with all its digits.
fn decimal(rng: &mut ChaCha8Rng, least: i64, most: i64, scale: u32) -> String {
    decimal_text(rng.random_range(least..=most), scale)
}

fn decimal_text(units: i64, scale: u32) -> String {
    let one = 10_u64.pow(scale);
    let sign = if units < 0 { "-" } else { "" };
    let (whole, part) = (units.unsigned_abs() / one, units.unsigned_abs() % one);
    if scale == 0 { format!("{sign}{whole}") } else { format!("{sign}{whole}.{part:0width$}", width = scale as usize) }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Month {
    /// Months since year 0.
    index: i64,
}

impl Month {
    /// Around the present, with leap years and far ends now and then.
    fn draw(rng: &mut ChaCha8Rng) -> Self {
        let year = match rng.random_range(0..20) {
            0 => rng.random_range(1970..2000),
            1 => rng.random_range(2090..2180),
            2..6 => *pick(rng, &[2000, 2024, 2028]),
            _ => rng.random_range(2025..=2027),
        };
        Self { index: year * 12 + rng.random_range(0..12) }
    }

    /// Kept inside 1970-01 to 2199-12.
    fn plus(self, months: i64) -> Self {
        Self { index: (self.index + months).clamp(1970 * 12, 2199 * 12 + 11) }
    }

    fn year(self) -> i64 {
        self.index.div_euclid(12)
    }

    fn number(self) -> i64 {
        self.index.rem_euclid(12) + 1
    }

    fn days(self) -> u32 {
        let year = self.year();
        match self.number() {
            2 if (year % 4 == 0 && year % 100 != 0) || year % 400 == 0 => 29,
            2 => 28,
            4 | 6 | 9 | 11 => 30,
            _ => 31,
        }
    }

    fn text(self) -> String {
        format!("{:04}-{:02}", self.year(), self.number())
    }

    fn day(self, day: u32) -> String {
        format!("{}-{day:02}", self.text())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::randomness::Randomness;

    fn shape(mark: &str) -> InputShape<'_> {
        InputShape { currency: "EUR", mark, paths: None, out_of_range: false }
    }

    #[test]
    fn the_same_stream_gives_the_same_input() {
        let draw = |seed| draw_input(&mut Randomness::new(seed).stream("data"), shape("mark"));
        assert_eq!(draw(4), draw(4));
        assert_ne!(draw(4), draw(5));
    }

    #[test]
    fn every_line_name_carries_the_mark() {
        let mut rng = Randomness::new(2).stream("data");
        for _ in 0..300 {
            let input = draw_input(&mut rng, shape("MARK-77"));
            let lines = input["revenue"].as_array().into_iter().chain(input["costs"].as_array()).flatten();
            for line in lines {
                let name = line["name"].as_str().or(line["role"].as_str()).expect("a name or a role");
                assert!(name.ends_with("MARK-77"), "{name}");
            }
        }
    }

    #[test]
    fn lines_keep_to_the_counts_and_ends_follow_starts() {
        let mut rng = Randomness::new(3).stream("data");
        let mut with_end = 0;
        for _ in 0..500 {
            let input = draw_input(&mut rng, shape(""));
            let horizon = input["horizon_months"].as_u64().expect("horizon");
            assert!((1..=120).contains(&horizon));
            assert!((1..=8).contains(&input["revenue"].as_array().expect("revenue").len()));
            for cost in input["costs"].as_array().expect("costs") {
                if let (Some(start), Some(end)) = (cost["start_date"].as_str(), cost["end_date"].as_str()) {
                    assert!(start <= end, "{start} {end}");
                    with_end += 1;
                }
            }
        }
        assert!(with_end > 50, "{with_end}");
    }

    #[test]
    fn decimals_are_written_with_their_sign_and_all_digits() {
        assert_eq!(decimal_text(-5, 2), "-0.05");
        assert_eq!(decimal_text(70, 2), "0.70");
        assert_eq!(decimal_text(12, 0), "12");
        assert_eq!(Month { index: 2024 * 12 + 1 }.days(), 29);
        assert_eq!(Month { index: 2100 * 12 + 1 }.days(), 28);
    }
}
