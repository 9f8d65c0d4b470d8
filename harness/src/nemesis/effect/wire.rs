//! Single requests, seen hurt where they pass: by the messages of both sides, whatever a rule was asked to do.

use nogo_faults::{BoxFuture, Place, RuleBook, RuleRecord};
use nogo_invariants::history::{Proof, ProofKind};

use super::{EffectProbe, Readiness, proof};

/// What the proxies read of the requests that rules chose.
pub struct WireSeen {
    book: RuleBook,
    rules: Vec<String>,
    well: Readiness,
}

impl WireSeen {
    /// Looks at the records of `rules`. Afterwards nothing may be held, and `well` must hold.
    #[must_use]
    pub fn new(book: RuleBook, rules: Vec<String>, well: Readiness) -> Self {
        Self { book, rules, well }
    }

    fn records(&self) -> Vec<RuleRecord> {
        self.rules.iter().filter_map(|rule| self.book.record(rule).ok()).collect()
    }
}

impl EffectProbe for WireSeen {
    fn effect(&mut self) -> BoxFuture<'_, Proof> {
        Box::pin(async move {
            let records = self.records();
            let sum = |of: fn(&RuleRecord) -> u64| records.iter().map(of).sum::<u64>();
            let (matched, observed, applied) = (
                records.iter().map(|record| record.matched).max().unwrap_or_default(),
                sum(|record| record.observed),
                sum(|record| record.applied),
            );
            // What is kept from the client must have been done by the server.
            let kept_back = records.iter().all(|record| record.rule.place == Place::BeforeClient);
            let holds = observed > 0 && (!kept_back || applied > 0);
            let what =
                format!("{observed} of {matched} matches hurt, {applied} of them answered with success by the server");
            proof(ProofKind::Effect, "messages on the wire", holds, what)
        })
    }

    fn recovery(&mut self) -> BoxFuture<'_, Proof> {
        Box::pin(async move {
            let held: usize = self.rules.iter().map(|rule| self.book.held(rule)).sum();
            let (well, said) = self.well.all_well().await;
            proof(ProofKind::Recovery, "rule book and /readyz", held == 0 && well, format!("{held} held; {said}"))
        })
    }
}
