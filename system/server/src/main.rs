//! Forecastle: one binary, `serve`, `work`, `bill`, `mail`, `alert`, `migrate`, `seed`, `compute`, `flag` and `openapi`.

mod billing_args;
mod cli;
mod commands;
mod connection_args;
mod exit_code;
mod key_file;
mod log_writer;
mod logging;
mod metrics_listener;
mod panic_hook;
mod shutdown;

use std::time::Duration;

use clap::Parser;
use forecastle_telemetry::{ErrorReporter, ErrorTask, ReporterOptions};

use crate::cli::{Cli, Command};
use crate::exit_code::ExitCode;
use crate::log_writer::LogWriter;

/// Longest wait for the last log lines when the process ends.
const LOG_FLUSH_MAX: Duration = Duration::from_secs(1);

fn main() -> std::process::ExitCode {
    let cli = Cli::parse();
    let log = match LogWriter::start(cli.log_queue_max, std::io::stderr()) {
        Ok(log) => log,
        Err(error) => {
            eprintln!("start the log's thread: {error}");
            return ExitCode::Failed.into();
        }
    };
    let code = run(cli, &log);
    log.flush(LOG_FLUSH_MAX);
    code.into()
}

fn run(cli: Cli, log: &LogWriter) -> ExitCode {
    let (reporter, reporting) = match error_reporter(&cli) {
        Ok(opened) => opened.unzip(),
        Err(error) => {
            logging::install(&cli.log_level, log.clone(), None);
            tracing::error!(error = %error, "open error reporter");
            return ExitCode::Failed;
        }
    };
    logging::install(&cli.log_level, log.clone(), reporter.clone());
    panic_hook::install();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(error = %error, "start runtime");
            return ExitCode::Failed;
        }
    };
    let flush_limit = Duration::from_millis(cli.error_timeout_ms);
    let code = runtime.block_on(async {
        if let Some(reporting) = reporting {
            tokio::spawn(reporting.run());
        }
        let outcome = match cli.command {
            Command::Serve(args) => commands::serve::run(*args).await,
            Command::Work(args) => commands::work::run(args).await,
            Command::Bill(args) => commands::bill::run(args).await,
            Command::Mail(args) => commands::mail::run(*args).await,
            Command::Alert(args) => commands::alert::run(args).await,
            Command::Migrate(args) => commands::migrate::run(args).await,
            Command::Seed(args) => commands::seed::run(args).await,
            Command::Compute(args) => commands::compute::run(&args),
            Command::Flag(args) => commands::flag::run(args).await,
            Command::Openapi => commands::openapi::run(),
        };
        let code = outcome.unwrap_or_else(|error| {
            // Contexts are verb phrases of ours; the store's errors carry no values.
            tracing::error!(error = %format_args!("{error:#}"), "failed");
            ExitCode::of(&error)
        });
        if let Some(reporter) = reporter {
            reporter.flush(flush_limit).await;
        }
        code
    });
    // What still blocks (a computation told to stop) gets a moment, not for ever.
    runtime.shutdown_timeout(Duration::from_secs(2));
    code
}

/// The reporter and its task, where an address was given.
fn error_reporter(cli: &Cli) -> anyhow::Result<Option<(ErrorReporter, ErrorTask)>> {
    let Some(dsn) = &cli.error_dsn else { return Ok(None) };
    let options = ReporterOptions {
        dsn: dsn.parse()?,
        instance: cli.command.instance().to_owned(),
        release: env!("CARGO_PKG_VERSION").to_owned(),
        queue_max: cli.error_queue_max,
        timeout: Duration::from_millis(cli.error_timeout_ms),
    };
    Ok(Some(ErrorReporter::open(options)?))
}
