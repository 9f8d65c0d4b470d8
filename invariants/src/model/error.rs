//! Why an oracle has no opinion. Not for violations: those are data of the answer.

use thiserror::Error;

use super::canonical::CanonicalError;

/// The oracle cannot say what was right; a checker reports `unknown` with this reason.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum OracleError {
    /// The scenario input is malformed or out of the written bounds.
    #[error("input {pointer}: {reason}")]
    Input {
        /// JSON pointer into the scenario input.
        pointer: String,
        /// What is wrong there.
        reason: String,
    },
    /// The outcome depends on random draws that the oracle does not repeat.
    #[error("not decidable without repeating the draws: {0}")]
    Undecided(String),
    /// The value has no canonical form.
    #[error(transparent)]
    Canonical(#[from] CanonicalError),
}

impl OracleError {
    pub(super) fn input(pointer: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Input { pointer: pointer.into(), reason: reason.into() }
    }
}
