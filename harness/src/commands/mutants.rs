//! `nogo mutants`: plants each bug, runs a short suite, and prints which law noticed.

use super::output;
use anyhow::{Context as _, Result};
use nogo_harness::cli::{Cli, MutantsArgs};
use nogo_harness::environment::system_binary::workspace_root;
use nogo_harness::exit_code::ExitCode;
use nogo_harness::mutants::catalogue::Catalogue;
use nogo_harness::mutants::scratch::Scratch;
use nogo_harness::mutants::trial::{Bench, Fate, Trial};

/// Tries the mutants, or with `--check` only whether their patches apply.
///
/// Exit 0: each was killed by the expected law under each fault of its row, and not under a milder one, or masked as its row
/// says. 1: one survived, was killed otherwise or not under each, or was revealed by a milder fault already. 2: a patch does not apply or does not build. 3: a run gave no answer.
pub async fn mutants(cli: &Cli, args: &MutantsArgs) -> Result<ExitCode> {
    let workspace = workspace_root();
    let dir = if args.dir.is_absolute() || args.dir.is_dir() { args.dir.clone() } else { workspace.join(&args.dir) };
    let catalogue = Catalogue::read(&dir, &args.ids)?;
    let scratch = Scratch::sync(&workspace)?;
    if args.check {
        return Ok(check(&scratch, &catalogue));
    }
    let bench = Bench {
        nogo: std::env::current_exe().context("find this program")?,
        store: cli.store.clone(),
        engine: clap::ValueEnum::to_possible_value(&args.engine)
            .map_or_else(String::new, |value| value.get_name().to_owned()),
        seed: args.seed,
        tries_also: !args.skip_also,
        tries_milder: !args.skip_milder,
    };
    let mut trials = Vec::new();
    for (index, mutant) in catalogue.mutants.iter().enumerate() {
        if !cli.quiet {
            eprintln!("{}/{} {}: {}", index + 1, catalogue.mutants.len(), mutant.id, mutant.what);
        }
        let trial = bench.try_one(&scratch, &catalogue, mutant).await?;
        if !cli.json {
            output::line(line(&trial));
        }
        trials.push(trial);
    }
    if cli.json {
        output::line(serde_json::to_string_pretty(&trials)?);
    } else {
        summary(&trials);
    }
    Ok(ending(&trials))
}

fn check(scratch: &Scratch, catalogue: &Catalogue) -> ExitCode {
    let mut broken = 0;
    for mutant in &catalogue.mutants {
        if let Err(error) = scratch.check(&catalogue.patch(mutant)) {
            broken += 1;
            output::line(format!("{}: does not apply: {error:#}", mutant.id));
        }
    }
    output::line(format!("{} of {} patches apply", catalogue.mutants.len() - broken, catalogue.mutants.len()));
    if broken == 0 { ExitCode::Held } else { ExitCode::Usage }
}

fn line(trial: &Trial) -> String {
    let violated = if trial.violated.is_empty() { "none".to_owned() } else { trial.violated.join(", ") };
    let code = trial.exit_code.map_or("-".to_owned(), |code| code.to_string());
    let revealing = trial.milder.iter().filter(|further| !further.violated.is_empty());
    let revealing: Vec<&str> = revealing.map(|further| further.fault.as_str()).collect();
    let words = match trial.fate {
        Fate::RevealedAlready => format!("revealed already by {}", revealing.join(", ")),
        fate => fate.words().to_owned(),
    };
    let mut line = format!(
        "{:<36} {words:<36} expected {:<24} violated {violated}; exit {code}, {} s",
        trial.id, trial.expected, trial.seconds
    );
    for further in trial.also.iter().chain(&trial.milder) {
        let violated = if further.violated.is_empty() { "nothing".to_owned() } else { further.violated.join(", ") };
        let target = further.target.as_ref().map(|target| format!(" at {target}")).unwrap_or_default();
        line.push_str(&format!("\n    under {}{target} violated {violated}", further.fault));
    }
    if !trial.detail.is_empty() {
        line.push_str("\n    ");
        line.push_str(&trial.detail);
    }
    line
}

fn summary(trials: &[Trial]) {
    let count = |fate: Fate| trials.iter().filter(|trial| trial.fate == fate).count();
    let mut seconds: Vec<u64> = trials.iter().map(|trial| trial.seconds).collect();
    seconds.sort_unstable();
    output::line(format!(
        "{} of {} killed by the expected law, {} killed otherwise, {} not under each of their faults, {} revealed already by a milder fault, {} masked, {} survived, {} inconclusive, {} not built or applied; median {} s",
        count(Fate::Killed),
        trials.len(),
        count(Fate::KilledOtherwise),
        count(Fate::KilledInPart),
        count(Fate::RevealedAlready),
        count(Fate::Masked),
        count(Fate::Survived),
        count(Fate::Inconclusive),
        count(Fate::DoesNotApply) + count(Fate::DoesNotBuild),
        seconds.get(seconds.len() / 2).copied().unwrap_or(0)
    ));
}

fn ending(trials: &[Trial]) -> ExitCode {
    let any = |fates: &[Fate]| trials.iter().any(|trial| fates.contains(&trial.fate));
    if any(&[Fate::DoesNotApply, Fate::DoesNotBuild]) {
        ExitCode::Usage
    } else if any(&[Fate::Survived, Fate::KilledOtherwise, Fate::KilledInPart, Fate::RevealedAlready]) {
        ExitCode::Violated
    } else if any(&[Fate::Inconclusive]) {
        ExitCode::Inconclusive
    } else {
        ExitCode::Held
    }
}
