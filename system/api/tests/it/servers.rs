//! A PostgreSQL and a Redis for one test: in a scratch folder, reached by socket files, so that no
//! port is taken, and ended with the test.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// Longest start or stop.
const PATIENCE: Duration = Duration::from_secs(30);

/// A server process that is stopped when dropped.
struct Process {
    child: Child,
    stop_signal: &'static str,
}

impl Process {
    /// As the unprivileged user `postgres` where the test runs as root; dies with the test.
    fn spawn(program: &Path, arguments: &[String], stop_signal: &'static str) -> Self {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "INT"]);
        if is_root() {
            command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]);
        }
        command.arg(program).args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Self { child: command.spawn().expect("start server process"), stop_signal }
    }

    fn stop(&mut self) {
        let pid = self.child.id().to_string();
        let _ = Command::new("kill").args([self.stop_signal, &pid]).status();
        let given_up = Instant::now() + PATIENCE;
        while let Ok(None) = self.child.try_wait() {
            if Instant::now() > given_up {
                let _ = self.child.kill();
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.stop();
    }
}

fn is_root() -> bool {
    std::fs::metadata("/proc/self").expect("stat own process").uid() == 0
}

/// Both servers. Fields drop in order: processes before their folder.
pub(crate) struct Servers {
    postgres: Option<Process>,
    redis: Option<Process>,
    folder: TempDir,
}

impl Servers {
    /// Both started and migrated.
    pub(crate) async fn start() -> Self {
        let folder = tempfile::tempdir().expect("make scratch folder");
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o777)).expect("open scratch folder");
        let mut servers = Self { postgres: None, redis: None, folder };
        let initdb = ["-D", &servers.data(), "-U", "postgres", "-A", "trust", "--no-sync", "-E", "UTF8", "--locale=C"]
            .map(str::to_owned);
        let mut made = Process::spawn(&postgres_program("initdb"), &initdb, "-KILL");
        assert!(made.child.wait().expect("wait for initdb").success(), "initdb failed");
        servers.start_redis().await;
        servers.start_postgres().await;
        let admin = servers.database_url("postgres");
        forecastle_store::migrate::migrate(&admin, &Default::default()).await.expect("migrate");
        servers
    }

    /// The DSN of a role.
    pub(crate) fn database_url(&self, role: &str) -> String {
        format!("postgres://{role}@localhost/postgres?host={}", self.folder.path().display())
    }

    pub(crate) fn redis_url(&self) -> String {
        format!("redis+unix://{}", self.redis_socket().display())
    }

    pub(crate) async fn start_postgres(&mut self) {
        let socket_folder = self.folder.path().display().to_string();
        let arguments = ["-D", &self.data(), "-k", &socket_folder, "-c", "listen_addresses=", "-c", "fsync=off"];
        let arguments = arguments.map(str::to_owned);
        self.postgres = Some(Process::spawn(&postgres_program("postgres"), &arguments, "-INT"));
        let url = self.database_url("postgres");
        let given_up = Instant::now() + PATIENCE;
        while <sqlx::PgConnection as sqlx::Connection>::connect(&url).await.is_err() {
            assert!(Instant::now() < given_up, "PostgreSQL did not start");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Ends every connection at once.
    pub(crate) fn stop_postgres(&mut self) {
        self.postgres = None;
    }

    /// Empty.
    pub(crate) async fn start_redis(&mut self) {
        let socket = self.redis_socket().display().to_string();
        let arguments = ["--port", "0", "--unixsocket", &socket, "--unixsocketperm", "777", "--save", ""];
        let arguments = arguments.map(str::to_owned);
        self.redis = Some(Process::spawn(Path::new("redis-server"), &arguments, "-KILL"));
        let client = redis::Client::open(self.redis_url()).expect("redis address");
        let given_up = Instant::now() + PATIENCE;
        while client.get_multiplexed_async_connection().await.is_err() {
            assert!(Instant::now() < given_up, "Redis did not start");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub(crate) fn stop_redis(&mut self) {
        self.redis = None;
        let _ = std::fs::remove_file(self.redis_socket());
    }

    /// Stops it where it is: connections stay, answers do not come.
    pub(crate) fn freeze_redis(&self) {
        self.signal_redis("-STOP");
    }

    /// Lets it go on.
    pub(crate) fn thaw_redis(&self) {
        self.signal_redis("-CONT");
    }

    fn signal_redis(&self, signal: &str) {
        let pid = self.redis.as_ref().expect("a running Redis").child.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().expect("signal").success());
    }

    /// Every key that Redis holds.
    pub(crate) async fn redis_keys(&self) -> Vec<String> {
        let client = redis::Client::open(self.redis_url()).expect("redis address");
        let mut connection = client.get_multiplexed_async_connection().await.expect("connect to redis");
        redis::cmd("KEYS").arg("*").query_async(&mut connection).await.expect("list keys")
    }

    fn data(&self) -> String {
        self.folder.path().join("data").display().to_string()
    }

    fn redis_socket(&self) -> PathBuf {
        self.folder.path().join("redis.sock")
    }
}

/// From the distribution's folder of the newest version, else from the search path.
fn postgres_program(name: &str) -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let found = versions.map(|version| version.path().join("bin").join(name)).filter(|path| path.exists()).max();
    found.unwrap_or_else(|| PathBuf::from(name))
}
