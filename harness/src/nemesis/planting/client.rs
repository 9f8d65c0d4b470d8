//! Faults by clients, planted.

use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use nogo_faults::{BlastRadius, Crowding, FaultRow, ProcessControl, ProcessLimits, Struck};

use super::{Planted, Site};
use crate::nemesis::effect::{Counter, EffectProbe, Exceeds, Measure, Readiness, Unwell};
use crate::workload::{CrowdKind, LoadCrowd};

/// Longest wait for a crowd to have done enough, and for it to stand still.
const LIMIT_MS: u64 = 12_000;
/// What a crowd must have done before it counts.
const DONE_MIN: u64 = 20;

/// Makes the fault of this family that `row` describes.
pub(super) async fn plant(row: &'static FaultRow, mut radius: BlastRadius, site: &Site<'_>) -> Result<Planted> {
    let requests = "http_requests_total";
    let (kind, metric, label, measure) = match row.name {
        "client-hang-ups" => (CrowdKind::HangUps, requests, "outcome=\"given_up\"", Measure::PerSecond(10.0)),
        "client-slow-senders" => (CrowdKind::SlowSenders, "forecastle_connections_open", "", Measure::More(60.0)),
        "client-duplicates" => (CrowdKind::Duplicates, requests, "status=\"409\"", Measure::PerSecond(5.0)),
        "client-retry-storm" => (CrowdKind::RetryStorm, requests, "outcome=\"given_up\"", Measure::PerSecond(10.0)),
        "client-herd" => (CrowdKind::Herd, requests, "route=\"/v1/login\"", Measure::PerSecond(10.0)),
        "client-spike" => (CrowdKind::Spike, requests, "", Measure::Times(2.0)),
        other => bail!("fault '{other}' has a row and no implementation"),
    };
    let bases = site.topology.api_base_urls()?;
    let mut servers = Vec::new();
    for api in site.topology.apis() {
        let address = api.address("address")?;
        radius.allow_address(address);
        servers.push((api.process_name().to_owned(), address));
    }
    let well = Readiness::new(bases.clone(), Unwell::NotReady)?;
    let probe: Box<dyn EffectProbe> = Box::new(Exceeds::new(Counter::new(bases, metric, label)?, measure, well).await?);
    let addresses = servers.iter().map(|(_, address)| *address).collect();
    let number = u64::try_from(site.number)?;
    let crowd = Arc::new(LoadCrowd::new(Arc::clone(site.load), kind, number, addresses));
    let mut harm = Crowding::new(row.name, crowd, servers, DONE_MIN, LIMIT_MS);
    if kind == CrowdKind::Herd {
        // They come back to servers that have nothing at hand.
        let mut controls: Vec<Arc<dyn ProcessControl>> = Vec::new();
        for api in site.topology.apis() {
            let name = api.process_name();
            radius.allow_process(api.current_identity().with_context(|| format!("find a running {name}"))?);
            controls.push(Arc::clone(api) as Arc<dyn ProcessControl>);
        }
        harm = harm.after_a_restart(controls, ProcessLimits::default());
    }
    Ok(Planted { row, fault: Box::new(Struck::new(harm, row.tolerance)), radius, probe })
}
