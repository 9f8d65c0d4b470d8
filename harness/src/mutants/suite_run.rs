//! One run of the smoke suite on a patched system, short and ended at the first violation, and what can be read of it.

use std::path::Path;
use std::process::Stdio;

use anyhow::{Context as _, Result, bail};
use nogo_faults::catalogue;
use serde_json::Value;
use tokio::process::Command;

use super::trial::Bench;
use crate::exit_code::ExitCode;

/// Seconds of load without faults: enough for every law to have a chance.
const LOAD_S_CALM: u64 = 25;
/// Seconds of load with one fault window.
const LOAD_S_FAULT: u64 = 32;
/// Where that window lies if its victim is named: start and length, milliseconds.
const WINDOW_MS: (u64, u64) = (10_000, 7_000);
/// Lines of a program's last words that are kept.
const LAST_WORDS: usize = 3;

/// What a run on a patched system came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shown {
    /// A law was violated.
    Violation,
    /// No law was; floors made for the whole suite may be short.
    Nothing,
    /// The run ended without an answer.
    NoAnswer,
}

/// A run that has ended.
#[derive(Debug)]
pub(super) struct SuiteRun {
    /// Exit code, where the program ended by itself.
    pub(super) exit_code: Option<u8>,
    /// The end of what it said on stderr.
    pub(super) last_words: String,
    results: Value,
}

impl SuiteRun {
    /// Runs the suite on `binary` under `faults` (names with commas between, or `none`), at `target` if one is named.
    ///
    /// # Errors
    /// For a fault that does not exist, or when the program cannot be started.
    pub(super) async fn of(bench: &Bench, binary: &Path, faults: &str, target: Option<&str>) -> Result<Self> {
        if faults != "none" && faults.split(',').any(|name| catalogue::find(name).is_none()) {
            bail!("the table asks for an unknown fault '{faults}'");
        }
        let mut command = Command::new(&bench.nogo);
        command.args(["--json", "--quiet", "--store"]).arg(&bench.store);
        command.args(["run", "smoke", "--fail-fast", "--engine", &bench.engine, "--seed", &bench.seed.to_string()]);
        command.arg("--system-bin").arg(binary);
        match target {
            Some(target) => {
                let path = binary.with_extension("toml");
                std::fs::write(&path, schedule(faults, target)).with_context(|| format!("write {}", path.display()))?;
                command.arg("--schedule").arg(path);
            }
            None => {
                let load_s = if faults == "none" { LOAD_S_CALM } else { LOAD_S_FAULT };
                command.args(["--faults", faults, "--load-s", &load_s.to_string()]);
            }
        }
        let output = command.stdin(Stdio::null()).output().await.context("run the suite on the patched system")?;
        Ok(Self {
            exit_code: output.status.code().and_then(|code| u8::try_from(code).ok()),
            last_words: last_words(&output.stderr),
            results: serde_json::from_slice(&output.stdout).unwrap_or(Value::Null),
        })
    }

    /// Id of the run in the store, where there is one.
    pub(super) fn run_id(&self) -> Option<String> {
        self.results["run_id"].as_str().map(str::to_owned)
    }

    /// Ids of the laws that were violated.
    pub(super) fn violated(&self) -> Vec<String> {
        violated_laws(&self.results)
    }

    pub(super) fn shown(&self) -> Shown {
        match self.exit_code.and_then(ExitCode::from_number) {
            Some(ExitCode::Violated) => Shown::Violation,
            Some(ExitCode::Held) => Shown::Nothing,
            // A short suite misses floors made for the whole one; whoever violates nothing in it has survived.
            Some(ExitCode::Inconclusive) if only_floors_are_short(&self.results) => Shown::Nothing,
            _ => Shown::NoAnswer,
        }
    }
}

/// The end of what a program said.
pub(super) fn last_words(stderr: &[u8]) -> String {
    String::from_utf8_lossy(stderr).lines().rev().take(LAST_WORDS).collect::<Vec<_>>().join(" | ")
}

