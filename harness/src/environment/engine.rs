//! What an engine provides: PostgreSQL and Redis, each started, killed, restarted, removed.
//!
//! Two implementations, `docker.rs` and `process.rs`. The system's own processes run on the host
//! under both (`supervisor.rs`). The choice between the engines is in `engine_choice.rs`.

use std::fmt;
use std::net::SocketAddr;

use anyhow::Result;
use futures_util::future::BoxFuture;
use nogo_faults::VolumeUsage;
use serde::{Deserialize, Serialize};

use super::servers::{PostgresServer, RedisServer};

/// The engine that ran is part of the verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EngineKind {
    /// Containers, through anything that speaks Docker's API.
    Docker,
    /// The host's own server binaries.
    Process,
}

impl EngineKind {
    /// Both.
    pub const ALL: [EngineKind; 2] = [EngineKind::Docker, EngineKind::Process];
}

impl fmt::Display for EngineKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Docker => "docker",
            Self::Process => "process",
        })
    }
}

/// How a PostgreSQL server is set up. Durable in every case: fsync is never turned off.
#[derive(Debug, Clone)]
pub struct PostgresSpec {
    /// Name in logs and records, such as `postgres`.
    pub name: String,
    /// `max_connections`: the sum of all pools, checkers and reserves.
    pub max_connections: u32,
    /// `shared_buffers` in MiB.
    pub shared_buffers_mib: u32,
    /// Further settings, as `name=value` for the command line.
    pub settings: Vec<String>,
    /// Size of the volume that the data lie on, the log excepted, MiB; none is the host's disk.
    pub data_mib_max: Option<u32>,
}

impl Default for PostgresSpec {
    fn default() -> Self {
        Self {
            name: "postgres".to_owned(),
            max_connections: 100,
            shared_buffers_mib: 128,
            settings: Vec::new(),
            data_mib_max: None,
        }
    }
}

impl PostgresSpec {
    /// A small replica named `name` of a server with this `max_connections`; PostgreSQL asks for at least as
    /// many of a standby as its primary has.
    #[must_use]
    pub fn replica(name: &str, max_connections: u32) -> Self {
        Self { name: name.to_owned(), max_connections, shared_buffers_mib: 32, ..Self::default() }
    }
}

/// How a Redis server is set up: a cache, with a password, that writes nothing to disk.
#[derive(Debug, Clone)]
pub struct RedisSpec {
    /// Name in logs and records, such as `redis`.
    pub name: String,
    /// `maxmemory` in MiB, evicted by `allkeys-lru`.
    pub memory_mib_max: u32,
}

impl Default for RedisSpec {
    fn default() -> Self {
        Self { name: "redis".to_owned(), memory_mib_max: 128 }
    }
}

/// What a server was started from, for the manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerOrigin {
    /// Image name, or the path of the binary.
    pub source: String,
    /// Image id (`sha256:…`), or `sha256:` and the digest of the binary.
    pub digest: String,
    /// The version as the server itself tells it.
    pub version: String,
}

/// One server as an engine runs it, underneath [`PostgresServer`] and [`RedisServer`].
///
/// No method waits for readiness but as said; the servers above ask the server itself.
pub trait ServerProcess: Send + Sync {
    /// Where it listens; the same after every restart.
    fn address(&self) -> SocketAddr;
    /// Where another server of the same engine reaches it: among containers, not by the mapped port.
    fn address_among_servers(&self) -> BoxFuture<'_, Result<SocketAddr>>;
    /// SIGKILL to all of it, children too; returns when all of them are gone.
    fn kill(&self) -> BoxFuture<'_, Result<()>>;
    /// Starts it again, with its data or, if `empty`, without; returns before it is ready.
    fn start(&self, empty: bool) -> BoxFuture<'_, Result<()>>;
    /// Whether its main process runs.
    fn is_alive(&self) -> BoxFuture<'_, Result<bool>>;
    /// Stops all of it where it stands; returns when nothing of it goes on. May be called again.
    fn freeze(&self) -> BoxFuture<'_, Result<()>>;
    /// Lets all of it go on. Without effect on what goes on.
    fn thaw(&self) -> BoxFuture<'_, Result<()>>;
    /// Whether all of it stands still.
    fn is_frozen(&self) -> BoxFuture<'_, Result<bool>>;
    /// Size and room of the volume of a set size that its data lie on; an error where they lie on none.
    fn volume_usage(&self) -> BoxFuture<'_, Result<VolumeUsage>>;
    /// Fills that volume to the last byte.
    fn fill_volume(&self) -> BoxFuture<'_, Result<()>>;
    /// Gives back what filled it. Without effect if nothing does.
    fn release_volume(&self) -> BoxFuture<'_, Result<()>>;
    /// Ends it and removes all it had, data included. May be called again.
    fn remove(&self) -> BoxFuture<'_, Result<()>>;
    /// The last lines of its log, for error messages.
    fn log_tail(&self) -> BoxFuture<'_, String>;
    /// Image or binary and its digest.
    fn origin(&self) -> (String, String);
}

/// Provisions servers. Everything it makes carries the run's marks, so that a sweep finds it.
pub trait Engine: Send + Sync {
    /// Which of the two.
    fn kind(&self) -> EngineKind;
    /// The engine itself in one line for the manifest, such as `docker 20.10.24`.
    fn description(&self) -> String;
    /// Whether it can put a server's data on a volume of a set size.
    ///
    /// # Errors
    /// Why not, with the fix.
    fn can_size_volumes(&self) -> Result<()>;
    /// Starts a PostgreSQL server and waits until it answers a query.
    ///
    /// # Errors
    /// If it does not answer within its limit; with the tail of its log.
    fn start_postgres<'a>(&'a self, spec: &'a PostgresSpec) -> BoxFuture<'a, Result<PostgresServer>>;
    /// Starts a server from a copy of `primary`, which goes on streaming from it under the name of `spec`
    /// and a slot of that name, and waits until it answers a query.
    ///
    /// # Errors
    /// If no copy can be made or it does not answer within its limit; with the tail of its log.
    fn start_replica<'a>(
        &'a self,
        spec: &'a PostgresSpec,
        primary: &'a PostgresServer,
    ) -> BoxFuture<'a, Result<PostgresServer>>;
    /// Starts a Redis server and waits until it answers a ping.
    ///
    /// # Errors
    /// If it does not answer within its limit; with the tail of its log.
    fn start_redis<'a>(&'a self, spec: &'a RedisSpec) -> BoxFuture<'a, Result<RedisServer>>;
}
