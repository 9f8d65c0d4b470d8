//! Forecastle's HTTP interface: who may come in, what may be asked, how it is answered.
//!
//! Not for SQL, Redis or forecast mathematics: those are the store's and the forecast crate's.

mod changing;
pub mod client_address;
pub mod config;
pub mod connections;
mod detached;
pub mod error;
mod extract;
mod gauges;
mod idempotent;
mod invitation;
pub mod key_ring;
mod layers;
pub mod mail;
pub mod openapi;
pub mod passwords;
mod product_events;
mod rate_limit;
mod reply;
mod router;
mod routes;
pub mod serve;
mod session_check;
mod state;
pub mod streams;
mod texts;
pub mod tokens;
mod verified_tokens;
mod wanted;

pub use client_address::{BadNetwork, TrustedNetwork};
pub use config::{ApiConfig, Limits, Rate};
pub use connections::ConnectionLimits;
pub use invitation::{BadAddress, Invited};
pub use key_ring::KeyRing;
pub use mail::MailConfig;
pub use openapi::openapi;
pub use serve::{ServeError, serve};
pub use streams::StreamLimits;
pub use tokens::{KeySet, KeySetError};
