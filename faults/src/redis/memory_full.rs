//! Redis with no memory left: it forgets what it was told to keep, or refuses to be told more.
//!
//! The limit is drawn down to what is in use. To force eviction, other keys are written into another of its databases
//! all the time, so that the system's are the ones it has used least.

use std::time::Duration;

use ::redis::aio::MultiplexedConnection;
use serde_json::json;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::admin::{Admin, in_words, try_write};
use crate::{
    blast_radius::Target,
    fault::{HealError, InstallError, Proof, ProofError},
    harm::{Harm, Wait, refused, unhealed},
};

/// Where the ballast goes; the system uses database 0.
const BALLAST_DATABASE: u8 = 15;
const BALLAST_VALUE_BYTES: usize = 8 << 10;
const BALLAST_PER_ROUND: usize = 16;
const BALLAST_PAUSE: Duration = Duration::from_millis(5);
/// Room above what is in use when eviction begins: less than the ballast that comes.
const ROOM_BYTES: u64 = 1 << 20;
const WITNESS: &str = "nogo:witness";

/// What a full Redis does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenFull {
    /// Evicts what was used least lately.
    Evict,
    /// Refuses every write with OOM.
    Refuse,
}

/// Leaves a server no memory until it is healed.
pub struct RedisMemoryFull {
    name: String,
    admin: Admin,
    when_full: WhenFull,
    limit_ms: u64,
    /// Limit and policy as they were, once they were changed.
    before: Option<(String, String)>,
    evicted_before: u64,
    ballast: Option<(CancellationToken, JoinHandle<()>)>,
    stands: bool,
}

impl RedisMemoryFull {
    /// The want of memory of the service `name` at `address`; `limit_ms` bounds each wait.
    ///
    /// # Errors
    /// [`InstallError::Parameter`] if the address makes no URL.
    pub fn new(
        name: impl Into<String>,
        address: std::net::SocketAddr,
        password: Option<&str>,
        when_full: WhenFull,
        limit_ms: u64,
    ) -> Result<Self, InstallError> {
        let admin = Admin::new(address, password)?;
        Ok(Self {
            name: name.into(),
            admin,
            when_full,
            limit_ms,
            before: None,
            evicted_before: 0,
            ballast: None,
            stands: false,
        })
    }

    async fn look_full(&self) -> Result<Proof, ProofError> {
        if !self.stands {
            return Err(ProofError::NoHarm("its limit is its own".into()));
        }
        let info = self.admin.info().await.map_err(ProofError::Unreadable)?;
        let number = |name: &str| info.get::<u64>(name).unwrap_or_default();
        let policy: String = info.get("maxmemory_policy").unwrap_or_default();
        let evicted = number("evicted_keys").saturating_sub(self.evicted_before);
        let shows = match self.when_full {
            WhenFull::Evict if evicted == 0 => Err("it has evicted nothing".to_owned()),
            WhenFull::Evict => Ok(json!({ "evicted_keys": evicted })),
            WhenFull::Refuse => self.witness().await.map(|refusal| json!({ "own_write": refusal })),
        };
        let shows = shows.map_err(ProofError::NoHarm)?;
        Ok(Proof::new(
            "memory_full",
            json!({
                "service": self.name, "address": self.admin.address.to_string(), "policy": policy,
                "limit_bytes": number("maxmemory"), "used_bytes": number("used_memory"), "shows": shows,
            }),
        ))
    }

    /// The refusal of a write of ours.
    async fn witness(&self) -> Result<String, String> {
        let mut connection = self.admin.connection().await?;
        match try_write(&mut connection, WITNESS).await {
            Err(error) if error.code() == Some("OOM") => Ok(in_words(&error)),
            Err(error) => Err(in_words(&error)),
            Ok(()) => Err("it took a write".into()),
        }
    }

    async fn put_back(&mut self) -> Result<(), String> {
        if let Some((stop, task)) = self.ballast.take() {
            stop.cancel();
            let _ = task.await;
        }
        let Some((limit, policy)) = &self.before else {
            return Ok(());
        };
        self.admin.set("maxmemory", limit).await?;
        self.admin.set("maxmemory-policy", policy).await?;
        let mut connection = in_ballast_database(&self.admin).await?;
        let flushed: Result<(), _> = ::redis::cmd("FLUSHDB").arg("SYNC").query_async(&mut connection).await;
        flushed.map_err(|error| in_words(&error))
    }

