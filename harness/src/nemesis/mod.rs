//! The part that applies faults by schedule, proves each from outside, and heals it.
//!
//! [`planting`] turns a step into a fault and its probe; [`effect`] looks at the system along the hurt path;
//! [`drive`] goes through the schedule and records every state with its time.

pub mod drive;
pub mod effect;
pub mod planting;

pub use drive::{Nemesis, Realised};
pub use planting::{SKEW_S, window_ms_max};
