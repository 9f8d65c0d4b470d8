//! Faults of single requests, planted: rules of the protocol on the links of the victim.

use std::ops::RangeInclusive;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use nogo_faults::catalogue::{role_and_store, rules_of};
use nogo_faults::{BlastRadius, FaultRow, Target, WireFault};

use super::{LINK_MS_MAX, Planted, Site};
use crate::nemesis::effect::{Billing, Counter, CounterRises, EffectProbe, Readiness, Unwell, WireSeen};
use crate::run::books;

/// Refusals of Redis that are more than an accident.
const REFUSALS_MIN: u64 = 3;
/// How many charges a biller makes in one window: as many as it is soon through with.
const MADE: RangeInclusive<usize> = 1..=8;

/// Makes the fault of this family that `row` describes.
pub(super) async fn plant(row: &'static FaultRow, mut radius: BlastRadius, site: &Site<'_>) -> Result<Planted> {
    let (role, store) = role_and_store(&site.step.target).with_context(|| format!("find link {}", site.step.target))?;
    let rules = rules_of(site.step, &format!("f{}", site.number)).map_err(anyhow::Error::msg)?;
    let links = site.topology.links();
    let book = links.rule_book().context("find a proxy that follows protocols")?.clone();
    let api = links.client().api_addr();
    radius.allow_address(api);
    let processes = super::processes_of(role, site);
    let names = links.list().into_iter().filter(|link| link.server == store && processes.contains(&link.process));
    let targets = names.map(|link| Target::Proxy { api, name: link.name }).collect();
    let well = Readiness::new(site.topology.api_base_urls()?, Unwell::NotReady)?;
    let probe: Box<dyn EffectProbe> = if row.name == "redis-error-reply" {
        let refused =
            Counter::new(site.topology.api_base_urls()?, "forecastle_redis_failures_total", "kind=\"refused\"")?;
        Box::new(CounterRises::new(refused, REFUSALS_MIN, well).await?)
    } else {
        let seen = WireSeen::new(book.clone(), rules.iter().map(|rule| rule.name.clone()).collect(), well);
        if role.starts_with("biller") {
            // Nobody else would have one make these requests.
            let as_of = books::time_of(site.share, MADE, site.reader).await?;
            Box::new(Billing::new(Arc::clone(site.topology), site.recorder.clone(), as_of, seen))
        } else {
            Box::new(seen)
        }
    };
    let fault =
        WireFault::new(row.name, book, rules, targets, row.tolerance, LINK_MS_MAX).context("write the rules down")?;
    Ok(Planted { row, fault: Box::new(fault), radius, probe })
}
