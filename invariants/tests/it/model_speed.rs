//! Bounds on work, generous enough for a busy machine: a gate must not wait for its oracle.

use std::time::{Duration, Instant};

use nogo_invariants::model::{Expected, compare, forecast, forecast_as};
use serde_json::{Value, json};

fn revenue(n: usize, digits: &str) -> Value {
    json!({
        "name": format!("line {n}"), "opening_units": format!("{}.{digits}", 100 + n),
        "adds_per_month": format!("3.{digits}"), "adds_growth_monthly": format!("0.0{digits}"),
        "churn_monthly": format!("0.0{digits}"), "price": format!("19.{digits}"),
        "price_growth_annual": format!("0.0{digits}"), "collection_lag_months": n % 13,
        "seasonality": vec![format!("0.9{digits}"); 12]
    })
}

fn cost(n: usize, digits: &str) -> Value {
    match n % 4 {
        0 => json!({"kind": "fixed", "name": "f", "amount": format!("50.{digits}"),
            "growth_annual": format!("0.0{digits}"), "start_month": "1990-01"}),
        1 => json!({"kind": "percent_of_revenue", "name": "p", "rate": format!("0.0{digits}")}),
        2 => json!({"kind": "headcount", "role": "h", "annual_salary": format!("50.{digits}"),
            "burden_rate": format!("0.2{digits}"), "start_date": "2024-05-17"}),
        _ => json!({"kind": "one_off", "name": "o", "amount": "9.99", "month": "2025-03"}),
    }
}

fn input(horizon: u32, lines: usize, costs: usize, digits: &str) -> Value {
    let revenue: Vec<Value> = (0..lines).map(|n| revenue(n, digits)).collect();
    let costs: Vec<Value> = (0..costs).map(|n| cost(n, digits)).collect();
    json!({
        "currency": "KWD", "start_month": "2025-01", "horizon_months": horizon,
        "opening_cash": "1000", "discount_rate_annual": format!("0.0{digits}"),
        "tax_rate": format!("0.2{digits}"), "revenue": revenue, "costs": costs
    })
}

#[test]
fn a_hundred_usual_forecasts_are_compared_within_a_few_seconds() {
    let input = input(36, 4, 4, "25");
    let Ok(Expected::Result(actual)) = forecast_as(&input, "1") else {
        panic!("no result");
    };
    let begun = Instant::now();
    for _ in 0..100 {
        assert!(compare(&input, &actual).expect("readable").holds());
    }
    let taken = begun.elapsed();
    println!("100 comparisons of 36 x 8: {taken:?}");
    assert!(taken < Duration::from_secs(10), "{taken:?}");
}

#[test]
fn the_largest_forecast_with_every_digit_in_use_takes_seconds() {
    let input = input(120, 50, 200, "12345678901");
    let begun = Instant::now();
    let expected = forecast(&input).expect("readable");
    let taken = begun.elapsed();
    println!("120 x 50 x 200 with 12 digits: {taken:?}");
    assert!(matches!(expected, Expected::Result(_)));
    assert!(taken < Duration::from_secs(60), "{taken:?}");
}
