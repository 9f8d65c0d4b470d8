//! The biller and the provider's events while the provider is hurt: nobody else would ask it, so the probes see to that.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use jiff::Timestamp;
use nogo_faults::BoxFuture;
use nogo_invariants::history::{Proof, ProofKind};
use sqlx::PgPool;
use tokio::task::JoinHandle;

use super::{Counter, EffectProbe, WireSeen, proof};
use crate::environment::topology::Topology;
use crate::provider::{Charge, EventSender};
use crate::recorder::Recorder;
use crate::run::books;

/// From one event of a look to the next.
const APART: Duration = Duration::from_millis(20);
const OK: u16 = 200;
/// Which of the charges count as paid.
const PAID: &str = "SELECT count(*) FROM app.payments WHERE state = 'succeeded' AND idempotency_key = ANY($1)";

/// Bills, as its operator does, until the biller's requests were seen hurt; afterwards until all is settled.
pub struct Billing {
    topology: Arc<Topology>,
    recorder: Recorder,
    as_of: Timestamp,
    seen: WireSeen,
    pass: Option<JoinHandle<Option<i32>>>,
}

impl Billing {
    /// Looks at what `seen` sees while a biller brings the tenants to `as_of`.
    #[must_use]
    pub fn new(topology: Arc<Topology>, recorder: Recorder, as_of: Timestamp, seen: WireSeen) -> Self {
        Self { topology, recorder, as_of, seen, pass: None }
    }

    fn pass(&self) -> JoinHandle<Option<i32>> {
        let (topology, recorder, as_of) = (Arc::clone(&self.topology), self.recorder.clone(), self.as_of);
        tokio::spawn(async move {
            let run = books::bill_under_fault(&topology, &recorder, as_of).await;
            run.inspect_err(|error| recorder.note(&format!("the biller under a fault: {error:#}"))).ok()?.exit_code
        })
    }

    /// Sees to it that a biller is at work.
    fn bill(&mut self) {
        if self.pass.as_ref().is_none_or(JoinHandle::is_finished) {
            self.pass = Some(self.pass());
        }
    }

    /// Waits for the biller that is at work; what it came to under the fault does not matter.
    async fn billed(&mut self) {
        if let Some(pass) = self.pass.take() {
            let _ = pass.await;
        }
    }
}

impl EffectProbe for Billing {
    fn effect(&mut self) -> BoxFuture<'_, Proof> {
        Box::pin(async move {
            self.bill();
            self.seen.effect().await
        })
    }

    fn recovery(&mut self) -> BoxFuture<'_, Proof> {
        Box::pin(async move {
            self.billed().await;
            let code = self.pass().await.ok().flatten();
            let well = self.seen.recovery().await;
            let what = format!("a biller ends with {code:?}; {}", well.what);
            proof(ProofKind::Recovery, "the biller's exit code", code == Some(0) && well.holds, what)
        })
    }
}

/// How hurt events show themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventsShow {
    /// More come than were sent.
    More,
    /// One is acknowledged so long after it was sent, or later.
    Late(Duration),
    /// One is answered after one that was sent later.
    OutOfOrder,
    /// Some are refused as forged.
    Forged,
}

/// Charges that the system has not heard of, and those who tell it: one event for each, under the same id however often
/// it is sent.
pub struct Told {
    /// Of every API, or the links to them.
    senders: Vec<EventSender>,
    charges: Vec<Charge>,
    reader: PgPool,
    /// Places of the charges whose event was taken.
    taken: BTreeSet<usize>,
    sent: usize,
    /// Events answered with success, repetitions among them.
    acknowledged: u64,
    /// Longest time from an event's sending to its acknowledgement.
    slowest: Duration,
}

impl Told {
    /// `reader` reads past every link what came of it.
    #[must_use]
    pub fn new(senders: Vec<EventSender>, charges: Vec<Charge>, reader: PgPool) -> Self {
        let (taken, slowest) = (BTreeSet::new(), Duration::ZERO);
        Self { senders, charges, reader, taken, sent: 0, acknowledged: 0, slowest }
    }

