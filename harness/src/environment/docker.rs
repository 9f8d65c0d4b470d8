//! The docker engine: PostgreSQL and Redis in containers, through testcontainers.
//!
//! Ports are pinned, so that a restart keeps them. Data lies in the container's layer and outlives
//! a kill. testcontainers removes containers on drop and on Ctrl-C; SIGKILL of the owner leaves
//! them to the sweep, which finds them by their labels.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use testcontainers::bollard::Docker;
use testcontainers::bollard::errors::Error as DockerError;
use testcontainers::bollard::query_parameters::{KillContainerOptions, LogsOptions};
use testcontainers::core::IntoContainerPort as _;
use testcontainers::runners::AsyncRunner as _;
use testcontainers::{ContainerAsync, ContainerRequest, GenericImage, ImageExt as _};
use tokio::sync::Mutex;

use super::docker_connection::{self, DockerConnection};
use super::engine::{Engine, EngineKind, PostgresSpec, RedisSpec, ServerProcess};
use super::free_port::free_port;
use super::images::{self, ChosenImage};
use super::log_tail::last_lines;
use super::process::{postgres_arguments, redis_settings};
use super::registration::Registration;
use super::replication::ReplicationSource;
use super::servers::{POSTGRES_ADMIN, PostgresServer, RedisServer, random_password};

const ENTRYPOINT: &str = include_str!("entrypoint.sh");
const POSTGRES_PORT: u16 = 5432;
const REDIS_PORT: u16 = 6379;
/// Time for the engine to report a killed container as ended.
const GONE_LIMIT: Duration = Duration::from_secs(15);
/// Pause between two looks at a container's state.
const POLL_EVERY: Duration = Duration::from_millis(20);
/// A pinned port may have been taken meanwhile; another one is drawn, so often.
const PORT_ATTEMPTS: u32 = 3;
/// Shared memory for PostgreSQL's parallel queries; Docker's default of 64 MiB is too small.
const SHARED_MEMORY_BYTES: u64 = 256 << 20;

/// Names of images that precede the environment's and the defaults.
#[derive(Debug, Clone, Default)]
pub struct ImageOverrides {
    /// For PostgreSQL.
    pub postgres: Option<String>,
    /// For Redis.
    pub redis: Option<String>,
}

/// The engine over containers.
pub struct DockerEngine {
    run: Arc<Registration>,
    connection: DockerConnection,
    description: String,
    postgres: ChosenImage,
    redis: ChosenImage,
}

impl DockerEngine {
    /// Connects to the engine and makes sure of both images; pulls only if `may_pull`.
    ///
    /// # Errors
    /// If no engine answers or an image cannot be had; the message names the fix.
    pub async fn connect(run: Arc<Registration>, overrides: &ImageOverrides, may_pull: bool) -> Result<Self> {
        let connection = docker_connection::connect().await?;
        let version = connection.docker.version().await.context("ask the engine's version")?;
        let choose = |names, name| images::choose(&connection.docker, names, name, may_pull);
        let postgres = choose(images::POSTGRES, overrides.postgres.as_deref()).await?;
        let redis = choose(images::REDIS, overrides.redis.as_deref()).await?;
        Ok(Self {
            run,
            description: format!(
                "docker {} at {}",
                version.version.as_deref().unwrap_or("of an unknown version"),
                connection.host
            ),
            connection,
            postgres,
            redis,
        })
    }

    async fn postgres(
        &self,
        spec: &PostgresSpec,
        copy_of: Option<&ReplicationSource>,
        password: String,
    ) -> Result<PostgresServer> {
        let mut arguments = vec!["postgres".to_owned()];
        arguments.extend(["-c", "listen_addresses=*"].map(str::to_owned));
        arguments.extend(["-p".to_owned(), POSTGRES_PORT.to_string()]);
        arguments.extend(postgres_arguments(spec));
        let copy = copy_of.map(|source| source.copy_arguments().join("\n"));
        let container =
            self.start(&self.postgres, &spec.name, POSTGRES_PORT, password.clone(), arguments, copy).await?;
        PostgresServer::when_ready(Box::new(container), password).await
    }

