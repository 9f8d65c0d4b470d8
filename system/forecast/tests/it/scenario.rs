//! Scenarios to start from, and short ways to look into a result.

use forecastle_forecast::{ForecastOutcome, run};
use serde_json::{Value, json};

pub(crate) fn never() -> bool {
    false
}

/// Computes on one thread; panics on any error.
pub(crate) fn computed(input: &Value) -> ForecastOutcome {
    run(input, 1, &never).unwrap_or_else(|error| panic!("{error:?}"))
}

/// Nothing earned, nothing spent, twelve months of 2024 in US dollars.
pub(crate) fn empty() -> Value {
    json!({
        "currency": "USD",
        "start_month": "2024-01",
        "horizon_months": 12,
        "opening_cash": "0",
        "discount_rate_annual": "0",
        "tax_rate": "0",
        "revenue": [],
        "costs": [],
    })
}

/// One unit at the price of 1, for ever, paid at once.
pub(crate) fn flat_revenue() -> Value {
    json!({
        "name": "flat",
        "opening_units": "1",
        "adds_per_month": "0",
        "adds_growth_monthly": "0",
        "churn_monthly": "0",
        "price": "1",
        "price_growth_annual": "0",
        "collection_lag_months": 0,
    })
}

/// Three years of a small company with every kind of line.
pub(crate) fn company() -> Value {
    json!({
        "currency": "EUR",
        "start_month": "2024-03",
        "horizon_months": 36,
        "opening_cash": "50000",
        "discount_rate_annual": "0.08",
        "tax_rate": "0.25",
        "revenue": [
            {
                "name": "Basic", "opening_units": "120", "adds_per_month": "14.5", "adds_growth_monthly": "0.03",
                "churn_monthly": "0.021", "price": "29.90", "price_growth_annual": "0.05",
                "seasonality": ["0.9", "0.9", "1", "1", "1.1", "1.1", "0.8", "0.8", "1", "1.1", "1.2", "1.3"],
                "collection_lag_months": 1
            },
            {
                "name": "Pro", "opening_units": "12", "adds_per_month": "2", "adds_growth_monthly": "0.01",
                "churn_monthly": "0.015", "price": "249", "price_growth_annual": "0.03", "collection_lag_months": 2
            },
        ],
        "costs": [
            { "kind": "fixed", "name": "Rent", "amount": "1800", "growth_annual": "0.025", "start_month": "2022-11" },
            { "kind": "percent_of_revenue", "name": "Hosting", "rate": "0.12" },
            { "kind": "headcount", "role": "Engineer", "annual_salary": "64000", "burden_rate": "0.31", "start_date": "2024-05-13" },
            { "kind": "headcount", "role": "Support", "annual_salary": "41000", "burden_rate": "0.31", "start_date": "2023-01-01", "end_date": "2025-02-17" },
            { "kind": "one_off", "name": "Fair", "amount": "7500.50", "month": "2024-09" },
        ],
    })
}

/// A copy of `input` with `value` at the JSON pointer, which must exist or be a new object field.
pub(crate) fn with(input: &Value, pointer: &str, value: Value) -> Value {
    let mut changed = input.clone();
    let (parent, field) = pointer.rsplit_once('/').unwrap();
    match changed.pointer_mut(parent).unwrap() {
        Value::Object(object) => drop(object.insert(field.to_owned(), value)),
        Value::Array(items) => items[field.parse::<usize>().unwrap()] = value,
        other => panic!("{other} has no fields"),
    }
    changed
}

/// The string at a JSON pointer.
pub(crate) fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_else(|| panic!("no text at {pointer}"))
}

/// One field of every month.
pub(crate) fn monthly<'a>(result: &'a Value, field: &str) -> Vec<&'a str> {
    result["months"].as_array().unwrap().iter().map(|m| text(m, field)).collect()
}
