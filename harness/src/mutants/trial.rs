//! One planted bug: patch, build, a short suite that stops at the kill, and what came of it.
//!
//! A bug that needs a fault has further runs. Under each of the other faults that its row names the same law must be
//! violated. Under each milder one no law may be, else the row's fault is not what reveals it.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum as _;
use serde::Serialize;
use tokio::process::Command;

use super::catalogue::{Catalogue, Mutant};
use super::scratch::Scratch;
use super::suite_run::{Shown, SuiteRun, last_words};
use crate::environment::system_binary;
use crate::exit_code::ExitCode;
use crate::point_sweep::{Story, SweepResults};

/// What came of a planted bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Fate {
    /// The law named in the table was violated.
    Killed,
    /// Another law was violated, that one not: noticed, not diagnosed.
    KilledOtherwise,
    /// The law named in the table was violated under the row's fault, and not under each of the others that it names.
    KilledInPart,
    /// The law named in the table was violated, and under a milder fault that it names one was violated too.
    RevealedAlready,
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
            Fate::KilledInPart => "killed, but not under each fault",
            Fate::RevealedAlready => "revealed already",
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
    /// The runs under the other faults that ought to reveal it.
    pub also: Vec<FurtherRun>,
    /// The runs under the milder faults.
    pub milder: Vec<FurtherRun>,
    /// Seconds for patch, build and suite.
    pub seconds: u64,
    /// What went wrong, where something did.
    pub detail: String,
}

/// The record of a further run of a bug that was killed.
#[derive(Debug, Clone, Serialize)]
pub struct FurtherRun {
    /// The fault, or `none`.
    pub fault: String,
    /// Its victim; drawn from the seed where none is named.
    pub target: Option<String>,
    /// Whether the law named in the table was violated: as it should be under another fault, and not under a milder one.
    pub is_killed: bool,
    /// Laws violated.
    pub violated: Vec<String>,
    /// Exit code of the suite.
    pub exit_code: Option<u8>,
    /// Id of the run in the store.
    pub run: Option<String>,
}

