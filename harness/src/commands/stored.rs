//! `nogo gate` and `nogo show`: stored runs, offline.

use super::output;
use anyhow::{Context as _, Result};
use nogo_harness::cli::Cli;
use nogo_harness::exit_code::{EndsWith, ExitCode};
use nogo_harness::judgement::Record;
use nogo_harness::point_sweep::{SweepResults, judge_again};
use nogo_harness::run_directory::RunDirectory;
use nogo_invariants::report;
use nogo_invariants::results::Results;

/// Judges a stored run again and says whether the stored verdict has the same bytes. Writes nothing.
pub fn gate(cli: &Cli, run: &str) -> Result<ExitCode> {
    let directory = RunDirectory::find(&cli.store, run)?;
    if let Some(stored) = SweepResults::read(&directory)? {
        return gate_sweep(cli, &directory, &stored);
    }
    let results = Record::read(&directory)?.judge();
    let fresh = results.to_json().context("express the results")?;
    let stored = std::fs::read_to_string(directory.file("results.json"));
    if cli.json {
        output::write(&fresh);
    } else {
        output::write(&report::text(&results));
    }
    match stored {
        Ok(stored) if stored == fresh => eprintln!("same bytes as the stored results.json"),
        Ok(_) => eprintln!("DIFFERS from the stored results.json: the record, the results or nogo were changed since"),
        Err(error) => eprintln!("no stored results.json to compare with: {error}"),
    }
    Ok(ExitCode::from_number(results.exit_code).unwrap_or(ExitCode::HarnessBroke))
}

/// Judges each case of a sweep again.
fn gate_sweep(cli: &Cli, directory: &RunDirectory, stored: &SweepResults) -> Result<ExitCode> {
    let again = judge_again(directory, stored)?;
    print_sweep(cli, &again)?;
    if again == *stored {
        eprintln!("the same verdict for each of {} cases", again.cases.len());
    } else {
        eprintln!("DIFFERS from the stored sweep.json: a record, the results or nogo were changed since");
    }
    Ok(again.exit())
}

fn print_sweep(cli: &Cli, results: &SweepResults) -> Result<()> {
    if cli.json {
        output::line(serde_json::to_string_pretty(results).context("express the results")?);
    } else {
        output::write(&results.table());
    }
    Ok(())
}

/// Prints a stored run's verdict as it was written.
pub fn show(cli: &Cli, run: &str) -> Result<ExitCode> {
    let directory = RunDirectory::find(&cli.store, run)?;
    if let Some(stored) = SweepResults::read(&directory)? {
        print_sweep(cli, &stored)?;
        return Ok(ExitCode::Held);
    }
    let path = directory.file("results.json");
    let text = std::fs::read_to_string(&path).map_err(|error| {
        EndsWith::usage(format!("{}: {error}; `nogo gate {run}` judges the record again", path.display()))
    })?;
    let results: Results = serde_json::from_str(&text).with_context(|| format!("understand {}", path.display()))?;
    if cli.json {
        output::write(&text);
    } else {
        output::write(&report::text(&results));
        output::line(format!("report {}", directory.file("report.html").display()));
    }
    Ok(ExitCode::Held)
}
