//! `nogo sweep`: every point of a story, lost, killed and stopped.

use super::output;
use anyhow::{Context as _, Result};
use nogo_harness::cli::{Cli, SweepArgs};
use nogo_harness::exit_code::ExitCode;
use nogo_harness::point_sweep::{SweepOrder, SweepSettings};

/// Sweeps a story, or with `--list` only lists its points.
pub async fn sweep(cli: &Cli, args: &SweepArgs) -> Result<ExitCode> {
    let order = SweepOrder {
        store: &cli.store,
        story: args.story,
        settings: SweepSettings { seed: args.seed, lease_ms: args.lease_ms },
        points: &args.point,
        faults: &args.fault,
        only_list: args.list,
        setting: &args.setting,
        quiet: cli.quiet,
    };
    let swept = nogo_harness::point_sweep::sweep(order).await.context("sweep")?;
    if cli.json {
        output::line(serde_json::to_string_pretty(&swept.results).context("express the results")?);
    } else if args.list {
        output::write(&swept.results.listing());
    } else {
        output::write(&swept.results.table());
    }
    if !cli.quiet {
        let (exit, folder) = (swept.exit, swept.directory.root().display());
        eprintln!("exit {} ({}); record {folder}", exit.number(), exit.name());
    }
    Ok(swept.exit)
}