impl FurtherRun {
    fn of(suite: &SuiteRun, fault: &str, target: Option<&str>, is_killed: bool) -> Self {
        Self {
            fault: fault.to_owned(),
            target: target.map(str::to_owned),
            is_killed,
            violated: suite.violated(),
            exit_code: suite.exit_code,
            run: suite.run_id(),
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
    /// Whether a bug that was killed is tried under the other faults of its row too.
    pub tries_also: bool,
    /// Whether a bug that was killed is tried under its milder faults too.
    pub tries_milder: bool,
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
            also: Vec::new(),
            milder: Vec::new(),
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
        let target = mutant.target.as_deref();
        let suite = SuiteRun::of(self, binary, &mutant.fault, target).await.context(mutant.id.clone())?;
        trial.exit_code = suite.exit_code;
        trial.run = suite.run_id();
        trial.violated = suite.violated();
        trial.fate = fate(mutant, suite.shown(), &trial.violated);
        if trial.fate == Fate::Inconclusive {
            trial.detail = suite.last_words;
        }
        if trial.fate == Fate::Killed && self.tries_also {
            self.run_also(binary, mutant, trial).await?;
        }
        if trial.fate == Fate::Killed && self.tries_milder {
            self.run_milder(binary, mutant, trial).await?;
        }
        Ok(())
    }

    /// The same load under each of the other faults, all of them whatever comes of one.
    async fn run_also(&self, binary: &Path, mutant: &Mutant, trial: &mut Trial) -> Result<()> {
        for (fault, target) in mutant.also_at() {
            let suite = SuiteRun::of(self, binary, fault, target).await.context(mutant.id.clone())?;
            let fate_there = fate(mutant, suite.shown(), &suite.violated());
            if fate_there == Fate::Inconclusive {
                trial.detail = format!("under {fault}: {}", suite.last_words);
            }
            trial.fate = fate_after_another(trial.fate, fate_there);
            trial.also.push(FurtherRun::of(&suite, fault, target, fate_there == Fate::Killed));
        }
        Ok(())
    }

    /// The same load under each of the milder faults, all of them whatever comes of one: what is revealed there did not
    /// need the row's fault.
    async fn run_milder(&self, binary: &Path, mutant: &Mutant, trial: &mut Trial) -> Result<()> {
        for (fault, target) in mutant.milder_at() {
            let suite = SuiteRun::of(self, binary, fault, target).await.context(mutant.id.clone())?;
            if suite.shown() == Shown::NoAnswer {
                trial.detail = format!("under {fault}: {}", suite.last_words);
            }
            trial.fate = fate_after_milder(trial.fate, suite.shown());
            let is_killed = fate(mutant, suite.shown(), &suite.violated()) == Fate::Killed;
            trial.milder.push(FurtherRun::of(&suite, fault, target, is_killed));
        }
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
        let shown = match trial.exit_code.and_then(ExitCode::from_number) {
            Some(ExitCode::Violated) => Shown::Violation,
            Some(ExitCode::Held) => Shown::Nothing,
            _ => Shown::NoAnswer,
        };
        trial.fate = fate(mutant, shown, &trial.violated);
        if trial.fate == Fate::Inconclusive {
            trial.detail = last_words(&output.stderr);
        }
        Ok(())
    }
}

fn survivor(mutant: &Mutant) -> Fate {
    if mutant.masked_by.is_some() { Fate::Masked } else { Fate::Survived }
}

/// What came of a bug, by what its run showed and by the laws violated in it.
fn fate(mutant: &Mutant, shown: Shown, violated: &[String]) -> Fate {
    match shown {
        Shown::Violation if violated.contains(&mutant.law) => Fate::Killed,
        Shown::Violation => Fate::KilledOtherwise,
        Shown::Nothing => survivor(mutant),
        Shown::NoAnswer => Fate::Inconclusive,
    }
}

/// The same for a bug after a run under another fault that ought to reveal it: one that shows it not outweighs one that
/// gave no answer.
const fn fate_after_another(so_far: Fate, there: Fate) -> Fate {
    match (so_far, there) {
        (_, Fate::Killed) => so_far,
        (Fate::Killed, Fate::Inconclusive) => Fate::Inconclusive,
        (_, Fate::Inconclusive) => so_far,
        _ => Fate::KilledInPart,
    }
}

/// The same for a bug that was killed, after a run under a milder fault: one that reveals it outweighs one that gave no
/// answer.
const fn fate_after_milder(so_far: Fate, shown: Shown) -> Fate {
    match (so_far, shown) {
        (_, Shown::Violation) => Fate::RevealedAlready,
        (Fate::Killed, Shown::NoAnswer) => Fate::Inconclusive,
        (_, Shown::Nothing | Shown::NoAnswer) => so_far,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mutant(masked_by: Option<&str>) -> Mutant {
        Mutant {
            id: "a".to_owned(),
            source: "s".to_owned(),
            what: "w".to_owned(),
            law: "auth.fails_closed".to_owned(),
            fault: "redis-flush".to_owned(),
            target: None,
            also: Vec::new(),
            milder: vec!["redis-slow".to_owned()],
            masked_by: masked_by.map(str::to_owned),
        }
    }

    #[test]
    fn a_kill_names_the_law_of_the_table_and_anything_else_is_not_diagnosed() {
        let law = |name: &str| [name.to_owned()];
        let of = |shown, violated: &[String]| fate(&mutant(None), shown, violated);
        assert_eq!(of(Shown::Violation, &law("auth.fails_closed")), Fate::Killed);
        assert_eq!(of(Shown::Violation, &law("slo.errors")), Fate::KilledOtherwise);
        assert_eq!(of(Shown::Nothing, &[]), Fate::Survived);
        assert_eq!(of(Shown::NoAnswer, &[]), Fate::Inconclusive);
        assert_eq!(fate(&mutant(Some("a defence")), Shown::Nothing, &[]), Fate::Masked);
    }

    #[test]
    fn a_bug_that_one_of_its_faults_does_not_reveal_is_killed_in_part() {
        let after =
            |there: &[Fate]| there.iter().fold(Fate::Killed, |so_far, there| fate_after_another(so_far, *there));
        assert_eq!(after(&[]), Fate::Killed);
        assert_eq!(after(&[Fate::Killed, Fate::Killed]), Fate::Killed);
        for unseen in [Fate::Survived, Fate::KilledOtherwise, Fate::Masked] {
            assert_eq!(after(&[Fate::Killed, unseen, Fate::Killed]), Fate::KilledInPart);
            assert_eq!(after(&[Fate::Inconclusive, unseen]), Fate::KilledInPart);
            assert_eq!(after(&[unseen, Fate::Inconclusive]), Fate::KilledInPart);
        }
        assert_eq!(after(&[Fate::Inconclusive, Fate::Killed]), Fate::Inconclusive);
    }

    #[test]
    fn a_bug_that_a_milder_fault_reveals_is_not_killed_by_its_own() {
        let after =
            |shown: &[Shown]| shown.iter().fold(Fate::Killed, |so_far, shown| fate_after_milder(so_far, *shown));
        assert_eq!(after(&[]), Fate::Killed);
        assert_eq!(after(&[Shown::Nothing, Shown::Nothing]), Fate::Killed);
        assert_eq!(after(&[Shown::Nothing, Shown::Violation, Shown::NoAnswer]), Fate::RevealedAlready);
        assert_eq!(after(&[Shown::NoAnswer, Shown::Violation]), Fate::RevealedAlready);
        assert_eq!(after(&[Shown::NoAnswer, Shown::Nothing]), Fate::Inconclusive);
    }
}
