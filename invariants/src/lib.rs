//! Reads evidence and gives a verdict; never touches the world.
//!
//! Evidence is the record of a run ([`history`]), the rows left behind ([`final_state`]) and what
//! the run was ([`evidence`]). Everything here is a pure function of it: same evidence, same
//! verdict, same bytes. No clock, no randomness, no I/O.

pub mod canary;
pub mod evidence;
pub mod final_state;
pub mod history;
pub mod model;

pub use canary::Canaries;
pub use evidence::{Evidence, Manifest, Settings};
pub use final_state::FinalState;
pub use history::Event;
