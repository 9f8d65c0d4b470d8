//! Faults of the links between processes and stores, planted.

use std::ops::RangeInclusive;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail, ensure};
use nogo_faults::catalogue::role_and_store;
use nogo_faults::{BlastRadius, FaultRow, Greeting, LinkHarm, LinkShows, Stream, Toxic};

use super::{LINK_MS_MAX, Planted, Site};
use crate::environment::service_control::RedisControl;
use crate::environment::topology::{BILLERS, POSTGRES};
use crate::nemesis::effect::{
    ClaimsNothing, EffectProbe, PassStuck, Readiness, SilentReplica, SlowJobs, SlowMean, Unwell,
};
use crate::run::books;
use crate::run::one_pass::PassingBiller;

/// How many charges a biller makes in one window: as many as it is soon through with.
const MADE: RangeInclusive<usize> = 1..=8;
/// Silence that counts as silence, milliseconds.
const SILENT_MS: u64 = 300;
/// How late an answer is at least on a link that answers 40 ms late, give or take 10.
const LATE_MS: u64 = 30;
/// The same for 80 ms, give or take 20.
const VERY_LATE_MS: u64 = 60;
/// How late two kilobytes are at least on a link that carries 64 kB/s, or in pieces 1 ms apart.
const LONG_LATE_MS: u64 = 25;

/// Makes the fault of this family that `row` describes.
pub(super) async fn plant(row: &'static FaultRow, radius: BlastRadius, site: &Site<'_>) -> Result<Planted> {
    let target = site.step.target.as_str();
    let (role, store) = role_and_store(target).with_context(|| format!("read the victim '{target}'"))?;
    let processes = super::processes_of(role, site);
    let all = site.topology.links().list().into_iter();
    let links = all.filter(|link| link.server == store && processes.contains(&link.process));
    let links: Vec<_> = links.map(|link| (link.name, link.listen)).collect();
    ensure!(!links.is_empty(), "there is no link of '{role}' to '{store}'");
    let (toxics, shows) = link_harm(row)?;
    let greeting = if store == RedisControl::NAME { Greeting::Redis } else { Greeting::Postgres };
    let id = format!("f{}", site.number);
    let harm = LinkHarm { name: row.name, id, links, toxics, shows, greeting, limit_ms: LINK_MS_MAX };
    let probe = probe(shows, role, store, processes, site).await?;
    Ok(super::on_links(row, radius, site, harm, probe))
}

/// What the row does to each link that it hurts, and how it shows. Also that of the rows of one server that hurt all links
/// to it.
///
/// # Errors
/// For a row that hurts no link by toxics.
pub fn link_harm(row: &FaultRow) -> Result<(Vec<(Stream, Toxic)>, LinkShows)> {
    let silence = Toxic::Timeout { timeout_ms: 0 };
    let (up, down) = (Stream::Upstream, Stream::Downstream);
    let silent = LinkShows::SilentMs(SILENT_MS);
    let long = LinkShows::LongLateMs(LONG_LATE_MS);
    Ok(match row.name {
        "link-latency" | "postgres-slow" => {
            (vec![(down, Toxic::Latency { latency_ms: 40, jitter_ms: 10 })], LinkShows::LateMs(LATE_MS))
        }
        "redis-slow" => {
            (vec![(down, Toxic::Latency { latency_ms: 80, jitter_ms: 20 })], LinkShows::LateMs(VERY_LATE_MS))
        }
        "link-bandwidth" => (vec![(down, Toxic::Bandwidth { rate_kb_per_s: 64 })], long),
        "link-slicing" => {
            (vec![(down, Toxic::Slicer { average_bytes: 64, variation_bytes: 32, delay_us: 1_000 })], long)
        }
        "partition" | "postgres-blackhole" | "redis-blackhole" => (vec![(up, silence), (down, silence)], silent),
        "partition-requests" => (vec![(up, silence)], silent),
        "partition-answers" => (vec![(down, silence)], silent),
        "half-open" => (vec![(down, Toxic::Blackhole)], silent),
        "link-reset" => (vec![(down, Toxic::ResetPeer { timeout_ms: 0 })], LinkShows::Broken),
        other => bail!("fault '{other}' has a row and no implementation"),
    })
}

/// How it is felt by the processes at these links.
async fn probe(
    shows: LinkShows,
    role: &str,
    store: &str,
    processes: Vec<String>,
    site: &Site<'_>,
) -> Result<Box<dyn EffectProbe>> {
    let late = matches!(shows, LinkShows::LateMs(_));
    if role.starts_with("worker") {
        let reader = site.reader.clone();
        return Ok(if late {
            let least_ms = i32::try_from(LATE_MS)?;
            Box::new(SlowJobs { reader, workers: processes, least_ms })
        } else {
            Box::new(ClaimsNothing { reader, workers: processes })
        });
    }
    let all = site.topology.api_base_urls()?;
    if role.starts_with("biller") {
        // One has to be at work, or nobody would feel it.
        let as_of = books::time_of(site.share, MADE, site.reader).await?;
        let biller = PassingBiller::new(Arc::clone(site.topology), site.recorder.clone(), BILLERS[0], as_of);
        return Ok(Box::new(PassStuck::new(biller)));
    }
    let apis = site.topology.apis().iter().map(|api| api.process_name().to_owned());
    let bases = apis.zip(all.clone()).filter(|(api, _)| processes.contains(api));
    let bases: Vec<String> = bases.map(|(_, base)| base).collect();
    let readiness = |unwell| anyhow::Ok(Readiness::new(all.clone(), unwell)?.only(&processes));
    Ok(match (shows, store) {
        (LinkShows::LateMs(ms), _) => Box::new(readiness(Unwell::SlowerThanMs(ms))?),
        (LinkShows::LongLateMs(_), _) => Box::new(SlowMean::new(bases.clone(), readiness(Unwell::NotReady)?).await?),
        (_, POSTGRES) => Box::new(readiness(Unwell::NotReady)?),
        (_, RedisControl::NAME) => Box::new(readiness(Unwell::WithoutRedis)?),
        (_, replica) => Box::new(SilentReplica::new(bases, replica)?),
    })
}
