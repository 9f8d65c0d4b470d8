//! `nogo clean`: what dead runs left on this host, and old runs in the store.

use super::output;
use anyhow::{Context as _, Result};
use nogo_harness::cli::Cli;
use nogo_harness::environment::registration::{read_record, runs_folder};
use nogo_harness::environment::sweep::sweep;
use nogo_harness::exit_code::ExitCode;
use nogo_harness::run_directory::stored_runs;

/// Sweeps; with `keep_runs` removes all stored runs but the newest.
pub async fn clean(cli: &Cli, dry_run: bool, keep_runs: Option<usize>) -> Result<ExitCode> {
    let runs = stored_runs(&cli.store);
    let surplus = keep_runs.map_or(0, |keep| runs.len().saturating_sub(keep));
    if dry_run {
        let mut registered: Vec<String> = std::fs::read_dir(runs_folder(&cli.store))
            .map(|entries| {
                entries.flatten().filter_map(|entry| read_record(&entry.path())).map(|record| record.run_id).collect()
            })
            .unwrap_or_default();
        registered.sort();
        output::line(format!("registered runs that a sweep would look at: {}", list_or_none(&registered)));
        output::line(format!("stored runs that would be removed: {}", list_or_none(&runs[..surplus])));
        return Ok(ExitCode::Held);
    }
    let swept = sweep(&cli.store).await.context("sweep")?;
    for id in &runs[..surplus] {
        let path = cli.store.join(id);
        std::fs::remove_dir_all(&path).with_context(|| format!("remove {}", path.display()))?;
    }
    if cli.json {
        output::line(serde_json::json!({"swept": swept, "runs_removed": &runs[..surplus]}));
    } else {
        output::line(format!(
            "removed {} containers, {} processes, {} volumes, {} control groups, {} folders of {} dead runs; {} stored runs",
            swept.containers.len(),
            swept.processes.len(),
            swept.volumes.len(),
            swept.groups.len(),
            swept.directories.len(),
            swept.runs.len(),
            surplus
        ));
        for left in &swept.left {
            output::line(format!("left: {left}"));
        }
    }
    Ok(if swept.left.is_empty() { ExitCode::Held } else { ExitCode::EnvironmentNotReady })
}

fn list_or_none(names: &[String]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}
