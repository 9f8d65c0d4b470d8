//! Reads evidence and gives a verdict; never touches the world.
//!
//! Evidence is the record of a run ([`history`]), the rows left behind ([`final_state`]) and what
//! the run was ([`evidence`]). Everything here is a pure function of it: same evidence, same
//! verdict, same bytes. No clock, no randomness, no I/O.

pub mod auth;
pub mod billing;
pub mod canary;
pub mod checker;
pub mod evidence;
pub mod final_state;
pub mod floors;
pub mod forecast;
pub mod history;
pub mod laws;
pub mod load;
pub mod model;
pub mod normalise;
pub mod privacy;
pub mod process;
pub mod queue;
pub mod report;
pub mod results;
pub mod rows;
pub mod slo;
pub mod specimen;
pub mod store;
pub mod story;
pub mod tampers;
pub mod tenancy;
pub mod timeline;
pub mod verdict;

pub use canary::Canaries;
pub use checker::{Breach, Case, Checker, Finding, judge};
pub use evidence::{Evidence, Manifest, Settings};
pub use final_state::FinalState;
pub use history::Event;
pub use results::Results;
pub use verdict::{Answer, Launch, Verdict, Violation, merge};
