//! A rule as a fault: planned, granted, installed, proved and healed like every other harm.

use std::time::Duration;

use serde_json::json;

use super::{
    book::RuleBook,
    observer::RuleRecord,
    rule::{Rule, RuleError},
};
use crate::{
    blast_radius::{Grant, Target},
    fault::{BoxFuture, Fault, FaultState, HealError, InstallError, Proof, ProofError, Tolerance},
};

const POLL_MS: u64 = 5;

/// One rule of a book, on the proxies whose connections the book follows.
///
/// Installing it puts the rule among those asked for every request; that it came about is
/// [`RuleRecord::observed`], and a window in which that stays 0 was without effect.
pub struct WireFault {
    book: RuleBook,
    rule: Rule,
    /// The proxies that the rule's requests pass.
    targets: Vec<Target>,
    tolerance: Tolerance,
    /// Longest time until nothing is held any more after the rule was removed.
    let_go_ms_max: u64,
}

impl WireFault {
    /// Name of this fault.
    pub const NAME: &'static str = "wire-rule";

    /// Writes the rule into the book. `targets`: the proxies that its requests pass;
    /// `let_go_ms_max`: how long healing may take.
    ///
    /// # Errors
    /// As [`RuleBook::plan`].
    pub fn new(
        book: RuleBook,
        rule: Rule,
        targets: Vec<Target>,
        tolerance: Tolerance,
        let_go_ms_max: u64,
    ) -> Result<Self, RuleError> {
        book.plan(&rule)?;
        Ok(Self { book, rule, targets, tolerance, let_go_ms_max })
    }

    /// What became of the rule so far.
    ///
    /// # Errors
    /// None in practice, since the rule was written into the book.
    pub fn record(&self) -> Result<RuleRecord, RuleError> {
        self.book.record(&self.rule.name)
    }

    fn strike(&mut self, grant: &Grant) -> Result<Proof, InstallError> {
        let unknown = |error: RuleError| InstallError::Parameter { parameter: "rule", reason: error.to_string() };
        if self.record().map_err(unknown)?.state() != FaultState::Planned {
            return Err(InstallError::Used { fault: Self::NAME.into() });
        }
        grant.covers(&self.targets)?;
        self.book.install(&self.rule.name).map_err(unknown)?;
        self.prove().map_err(|error| InstallError::DidNotLand { fault: Self::NAME.into(), reason: error.to_string() })
    }

    fn prove(&self) -> Result<Proof, ProofError> {
        let record = self.record().map_err(|error| ProofError::Unreadable(error.to_string()))?;
        match record.state() {
            FaultState::Installed | FaultState::Observed => Ok(proof("rule_live", &record)),
            state => Err(ProofError::NoHarm(format!("rule {} is {state}", self.rule.name))),
        }
    }

    async fn let_go(&self) -> Result<Proof, HealError> {
        let target = |error: RuleError| HealError::Target { step: "remove the rule", reason: error.to_string() };
        self.book.remove(&self.rule.name).map_err(target)?;
        let limit = Duration::from_millis(self.let_go_ms_max);
        let waiting = async {
            let mut tick = tokio::time::interval(Duration::from_millis(POLL_MS));
            while self.book.held(&self.rule.name) > 0 {
                tick.tick().await;
            }
        };
        if tokio::time::timeout(limit, waiting).await.is_err() {
            return Err(HealError::StillHurt {
                fault: Self::NAME.into(),
                limit_ms: self.let_go_ms_max,
                reason: format!("{} requests are held", self.book.held(&self.rule.name)),
            });
        }
        Ok(proof("rule_removed", &self.record().map_err(target)?))
    }
}

fn proof(kind: &str, record: &RuleRecord) -> Proof {
    Proof::new(
        kind,
        json!({
            "rule": record.rule.name,
            "matched": record.matched,
            "acted": record.acted,
            "observed": record.observed,
            "applied": record.applied,
        }),
    )
}

impl Fault for WireFault {
    fn name(&self) -> &str {
        Self::NAME
    }

    fn targets(&self) -> Vec<Target> {
        self.targets.clone()
    }

    fn tolerance(&self) -> Tolerance {
        self.tolerance
    }

    fn install<'a>(&'a mut self, grant: &'a Grant) -> BoxFuture<'a, Result<Proof, InstallError>> {
        Box::pin(async move { self.strike(grant) })
    }

    fn control_proof(&mut self) -> BoxFuture<'_, Result<Proof, ProofError>> {
        Box::pin(async move { self.prove() })
    }

    fn heal(&mut self) -> BoxFuture<'_, Result<Proof, HealError>> {
        Box::pin(async move { self.let_go().await })
    }
}
