//! Inputs at every bound at once: slow arithmetic or memory would show here first.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::scenario::{computed, empty, text};

/// Wall-clock limit for an unoptimised build on a busy machine; an optimised one takes well under a second.
const LIMIT: Duration = Duration::from_secs(40);

fn extreme() -> Value {
    let mut input = empty();
    input["start_month"] = json!("2199-12");
    input["horizon_months"] = json!(120);
    input["opening_cash"] = json!("999999999999.999999999999");
    input["discount_rate_annual"] = json!("0.999999999999");
    input["tax_rate"] = json!("0.999999999999");
    let revenue = |i: usize| {
        json!({
            "name": format!("r{i}"), "opening_units": "99.999999999999", "adds_per_month": "1.000000000001",
            "adds_growth_monthly": "0.012345678901", "churn_monthly": "0.098765432109", "price": "999.999999999999",
            "price_growth_annual": "0.012345678901", "seasonality": vec!["0.999999999999"; 12], "collection_lag_months": 12,
        })
    };
    let cost = |i: usize| match i % 4 {
        0 => {
            json!({ "kind": "fixed", "name": "f", "amount": "12345.678901234567", "growth_annual": "0.000123456789", "start_month": "1970-01" })
        }
        1 | 2 => json!({ "kind": "percent_of_revenue", "name": "p", "rate": "0.012345678901" }),
        _ => {
            json!({ "kind": "headcount", "role": "h", "annual_salary": "12345.678901234567", "burden_rate": "0.123456789012", "start_date": "2199-12-31" })
        }
    };
    input["revenue"] = (0..50).map(revenue).collect();
    input["costs"] = (0..200).map(cost).collect();
    input
}

#[test]
fn the_largest_scenario_of_twelve_digit_inputs_ends_in_time() {
    let begun = Instant::now();
    let outcome = computed(&extreme());
    let took = begun.elapsed();
    println!("largest scenario: {took:?}");
    assert_eq!(outcome.result["months"].as_array().unwrap().len(), 120);
    assert_eq!(text(&outcome.result, "/months/119/month"), "2209-11");
    assert!(took < LIMIT, "took {took:?}");
}

#[test]
fn a_fixed_line_two_thousand_years_old_ends_in_time() {
    let mut input = extreme();
    input["revenue"] = json!([]);
    input["costs"] = (0..200)
        .map(|_| json!({ "kind": "fixed", "name": "f", "amount": "1000", "growth_annual": "0.000000000001", "start_month": "0001-01" }))
        .collect();
    let begun = Instant::now();
    let outcome = computed(&input);
    let took = begun.elapsed();
    println!("oldest lines: {took:?}");
    assert_eq!(text(&outcome.result, "/months/0/costs"), "200000.00");
    assert!(took < LIMIT, "took {took:?}");
}

#[test]
fn a_small_companys_forecast_takes_milliseconds() {
    let input = crate::scenario::company();
    let begun = Instant::now();
    for _ in 0..20 {
        computed(&input);
    }
    let each = begun.elapsed() / 20;
    println!("36 months × 7 lines: {each:?} each");
    assert!(each < Duration::from_millis(200), "took {each:?}");
}
