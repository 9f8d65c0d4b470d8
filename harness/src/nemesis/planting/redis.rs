//! Faults of Redis, planted.

use anyhow::{Context as _, Result};
use nogo_faults::{BlastRadius, FaultRow, RedisLoss, RedisLossLimits, ServiceControl as _};

use super::{Planted, Site};
use crate::environment::links::link_name;
use crate::nemesis::effect::RedisPath;

/// Killed, and at healing started again with nothing in it.
pub(super) fn loss(row: &'static FaultRow, mut radius: BlastRadius, site: &Site<'_>) -> Result<Planted> {
    let topology = site.topology;
    let control = topology.redis_control();
    radius.allow_address(control.address());
    let link = link_name("api-1", "redis");
    let listen = topology.links().list().into_iter().find(|known| known.name == link);
    let listen = listen.with_context(|| format!("find link {link}"))?.listen;
    let probe = RedisPath { link, url: topology.redis().url_at(listen) };
    let fault = RedisLoss::new(control, RedisLossLimits::default(), row.tolerance);
    Ok(Planted { row, fault: Box::new(fault), radius, probe: Box::new(probe) })
}
