//! `nogo`: reads the command line, dispatches, prints the result, gives the exit code.

mod commands;

use clap::Parser as _;
use nogo_harness::cli::{Cli, Command};
use nogo_harness::exit_code::exit_code_of;

fn main() -> std::process::ExitCode {
    let cli = Cli::parse();
    let level = if cli.quiet { tracing::Level::ERROR } else { tracing::Level::WARN };
    tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(std::io::stderr)
        .without_time()
        .with_target(false)
        .init();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("nogo: start the runtime: {error}");
            return nogo_harness::exit_code::ExitCode::HarnessBroke.into();
        }
    };
    let outcome = runtime.block_on(async {
        match &cli.command {
            Command::Run(args) => commands::run::run(&cli, args).await,
            Command::Replay(args) => commands::run::replay(&cli, args).await,
            Command::Gate { run } => commands::stored::gate(&cli, run),
            Command::Show { run } => commands::stored::show(&cli, run),
            Command::List { what } => commands::list::list(&cli, *what),
            Command::Clean { dry_run, keep_runs } => commands::clean::clean(&cli, *dry_run, *keep_runs).await,
            Command::Doctor => commands::doctor::doctor(&cli).await,
            Command::Sweep(args) => commands::sweep::sweep(&cli, args).await,
            Command::Mutants(args) => commands::mutants::mutants(&cli, args).await,
        }
    });
    // A blocked read of a dead server must not keep the process alive.
    runtime.shutdown_timeout(std::time::Duration::from_secs(2));
    match outcome {
        Ok(code) => code.into(),
        Err(error) => {
            let code = exit_code_of(&error);
            eprintln!("nogo: {error:#}\nexit {} ({})", code.number(), code.name());
            code.into()
        }
    }
}
