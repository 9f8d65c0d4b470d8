//! What differs from fault to fault, and the frame around it that does not.
//!
//! A [`Harm`] strikes, shows itself and is undone; [`Struck`] adds that it strikes once and only inside its grant.

use std::time::Duration;

use tokio::time::Instant;

use crate::{
    blast_radius::{Grant, Target},
    fault::{BoxFuture, Fault, HealError, InstallError, Proof, ProofError, Tolerance},
};

/// Time between two looks at a target.
const LOOK_EVERY_MS: u64 = 15;

/// One kind of harm. `undo` is legal in every state and changes nothing the second time.
pub trait Harm: Send {
    /// Stable name, such as `postgres-crash`.
    fn name(&self) -> &str;

    /// What will be touched.
    fn targets(&self) -> Vec<Target>;

    /// Does the harm; the proof is read from the target.
    ///
    /// # Errors
    /// [`InstallError`]; part of the harm may stand.
    fn strike(&mut self) -> impl Future<Output = Result<Proof, InstallError>> + Send;

    /// Reads from the target that the harm is there now.
    ///
    /// # Errors
    /// [`ProofError`] when it is not, or cannot be told.
    fn look(&mut self) -> impl Future<Output = Result<Proof, ProofError>> + Send;

    /// Undoes the harm and reads from the target that it is gone.
    ///
    /// # Errors
    /// [`HealError`]; the target must be taken as still hurt.
    fn undo(&mut self) -> impl Future<Output = Result<Proof, HealError>> + Send;
}

/// A harm as a fault.
pub struct Struck<H> {
    harm: H,
    tolerance: Tolerance,
    used: bool,
}

impl<H: Harm> Struck<H> {
    /// The fault that does `harm`.
    pub fn new(harm: H, tolerance: Tolerance) -> Self {
        Self { harm, tolerance, used: false }
    }
}

impl<H: Harm> Fault for Struck<H> {
    fn name(&self) -> &str {
        self.harm.name()
    }

    fn targets(&self) -> Vec<Target> {
        self.harm.targets()
    }

    fn tolerance(&self) -> Tolerance {
        self.tolerance
    }

    fn install<'a>(&'a mut self, grant: &'a Grant) -> BoxFuture<'a, Result<Proof, InstallError>> {
        Box::pin(async move {
            if self.used {
                return Err(InstallError::Used { fault: self.harm.name().to_owned() });
            }
            grant.covers(&self.harm.targets())?;
            self.used = true;
            self.harm.strike().await
        })
    }

    fn control_proof(&mut self) -> BoxFuture<'_, Result<Proof, ProofError>> {
        Box::pin(self.harm.look())
    }

    fn heal(&mut self) -> BoxFuture<'_, Result<Proof, HealError>> {
        Box::pin(self.harm.undo())
    }
}

/// A wait for a condition, with its limit and what was seen last.
pub(crate) struct Wait {
    limit_ms: u64,
    until: Instant,
}

impl Wait {
    pub(crate) fn of_ms(limit_ms: u64) -> Self {
        Self { limit_ms, until: Instant::now() + Duration::from_millis(limit_ms) }
    }

    /// Pauses before the next look; at the limit an error with what was seen last.
    pub(crate) async fn again(&self, seen: String) -> Result<(), String> {
        if Instant::now() >= self.until {
            return Err(format!("after {} ms: {seen}", self.limit_ms));
        }
        tokio::time::sleep(Duration::from_millis(LOOK_EVERY_MS)).await;
        Ok(())
    }

    /// Pauses while a harm that was done does not show yet.
    pub(crate) async fn for_landing(&self, fault: &str, seen: String) -> Result<(), InstallError> {
        self.again(seen).await.map_err(|reason| InstallError::DidNotLand { fault: fault.to_owned(), reason })
    }

    /// Pauses while a harm that was undone still shows.
    pub(crate) async fn for_healing(&self, fault: &str, seen: String) -> Result<(), HealError> {
        let limit_ms = self.limit_ms;
        self.again(seen).await.map_err(|reason| HealError::StillHurt { fault: fault.to_owned(), limit_ms, reason })
    }
}

/// The install error of a step that the target or its keeper refused.
pub(crate) fn refused<E: ToString>(step: &'static str) -> impl FnOnce(E) -> InstallError {
    move |cause| InstallError::Target { step, reason: cause.to_string() }
}

/// The heal error of a step that the target or its keeper refused.
pub(crate) fn unhealed<E: ToString>(step: &'static str) -> impl FnOnce(E) -> HealError {
    move |cause| HealError::Target { step, reason: cause.to_string() }
}
