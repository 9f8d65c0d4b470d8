//! The server's connections used up by others: the system keeps a few of its own, and gets no new one.
//!
//! Whoever loses a connection asks for another at once, faster than anybody could take its place. So the places are taken
//! by a superuser, up to the last of those that the server keeps for superusers: an ordinary role is refused while as many
//! as those are free, and idle connections of the system can be ended and replaced a few at a time without a race.

use std::{net::SocketAddr, time::Duration};

use serde_json::{Value, json};
use sqlx::{PgConnection, Row, postgres::PgConnectOptions};
use tokio::{
    sync::watch,
    task::{JoinHandle, JoinSet},
};
use tokio_util::sync::CancellationToken;

use super::session::{address_of, close, connect, options};
use crate::{
    blast_radius::Target,
    fault::{HealError, InstallError, Proof, ProofError},
    harm::{Harm, Wait, refused, unhealed},
};

/// Time between two looks of who keeps the server full.
const EVERY: Duration = Duration::from_millis(40);
/// Places left for those who look.
const LEAVE_FREE: i64 = 1;

/// In which the places are read anew, also while more are being taken.
const READ_WITHIN: Duration = Duration::from_secs(2);
/// Places that are being taken at a time.
const TAKEN_AT_ONCE: i64 = 8;

/// What to take, and what to leave.
#[derive(Debug, Clone)]
pub struct MaxConnectionsConfig {
    /// Told apart from other faults by this.
    pub id: String,
    /// DSN of a superuser.
    pub admin_dsn: String,
    /// DSN of an ordinary role, which must be refused.
    pub ordinary_dsn: String,
    /// The role whose connections are ended.
    pub role: String,
    /// Connections that each of its processes keeps, by application name; those that only listen are not among them.
    pub keep_each: i64,
    /// Longest wait for the server to be full, and for it to have room again, milliseconds.
    pub limit_ms: u64,
}

/// Uses a server's connections up until it is healed.
pub struct MaxConnections {
    config: MaxConnectionsConfig,
    admin: PgConnectOptions,
    ordinary: PgConnectOptions,
    address: SocketAddr,
    keeper: Option<Keeper>,
    /// Connections of the role when it began.
    before: i64,
}

/// Who holds the places.
struct Keeper {
    stop: CancellationToken,
    task: JoinHandle<Vec<PgConnection>>,
    /// Its latest reading. Nobody else gets in for sure: whoever is about to be refused holds a place until then.
    seen: watch::Receiver<Option<Places>>,
}

impl Keeper {
    async fn next_reading(&self) -> Result<Places, String> {
        let mut seen = self.seen.clone();
        seen.mark_unchanged();
        let changed = tokio::time::timeout(READ_WITHIN, seen.changed()).await;
        let places = if matches!(changed, Ok(Ok(()))) { seen.borrow().clone() } else { None };
        places.ok_or_else(|| format!("the places were not read for {} s", READ_WITHIN.as_secs()))
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        // The task then drops its connections, which ends them on the server as well.
        self.stop.cancel();
    }
}

/// One reading of the server.
#[derive(Debug, Clone)]
struct Places {
    all: i64,
    taken: i64,
    reserved: i64,
    ours: i64,
    of_role: i64,
    /// Idle connections of the role beyond those that each process keeps.
    to_end: Vec<i32>,
}

impl Places {
    fn to_json(&self) -> Value {
        json!({
            "max_connections": self.all, "taken": self.taken, "kept_for_superusers": self.reserved,
            "held_by_fault": self.ours, "of_the_system": self.of_role,
        })
    }
}

impl MaxConnections {
    /// Name of this fault.
    pub const NAME: &'static str = "max-connections";

    /// The harm to the server that both DSNs lead to.
    ///
    /// # Errors
    /// [`InstallError::Parameter`] for a DSN that cannot be used.
    pub fn new(config: MaxConnectionsConfig) -> Result<Self, InstallError> {
        let admin = options("admin_dsn", &config.admin_dsn)?;
        let address = address_of("admin_dsn", &admin)?;
        let ordinary = options("ordinary_dsn", &config.ordinary_dsn)?;
        let admin = admin.application_name(&format!("nogo-fault-{}", config.id));
        Ok(Self { config, admin, ordinary, address, keeper: None, before: 0 })
    }

    async fn look_full(&self) -> Result<Proof, ProofError> {
        let Some(keeper) = &self.keeper else {
            return Err(ProofError::NoHarm("nobody takes the places".into()));
        };
        let places = keeper.next_reading().await.map_err(ProofError::Unreadable)?;
        if places.ours == 0 || places.all - places.taken > places.reserved {
            return Err(ProofError::NoHarm(format!("{} of {} places are taken", places.taken, places.all)));
        }
        if !places.to_end.is_empty() {
            let left = places.to_end.len();
            return Err(ProofError::NoHarm(format!("{left} connections of the system are still to be ended")));
        }
        let refusal = match connect(&self.ordinary).await {
            Err(refusal) => refusal,
            Ok(connection) => {
                close(connection).await;
                return Err(ProofError::NoHarm("an ordinary role could still connect".into()));
            }
        };
        Ok(Proof::new(
            "no_place_left",
            json!({
                "address": self.address.to_string(), "of_the_system_before": self.before, "during": places.to_json(),
                "ordinary_connect": refusal,
            }),
        ))
    }
}

impl Harm for MaxConnections {
    fn name(&self) -> &str {
        Self::NAME
    }

    fn targets(&self) -> Vec<Target> {
        vec![Target::Postgres { address: self.address }]
    }

