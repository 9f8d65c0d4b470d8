//! A step of the schedule as a fault on the running topology, with the probe that shows its effect.
//!
//! One file for each family of the catalogue; here only the choice by name.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use nogo_faults::{BlastRadius, Fault, FaultRow, Step, catalogue};
use sqlx::PgPool;

use super::effect::EffectProbe;
use crate::environment::topology::Topology;
use crate::workload::Load;

mod placebo;
mod postgres;
mod process;
mod redis;

/// Longest any fault of a suite may stand.
const HOLD_MAX: Duration = Duration::from_secs(60);

/// A fault ready to be installed.
pub struct Planted {
    /// What is known of it.
    pub row: &'static FaultRow,
    /// The harm.
    pub fault: Box<dyn Fault>,
    /// What it may touch.
    pub radius: BlastRadius,
    /// How its effect shows.
    pub probe: Box<dyn EffectProbe>,
}

/// Where and when a fault is planted.
pub struct Site<'a> {
    /// The step of the schedule.
    pub step: &'a Step,
    /// Tells the faults of a run apart, from 1.
    pub number: usize,
    /// The running system.
    pub topology: &'a Topology,
    /// The load, for baits.
    pub load: &'a Load,
    /// Read-only connections past every proxy.
    pub reader: &'a PgPool,
}

/// Makes the fault of `site`.
///
/// # Errors
/// When the step names a fault or a victim that this topology does not have.
pub async fn plant(site: &Site<'_>) -> Result<Planted> {
    let name = &site.step.fault;
    let row = catalogue::find(name).with_context(|| format!("find fault '{name}'"))?;
    let radius = BlastRadius::new(HOLD_MAX);
    match row.name {
        "pool-exhaustion" => postgres::pool_exhaustion(row, radius, site),
        "redis-loss" => redis::loss(row, radius, site),
        "worker-crash" => process::worker_crash(row, radius, site).await,
        "placebo" => placebo::placebo(row, radius, site),
        other => bail!("fault '{other}' has a row and no implementation"),
    }
}
