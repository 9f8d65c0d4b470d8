//! The place where a part that knows a protocol reads, changes or ends what a connection carries.
//!
//! An inspector stands between the client and the toxics, one for each accepted connection:
//!
//! ```text
//! client socket <-> inspector <-> toxics, one chain per direction <-> server socket
//! ```
//!
//! It does the relaying itself: whatever it does not write does not arrive. Toxics act on what it
//! lets through, so a link can be slow and inspected at once. A connection whose factory gives none
//! is carried without it and pays nothing.
//!
//! Contract of [`Inspector::relay`]:
//! - It is called once, when the upstream has taken the connection, and runs in that connection's
//!   task. Both directions must be driven concurrently; blocking stops the connection.
//! - Reading 0 bytes from one side says that this side sends no more; the other direction goes on.
//!   To pass that on, shut down the writes of the other side.
//! - It ends by returning: with [`Ending::Close`] what it wrote is still delivered to both sides
//!   (to the server through the toxics, for at most [`DRAIN_MS_MAX`]), then both sockets are
//!   closed; with [`Ending::Reset`] both peers see a reset at once, and what is under way is lost.
//! - Where the server, or a toxic, ends the connection first, the server's side reads 0 bytes and
//!   refuses writes; the inspector then has [`DRAIN_MS_MAX`] to hand on what it holds.
//! - It is dropped in the middle when the proxy is disabled, moved or deleted, when the server
//!   stops, and when a toxic resets the connection: what it keeps outside of itself must stand that.
//! - Backpressure holds: up to [`PIPE_BYTES`] per direction lie between inspector and toxics.

use std::net::SocketAddr;

use tokio::io::{AsyncRead, AsyncWrite};

use crate::fault::BoxFuture;

/// What may lie between an inspector and the toxics, per direction.
pub const PIPE_BYTES: usize = 256 * 1024;

/// How long the rest may take to arrive once one part has ended the connection.
pub const DRAIN_MS_MAX: u64 = 1_000;

/// A connection that was accepted and has reached its upstream.
#[derive(Debug, Clone)]
pub struct Accepted {
    /// Name of the proxy.
    pub proxy: String,
    /// Number of the connection within its proxy, from 0, in the order of acceptance. It goes on
    /// over an outage of the proxy.
    pub connection: u64,
    /// Address of the client.
    pub client: SocketAddr,
    /// The server's seed, for draws of the inspector's own.
    pub seed: u64,
}

/// One peer of a connection, as an inspector reads and writes it.
pub struct Side<'a> {
    /// What this peer sends; 0 bytes when it sends no more.
    pub reads: Box<dyn AsyncRead + Send + Unpin + 'a>,
    /// What this peer is sent; shutting it down says that no more comes.
    pub writes: Box<dyn AsyncWrite + Send + Unpin + 'a>,
}

/// How an inspector ends its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// In the ordinary way, after what was written.
    Close,
    /// By a reset that both peers see.
    Reset,
}

/// Gives each connection of a proxy its inspector.
pub trait InspectorFactory: Send + Sync + 'static {
    /// The inspector of this connection, or none to carry it without one. Called in the
    /// connection's task, so connections may ask in another order than their numbers say.
    fn inspector(&self, connection: &Accepted) -> Option<Box<dyn Inspector>>;
}

/// Relays one connection; the module's text is its contract.
pub trait Inspector: Send {
    /// Carries what shall be carried between both sides until the connection shall end.
    fn relay<'a>(&'a mut self, client: Side<'a>, server: Side<'a>) -> BoxFuture<'a, Ending>;
}
