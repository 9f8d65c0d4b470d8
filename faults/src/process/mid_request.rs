//! A process that is struck while one of its requests is held: in the middle of what it does, and not beside it.
//!
//! For processes that are through too soon to be met by chance. The rule that holds the request is the caller's and is
//! live before the process asks; with what it holds it ends with the fault.

use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use crate::{
    blast_radius::{Grant, Target},
    fault::{BoxFuture, Fault, HealError, InstallError, Proof, ProofError, Tolerance},
    protocol::{Place, Release, RuleBook, RuleRecord},
};

/// Between two looks at what is held.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// Another fault, done once the rule holds a request of the victim. Healing lets the request go before anything else.
pub struct StruckMidRequest {
    fault: Box<dyn Fault>,
    book: RuleBook,
    rule: String,
    limit_ms: u64,
}

impl StruckMidRequest {
    /// `fault`, once the rule of that name, which is live, holds a request; `limit_ms`: longest wait for it, and for
    /// nothing to be held any more.
    pub fn new(fault: Box<dyn Fault>, book: RuleBook, rule: &str, limit_ms: u64) -> Self {
        Self { fault, book, rule: rule.to_owned(), limit_ms }
    }

    fn holds(&self) -> Option<RuleRecord> {
        let record = self.book.record(&self.rule).ok()?;
        // What is kept from the client has been done by the server.
        let is_done = record.rule.place == Place::BeforeServer || record.applied > 0;
        (is_done && self.book.held(&self.rule) > 0).then_some(record)
    }

    async fn strike(&mut self, grant: &Grant) -> Result<Proof, InstallError> {
        grant.covers(&self.fault.targets())?;
        let until = Instant::now() + Duration::from_millis(self.limit_ms);
        let record = loop {
            if let Some(record) = self.holds() {
                break record;
            }
            if Instant::now() >= until {
                let condition = format!("rule {} holds a request", self.rule);
                return Err(InstallError::ConditionNotMet { condition, limit_ms: self.limit_ms });
            }
            tokio::time::sleep(LOOK_EVERY).await;
        };
        let mut proof = self.fault.install(grant).await?;
        proof.detail["mid_request"] = json!({
            "rule": self.rule,
            "matched": record.matched,
            "answered_by_the_server": record.applied,
            "kept_from": if record.rule.place == Place::BeforeServer { "the server" } else { "the process" },
        });
        Ok(proof)
    }

    async fn undo(&mut self) -> Result<Proof, HealError> {
        let target =
            |step| move |error: crate::protocol::RuleError| HealError::Target { step, reason: error.to_string() };
        self.book.release(&self.rule, Release::Pass).map_err(target("let the request go"))?;
        self.book.remove(&self.rule).map_err(target("remove the rule"))?;
        let healed = self.fault.heal().await?;
        let until = Instant::now() + Duration::from_millis(self.limit_ms);
        while self.book.held(&self.rule) > 0 {
            if Instant::now() >= until {
                let reason = format!("{} requests are held", self.book.held(&self.rule));
                return Err(HealError::StillHurt { fault: self.fault.name().into(), limit_ms: self.limit_ms, reason });
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(healed)
    }
}

impl Fault for StruckMidRequest {
    fn name(&self) -> &str {
        self.fault.name()
    }

    fn targets(&self) -> Vec<Target> {
        self.fault.targets()
    }

    fn tolerance(&self) -> Tolerance {
        self.fault.tolerance()
    }

    fn install<'a>(&'a mut self, grant: &'a Grant) -> BoxFuture<'a, Result<Proof, InstallError>> {
        Box::pin(self.strike(grant))
    }

    fn control_proof(&mut self) -> BoxFuture<'_, Result<Proof, ProofError>> {
        self.fault.control_proof()
    }

    fn heal(&mut self) -> BoxFuture<'_, Result<Proof, HealError>> {
        Box::pin(self.undo())
    }
}

impl Drop for StruckMidRequest {
    /// One that was never installed leaves no rule behind.
    fn drop(&mut self) {
        let _ = self.book.remove(&self.rule);
    }
}
