//! Sinks that are hurt: what the APIs tell them goes wrong by the APIs' own word, and afterwards arrives again.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use nogo_faults::BoxFuture;
use nogo_invariants::history::{Proof, ProofKind};
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{Counter, EffectProbe, WireSeen, proof};
use crate::environment::topology::Topology;
use crate::recorder::Recorder;
use crate::sinks::SinkBook;

/// From one slip to the next, at each API.
const SLIP_EVERY: Duration = Duration::from_millis(500);
/// How long a slip stands: an API that is told of it reads it within that time.
const SLIP_STANDS: Duration = Duration::from_millis(100);

/// Errors of every API, made while this lives: nothing in a calm load is one.
pub struct Slips {
    _making: DropGuard,
}

impl Slips {
    /// Begins at once.
    #[must_use]
    pub fn make(topology: Arc<Topology>, recorder: Recorder) -> Self {
        let enough = CancellationToken::new();
        for api in topology.apis().to_vec() {
            let (topology, recorder, enough) = (Arc::clone(&topology), recorder.clone(), enough.clone());
            tokio::spawn(async move {
                for number in 1.. {
                    let next = Instant::now() + SLIP_EVERY;
                    // Never broken off: the right keys have to stand again.
                    if let Err(error) = topology.slip(&api, number, SLIP_STANDS).await {
                        recorder.note(&format!("no errors of {} can be made: {error:#}", api.process_name()));
                        return;
                    }
                    tokio::select! {
                        () = enough.cancelled() => return,
                        () = tokio::time::sleep_until(next) => {}
                    }
                }
            });
        }
        Self { _making: enough.drop_guard() }
    }
}

/// How far what is told has come: failed by the APIs' counters, sent by them, received by the sink.
#[derive(Debug, Clone, Copy)]
struct Told {
    failed: u64,
    sent: u64,
    received: u64,
}

/// One sink, as the APIs and it have it.
pub struct SinkHurt {
    seen: WireSeen,
    failed: Counter,
    sent: Counter,
    book: Arc<SinkBook>,
    before: Told,
    healed: Option<Told>,
    _slips: Option<Slips>,
}

impl SinkHurt {
    /// Reads the counters of the APIs at `bases` now, before the fault. `sink`: its name; `outcome`: what an API counts its
    /// failures as; `slips`: what it is told of, where nothing happens by itself.
    ///
    /// # Errors
    /// When an API does not tell.
    pub async fn new(
        seen: WireSeen,
        bases: Vec<String>,
        sink: &str,
        outcome: &str,
        book: Arc<SinkBook>,
        slips: Option<Slips>,
    ) -> Result<Self> {
        let counter = |outcome: &str| {
            let label = format!("sink=\"{sink}\",outcome=\"{outcome}\"");
            Counter::new(bases.clone(), "forecastle_sink_events_total", label)
        };
        let (failed, sent) = (counter(outcome)?, counter("sent")?);
        let before = Told { failed: failed.read().await?, sent: sent.read().await?, received: book.counts().events };
        Ok(Self { seen, failed, sent, book, before, healed: None, _slips: slips })
    }

    async fn told(&self) -> Result<Told> {
        let received = self.book.counts().events;
        Ok(Told { failed: self.failed.read().await?, sent: self.sent.read().await?, received })
    }
}

impl EffectProbe for SinkHurt {
    fn effect(&mut self) -> BoxFuture<'_, Proof> {
        Box::pin(async move {
            let (source, seen) = (self.failed.source(), self.seen.effect().await);
            match self.told().await {
                Ok(now) => {
                    let failed = now.failed.saturating_sub(self.before.failed);
                    let what = format!("risen by {failed} since before the fault; {}", seen.what);
                    proof(ProofKind::Effect, &source, seen.holds && failed > 0, what)
                }
                Err(error) => proof(ProofKind::Effect, &source, false, format!("not read: {error:#}")),
            }
        })
    }

    fn recovery(&mut self) -> BoxFuture<'_, Proof> {
        Box::pin(async move {
            let (source, well) = (self.sent.source(), self.seen.recovery().await);
            match self.told().await {
                Ok(now) => {
                    let healed = *self.healed.get_or_insert(now);
                    let sent = now.sent.saturating_sub(healed.sent);
                    let received = now.received.saturating_sub(healed.received);
                    let what = format!(
                        "{sent} sent and {received} received since it was healed; {} requests received in all; {}",
                        self.book.counts().requests,
                        well.what
                    );
                    proof(ProofKind::Recovery, &source, well.holds && sent > 0 && received > 0, what)
                }
                Err(error) => proof(ProofKind::Recovery, &source, false, format!("not read: {error:#}")),
            }
        })
    }
}
