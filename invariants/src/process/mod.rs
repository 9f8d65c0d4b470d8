//! Processes of the system live until the run ends them.

pub mod no_unplanned_exit;

pub use no_unplanned_exit::NoUnplannedExit;
