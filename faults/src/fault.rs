//! What every fault can do: be installed, prove itself, be healed.
//!
//! Not for timing (see [`crate::schedule`]) and not for judging: the caller records the states
//! with their times and decides what a missing proof means.

use std::{fmt, future::Future, pin::Pin};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    blast_radius::{Grant, OutsideRadius, Target},
    network::ToxiError,
};

/// A boxed future, so that the traits here stay usable behind `dyn`.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// One kind of harm to one set of targets, with its undoing.
///
/// Order of calls: `install` once, `control_proof` any number of times while installed, `heal`
/// at least once. `heal` is legal in every state, also after a failed `install`, and a second
/// `heal` changes nothing.
pub trait Fault: Send {
    /// Stable name of the kind of harm, such as `redis-loss`.
    fn name(&self) -> &str;

    /// What will be touched; a [`Grant`] for exactly these is needed to install.
    fn targets(&self) -> Vec<Target>;

    /// How much harm a correct system may show under this fault.
    fn tolerance(&self) -> Tolerance;

    /// Does the harm and returns the first control proof.
    ///
    /// # Errors
    /// [`InstallError`]; part of the harm may stand then, so `heal` must follow.
    fn install<'a>(&'a mut self, grant: &'a Grant) -> BoxFuture<'a, Result<Proof, InstallError>>;

    /// Reads from the target that the harm is there now.
    ///
    /// # Errors
    /// [`ProofError`] when the target shows no harm, or cannot be asked.
    fn control_proof(&mut self) -> BoxFuture<'_, Result<Proof, ProofError>>;

    /// Undoes the harm and returns evidence, read from the target, that it is gone.
    ///
    /// # Errors
    /// [`HealError`]; the target must be taken as still hurt.
    fn heal(&mut self) -> BoxFuture<'_, Result<Proof, HealError>>;
}

/// Declared bounds of the harm a correct system may show.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tolerance {
    /// Least share of offered operations that must succeed during the fault, 0 to 1.
    pub goodput_ratio_min: f64,
    /// Longest stretch without any success while the fault is installed, milliseconds.
    pub outage_ms_max: u64,
    /// Longest time from heal to the steady state, milliseconds.
    pub recover_ms_max: u64,
}

/// How far a fault has come; the caller stamps each state with its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultState {
    /// Stands in the schedule, nothing was done.
    Planned,
    /// The harm is done and a control proof was read.
    Installed,
    /// A probe on the affected path showed the effect.
    Observed,
    /// The harm is undone and the undoing was read back.
    Removed,
    /// Probes are within their tolerances again.
    Recovered,
}

impl fmt::Display for FaultState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Planned => "planned",
            Self::Installed => "installed",
            Self::Observed => "observed",
            Self::Removed => "removed",
            Self::Recovered => "recovered",
        })
    }
}

/// Evidence read from a target; never a repetition of the request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Proof {
    /// Stable name of what was read, such as `process_gone`.
    pub kind: String,
    /// The reading: an object whose keys carry their units.
    pub detail: Value,
}

impl Proof {
    /// A proof of the named kind with the given reading.
    pub fn new(kind: impl Into<String>, detail: Value) -> Self {
        Self { kind: kind.into(), detail }
    }
}

/// Why a fault was not installed.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// The grant does not cover what the fault would touch.
    #[error(transparent)]
    OutsideRadius(#[from] OutsideRadius),
    /// The fault is installed already, or was healed and cannot be used again.
    #[error("{fault} was installed before")]
    Used {
        /// Name of the fault.
        fault: String,
    },
    /// A parameter does not make sense (a DSN that cannot be read, no role to fill as).
    #[error("parameter {parameter}: {reason}")]
    Parameter {
        /// Name of the parameter.
        parameter: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// The condition to strike at never came.
    #[error("{condition} did not hold within {limit_ms} ms")]
    ConditionNotMet {
        /// What was waited for.
        condition: String,
        /// The limit, milliseconds.
        limit_ms: u64,
    },
    /// The harm was attempted and the target shows none.
    #[error("{fault} did not land: {reason}")]
    DidNotLand {
        /// Name of the fault.
        fault: String,
        /// What the target showed instead.
        reason: String,
    },
    /// The target, or who controls it, could not be reached or refused.
    #[error("{step}: {reason}")]
    Target {
        /// What was being done.
        step: &'static str,
        /// The cause, without credentials.
        reason: String,
    },
    /// The proxy server failed or did not take a change.
    #[error(transparent)]
    Proxy(#[from] ToxiError),
}

/// Why no control proof could be given.
#[derive(Debug, thiserror::Error)]
pub enum ProofError {
    /// The target was read and is not hurt.
    #[error("the target shows no harm: {0}")]
    NoHarm(String),
    /// The target could not be read.
    #[error("the target could not be read: {0}")]
    Unreadable(String),
}

/// Why a fault was not undone; the run must end, for its target may still be hurt.
#[derive(Debug, thiserror::Error)]
pub enum HealError {
    /// The undoing was done and the target still shows harm at the limit.
    #[error("{fault} still shows after {limit_ms} ms: {reason}")]
    StillHurt {
        /// Name of the fault.
        fault: String,
        /// The limit, milliseconds.
        limit_ms: u64,
        /// What the target showed.
        reason: String,
    },
    /// The target, or who controls it, could not be reached or refused.
    #[error("{step}: {reason}")]
    Target {
        /// What was being done.
        step: &'static str,
        /// The cause, without credentials.
        reason: String,
    },
    /// The caller's deadline for healing passed.
    #[error("{fault} was not healed within {limit_ms} ms")]
    Deadline {
        /// Name of the fault.
        fault: String,
        /// The limit, milliseconds.
        limit_ms: u64,
    },
    /// The proxy server failed or did not take a change.
    #[error(transparent)]
    Proxy(#[from] ToxiError),
}

/// Failure reported by whoever owns a process or service (an engine, a supervisor).
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct ControlError(
    /// The cause in words, without credentials.
    pub String,
);

impl ControlError {
    /// Wraps any cause, with its whole chain of sources.
    pub fn from_cause(cause: &(dyn std::error::Error + 'static)) -> Self {
        let mut text = cause.to_string();
        let mut next = cause.source();
        while let Some(source) = next {
            text.push_str(": ");
            text.push_str(&source.to_string());
            next = source.source();
        }
        Self(text)
    }
}
