//! The calculators against published values, identities and their own edges.

use forecastle_forecast::{Calculator, CalculatorError};
use proptest::prelude::*;
use serde_json::{Value, json};

fn value(name: &str, input: Value) -> Value {
    let calculator: Calculator = name.parse().unwrap();
    calculator.evaluate(&input).unwrap_or_else(|error| panic!("{name} {input}: {error:?}"))
}

fn number(answer: &Value) -> f64 {
    answer.as_str().unwrap().parse().unwrap()
}

#[test]
fn published_values_come_out_to_the_last_decimal() {
    let flows = ["-15000", "1500", "2500", "3500", "4500", "6000"];
    for (name, input, expected) in [
        ("npv", json!({ "rate": "0.05", "flows": flows }), "122.894854950943"),
        ("pmt", json!({ "rate": "0.08", "periods_per_year": 12, "periods": 60, "pv": "15000" }), "-304.145914326205"),
        ("fv", json!({ "rate": "0.075", "periods": 20, "pmt": "-2000" }), "86609.362673043"),
        ("fv", json!({ "rate": "0.075", "periods": 20, "pmt": "-2000", "when": "begin" }), "93105.064873521"),
        ("pv", json!({ "rate": "0.07", "periods": 20, "pmt": "12000" }), "-127128.170946193932"),
        (
            "mirr",
            json!({ "flows": ["-120000", "39000", "30000", "21000", "37000", "46000"],
                "finance_rate": "0.10", "reinvestment_rate": "0.12" }),
            "0.126094130365905",
        ),
        ("percentile", json!({ "values": ["15", "20", "35", "40", "50"], "p": "0.1" }), "17"),
        ("percentile", json!({ "values": ["50", "15", "40", "20", "35"], "p": "0.4" }), "29"),
        ("percentile", json!({ "values": ["15", "20", "35", "40", "50"], "p": "0.9" }), "46"),
    ] {
        let answer = value(name, input);
        let printed = answer["value"].as_str().unwrap();
        assert!(
            (number(&answer["value"]) - expected.parse::<f64>().unwrap()).abs() < 1e-9,
            "{name}: {printed} {expected}"
        );
        assert_eq!(printed.split_once('.').unwrap().1.len(), 12, "{name}: {printed}");
    }
}

#[test]
fn every_root_is_found_once_and_in_order() {
    let roots = |flows: &[&str]| -> Vec<f64> {
        let answer = value("irr", json!({ "flows": flows }));
        answer["roots"].as_array().unwrap().iter().map(number).collect()
    };
    let near = |found: &[f64], expected: &[f64], tolerance: f64| {
        assert_eq!(found.len(), expected.len(), "{found:?}");
        assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < tolerance), "{found:?}");
    };
    near(&roots(&["-150000", "15000", "25000", "35000", "45000", "60000"]), &[0.052_432_89], 1e-8);
    near(&roots(&["-100", "39", "59", "55", "20"]), &[0.280_948_42], 1e-8);
    near(&roots(&["-5", "10.5", "1", "-8", "1"]), &[-0.870_20, 0.088_60, 0.709_56], 1e-5);
    near(&roots(&["-50", "-100", "600", "300", "-100"]), &[-0.768_90, 1.854_42], 1e-5);
    near(&roots(&["1", "2", "3"]), &[], 1.0);
    near(&roots(&["0", "0"]), &[], 1.0);
    near(&roots(&["0", "-100", "110", "0"]), &[0.1], 1e-15);
    // A double root: (x - 1.1)² × 100; and one at the upper bound, r = 10, which belongs to the range.
    near(&roots(&["100", "-220", "121"]), &[0.1], 1e-15);
    near(&roots(&["-1", "11"]), &[10.0], 1e-15);
    near(&roots(&["-1", "11.000000000001"]), &[], 1e-15);
}

#[test]
fn ties_between_two_decimals_go_to_the_even_one() {
    // x - 1 = 0.5e-12 and 1.5e-12: both are ties.
    let root = |flows: [&str; 2]| value("irr", json!({ "flows": flows }))["roots"][0].as_str().unwrap().to_owned();
    assert_eq!(root(["-2", "2.000000000001"]), "0.000000000000");
    assert_eq!(root(["-2", "2.000000000003"]), "0.000000000002");
    assert_eq!(root(["-2", "1.999999999999"]), "0.000000000000");
    assert_eq!(root(["-2", "1.999999999997"]), "-0.000000000002");
}

