//! Doubles of what the system tells about itself to: error reports by Sentry's protocol, product analytics,
//! and alerts by a webhook; and a target to try alerts out with.
//!
//! They answer everything they can read with success. Whatever is to go wrong on the way is a rule of the proxy in front of them.

mod book;
mod drill;
mod server;

pub use book::{Language, SinkBook};
pub use drill::Drill;
pub use server::Sink;
