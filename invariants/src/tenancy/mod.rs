//! Tenants do not see each other.

pub mod isolation;

pub use isolation::Isolation;
