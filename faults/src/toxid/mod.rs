//! A server that speaks Toxiproxy's HTTP API, to run inside a process or as the program `toxid`.
//!
//! Per connection there are two links, per link a chain of stages, one per toxic; between the
//! client and the links there may be an inspector that knows the protocol ([`inspector`]).
//! Differs from the official server in that a half-closed connection stays half-closed, in that
//! all random draws follow from the seed, the proxy, the connection's number, the direction and
//! the toxic's name, and in that a connection which reset_peer spares is closed without a reset.

mod api;
mod api_error;
mod board;
mod chain;
mod connection;
pub mod inspector;
mod link;
mod listen;
mod metrics;
mod proxy;
mod registry;
mod request;
mod server;
mod slices;
mod stage;
mod toxic;

pub use inspector::{Accepted, Ending, Inspector, InspectorFactory, Side};
pub use server::{ToxidHandle, ToxidOptions, ToxidServer};
