//! The payment provider's double: the oracle of what was really charged.

mod book;
mod events;
mod server;

pub use book::{Behaviour, BookSnapshot, Charge, ChargeAnswer, ProviderBook, ProviderCounts, SeenRequest};
pub use events::{EventSender, WebhookSecret, charge_succeeded};
pub use server::Provider;
