//! `nogo run` and `nogo replay`.

use super::output;
use anyhow::{Context as _, Result};
use nogo_harness::cli::{Cli, ReplayArgs, RunArgs, SettingArgs};
use nogo_harness::exit_code::{EndsWith, ExitCode};
use nogo_harness::experiment::Experiment;
use nogo_harness::nemesis::window_ms_max;
use nogo_harness::run::{Order, execute};
use nogo_harness::run_directory::RunDirectory;
use nogo_invariants::report;

/// Runs a suite.
pub async fn run(cli: &Cli, args: &RunArgs) -> Result<ExitCode> {
    let seed = args.seed.unwrap_or_else(rand::random);
    let experiment = Experiment::plan(args, seed)?;
    carry_out(cli, experiment, &args.setting).await
}

/// Runs the realised schedule of a stored run, with its seed and its load.
pub async fn replay(cli: &Cli, args: &ReplayArgs) -> Result<ExitCode> {
    let directory = RunDirectory::find(&cli.store, &args.run)?;
    let read = |name: &str| {
        let path = directory.file(name);
        std::fs::read_to_string(&path).map_err(|error| EndsWith::usage(format!("{}: {error}", path.display())))
    };
    let unusable =
        |name: &str, error: toml::de::Error| EndsWith::usage(format!("{}/{name}: {error}", directory.root().display()));
    let mut experiment: Experiment =
        toml::from_str(&read("experiment.toml")?).map_err(|error| unusable("experiment.toml", error))?;
    experiment.schedule = toml::from_str(&read("schedule.toml")?).map_err(|error| unusable("schedule.toml", error))?;
    experiment.schedule.validate().map_err(|error| EndsWith::usage(format!("schedule.toml: {error}")))?;
    let longest_ms = window_ms_max(&experiment.limits);
    if let Some(step) = experiment.schedule.steps.iter().find(|step| step.duration_ms > longest_ms) {
        let wrong = format!("schedule.toml: {} lasts {} ms, at most {longest_ms}", step.fault, step.duration_ms);
        return Err(EndsWith::usage(wrong).into());
    }
    if !cli.quiet {
        eprintln!("replays the schedule of {}, not its interleaving", directory.id());
    }
    carry_out(cli, experiment, &args.setting).await
}

async fn carry_out(cli: &Cli, experiment: Experiment, setting: &SettingArgs) -> Result<ExitCode> {
    if !cli.quiet {
        eprintln!("seed {} (0x{:x})", experiment.seed, experiment.seed);
    }
    let order = Order { store: &cli.store, experiment, setting, quiet: cli.quiet };
    let executed = execute(order).await.context("run")?;
    if cli.json {
        output::write(&executed.results.to_json().context("express the results")?);
    } else {
        output::write(&report::text(&executed.results));
        output::line(format!("report {}", executed.directory.file("report.html").display()));
    }
    if let Some(why) = &executed.broke_off {
        eprintln!("the run broke off: {why}");
    }
    if !cli.quiet {
        eprintln!(
            "exit {} ({}); next: nogo show {}",
            executed.exit.number(),
            executed.exit.name(),
            executed.directory.id()
        );
    }
    Ok(executed.exit)
}