    /// Sends the events of some charges a moment apart, again where they were not taken; the places of those answered with
    /// success, in the order of their answers.
    async fn send(&mut self, places: impl IntoIterator<Item = usize>) -> Vec<usize> {
        let mut under_way = FuturesUnordered::new();
        for (number, place) in (0u32..).zip(places) {
            self.sent += 1;
            let (charge, sender) = (&self.charges[place], &self.senders[place % self.senders.len()]);
            under_way.push(async move {
                tokio::time::sleep(APART * number).await;
                let (id, sent) = (format!("evt_{}", charge.id), Instant::now());
                let mut status = sender.send(&id, charge).await.ok();
                if status != Some(OK) {
                    status = sender.send(&id, charge).await.ok();
                }
                (place, status, sent.elapsed())
            });
        }
        let mut order = Vec::new();
        let mut slowest = self.slowest;
        while let Some((place, status, took)) = under_way.next().await {
            if status == Some(OK) {
                slowest = slowest.max(took);
                order.push(place);
            }
        }
        drop(under_way);
        self.slowest = slowest;
        self.acknowledged += order.len() as u64;
        self.taken.extend(&order);
        order
    }

    /// How many of the charges count as paid.
    async fn paid(&self) -> Result<usize> {
        let keys: Vec<String> = self.charges.iter().map(|charge| charge.idempotency_key.clone()).collect();
        let paid: i64 =
            sqlx::query_scalar(PAID).bind(keys).fetch_one(&self.reader).await.context("read what is paid")?;
        Ok(usize::try_from(paid).unwrap_or_default())
    }
}

/// Sends the provider's events about charges. All but the last are told of while they are hurt, the last afterwards: then
/// every charge that was told of has to be paid, by the events alone.
pub struct Events {
    told: Told,
    counted: Counter,
    forged: Counter,
    before: Option<(u64, u64)>,
    shows: EventsShow,
    biller: Billing,
}

impl Events {
    /// `bases`: where the APIs tell their counters; `biller`: what sees the rules, and learns of the charges by itself where
    /// an event is late.
    ///
    /// # Errors
    /// When no HTTP client can be made.
    pub fn new(told: Told, bases: Vec<String>, shows: EventsShow, biller: Billing) -> Result<Self> {
        let counted = Counter::new(bases.clone(), "forecastle_webhook_events_total", "")?;
        let forged = Counter::new(bases, "forecastle_refused_total", "webhook_signature_invalid")?;
        Ok(Self { told, counted, forged, before: None, shows, biller })
    }

    async fn counters(&self) -> Option<(u64, u64)> {
        Some((self.counted.read().await.ok()?, self.forged.read().await.ok()?))
    }

    /// Sends the events that are to be hurt.
    async fn send_hurt(&mut self) -> Vec<usize> {
        let places = 0..self.told.charges.len() - 1;
        if !matches!(self.shows, EventsShow::Late(_)) {
            return self.told.send(places).await;
        }
        // What a late event tells of, somebody may have found out meanwhile.
        let (told, biller) = (&mut self.told, &mut self.biller);
        biller.bill();
        let ((), order) = tokio::join!(biller.billed(), told.send(places));
        order
    }
}

impl EffectProbe for Events {
    fn effect(&mut self) -> BoxFuture<'_, Proof> {
        Box::pin(async move {
            if self.before.is_none() {
                self.before = self.counters().await;
            }
            let order = self.send_hurt().await;
            let (Some(before), Some(now)) = (self.before, self.counters().await) else {
                return proof(ProofKind::Effect, "the APIs' counters", false, "not read".to_owned());
            };
            let (counted, forged) = (now.0.saturating_sub(before.0), now.1.saturating_sub(before.1));
            let seen = self.biller.seen.effect().await;
            let shows = match self.shows {
                EventsShow::More => counted > self.told.acknowledged,
                EventsShow::Late(by) => self.told.slowest >= by,
                EventsShow::OutOfOrder => !order.is_sorted(),
                EventsShow::Forged => forged > 0,
            };
            let what = format!(
                "{} events sent, {} acknowledged, {counted} taken in, {forged} refused as forged, answered in the order {order:?}, \
                 the slowest after {} ms; {}",
                self.told.sent,
                self.told.acknowledged,
                self.told.slowest.as_millis(),
                seen.what
            );
            proof(ProofKind::Effect, "the provider's deliveries and the APIs' counters", shows && seen.holds, what)
        })
    }

    fn recovery(&mut self) -> BoxFuture<'_, Proof> {
        Box::pin(async move {
            let all = self.told.charges.len();
            let left: Vec<usize> = (0..all).filter(|place| !self.told.taken.contains(place)).collect();
            self.told.send(left).await;
            let well = self.biller.seen.recovery().await;
            let (taken, paid) = (self.told.taken.len(), self.told.paid().await);
            let what = format!("of {all} charges {taken} were told of and {paid:?} count as paid; {}", well.what);
            let whole = taken == all && paid.is_ok_and(|paid| paid == all);
            proof(ProofKind::Recovery, "the provider's deliveries and the payments", whole && well.holds, what)
        })
    }
}
