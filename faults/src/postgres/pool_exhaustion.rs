//! Connections really taken and held, and locks held, until a server has none to spare.
//!
//! Filling the server alone does not hurt a pool that keeps its connections. So the pool's idle
//! connections may be evicted, again and again, since whoever is faster than the filling gets some
//! back; or locks are held that make the statements on the surviving ones wait: that fills the
//! pool from within.
//!
//! Order: evict, lock, fill, and from then on top up whatever others give back, and evict again
//! whenever the server is full.

use std::{net::SocketAddr, time::Duration};

use serde_json::json;
use sqlx::{AssertSqlSafe, Connection, PgConnection, postgres::PgConnectOptions};
use tokio::{
    task::{JoinHandle, JoinSet},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::{
    activity::{self, Activity},
    session::{CONNECT_MS_MAX, address_of, close, connect, options},
};
use crate::{
    blast_radius::{Grant, Target},
    fault::{BoxFuture, Fault, HealError, InstallError, Proof, ProofError, Tolerance},
};

/// An authenticated connection costs both sides some milliseconds of work.
const OPEN_AT_ONCE_MAX: usize = 8;
const TOP_UP_EVERY_MS: u64 = 25;
const POLL_MS: u64 = 10;
/// Time between two evictions; in between the server is full.
const EVICT_EVERY: Duration = Duration::from_millis(300);

/// What to take and hold.
#[derive(Debug, Clone)]
pub struct PoolExhaustionConfig {
    /// Told apart from other faults by this: letters, digits and dashes, at most 32.
    pub id: String,
    /// DSN of an ordinary role; its connections fill the server.
    pub filler_dsn: String,
    /// DSN of a superuser: takes the locks, evicts, and reads the proofs.
    pub admin_dsn: String,
    /// Run in order in one transaction that stays open, such as
    /// `LOCK TABLE app.orders IN ACCESS EXCLUSIVE MODE`. May be empty.
    pub lock_statements: Vec<String>,
    /// Roles whose idle connections are ended, before the filling and as long as it stands. May be empty.
    pub evict_roles: Vec<String>,
    /// Connections left to ordinary roles; 0 fills until the server refuses.
    pub leave_free: u32,
    /// Longest wait for each lock, milliseconds.
    pub lock_ms_max: u64,
    /// Longest wait for the server to be full, milliseconds.
    pub fill_ms_max: u64,
    /// Longest wait for the connections to be gone again, milliseconds.
    pub heal_ms_max: u64,
}

impl PoolExhaustionConfig {
    /// No locks, no eviction, nothing left free; 3 s per lock, 10 s to fill, 10 s to heal.
    pub fn new(id: impl Into<String>, filler_dsn: impl Into<String>, admin_dsn: impl Into<String>) -> Self {
        Self {
            id: id.into(),
            filler_dsn: filler_dsn.into(),
            admin_dsn: admin_dsn.into(),
            lock_statements: Vec::new(),
            evict_roles: Vec::new(),
            leave_free: 0,
            lock_ms_max: 3_000,
            fill_ms_max: 10_000,
            heal_ms_max: 10_000,
        }
    }
}

/// Takes a server's connections and locks; healing gives them back.
pub struct PoolExhaustion {
    config: PoolExhaustionConfig,
    tolerance: Tolerance,
    address: SocketAddr,
    filler: PgConnectOptions,
    admin: PgConnectOptions,
    /// Kept open: closing it would leave a gap that an ordinary role could slip into.
    watcher: Option<PgConnection>,
    locker: Option<PgConnection>,
    keeper: Option<Keeper>,
    used: bool,
}

impl PoolExhaustion {
    /// Name of this fault.
    pub const NAME: &'static str = "pool-exhaustion";

    /// The exhaustion of the server both DSNs lead to.
    ///
    /// # Errors
    /// [`InstallError::Parameter`] for an id or DSN that cannot be used, or DSNs that lead to
    /// different servers.
    pub fn new(config: PoolExhaustionConfig, tolerance: Tolerance) -> Result<Self, InstallError> {
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
        if config.id.is_empty() || config.id.len() > 32 || !config.id.chars().all(plain) {
            return Err(InstallError::Parameter {
                parameter: "id",
                reason: "not 1 to 32 letters, digits and dashes".into(),
            });
        }
        let filler = options("filler_dsn", &config.filler_dsn)?;
        let admin = options("admin_dsn", &config.admin_dsn)?;
        let address = address_of("filler_dsn", &filler)?;
        if address_of("admin_dsn", &admin)? != address {
            return Err(InstallError::Parameter {
                parameter: "admin_dsn",
                reason: "leads to another server than filler_dsn".into(),
            });
        }
        Ok(Self {
            filler: filler.application_name(&format!("nogo-fault-{}", config.id)),
            admin: admin.application_name(&format!("nogo-fault-{}-admin", config.id)),
            config,
            tolerance,
            address,
            watcher: None,
            locker: None,
            keeper: None,
            used: false,
        })
    }

    /// `application_name` of the connections this fault fills the server with; the one that
    /// holds the locks and the one that reads the proofs have `-lock` and `-admin` behind it.
    pub fn application_name(&self) -> String {
        format!("nogo-fault-{}", self.config.id)
    }

    async fn strike(&mut self, grant: &Grant) -> Result<Proof, InstallError> {
        if std::mem::replace(&mut self.used, true) {
            return Err(InstallError::Used { fault: Self::NAME.into() });
        }
        grant.covers(&self.targets())?;
        let target = |step| move |reason| InstallError::Target { step, reason };
        let mut admin = connect(&self.admin).await.map_err(target("connect as administrator"))?;
        let before =
            activity::read(&mut admin, &self.application_name()).await.map_err(target("read pg_stat_activity"))?;
        let evicted = activity::evict_idle(&mut admin, &self.config.evict_roles, &self.application_name())
            .await
            .map_err(target("evict idle connections"))?;
        self.take_locks().await?;
        self.keeper = Some(Keeper::start(KeepFull {
            filler: self.filler.clone(),
            admin: self.admin.clone(),
            leave_free: self.config.leave_free,
            evict_roles: self.config.evict_roles.clone(),
            name: self.application_name(),
        }));
        let during = self.wait_until_full(&mut admin).await?;
        self.watcher = Some(admin);
        Ok(Proof::new(
            "connections_exhausted",
            json!({
                "address": self.address.to_string(),
                "evicted": evicted,
                "before": before.to_json(),
                "during": during.0.to_json(),
                "ordinary_connect": during.1,
            }),
        ))
    }

    async fn take_locks(&mut self) -> Result<(), InstallError> {
        if self.config.lock_statements.is_empty() {
            return Ok(());
        }
        let options = self.admin.clone().application_name(&format!("{}-lock", self.application_name()));
        let mut locker =
            connect(&options).await.map_err(|reason| InstallError::Target { step: "connect to lock", reason })?;
        let settings = format!(
            "SET idle_in_transaction_session_timeout = 0; SET statement_timeout = 0; \
             SET lock_timeout = {}; BEGIN",
            self.config.lock_ms_max
        );
        let locked = async {
            sqlx::raw_sql(AssertSqlSafe(settings)).execute(&mut locker).await?;
            for statement in &self.config.lock_statements {
                sqlx::raw_sql(AssertSqlSafe(statement.clone())).execute(&mut locker).await?;
            }
            Ok::<_, sqlx::Error>(())
        }
        .await;
        // Kept even after a failure: healing rolls back what was locked so far.
        self.locker = Some(locker);
        locked.map_err(|error| InstallError::DidNotLand {
            fault: Self::NAME.into(),
            reason: format!("take locks: {error}"),
        })
    }

    async fn wait_until_full(&self, admin: &mut PgConnection) -> Result<(Activity, String), InstallError> {
        let mut last = String::from("not asked");
        let wait = async {
            let mut tick = tokio::time::interval(Duration::from_millis(POLL_MS));
            loop {
                tick.tick().await;
                match self.look_full(admin).await {
                    Ok(found) => return Ok(found),
                    Err(ProofError::NoHarm(reason)) => last = reason,
                    Err(ProofError::Unreadable(reason)) => {
                        return Err(InstallError::Target { step: "read pg_stat_activity", reason });
                    }
                }
            }
        };
        let limit = Duration::from_millis(self.config.fill_ms_max);
        match tokio::time::timeout(limit, wait).await {
            Ok(found) => found,
            Err(_) => Err(InstallError::DidNotLand {
                fault: Self::NAME.into(),
                reason: format!("after {} ms: {last}", self.config.fill_ms_max),
            }),
        }
    }

    /// The harm as the server shows it: ours are there, the locks are held, no room is left.
    async fn look_full(&self, admin: &mut PgConnection) -> Result<(Activity, String), ProofError> {
        let found = activity::read(admin, &self.application_name()).await.map_err(ProofError::Unreadable)?;
        if found.ours == 0 {
            return Err(ProofError::NoHarm("none of the connections is ours".into()));
        }
        if !self.config.lock_statements.is_empty() && found.locks_held == 0 {
            return Err(ProofError::NoHarm("no lock is held".into()));
        }
        if found.total + i64::from(self.config.leave_free) < found.ordinary_limit {
            return Err(ProofError::NoHarm(format!(
                "{} of {} connections taken, {} ours",
                found.total, found.ordinary_limit, found.ours
            )));
        }
        if self.config.leave_free > 0 {
            return Ok((found, "not tried: some were left free".into()));
        }
        match refused(&self.filler).await {
            Some(refusal) => Ok((found, refusal)),
            None => Err(ProofError::NoHarm("an ordinary role could still connect".into())),
        }
    }

    async fn release(&mut self) -> Result<Proof, HealError> {
        let limit_ms = self.config.heal_ms_max;
        let name = self.application_name();
        let mut last = String::from("giving back did not end");
        let wait = async {
            if let Some(locker) = self.locker.take() {
                // Closing ends the transaction and with it the locks.
                close(locker).await;
            }
            let held = match &mut self.keeper {
                Some(keeper) => keeper.stop().await,
                None => Vec::new(),
            };
            self.keeper = None;
            if let Some(watcher) = self.watcher.take() {
                close(watcher).await;
            }
            for connection in held {
                close(connection).await;
            }
            let mut tick = tokio::time::interval(Duration::from_millis(POLL_MS));
            let mut polls = 0_u32;
            loop {
                tick.tick().await;
                polls += 1;
                match self.look_gone(&name, polls > 50).await {
                    Ok(found) => return found,
                    Err(reason) => last = reason,
                }
            }
        };
        match tokio::time::timeout(Duration::from_millis(limit_ms), wait).await {
            Ok(found) => Ok(Proof::new(
                "connections_given_back",
                json!({ "address": self.address.to_string(), "after": found.to_json() }),
            )),
            Err(_) => Err(HealError::StillHurt { fault: Self::NAME.into(), limit_ms, reason: last }),
        }
    }

    /// `insist` ends what is left of ours from the server's side.
    async fn look_gone(&self, name: &str, insist: bool) -> Result<Activity, String> {
        let mut admin = connect(&self.admin).await?;
        let found = async {
            if insist {
                activity::evict_ours(&mut admin, name).await?;
            }
            activity::read(&mut admin, name).await
        }
        .await;
        close(admin).await;
        let found = found?;
        if found.ours == 0 && found.locks_held == 0 {
            Ok(found)
        } else {
            Err(format!("{} connections and {} locks of ours are left", found.ours, found.locks_held))
        }
    }
}

impl Fault for PoolExhaustion {
    fn name(&self) -> &str {
        Self::NAME
    }

    fn targets(&self) -> Vec<Target> {
        vec![Target::Postgres { address: self.address }]
    }

    fn tolerance(&self) -> Tolerance {
        self.tolerance
    }

    fn install<'a>(&'a mut self, grant: &'a Grant) -> BoxFuture<'a, Result<Proof, InstallError>> {
        Box::pin(self.strike(grant))
    }

    fn control_proof(&mut self) -> BoxFuture<'_, Result<Proof, ProofError>> {
        Box::pin(async {
            let mut watcher = match self.watcher.take() {
                Some(watcher) => watcher,
                None => connect(&self.admin).await.map_err(ProofError::Unreadable)?,
            };
            let found = self.look_full(&mut watcher).await;
            if matches!(found, Err(ProofError::Unreadable(_))) || self.keeper.is_none() {
                close(watcher).await;
            } else {
                self.watcher = Some(watcher);
            }
            let (found, refusal) = found?;
            Ok(Proof::new(
                "connections_exhausted",
                json!({
                    "address": self.address.to_string(),
                    "during": found.to_json(),
                    "ordinary_connect": refusal,
                }),
            ))
        })
    }

    fn heal(&mut self) -> BoxFuture<'_, Result<Proof, HealError>> {
        Box::pin(self.release())
    }
}

