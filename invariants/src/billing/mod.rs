//! Money: nothing twice, nothing missed.

mod charges;
mod events;
pub mod exactly_once;
mod invoices;
mod ledger;
mod quota;
mod requests;
mod usage;

pub use exactly_once::ExactlyOnce;
