//! One planted bug: patch, build, a short suite that stops at the kill, and what came of it.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum as _;
use serde::Serialize;
use serde_json::Value;
use tokio::process::Command;

use super::catalogue::{Catalogue, Mutant};
use super::scratch::Scratch;
use crate::environment::system_binary;
use crate::exit_code::ExitCode;
use crate::point_sweep::{Story, SweepResults};
use nogo_faults::catalogue;

/// Seconds of load under one mutant without faults: enough for every law to have a chance.
const LOAD_S_CALM: u64 = 25;
/// Seconds of load under one mutant with one fault window.
const LOAD_S_FAULT: u64 = 32;

/// What came of a planted bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Fate {
    /// The law named in the table was violated.
    Killed,
    /// Another law was violated, that one not: noticed, not diagnosed.
    KilledOtherwise,
    /// Every law held, and the table names the defence that hides it.
    Masked,
    /// Every law held.
    Survived,
    /// The run ended without an answer.
    Inconclusive,
    /// The patch no longer applies.
    DoesNotApply,
    /// The patched system does not build.
    DoesNotBuild,
}

impl Fate {
    /// As printed.
    pub fn words(self) -> &'static str {
        match self {
            Fate::Killed => "killed by the expected law",
            Fate::KilledOtherwise => "killed otherwise",
            Fate::Masked => "masked",
            Fate::Survived => "survived",
            Fate::Inconclusive => "inconclusive",
            Fate::DoesNotApply => "does not apply",
            Fate::DoesNotBuild => "does not build",
        }
    }
}

/// The record of one trial.
#[derive(Debug, Clone, Serialize)]
pub struct Trial {
    /// The mutant's id.
    pub id: String,
    /// What came of it.
    pub fate: Fate,
    /// Law expected.
    pub expected: String,
    /// Laws violated.
    pub violated: Vec<String>,
    /// Exit code of the suite, where it ran.
    pub exit_code: Option<u8>,
    /// Id of the run in the store, where it ran.
    pub run: Option<String>,
    /// Seconds for patch, build and suite.
    pub seconds: u64,
    /// What went wrong, where something did.
    pub detail: String,
}

impl Trial {
    /// Keeps the last words of a program whose run gave no answer.
    fn say_why(&mut self, output: &Output) {
        if self.fate == Fate::Inconclusive {
            let stderr = String::from_utf8_lossy(&output.stderr);
            self.detail = stderr.lines().rev().take(3).collect::<Vec<_>>().join(" | ");
        }
    }
}

/// How trials are run.
#[derive(Debug, Clone)]
pub struct Bench {
    /// Path of this program.
    pub nogo: PathBuf,
    /// Store that the runs go to.
    pub store: PathBuf,
    /// Name of the engine.
    pub engine: String,
    /// Seed of every run.
    pub seed: u64,
}

impl Bench {
    /// Plants one bug, builds, runs, uproots.
    ///
    /// # Errors
    /// When the scratch copy cannot be brought back; what the bug does is in the [`Trial`].
    pub async fn try_one(&self, scratch: &Scratch, catalogue: &Catalogue, mutant: &Mutant) -> Result<Trial> {
        let began = std::time::Instant::now();
        let mut trial = Trial {
            id: mutant.id.clone(),
            fate: Fate::DoesNotApply,
            expected: mutant.law.clone(),
            violated: Vec::new(),
            exit_code: None,
            run: None,
            seconds: 0,
            detail: String::new(),
        };
        let patch = catalogue.patch(mutant);
        match scratch.plant(&patch) {
            Err(error) => trial.detail = format!("{error:#}"),
            Ok(()) => {
                let built = self.build(scratch, &mutant.id).await;
                scratch.uproot(&patch).context("take the planted bug back out")?;
                match built {
                    Err(error) => {
                        trial.fate = Fate::DoesNotBuild;
                        trial.detail = format!("{error:#}");
                    }
                    Ok(binary) => self.run(&binary, mutant, &mut trial).await?,
                }
            }
        }
        trial.seconds = began.elapsed().as_secs();
        Ok(trial)
    }