    async fn look_well(&self) -> Result<Proof, String> {
        let (limit, policy) = (self.admin.setting("maxmemory").await?, self.admin.setting("maxmemory-policy").await?);
        if let Some((limit_before, policy_before)) = &self.before
            && (limit != *limit_before || policy != *policy_before)
        {
            return Err(format!("limit {limit}, policy {policy}"));
        }
        let mut connection = in_ballast_database(&self.admin).await?;
        let ballast: u64 =
            ::redis::cmd("DBSIZE").query_async(&mut connection).await.map_err(|error| in_words(&error))?;
        let mut connection = self.admin.connection().await?;
        try_write(&mut connection, WITNESS).await.map_err(|error| in_words(&error))?;
        let forgotten: Result<u64, String> = self.admin.run(::redis::cmd("DEL").arg(WITNESS)).await;
        if ballast > 0 || forgotten? != 1 {
            return Err(format!("{ballast} keys of ours are left, or a write was not kept"));
        }
        Ok(Proof::new(
            "memory_free",
            json!({
                "service": self.name, "address": self.admin.address.to_string(), "limit_bytes": limit, "policy": policy,
                "ballast_keys": ballast, "own_write": "kept",
            }),
        ))
    }
}

impl Harm for RedisMemoryFull {
    fn name(&self) -> &str {
        match self.when_full {
            WhenFull::Evict => "redis-eviction",
            WhenFull::Refuse => "redis-memory-refused",
        }
    }

    fn targets(&self) -> Vec<Target> {
        vec![Target::Service { name: self.name.clone(), address: self.admin.address }]
    }

    async fn strike(&mut self) -> Result<Proof, InstallError> {
        let limit = self.admin.setting("maxmemory").await.map_err(refused("read its limit"))?;
        let policy = self.admin.setting("maxmemory-policy").await.map_err(refused("read its policy"))?;
        self.evicted_before = self.admin.count("evicted_keys").await.map_err(refused("count evictions"))?;
        self.before = Some((limit, policy));
        self.stands = true;
        let used = self.admin.count("used_memory").await.map_err(refused("read its memory"))?;
        let (policy, limit) = match self.when_full {
            WhenFull::Evict => ("allkeys-lru", used + ROOM_BYTES),
            // Below what the empty server needs: nothing that is freed makes room.
            WhenFull::Refuse => ("noeviction", 1),
        };
        self.admin.set("maxmemory-policy", policy).await.map_err(refused("change its policy"))?;
        self.admin.set("maxmemory", &limit.to_string()).await.map_err(refused("draw its limit down"))?;
        if self.when_full == WhenFull::Evict {
            let connection = in_ballast_database(&self.admin).await.map_err(refused("connect"))?;
            let stop = CancellationToken::new();
            self.ballast = Some((stop.clone(), tokio::spawn(load_ballast(connection, stop))));
        }
        let wait = Wait::of_ms(self.limit_ms);
        loop {
            match self.look_full().await {
                Ok(proof) => return Ok(proof),
                Err(seen) => wait.for_landing(Harm::name(self), seen.to_string()).await?,
            }
        }
    }

    async fn look(&mut self) -> Result<Proof, ProofError> {
        self.look_full().await
    }

    async fn undo(&mut self) -> Result<Proof, HealError> {
        self.put_back().await.map_err(unhealed("give the memory back"))?;
        self.stands = false;
        let wait = Wait::of_ms(self.limit_ms);
        loop {
            match self.look_well().await {
                Ok(proof) => return Ok(proof),
                Err(seen) => wait.for_healing(Harm::name(self), seen).await?,
            }
        }
    }
}

impl Drop for RedisMemoryFull {
    fn drop(&mut self) {
        if let Some((stop, _)) = &self.ballast {
            stop.cancel();
        }
    }
}

async fn in_ballast_database(admin: &Admin) -> Result<MultiplexedConnection, String> {
    let mut connection = admin.connection().await?;
    let selected: Result<(), _> = ::redis::cmd("SELECT").arg(BALLAST_DATABASE).query_async(&mut connection).await;
    selected.map_err(|error| in_words(&error))?;
    Ok(connection)
}

/// Writes until it is stopped or its connection ends.
async fn load_ballast(mut connection: MultiplexedConnection, stop: CancellationToken) {
    let value = vec![b'b'; BALLAST_VALUE_BYTES];
    let mut number = 0_u64;
    while !stop.is_cancelled() {
        let mut round = ::redis::pipe();
        for _ in 0..BALLAST_PER_ROUND {
            number += 1;
            round.cmd("SET").arg(format!("nogo:ballast:{number}")).arg(&value).arg("PX").arg(60_000).ignore();
        }
        if round.query_async::<()>(&mut connection).await.is_err_and(|error| error.is_io_error()) {
            return;
        }
        tokio::time::sleep(BALLAST_PAUSE).await;
    }
}
