//! Inputs of the calculators, drawn well within their bounds, so that each has an answer.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

use crate::randomness::{chance, pick};

/// Name of a calculator, as its route has it, and a body for it.
pub(super) fn draw_calculation(rng: &mut ChaCha8Rng) -> (&'static str, Value) {
    let name = *pick(rng, &["npv", "pmt", "pv", "fv", "nper", "mirr", "irr", "percentile", "amortisation"]);
    let input = match name {
        "npv" => json!({"rate": rate(rng), "flows": flows(rng, 1, 24)}),
        "pmt" => annuity(rng, &["pv", "fv"], true),
        "pv" => annuity(rng, &["pmt", "fv"], true),
        "fv" => annuity(rng, &["pmt", "pv"], true),
        "nper" => annuity(rng, &["pmt", "pv", "fv"], false),
        "mirr" => json!({"flows": flows(rng, 2, 12), "finance_rate": rate(rng), "reinvestment_rate": rate(rng)}),
        "irr" => json!({"flows": flows(rng, 2, 8)}),
        "percentile" => {
            let p = format!("0.{:03}", rng.random_range(0..1_000));
            json!({"values": flows(rng, 1, 60), "p": p})
        }
        _ => json!({"rate": rate(rng), "periods_per_year": 12, "periods": rng.random_range(1..=24), "pv": money(rng)}),
    };
    (name, input)
}

fn annuity(rng: &mut ChaCha8Rng, amounts: &[&str], has_periods: bool) -> Value {
    let mut terms = json!({"rate": rate(rng)});
    if has_periods {
        terms["periods"] = rng.random_range(1..=60).into();
    }
    if chance(rng, 0.5) {
        terms["periods_per_year"] = (*pick(rng, &[1, 4, 12, 52])).into();
    }
    if chance(rng, 0.5) {
        terms["when"] = (*pick(rng, &["end", "begin"])).into();
    }
    for amount in amounts {
        terms[*amount] = money(rng).into();
    }
    terms
}

/// Up to 30 per cent, seldom negative or 0.
fn rate(rng: &mut ChaCha8Rng) -> String {
    match rng.random_range(0..20) {
        0 => "0".to_owned(),
        1 => format!("-0.0{:02}", rng.random_range(1..100)),
        _ => format!("0.{:04}", rng.random_range(1..3_000)),
    }
}

fn money(rng: &mut ChaCha8Rng) -> String {
    let whole = rng.random_range(1..200_000);
    let sign = if chance(rng, 0.5) { "-" } else { "" };
    format!("{sign}{whole}.{:02}", rng.random_range(0..100))
}

fn flows(rng: &mut ChaCha8Rng, least: usize, most: usize) -> Vec<String> {
    let count = rng.random_range(least..=most);
    (0..count).map(|_| money(rng)).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::randomness::Randomness;

    #[test]
    fn every_calculator_is_drawn_and_the_oracle_can_read_what_it_is_given() {
        let mut rng = Randomness::new(9).stream("calculations");
        let mut names = BTreeSet::new();
        for _ in 0..500 {
            let (name, input) = draw_calculation(&mut rng);
            names.insert(name);
            let nothing = json!({"value": "nothing", "roots": ["nothing"], "rows": []});
            let finding = nogo_invariants::model::check_calculator(name, &input, &nothing).expect("an opinion");
            assert!(finding.mismatch.is_some(), "{name} {input}: a wrong answer was taken");
        }
        assert_eq!(names.len(), 9);
    }
}