/// A schedule of one window of `fault` at `target`.
fn schedule(fault: &str, target: &str) -> String {
    let load_ms = LOAD_S_FAULT * 1_000;
    let (at_ms, duration_ms) = WINDOW_MS;
    format!(
        "load_ms = {load_ms}\n\n[[fault]]\nname = \"{fault}\"\ntarget = \"{target}\"\nat_ms = {at_ms}\nduration_ms = {duration_ms}\n"
    )
}

/// Whether nothing but floors keeps the laws from holding: each reason of each unknown law is a floor not reached.
fn only_floors_are_short(results: &Value) -> bool {
    let laws = results["laws"].as_array().map(Vec::as_slice).unwrap_or_default();
    let length = |value: &Value| value.as_array().map_or(0, Vec::len);
    let short = |law: &Value| {
        let floors = law["floors"].as_array().map(Vec::as_slice).unwrap_or_default();
        floors.iter().filter(|floor| floor["seen"].as_u64() < floor["floor"].as_u64()).count()
    };
    !laws.is_empty()
        && laws.iter().filter(|law| law["answer"] == "unknown").all(|law| length(&law["reasons"]) == short(law))
}

/// Ids of the laws that `results.json` calls violated.
fn violated_laws(results: &Value) -> Vec<String> {
    let laws = results["laws"].as_array().map(Vec::as_slice).unwrap_or_default();
    laws.iter()
        .filter(|law| law["answer"] == "violated")
        .filter_map(|law| law["law"].as_str().map(str::to_owned))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_violated_laws_are_named() {
        let results = serde_json::json!({"laws": [
            {"law": "a", "answer": "valid"}, {"law": "b", "answer": "violated"}, {"law": "c", "answer": "unknown"}
        ]});
        assert_eq!(violated_laws(&results), ["b"]);
        assert!(violated_laws(&Value::Null).is_empty());
    }

    #[test]
    fn a_missed_floor_is_told_from_any_other_reason_not_to_know() {
        let law = |reasons: &[&str], seen: u64| {
            serde_json::json!({"laws": [
                {"law": "a", "answer": "unknown", "reasons": reasons, "floors": [{"seen": seen, "floor": 10}]}
            ]})
        };
        assert!(only_floors_are_short(&law(&["9 seen, at least 10 needed"], 9)));
        assert!(!only_floors_are_short(&law(&["the fault did not land"], 10)));
        assert!(!only_floors_are_short(&law(&["9 seen, at least 10 needed", "the checker panicked"], 9)));
        assert!(!only_floors_are_short(&Value::Null), "a run without results says nothing");
    }

    #[test]
    fn a_run_shows_a_violation_or_nothing_or_gives_no_answer() {
        let shown =
            |exit_code: Option<u8>, results: Value| SuiteRun { exit_code, last_words: String::new(), results }.shown();
        let short = serde_json::json!({"laws": [
            {"law": "a", "answer": "unknown", "reasons": ["9 seen"], "floors": [{"seen": 9, "floor": 10}]}
        ]});
        assert_eq!(shown(Some(1), Value::Null), Shown::Violation);
        assert_eq!(shown(Some(0), Value::Null), Shown::Nothing);
        assert_eq!(shown(Some(3), short), Shown::Nothing);
        assert_eq!(shown(Some(3), Value::Null), Shown::NoAnswer);
        assert_eq!(shown(None, Value::Null), Shown::NoAnswer);
    }

    #[test]
    fn a_named_victim_has_a_window_that_a_schedule_file_takes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.toml");
        std::fs::write(&path, schedule("partition", "api-1-redis")).unwrap();
        let read = crate::schedule_file::read(&path, [0; 32]).unwrap();
        assert_eq!((read.steps.len(), read.steps[0].target.as_str()), (1, "api-1-redis"));
        assert!(read.steps[0].end_ms() + 5_000 <= read.load_ms, "time to see what came of it");
    }
}
