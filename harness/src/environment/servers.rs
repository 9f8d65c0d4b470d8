//! PostgreSQL and Redis as handles: address, credentials, kill, restart, readiness.
//!
//! The same on both engines. Ready means that the server answered a query or a ping, since an
//! open port proves nothing: a container engine accepts connections for servers that are down.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use sqlx::{Connection as _, PgConnection};
use tokio::time::Instant;

use super::engine::{ServerOrigin, ServerProcess};

/// First start with initdb, or recovery after a kill, on a loaded machine.
const POSTGRES_READY_LIMIT: Duration = Duration::from_secs(90);
/// Redis has nothing to load.
const REDIS_READY_LIMIT: Duration = Duration::from_secs(30);
/// One attempt at connecting and asking.
const ATTEMPT_LIMIT: Duration = Duration::from_secs(3);
/// Pause between two attempts.
const POLL_EVERY: Duration = Duration::from_millis(50);

/// The superuser's name on every PostgreSQL server that an engine starts.
pub const POSTGRES_ADMIN: &str = "postgres";

/// A PostgreSQL server; clones are handles of the same one.
#[derive(Clone)]
pub struct PostgresServer {
    process: Arc<dyn ServerProcess>,
    admin_password: String,
    version: String,
}

/// A Redis server.
pub struct RedisServer {
    process: Box<dyn ServerProcess>,
    password: String,
    version: String,
}

impl PostgresServer {
    /// Waits until the server answers a query. `admin_password` is that of [`POSTGRES_ADMIN`].
    ///
    /// # Errors
    /// If it does not within 90 s; with the tail of its log. The server is removed then.
    pub async fn when_ready(process: Box<dyn ServerProcess>, admin_password: String) -> Result<Self> {
        let mut server = Self { process: process.into(), admin_password, version: String::new() };
        match server.wait_until_ready().await {
            Ok(version) => {
                server.version = version;
                Ok(server)
            }
            Err(error) => {
                let _ = server.process.remove().await;
                Err(error)
            }
        }
    }

    /// Where it listens, without a proxy; the same after every restart.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.process.address()
    }

    /// DSN of the superuser for `database`, past every proxy.
    #[must_use]
    pub fn admin_dsn(&self, database: &str) -> String {
        dsn(POSTGRES_ADMIN, &self.admin_password, self.address(), database)
    }

    /// Where another server of the same engine connects, to stream from it.
    ///
    /// # Errors
    /// If the engine cannot tell.
    pub async fn address_among_servers(&self) -> Result<SocketAddr> {
        self.process.address_among_servers().await
    }

    /// The superuser's password: a copy of the server's data has the same.
    pub(super) fn admin_password(&self) -> &str {
        &self.admin_password
    }

    /// Image or binary, digest and version, for the manifest.
    #[must_use]
    pub fn origin(&self) -> ServerOrigin {
        let (source, digest) = self.process.origin();
        ServerOrigin { source, digest, version: self.version.clone() }
    }

    /// SIGKILL to the server and its children; returns when all are gone.
    ///
    /// # Errors
    /// If the engine refuses or a process outlives its limit.
    pub async fn kill(&self) -> Result<()> {
        self.process.kill().await.context("kill postgres")
    }

    /// Starts it again on its data and waits until it answers.
    ///
    /// # Errors
    /// If it does not within 90 s; with the tail of its log.
    pub async fn start_again(&self) -> Result<()> {
        self.process.start(false).await.context("start postgres again")?;
        self.wait_until_ready().await.map(drop)
    }

    /// Whether its main process runs.
    ///
    /// # Errors
    /// If the engine cannot tell.
    pub async fn is_alive(&self) -> Result<bool> {
        self.process.is_alive().await
    }

    /// Stops all of it where it stands; returns when nothing of it goes on. May be called again.
    ///
    /// # Errors
    /// If the engine refuses or something of it goes on past its limit.
    pub async fn freeze(&self) -> Result<()> {
        self.process.freeze().await.context("freeze postgres")
    }

    /// Lets it go on. Without effect on what goes on.
    ///
    /// # Errors
    /// If the engine refuses or something of it stands still past its limit.
    pub async fn thaw(&self) -> Result<()> {
        self.process.thaw().await.context("thaw postgres")
    }

    /// Whether all of it stands still.
    ///
    /// # Errors
    /// If the engine cannot tell.
    pub async fn is_frozen(&self) -> Result<bool> {
        self.process.is_frozen().await
    }

    /// What it runs as underneath: its volume of a set size is reached there.
    #[must_use]
    pub fn process(&self) -> Arc<dyn ServerProcess> {
        Arc::clone(&self.process)
    }

    /// Ends it and removes its data. May be called again.
    ///
    /// # Errors
    /// If something of it stays.
    pub async fn stop(&self) -> Result<()> {
        self.process.remove().await.context("remove postgres")
    }

    /// The last lines of its log.
    pub async fn log_tail(&self) -> String {
        self.process.log_tail().await
    }

    async fn wait_until_ready(&self) -> Result<String> {
        let dsn = self.admin_dsn("postgres");
        wait_until("postgres", POSTGRES_READY_LIMIT, self.process.as_ref(), || async {
            let mut connection = PgConnection::connect(&dsn).await?;
            let version: String = sqlx::query_scalar("SHOW server_version").fetch_one(&mut connection).await?;
            connection.close().await?;
            Ok(version)
        })
        .await
    }
}