/// Holds connections and opens more whenever somebody gives some back.
struct Keeper {
    stop: CancellationToken,
    task: JoinHandle<Vec<PgConnection>>,
}

impl Keeper {
    fn start(what: KeepFull) -> Self {
        let stop = CancellationToken::new();
        let task = tokio::spawn(keep_full(what, stop.clone()));
        Self { stop, task }
    }

    /// Ends the topping up and hands over what is held. Bounded by one connection attempt.
    async fn stop(&mut self) -> Vec<PgConnection> {
        self.stop.cancel();
        (&mut self.task).await.unwrap_or_default()
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        // The task then drops its connections, which ends them on the server as well.
        self.stop.cancel();
    }
}

/// What a keeper needs to know.
struct KeepFull {
    filler: PgConnectOptions,
    admin: PgConnectOptions,
    leave_free: u32,
    evict_roles: Vec<String>,
    /// Of our own connections, which are not evicted.
    name: String,
}

impl KeepFull {
    /// How many connections the server has left to give; where it has none, some are taken from their owners, which
    /// the next look finds.
    async fn room(&self, watcher: &mut PgConnection, evicted_at: &mut Instant) -> Result<i64, String> {
        let room = activity::room(watcher, self.leave_free).await?;
        if room <= 0 && !self.evict_roles.is_empty() && evicted_at.elapsed() >= EVICT_EVERY {
            *evicted_at = Instant::now();
            activity::evict_idle(watcher, &self.evict_roles, &self.name).await?;
        }
        Ok(room)
    }
}

