//! Forecastle: one binary, `serve`, `work`, `bill`, `migrate`, `seed` and `openapi`.

mod cli;
mod commands;
mod exit_code;
mod logging;
mod metrics_listener;
mod panic_hook;
mod shutdown;

use clap::Parser;

use crate::cli::{Cli, Command};
use crate::exit_code::ExitCode;

fn main() -> std::process::ExitCode {
    let cli = Cli::parse();
    logging::install(&cli.log_level);
    panic_hook::install();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(error = %error, "start runtime");
            return ExitCode::Failed.into();
        }
    };
    let outcome = runtime.block_on(async {
        match cli.command {
            Command::Serve(args) => commands::serve::run(*args).await,
            Command::Work(args) => commands::work::run(args).await,
            Command::Bill(args) => commands::bill::run(args).await,
            Command::Migrate(args) => commands::migrate::run(args).await,
            Command::Seed(args) => commands::seed::run(args).await,
            Command::Openapi => commands::openapi::run(),
        }
    });
    // What still blocks (a computation told to stop) gets a moment, not for ever.
    runtime.shutdown_timeout(std::time::Duration::from_secs(2));
    match outcome {
        Ok(code) => code.into(),
        Err(error) => {
            // Contexts are verb phrases of ours; the store's errors carry no values.
            tracing::error!(error = %format_args!("{error:#}"), "failed");
            ExitCode::of(&error).into()
        }
    }
}
