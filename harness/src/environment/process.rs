//! The process engine: the host's PostgreSQL and Redis in the run's scratch directory.
//!
//! PostgreSQL refuses to run as root; started by root, both servers run as an unprivileged user.

use std::sync::Arc;

use anyhow::{Context, Result};
use futures_util::future::BoxFuture;

use super::binaries::{ServerBinaries, Unprivileged};
use super::engine::{Engine, EngineKind, PostgresSpec, RedisSpec, ServerProcess as _};
use super::host_server::{HostProgram, HostServer};
use super::registration::Registration;
use super::replication::ReplicationSource;
use super::servers::{PostgresServer, RedisServer, random_password};
use super::volume::may_mount;

/// Log that a server keeps for its replicas, whatever their slots say: far more than starting up writes.
const WAL_KEEP_MIB: u32 = 256;

/// The engine over the host's binaries.
pub struct ProcessEngine {
    run: Arc<Registration>,
    binaries: ServerBinaries,
    user: Option<Unprivileged>,
}

impl ProcessEngine {
    /// Finds the binaries and, if started by root, the user to run them as.
    ///
    /// # Errors
    /// If PostgreSQL, Redis or such a user is missing; the message names the fix.
    pub fn find(run: Arc<Registration>) -> Result<Self> {
        Ok(Self { run, binaries: ServerBinaries::find()?, user: Unprivileged::for_servers()? })
    }
}

impl ProcessEngine {
    async fn postgres(
        &self,
        spec: &PostgresSpec,
        copy_of: Option<ReplicationSource>,
        password: String,
    ) -> Result<PostgresServer> {
        let program = HostProgram::Postgres {
            folder: self.binaries.postgres_folder.clone(),
            postgres: self.binaries.postgres_folder.join("postgres"),
            arguments: postgres_arguments(spec),
            copy_of,
            data_mib_max: spec.data_mib_max,
        };
        let server = HostServer::prepare(&self.run, &spec.name, program, &password, self.user)?;
        server.start(true).await?;
        PostgresServer::when_ready(Box::new(server), password).await
    }
}

impl Engine for ProcessEngine {
    fn kind(&self) -> EngineKind {
        EngineKind::Process
    }

    fn description(&self) -> String {
        match self.user {
            Some(user) => format!("host binaries as uid {}", user.uid),
            None => "host binaries as the calling user".to_owned(),
        }
    }

    fn can_size_volumes(&self) -> Result<()> {
        may_mount()
    }

    fn start_postgres<'a>(&'a self, spec: &'a PostgresSpec) -> BoxFuture<'a, Result<PostgresServer>> {
        Box::pin(async move {
            let password = random_password();
            self.postgres(spec, None, password).await.context("start postgres process")
        })
    }

    fn start_replica<'a>(
        &'a self,
        spec: &'a PostgresSpec,
        primary: &'a PostgresServer,
    ) -> BoxFuture<'a, Result<PostgresServer>> {
        Box::pin(async move {
            let source = ReplicationSource::of(spec, primary).await?;
            let password = primary.admin_password().to_owned();
            self.postgres(spec, Some(source), password).await.with_context(|| format!("start {} process", spec.name))
        })
    }

    fn start_redis<'a>(&'a self, spec: &'a RedisSpec) -> BoxFuture<'a, Result<RedisServer>> {
        Box::pin(async move {
            let password = random_password();
            let program = HostProgram::Redis { redis: self.binaries.redis.clone() };
            let settings = redis_settings(spec, &password);
            let server = HostServer::prepare(&self.run, &spec.name, program, &settings, self.user)?;
            server.start(true).await.context("start redis process")?;
            RedisServer::when_ready(Box::new(server), password).await
        })
    }
}

/// Settings of every PostgreSQL server on both engines, as arguments after `postgres`. The port
/// and the address to listen on are the engine's.
pub(super) fn postgres_arguments(spec: &PostgresSpec) -> Vec<String> {
    let mut settings = vec![
        format!("max_connections={}", spec.max_connections),
        format!("shared_buffers={}MB", spec.shared_buffers_mib),
        "unix_socket_directories=".to_owned(),
        "fsync=on".to_owned(),
        "synchronous_commit=on".to_owned(),
        // A slot that is made beside a running checkpoint is invalidated where its segment is recycled.
        format!("wal_keep_size={WAL_KEEP_MIB}MB"),
        "timezone=UTC".to_owned(),
        "log_timezone=UTC".to_owned(),
        "password_encryption=scram-sha-256".to_owned(),
        "log_min_messages=warning".to_owned(),
        "logging_collector=off".to_owned(),
    ];
    settings.extend(spec.settings.iter().cloned());
    settings.into_iter().flat_map(|setting| ["-c".to_owned(), setting]).collect()
}

/// Settings of every Redis server on both engines, in the form of its configuration file. The
/// port, the address and the working directory are the engine's.
pub(super) fn redis_settings(spec: &RedisSpec, password: &str) -> String {
    format!(
        "requirepass {password}\nsave \"\"\nappendonly no\ndaemonize no\nmaxmemory {}mb\n\
         maxmemory-policy allkeys-lru\n",
        spec.memory_mib_max
    )
}
