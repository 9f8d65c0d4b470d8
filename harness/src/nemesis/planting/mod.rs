//! A step of the schedule as a fault on the running topology, with the probe that shows its effect.
//!
//! One file for each family of the catalogue; here only the choice by name.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use nogo_faults::{
    BlastRadius, Fault, FaultRow, Greeting, LinkHarm, LinksHurt, Step, Struck, catalogue, catalogue::Family,
};
use sqlx::PgPool;

use super::effect::EffectProbe;
use crate::environment::topology::{BILLERS, Topology};
use crate::experiment::Limits;
use crate::provider::ProviderBook;
use crate::recorder::Recorder;
use crate::run::books::Share;
use crate::workload::Load;

mod biller;
mod client;
mod network;
mod placebo;
mod postgres;
mod process;
mod provider;
mod redis;
mod sink;
mod wire;

pub use network::link_harm;
pub use process::SKEW_S;

/// Longest any fault of a suite may stand.
const HOLD_MAX: Duration = Duration::from_secs(60);

/// How long a fault is held at most whose window lasts `window_ms`: until its effect was looked for, where that comes last.
#[must_use]
pub(super) fn held(window_ms: u64, limits: &Limits) -> Duration {
    Duration::from_millis(window_ms.saturating_add(limits.effect_ms))
}

/// Longest window that a schedule may ask for, milliseconds: whatever is longer lies outside every blast radius.
#[must_use]
pub fn window_ms_max(limits: &Limits) -> u64 {
    u64::try_from(HOLD_MAX.as_millis()).unwrap_or(u64::MAX).saturating_sub(limits.effect_ms)
}

/// Longest wait for links to show a harm, or its end.
const LINK_MS_MAX: u64 = 10_000;

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
    pub topology: &'a Arc<Topology>,
    /// The load, for baits.
    pub load: &'a Arc<Load>,
    /// Read-only connections past every proxy.
    pub reader: &'a PgPool,
    /// The history.
    pub recorder: &'a Recorder,
    /// What the payment provider knows.
    pub provider: &'a Arc<ProviderBook>,
    /// The first charges that are this window's, where a biller is at work in it.
    pub share: Share,
}

/// Makes the fault of `site`.
///
/// # Errors
/// When the step names a fault or a victim that this topology does not have.
pub async fn plant(site: &Site<'_>) -> Result<Planted> {
    let name = &site.step.fault;
    let row = catalogue::find(name).with_context(|| format!("find fault '{name}'"))?;
    let radius = BlastRadius::new(HOLD_MAX);
    match catalogue::family_of(row) {
        Family::Postgres => postgres::plant(row, radius, site).await,
        Family::Redis => redis::plant(row, radius, site).await,
        Family::Process => process::plant(row, radius, site).await,
        Family::Network => network::plant(row, radius, site).await,
        Family::Wire => wire::plant(row, radius, site).await,
        Family::Provider => provider::plant(row, radius, site).await,
        Family::Sink => sink::plant(row, radius, site).await,
        Family::Client => client::plant(row, radius, site).await,
        Family::Placebo => placebo::placebo(row, radius, site),
    }
}

/// The processes that a role stands for: itself, or `apis`, `workers`, `billers`.
fn processes_of(role: &str, site: &Site<'_>) -> Vec<String> {
    let services = site.topology.processes();
    let services = services.iter().map(|process| process.process_name());
    let names = services.chain(BILLERS).map(str::to_owned);
    let of_role = |name: &String| {
        name == role
            || role.strip_suffix('s').and_then(|one| name.strip_prefix(one)).is_some_and(|rest| rest.starts_with('-'))
    };
    names.filter(of_role).collect()
}

/// What the row does, to every link that leads from the system to `server`.
fn links_to(row: &FaultRow, site: &Site<'_>, server: &str, greeting: Greeting) -> Result<LinkHarm> {
    let links = site.topology.links().list().into_iter().filter(|link| link.server == server);
    let (toxics, shows) = link_harm(row)?;
    Ok(LinkHarm {
        name: row.name,
        id: format!("f{}", site.number),
        links: links.map(|link| (link.name, link.listen)).collect(),
        toxics,
        shows,
        greeting,
        limit_ms: LINK_MS_MAX,
    })
}

/// That harm as a fault on the run's proxies.
fn on_links(
    row: &'static FaultRow,
    mut radius: BlastRadius,
    site: &Site<'_>,
    harm: LinkHarm,
    probe: Box<dyn EffectProbe>,
) -> Planted {
    let client = site.topology.links().client().clone();
    radius.allow_address(client.api_addr());
    let fault = Box::new(Struck::new(LinksHurt::new(harm, client), row.tolerance));
    Planted { row, fault, radius, probe }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_window_is_held_as_long_as_a_fault_may_stand() {
        let limits = Limits::default();
        assert_eq!(held(window_ms_max(&limits), &limits), HOLD_MAX);
    }
}
