//! What must not be written down anywhere.

pub mod no_pii;

pub use no_pii::NoPii;