async fn keep_full(what: KeepFull, stop: CancellationToken) -> Vec<PgConnection> {
    let mut held = Vec::new();
    let mut watcher = connect(&what.admin).await.ok();
    let mut evicted_at = Instant::now();
    let mut tick = tokio::time::interval(Duration::from_millis(TOP_UP_EVERY_MS));
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            _ = tick.tick() => {}
        }
        let room = match &mut watcher {
            Some(connection) => what.room(connection, &mut evicted_at).await,
            None => Err("not connected".into()),
        };
        let Ok(room) = room else {
            watcher = connect(&what.admin).await.ok();
            continue;
        };
        open_many(&what.filler, room, &stop, &mut held).await;
    }
    if let Some(watcher) = watcher {
        close(watcher).await;
    }
    held
}

/// Opens up to `room` connections, a few at a time; gives up at the first that is refused.
async fn open_many(filler: &PgConnectOptions, room: i64, stop: &CancellationToken, held: &mut Vec<PgConnection>) {
    let mut opening = JoinSet::new();
    let mut left = room;
    loop {
        while left > 0 && opening.len() < OPEN_AT_ONCE_MAX && !stop.is_cancelled() {
            left -= 1;
            let filler = filler.clone();
            opening.spawn(async move { connect(&filler).await });
        }
        match opening.join_next().await {
            Some(Ok(Ok(connection))) => held.push(connection),
            // Full already, or somebody was faster: look again at the next tick.
            Some(_) => left = 0,
            None => return,
        }
    }
}

/// The refusal an ordinary role gets for want of connections, or none if it could connect or
/// failed for another reason.
async fn refused(options: &PgConnectOptions) -> Option<String> {
    const TOO_MANY_CONNECTIONS: &str = "53300";
    let limit = Duration::from_millis(CONNECT_MS_MAX);
    match tokio::time::timeout(limit, PgConnection::connect_with(options)).await {
        Ok(Ok(connection)) => {
            close(connection).await;
            None
        }
        Ok(Err(sqlx::Error::Database(error))) if error.code().as_deref() == Some(TOO_MANY_CONNECTIONS) => {
            Some(format!("{TOO_MANY_CONNECTIONS}: {}", error.message()))
        }
        Ok(Err(_)) | Err(_) => None,
    }
}
