//! Settings of the connections that clients make to `serve`, and the file descriptors they need.

use std::time::Duration;

use clap::{Args, value_parser};
use forecastle_api::ConnectionLimits;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// File descriptors for everything else: databases, Redis, the provider, sinks, files.
const OTHER_FILES: u64 = 256;

/// Connections of clients.
#[derive(Args)]
pub(crate) struct ConnectionArgs {
    /// Most connections at once. At the cap a newcomer takes the place of the one that has waited longest for
    /// its own client; where all have a request at work it is answered 503.
    #[arg(long, env = "FORECASTLE_CONNECTIONS_MAX", default_value_t = 4_096, value_parser = value_parser!(u32).range(1..))]
    connections_max: u32,
    /// Longest wait for the whole head of a request; then 408.
    #[arg(long, env = "FORECASTLE_HEAD_TIMEOUT_MS", default_value_t = 10_000, value_parser = value_parser!(u64).range(10..))]
    head_timeout_ms: u64,
    /// Longest silence between two requests of a connection.
    #[arg(long, env = "FORECASTLE_IDLE_TIMEOUT_MS", default_value_t = 75_000, value_parser = value_parser!(u64).range(10..))]
    idle_timeout_ms: u64,
    /// Longest wait for the whole body of a request; then 408.
    #[arg(long, env = "FORECASTLE_BODY_TIMEOUT_MS", default_value_t = 5_000, value_parser = value_parser!(u64).range(10..))]
    body_timeout_ms: u64,
    /// Longest time for a client to read an answer, or what a stream has told it so far.
    #[arg(long, env = "FORECASTLE_WRITE_TIMEOUT_MS", default_value_t = 30_000, value_parser = value_parser!(u64).range(10..))]
    write_timeout_ms: u64,
    /// How long what a refused client still sends is read and thrown away.
    #[arg(long, env = "FORECASTLE_LINGER_MS", default_value_t = 1_000)]
    linger_ms: u64,
    /// Most headers of a request.
    #[arg(long, env = "FORECASTLE_HEADERS_MAX", default_value_t = 100, value_parser = value_parser!(u16).range(1..))]
    headers_max: u16,
    /// Most bytes of path, query and headers of a request.
    #[arg(long, env = "FORECASTLE_HEADER_BYTES_MAX", default_value_t = 16_384, value_parser = value_parser!(u32).range(1_024..=1_048_576))]
    header_bytes_max: u32,
    /// Most bytes of bodies held at once over all requests; further ones are answered 503.
    #[arg(long, env = "FORECASTLE_BODIES_BYTES_MAX", default_value_t = 67_108_864)]
    bodies_bytes_max: usize,
}

impl ConnectionArgs {
    /// Largest head, bytes.
    pub(crate) fn header_bytes_max(&self) -> usize {
        self.header_bytes_max as usize
    }

    /// The limits, the cap within what this process may open.
    pub(crate) fn limits(&self) -> ConnectionLimits {
        let wanted = u64::from(self.connections_max);
        let max = wanted.min(allow_files(wanted + OTHER_FILES).saturating_sub(OTHER_FILES)).max(1);
        if max < wanted {
            tracing::warn!("too few file descriptors for the connections wanted; fewer are taken");
        }
        ConnectionLimits {
            max: usize::try_from(max).unwrap_or(usize::MAX),
            head: Duration::from_millis(self.head_timeout_ms),
            idle: Duration::from_millis(self.idle_timeout_ms),
            body: Duration::from_millis(self.body_timeout_ms),
            write: Duration::from_millis(self.write_timeout_ms),
            linger: Duration::from_millis(self.linger_ms),
            headers_max: usize::from(self.headers_max),
            bodies_bytes_max: self.bodies_bytes_max,
        }
    }
}

/// Raises this process's limit of open files to what is wanted, as far as it may; what it then is.
fn allow_files(wanted: u64) -> u64 {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let current_max = current.unwrap_or(u64::MAX);
    let raised = wanted.min(maximum.unwrap_or(u64::MAX));
    if current_max >= raised || setrlimit(Resource::Nofile, Rlimit { current: Some(raised), maximum }).is_err() {
        return current_max;
    }
    raised
}