    async fn start(
        &self,
        image: &ChosenImage,
        name: &str,
        inner_port: u16,
        secret: String,
        arguments: Vec<String>,
        copy: Option<String>,
    ) -> Result<Container> {
        let mut attempt = 1;
        loop {
            let container = Container {
                connection: self.connection.clone(),
                run: Arc::clone(&self.run),
                image: image.clone(),
                name: name.to_owned(),
                inner_port,
                address: SocketAddr::new(self.connection.address, free_port()?),
                secret: secret.clone(),
                arguments: arguments.clone(),
                copy: copy.clone(),
                current: Mutex::new(None),
            };
            match container.create().await {
                Ok(()) => return Ok(container),
                Err(error) if attempt < PORT_ATTEMPTS && port_was_taken(&error) => attempt += 1,
                Err(error) => return Err(error),
            }
        }
    }
}

impl Engine for DockerEngine {
    fn kind(&self) -> EngineKind {
        EngineKind::Docker
    }

    fn description(&self) -> String {
        self.description.clone()
    }

    fn start_postgres<'a>(&'a self, spec: &'a PostgresSpec) -> BoxFuture<'a, Result<PostgresServer>> {
        Box::pin(async move { self.postgres(spec, None, random_password()).await.context("start postgres container") })
    }

    fn start_replica<'a>(
        &'a self,
        spec: &'a PostgresSpec,
        primary: &'a PostgresServer,
    ) -> BoxFuture<'a, Result<PostgresServer>> {
        Box::pin(async move {
            let source = ReplicationSource::of(spec, primary).await?;
            let password = primary.admin_password().to_owned();
            let started = self.postgres(spec, Some(&source), password).await;
            started.with_context(|| format!("start {} container", spec.name))
        })
    }

    fn start_redis<'a>(&'a self, spec: &'a RedisSpec) -> BoxFuture<'a, Result<RedisServer>> {
        Box::pin(async move {
            let password = random_password();
            let port = REDIS_PORT.to_string();
            let arguments = ["redis", "--port", &port, "--bind", "0.0.0.0"].map(str::to_owned);
            let settings = redis_settings(spec, &password);
            let container = self
                .start(&self.redis, &spec.name, REDIS_PORT, settings, arguments.to_vec(), None)
                .await
                .context("start redis container")?;
            RedisServer::when_ready(Box::new(container), password).await
        })
    }
}

fn port_was_taken(error: &anyhow::Error) -> bool {
    let text = format!("{error:#}");
    text.contains("port is already allocated") || text.contains("address already in use")
}

struct Container {
    connection: DockerConnection,
    run: Arc<Registration>,
    image: ChosenImage,
    name: String,
    inner_port: u16,
    address: SocketAddr,
    secret: String,
    arguments: Vec<String>,
    /// Arguments of `pg_basebackup`, one a line, for a server that begins as a copy.
    copy: Option<String>,
    current: Mutex<Option<ContainerAsync<GenericImage>>>,
}

impl Container {
    fn request(&self) -> ContainerRequest<GenericImage> {
        let host_ip = self.address.ip().to_string();
        let script = ["-c", ENTRYPOINT, "nogo"].map(str::to_owned);
        GenericImage::new(self.image.repository.clone(), self.image.tag.clone())
            .with_entrypoint("sh")
            .with_cmd(script.into_iter().chain(self.arguments.iter().cloned()))
            .with_container_name(format!("nogo-{}-{}", self.run.run_id(), self.name))
            .with_labels(self.run.labels().iter().cloned())
            .with_env_var("NOGO_SECRET", self.secret.clone())
            .with_env_var("NOGO_ADMIN", POSTGRES_ADMIN)
            .with_env_var("NOGO_COPY", self.copy.clone().unwrap_or_default())
            .with_mapped_port(self.address.port(), self.inner_port.tcp())
            .with_shm_size(SHARED_MEMORY_BYTES)
            .with_host_config_modifier(move |host| {
                // Reachable from this machine only, unless the engine is another one.
                let local = host_ip.starts_with("127.");
                for bindings in host.port_bindings.iter_mut().flat_map(|map| map.values_mut()) {
                    for binding in bindings.iter_mut().flatten() {
                        binding.host_ip = local.then(|| host_ip.clone());
                    }
                }
            })
    }