impl RedisServer {
    /// Waits until the server answers a ping.
    ///
    /// # Errors
    /// If it does not within 30 s; with the tail of its log. The server is removed then.
    pub async fn when_ready(process: Box<dyn ServerProcess>, password: String) -> Result<Self> {
        let mut server = Self { process, password, version: String::new() };
        match server.wait_until_ready().await {
            Ok(version) => {
                server.version = version;
                Ok(server)
            }
            Err(error) => {
                let _ = server.process.remove().await;
                Err(error)
            }
        }
    }

    /// Where it listens, without a proxy; the same after every restart.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.process.address()
    }

    /// What its clients authenticate with.
    #[must_use]
    pub fn password(&self) -> &str {
        &self.password
    }

    /// URL with the password, past every proxy.
    #[must_use]
    pub fn url(&self) -> String {
        self.url_at(self.address())
    }

    /// URL with the password by way of `address`, such as a proxy's.
    #[must_use]
    pub fn url_at(&self, address: SocketAddr) -> String {
        format!("redis://:{}@{address}/0", self.password)
    }

    /// Image or binary, digest and version, for the manifest.
    #[must_use]
    pub fn origin(&self) -> ServerOrigin {
        let (source, digest) = self.process.origin();
        ServerOrigin { source, digest, version: self.version.clone() }
    }

    /// SIGKILL; returns when it is gone.
    ///
    /// # Errors
    /// If the engine refuses or the process outlives its limit.
    pub async fn kill(&self) -> Result<()> {
        self.process.kill().await.context("kill redis")
    }

    /// Starts it again, empty, on the same address, and waits until it answers.
    ///
    /// # Errors
    /// If it does not within 30 s; with the tail of its log.
    pub async fn start_again_empty(&self) -> Result<()> {
        self.process.start(true).await.context("start redis again")?;
        self.wait_until_ready().await.map(drop)
    }

    /// Whether its main process runs.
    ///
    /// # Errors
    /// If the engine cannot tell.
    pub async fn is_alive(&self) -> Result<bool> {
        self.process.is_alive().await
    }

    /// Stops all of it where it stands; returns when nothing of it goes on. May be called again.
    ///
    /// # Errors
    /// If the engine refuses or something of it goes on past its limit.
    pub async fn freeze(&self) -> Result<()> {
        self.process.freeze().await.context("freeze redis")
    }

    /// Lets it go on. Without effect on what goes on.
    ///
    /// # Errors
    /// If the engine refuses or something of it stands still past its limit.
    pub async fn thaw(&self) -> Result<()> {
        self.process.thaw().await.context("thaw redis")
    }

    /// Whether all of it stands still.
    ///
    /// # Errors
    /// If the engine cannot tell.
    pub async fn is_frozen(&self) -> Result<bool> {
        self.process.is_frozen().await
    }

    /// Ends it. May be called again.
    ///
    /// # Errors
    /// If something of it stays.
    pub async fn stop(&self) -> Result<()> {
        self.process.remove().await.context("remove redis")
    }

    async fn wait_until_ready(&self) -> Result<String> {
        let client = redis::Client::open(self.url())?;
        wait_until("redis", REDIS_READY_LIMIT, self.process.as_ref(), || async {
            let mut connection = client.get_multiplexed_async_connection().await?;
            let info: String = redis::cmd("INFO").arg("server").query_async(&mut connection).await?;
            info.lines()
                .find_map(|line| line.strip_prefix("redis_version:"))
                .map(|version| version.trim().to_owned())
                .context("INFO names no redis_version")
        })
        .await
    }
}

/// A PostgreSQL DSN. `password` must need no escaping: engines generate hexadecimal ones.
#[must_use]
pub fn dsn(user: &str, password: &str, address: SocketAddr, database: &str) -> String {
    format!("postgres://{user}:{password}@{address}/{database}?sslmode=disable")
}

/// A password of 128 random bits, in hexadecimal digits.
#[must_use]
pub fn random_password() -> String {
    hex::encode(rand::random::<[u8; 16]>())
}

/// Asks until there is an answer, at most for `limit`; gives up at once when the process is gone.
async fn wait_until<F, A>(what: &str, limit: Duration, process: &dyn ServerProcess, ask: F) -> Result<String>
where
    F: Fn() -> A,
    A: Future<Output = Result<String>>,
{
    let deadline = Instant::now() + limit;
    loop {
        let failure = match tokio::time::timeout(ATTEMPT_LIMIT, ask()).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(error)) => format!("{error:#}"),
            Err(_) => format!("no answer within {} s", ATTEMPT_LIMIT.as_secs()),
        };
        let alive = process.is_alive().await.unwrap_or(true);
        if !alive || Instant::now() > deadline {
            let why = if alive { format!("not ready within {} s", limit.as_secs()) } else { "ended".to_owned() };
            let log = process.log_tail().await;
            bail!("{what} at {}: {why}: {failure}; its log ends:\n{log}", process.address());
        }
        tokio::time::sleep(POLL_EVERY).await;
    }
}