#[test]
fn periods_are_correctly_rounded_and_null_where_there_are_none() {
    let nper = |input: Value| value("nper", input)["value"].clone();
    // Doubling at 100 % takes exactly one period; from 1 to 1024 ten.
    assert_eq!(nper(json!({ "rate": "1", "pmt": "0", "pv": "-1", "fv": "1024" })), "10.000000000000");
    // numpy-financial's documentation: 64.07334877066185 at 7 %/12, -150, 8000.
    let close = nper(json!({ "rate": "0.07", "periods_per_year": 12, "pmt": "-150", "pv": "8000" }));
    assert!((number(&close) - 64.073_348_770_661_85).abs() < 1e-11, "{close}");
    assert_eq!(nper(json!({ "rate": "0", "pmt": "-100", "pv": "1000" })), "10.000000000000");
    assert_eq!(nper(json!({ "rate": "0", "pmt": "0", "pv": "1000" })), Value::Null);
    assert_eq!(nper(json!({ "rate": "0.1", "pmt": "-50", "pv": "1000" })), Value::Null);
    assert_eq!(nper(json!({ "rate": "0.000000000001", "pmt": "0", "pv": "-1", "fv": "1" })), "0.000000000000");
    let tiny = nper(json!({ "rate": "0.000000000001", "pmt": "0", "pv": "-1", "fv": "2" }));
    assert!((number(&tiny) / 0.693_147_180_56e12 - 1.0).abs() < 1e-9, "{tiny}");
}

#[test]
fn a_rate_of_return_without_gain_or_loss_is_null() {
    let input = json!({ "flows": ["-1", "-2"], "finance_rate": "0.1", "reinvestment_rate": "0.1" });
    assert_eq!(value("mirr", input)["value"], Value::Null);
}

