//! Claims, leases and runs forecast jobs.
//!
//! Order of events for a job: claim (attempt counted), heartbeats beside the computation, one settling
//! statement under the claim's fence, then the cache keys that changed. Not for the queue's SQL: that is
//! the store's.

mod completions;
mod compute;
pub mod config;
mod heartbeat;
mod jobs;
mod lease;
mod prune;
mod settle;
mod work;

pub use config::WorkerConfig;
pub use work::{WorkError, work};