    async fn create(&self) -> Result<()> {
        let container = self.request().start().await?;
        *self.current.lock().await = Some(container);
        Ok(())
    }

    async fn id(&self) -> Option<String> {
        self.current.lock().await.as_ref().map(|container| container.id().to_owned())
    }

    fn docker(&self) -> &Docker {
        &self.connection.docker
    }

    async fn runs(&self) -> Result<bool> {
        match self.current.lock().await.as_ref() {
            Some(container) => Ok(container.is_running().await?),
            None => Ok(false),
        }
    }
}

impl ServerProcess for Container {
    fn address(&self) -> SocketAddr {
        self.address
    }

    fn address_among_servers(&self) -> BoxFuture<'_, Result<SocketAddr>> {
        Box::pin(async move {
            let id = self.id().await.with_context(|| format!("{} was removed", self.name))?;
            let found = self.docker().inspect_container(&id, None).await?;
            let networks = found.network_settings.and_then(|settings| settings.networks).unwrap_or_default();
            let mut addresses = networks.into_values().filter_map(|network| network.ip_address?.parse().ok());
            let address: IpAddr =
                addresses.next().with_context(|| format!("find the address of {} among containers", self.name))?;
            Ok(SocketAddr::new(address, self.inner_port))
        })
    }

    fn kill(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            let Some(id) = self.id().await else {
                return Ok(());
            };
            // The first process of the container; the kernel kills the rest of its namespace.
            let options = KillContainerOptions { signal: "KILL".to_owned() };
            match self.docker().kill_container(&id, Some(options)).await {
                Ok(()) => {}
                // Not running: it ended by itself, and the children with it.
                Err(DockerError::DockerResponseServerError { status_code: 409, .. }) => {}
                Err(error) => return Err(error.into()),
            }
            tokio::time::timeout(GONE_LIMIT, async {
                while self.runs().await? {
                    tokio::time::sleep(POLL_EVERY).await;
                }
                Ok(())
            })
            .await
            .context("the engine still reports the killed container as running")?
        })
    }

    fn start(&self, empty: bool) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            if empty {
                self.remove().await?;
                return self.create().await;
            }
            match self.current.lock().await.as_ref() {
                Some(container) => Ok(container.start().await?),
                None => anyhow::bail!("{} was removed", self.name),
            }
        })
    }

    fn is_alive(&self) -> BoxFuture<'_, Result<bool>> {
        Box::pin(self.runs())
    }

    fn remove(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            let current = self.current.lock().await.take();
            match current {
                Some(container) => Ok(container.rm().await?),
                None => Ok(()),
            }
        })
    }

    fn log_tail(&self) -> BoxFuture<'_, String> {
        Box::pin(async move {
            let Some(id) = self.id().await else {
                return "(no container)".to_owned();
            };
            let options = LogsOptions { stdout: true, stderr: true, tail: "40".to_owned(), ..Default::default() };
            let mut lines = Box::pin(self.docker().logs(&id, Some(options)));
            let mut text = String::new();
            while let Some(Ok(line)) = lines.next().await {
                text.push_str(&line.to_string());
            }
            last_lines(&text)
        })
    }

    fn origin(&self) -> (String, String) {
        (format!("{}:{}", self.image.repository, self.image.tag), self.image.digest.clone())
    }
}
