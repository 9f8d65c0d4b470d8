//! A PostgreSQL cluster of one test's own.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::scratch::{find_program, free_port, is_root, signal, text_of, wait_for_port};

const FIX: &str = "install PostgreSQL 15 (Debian: apt-get install postgresql-15), or put its bin folder on PATH";

/// A running server with the superuser `postgres`, the database `forecastle`, and no password.
/// Nothing is synced to disk: it is for tests that do not crash it.
pub struct Postgres {
    child: Child,
    port: u16,
    _dir: TempDir,
}

impl Postgres {
    /// Starts a new cluster; about a second.
    ///
    /// # Panics
    /// With the fix in its text, if PostgreSQL is not there or does not start.
    #[must_use]
    pub fn start() -> Self {
        let bin = bin_folder();
        let dir = tempfile::Builder::new().prefix("forecastle-pg-").tempdir().expect("make a scratch directory");
        let data = dir.path().join("data");
        let log = dir.path().join("log");
        std::fs::create_dir(&data).expect("make the data directory");
        if is_root() {
            // The server refuses to run as root; the account comes with its package.
            let given = Command::new("chown").arg("-R").arg("postgres").arg(dir.path()).status();
            assert!(given.is_ok_and(|s| s.success()), "no account named postgres: {FIX}");
        }
        let made = as_server_account(&bin.join("initdb"))
            .args(["-A", "trust", "-U", "postgres", "-E", "UTF8", "--locale=C", "--no-sync", "-D"])
            .arg(&data)
            .stdout(Stdio::null())
            .stderr(File::create(&log).expect("make the log"))
            .status();
        assert!(made.is_ok_and(|s| s.success()), "initdb failed: {}", text_of(&log));

        let port = free_port();
        let mut child = as_server_account(&bin.join("postgres"))
            .arg("-D")
            .arg(&data)
            .args(["-p", &port.to_string(), "-k", "", "-c", "listen_addresses=127.0.0.1"])
            .args(["-c", "fsync=off", "-c", "max_connections=60", "-c", "shared_buffers=32MB"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log).expect("make the log"))
            .spawn()
            .expect("start postgres");
        if let Err(why) = wait_for_port(&mut child, port, Duration::from_secs(30)) {
            panic!("postgres {why}: {}", text_of(&log));
        }
        let server = Self { child, port, _dir: dir };
        server.create_database(&bin);
        server
    }

    /// The superuser's address of the database.
    #[must_use]
    pub fn admin_url(&self) -> String {
        self.url_of("postgres")
    }

    /// A role's address of the database.
    #[must_use]
    pub fn url_of(&self, role: &str) -> String {
        format!("postgres://{role}@127.0.0.1:{}/forecastle", self.port)
    }

    /// The port it listens on.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// The listener accepts before the server takes logins, so the first one may have to wait.
    fn create_database(&self, bin: &Path) {
        for _ in 0..150 {
            let made = Command::new(bin.join("createdb"))
                .args(["-h", "127.0.0.1", "-p", &self.port.to_string(), "-U", "postgres", "forecastle"])
                .stderr(Stdio::null())
                .status();
            if made.is_ok_and(|s| s.success()) {
                return;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        panic!("createdb did not succeed within 15 s");
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // Immediate shutdown: the cluster is thrown away.
        signal(&self.child, "QUIT");
        let _ = self.child.wait();
    }
}

fn bin_folder() -> PathBuf {
    let folders: Vec<PathBuf> =
        (13..=18).rev().map(|version| PathBuf::from(format!("/usr/lib/postgresql/{version}/bin"))).collect();
    let initdb = find_program("initdb", &folders).unwrap_or_else(|| panic!("no initdb found: {FIX}"));
    initdb.parent().expect("a program has a folder").to_path_buf()
}

/// Runs a program as the account that may own a cluster, and ends it with this process.
fn as_server_account(program: &Path) -> Command {
    if is_root() {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=postgres", "--regid=postgres", "--init-groups", "--pdeathsig=QUIT"]).arg(program);
        command
    } else {
        Command::new(program)
    }
}
