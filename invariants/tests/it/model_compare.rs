//! Known-bad answers that the comparison must notice, each for its own reason.

use nogo_invariants::model::{
    AMOUNT_OUT_OF_RANGE, Comparison, Expected, OracleError, compare, compare_failure, forecast_as,
};
use serde_json::{Value, json};

fn input() -> Value {
    json!({
        "currency": "USD", "start_month": "2025-01", "horizon_months": 2,
        "opening_cash": "10", "discount_rate_annual": "0.1", "tax_rate": "0",
        "revenue": [{
            "name": "a", "opening_units": "10", "adds_per_month": "1", "adds_growth_monthly": "0",
            "churn_monthly": "0", "price": "10", "price_growth_annual": "0",
            "collection_lag_months": 0
        }],
        "costs": [{"kind": "fixed", "name": "f", "amount": "5", "growth_annual": "0"}],
    })
}

fn right(input: &Value) -> Value {
    match forecast_as(input, "1") {
        Ok(Expected::Result(result)) => result,
        other => panic!("{other:?}"),
    }
}

fn found(input: &Value, actual: &Value) -> Comparison {
    compare(input, actual).expect("a readable input")
}

/// Compares after `tamper`, and gives the pointers that differ.
fn tampered(input: &Value, actual: &Value, tamper: impl FnOnce(&mut Value)) -> Vec<String> {
    let mut actual = actual.clone();
    tamper(&mut actual);
    let found = found(input, &actual);
    assert!(!found.holds());
    found.mismatches.into_iter().map(|wrong| wrong.pointer).collect()
}

#[test]
fn the_expected_answer_holds_and_every_amount_is_counted() {
    let found = found(&input(), &right(&input()));
    // Two months of 8 amounts, a line with 2 and a line with 1; a year and totals of 7; the npv.
    assert_eq!(found.amounts_compared, 2 * 11 + 7 + 7 + 1);
    assert!(found.holds());
}

#[test]
fn each_kind_of_damage_is_named_by_its_pointer() {
    let (input, right) = (input(), right(&input()));
    let check = |tamper: fn(&mut Value), pointer: &str| {
        assert_eq!(tampered(&input, &right, tamper), [pointer]);
    };
    check(|a| a["months"][1]["cash"] = json!("220.01"), "/months/1/cash");
    check(|a| a["months"][0]["revenue_lines"][0]["units"] = json!("11.000001"), "/months/0/revenue_lines/0/units");
    check(|a| a["totals"]["tax"] = json!("-0.00"), "/totals/tax");
    check(|a| a["totals"]["revenue"] = json!("230.0"), "/totals/revenue");
    check(|a| a["totals"]["revenue"] = json!(230), "/totals/revenue");
    check(|a| a["years"][0]["year"] = json!(2026), "/years/0/year");
    check(|a| a["months"][0]["month"] = json!("2025-02"), "/months/0/month");
    check(|a| a["currency"] = json!("EUR"), "/currency");
    check(|a| a["runway_months"] = json!(0), "/runway_months");
    check(|a| a["break_even_month_index"] = Value::Null, "/break_even_month_index");
    check(|a| a["engine_version"] = json!(""), "/engine_version");
    check(|a| a["surprise"] = json!("1.00"), "/surprise");
    check(|a| drop(a["months"].as_array_mut().expect("months").pop()), "/months/1");
    check(|a| drop(a["months"][0].as_object_mut().expect("month").remove("tax")), "/months/0/tax");
    check(|a| drop(a.as_object_mut().expect("object").remove("npv_end_of_month")), "/npv_end_of_month");
    check(|a| drop(a.as_object_mut().expect("object").remove("engine_version")), "/engine_version");
    check(|a| drop(a.as_object_mut().expect("object").remove("uncertainty")), "/uncertainty");
    check(|a| a["uncertainty"] = json!({}), "/uncertainty");
}

#[test]
fn witnesses_are_capped_but_all_mismatches_are_counted() {
    let mut input = input();
    input["horizon_months"] = json!(60);
    let mut actual = right(&input);
    for month in actual["months"].as_array_mut().expect("months") {
        month["cash"] = json!("1.23");
    }
    let found = found(&input, &actual);
    assert_eq!(found.mismatches_total, 60);
    assert_eq!(found.mismatches.len(), 20);
}

#[test]
fn an_answer_that_is_no_object_does_not_hold() {
    for actual in [json!(null), json!([]), json!("x"), json!({})] {
        assert!(!found(&input(), &actual).holds());
    }
}

/// A drawn block whose means are `off` cents above the exact ones, with a standard error of 1 cent.
fn drawn(input: &Value, off: i64) -> Value {
    let mut actual = right(input);
    let series = |field: &str| -> Vec<Value> {
        let months = actual["months"].as_array().expect("months");
        months
            .iter()
            .map(|month| {
                let cents: i64 = month[field].as_str().expect("text").replace('.', "").parse().expect("cents");
                let text = |cents: i64| json!(format!("{}.{:02}", cents / 100, cents % 100));
                json!({
                    "p5": text(cents - 200), "p25": text(cents - 100), "p50": text(cents),
                    "p75": text(cents + 100), "p95": text(cents + 200),
                    "mean": text(cents + off), "standard_error": "0.01000000"
                })
            })
            .collect()
    };
    let (revenue, cash) = (series("revenue"), series("cash"));
    actual["uncertainty"] = json!({
        "paths": 1000, "revenue": revenue, "cash": cash, "probability_cash_negative": "0.001000"
    });
    actual
}

