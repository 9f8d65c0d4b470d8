//! Faults of the sinks, planted: one rule on the APIs' links to one of them.
//!
//! Analytics are told of all the time. Errors are not, so that a window at their sink brings its own: an operator's slip in
//! the key file, which an API reports and goes on with the keys it has. At the webhook of alerts it is a drill.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use nogo_faults::catalogue::{role_and_store, rules_of};
use nogo_faults::{BlastRadius, FaultRow, Target, WireFault};

use super::{LINK_MS_MAX, Planted, Site};
use crate::environment::topology::{ALERTS, ERRORS};
use crate::nemesis::effect::{AlertUnheard, EffectProbe, Readiness, SinkHurt, Slips, Unwell, WireSeen};

/// Makes the fault of this family that `row` describes.
pub(super) async fn plant(row: &'static FaultRow, mut radius: BlastRadius, site: &Site<'_>) -> Result<Planted> {
    let (role, sink) = role_and_store(&site.step.target).with_context(|| format!("find link {}", site.step.target))?;
    let rules = rules_of(site.step, &format!("f{}", site.number)).map_err(anyhow::Error::msg)?;
    let links = site.topology.links();
    let book = links.rule_book().context("find a proxy that follows protocols")?.clone();
    let api = links.client().api_addr();
    radius.allow_address(api);
    let processes = super::processes_of(role, site);
    let is_victims = |process: &String| process == role || processes.contains(process);
    let names = links.list().into_iter().filter(|link| link.server == sink && is_victims(&link.process));
    let targets = names.map(|link| Target::Proxy { api, name: link.name }).collect();
    let outcome = match row.name {
        "sink-reset" => "unreachable",
        "sink-blackhole" => "timeout",
        _ => "refused",
    };
    let bases = site.topology.api_base_urls()?;
    let well = Readiness::new(bases.clone(), Unwell::NotReady)?;
    let seen = WireSeen::new(book.clone(), rules.iter().map(|rule| rule.name.clone()).collect(), well);
    let told = Arc::clone(site.topology.sink(sink)?.book());
    let probe: Box<dyn EffectProbe> = if sink == ALERTS {
        let base = format!("http://{}", site.topology.alerter()?.address("metrics")?);
        Box::new(AlertUnheard::new(seen, base, Arc::clone(site.topology), told).await?)
    } else {
        let slips = (sink == ERRORS).then(|| Slips::make(Arc::clone(site.topology), site.recorder.clone()));
        Box::new(SinkHurt::new(seen, bases, sink, outcome, told, slips).await?)
    };
    let fault =
        WireFault::new(row.name, book, rules, targets, row.tolerance, LINK_MS_MAX).context("write the rules down")?;
    Ok(Planted { row, fault: Box::new(fault), radius, probe })
}
