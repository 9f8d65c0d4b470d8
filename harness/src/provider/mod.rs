//! The payment provider's double: the oracle of what was really charged.

mod book;
mod server;

pub use book::{Behaviour, BookSnapshot, Charge, ChargeAnswer, ProviderBook, ProviderCounts, SeenRequest};
pub use server::Provider;
