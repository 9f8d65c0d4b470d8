//! Faults of PostgreSQL, planted.

use anyhow::Result;
use nogo_faults::{BlastRadius, FaultRow, PoolExhaustion, PoolExhaustionConfig};

use super::{Planted, Site};
use crate::nemesis::effect::ApiPools;

/// Every connection taken, writers of scenarios and jobs locked out.
pub(super) fn pool_exhaustion(row: &'static FaultRow, mut radius: BlastRadius, site: &Site<'_>) -> Result<Planted> {
    let mut config =
        PoolExhaustionConfig::new(format!("f{}", site.number), site.topology.app_dsn(), site.topology.admin_dsn());
    // Blocks every writer of scenarios and of the queue, no reader: the pool fills with waiting writers.
    config.lock_statements = vec![
        "LOCK TABLE app.scenarios IN EXCLUSIVE MODE".to_owned(),
        "LOCK TABLE app.forecasts IN EXCLUSIVE MODE".to_owned(),
    ];
    let fault = PoolExhaustion::new(config, row.tolerance)?;
    radius.allow_address(site.topology.postgres().address());
    let probe = Box::new(ApiPools::new(site.topology.api_base_urls()?)?);
    Ok(Planted { row, fault: Box::new(fault), radius, probe })
}
