//! The webhook of alerts, hurt: what the alert process has to tell fails by its own word, and is told all the same afterwards.

use std::sync::Arc;

use anyhow::Result;
use nogo_faults::BoxFuture;
use nogo_invariants::history::{Proof, ProofKind};

use super::{Counter, EffectProbe, WireSeen, proof};
use crate::environment::topology::Topology;
use crate::sinks::{Drill, SinkBook};

/// A drill whose alert fires while its webhook is hurt, and has to be heard of once it is not.
pub struct AlertUnheard {
    seen: WireSeen,
    failed: Counter,
    before: u64,
    topology: Arc<Topology>,
    book: Arc<SinkBook>,
    /// Notices that were taken when the webhook was healed.
    taken: Option<u64>,
}

impl AlertUnheard {
    /// Reads the counters of the alert process at `base` now, before the fault.
    ///
    /// # Errors
    /// When it does not tell.
    pub async fn new(seen: WireSeen, base: String, topology: Arc<Topology>, book: Arc<SinkBook>) -> Result<Self> {
        let failed = Counter::new(vec![base], "forecastle_alert_tries_failed_total", "webhook=\"first\"")?;
        let before = failed.read().await?;
        Ok(Self { seen, failed, before, topology, book, taken: None })
    }

    fn drill(&self) -> &Drill {
        self.topology.drill()
    }
}

impl Drop for AlertUnheard {
    fn drop(&mut self) {
        self.drill().sound(false);
    }
}

impl EffectProbe for AlertUnheard {
    fn effect(&mut self) -> BoxFuture<'_, Proof> {
        Box::pin(async move {
            self.drill().sound(true);
            let (source, seen) = (self.failed.source(), self.seen.effect().await);
            match self.failed.read().await {
                Ok(now) => {
                    let failed = now.saturating_sub(self.before);
                    let what = format!("risen by {failed} since before the fault; {}", seen.what);
                    proof(ProofKind::Effect, &source, seen.holds && failed > 0, what)
                }
                Err(error) => proof(ProofKind::Effect, &source, false, format!("not read: {error:#}")),
            }
        })
    }

    fn recovery(&mut self) -> BoxFuture<'_, Proof> {
        Box::pin(async move {
            let now = self.book.notices_of(Drill::NAME);
            let taken = now - *self.taken.get_or_insert(now);
            let (well, repeated) = (self.seen.recovery().await, self.book.counts().repeated);
            let what =
                format!("{taken} notices of it taken since it was healed, {repeated} repeated in all; {}", well.what);
            proof(ProofKind::Recovery, "the webhook's own book", well.holds && taken > 0, what)
        })
    }
}
