//! Faults of the payment provider, planted: rules on the billers' links to it, and on its own links to the APIs.
//!
//! Nobody asks the provider for anything while a load lasts, so each window brings charges of its own: the biller makes
//! them while its requests are hurt, or has made them and not heard of it, so that the provider's events are news.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use jiff::Timestamp;
use nogo_faults::catalogue::rules_of;
use nogo_faults::{
    Action, BlastRadius, FaultRow, HttpPattern, Occurrence, Pattern, Place, Rule, RuleBook, Target, WireFault,
};

use super::{LINK_MS_MAX, Planted, Site};
use crate::environment::topology::PROVIDER;
use crate::nemesis::effect::{Billing, EffectProbe, Events, EventsShow, Readiness, Told, Unwell, WireSeen};
use crate::provider::{Charge, EventSender};
use crate::run::books;

/// How many charges events of one window tell of: one may overtake another, and one is told of afterwards.
const TOLD: RangeInclusive<usize> = 3..=6;

/// By how long the rules hold events up.
fn lateness(rules: &[Rule]) -> Duration {
    let late = rules.iter().filter_map(|rule| if let Action::Late { ms } = rule.action { Some(ms) } else { None });
    Duration::from_millis(late.min().unwrap_or(u64::MAX))
}

/// How many charges a biller makes in one window: as many as it is soon through with.
const MADE: RangeInclusive<usize> = 1..=8;

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
    let wanted = if shows.is_some() { TOLD } else { MADE };
    let as_of = books::time_of(site.share, wanted, site.reader).await?;
    let biller = Billing::new(Arc::clone(site.topology), site.recorder.clone(), as_of, seen);
    let probe: Box<dyn EffectProbe> = match shows {
        None => Box::new(biller),
        Some(shows) => {
            let secret = site.topology.webhook_secret().context("find the provider's secret")?;
            let senders = at_issue.iter().map(|link| EventSender::new(secret, link.listen));
            let senders = senders.collect::<Result<Vec<_>>>()?;
            let mut charges = unheard_of(&book, as_of, site).await?;
            ensure!(TOLD.start() <= &charges.len(), "{} charges are too few to tell of", charges.len());
            // Beside a window that keeps the biller from its own share this one has made that too.
            charges.truncate(*TOLD.end());
            let told = Told::new(senders, charges, site.reader.clone());
            Box::new(Events::new(told, site.topology.api_base_urls()?, shows, biller)?)
        }
    };
    let targets = at_issue.into_iter().map(|link| Target::Proxy { api, name: link.name }).collect();
    let fault = WireFault::new(row.name, book, rules, targets, row.tolerance, LINK_MS_MAX);
    Ok(Planted { row, fault: Box::new(fault.context("write the rules down")?), radius, probe })
}

/// Charges that the biller asks for and hears nothing of: their payments stay unknown until somebody says more.
async fn unheard_of(book: &RuleBook, as_of: Timestamp, site: &Site<'_>) -> Result<Vec<Charge>> {
    let known: BTreeSet<String> = site.provider.snapshot().charges.into_iter().map(|charge| charge.id).collect();
    let silence = |method: &str, place| Rule {
        name: format!("f{}-unheard-{method}", site.number),
        role: Some("biller".to_owned()),
        pattern: Pattern::Http(HttpPattern { method: Some(method.to_owned()), path: None }),
        k: Occurrence::EVERY,
        place,
        action: Action::Cut,
    };
    let rules = [silence("POST", Place::BeforeClient), silence("GET", Place::BeforeServer)];
    for rule in &rules {
        book.plan(rule)?;
        book.install(&rule.name)?;
    }
    let billed = books::bill_once(site.topology, site.recorder, as_of).await;
    for rule in &rules {
        book.remove(&rule.name)?;
    }
    billed?;
    let mut charges = site.provider.snapshot().charges;
    charges.retain(|charge| !known.contains(&charge.id));
    charges.sort_by(|one, other| one.id.cmp(&other.id));
    Ok(charges)
}
