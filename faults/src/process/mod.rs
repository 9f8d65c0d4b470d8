//! Harm to processes: ended, asked to end, stopped, starved, or told the wrong time.

mod all_restarted;
mod clock;
mod control;
mod control_group;
mod cpu;
mod drain;
mod freeze;
mod identity;
mod kill;
mod mid_request;
mod resource_limit;
mod revival;
mod rolling;
mod storm;
mod victim;

pub(crate) use all_restarted::AllRestarted;
pub use clock::{CLOCK_IS_RIGHT, ClockApart};
pub use control::{AnyMoment, Burden, MidJobProbe, ProcessControl, ProcessEnding};
pub use control_group::{ControlGroup, remove_groups};
pub use cpu::CpuStarved;
pub use drain::ProcessDrain;
pub use freeze::ProcessFreeze;
pub use identity::ProcessIdentity;
pub use kill::{ProcessKill, ProcessKillLimits};
pub use mid_request::StruckMidRequest;
pub use resource_limit::{DescriptorsExhausted, MemoryExhausted};
pub use rolling::RollingRestart;
pub use storm::RestartStorm;
pub use victim::ProcessLimits;
