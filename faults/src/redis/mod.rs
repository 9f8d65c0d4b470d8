//! Harm to Redis.

mod loss;

pub use loss::{RedisLoss, RedisLossLimits};
