//! What a run needs from this machine, checked one by one, each with its fix.

use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Serialize;
use tokio::process::Command;

use super::binaries::{Unprivileged, postgres_folder, redis_server};
use super::docker_connection;
use super::images;

/// A debug build, two data directories and the record of a run.
const FREE_DISK_GIB_MIN: u64 = 5;
/// 2026-01-01T00:00:00Z, in seconds since the epoch: a clock before it is wrong.
const CLOCK_SECONDS_MIN: u64 = 1_767_225_600;
/// A version that does not come within this never comes.
const VERSION_LIMIT: Duration = Duration::from_secs(30);

/// One thing that a run needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What was looked at.
    pub name: &'static str,
    /// Whether it will do.
    pub ok: bool,
    /// Which engine needs it; none if every run does.
    pub engine: Option<&'static str>,
    /// What was found.
    pub found: String,
    /// What to do; empty if it will do.
    pub fix: String,
}

impl Check {
    fn new(name: &'static str, engine: Option<&'static str>, result: Result<String, String>, fix: &str) -> Self {
        let ok = result.is_ok();
        Self {
            name,
            ok,
            engine,
            found: result.unwrap_or_else(|missing| missing),
            fix: if ok { String::new() } else { fix.to_owned() },
        }
    }
}

/// Looks at everything; changes nothing. `store` is where runs will be written.
pub async fn examine(store: &Path) -> Vec<Check> {
    let mut checks = vec![
        Check::new("cargo", None, cargo().await, "install Rust: https://rustup.rs"),
        Check::new("disk", None, disk(store).await, "free some space, or name another store"),
        Check::new("ports", None, ports(), "allow listening on 127.0.0.1"),
        Check::new("clock", None, clock(), "set the machine's clock"),
    ];
    let process = Some("process");
    let setup = "run ci/setup --engine process as root";
    checks.push(Check::new("postgres", process, postgres().await, setup));
    checks.push(Check::new("redis", process, redis().await, setup));
    checks.push(Check::new("user", process, user(), "start nogo as an ordinary user"));
    checks.extend(docker().await);
    checks
}

/// Whether some engine can run: everything that both need, and everything that one needs.
#[must_use]
pub fn ready(checks: &[Check]) -> bool {
    let all = |engine: Option<&str>| checks.iter().filter(|check| check.engine == engine).all(|check| check.ok);
    all(None) && (all(Some("process")) || all(Some("docker")))
}

async fn cargo() -> Result<String, String> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    version(Path::new(&cargo)).await
}

async fn postgres() -> Result<String, String> {
    let folder = postgres_folder().ok_or("initdb, pg_basebackup and postgres not found")?;
    version(&folder.join("postgres")).await
}

async fn redis() -> Result<String, String> {
    let program = redis_server().ok_or("redis-server not found")?;
    version(&program).await
}

async fn version(program: &Path) -> Result<String, String> {
    let mut command = Command::new(program);
    command.arg("--version").kill_on_drop(true);
    let output = tokio::time::timeout(VERSION_LIMIT, command.output())
        .await
        .map_err(|_| format!("{} does not answer", program.display()))?
        .map_err(|error| format!("{}: {error}", program.display()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().next().unwrap_or_default().trim();
    if output.status.success() {
        Ok(format!("{line} ({})", program.display()))
    } else {
        Err(format!("{}: {}", program.display(), output.status))
    }
}

fn user() -> Result<String, String> {
    match Unprivileged::for_servers() {
        Ok(Some(user)) => Ok(format!("root; servers run as uid {}", user.uid)),
        Ok(None) => Ok("an ordinary user".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

async fn docker() -> Vec<Check> {
    let engine = Some("docker");
    let fix = "start an engine, or set DOCKER_HOST, or run ci/setup --engine docker as root";
    let connection = match docker_connection::connect().await {
        Ok(connection) => connection,
        Err(error) => return vec![Check::new("docker", engine, Err(format!("{error:#}")), fix)],
    };
    let mut checks = vec![Check::new("docker", engine, Ok(connection.host.clone()), fix)];
    for (name, names) in [("postgres image", images::POSTGRES), ("redis image", images::REDIS)] {
        let found = images::choose(&connection.docker, names, None, false).await;
        let found = found
            .map(|image| format!("{}:{} {}", image.repository, image.tag, image.digest))
            .map_err(|error| format!("{error:#}"));
        checks.push(Check::new(name, engine, found, "run ci/setup --engine docker"));
    }
    checks
}

async fn disk(store: &Path) -> Result<String, String> {
    let place = store.ancestors().find(|folder| folder.exists()).unwrap_or(Path::new("/"));
    let free = rustix::fs::statvfs(place).map_err(|error| format!("{}: {error}", place.display()))?;
    let gib = free.f_bavail.saturating_mul(free.f_frsize) >> 30;
    let found = format!("{gib} GiB free for {}", place.display());
    if gib >= FREE_DISK_GIB_MIN { Ok(found) } else { Err(found) }
}

fn ports() -> Result<String, String> {
    match TcpListener::bind((Ipv4Addr::LOCALHOST, 0)) {
        Ok(_) => Ok("127.0.0.1 may be listened on".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

fn clock() -> Result<String, String> {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let found = format!("{seconds} s since the epoch");
    if seconds >= CLOCK_SECONDS_MIN { Ok(found) } else { Err(found) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_whole_engine_is_enough_and_none_is_not() {
        let check = |engine, ok| Check { name: "x", ok, engine, found: String::new(), fix: String::new() };
        let process_only = [check(None, true), check(Some("process"), true), check(Some("docker"), false)];
        assert!(ready(&process_only));
        let neither = [check(None, true), check(Some("process"), false), check(Some("docker"), false)];
        assert!(!ready(&neither));
        let no_cargo = [check(None, false), check(Some("process"), true), check(Some("docker"), true)];
        assert!(!ready(&no_cargo));
    }

    #[tokio::test]
    async fn every_failed_check_names_a_fix() {
        for check in examine(Path::new("/")).await {
            assert_eq!(check.ok, check.fix.is_empty(), "{check:?}");
            assert!(!check.found.is_empty(), "{check:?}");
        }
    }
}
