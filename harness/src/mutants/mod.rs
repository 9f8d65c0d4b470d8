//! Planted bugs: the proof that the laws can fail.
//!
//! [`catalogue`] reads what is planted and which law has to notice; [`scratch`] is the copy of the workspace that the
//! patches go into; `replaced` finds a patch that would change nothing; [`trial`] runs one, then under a milder fault,
//! and sorts its outcome; `suite_run` is one of these runs.

pub mod catalogue;
mod replaced;
pub mod scratch;
mod suite_run;
pub mod trial;
