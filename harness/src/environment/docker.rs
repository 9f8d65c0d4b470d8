//! The docker engine: PostgreSQL and Redis in containers, through testcontainers.
//!
//! Ports are pinned, so that a restart keeps them. Data lies in the container's layer and outlives
//! a kill. testcontainers removes containers on drop and on Ctrl-C; SIGKILL of the owner leaves
//! them to the sweep, which finds them by their labels. Data on a volume of a set size lie in memory, which a kill would
//! lose: such a server is not killed.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use nogo_faults::VolumeUsage;
use testcontainers::bollard::Docker;
use testcontainers::bollard::errors::Error as DockerError;
use testcontainers::bollard::exec::StartExecResults;
use testcontainers::bollard::models::ExecConfig;
use testcontainers::bollard::query_parameters::{KillContainerOptions, LogsOptions};
use testcontainers::core::{IntoContainerPort as _, Mount};
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
use super::volume::BALLAST;

const ENTRYPOINT: &str = include_str!("entrypoint.sh");
/// Where the entry point puts the data.
const DATA_FOLDER: &str = "/var/lib/nogo/data";
/// Where PostgreSQL's log goes when the data lie on a volume of a set size.
const WAL_FOLDER: &str = "/var/lib/nogo/wal";
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
        let data =
            DataPlace { copy: copy_of.map(|source| source.copy_arguments().join("\n")), mib_max: spec.data_mib_max };
        let container =
            self.start(&self.postgres, &spec.name, POSTGRES_PORT, password.clone(), arguments, data).await?;
        PostgresServer::when_ready(Box::new(container), password).await
    }

    async fn start(
        &self,
        image: &ChosenImage,
        name: &str,
        inner_port: u16,
        secret: String,
        arguments: Vec<String>,
        data: DataPlace,
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
                data: data.clone(),
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

    fn can_size_volumes(&self) -> Result<()> {
        Ok(())
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
                .start(&self.redis, &spec.name, REDIS_PORT, settings, arguments.to_vec(), DataPlace::default())
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

/// What a server's data begin as, and where they lie.
#[derive(Debug, Clone, Default)]
struct DataPlace {
    /// Arguments of `pg_basebackup`, one a line, for a server that begins as a copy.
    copy: Option<String>,
    /// Size of the volume for the data, the log excepted, MiB; none is the container's layer.
    mib_max: Option<u32>,
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
    data: DataPlace,
    current: Mutex<Option<ContainerAsync<GenericImage>>>,
}

impl Container {
    fn request(&self) -> ContainerRequest<GenericImage> {
        let host_ip = self.address.ip().to_string();
        let script = ["-c", ENTRYPOINT, "nogo"].map(str::to_owned);
        let request = GenericImage::new(self.image.repository.clone(), self.image.tag.clone())
            .with_entrypoint("sh")
            .with_cmd(script.into_iter().chain(self.arguments.iter().cloned()))
            .with_container_name(format!("nogo-{}-{}", self.run.run_id(), self.name))
            .with_labels(self.run.labels().iter().cloned())
            .with_env_var("NOGO_SECRET", self.secret.clone())
            .with_env_var("NOGO_ADMIN", POSTGRES_ADMIN)
            .with_env_var("NOGO_COPY", self.data.copy.clone().unwrap_or_default())
            .with_env_var("NOGO_WAL", if self.data.mib_max.is_some() { WAL_FOLDER } else { "" })
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
            });
        match self.data.mib_max {
            Some(mib) => request.with_mount(Mount::tmpfs_mount(DATA_FOLDER).with_size_bytes(i64::from(mib) << 20)),
            None => request,
        }
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

    /// What a command in the container says; an error where it fails.
    async fn run_inside(&self, script: String) -> Result<String> {
        let id = self.id().await.with_context(|| format!("{} was removed", self.name))?;
        let config = ExecConfig {
            cmd: Some(vec!["sh".to_owned(), "-c".to_owned(), script]),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            ..Default::default()
        };
        let exec = self.docker().create_exec(&id, config).await?.id;
        let mut said = String::new();
        if let StartExecResults::Attached { mut output, .. } = self.docker().start_exec(&exec, None).await? {
            while let Some(line) = output.next().await {
                said.push_str(&line?.to_string());
            }
        }
        match self.docker().inspect_exec(&exec).await?.exit_code {
            Some(0) => Ok(said),
            code => bail!("exit code {code:?}: {}", said.trim()),
        }
    }

    fn has_volume(&self) -> Result<()> {
        self.data.mib_max.map(drop).with_context(|| format!("{} has no volume of a set size", self.name))
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
            if self.data.mib_max.is_some() {
                bail!("{} has its data on a volume in memory, which would not outlive a kill", self.name);
            }
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
            if self.data.mib_max.is_some() {
                bail!("{} has lost the volume in memory that its data were on", self.name);
            }
            match self.current.lock().await.as_ref() {
                Some(container) => Ok(container.start().await?),
                None => bail!("{} was removed", self.name),
            }
        })
    }

    fn is_alive(&self) -> BoxFuture<'_, Result<bool>> {
        Box::pin(self.runs())
    }

    fn freeze(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            let id = self.id().await.with_context(|| format!("{} was removed", self.name))?;
            match self.docker().pause_container(&id).await {
                // It is paused already.
                Err(DockerError::DockerResponseServerError { status_code: 409, .. }) if self.is_frozen().await? => {
                    Ok(())
                }
                outcome => Ok(outcome?),
            }
        })
    }

    fn thaw(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            let id = self.id().await.with_context(|| format!("{} was removed", self.name))?;
            if !self.is_frozen().await? {
                return Ok(());
            }
            Ok(self.docker().unpause_container(&id).await?)
        })
    }

    fn is_frozen(&self) -> BoxFuture<'_, Result<bool>> {
        Box::pin(async move {
            let id = self.id().await.with_context(|| format!("{} was removed", self.name))?;
            let found = self.docker().inspect_container(&id, None).await?;
            Ok(found.state.and_then(|state| state.paused).unwrap_or(false))
        })
    }

    fn volume_usage(&self) -> BoxFuture<'_, Result<VolumeUsage>> {
        Box::pin(async move {
            self.has_volume()?;
            let said = self.run_inside(format!("stat -f -c '%S %b %a' {DATA_FOLDER}")).await?;
            let numbers: Vec<u64> = said.split_whitespace().filter_map(|word| word.parse().ok()).collect();
            match numbers[..] {
                [block, all, free] => Ok(VolumeUsage { size: block * all, free: block * free }),
                _ => bail!("stat said {said:?}"),
            }
        })
    }

    fn fill_volume(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            self.has_volume()?;
            // cat ends by the error that there is no room, which is what was wanted.
            let script = format!("cat /dev/zero >{DATA_FOLDER}/{BALLAST} 2>/dev/null; test -s {DATA_FOLDER}/{BALLAST}");
            self.run_inside(script).await.map(drop)
        })
    }

    fn release_volume(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            self.has_volume()?;
            self.run_inside(format!("rm -f {DATA_FOLDER}/{BALLAST}")).await.map(drop)
        })
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
