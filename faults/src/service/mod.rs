//! Harm to a whole server, whatever it serves.

mod control;
mod freeze;
mod wire_probe;

pub use control::ServiceControl;
pub use freeze::{FreezeLimits, ServiceFreeze};
pub use wire_probe::{Greeting, greet, greet_at_length};
