//! How much of something the APIs count in a moment, against the time before the fault.

use std::time::Duration;

use anyhow::Result;
use nogo_faults::BoxFuture;
use nogo_invariants::history::{Proof, ProofKind};

use super::{Counter, EffectProbe, Readiness, proof};

/// In which a rate is measured.
const WITHIN: Duration = Duration::from_millis(800);

/// A counter that rises faster than before rises by this much a second at least: several times of nothing is no effect.
const RISE_PER_S_MIN: f64 = 10.0;

/// What is too much.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Measure {
    /// A counter rises by so many a second more than before.
    PerSecond(f64),
    /// A counter rises so many times as fast as before, and by ten a second.
    Times(f64),
    /// A gauge stands so much higher than before.
    More(f64),
}

impl Measure {
    /// What is too much where `before` was measured.
    fn limit(self, before: f64) -> f64 {
        match self {
            Measure::PerSecond(more) | Measure::More(more) => before + more,
            Measure::Times(times) => (times * before).max(RISE_PER_S_MIN),
        }
    }
}

/// A counter or gauge of the APIs that shows too much of something.
pub struct Exceeds {
    counter: Counter,
    measure: Measure,
    before: f64,
    well: Readiness,
}

impl Exceeds {
    /// Measures it now, before the fault. Afterwards `well` must hold.
    ///
    /// # Errors
    /// When an API does not tell.
    pub async fn new(counter: Counter, measure: Measure, well: Readiness) -> Result<Self> {
        let mut probe = Exceeds { counter, measure, before: 0.0, well };
        probe.before = probe.now().await?;
        Ok(probe)
    }

    /// The gauge, or the counter's rise in a second.
    async fn now(&self) -> Result<f64> {
        let first = self.counter.read_exact().await?;
        if matches!(self.measure, Measure::More(_)) {
            return Ok(first);
        }
        tokio::time::sleep(WITHIN).await;
        Ok((self.counter.read_exact().await? - first) / WITHIN.as_secs_f64())
    }

    async fn look(&self) -> Result<(bool, String)> {
        let now = self.now().await?;
        let limit = self.measure.limit(self.before);
        Ok((now >= limit, format!("{now:.0}, {:.0} before; {limit:.0} is too much", self.before)))
    }
}

impl EffectProbe for Exceeds {
    fn effect(&mut self) -> BoxFuture<'_, Proof> {
        Box::pin(async move {
            let source = self.counter.source();
            match self.look().await {
                Ok((exceeds, what)) => proof(ProofKind::Effect, &source, exceeds, what),
                Err(error) => proof(ProofKind::Effect, &source, false, format!("not read: {error:#}")),
            }
        })
    }

    fn recovery(&mut self) -> BoxFuture<'_, Proof> {
        Box::pin(async move {
            let source = self.counter.source();
            let (well, said) = self.well.all_well().await;
            match self.look().await {
                Ok((exceeds, what)) => proof(ProofKind::Recovery, &source, well && !exceeds, format!("{what}; {said}")),
                Err(error) => proof(ProofKind::Recovery, &source, false, format!("not read: {error:#}")),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_much_counts_from_what_was_before_and_nothing_is_never_too_much() {
        assert_eq!(Measure::PerSecond(10.0).limit(4.0), 14.0);
        assert_eq!(Measure::More(60.0).limit(44.0), 104.0);
        assert_eq!(Measure::Times(2.0).limit(160.0), 320.0);
        assert_eq!(Measure::Times(2.0).limit(0.0), 10.0);
    }
}
