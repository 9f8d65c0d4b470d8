//! Harm to PostgreSQL.

mod activity;
mod pool_exhaustion;

pub use pool_exhaustion::{PoolExhaustion, PoolExhaustionConfig};
