//! Forecasts: right, and the same every time.

mod contents;
pub mod correctness;
pub mod determinism;

pub(crate) use contents::content_sha256;
pub use correctness::Correctness;
pub use determinism::Determinism;
