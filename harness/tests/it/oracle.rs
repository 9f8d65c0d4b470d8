//! The system's forecasts against the independent oracle, on thousands of scenarios over the whole of the bounds:
//! not through the API, but through `forecastle compute`, which answers as a job would.
//!
//! `NOGO_ORACLE_SCENARIOS` says how many (10,000 where nothing is said) and `NOGO_ORACLE_SEED` which.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};
use std::time::Instant;

use nogo_harness::environment::system_binary::{build, workspace_root};
use nogo_harness::randomness::Randomness;
use nogo_invariants::model::{OracleError, compare, compare_failure, result_hash};
use serde_json::Value;

use crate::wide_inputs::{Size, draw};

#[derive(Default)]
struct Row {
    scenarios: u64,
    simulated: u64,
    failed: u64,
    undecided: u64,
    amounts: u64,
    wrong: u64,
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} must be a whole number")))
}

#[tokio::test]
async fn the_oracle_agrees_with_every_forecast_over_the_whole_of_the_bounds() {
    let (count, seed) = (setting("NOGO_ORACLE_SCENARIOS", 10_000), setting("NOGO_ORACLE_SEED", 20_261_122));
    let binary = build(&workspace_root(), None).await.expect("the system's binary");
    let mut compute = Command::new(binary)
        .args(["--log-level", "error", "compute"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("start forecastle compute");
    let started = Instant::now();

    let mut rng = Randomness::new(seed).stream("oracle");
    let inputs: Vec<(Size, Value)> = (0..count)
        .map(|_| {
            let size = Size::draw(&mut rng);
            (size, draw(&mut rng, size))
        })
        .collect();
    let mut stdin = compute.stdin.take().expect("a pipe");
    let lines: Vec<String> = inputs.iter().map(|(_, input)| input.to_string()).collect();
    // The system computes while the oracle checks; each has a core.
    let writer = std::thread::spawn(move || lines.iter().try_for_each(|line| writeln!(stdin, "{line}")));
    let answers = BufReader::new(compute.stdout.take().expect("a pipe")).lines();

    let mut rows: BTreeMap<Size, Row> = BTreeMap::new();
    let mut witnesses = Vec::new();
    let mut answered = 0;
    for ((size, input), answer) in inputs.iter().zip(answers) {
        answered += 1;
        let answer: Value = serde_json::from_str(&answer.expect("a whole line")).expect("JSON");
        let row = rows.entry(*size).or_default();
        row.scenarios += 1;
        row.simulated += u64::from(input.get("uncertainty").is_some());
        let found = match answer["error_code"].as_str() {
            Some(code) => {
                row.failed += 1;
                compare_failure(input, code)
            }
            None => compare(input, &answer["result"]),
        };
        match found {
            Ok(found) => {
                row.amounts += found.amounts_compared;
                let version = answer["result"]["engine_version"].as_str().unwrap_or_default();
                let is_hash_right = answer["error_code"].is_string()
                    || result_hash(version, input, &answer["result"])
                        .is_ok_and(|hash| answer["result_hash"] == hash.as_str());
                if found.mismatches_total > 0 || !is_hash_right {
                    row.wrong += 1;
                    witnesses.push(format!("{input}\n  hash right: {is_hash_right}; {:?}", found.mismatches.first()));
                }
            }
            Err(OracleError::Undecided(_)) => row.undecided += 1,
            Err(error) => panic!("the oracle cannot read a scenario of its own: {error:?}\n{input}"),
        }
    }
    writer.join().expect("the writer").expect("every scenario was taken");
    assert!(compute.wait().expect("forecastle compute").success());

    println!("seed {seed}, {:.0} s", started.elapsed().as_secs_f64());
    println!(
        "{:<8}{:>10}{:>11}{:>14}{:>11}{:>14}{:>7}",
        "size", "scenarios", "simulated", "out of range", "undecided", "amounts", "wrong"
    );
    for (size, row) in &rows {
        println!(
            "{:<8}{:>10}{:>11}{:>14}{:>11}{:>14}{:>7}",
            format!("{size:?}"),
            row.scenarios,
            row.simulated,
            row.failed,
            row.undecided,
            row.amounts,
            row.wrong
        );
    }
    assert_eq!(answered, count, "every scenario was answered");
    assert!(witnesses.is_empty(), "{} wrong; first: {}", witnesses.len(), witnesses[0]);
    let of = |pick: fn(&Row) -> u64| rows.values().map(pick).sum::<u64>();
    // A test that saw nothing says nothing.
    assert!(of(|row| row.amounts) > 100 * count, "amounts compared: {}", of(|row| row.amounts));
    assert!(of(|row| row.failed) * 2 < count, "too many leave the range to say much: {}", of(|row| row.failed));
    assert!(count < 1_000 || (of(|row| row.failed) > 0 && of(|row| row.simulated) > 0));
}
