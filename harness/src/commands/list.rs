//! `nogo list`: what there is, from the code itself.

use super::output;
use anyhow::Result;
use nogo_faults::catalogue::Takes;
use nogo_faults::{FaultRow, catalogue};
use nogo_harness::cli::{Cli, Listing};
use nogo_harness::engine_demands::NOT_TOGETHER;
use nogo_harness::environment::engine::EngineKind;
use nogo_harness::exit_code::ExitCode;
use nogo_harness::experiment::{SUITES, Suite};
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
                output::line(format!(
                    "  {:<14} {}",
                    name.replace('_', " "),
                    if text.is_empty() { "none" } else { text.as_str() }
                ))
            }
        }
    }
    Ok(ExitCode::Held)
}

fn suites() -> Vec<Value> {
    SUITES.iter().map(suite).collect()
}

/// A suite, with what each engine can do: of its own faults, and of all that `--faults` may ask for.
fn suite(suite: &Suite) -> Value {
    let mut row = json!({"suite": suite.name, "what": suite.what, "load_s": suite.load_ms / 1_000});
    for engine in EngineKind::ALL {
        let name = engine.to_string();
        let can = |row: &&FaultRow| row.engines.contains(&name.as_str());
        let own: Vec<&str> =
            suite.faults.iter().filter_map(|fault| catalogue::find(fault)).filter(can).map(|row| row.name).collect();
        let others: Vec<&str> =
            catalogue::all().filter(can).map(|row| row.name).filter(|fault| !own.contains(fault)).collect();
        let never: Vec<String> = NOT_TOGETHER
            .iter()
            .filter(|never| never.engine == engine)
            .map(|never| format!("{} ({})", never.faults.join(" with "), never.why))
            .collect();
        row[format!("faults_on_{name}")] = json!(own);
        row[format!("by_name_on_{name}")] = json!(others);
        row[format!("not_in_one_run_on_{name}")] = json!(never);
    }
    row["laws"] = json!(laws::SMOKE);
    row
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_suite_lists_its_faults_for_each_engine_and_what_cannot_be_in_one_run() {
        for row in suites() {
            let named = |key: &str| row[key].as_array().unwrap_or_else(|| panic!("no {key}")).clone();
            for engine in EngineKind::ALL {
                let mut listed = named(&format!("faults_on_{engine}"));
                listed.extend(named(&format!("by_name_on_{engine}")));
                let can = catalogue::all().filter(|fault| fault.engines.contains(&engine.to_string().as_str())).count();
                assert_eq!(listed.len(), can, "each fault that {engine} can do, once");
            }
            assert_eq!(named("faults_on_process").len(), SUITES[0].faults.len());
            let never = named("not_in_one_run_on_docker");
            let starts =
                |text: &Value| text.as_str().is_some_and(|text| text.starts_with("disk-full with postgres-crash ("));
            assert!(never.len() == 1 && starts(&never[0]), "{never:?}");
            assert!(named("not_in_one_run_on_process").is_empty());
        }
    }
}
