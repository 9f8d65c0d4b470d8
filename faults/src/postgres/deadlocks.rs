//! Deadlocks with whoever writes a table, one after the other, the others always the victims.
//!
//! A session locks the table's rows, waits until somebody waits for one of them, and then wants the whole table, which
//! that somebody's statement holds a share of. The server looks for deadlocks early and our session late, so the other
//! side is the one that is refused with 40P01.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};
use std::time::Duration;

use serde_json::json;
use sqlx::{AssertSqlSafe, PgConnection};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{
    server_setting::ServerSetting,
    session::{Admin, refused_with, run},
};
use crate::{
    blast_radius::Target,
    fault::{HealError, InstallError, Proof, ProofError},
    harm::{Harm, Wait, refused, unhealed},
};

const PART: &str = "rival";
const DEADLOCK_DETECTED: &str = "40P01";
/// When a waiting session of the server looks for a deadlock. Longer than we take to notice that it waits.
const LOOK_AFTER_MS: u64 = 250;
/// Between two looks for somebody who waits for us.
const POLL: Duration = Duration::from_millis(10);
/// Rows are held no longer than this without anybody waiting.
const HOLD_ROUNDS_MAX: u32 = 40;
/// Between two rounds, so that work goes on in between.
const PAUSE: Duration = Duration::from_millis(250);

/// Where to quarrel.
#[derive(Debug, Clone)]
pub struct DeadlocksConfig {
    /// Told apart from other faults by this: letters, digits and dashes, at most 32.
    pub id: String,
    /// DSN of a superuser, on the database that is hurt.
    pub admin_dsn: String,
    /// The table, with its schema; others update its rows.
    pub table: String,
    /// Longest wait for the first deadlock, milliseconds.
    pub landing_ms_max: u64,
    /// Longest wait for everything to be gone, milliseconds.
    pub heal_ms_max: u64,
}

/// Brings about deadlocks until it is healed.
pub struct Deadlocks {
    config: DeadlocksConfig,
    admin: Admin,
    setting: ServerSetting,
    rival: Option<(CancellationToken, JoinHandle<()>)>,
    lost: Arc<AtomicU64>,
    before: i64,
}

impl Deadlocks {
    /// Name of this fault.
    pub const NAME: &'static str = "deadlocks";

    /// The deadlocks of `config`.
    ///
    /// # Errors
    /// [`InstallError::Parameter`] for an id or DSN that cannot be used.
    pub fn new(config: DeadlocksConfig) -> Result<Self, InstallError> {
        let admin = Admin::new(&config.id, &config.admin_dsn)?;
        let setting = ServerSetting::new(admin.clone(), "deadlock_timeout");
        Ok(Self { config, admin, setting, rival: None, lost: Arc::default(), before: 0 })
    }

    /// Deadlocks of the database since its statistics began, as the server counts them.
    async fn counted(&self) -> Result<i64, String> {
        let (count,): (i64,) =
            self.admin.ask("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()").await?;
        Ok(count)
    }

    async fn look_quarrelling(&self) -> Result<Proof, ProofError> {
        let setting = self.setting.read().await.map_err(ProofError::Unreadable)?;
        let counted = self.counted().await.map_err(ProofError::Unreadable)? - self.before;
        let ours = i64::try_from(self.lost.load(Ordering::Relaxed)).unwrap_or(i64::MAX);
        if self.rival.is_none() || counted <= ours {
            return Err(ProofError::NoHarm(format!("{counted} deadlocks, {ours} of them ended against us")));
        }
        Ok(Proof::new(
            "deadlocks_counted",
            json!({
                "address": self.admin.address.to_string(), "table": self.config.table,
                "deadlocks": counted, "of_them_against_us": ours, "deadlock_timeout_ms": setting.value,
            }),
        ))
    }

    async fn look_quiet(&self) -> Result<Proof, String> {
        let setting = self.setting.read().await?;
        if setting.is_changed {
            return Err(format!("deadlock_timeout is still {}", setting.value));
        }
        let sessions = self.admin.sessions(PART).await?;
        if sessions > 0 {
            return Err(format!("{sessions} sessions of ours are left"));
        }
        Ok(Proof::new(
            "rival_gone",
            json!({ "address": self.admin.address.to_string(), "deadlock_timeout_ms": setting.value, "sessions": sessions }),
        ))
    }
}

