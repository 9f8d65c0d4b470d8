//! A PostgreSQL server killed, and at healing started on the data it had.
//!
//! Healing is done when another life of the same cluster answers and its log reaches as far as before: what was
//! committed came back.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use serde_json::{Value, json};
use tokio::net::TcpStream;

use super::session::Admin;
use crate::{
    blast_radius::Target,
    fault::{HealError, InstallError, Proof, ProofError},
    harm::{Harm, Wait, refused, unhealed},
    service::ServiceControl,
};

const CONNECT_LIMIT: Duration = Duration::from_secs(1);

/// Limits of each wait of [`PostgresCrash`], milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PostgresCrashLimits {
    /// Longest wait for the server to be gone and its address to refuse.
    pub death_ms_max: u64,
    /// Longest wait for the next life to answer with all that was committed.
    pub recover_ms_max: u64,
}

impl Default for PostgresCrashLimits {
    fn default() -> Self {
        Self { death_ms_max: 10_000, recover_ms_max: 25_000 }
    }
}

/// Kills a server; healing starts it on its data.
pub struct PostgresCrash {
    name: &'static str,
    control: Arc<dyn ServiceControl>,
    admin: Admin,
    limits: PostgresCrashLimits,
    before: Option<Life>,
}

/// One life of a cluster, from one start to the next.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
struct Life {
    /// Of the cluster; the same in every life.
    system_identifier: String,
    /// Start of this life, microseconds since 1970.
    started_us: i64,
    /// How far the log reaches that outlives a crash, bytes.
    log_bytes: i64,
}

const LIFE: &str = "SELECT (SELECT system_identifier::text FROM pg_control_system()) AS system_identifier, \
     (extract(epoch FROM pg_postmaster_start_time()) * 1000000)::bigint AS started_us, \
     pg_wal_lsn_diff(CASE WHEN pg_is_in_recovery() THEN coalesce(pg_last_wal_replay_lsn(), '0/0') \
                          ELSE pg_current_wal_flush_lsn() END, '0/0')::bigint AS log_bytes";

impl PostgresCrash {
    /// The crash, under `name`, of the server behind `control`, which `admin_dsn` leads to past every proxy.
    ///
    /// # Errors
    /// [`InstallError::Parameter`] for an id or DSN that cannot be used, or one that leads elsewhere.
    pub fn new(
        name: &'static str,
        id: &str,
        control: Arc<dyn ServiceControl>,
        admin_dsn: &str,
        limits: PostgresCrashLimits,
    ) -> Result<Self, InstallError> {
        let admin = Admin::new(id, admin_dsn)?;
        if admin.address != control.address() {
            return Err(InstallError::Parameter { parameter: "admin_dsn", reason: "leads to another server".into() });
        }
        Ok(Self { name, control, admin, limits, before: None })
    }

    async fn look_dead(&self) -> Result<Proof, String> {
        if self.control.is_alive().await {
            return Err("the engine sees it running".into());
        }
        let refusal = refusal(self.control.address()).await?;
        Ok(Proof::new(
            "service_gone",
            json!({
                "service": self.control.name(), "address": self.control.address().to_string(),
                "connect": refusal, "engine": self.engine_view().await,
                "log_bytes_before": self.before.as_ref().map(|life| life.log_bytes),
            }),
        ))
    }

    async fn engine_view(&self) -> Value {
        self.control.probe().await.unwrap_or_else(|cause| json!({ "error": cause.to_string() }))
    }

    /// The next life, if it is one of the same cluster and has all that was committed.
    async fn look_recovered(&self) -> Result<Proof, String> {
        let life: Life = self.admin.ask(LIFE).await?;
        let mut restarted = false;
        if let Some(before) = &self.before {
            restarted = life.started_us != before.started_us;
            if life.system_identifier != before.system_identifier {
                return Err("another cluster answers".into());
            }
            if life.log_bytes < before.log_bytes {
                return Err(format!("its log ends at {} bytes, before {}", life.log_bytes, before.log_bytes));
            }
        }
        Ok(Proof::new(
            "service_answers",
            json!({
                "service": self.control.name(), "address": self.control.address().to_string(),
                "restarted": restarted, "log_bytes": life.log_bytes,
                "log_bytes_before": self.before.as_ref().map(|life| life.log_bytes),
            }),
        ))
    }
}

impl Harm for PostgresCrash {
    fn name(&self) -> &str {
        self.name
    }

    fn targets(&self) -> Vec<Target> {
        vec![Target::Service { name: self.control.name(), address: self.control.address() }]
    }

    async fn strike(&mut self) -> Result<Proof, InstallError> {
        self.before = Some(self.admin.ask(LIFE).await.map_err(refused("read the server before its crash"))?);
        self.control.kill().await.map_err(refused("kill the server"))?;
        let wait = Wait::of_ms(self.limits.death_ms_max);
        loop {
            match self.look_dead().await {
                Ok(proof) => return Ok(proof),
                Err(seen) => wait.for_landing(self.name, seen).await?,
            }
        }
    }

    async fn look(&mut self) -> Result<Proof, ProofError> {
        self.look_dead().await.map_err(ProofError::NoHarm)
    }

    async fn undo(&mut self) -> Result<Proof, HealError> {
        let limit_ms = self.limits.recover_ms_max;
        let wait = Wait::of_ms(limit_ms);
        if self.before.is_some() {
            let starting = tokio::time::timeout(Duration::from_millis(limit_ms), self.control.start_again());
            starting
                .await
                .map_err(|_| HealError::Deadline { fault: self.name.to_owned(), limit_ms })?
                .map_err(unhealed("start the server again"))?;
        }
        loop {
            match self.look_recovered().await {
                Ok(proof) => return Ok(proof),
                Err(seen) => wait.for_healing(self.name, seen).await?,
            }
        }
    }
}

/// How the address refuses.
///
/// # Errors
/// If it accepts.
async fn refusal(address: SocketAddr) -> Result<String, String> {
    match tokio::time::timeout(CONNECT_LIMIT, TcpStream::connect(address)).await {
        Ok(Ok(_)) => Err("its address accepts connections".into()),
        Ok(Err(error)) => Ok(error.to_string()),
        Err(_) => Ok(format!("no answer within {} ms", CONNECT_LIMIT.as_millis())),
    }
}
