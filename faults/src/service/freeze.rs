//! A server whose processes stand still: its port accepts, nobody answers, nothing is closed.
//!
//! That it stands still is read from its owner (process states, container state) and from its own address.

use std::{sync::Arc, time::Duration};

use serde_json::{Value, json};

use super::{
    control::ServiceControl,
    wire_probe::{Greeting, greet},
};
use crate::{
    blast_radius::Target,
    fault::{HealError, InstallError, Proof, ProofError},
    harm::{Harm, Wait, refused, unhealed},
};

/// Limits of each wait of [`ServiceFreeze`], milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FreezeLimits {
    /// Silence that counts as silence.
    pub silence_ms: u64,
    /// Longest wait for all of it to stand still.
    pub freeze_ms_max: u64,
    /// Longest wait for the server to answer again.
    pub thaw_ms_max: u64,
}

impl Default for FreezeLimits {
    fn default() -> Self {
        Self { silence_ms: 300, freeze_ms_max: 5_000, thaw_ms_max: 10_000 }
    }
}

/// Stops a server where it stands; healing lets it go on.
pub struct ServiceFreeze {
    name: &'static str,
    control: Arc<dyn ServiceControl>,
    greeting: Greeting,
    limits: FreezeLimits,
    struck: bool,
}

impl ServiceFreeze {
    /// The freezing, under `name`, of the server behind `control` that speaks the protocol of `greeting`.
    pub fn new(name: &'static str, control: Arc<dyn ServiceControl>, greeting: Greeting, limits: FreezeLimits) -> Self {
        Self { name, control, greeting, limits, struck: false }
    }

    async fn look_frozen(&self) -> Result<Proof, String> {
        match self.control.is_frozen().await {
            Ok(true) => {}
            Ok(false) => return Err("the engine sees it going on".to_owned()),
            Err(cause) => return Err(cause.to_string()),
        }
        let silence = Duration::from_millis(self.limits.silence_ms);
        match greet(self.control.address(), self.greeting, silence).await {
            Ok(after) => Err(format!("it answered after {} ms", after.as_millis())),
            Err(seen) => Ok(self.proof("service_frozen", json!(seen)).await),
        }
    }

    async fn proof(&self, kind: &str, greeting: Value) -> Proof {
        let engine = self.control.probe().await.unwrap_or_else(|cause| json!({ "error": cause.to_string() }));
        let address = self.control.address().to_string();
        Proof::new(
            kind,
            json!({ "service": self.control.name(), "address": address, "greeting": greeting, "engine": engine }),
        )
    }
}

impl Harm for ServiceFreeze {
    fn name(&self) -> &str {
        self.name
    }

    fn targets(&self) -> Vec<Target> {
        vec![Target::Service { name: self.control.name(), address: self.control.address() }]
    }

    async fn strike(&mut self) -> Result<Proof, InstallError> {
        let limit = Duration::from_millis(self.limits.thaw_ms_max);
        greet(self.control.address(), self.greeting, limit).await.map_err(refused("greet it before freezing it"))?;
        self.struck = true;
        self.control.freeze().await.map_err(refused("freeze it"))?;
        let wait = Wait::of_ms(self.limits.freeze_ms_max);
        loop {
            match self.look_frozen().await {
                Ok(proof) => return Ok(proof),
                Err(seen) => wait.for_landing(self.name, seen).await?,
            }
        }
    }

    async fn look(&mut self) -> Result<Proof, ProofError> {
        self.look_frozen().await.map_err(ProofError::NoHarm)
    }

    async fn undo(&mut self) -> Result<Proof, HealError> {
        if self.struck {
            self.control.thaw().await.map_err(unhealed("thaw it"))?;
        }
        let wait = Wait::of_ms(self.limits.thaw_ms_max);
        loop {
            let seen = match self.control.is_frozen().await {
                Ok(true) => "the engine sees it standing still".to_owned(),
                Ok(false) => {
                    let silence = Duration::from_millis(self.limits.silence_ms.max(1_000));
                    match greet(self.control.address(), self.greeting, silence).await {
                        Ok(after) => {
                            let after_ms = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
                            return Ok(self.proof("service_answers", json!({ "answered_after_ms": after_ms })).await);
                        }
                        Err(seen) => seen,
                    }
                }
                Err(cause) => cause.to_string(),
            };
            wait.for_healing(self.name, seen).await?;
        }
    }
}
