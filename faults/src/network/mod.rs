//! Harm to links, through a server that speaks Toxiproxy's HTTP API.

mod link_harm;
mod link_resets;
mod toxi_client;
mod wire;

pub use link_harm::{LinkHarm, LinkShows, LinksHurt};
pub use link_resets::{LinkResets, LinkResetsConfig};
pub use toxi_client::{ToxiClient, ToxiError};
pub use wire::{ProxySpec, ProxyView, Stream, Toxic, ToxicView};