fn uncertain(sigma: &str) -> Value {
    let mut input = input();
    input["uncertainty"] = json!({
        "paths": 1000, "price_sigma_monthly": sigma, "adds_sigma_monthly": "0", "seed": "7"
    });
    input
}

#[test]
fn a_mean_may_lie_six_standard_errors_off_and_not_seven() {
    let input = uncertain("0.1");
    assert!(found(&input, &drawn(&input, 0)).holds());
    assert!(found(&input, &drawn(&input, 6)).holds());
    assert!(found(&input, &drawn(&input, -6)).holds());
    let wrong = found(&input, &drawn(&input, 7));
    assert_eq!(wrong.mismatches_total, 4);
    assert_eq!(wrong.mismatches[0].pointer, "/uncertainty/revenue/0/mean");
}

#[test]
fn with_tax_only_the_mean_of_revenue_is_held_to_the_law() {
    let mut input = uncertain("0.1");
    input["tax_rate"] = json!("0.2");
    assert_eq!(found(&input, &drawn(&input, 7)).mismatches_total, 2);
}

#[test]
fn with_few_paths_no_mean_is_held_to_the_law() {
    let mut input = uncertain("0.1");
    input["uncertainty"]["paths"] = json!(999);
    let mut actual = drawn(&input, 50);
    actual["uncertainty"]["paths"] = json!(999);
    actual["uncertainty"]["probability_cash_negative"] = json!("0.001001");
    assert!(found(&input, &actual).holds());
}

#[test]
fn damage_to_a_drawn_block_is_named() {
    let input = uncertain("0.1");
    let right = drawn(&input, 0);
    let check = |tamper: fn(&mut Value), pointer: &str| {
        let pointers = tampered(&input, &right, |actual| tamper(&mut actual["uncertainty"]));
        assert_eq!(pointers, [pointer]);
    };
    check(|u| u["paths"] = json!(999), "/uncertainty/paths");
    check(|u| u["revenue"][0]["p25"] = json!("1.00"), "/uncertainty/revenue/0/p25");
    check(|u| u["revenue"][0]["p50"] = json!("110"), "/uncertainty/revenue/0/p50");
    check(|u| u["cash"][1]["standard_error"] = json!("0.01"), "/uncertainty/cash/1/standard_error");
    check(|u| u["cash"][1]["standard_error"] = json!("NaN"), "/uncertainty/cash/1/standard_error");
    check(|u| u["cash"][1]["extra"] = json!("0.01"), "/uncertainty/cash/1/extra");
    check(|u| u["probability_cash_negative"] = json!("1.001000"), "/uncertainty/probability_cash_negative");
    check(|u| u["probability_cash_negative"] = json!("0.000500"), "/uncertainty/probability_cash_negative");
    check(|u| u["probability_cash_negative"] = json!("0.1"), "/uncertainty/probability_cash_negative");
    check(|u| drop(u["cash"].as_array_mut().expect("list").pop()), "/uncertainty/cash");
    check(|u| drop(u.as_object_mut().expect("block").remove("revenue")), "/uncertainty/revenue");
    check(|u| *u = Value::Null, "/uncertainty");
    // A missing mean is one mismatch, and the exact part is still compared.
    check(|u| drop(u["revenue"][0].as_object_mut().expect("row").remove("mean")), "/uncertainty/revenue/0/mean");
    let exact = tampered(&input, &right, |actual| actual["months"][0]["cash"] = json!("0.00"));
    assert_eq!(exact, ["/months/0/cash"]);
}

#[test]
fn without_any_sigma_null_or_the_exact_figures_are_right() {
    let input = uncertain("0");
    let null = right(&input);
    assert!(found(&input, &null).holds());
    let mut block = null.clone();
    let series = |field: &str| -> Vec<Value> {
        let months = null["months"].as_array().expect("months");
        let row = |x: &Value| json!({"p5": x, "p25": x, "p50": x, "p75": x, "p95": x, "mean": x, "standard_error": "0.00000000"});
        months.iter().map(|month| row(&month[field])).collect()
    };
    block["uncertainty"] = json!({
        "paths": 1000, "revenue": series("revenue"), "cash": series("cash"),
        "probability_cash_negative": "0.000000"
    });
    let all = found(&input, &block);
    assert!(all.holds(), "{all:?}");
    let pointers = tampered(&input, &block, |a| a["uncertainty"]["cash"][0]["p5"] = json!("114.99"));
    assert_eq!(pointers, ["/uncertainty/cash/0/p5"]);
    let pointers = tampered(&input, &block, |a| {
        a["uncertainty"]["cash"][0]["standard_error"] = json!("0.00000001");
    });
    assert_eq!(pointers, ["/uncertainty/cash/0/standard_error"]);
    let pointers = tampered(&input, &block, |a| {
        a["uncertainty"]["probability_cash_negative"] = json!("1.000000");
    });
    assert_eq!(pointers, ["/uncertainty/probability_cash_negative"]);
}

#[test]
fn a_failure_is_wrong_where_amounts_fit_and_undecided_where_a_path_may_not() {
    let plain = compare_failure(&input(), AMOUNT_OUT_OF_RANGE).expect("readable");
    assert_eq!(plain.mismatches_total, 1);
    let drawn = compare_failure(&uncertain("2"), AMOUNT_OUT_OF_RANGE);
    assert!(matches!(drawn, Err(OracleError::Undecided(_))));
    let other = compare_failure(&uncertain("2"), "deadline").expect("readable");
    assert_eq!(other.mismatches_total, 1);
}
