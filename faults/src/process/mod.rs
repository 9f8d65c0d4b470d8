//! Harm to processes.

mod identity;
mod kill;

pub use identity::ProcessIdentity;
pub use kill::{MidJobProbe, ProcessControl, ProcessKill, ProcessKillLimits};
