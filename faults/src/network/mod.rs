//! Harm to links, through a server that speaks Toxiproxy's HTTP API.

mod toxi_client;
mod wire;

pub use toxi_client::{ToxiClient, ToxiError};
pub use wire::{ProxySpec, ProxyView, Stream, Toxic, ToxicView};
