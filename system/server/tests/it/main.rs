//! The real binary: its processes, its sinks, its drain, and what leaves it.

mod alerts;
mod biller;
mod outage;
mod privacy;
mod process;
mod restart;
mod schema;
mod sink;
mod workers;
