//! One server of the process engine: a data directory, a log, a process and its children.
//!
//! Everything here blocks and runs on blocking threads. The working directory of every process
//! lies in the run's scratch directory, by which kill and sweep find orphans.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, bail};
use futures_util::future::BoxFuture;
use nogo_faults::VolumeUsage;
use nogo_faults::process::ProcessIdentity;

use super::binaries::Unprivileged;
use super::engine::ServerProcess;
use super::file_digest::sha256_of_file;
use super::free_port::free_port;
use super::log_tail::log_tail;
use super::process_tree::{continue_below, end_postgres, kill_tree, stands_still_below, stop_below, working_below};
use super::registration::Registration;
use super::replication::ReplicationSource;
use super::servers::POSTGRES_ADMIN;
use super::shared_memory;
use super::volume;

/// What a host server runs.
pub enum HostProgram {
    /// `initdb` or `pg_basebackup` once, then `postgres`.
    Postgres {
        /// Where the programs lie.
        folder: PathBuf,
        /// Path of `postgres` in it.
        postgres: PathBuf,
        /// Where to copy the data from and to go on streaming from; none makes a new cluster.
        copy_of: Option<ReplicationSource>,
        /// Settings after the data directory, port and address.
        arguments: Vec<String>,
        /// Size of the volume for the data, the log excepted, MiB; none is the host's disk.
        data_mib_max: Option<u32>,
    },
    /// `redis-server`.
    Redis {
        /// Path of `redis-server`.
        redis: PathBuf,
    },
}

/// A server process of the host; killed and removed when dropped.
pub struct HostServer(Arc<Inner>);

struct Inner {
    name: String,
    address: SocketAddr,
    folder: PathBuf,
    program: HostProgram,
    digest: String,
    run: Arc<Registration>,
    user: Option<Unprivileged>,
    child: Mutex<Option<Child>>,
}

impl HostServer {
    /// Makes the server's folder with its secret in it and chooses its port; starts nothing.
    /// `secret`: the superuser's password for PostgreSQL, the whole configuration for Redis. By
    /// a file, since a command line shows in every process list.
    ///
    /// # Errors
    /// If the folder cannot be made or given to the unprivileged user.
    pub fn prepare(
        run: &Arc<Registration>,
        name: &str,
        program: HostProgram,
        secret: &str,
        user: Option<Unprivileged>,
    ) -> Result<Self> {
        let folder = run.scratch().join(name);
        fs::create_dir(&folder).with_context(|| format!("create {}", folder.display()))?;
        let inner = Inner {
            name: name.to_owned(),
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?)),
            digest: sha256_of_file(program.path())?,
            program,
            run: Arc::clone(run),
            user,
            child: Mutex::new(None),
            folder,
        };
        let file = inner.secret_file();
        fs::write(&file, secret).with_context(|| format!("write {}", file.display()))?;
        inner.give(&file, 0o600)?;
        inner.give(&inner.folder, 0o700)?;
        Ok(Self(Arc::new(inner)))
    }

    fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> Result<T> + Send + 'static,
    ) -> BoxFuture<'_, Result<T>> {
        let inner = Arc::clone(&self.0);
        Box::pin(async move { tokio::task::spawn_blocking(move || work(&inner)).await? })
    }
}

impl ServerProcess for HostServer {
    fn address(&self) -> SocketAddr {
        self.0.address
    }

    fn address_among_servers(&self) -> BoxFuture<'_, Result<SocketAddr>> {
        Box::pin(async { Ok(self.0.address) })
    }

    fn kill(&self) -> BoxFuture<'_, Result<()>> {
        self.blocking(Inner::kill)
    }

    fn start(&self, empty: bool) -> BoxFuture<'_, Result<()>> {
        self.blocking(move |inner| inner.start(empty))
    }

    fn is_alive(&self) -> BoxFuture<'_, Result<bool>> {
        self.blocking(Inner::is_alive)
    }

    fn freeze(&self) -> BoxFuture<'_, Result<()>> {
        self.blocking(|inner| stop_below(&inner.folder, Some(inner.identity()?)))
    }

    fn thaw(&self) -> BoxFuture<'_, Result<()>> {
        self.blocking(|inner| continue_below(&inner.folder, inner.identity().ok()))
    }

    fn is_frozen(&self) -> BoxFuture<'_, Result<bool>> {
        self.blocking(|inner| Ok(stands_still_below(&inner.folder)))
    }

    fn volume_usage(&self) -> BoxFuture<'_, Result<VolumeUsage>> {
        self.blocking(|inner| volume::usage(&inner.volume()?))
    }

    fn fill_volume(&self) -> BoxFuture<'_, Result<()>> {
        self.blocking(|inner| volume::fill(&inner.volume()?))
    }

    fn release_volume(&self) -> BoxFuture<'_, Result<()>> {
        self.blocking(|inner| volume::release(&inner.volume()?))
    }

    fn remove(&self) -> BoxFuture<'_, Result<()>> {
        self.blocking(Inner::remove)
    }

    fn log_tail(&self) -> BoxFuture<'_, String> {
        let log = self.0.log();
        Box::pin(async move { log_tail(&log) })
    }

    fn origin(&self) -> (String, String) {
        (self.0.program.path().display().to_string(), self.0.digest.clone())
    }
}

impl Drop for HostServer {
    fn drop(&mut self) {
        if let Err(error) = self.0.remove() {
            tracing::warn!(server = %self.0.name, "leave it to the next sweep: {error:#}");
        }
    }
}

impl HostProgram {
    fn path(&self) -> &Path {
        match self {
            Self::Postgres { postgres, .. } => postgres,
            Self::Redis { redis } => redis,
        }
    }

