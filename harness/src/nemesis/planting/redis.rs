//! Faults of Redis, planted.

use anyhow::{Context as _, Result, bail};
use nogo_faults::{
    BlastRadius, Fault, FaultRow, FreezeLimits, Greeting, Harm, LinkShows, RedisClientKill, RedisDemotion, RedisFlush,
    RedisLoss, RedisLossLimits, RedisMemoryFull, ServiceControl as _, ServiceFreeze, Struck, WhenFull,
};

use super::{Planted, Site};
use crate::environment::links::link_name;
use crate::environment::service_control::RedisControl;
use crate::nemesis::effect::{Counter, CounterRises, EffectProbe, KeysLost, Readiness, RedisPath, Unwell};

/// Longest wait for one part of a harm or of its healing.
const LIMIT_MS: u64 = 10_000;
/// Failures of Redis that are more than an accident.
const FAILURES_MIN: u64 = 3;

/// Makes the fault of this family that `row` describes.
pub(super) async fn plant(row: &'static FaultRow, mut radius: BlastRadius, site: &Site<'_>) -> Result<Planted> {
    let topology = site.topology;
    let control = topology.redis_control();
    let (name, address) = (RedisControl::NAME, control.address());
    let password = Some(topology.redis().password());
    if matches!(row.name, "redis-slow" | "redis-blackhole") {
        return links(row, radius, site);
    }
    radius.allow_address(address);
    let (fault, probe): (Box<dyn Fault>, Box<dyn EffectProbe>) = match row.name {
        "redis-loss" => {
            let (link, url) = through_link(site)?;
            let fault = RedisLoss::new(control, RedisLossLimits::default(), row.tolerance);
            (Box::new(fault), Box::new(RedisPath { link, url }))
        }
        "redis-freeze" => {
            let harm = ServiceFreeze::new(row.name, control, Greeting::Redis, FreezeLimits::default());
            (struck(row, harm), Box::new(readiness(site, Unwell::WithoutRedis)?))
        }
        "redis-flush" => {
            let harm = RedisFlush::new(name, address, password, LIMIT_MS)?;
            (struck(row, harm), keys_lost(site).await?)
        }
        "redis-eviction" => {
            let harm = RedisMemoryFull::new(name, address, password, WhenFull::Evict, LIMIT_MS)?;
            (struck(row, harm), keys_lost(site).await?)
        }
        "redis-memory-refused" => {
            let harm = RedisMemoryFull::new(name, address, password, WhenFull::Refuse, LIMIT_MS)?;
            (struck(row, harm), failures(site, "kind=\"refused\"").await?)
        }
        "redis-clients-killed" => {
            (struck(row, RedisClientKill::new(name, address, password, LIMIT_MS)?), failures(site, "").await?)
        }
        "redis-demoted" => {
            let harm = RedisDemotion::new(name, address, password, LIMIT_MS)?;
            (struck(row, harm), failures(site, "kind=\"refused\"").await?)
        }
        other => bail!("fault '{other}' has a row and no implementation"),
    };
    Ok(Planted { row, fault, radius, probe })
}

fn struck<H: Harm + 'static>(row: &FaultRow, harm: H) -> Box<dyn Fault> {
    Box::new(Struck::new(harm, row.tolerance))
}

fn readiness(site: &Site<'_>, unwell: Unwell) -> Result<Readiness> {
    Readiness::new(site.topology.api_base_urls()?, unwell)
}

/// The link of an API to Redis, and the URL that leads through it.
fn through_link(site: &Site<'_>) -> Result<(String, String)> {
    let link = link_name("api-1", RedisControl::NAME);
    let listen = site.topology.links().list().into_iter().find(|known| known.name == link);
    let listen = listen.with_context(|| format!("find link {link}"))?.listen;
    Ok((link, site.topology.redis().url_at(listen)))
}

async fn keys_lost(site: &Site<'_>) -> Result<Box<dyn EffectProbe>> {
    let (link, url) = through_link(site)?;
    Ok(Box::new(KeysLost::new(link, url, readiness(site, Unwell::WithoutRedis)?).await?))
}

/// Failures of Redis as the APIs count them, beyond those before the fault.
async fn failures(site: &Site<'_>, kind: &str) -> Result<Box<dyn EffectProbe>> {
    let counter = Counter::new(site.topology.api_base_urls()?, "forecastle_redis_failures_total", kind)?;
    Ok(Box::new(CounterRises::new(counter, FAILURES_MIN, readiness(site, Unwell::WithoutRedis)?).await?))
}

/// Every link of the system to Redis hurt.
fn links(row: &'static FaultRow, radius: BlastRadius, site: &Site<'_>) -> Result<Planted> {
    let harm = super::links_to(row, site, RedisControl::NAME, Greeting::Redis)?;
    let unwell = match harm.shows {
        LinkShows::LateMs(ms) => Unwell::SlowerThanMs(ms),
        _ => Unwell::WithoutRedis,
    };
    Ok(super::on_links(row, radius, site, harm, Box::new(readiness(site, unwell)?)))
}
