//! Harm to PostgreSQL.

mod activity;
mod crash;
mod deadlocks;
mod disk_full;
mod held_transaction;
mod max_connections;
mod pool_exhaustion;
mod replay_pause;
mod serialization;
mod server_setting;
mod session;
mod slow_statement;

pub use crash::{PostgresCrash, PostgresCrashLimits};
pub use deadlocks::{Deadlocks, DeadlocksConfig};
pub use disk_full::{DiskFull, VolumeControl, VolumeUsage};
pub use held_transaction::{HeldTransaction, HeldTransactionConfig};
pub use max_connections::{MaxConnections, MaxConnectionsConfig};
pub use pool_exhaustion::{PoolExhaustion, PoolExhaustionConfig};
pub use replay_pause::ReplayPause;
pub use serialization::{SerializationConfig, SerializationFailures};
pub use slow_statement::{SlowStatement, SlowStatementConfig};
