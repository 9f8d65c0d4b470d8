//! `nogo list`: what there is, from the code itself.

use super::output;
use anyhow::Result;
use nogo_faults::catalogue::Takes;
use nogo_faults::{FaultRow, catalogue};
use nogo_harness::cli::{Cli, Listing};
use nogo_harness::exit_code::ExitCode;
use nogo_harness::experiment::SUITES;
use nogo_harness::point_sweep::SWEEP_FILE;
use nogo_harness::run_directory::{RunDirectory, stored_runs};
use nogo_harness::schedule_file;
use nogo_invariants::floors;
use nogo_invariants::laws;
use serde_json::{Value, json};

/// Prints a listing.
pub fn list(cli: &Cli, what: Listing) -> Result<ExitCode> {
    let rows = match what {
        Listing::ScheduleSchema => {
            output::line(serde_json::to_string_pretty(&schedule_file::schema())?);
            return Ok(ExitCode::Held);
        }
        Listing::Suites => suites(),
        Listing::Faults => faults(),
        Listing::Invariants => invariants(),
        Listing::Runs => runs(cli),
    };
    if cli.json {
        output::line(serde_json::to_string_pretty(&rows)?);
        return Ok(ExitCode::Held);
    }
    if rows.is_empty() {
        eprintln!("none; `nogo run smoke` makes one");
    }
    for row in &rows {
        let Value::Object(fields) = row else { continue };
        for (index, (name, value)) in fields.iter().enumerate() {
            let text = match value {
                Value::String(text) => text.clone(),
                Value::Array(items) => items
                    .iter()
                    .map(|item| item.as_str().map_or(item.to_string(), str::to_owned))
                    .collect::<Vec<_>>()
                    .join(", "),
                other => other.to_string(),
            };
            if index == 0 {
                output::line(&text)
            } else {
                output::line(format!("  {:<14} {text}", name.replace('_', " ")))
            }
        }
    }
    Ok(ExitCode::Held)
}

fn suites() -> Vec<Value> {
    SUITES
        .iter()
        .map(|suite| json!({"suite": suite.name, "what": suite.what, "load_s": suite.load_ms / 1_000, "faults": suite.faults, "laws": laws::SMOKE}))
        .collect()
}

fn faults() -> Vec<Value> {
    catalogue::all()
        .map(|row| {
            json!({
                "fault": row.name, "what": row.what, "targets": row.targets, "control_proof": row.control_proof,
                "effect_proof": row.effect_proof, "engines": row.engines, "parameters": parameters(row),
                "tolerance": format!(
                    "goodput at least {:.0} % of offered, no outage over {} ms, recovered within {} ms",
                    row.tolerance.goodput_ratio_min * 100.0, row.tolerance.outage_ms_max, row.tolerance.recover_ms_max
                ),
            })
        })
        .collect()
}

/// What a schedule may say below `params`.
fn parameters(row: &FaultRow) -> Vec<String> {
    let said = row.parameters().iter().map(|parameter| {
        let takes = match parameter.takes {
            Takes::Whole { min, max, default } => format!("{min} to {max}, {default} if left out"),
            Takes::Text => "a text".to_owned(),
            Takes::Word(words) => words.join("|"),
            Takes::Flag => "true or false".to_owned(),
        };
        format!("{} ({}: {takes})", parameter.name, parameter.what)
    });
    said.collect()
}

fn invariants() -> Vec<Value> {
    laws::all()
        .iter()
        .map(|law| {
            let floors: Vec<String> = floors::SMOKE
                .iter()
                .filter(|floor| floor.law == law.law())
                .map(|floor| format!("{} {} ({:?})", floor.min, floor.count, floor.cell))
                .collect();
            json!({"law": law.law(), "what": law.what(), "floors": floors})
        })
        .collect()
}

fn runs(cli: &Cli) -> Vec<Value> {
    stored_runs(&cli.store)
        .into_iter()
        .map(|id| {
            let directory = RunDirectory::find(&cli.store, &id);
            let manifest = directory.as_ref().ok().and_then(|directory| directory.manifest().ok());
            let verdict = directory
                .ok()
                .and_then(|directory| {
                    let read = |name: &str| std::fs::read(directory.file(name)).ok();
                    read("results.json").or_else(|| read(SWEEP_FILE))
                })
                .and_then(|text| serde_json::from_slice::<Value>(&text).ok())
                .map_or(Value::from("not judged"), |results| results["verdict"].clone());
            match manifest {
                Some(manifest) => json!({
                    "run": id, "verdict": verdict, "suite": manifest.suite, "engine": manifest.engine,
                    "seed": manifest.seed.to_string(), "faults": manifest.faults_requested, "complete": manifest.complete,
                }),
                None => json!({"run": id, "verdict": "manifest not readable"}),
            }
        })
        .collect()
}
