//! Rules as a fault: planned, granted, installed, proved and healed like every other harm.

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

/// Rules of a book, on the proxies whose connections the book follows.
///
/// Installing it puts the rules among those asked for every request; that they came about is
/// [`RuleRecord::observed`], and a window in which that stays 0 was without effect.
pub struct WireFault {
    name: &'static str,
    book: RuleBook,
    rules: Vec<Rule>,
    /// The proxies that the rules' requests pass.
    targets: Vec<Target>,
    tolerance: Tolerance,
    /// Longest time until nothing is held any more after the rules were removed.
    let_go_ms_max: u64,
}

impl WireFault {
    /// Writes the rules into the book. `name`: the fault's, such as `redis-reply-lost`; `targets`: the proxies that their
    /// requests pass; `let_go_ms_max`: how long healing may take.
    ///
    /// # Errors
    /// As [`RuleBook::plan`], for the first rule that cannot be planned; those before it stand in the book and do nothing.
    pub fn new(
        name: &'static str,
        book: RuleBook,
        rules: Vec<Rule>,
        targets: Vec<Target>,
        tolerance: Tolerance,
        let_go_ms_max: u64,
    ) -> Result<Self, RuleError> {
        for rule in &rules {
            book.plan(rule)?;
        }
        Ok(Self { name, book, rules, targets, tolerance, let_go_ms_max })
    }

    /// What became of each rule so far.
    fn records(&self) -> Result<Vec<RuleRecord>, RuleError> {
        self.rules.iter().map(|rule| self.book.record(&rule.name)).collect()
    }

    fn held(&self) -> usize {
        self.rules.iter().map(|rule| self.book.held(&rule.name)).sum()
    }

    fn strike(&mut self, grant: &Grant) -> Result<Proof, InstallError> {
        let unknown = |error: RuleError| InstallError::Parameter { parameter: "rule", reason: error.to_string() };
        if self.records().map_err(unknown)?.iter().any(|record| record.state() != FaultState::Planned) {
            return Err(InstallError::Used { fault: self.name.into() });
        }
        grant.covers(&self.targets)?;
        for rule in &self.rules {
            self.book.install(&rule.name).map_err(unknown)?;
        }
        self.prove().map_err(|error| InstallError::DidNotLand { fault: self.name.into(), reason: error.to_string() })
    }

    fn prove(&self) -> Result<Proof, ProofError> {
        let records = self.records().map_err(|error| ProofError::Unreadable(error.to_string()))?;
        let lives = |record: &&RuleRecord| matches!(record.state(), FaultState::Installed | FaultState::Observed);
        match records.iter().find(|record| !lives(record)) {
            None => Ok(proof("rule_live", &records)),
            Some(record) => Err(ProofError::NoHarm(format!("rule {} is {}", record.rule.name, record.state()))),
        }
    }

    async fn let_go(&self) -> Result<Proof, HealError> {
        let target = |error: RuleError| HealError::Target { step: "remove the rule", reason: error.to_string() };
        for rule in &self.rules {
            self.book.remove(&rule.name).map_err(target)?;
        }
        let limit = Duration::from_millis(self.let_go_ms_max);
        let waiting = async {
            let mut tick = tokio::time::interval(Duration::from_millis(POLL_MS));
            while self.held() > 0 {
                tick.tick().await;
            }
        };
        if tokio::time::timeout(limit, waiting).await.is_err() {
            return Err(HealError::StillHurt {
                fault: self.name.into(),
                limit_ms: self.let_go_ms_max,
                reason: format!("{} requests are held", self.held()),
            });
        }
        Ok(proof("rule_removed", &self.records().map_err(target)?))
    }
}

/// Rules by name, and their counts together. Each counts every match, so that what matched is the most of them.
fn proof(kind: &str, records: &[RuleRecord]) -> Proof {
    let sum = |of: fn(&RuleRecord) -> u64| records.iter().map(of).sum::<u64>();
    let names: Vec<&str> = records.iter().map(|record| record.rule.name.as_str()).collect();
    Proof::new(
        kind,
        json!({
            "rules": names,
            "matched": records.iter().map(|record| record.matched).max().unwrap_or_default(),
            "acted": sum(|record| record.acted),
            "observed": sum(|record| record.observed),
            "applied": sum(|record| record.applied),
        }),
    )
}

impl Fault for WireFault {
    fn name(&self) -> &str {
        self.name
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
