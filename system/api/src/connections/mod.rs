//! Connections to this instance: how many there may be, how long each may make it wait, and what one is told
//! whose bytes are no request.
//!
//! Not for what a request asks: that is the router's, which hears only of whole heads. Law: whatever a client
//! sends, does not send or does not read costs a bounded piece of memory for a bounded time, and keeps nobody
//! else out. Memory is at most `max` times a head and what an answer leaves waiting, and `bodies_bytes_max`.
//!
//! At the cap a newcomer takes the place of the connection that has waited longest for its own client (for a
//! head, the rest of a body, the next request, or the reading of an answer). Leaving newcomers in the kernel's
//! queue instead would let silent clients keep everybody out until a time-out; only where every connection has
//! a request at work is the newcomer refused, at once and with 503, so that it can ask another instance.

mod activity;
mod body;
mod client_stream;
mod connection;
mod listen;
mod own_answer;
mod registry;

use std::time::Duration;

pub(crate) use body::{BodyFault, fault_of};
pub(crate) use listen::serve_connections;

/// Limits of the connections of one instance.
#[derive(Debug, Clone, Copy)]
pub struct ConnectionLimits {
    /// Most connections at once; at least 1.
    pub max: usize,
    /// Longest wait for the whole head of a request, from the connection's opening or the head's first byte;
    /// then 408.
    pub head: Duration,
    /// Longest silence between two requests.
    pub idle: Duration,
    /// Longest wait for the whole body of a request; then 408.
    pub body: Duration,
    /// Longest time in which a client must have read all of an answer that is ready for it.
    pub write: Duration,
    /// How long what a refused client still sends is read and thrown away, so that it sees its answer and not
    /// a reset.
    pub linger: Duration,
    /// Most headers of a request.
    pub headers_max: usize,
    /// Most bytes of bodies held at once over all requests; further ones are refused with 503.
    pub bodies_bytes_max: usize,
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self {
            max: 4_096,
            head: Duration::from_secs(10),
            idle: Duration::from_secs(75),
            body: Duration::from_secs(5),
            write: Duration::from_secs(30),
            linger: Duration::from_secs(1),
            headers_max: 100,
            bodies_bytes_max: 64 << 20,
        }
    }
}
