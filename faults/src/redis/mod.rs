//! Harm to Redis.

mod admin;
mod client_kill;
mod demotion;
mod flush;
mod loss;
mod memory_full;
mod repeated;

pub use client_kill::RedisClientKill;
pub use demotion::RedisDemotion;
pub use flush::RedisFlush;
pub use loss::{RedisLoss, RedisLossLimits};
pub use memory_full::{RedisMemoryFull, WhenFull};
