//! A private PostgreSQL and Redis with Forecastle's schema, and its processes beside them.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use forecastle_testbed::{Postgres, Redis};
use serde_json::Value;
use sqlx::postgres::PgConnection;

use crate::process::Process;

/// Signing key of the measured instances: any 32 bytes, so that the load can hold tokens of its own.
pub(crate) const SIGNING_KEYS: &str = "bench:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8";

/// Servers with the schema in place.
pub(crate) struct Bed {
    pub(crate) postgres: Postgres,
    pub(crate) redis: Redis,
    binary: PathBuf,
}

impl Bed {
    /// Starts the servers and migrates. Commits are synced to disk, as in production.
    pub(crate) fn start(binary: &Path) -> anyhow::Result<Self> {
        let settings =
            ["fsync=on", "max_connections=300", "shared_buffers=512MB", "max_wal_size=4GB", "checkpoint_timeout=30min"];
        let bed = Self { postgres: Postgres::start_with(&settings), redis: Redis::start(), binary: binary.to_owned() };
        let admin = bed.postgres.admin_url();
        bed.run(&["migrate", "--database-url", &admin])?;
        Ok(bed)
    }

    /// Loads customers; how long it took, and what it printed.
    pub(crate) fn seed(&self, customers: u32) -> anyhow::Result<(Duration, Value)> {
        let (admin, customers) = (self.postgres.admin_url(), customers.to_string());
        let started = Instant::now();
        let summary = self.run(&[
            "seed",
            "--database-url",
            &admin,
            "--customers",
            &customers,
            "--email-prefix",
            "bench",
            "--password",
            crate::customers::PASSWORD,
        ])?;
        Ok((started.elapsed(), summary))
    }

    /// One of the program's commands that ends by itself; the line it prints.
    pub(crate) fn run(&self, arguments: &[&str]) -> anyhow::Result<Value> {
        let name = arguments.first().copied().unwrap_or_default();
        let done = Command::new(&self.binary)
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("run forecastle {name}"))?;
        ensure!(done.status.success(), "forecastle {name} failed: {}", String::from_utf8_lossy(&done.stderr));
        let line = String::from_utf8_lossy(&done.stdout);
        serde_json::from_str(line.lines().last().unwrap_or_default()).with_context(|| format!("read {name}'s summary"))
    }

    /// Starts an instance of the interface and returns its address.
    pub(crate) fn serve(&self, name: &str, further: &[&str]) -> anyhow::Result<(Process, SocketAddr)> {
        let mut arguments = vec![
            "serve".to_owned(),
            "--database-url".to_owned(),
            self.postgres.url_of("forecastle_app"),
            "--redis-url".to_owned(),
            self.redis.url(),
            "--instance".to_owned(),
            name.to_owned(),
            "--signing-keys".to_owned(),
            SIGNING_KEYS.to_owned(),
            "--trusted-proxies".to_owned(),
            "127.0.0.0/8".to_owned(),
        ];
        arguments.extend(further.iter().map(|argument| (*argument).to_owned()));
        let (process, line) = Process::start(name, &self.binary, &arguments)?;
        let address =
            line["address"].as_str().context("the line has an address")?.parse().context("read its address")?;
        Ok((process, address))
    }

    /// Starts a worker.
    pub(crate) fn work(&self, name: &str, concurrency: u32) -> anyhow::Result<Process> {
        let arguments = [
            "work",
            "--database-url",
            &self.postgres.url_of("forecastle_app"),
            "--redis-url",
            &self.redis.url(),
            "--instance",
            name,
            "--concurrency",
            &concurrency.to_string(),
        ]
        .map(str::to_owned);
        Ok(Process::start(name, &self.binary, &arguments)?.0)
    }

    /// A connection as the superuser.
    pub(crate) async fn admin(&self) -> PgConnection {
        forecastle_testbed::customers::connect(&self.postgres.admin_url()).await
    }

    /// Tells the planner what the tables hold, as a server that has run for a while would know.
    pub(crate) async fn analyze(&self) -> anyhow::Result<()> {
        sqlx::query("ANALYZE").execute(&mut self.admin().await).await.context("analyze")?;
        Ok(())
    }
}

/// Forecasts that wait or run.
pub(crate) async fn queue_depth(admin: &mut PgConnection) -> anyhow::Result<i64> {
    sqlx::query_scalar("SELECT count(*) FROM app.jobs WHERE state IN ('queued', 'running')")
        .fetch_one(admin)
        .await
        .context("count open jobs")
}
