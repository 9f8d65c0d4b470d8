//! The real binary: its processes, its sinks, its drain, and what leaves it.

mod alerts;
mod bad_requests;
mod biller;
mod crowds;
mod outage;
mod privacy;
mod process;
mod raw_client;
mod restart;
mod schema;
mod sink;
mod slow_clients;
mod workers;
