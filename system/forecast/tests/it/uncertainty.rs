//! Simulated paths: repeatable to the byte, unbiased, and switched off where nothing is uncertain.

use std::cell::Cell;

use forecastle_forecast::{ForecastError, run};
use serde_json::{Value, json};

use crate::scenario::{company, computed, empty, flat_revenue, monthly, never, text, with};

fn uncertain(base: &Value, paths: usize, price_sigma: &str, adds_sigma: &str, seed: &str) -> Value {
    let block =
        json!({ "paths": paths, "price_sigma_monthly": price_sigma, "adds_sigma_monthly": adds_sigma, "seed": seed });
    with(base, "/uncertainty", block)
}

fn without_block(result: &Value) -> Value {
    with(result, "/uncertainty", Value::Null)
}

#[test]
fn any_number_of_threads_gives_the_same_bytes() {
    let input = uncertain(&company(), 1_500, "0.1", "0.2", "42");
    let one = computed(&input);
    for threads in [0, 2, 4, 16, 1_000] {
        let many = run(&input, threads, &never).unwrap();
        assert_eq!(many.result_hash, one.result_hash, "{threads} threads");
        assert_eq!(many.result.to_string(), one.result.to_string());
    }
}

#[test]
fn the_exact_part_is_untouched_by_simulation() {
    let plain = computed(&company()).result;
    assert_eq!(without_block(&computed(&uncertain(&company(), 50, "0.1", "0", "1")).result), plain);
}

#[test]
fn no_uncertainty_is_exactly_the_forecast() {
    let result = computed(&uncertain(&company(), 777, "0", "0.000", "9")).result;
    for (series, field) in [("revenue", "/revenue"), ("cash", "/cash")] {
        for (t, exact) in monthly(&result, field).into_iter().enumerate() {
            for figure in ["p5", "p25", "p50", "p75", "p95", "mean"] {
                assert_eq!(text(&result, &format!("/uncertainty/{series}/{t}/{figure}")), exact);
            }
            assert_eq!(text(&result, &format!("/uncertainty/{series}/{t}/standard_error")), "0.00000000");
        }
    }
    assert_eq!(result["uncertainty"]["paths"], json!(777));
    let negative = if result["runway_months"].is_null() { "0.000000" } else { "1.000000" };
    assert_eq!(text(&result, "/uncertainty/probability_cash_negative"), negative);
}

#[test]
fn a_tiny_sigma_stays_close_to_the_forecast() {
    let result = computed(&uncertain(&company(), 3, "0.000000000001", "0", "9")).result;
    for (series, field) in [("revenue", "/revenue"), ("cash", "/cash")] {
        for (t, exact) in monthly(&result, field).into_iter().enumerate() {
            let (exact, p50): (f64, f64) =
                (exact.parse().unwrap(), text(&result, &format!("/uncertainty/{series}/{t}/p50")).parse().unwrap());
            assert!((exact - p50).abs() < 0.011, "{series} {t}: {exact} {p50}");
        }
    }
}

#[test]
fn means_lie_within_six_standard_errors_of_the_forecast() {
    for seed in 0..20 {
        let untaxed = with(&company(), "/tax_rate", json!("0"));
        let result = computed(&uncertain(&untaxed, 1_000, "0.15", "0.3", &seed.to_string())).result;
        for (series, field) in [("revenue", "/revenue"), ("cash", "/cash")] {
            for (t, exact) in monthly(&result, field).into_iter().enumerate() {
                let figure = |name: &str| -> f64 {
                    text(&result, &format!("/uncertainty/{series}/{t}/{name}")).parse().unwrap()
                };
                let exact: f64 = exact.parse().unwrap();
                let error = figure("standard_error");
                assert!(error > 0.0);
                assert!((figure("mean") - exact).abs() <= 6.0 * error + 0.01, "seed {seed}, {series} {t}");
            }
        }
    }
}

#[test]
fn a_lognormal_price_has_lognormal_percentiles() {
    // One unit at the price of 1000: revenue is 1000 exp(σz - σ²/2).
    let base = with(
        &with(&empty(), "/revenue", json!([with(&flat_revenue(), "/price", json!("1000"))])),
        "/horizon_months",
        json!(1),
    );
    let result = computed(&uncertain(&base, 100_000, "0.5", "0", "3")).result;
    for (name, z) in
        [("p5", -1.644_853_6_f64), ("p25", -0.674_489_8), ("p50", 0.0), ("p75", 0.674_489_8), ("p95", 1.644_853_6)]
    {
        let expected = 1_000.0 * (0.5 * z - 0.125).exp();
        let found: f64 = text(&result, &format!("/uncertainty/revenue/0/{name}")).parse().unwrap();
        assert!((found / expected - 1.0).abs() < 0.02, "{name}: {found} {expected}");
    }
    let error: f64 = text(&result, "/uncertainty/revenue/0/standard_error").parse().unwrap();
    let expected = 1_000.0 * (0.25_f64.exp() - 1.0).sqrt() / 100_000_f64.sqrt();
    assert!((error / expected - 1.0).abs() < 0.05, "{error} {expected}");
}

#[test]
fn percentiles_never_cross() {
    let result = computed(&uncertain(&company(), 300, "0.4", "0.4", "5")).result;
    for series in ["revenue", "cash"] {
        for spread in result["uncertainty"][series].as_array().unwrap() {
            let figures = ["/p5", "/p25", "/p50", "/p75", "/p95"].map(|p| text(spread, p).parse::<f64>().unwrap());
            assert!(figures.is_sorted(), "{figures:?}");
        }
    }
}

#[test]
fn another_seed_is_another_future_and_the_same_seed_the_same() {
    let with_seed =
        |seed: &str| computed(&uncertain(&company(), 100, "0.1", "0.1", seed)).result["uncertainty"].clone();
    assert_eq!(with_seed("1"), with_seed("1"));
    assert_ne!(with_seed("1"), with_seed("2"));
}

#[test]
fn a_cash_shortage_is_as_likely_as_it_happens() {
    let mut input = uncertain(&empty(), 500, "0.1", "0", "1");
    assert_eq!(text(&computed(&input).result, "/uncertainty/probability_cash_negative"), "0.000000");
    input["opening_cash"] = json!("-1");
    assert_eq!(text(&computed(&input).result, "/uncertainty/probability_cash_negative"), "1.000000");
    // Revenue's median is below the cost that equals its mean: more than half of the paths fall short.
    let mut even = uncertain(&empty(), 2_000, "1", "0", "1");
    even["horizon_months"] = json!(1);
    even["revenue"] = json!([flat_revenue()]);
    even["costs"] = json!([{ "kind": "one_off", "name": "o", "amount": "1", "month": "2024-01" }]);
    let probability: f64 = text(&computed(&even).result, "/uncertainty/probability_cash_negative").parse().unwrap();
    // P(z < 1/2) = 0.6915.
    assert!((probability - 0.691_5).abs() < 6.0 * (0.691_5_f64 * 0.308_5 / 2_000.0).sqrt(), "{probability}");
}

#[test]
fn stopping_is_heeded_between_months_and_between_chunks() {
    assert_eq!(run(&company(), 1, &|| true), Err(ForecastError::Stopped));
    let input = uncertain(&company(), 2_000, "0.1", "0.1", "1");
    for threads in [1, 4] {
        let asked = Cell::new(0);
        let stop_while_simulating = || {
            asked.set(asked.get() + 1);
            asked.get() > 37
        };
        assert_eq!(run(&input, threads, &stop_while_simulating), Err(ForecastError::Stopped));
        assert_eq!(asked.get(), 38);
    }
}
