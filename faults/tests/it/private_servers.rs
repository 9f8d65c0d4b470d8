//! PostgreSQL and Redis of a test's own, on free loopback ports, ended when dropped.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use nogo_faults::{BoxFuture, ControlError, ProcessIdentity, ServiceControl};
use rustix::process::{Pid, Signal, getuid, kill_process};
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection};
use tempfile::TempDir;

use crate::wait::wait_until;

const START_MAX: Duration = Duration::from_secs(20);

/// A loopback address nobody listens on at this moment.
pub fn free_address() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind a free port");
    listener.local_addr().expect("read the port")
}

/// Finds a program on the path or among Debian's PostgreSQL versions.
fn program(name: &str, package: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    if let Ok(versions) = std::fs::read_dir("/usr/lib/postgresql") {
        folders.extend(versions.flatten().map(|version| version.path().join("bin")));
    }
    folders
        .into_iter()
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
        .unwrap_or_else(|| panic!("{name} is not installed: install the package {package}"))
}

/// A Redis server without persistence.
pub struct PrivateRedis {
    address: SocketAddr,
    scratch: TempDir,
    child: Mutex<Option<Child>>,
}

impl PrivateRedis {
    pub async fn start() -> Self {
        let redis =
            Self { address: free_address(), scratch: TempDir::new().expect("scratch folder"), child: Mutex::new(None) };
        redis.start_empty().await.expect("start redis");
        redis
    }

    pub async fn connection(&self) -> redis::RedisResult<redis::aio::MultiplexedConnection> {
        redis::Client::open(format!("redis://{}/", self.address))?.get_multiplexed_async_connection().await
    }

    fn identity(&self) -> Option<ProcessIdentity> {
        let child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        child.as_ref().and_then(|child| ProcessIdentity::of_pid(child.id()).ok())
    }

    fn end(&self) {
        if let Some(mut child) = self.child.lock().unwrap_or_else(PoisonError::into_inner).take() {
            child.kill().expect("kill redis");
            child.wait().expect("reap redis");
        }
    }
}

impl Drop for PrivateRedis {
    fn drop(&mut self) {
        self.end();
    }
}

impl ServiceControl for PrivateRedis {
    fn name(&self) -> String {
        "redis".into()
    }

    fn address(&self) -> SocketAddr {
        self.address
    }

    fn kill(&self) -> BoxFuture<'_, Result<(), ControlError>> {
        Box::pin(async {
            self.end();
            Ok(())
        })
    }

    fn start_empty(&self) -> BoxFuture<'_, Result<(), ControlError>> {
        Box::pin(async {
            if self.identity().is_none() {
                let child = Command::new(program("redis-server", "redis-server"))
                    .args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--port"])
                    .arg(self.address.port().to_string())
                    .arg("--dir")
                    .arg(self.scratch.path())
                    .stdout(Stdio::null())
                    .stderr(Stdio::null())
                    .spawn()
                    .map_err(|error| ControlError::from_cause(&error))?;
                *self.child.lock().unwrap_or_else(PoisonError::into_inner) = Some(child);
            }
            wait_until("redis accepts connections", START_MAX, || async { self.connection().await.ok() }).await;
            Ok(())
        })
    }

    fn is_alive(&self) -> BoxFuture<'_, bool> {
        Box::pin(async { self.identity().is_some() })
    }

    fn probe(&self) -> BoxFuture<'_, Result<Value, ControlError>> {
        Box::pin(async { Ok(json!({ "pid": self.identity().map(|identity| identity.pid) })) })
    }
}

/// A PostgreSQL cluster; trusts everybody, which only loopback can reach.
pub struct PrivatePostgres {
    address: SocketAddr,
    child: Child,
    _scratch: TempDir,
}

impl PrivatePostgres {
    /// Starts one that takes `connections_max` connections, three of them for superusers.
    pub async fn start(connections_max: u32) -> Self {
        let scratch = TempDir::new().expect("scratch folder");
        let data = scratch.path().join("data");
        std::fs::create_dir(&data).expect("data folder");
        if getuid().is_root() {
            let owner = Command::new("chown").args(["-R", "postgres:postgres"]).arg(scratch.path()).status();
            assert!(owner.expect("run chown").success(), "user postgres is missing: install postgresql");
        }
        let made = unprivileged(&program("initdb", "postgresql"))
            .args(["--no-sync", "--auth=trust", "--username=admin", "--encoding=UTF8", "--no-instructions", "-D"])
            .arg(&data)
            .stdout(Stdio::null())
            .status()
            .expect("run initdb");
        assert!(made.success(), "initdb failed");
        let address = free_address();
        let child = unprivileged(&program("postgres", "postgresql"))
            .arg("-D")
            .arg(&data)
            .arg("-k")
            .arg(scratch.path())
            .arg("-p")
            .arg(address.port().to_string())
            .args(["-c", "listen_addresses=127.0.0.1", "-c", "fsync=off", "-c"])
            .arg(format!("max_connections={connections_max}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("start postgres");
        let server = Self { address, child, _scratch: scratch };
        wait_until("postgres accepts connections", START_MAX, || async { server.connect("admin").await.ok() }).await;
        server
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn dsn(&self, role: &str) -> String {
        format!("postgres://{role}@{}/postgres", self.address)
    }

    pub async fn connect(&self, role: &str) -> sqlx::Result<PgConnection> {
        PgConnection::connect(&self.dsn(role)).await
    }
}

impl Drop for PrivatePostgres {
    fn drop(&mut self) {
        // Immediate shutdown: its children go with it, unlike after SIGKILL.
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw)
            && kill_process(pid, Signal::QUIT).is_err()
        {
            eprintln!("postgres had ended before the test did");
        }
        self.child.wait().expect("reap postgres");
    }
}

/// PostgreSQL refuses to run as root, so root runs it as postgres.
fn unprivileged(program: &Path) -> Command {
    if !getuid().is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]).arg(program);
    // The folder a test runs in need not be readable for that user.
    command.current_dir("/");
    command
}
