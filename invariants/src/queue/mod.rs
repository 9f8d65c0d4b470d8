//! Jobs: none lost, none done twice.

pub mod completed_once;
pub mod no_lost_jobs;

pub use completed_once::CompletedOnce;
pub use no_lost_jobs::NoLostJobs;
