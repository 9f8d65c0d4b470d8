//! Planted bugs: the proof that the laws can fail.
//!
//! [`catalogue`] reads what is planted and which law has to notice; [`scratch`] is the copy of the workspace that the
//! patches go into; [`trial`] runs one and sorts its outcome.

pub mod catalogue;
pub mod scratch;
pub mod trial;
