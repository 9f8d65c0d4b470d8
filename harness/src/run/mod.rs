//! One run from nothing to its verdict.
//!
//! [`execute`] owns the order of the phases and makes sure that everything is healed, stopped and recorded whatever
//! happens; [`phases`] does the phases; [`books`] runs the biller, [`one_pass`] as a victim; [`last_look`] reads what was left.

pub mod books;
pub mod execute;
pub mod last_look;
pub mod one_pass;
pub mod phases;

pub use execute::{Executed, Order, execute};
pub(crate) use execute::{cancel_on_signal, new_run_id, pump_process_events};
