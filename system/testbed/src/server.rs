//! One PostgreSQL server process with its data directory: started, frozen, killed, started again.

use std::fs::File;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::scratch::{children_of, find_program, free_port, is_root, signal_pid, text_of, wait_for_port};

pub(crate) const FIX: &str =
    "install PostgreSQL 15 (Debian: apt-get install postgresql-15), or put its bin folder on PATH";

/// Fields drop in order: the process before its folder.
pub(crate) struct Server {
    child: Child,
    pub(crate) port: u16,
    dir: TempDir,
    settings: Vec<String>,
    was_killed: bool,
}

impl Server {
    /// Has `fill` make the data directory it is given, then starts the server on a free port, with further
    /// settings as `name=value`. Nothing is synced to disk.
    pub(crate) fn start(settings: &[&str], fill: impl FnOnce(&Path)) -> Self {
        let dir = tempfile::Builder::new().prefix("forecastle-pg-").tempdir().expect("make a scratch directory");
        // The server accepts no data directory that others may read.
        std::fs::DirBuilder::new().mode(0o700).create(dir.path().join("data")).expect("make the data directory");
        if is_root() {
            // The server refuses to run as root; the account comes with its package.
            let given = Command::new("chown").arg("-R").arg("postgres").arg(dir.path()).status();
            assert!(given.is_ok_and(|s| s.success()), "no account named postgres: {FIX}");
        }
        fill(&dir.path().join("data"));
        let (port, settings) = (free_port(), settings.iter().map(|&setting| setting.to_owned()).collect::<Vec<_>>());
        let child = launch(dir.path(), port, &settings);
        Self { child, port, dir, settings, was_killed: false }
    }

    /// Its first process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Stops the server and its children where they are: connections stay, answers do not come.
    pub(crate) fn freeze(&self) {
        self.signal_all("STOP");
    }

    /// Lets them go on.
    pub(crate) fn thaw(&self) {
        self.signal_all("CONT");
    }

    /// SIGKILL to the server and its children; every connection ends.
    pub(crate) fn kill(&mut self) {
        self.signal_all("KILL");
        let _ = self.child.wait();
        self.was_killed = true;
    }

    /// Starts it again on its data and port.
    pub(crate) fn start_again(&mut self) {
        let _ = std::fs::remove_file(self.dir.path().join("data/postmaster.pid"));
        self.child = launch(self.dir.path(), self.port, &self.settings);
        self.was_killed = false;
    }

    /// The server first: then it starts no further child.
    fn signal_all(&self, name: &str) {
        signal_pid(self.child.id(), name);
        for child in children_of(self.child.id()) {
            signal_pid(child, name);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.was_killed && self.dir.path().join("data").is_dir() {
            // Its shared memory outlived it; only a server that starts on the same data takes it away.
            let _ = std::fs::remove_file(self.dir.path().join("data/postmaster.pid"));
            match try_launch(self.dir.path(), self.port, &self.settings) {
                Ok(child) => self.child = child,
                Err(_) => return,
            }
        }
        // Immediate shutdown: the cluster is thrown away. A frozen one hears it when it goes on.
        signal_pid(self.child.id(), "QUIT");
        self.signal_all("CONT");
        let _ = self.child.wait();
    }
}

fn launch(dir: &Path, port: u16, settings: &[String]) -> Child {
    try_launch(dir, port, settings).unwrap_or_else(|why| panic!("{why}"))
}

/// A server that accepts connections, or why there is none, in its own words.
fn try_launch(dir: &Path, port: u16, settings: &[String]) -> Result<Child, String> {
    let log = dir.join("log");
    let mut command = as_server_account(&bin_folder().join("postgres"));
    command.arg("-D").arg(dir.join("data")).args(["-p", &port.to_string(), "-k", ""]);
    for setting in ["listen_addresses=127.0.0.1", "fsync=off", "max_connections=60", "shared_buffers=32MB"] {
        command.args(["-c", setting]);
    }
    for setting in settings {
        command.args(["-c", setting]);
    }
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(File::create(&log).expect("make the log"))
        .spawn()
        .map_err(|error| format!("start postgres: {error}"))?;
    wait_for_port(&mut child, port, Duration::from_secs(30))
        .map_err(|why| format!("postgres {why}: {}", text_of(&log)))?;
    Ok(child)
}

pub(crate) fn bin_folder() -> PathBuf {
    let folders: Vec<PathBuf> =
        (13..=18).rev().map(|version| PathBuf::from(format!("/usr/lib/postgresql/{version}/bin"))).collect();
    let initdb = find_program("initdb", &folders).unwrap_or_else(|| panic!("no initdb found: {FIX}"));
    initdb.parent().expect("a program has a folder").to_path_buf()
}

/// Runs a program as the account that may own a cluster, and ends it with this process.
pub(crate) fn as_server_account(program: &Path) -> Command {
    if is_root() {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=postgres", "--regid=postgres", "--init-groups", "--pdeathsig=QUIT"]).arg(program);
        command
    } else {
        Command::new(program)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Segments of System V shared memory that a process with this number made; PostgreSQL makes one for its life.
    fn segments_of(pid: u32) -> usize {
        let table = std::fs::read_to_string("/proc/sysvipc/shm").expect("read the table of segments");
        let maker = pid.to_string();
        table.lines().skip(1).filter(|line| line.split_whitespace().nth(4) == Some(maker.as_str())).count()
    }

    #[test]
    fn the_shared_memory_of_a_killed_server_goes_with_it() {
        let mut server = Server::start(&[], crate::postgres::initialise);
        let pid = server.pid();
        assert_eq!(segments_of(pid), 1);
        server.kill();
        assert_eq!(segments_of(pid), 1, "it outlives the server");
        drop(server);
        assert_eq!(segments_of(pid), 0);
    }
}