#[test]
fn wrong_fields_are_all_named_and_too_large_values_refused() {
    let refused = |name: &str, input: Value| match name.parse::<Calculator>().unwrap().evaluate(&input) {
        Err(CalculatorError::Invalid(faults)) => {
            faults.into_iter().map(|fault| (fault.pointer, fault.code)).collect::<Vec<_>>()
        }
        other => panic!("{name}: {other:?}"),
    };
    let named = |pairs: &[(&str, &'static str)]| -> Vec<(String, &'static str)> {
        pairs.iter().map(|(pointer, code)| ((*pointer).to_owned(), *code)).collect()
    };
    assert_eq!(
        refused("npv", json!({ "rate": 0.1, "flows": ["1", "x"], "extra": 1 })),
        named(&[("/extra", "unknown_field"), ("/rate", "wrong_type"), ("/flows/1", "malformed")])
    );
    assert_eq!(refused("irr", json!({ "flows": vec!["1"; 61] })), named(&[("/flows", "too_long")]));
    assert_eq!(
        refused("percentile", json!({ "values": [], "p": "1.1" })),
        named(&[("/values", "too_short"), ("/p", "out_of_range")])
    );
    assert_eq!(
        refused("pmt", json!({ "rate": "-1", "periods": 0, "pv": "1", "when": "later" })),
        named(&[("/rate", "out_of_range"), ("/periods", "out_of_range"), ("/when", "not_allowed")])
    );
    assert_eq!(refused("fv", json!([])), named(&[("", "wrong_type")]));
    let huge = json!({ "rate": "10", "periods": 1200, "pmt": "1", "pv": "1" });
    assert_eq!(Calculator::Fv.evaluate(&huge), Err(CalculatorError::AmountOutOfRange));
}

#[test]
fn the_worst_polynomials_are_answered() {
    // Sixty flows of 24 digits with a change of sign at each; and two roots closer than any decimal
    // (Mignotte: x^59 - 2 (ax - 1)²).
    let wild: Vec<String> = (0..60_i64)
        .map(|t| {
            let magnitude = 999_999_999_999_i64 - t * 7_919_913;
            format!("{}{magnitude}.{:012}", if t % 2 == 0 { "-" } else { "" }, 123_456_789_123_i64 + t)
        })
        .collect();
    let answer = value("irr", json!({ "flows": wild }));
    assert!(answer["roots"].as_array().unwrap().len() % 2 == 1, "{answer}");
    let mut mignotte = vec!["0".to_owned(); 60];
    mignotte[0] = "1".to_owned();
    mignotte[57] = "-1999998".to_owned();
    mignotte[58] = "3999996".to_owned();
    mignotte[59] = "-1999998".to_owned();
    let answer = value("irr", json!({ "flows": mignotte }));
    assert!(answer["roots"].is_array());
}

fn money() -> impl Strategy<Value = String> {
    (-1_000_000_i64..1_000_000, 0_u32..100)
        .prop_map(|(whole, cents)| format!("{whole}.{cents:02}").replace("-0.", "-0."))
}

proptest! {
    #[test]
    fn at_every_root_the_present_value_vanishes(flows in proptest::collection::vec(money(), 2..12)) {
        let answer = value("irr", json!({ "flows": flows }));
        let scale: f64 = flows.iter().map(|f| f.parse::<f64>().unwrap().abs()).sum();
        for root in answer["roots"].as_array().unwrap() {
            let r = number(root);
            prop_assume!(r > -0.5);
            let npv: f64 = flows.iter().enumerate().map(|(t, f)| f.parse::<f64>().unwrap() / (1.0 + r).powi(t as i32)).sum();
            let steepness = (1.0 + r).powi(-(flows.len() as i32)).max(1.0) * flows.len() as f64;
            prop_assert!(npv.abs() <= 1e-9 * scale * steepness, "{npv} at {r}");
        }
    }

    #[test]
    fn the_number_of_roots_has_the_parity_of_the_ends(flows in proptest::collection::vec(-50_i64..50, 2..10)) {
        // Between r → -1 and r = 10 the sign changes once for each root of odd multiplicity.
        let texts: Vec<String> = flows.iter().map(i64::to_string).collect();
        let roots = value("irr", json!({ "flows": texts }))["roots"].as_array().unwrap().len();
        let changes = flows.iter().filter(|f| **f != 0).collect::<Vec<_>>().windows(2).filter(|w| w[0].signum() != w[1].signum()).count();
        prop_assert!(roots <= changes);
    }

    #[test]
    fn a_loan_is_paid_off_and_its_parts_add_up(pv in 1_i64..1_000_000, rate in 0_u32..2_000, periods in 1_usize..80) {
        let rate = format!("0.{rate:04}");
        let schedule = value("amortisation", json!({ "rate": rate, "periods": periods, "pv": pv.to_string() }));
        let rows = schedule["rows"].as_array().unwrap();
        prop_assert_eq!(rows.len(), periods);
        prop_assert_eq!(number(&rows[periods - 1]["balance"]), 0.0);
        let paid: f64 = rows.iter().map(|row| number(&row["principal"])).sum();
        prop_assert!((paid + pv as f64).abs() < 1e-6 * pv as f64 + 1e-6);
        let payment = number(&schedule["payment"]);
        for row in rows {
            prop_assert!((number(&row["principal"]) + number(&row["interest"]) - payment).abs() < 1e-6);
        }
        let pmt = value("pmt", json!({ "rate": rate, "periods": periods, "pv": pv.to_string() }));
        prop_assert_eq!(&pmt["value"], &schedule["payment"]);
    }

    #[test]
    fn payment_present_and_future_value_agree(pv in -1_000_000_i64..1_000_000, rate in -500_i32..2_000, periods in 1_usize..60, begin: bool) {
        let rate = if rate < 0 { format!("-0.{:04}", -rate) } else { format!("0.{rate:04}") };
        let when = if begin { "begin" } else { "end" };
        let pmt = value("pmt", json!({ "rate": rate, "periods": periods, "pv": pv.to_string(), "when": when }));
        let back = value("pv", json!({ "rate": rate, "periods": periods, "pmt": pmt["value"], "when": when }));
        prop_assert!((number(&back["value"]) - pv as f64).abs() < 1e-3, "{pmt} {back}");
    }
}
