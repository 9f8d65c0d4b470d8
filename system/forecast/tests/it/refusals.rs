//! What is refused, and that every fault is named.

use forecastle_forecast::{ForecastError, run, validate};
use serde_json::{Value, json};

use crate::scenario::{company, empty, never, with};

fn faults(input: &Value) -> Vec<(String, &'static str)> {
    match validate(input) {
        Ok(_) => Vec::new(),
        Err(faults) => faults.into_iter().map(|f| (f.pointer, f.code)).collect(),
    }
}

/// The one fault of an input, as "pointer code".
fn fault(input: &Value) -> String {
    let faults = faults(input);
    assert_eq!(faults.len(), 1, "{faults:?}");
    format!("{} {}", faults[0].0, faults[0].1)
}

#[test]
fn every_wrong_field_is_named_at_once() {
    let mut input = company();
    input["currency"] = json!("CHF");
    input["horizon_months"] = json!("36");
    input["opening_cash"] = json!(12.5);
    input["extra~/"] = json!(1);
    input["revenue"][1]["churn_monthly"] = json!("1.01");
    input["revenue"][0]["seasonality"][3] = json!("11");
    input["costs"][0]["kind"] = json!("variable");
    input["costs"][2].as_object_mut().unwrap().remove("role");
    input["costs"][3]["end_date"] = json!("2022-12-31");
    input["uncertainty"] = json!({ "paths": 0, "price_sigma_monthly": "2.1", "seed": "-1" });
    let expected = [
        ("/extra~0~1", "unknown_field"),
        ("/currency", "not_allowed"),
        ("/horizon_months", "wrong_type"),
        ("/opening_cash", "wrong_type"),
        ("/revenue/0/seasonality/3", "out_of_range"),
        ("/revenue/1/churn_monthly", "out_of_range"),
        ("/costs/0/kind", "not_allowed"),
        ("/costs/2/role", "required"),
        ("/costs/3/end_date", "end_before_start"),
        ("/uncertainty/paths", "out_of_range"),
        ("/uncertainty/price_sigma_monthly", "out_of_range"),
        ("/uncertainty/adds_sigma_monthly", "required"),
        ("/uncertainty/seed", "malformed"),
    ];
    assert_eq!(faults(&input), expected.map(|(pointer, code)| (pointer.to_owned(), code)));
    assert!(matches!(run(&input, 1, &never), Err(ForecastError::Invalid(all)) if all.len() == expected.len()));
}

#[test]
fn a_missing_field_is_named_where_it_should_be() {
    let expected = [
        "currency",
        "start_month",
        "horizon_months",
        "opening_cash",
        "discount_rate_annual",
        "tax_rate",
        "revenue",
        "costs",
    ];
    assert_eq!(faults(&json!({})), expected.map(|name| (format!("/{name}"), "required")));
    for document in [json!(null), json!([]), json!("x"), json!(1)] {
        assert_eq!(fault(&document), " wrong_type");
    }
}

#[test]
fn bounds_are_inclusive_and_exact() {
    let edges: [(&str, &[&str], &[&str]); 8] = [
        (
            "/opening_cash",
            &["-1000000000000", "1000000000000"],
            &["-1000000000000.000000000001", "1000000000000.000000000001"],
        ),
        ("/tax_rate", &["0", "1"], &["-0.000000000001", "1.000000000001"]),
        ("/revenue/0/opening_units", &["0", "1000000000"], &["-1", "1000000000.1"]),
        ("/revenue/0/price", &["0", "1000000000"], &["-0.01", "1000000001"]),
        ("/revenue/0/adds_growth_monthly", &["-0.99", "1"], &["-0.990000000001", "1.1"]),
        ("/costs/0/amount", &["0", "1000000000000"], &["-1", "1000000000001"]),
        ("/costs/1/rate", &["0", "10"], &["-0.1", "10.01"]),
        ("/costs/2/burden_rate", &["0", "10"], &["-0.1", "10.000000000001"]),
    ];
    for (pointer, inside, outside) in edges {
        for value in inside {
            assert_eq!(faults(&with(&company(), pointer, json!(value))), [], "{pointer} {value}");
        }
        for value in outside {
            assert_eq!(fault(&with(&company(), pointer, json!(value))), format!("{pointer} out_of_range"), "{value}");
        }
    }
}