    async fn strike(&mut self) -> Result<Proof, InstallError> {
        let mut admin = connect(&self.admin).await.map_err(refused("connect as administrator"))?;
        let places = read(&mut admin, &self.config).await.map_err(refused("read pg_stat_activity"));
        close(admin).await;
        self.before = places?.of_role;
        let stop = CancellationToken::new();
        let (tell, seen) = watch::channel(None);
        let task = tokio::spawn(keep_full(self.admin.clone(), self.config.clone(), stop.clone(), tell));
        self.keeper = Some(Keeper { stop, task, seen });
        let wait = Wait::of_ms(self.config.limit_ms);
        loop {
            match self.look_full().await {
                Ok(proof) => return Ok(proof),
                Err(seen) => wait.for_landing(Self::NAME, seen.to_string()).await?,
            }
        }
    }

    async fn look(&mut self) -> Result<Proof, ProofError> {
        self.look_full().await
    }

    async fn undo(&mut self) -> Result<Proof, HealError> {
        if let Some(mut keeper) = self.keeper.take() {
            keeper.stop.cancel();
            for connection in (&mut keeper.task).await.unwrap_or_default() {
                close(connection).await;
            }
        }
        let wait = Wait::of_ms(self.config.limit_ms);
        loop {
            let seen = match connect(&self.ordinary).await {
                Ok(connection) => {
                    close(connection).await;
                    let mut admin = connect(&self.admin).await.map_err(unhealed("connect as administrator"))?;
                    let places = read(&mut admin, &self.config).await.map_err(unhealed("read pg_stat_activity"));
                    close(admin).await;
                    let places = places?;
                    if places.ours == 0 {
                        let after = json!({ "address": self.address.to_string(), "after": places.to_json() });
                        return Ok(Proof::new("places_given_back", after));
                    }
                    format!("{} connections of ours are left", places.ours)
                }
                Err(refusal) => refusal,
            };
            wait.for_healing(Self::NAME, seen).await?;
        }
    }
}

/// Reads the places; the connection that asks is not counted as ours.
async fn read(admin: &mut PgConnection, config: &MaxConnectionsConfig) -> Result<Places, String> {
    let row = sqlx::query(
        "SELECT current_setting('max_connections')::bigint AS all_places, \
                current_setting('superuser_reserved_connections')::bigint AS reserved, \
                count(*) AS taken, \
                count(*) FILTER (WHERE application_name = $2 AND pid <> pg_backend_pid()) AS ours, \
                count(*) FILTER (WHERE usename::text = $1) AS of_role, \
                (SELECT coalesce(array_agg(pid), '{}') FROM ( \
                    SELECT pid, state, row_number() OVER ( \
                               PARTITION BY application_name ORDER BY query ILIKE 'listen%', state = 'idle', backend_start) AS place \
                      FROM pg_stat_activity WHERE usename::text = $1) one \
                  WHERE place > $3 AND state = 'idle') AS to_end \
           FROM pg_stat_activity WHERE backend_type = 'client backend'",
    )
    .bind(&config.role)
    .bind(format!("nogo-fault-{}", config.id))
    .bind(config.keep_each)
    .fetch_one(admin)
    .await
    .map_err(|error| error.to_string())?;
    Ok(Places {
        all: row.get("all_places"),
        reserved: row.get("reserved"),
        taken: row.get("taken"),
        ours: row.get("ours"),
        of_role: row.get("of_role"),
        to_end: row.get("to_end"),
    })
}

/// Takes places until one is left, ends a few connections of the system, takes theirs, and so on until it is stopped.
async fn keep_full(
    admin: PgConnectOptions,
    config: MaxConnectionsConfig,
    stop: CancellationToken,
    tell: watch::Sender<Option<Places>>,
) -> Vec<PgConnection> {
    let mut held = Vec::new();
    let mut watcher = connect(&admin).await.ok();
    let mut tick = tokio::time::interval(EVERY);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            _ = tick.tick() => {}
        }
        let places = match &mut watcher {
            Some(connection) => read(connection, &config).await,
            None => Err("not connected".into()),
        };
        let Ok(places) = places else {
            watcher = match held.pop() {
                Some(connection) => Some(connection),
                None => connect(&admin).await.ok(),
            };
            continue;
        };
        tell.send_replace(Some(places.clone()));
        let free = places.all - places.taken;
        for _ in free..LEAVE_FREE {
            // The system took places too while ours were taken: those who look would find none.
            if let Some(connection) = held.pop() {
                close(connection).await;
            }
        }
        let mut wanted = free - LEAVE_FREE;
        while wanted > 0 && !stop.is_cancelled() {
            // Several at a time: one after the other takes ten seconds where this machine is busy.
            let mut taking = JoinSet::new();
            for _ in 0..wanted.min(TAKEN_AT_ONCE) {
                let admin = admin.clone();
                taking.spawn(async move { connect(&admin).await });
            }
            let taken = taking.join_all().await;
            let somebody_was_faster = taken.iter().any(Result::is_err);
            held.extend(taken.into_iter().flatten());
            if somebody_was_faster {
                // Look again at the next tick.
                break;
            }
            wanted -= TAKEN_AT_ONCE;
        }
        // No more at once than an ordinary role may not have.
        let at_once = usize::try_from(places.reserved - LEAVE_FREE).unwrap_or_default();
        if free <= LEAVE_FREE
            && let Some(watcher) = &mut watcher
        {
            let ended: Vec<i32> = places.to_end.into_iter().take(at_once).collect();
            let _ = sqlx::query("SELECT pg_terminate_backend(pid) FROM unnest($1::int[]) AS pid")
                .bind(&ended)
                .execute(watcher)
                .await;
        }
    }
    if let Some(watcher) = watcher {
        close(watcher).await;
    }
    held
}
