//! Errors and latency, phase by phase.

pub mod errors;
pub mod latency;

pub use errors::Errors;
pub use latency::Latency;
