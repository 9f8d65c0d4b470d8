//! Faults of the payment provider, planted: rules on the billers' links to it, and on its own links to the APIs.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use jiff::Timestamp;
use nogo_faults::catalogue::rules_of;
use nogo_faults::{Action, BlastRadius, FaultRow, Rule, Target, WireFault};

use super::{LINK_MS_MAX, Planted, Site};
use crate::environment::topology::PROVIDER;
use crate::nemesis::effect::{Billing, EffectProbe, Events, EventsShow, Readiness, Unwell, WireSeen};
use crate::provider::EventSender;
use crate::run::books;

/// By how long the rules hold events up.
fn lateness(rules: &[Rule]) -> Duration {
    let late = rules.iter().filter_map(|rule| if let Action::Late { ms } = rule.action { Some(ms) } else { None });
    Duration::from_millis(late.min().unwrap_or(u64::MAX))
}

/// Makes the fault of this family that `row` describes.
pub(super) async fn plant(row: &'static FaultRow, mut radius: BlastRadius, site: &Site<'_>) -> Result<Planted> {
    let rules = rules_of(site.step, &format!("f{}", site.number)).map_err(anyhow::Error::msg)?;
    let links = site.topology.links();
    let book = links.rule_book().context("find a proxy that follows protocols")?.clone();
    let api = links.client().api_addr();
    radius.allow_address(api);
    let well = Readiness::new(site.topology.api_base_urls()?, Unwell::NotReady)?;
    let seen = WireSeen::new(book.clone(), rules.iter().map(|rule| rule.name.clone()).collect(), well);
    let shows = match row.name {
        "webhook-twice" => Some(EventsShow::More),
        "webhook-late" => Some(EventsShow::Late(lateness(&rules))),
        "webhook-reordered" => Some(EventsShow::OutOfOrder),
        "webhook-forged" => Some(EventsShow::Forged),
        _ => None,
    };
    let at_issue = links.list().into_iter().filter(|link| match shows {
        Some(_) => link.process == PROVIDER,
        None => link.server == PROVIDER,
    });
    let at_issue: Vec<_> = at_issue.collect();
    let probe: Box<dyn EffectProbe> = match shows {
        None => Box::new(Billing::new(Arc::clone(site.topology), site.recorder.clone(), seen)),
        Some(shows) => {
            let secret = site.topology.webhook_secret().context("find the provider's secret")?;
            let senders = at_issue.iter().map(|link| EventSender::new(secret, link.listen));
            let senders = senders.collect::<Result<Vec<_>>>()?;
            if site.provider.snapshot().charges.is_empty() {
                books::bill_once(site.topology, site.recorder, Timestamp::now()).await?;
            }
            ensure!(!site.provider.snapshot().charges.is_empty(), "the provider has no charge to tell of");
            let (provider, bases) = (Arc::clone(site.provider), site.topology.api_base_urls()?);
            Box::new(Events::new(senders, provider, bases, shows, seen, format!("f{}", site.number))?)
        }
    };
    let targets = at_issue.into_iter().map(|link| Target::Proxy { api, name: link.name }).collect();
    let fault = WireFault::new(row.name, book, rules, targets, row.tolerance, LINK_MS_MAX);
    Ok(Planted { row, fault: Box::new(fault.context("write the rules down")?), radius, probe })
}