    fn data_mib_max(&self) -> Option<u32> {
        match self {
            Self::Postgres { data_mib_max, .. } => *data_mib_max,
            Self::Redis { .. } => None,
        }
    }
}

impl Inner {
    fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// The log's folder where the data lie on a volume of their own: a full volume then ends no server.
    fn wal(&self) -> PathBuf {
        self.folder.join("wal")
    }

    fn volume(&self) -> Result<PathBuf> {
        match self.program.data_mib_max() {
            Some(_) => Ok(self.data()),
            None => bail!("{} has no volume of a set size", self.name),
        }
    }

    fn identity(&self) -> Result<ProcessIdentity> {
        let pid = self.child().as_ref().map(Child::id);
        let identity = pid.and_then(|pid| ProcessIdentity::of_pid(pid).ok());
        identity.with_context(|| format!("{} does not run", self.name))
    }

    fn log(&self) -> PathBuf {
        self.folder.join("server.log")
    }

    fn secret_file(&self) -> PathBuf {
        self.folder.join("secret")
    }

    fn child(&self) -> std::sync::MutexGuard<'_, Option<Child>> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn start(&self, empty: bool) -> Result<()> {
        if self.is_alive()? {
            bail!("{} already runs", self.name);
        }
        let data = self.data();
        if empty {
            volume::unmount_below(&self.folder)?;
            for folder in [&data, &self.wal()] {
                if folder.exists() {
                    fs::remove_dir_all(folder).with_context(|| format!("remove {}", folder.display()))?;
                }
            }
        }
        if !data.exists() {
            fs::create_dir(&data).with_context(|| format!("create {}", data.display()))?;
            if let Some(mib) = self.program.data_mib_max() {
                volume::mount(&data, mib)?;
                fs::create_dir(self.wal()).with_context(|| format!("create {}", self.wal().display()))?;
                self.give(&self.wal(), 0o700)?;
            }
            self.give(&data, 0o700)?;
            self.initialise(&data)?;
        }
        let log = fs::OpenOptions::new().create(true).append(true).open(self.log())?;
        let mut command = self.command(self.program.path(), &data);
        command.stdout(log.try_clone()?).stderr(log);
        let port = self.address.port().to_string();
        match &self.program {
            HostProgram::Postgres { arguments, .. } => {
                command.arg("-D").arg(&data).args(["-p", &port, "-c", "listen_addresses=127.0.0.1"]).args(arguments)
            }
            HostProgram::Redis { .. } => {
                command.arg(self.secret_file()).args(["--port", &port, "--bind", "127.0.0.1", "--dir"]).arg(&data)
            }
        };
        let mut child = self.child();
        let started = command.spawn().with_context(|| format!("run {}", self.program.path().display()))?;
        let identity = ProcessIdentity::of_pid(started.id());
        *child = Some(started);
        drop(child);
        match identity {
            Ok(identity) => self.run.record_process(&self.name, identity),
            Err(_) => bail!("{} ended at once; its log ends:\n{}", self.name, log_tail(&self.log())),
        }
    }

    fn initialise(&self, data: &Path) -> Result<()> {
        let HostProgram::Postgres { folder, copy_of, .. } = &self.program else {
            return Ok(());
        };
        let program = folder.join(if copy_of.is_some() { "pg_basebackup" } else { "initdb" });
        let mut command = self.command(&program, &self.folder);
        match copy_of {
            Some(source) => {
                let secret = fs::read_to_string(self.secret_file()).context("read the superuser's password")?;
                command.env("PGPASSWORD", secret).args(source.copy_arguments())
            }
            None => command
                .args(["--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-sync"])
                .arg(format!("--username={POSTGRES_ADMIN}"))
                .arg(format!("--pwfile={}", self.secret_file().display())),
        };
        if self.program.data_mib_max().is_some() {
            command.arg(format!("--waldir={}", self.wal().display()));
        }
        let output = command.arg("-D").arg(data).output().with_context(|| format!("run {}", program.display()))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!("{} ended with {}: {}", program.display(), output.status, said.trim());
        }
        Ok(())
    }

    /// A command in a process group of its own, in `folder`, as the unprivileged user.
    fn command(&self, program: &Path, folder: &Path) -> Command {
        let mut command = Command::new(program);
        command
            .current_dir(folder)
            .process_group(0)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("LC_ALL", "C")
            .stdin(Stdio::null());
        if let Some(user) = self.user {
            command.uid(user.uid).gid(user.gid);
        }
        command
    }

    fn give(&self, path: &Path, mode: u32) -> Result<()> {
        let describe = || format!("give {} to the servers' user", path.display());
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).with_context(describe)?;
        if let Some(user) = self.user {
            chown(path, Some(user.uid), Some(user.gid)).with_context(describe)?;
        }
        Ok(())
    }

    fn is_alive(&self) -> Result<bool> {
        match self.child().as_mut() {
            Some(child) => Ok(child.try_wait()?.is_none()),
            None => Ok(false),
        }
    }

    fn kill(&self) -> Result<()> {
        let child = self.child().take();
        if let Some(mut child) = child {
            if let Ok(identity) = ProcessIdentity::of_pid(child.id()) {
                shared_memory::note(&self.folder, identity)?;
                kill_tree(identity, Some(&self.folder))?;
            }
            child.wait()?;
        }
        // Children of a server that ended by itself.
        for orphan in working_below(&self.folder) {
            kill_tree(orphan, None)?;
        }
        Ok(())
    }

    fn remove(&self) -> Result<()> {
        if let Ok(identity) = self.identity() {
            end_postgres(identity);
        }
        self.kill()?;
        shared_memory::remove_noted(&self.folder)?;
        volume::unmount_below(&self.folder)?;
        match fs::remove_dir_all(&self.folder) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("remove {}", self.folder.display()))
            }
            _ => Ok(()),
        }
    }
}
