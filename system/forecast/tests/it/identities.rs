//! What must stay the same, or change in step, when an input changes; no reference needed.

use serde_json::{Value, json};

use crate::scenario::{company, computed, monthly, text, with};

const FLOWS: [&str; 7] = ["/revenue", "/costs", "/ebitda", "/tax", "/net_income", "/collected", "/net_cash"];

fn without_lines(result: &Value) -> Value {
    let mut result = result.clone();
    for month in result["months"].as_array_mut().unwrap() {
        let month = month.as_object_mut().unwrap();
        month.remove("revenue_lines");
        month.remove("cost_lines");
    }
    result
}

/// The text times ten, as a whole number of the smallest printed digit.
fn minor(text: &str) -> i128 {
    text.replace('.', "").parse().unwrap()
}

#[test]
fn splitting_a_line_in_two_changes_no_sum() {
    let whole = company();
    let mut split = whole.clone();
    let mut half = split["revenue"][0].clone();
    half["opening_units"] = json!("60");
    half["adds_per_month"] = json!("7.25");
    split["revenue"][0] = half.clone();
    split["revenue"].as_array_mut().unwrap().push(half);
    let mut rent = split["costs"][0].clone();
    rent["amount"] = json!("1799.99");
    split["costs"][0] = rent.clone();
    rent["amount"] = json!("0.01");
    split["costs"].as_array_mut().unwrap().push(rent);
    assert_eq!(without_lines(&computed(&split).result), without_lines(&computed(&whole).result));
}

#[test]
fn permuting_lines_permutes_lines_and_nothing_else() {
    let (forward, mut backward) = (company(), company());
    backward["revenue"].as_array_mut().unwrap().reverse();
    backward["costs"].as_array_mut().unwrap().reverse();
    let (forward, backward) = (computed(&forward).result, computed(&backward).result);
    assert_eq!(without_lines(&forward), without_lines(&backward));
    for (a, b) in forward["months"].as_array().unwrap().iter().zip(backward["months"].as_array().unwrap()) {
        for lines in ["revenue_lines", "cost_lines"] {
            let mut reversed = b[lines].as_array().unwrap().clone();
            reversed.reverse();
            assert_eq!(a[lines].as_array().unwrap(), &reversed);
        }
    }
}

#[test]
fn scaling_all_money_by_a_hundred_shifts_the_exact_figures() {
    let small = company();
    let mut large = small.clone();
    large["opening_cash"] = json!("5000000");
    for (pointer, value) in [
        ("/revenue/0/price", "2990"),
        ("/revenue/1/price", "24900"),
        ("/costs/0/amount", "180000"),
        ("/costs/2/annual_salary", "6400000"),
        ("/costs/3/annual_salary", "4100000"),
        ("/costs/4/amount", "750050"),
    ] {
        *large.pointer_mut(pointer).unwrap() = json!(value);
    }
    let (small, large) = (computed(&small).result, computed(&large).result);
    for field in FLOWS.iter().chain(&["/cash"]) {
        for (s, l) in monthly(&small, field).iter().zip(monthly(&large, field)) {
            // Half a cent of the small one is fifty cents of the large one.
            assert!((minor(s) * 100 - minor(l)).abs() <= 50, "{field}: {s} {l}");
        }
    }
    assert_eq!(small["break_even_month_index"], large["break_even_month_index"]);
    assert_eq!(small["runway_months"], large["runway_months"]);
}

#[test]
fn a_longer_horizon_leaves_the_earlier_months_alone() {
    let long = computed(&company()).result;
    let short = computed(&with(&company(), "/horizon_months", json!(17))).result;
    assert_eq!(short["months"].as_array().unwrap()[..], long["months"].as_array().unwrap()[..17]);
}

#[test]
fn cash_is_opening_cash_and_every_net_cash() {
    let result = computed(&company()).result;
    let cash = minor(text(&result, "/months/35/cash"));
    // Both are rounded once, so they may differ by one minor unit.
    assert!((cash - 5_000_000 - minor(text(&result, "/totals/net_cash"))).abs() <= 1);
}

#[test]
fn names_and_key_order_change_the_hash_only_as_canonical_json_does() {
    let input = company();
    let mut reordered = serde_json::Map::new();
    for (key, value) in input.as_object().unwrap().iter().rev() {
        reordered.insert(key.clone(), value.clone());
    }
    let first = computed(&input);
    assert_eq!(first, computed(&Value::Object(reordered)));
    let renamed = computed(&with(&input, "/revenue/0/name", json!("Basic ")));
    assert_ne!(first.result_hash, renamed.result_hash);
}