#[test]
fn integers_are_json_integers_within_bounds() {
    for (value, code) in [
        (json!(0), "out_of_range"),
        (json!(121), "out_of_range"),
        (json!(-1), "out_of_range"),
        (json!(u64::MAX), "out_of_range"),
        (json!(12.0), "wrong_type"),
        (json!("12"), "wrong_type"),
        (json!(null), "wrong_type"),
    ] {
        assert_eq!(fault(&with(&empty(), "/horizon_months", value)), format!("/horizon_months {code}"));
    }
}

#[test]
fn months_outside_the_models_range_are_refused_only_for_the_start() {
    for month in ["1969-12", "2200-01"] {
        assert_eq!(fault(&with(&empty(), "/start_month", json!(month))), "/start_month out_of_range");
        let cost = json!([{ "kind": "one_off", "name": "o", "amount": "1", "month": month }]);
        assert_eq!(faults(&with(&empty(), "/costs", cost)), []);
    }
    for month in ["1970-01", "2199-12"] {
        assert_eq!(faults(&with(&empty(), "/start_month", json!(month))), []);
    }
}

#[test]
fn optional_fields_may_be_absent_or_null() {
    let input = with(&company(), "/uncertainty", Value::Null);
    let input = with(&input, "/revenue/1/seasonality", Value::Null);
    let input = with(&input, "/costs/0/end_month", Value::Null);
    let input = with(&input, "/costs/2/end_date", Value::Null);
    assert_eq!(faults(&input), []);
    assert_eq!(fault(&with(&input, "/costs/2/start_date", Value::Null)), "/costs/2/start_date wrong_type");
}

#[test]
fn seasonality_has_twelve_factors() {
    let with_factors = |n: usize| with(&company(), "/revenue/0/seasonality", json!(vec!["1"; n]));
    assert_eq!(fault(&with_factors(11)), "/revenue/0/seasonality too_short");
    assert_eq!(fault(&with_factors(13)), "/revenue/0/seasonality too_long");
    assert_eq!(faults(&with_factors(12)), []);
}

#[test]
fn names_are_bounded_and_printable() {
    let named = |name: &str| with(&company(), "/costs/0/name", json!(name));
    assert_eq!(faults(&named(&"é".repeat(200))), []);
    assert_eq!(fault(&named(&"é".repeat(201))), "/costs/0/name too_long");
    assert_eq!(fault(&named("")), "/costs/0/name too_short");
    for name in ["a\nb", "\u{0}", "\u{7f}", "\u{85}"] {
        assert_eq!(fault(&named(name)), "/costs/0/name malformed");
    }
}

#[test]
fn lists_are_bounded() {
    let revenue = company()["revenue"][1].clone();
    let cost = json!({ "kind": "percent_of_revenue", "name": "p", "rate": "0" });
    let with_lines = |r: usize, c: usize| {
        with(&with(&empty(), "/revenue", json!(vec![revenue.clone(); r])), "/costs", json!(vec![cost.clone(); c]))
    };
    assert_eq!(faults(&with_lines(50, 200)), []);
    assert_eq!(fault(&with_lines(51, 200)), "/revenue too_long");
    assert_eq!(fault(&with_lines(50, 201)), "/costs too_long");
}

#[test]
fn seeds_cover_64_bits_and_nothing_else() {
    let seeded = |seed: Value| {
        with(
            &empty(),
            "/uncertainty",
            json!({ "paths": 1, "price_sigma_monthly": "0", "adds_sigma_monthly": "0", "seed": seed }),
        )
    };
    for seed in ["0", "18446744073709551615"] {
        assert_eq!(faults(&seeded(json!(seed))), []);
    }
    for seed in ["", "+1", "-1", "007", "18446744073709551616", "1.0", "0x1", " 1"] {
        assert_eq!(fault(&seeded(json!(seed))), "/uncertainty/seed malformed", "{seed}");
    }
    assert_eq!(fault(&seeded(json!(7))), "/uncertainty/seed wrong_type");
}

#[test]
fn amounts_beyond_the_limit_fail_for_good() {
    let mut input = company();
    input["revenue"][0]["opening_units"] = json!("1000000000");
    input["revenue"][0]["price"] = json!("1000000000");
    assert_eq!(run(&input, 1, &never), Err(ForecastError::AmountOutOfRange));
}
