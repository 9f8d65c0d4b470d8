//! The biller and the provider's events while the provider is hurt: nobody else would ask it, so the probes see to that.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use jiff::Timestamp;
use nogo_faults::BoxFuture;
use nogo_invariants::history::{Proof, ProofKind};
use tokio::task::JoinHandle;

use super::{Counter, EffectProbe, WireSeen, proof};
use crate::environment::topology::Topology;
use crate::provider::{Charge, EventSender, ProviderBook};
use crate::recorder::Recorder;
use crate::run::books;

/// Events of one look.
const EVENTS: usize = 6;
/// From one event of a look to the next.
const APART: Duration = Duration::from_millis(20);
const OK: u16 = 200;

/// Bills, as its operator does, until the biller's requests were seen hurt; afterwards until all is settled.
pub struct Billing {
    topology: Arc<Topology>,
    recorder: Recorder,
    seen: WireSeen,
    pass: Option<JoinHandle<Option<i32>>>,
}

impl Billing {
    /// Looks at what `seen` sees while a biller runs.
    #[must_use]
    pub fn new(topology: Arc<Topology>, recorder: Recorder, seen: WireSeen) -> Self {
        Self { topology, recorder, seen, pass: None }
    }

    fn pass(&self) -> JoinHandle<Option<i32>> {
        let (topology, recorder) = (Arc::clone(&self.topology), self.recorder.clone());
        tokio::spawn(async move {
            let run = books::bill_once(&topology, &recorder, Timestamp::now()).await;
            run.inspect_err(|error| recorder.note(&format!("the biller under a fault: {error:#}"))).ok()?.exit_code
        })
    }
}

impl EffectProbe for Billing {
    fn effect(&mut self) -> BoxFuture<'_, Proof> {
        Box::pin(async move {
            if self.pass.as_ref().is_none_or(JoinHandle::is_finished) {
                self.pass = Some(self.pass());
            }
            self.seen.effect().await
        })
    }

    fn recovery(&mut self) -> BoxFuture<'_, Proof> {
        Box::pin(async move {
            if let Some(pass) = self.pass.take() {
                // What it came to under the fault does not matter.
                let _ = pass.await;
            }
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

/// Sends the provider's events about its charges.
pub struct Events {
    /// Of every API, or the links to them.
    senders: Vec<EventSender>,
    book: Arc<ProviderBook>,
    taken: Counter,
    forged: Counter,
    before: Option<(u64, u64)>,
    shows: EventsShow,
    seen: WireSeen,
    name: String,
    sent: usize,
    answered: u64,
    /// Longest time from an event's sending to its acknowledgement.
    slowest: Duration,
}

impl Events {
    /// `bases`: where the APIs tell their counters; `name`: what the events' ids begin with.
    ///
    /// # Errors
    /// When no HTTP client can be made.
    pub fn new(
        senders: Vec<EventSender>,
        book: Arc<ProviderBook>,
        bases: Vec<String>,
        shows: EventsShow,
        seen: WireSeen,
        name: String,
    ) -> anyhow::Result<Self> {
        let taken = Counter::new(bases.clone(), "forecastle_webhook_events_total", "")?;
        let forged = Counter::new(bases, "forecastle_refused_total", "webhook_signature_invalid")?;
        Ok(Self {
            senders,
            book,
            taken,
            forged,
            before: None,
            shows,
            seen,
            name,
            sent: 0,
            answered: 0,
            slowest: Duration::ZERO,
        })
    }

    async fn counters(&self) -> Option<(u64, u64)> {
        Some((self.taken.read().await.ok()?, self.forged.read().await.ok()?))
    }

    /// Sends some events a moment apart, again where they were not taken; the places of those answered with success, in the
    /// order of their answers.
    async fn send_some(&mut self) -> Vec<usize> {
        let charges: Vec<Charge> = self.book.snapshot().charges;
        let mut under_way = FuturesUnordered::new();
        for place in 0..EVENTS.min(charges.len()) {
            let number = self.sent;
            self.sent += 1;
            let charge = charges[number % charges.len()].clone();
            let sender = &self.senders[number % self.senders.len()];
            let id = format!("evt_{}_{number}", self.name);
            under_way.push(async move {
                tokio::time::sleep(APART * u32::try_from(place).unwrap_or(0)).await;
                let sent = Instant::now();
                let mut status = sender.send(&id, &charge).await.ok();
                if status != Some(OK) {
                    status = sender.send(&id, &charge).await.ok();
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
        self.answered += order.len() as u64;
        order
    }
}

impl EffectProbe for Events {
    fn effect(&mut self) -> BoxFuture<'_, Proof> {
        Box::pin(async move {
            if self.before.is_none() {
                self.before = self.counters().await;
            }
            let order = self.send_some().await;
            let (Some(before), Some(now)) = (self.before, self.counters().await) else {
                return proof(ProofKind::Effect, "the APIs' counters", false, "not read".to_owned());
            };
            let (taken, forged) = (now.0.saturating_sub(before.0), now.1.saturating_sub(before.1));
            let seen = self.seen.effect().await;
            let shows = match self.shows {
                EventsShow::More => taken > self.answered,
                EventsShow::Late(by) => self.slowest >= by,
                EventsShow::OutOfOrder => !order.is_sorted(),
                EventsShow::Forged => forged > 0,
            };
            let what = format!(
                "{} events sent, {} acknowledged, {taken} taken in, {forged} refused as forged, answered in the order {order:?}, the \
                 slowest after {} ms; {}",
                self.sent,
                self.answered,
                self.slowest.as_millis(),
                seen.what
            );
            proof(ProofKind::Effect, "the provider's deliveries and the APIs' counters", shows && seen.holds, what)
        })
    }

    fn recovery(&mut self) -> BoxFuture<'_, Proof> {
        Box::pin(async move {
            let order = self.send_some().await;
            let well = self.seen.recovery().await;
            let whole = !order.is_empty() && order.len() == EVENTS.min(self.book.snapshot().charges.len());
            let what = format!("{} events acknowledged; {}", order.len(), well.what);
            proof(ProofKind::Recovery, "the provider's deliveries", whole && well.holds, what)
        })
    }
}