    async fn build(&self, scratch: &Scratch, id: &str) -> Result<PathBuf> {
        let folder = scratch.workspace().join("target/mutants/build");
        let built = system_binary::build(scratch.tree(), Some(&folder)).await?;
        let kept = scratch.workspace().join("target/mutants/bin");
        std::fs::create_dir_all(&kept).context("make the folder for patched binaries")?;
        let kept = kept.join(id);
        std::fs::copy(&built, &kept).with_context(|| format!("keep the patched binary as {}", kept.display()))?;
        Ok(kept)
    }

    async fn run(&self, binary: &Path, mutant: &Mutant, trial: &mut Trial) -> Result<()> {
        if let Some(story) = mutant.story() {
            return self.sweep(binary, mutant, story, trial).await;
        }
        let faults = mutant.fault.as_str();
        if faults != "none" && faults.split(',').any(|name| catalogue::find(name).is_none()) {
            bail!("{}: the table asks for an unknown fault '{faults}'", mutant.id);
        }
        let load_s = if faults == "none" { LOAD_S_CALM } else { LOAD_S_FAULT };
        let output = Command::new(&self.nogo)
            .args(["--json", "--quiet", "--store"])
            .arg(&self.store)
            .args(["run", "smoke", "--fail-fast", "--engine", &self.engine, "--faults", faults])
            .args(["--seed", &self.seed.to_string(), "--load-s", &load_s.to_string(), "--system-bin"])
            .arg(binary)
            .stdin(Stdio::null())
            .output()
            .await
            .context("run the suite on the patched system")?;
        let code = output.status.code().and_then(|code| u8::try_from(code).ok());
        trial.exit_code = code;
        let results: Value = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
        trial.run = results["run_id"].as_str().map(str::to_owned);
        trial.violated = violated_laws(&results);
        trial.fate = match code.and_then(ExitCode::from_number) {
            Some(ExitCode::Violated) if trial.violated.contains(&mutant.law) => Fate::Killed,
            Some(ExitCode::Violated) => Fate::KilledOtherwise,
            Some(ExitCode::Held) => survivor(mutant),
            // A short suite misses floors made for the whole one; whoever violates nothing in it has survived.
            Some(ExitCode::Inconclusive) if only_floors_are_short(&results) => survivor(mutant),
            _ => Fate::Inconclusive,
        };
        trial.say_why(&output);
        Ok(())
    }

    /// Every point of one story, until a case breaks a law.
    async fn sweep(&self, binary: &Path, mutant: &Mutant, story: &str, trial: &mut Trial) -> Result<()> {
        if Story::from_str(story, false).is_err() {
            bail!("{}: the table asks for the sweep of an unknown story '{story}'", mutant.id);
        }
        let output = Command::new(&self.nogo)
            .args(["--json", "--quiet", "--store"])
            .arg(&self.store)
            .args(["sweep", story, "--fail-fast", "--engine", &self.engine, "--seed", &self.seed.to_string()])
            .arg("--system-bin")
            .arg(binary)
            .stdin(Stdio::null())
            .output()
            .await
            .context("sweep the patched system")?;
        trial.exit_code = output.status.code().and_then(|code| u8::try_from(code).ok());
        if let Ok(swept) = serde_json::from_slice::<SweepResults>(&output.stdout) {
            trial.run = Some(swept.run_id);
            trial.violated = swept.cases.into_iter().flat_map(|case| case.violated).collect();
            trial.violated.sort();
            trial.violated.dedup();
        }
        trial.fate = match trial.exit_code.and_then(ExitCode::from_number) {
            Some(ExitCode::Violated) if trial.violated.contains(&mutant.law) => Fate::Killed,
            Some(ExitCode::Violated) => Fate::KilledOtherwise,
            Some(ExitCode::Held) => survivor(mutant),
            _ => Fate::Inconclusive,
        };
        trial.say_why(&output);
        Ok(())
    }
}

fn survivor(mutant: &Mutant) -> Fate {
    if mutant.masked_by.is_some() { Fate::Masked } else { Fate::Survived }
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
}
