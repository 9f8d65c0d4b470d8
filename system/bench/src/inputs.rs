//! Scenario inputs of a given size.

use serde_json::{Value, json};

/// `revenue_lines` lines that grow, churn, have seasons and are paid a month late, and `cost_lines` of every
/// kind in turn, over `months`; with a simulation of `paths` where given.
pub(crate) fn scenario(months: u32, revenue_lines: u32, cost_lines: u32, paths: Option<u32>) -> Value {
    let revenue: Vec<Value> = (0..revenue_lines).map(revenue_line).collect();
    let costs: Vec<Value> = (0..cost_lines).map(cost_line).collect();
    let mut input = json!({
        "currency": "EUR",
        "start_month": "2026-01",
        "horizon_months": months,
        "opening_cash": "50000",
        "discount_rate_annual": "0.08",
        "tax_rate": "0.25",
        "revenue": revenue,
        "costs": costs,
    });
    if let Some(paths) = paths {
        input["uncertainty"] = uncertainty(paths);
    }
    input
}

/// A simulation of `paths` with both kinds of chance.
pub(crate) fn uncertainty(paths: u32) -> Value {
    json!({ "paths": paths, "price_sigma_monthly": "0.08", "adds_sigma_monthly": "0.25", "seed": "20260101" })
}

fn revenue_line(index: u32) -> Value {
    json!({
        "name": format!("Line {index}"),
        "opening_units": format!("{}", 100 + 7 * index),
        "adds_per_month": format!("{}.5", 10 + index),
        "adds_growth_monthly": "0.02",
        "churn_monthly": "0.031",
        "price": format!("{}.90", 19 + index),
        "price_growth_annual": "0.05",
        "seasonality": ["0.9", "0.9", "1", "1", "1.1", "1.1", "0.8", "0.8", "1", "1.1", "1.2", "1.3"],
        "collection_lag_months": 1,
    })
}

fn cost_line(index: u32) -> Value {
    match index % 4 {
        0 => json!({ "kind": "fixed", "name": format!("Rent {index}"), "amount": "1800", "growth_annual": "0.03" }),
        1 => json!({ "kind": "percent_of_revenue", "name": format!("Hosting {index}"), "rate": "0.12" }),
        2 => json!({
            "kind": "headcount", "role": format!("Engineer {index}"), "annual_salary": "54000",
            "burden_rate": "0.22", "start_date": "2026-02-16"
        }),
        _ => json!({ "kind": "one_off", "name": format!("Launch {index}"), "amount": "5000", "month": "2026-03" }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_input_used_has_a_forecast() {
        for input in [scenario(36, 4, 4, None), scenario(60, 20, 0, Some(50)), scenario(24, 2, 4, Some(10))] {
            assert!(forecastle_forecast::run(&input, 1, &|| false).is_ok());
        }
    }
}
