//! `nogo doctor`: what this machine has, what is missing, and the fix.

use super::output;
use anyhow::Result;
use nogo_harness::cli::Cli;
use nogo_harness::environment::doctor::{examine, ready};
use nogo_harness::exit_code::ExitCode;

/// Prints every check; 6 if no engine could run a suite.
pub async fn doctor(cli: &Cli) -> Result<ExitCode> {
    let checks = examine(&cli.store).await;
    let ready = ready(&checks);
    if cli.json {
        output::line(serde_json::json!({"ready": ready, "checks": checks}));
    } else {
        for check in &checks {
            let engine = check.engine.map(|engine| format!(" [{engine}]")).unwrap_or_default();
            output::line(format!("{} {}{engine}: {}", if check.ok { "ok " } else { "-- " }, check.name, check.found));
            if !check.ok && !check.fix.is_empty() {
                output::line(format!("    fix: {}", check.fix));
            }
        }
        output::line(if ready { "ready: nogo run smoke" } else { "not ready: no engine can run a suite" });
    }
    Ok(if ready { ExitCode::Held } else { ExitCode::EnvironmentNotReady })
}
