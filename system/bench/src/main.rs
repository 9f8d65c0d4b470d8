//! Measures Forecastle against references that do less: both columns in one run, on one machine, in
//! alternating blocks, so that a noisy neighbour hurts both. `ci/bench system` builds it and runs it.
//!
//! Not for judging correctness: a row only refuses to count an answer that is not the expected one.

mod bare_loop;
mod bed;
mod client;
mod closed_loop;
mod customers;
mod inputs;
mod mix;
mod open_loop;
mod process;
mod reference_server;
mod report;
mod rows;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Parser, Subcommand};

use crate::report::Report;
use crate::rows::{Row, Setting};

/// Exit code where a bar was missed; 1 is for what could not be measured.
const BAR_MISSED: u8 = 4;

/// Forecastle's speed, beside references.
#[derive(Parser)]
#[command(name = "forecastle-bench", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Measure rows and print them as a table.
    Run(RunArgs),
    /// Serve the bare handler that the read rows compare with. Prints its address, runs until killed.
    #[command(hide = true)]
    Reference {
        /// A role that row-level security does not bind.
        #[arg(long)]
        database_url: String,
    },
}

#[derive(clap::Args)]
struct RunArgs {
    /// Which rows; all of them where none is named.
    rows: Vec<Row>,
    /// Fewer customers, fewer seconds: shows that every row runs, not what the machine can do.
    #[arg(long)]
    short: bool,
    /// The program under test, a release build.
    #[arg(long, default_value = "target/release/forecastle")]
    binary: PathBuf,
    /// The worker that the queue row compares with, a release build.
    #[arg(long, default_value = "target/release/forecastle-reference-queue")]
    reference_queue: PathBuf,
    /// Where the same table goes as JSON.
    #[arg(long, default_value = "target/bench/system.json")]
    json: PathBuf,
}

fn main() -> anyhow::Result<ExitCode> {
    // Servers die with the thread that started them, so everything is started from this one.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        match Cli::parse().command {
            Command::Reference { database_url } => {
                reference_server::serve(&database_url).await?;
                Ok(ExitCode::SUCCESS)
            }
            Command::Run(args) => run(args).await,
        }
    })
}

async fn run(args: RunArgs) -> anyhow::Result<ExitCode> {
    anyhow::ensure!(args.binary.is_file(), "{} is not there: cargo build --release", args.binary.display());
    let binary = args.binary.canonicalize().context("find the program under test")?;
    let setting = Setting { binary, reference_queue: args.reference_queue, short: args.short };
    let rows = if args.rows.is_empty() { Row::all() } else { args.rows };
    let mut report = Report::new(args.short);
    for row in rows {
        eprintln!("bench: {}", row.title());
        let lines = row.measure(&setting).await.with_context(|| format!("measure {}", row.title()))?;
        for line in lines {
            eprintln!("{}", line.render());
            report.push(line);
        }
        // After each row: a run that is cut off leaves what it had.
        report.write(&args.json).context("write the JSON report")?;
    }
    println!("{}", report.render());
    println!("JSON: {}", args.json.display());
    Ok(if report.held() { ExitCode::SUCCESS } else { ExitCode::from(BAR_MISSED) })
}
