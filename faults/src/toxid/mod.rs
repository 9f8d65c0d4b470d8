//! A server that speaks Toxiproxy's HTTP API, to run inside a process.
//!
//! Per connection there are two links, per link a chain of stages, one per toxic. Differs from
//! the official server in that a half-closed connection stays half-closed, and in that all
//! random draws follow from the seed, the proxy, the connection's number, the direction and the
//! toxic's name.

mod api;
mod api_error;
mod chain;
mod connection;
mod link;
mod proxy;
mod registry;
mod server;
mod stage;
mod toxic;

pub use server::{ToxidHandle, ToxidOptions, ToxidServer};