impl Harm for Deadlocks {
    fn name(&self) -> &str {
        Self::NAME
    }

    fn targets(&self) -> Vec<Target> {
        vec![Target::Postgres { address: self.admin.address }]
    }

    async fn strike(&mut self) -> Result<Proof, InstallError> {
        self.before = self.counted().await.map_err(refused("count deadlocks"))?;
        self.setting.set(&format!("{LOOK_AFTER_MS}ms")).await.map_err(refused("make the server look early"))?;
        let connection = self.admin.session(PART).await.map_err(refused("connect"))?;
        let stop = CancellationToken::new();
        let rival = quarrel(connection, self.config.table.clone(), Arc::clone(&self.lost));
        let stopped = stop.clone();
        let task = tokio::spawn(async move {
            tokio::select! {
                () = stopped.cancelled() => {}
                () = rival => {}
            }
        });
        self.rival = Some((stop, task));
        let wait = Wait::of_ms(self.config.landing_ms_max);
        loop {
            match self.look_quarrelling().await {
                Ok(proof) => return Ok(proof),
                Err(seen) => wait.for_landing(Self::NAME, seen.to_string()).await?,
            }
        }
    }

    async fn look(&mut self) -> Result<Proof, ProofError> {
        self.look_quarrelling().await
    }

    async fn undo(&mut self) -> Result<Proof, HealError> {
        if let Some((stop, task)) = self.rival.take() {
            stop.cancel();
            // Its connection is dropped with it, which ends the session.
            let _ = task.await;
        }
        self.admin.end_sessions(PART).await.map_err(unhealed("end the rival's session"))?;
        self.setting.reset().await.map_err(unhealed("put deadlock_timeout back"))?;
        let wait = Wait::of_ms(self.config.heal_ms_max);
        loop {
            match self.look_quiet().await {
                Ok(proof) => return Ok(proof),
                Err(seen) => wait.for_healing(Self::NAME, seen).await?,
            }
        }
    }
}

/// Round after round; ends only when its connection does.
async fn quarrel(mut connection: PgConnection, table: String, lost: Arc<AtomicU64>) {
    // Ours looks long after the others: they find the deadlock, and end by it.
    let patient = "SET deadlock_timeout = '60s'; SET lock_timeout = '5s'";
    if run(&mut connection, patient).await.is_err() {
        return;
    }
    loop {
        match round(&mut connection, &table).await {
            Ok(()) => {}
            Err(error) if refused_with(&error, DEADLOCK_DETECTED) => {
                lost.fetch_add(1, Ordering::Relaxed);
            }
            Err(sqlx::Error::Database(_)) => {}
            Err(error) => {
                tracing::debug!(%error, "the rival's connection ended");
                return;
            }
        }
        if run(&mut connection, "ROLLBACK").await.is_err() {
            return;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn round(connection: &mut PgConnection, table: &str) -> Result<(), sqlx::Error> {
    let (own,): (i32,) = sqlx::query_as("SELECT pg_backend_pid()").fetch_one(&mut *connection).await?;
    run(connection, &format!("BEGIN; SELECT FROM {table} FOR UPDATE")).await?;
    // Not by pg_stat_activity, which shows a transaction the same sessions again and again.
    let waits = format!("SELECT count(*) FROM pg_locks WHERE NOT granted AND {own} = ANY(pg_blocking_pids(pid))");
    for _ in 0..HOLD_ROUNDS_MAX {
        let waiting: i64 = sqlx::query_scalar(AssertSqlSafe(waits.clone())).fetch_one(&mut *connection).await?;
        if waiting > 0 {
            return run(connection, &format!("LOCK TABLE {table} IN SHARE MODE")).await;
        }
        tokio::time::sleep(POLL).await;
    }
    Ok(())
}

impl Drop for Deadlocks {
    fn drop(&mut self) {
        if let Some((stop, _)) = &self.rival {
            stop.cancel();
        }
    }
}
