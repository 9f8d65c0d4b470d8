//! `nogo gate` and `nogo show`: stored runs, offline.

use super::output;
use anyhow::{Context as _, Result};
use nogo_harness::cli::Cli;
use nogo_harness::exit_code::{EndsWith, ExitCode};
use nogo_harness::judgement::Record;
use nogo_harness::run_directory::RunDirectory;
use nogo_invariants::report;
use nogo_invariants::results::Results;

/// Judges a stored run again and says whether the stored verdict has the same bytes. Writes nothing.
pub fn gate(cli: &Cli, run: &str) -> Result<ExitCode> {
    let directory = RunDirectory::find(&cli.store, run)?;
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

/// Prints a stored run's verdict as it was written.
pub fn show(cli: &Cli, run: &str) -> Result<ExitCode> {
    let directory = RunDirectory::find(&cli.store, run)?;
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
