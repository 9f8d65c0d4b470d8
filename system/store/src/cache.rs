//! Answers kept in Redis, so that PostgreSQL is asked less often. Never the truth, never needed.
//!
//! A miss, an error, a time-out and an evicted key all mean the same: ask PostgreSQL.
//!
//! A late reader cannot put an old value back: whoever misses gets a lease, a random mark left under
//! the key, and may fill the key only while the mark is still there. A writer deletes the key *after*
//! its commit, mark included, so a value read before that commit is refused afterwards. It announces
//! itself before, so that its death in between leaves nothing old.
//!
//! What Redis does not confirm is recorded in PostgreSQL and done by whoever reaches Redis; a cache opened
//! with [`Cache::open_shared`] gives nothing out that may be owed ([`crate::cache_debts`] has the law).
//!
//! | what | kept for | until |
//! |---|---|---|
//! | a session that stands | 30 s | its revocation, confirmed before it is acknowledged |
//! | a tenant's plan | 10 s | a change of plan |
//! | a tenant's switches | 10 s | an operator's `flag set`, which records a debt |
//! | a scenario | 300 s | the edit or deletion of it |
//! | a forecast that has ended | 300 s | nothing changes it any more |
//! | a dashboard | 300 s | any change of the tenant's scenarios, forecasts or plan; the period's end |
//! | a limiter's bucket | until full again | never: Redis may lose it at any time ([`crate::limiter`]) |

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;

use forecastle_domain::{ForecastId, ScenarioId, SessionId, TenantId, UserId};
use futures_util::future::join_all;
use rand::RngExt;
use redis::Script;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::cache_debts::{Debt, Debts, Settlement};
use crate::cache_trust::{self, Trust};
use crate::pool::Db;
use crate::redis_link::RedisLink;

/// How long a reader may take from its miss to its fill.
pub(crate) const FILL_LEASE_MS: u64 = 3_000;
/// Deletions remembered for another try; beyond it a further one is dropped and its TTL must do.
const OWED_DELETIONS_MAX: usize = 4_096;
/// Pause between tries to pay owed deletions.
const OWED_DELETIONS_PAUSE: Duration = Duration::from_millis(200);
/// Locks that make one caller at a time fill a key; two keys may share one.
const FLIGHTS: usize = 256;
/// How long a caller waits for another one to fill the key before it asks PostgreSQL itself. Without
/// it, callers behind a database that answers none of them would each wait for all before them.
const FLIGHT_WAIT_MAX: Duration = Duration::from_millis(500);

/// How long a writer may take from its announcement to its deletion; longer than any transaction lasts.
const BLOCK_MS: u64 = 15_000;

/// What a value begins with; a new number whenever a stored form changes its meaning under the same fields.
const VALUE: &str = "V1";
const LEASE: u8 = b'L';
const BLOCK: &str = "B";
/// What a script answers for a key that the caller may not fill.
pub(crate) const NOBODY_FILLS: &str = BLOCK;

/// GET, and where there is nothing (or something that is no text), leave the caller's mark. One trip.
static LOOK: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "local v = redis.pcall('GET', KEYS[1]) \
         if type(v) == 'table' then redis.call('DEL', KEYS[1]) v = false end \
         if v then return v end \
         redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2]) \
         return false",
    )
});

/// Empties a key that still holds what was read from it.
static THROW_AWAY: LazyLock<Script> = LazyLock::new(|| {
    Script::new("if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0")
});

/// Put the value where the caller's own mark still stands.
static FILL: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "if redis.call('GET', KEYS[1]) == ARGV[1] then \
           redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3]) \
           return 1 \
         end \
         return 0",
    )
});

/// Put what nobody may fill or take over under each key. Where memory is full and nothing may be evicted, a
/// key is at least emptied: then a reader's mark does not fit either.
static ANNOUNCE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "for _, key in ipairs(KEYS) do \
           local done = redis.pcall('SET', key, ARGV[1], 'PX', ARGV[2]) \
           if type(done) == 'table' and done.err then redis.call('DEL', key) end \
         end \
         return 1",
    )
});

/// Why Redis gave no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CacheUnavailable {
    /// The address does not parse.
    #[error("redis address is not valid")]
    BadAddress,
    /// No answer in time; what was sent may have been done.
    #[error("redis time-out")]
    Timeout,
    /// Refused or disconnected; what was sent may have been done.
    #[error("redis failed")]
    Failed,
    /// Not asked: it failed so often just now that it is left alone for a moment.
    #[error("redis cut off")]
    CutOff,
    /// It answered, with a refusal: a key of another type, no memory left, a replica. The link is whole.
    #[error("redis refused")]
    Refused,
}

impl CacheUnavailable {
    /// A stable word for metric labels.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BadAddress => "bad_address",
            Self::Timeout => "timeout",
            Self::Failed => "failed",
            Self::CutOff => "cut_off",
            Self::Refused => "refused",
        }
    }
}

/// A key, its tenant first. The part after the tenant is also the metric label's source.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CacheKey {
    text: String,
    class: &'static str,
}

impl CacheKey {
    /// Whether a session stands and whose it is.
    #[must_use]
    pub fn session(tenant: TenantId, session: SessionId) -> Self {
        Self::of(tenant, "session", Some(session.to_string()))
    }

    /// The tenant's plan and entitlements.
    #[must_use]
    pub fn plan(tenant: TenantId) -> Self {
        Self::of(tenant, "plan", None)
    }

    /// The tenant's own switches.
    #[must_use]
    pub fn flags(tenant: TenantId) -> Self {
        Self::of(tenant, "flags", None)
    }

    /// One scenario.
    #[must_use]
    pub fn scenario(tenant: TenantId, scenario: ScenarioId) -> Self {
        Self::of(tenant, "scenario", Some(scenario.to_string()))
    }

    /// One forecast, once it has ended.
    #[must_use]
    pub fn forecast(tenant: TenantId, forecast: ForecastId) -> Self {
        Self::of(tenant, "forecast", Some(forecast.to_string()))
    }

    /// The tenant's dashboard.
    #[must_use]
    pub fn dashboard(tenant: TenantId) -> Self {
        Self::of(tenant, "dashboard", None)
    }

    /// A user's allowance of requests.
    #[must_use]
    pub fn limiter_of_user(tenant: TenantId, user: UserId) -> Self {
        Self::of(tenant, "rl:u", Some(user.to_string()))
    }

    /// A client address's allowance; before sign-in there is no tenant to put first.
    #[must_use]
    pub fn limiter_of_address(address: std::net::IpAddr) -> Self {
        Self { text: format!("rl:a:{address}"), class: "rl:a" }
    }

    /// The key as Redis sees it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whose it is; `None` for an address's.
    pub(crate) fn tenant(&self) -> Option<TenantId> {
        self.text.strip_prefix("t:")?.get(..36)?.parse::<uuid::Uuid>().ok().map(TenantId::from_uuid)
    }

    fn of(tenant: TenantId, class: &'static str, rest: Option<String>) -> Self {
        let text = match rest {
            Some(rest) => format!("t:{tenant}:{class}:{rest}"),
            None => format!("t:{tenant}:{class}"),
        };
        Self { text, class }
    }
}

/// What a look found.
#[derive(Debug)]
pub enum Lookup<T> {
    /// The value, as filled after the last deletion.
    Hit(T),
    /// Nothing. With a lease the caller may fill the key; without, somebody else is about to, or
    /// Redis did not answer.
    Miss(Option<FillLease>),
}

/// What became of a deletion. In all but the last case the change may be acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Deletion {
    /// Redis has done it, asked by this instance or by another one.
    Confirmed,
    /// It is recorded, and no instance gives out a cached value before it is done.
    Recorded,
    /// Neither Redis nor PostgreSQL has taken it: the old value may be given out until it runs out. This
    /// process goes on trying.
    Unrecorded,
}

/// The right to fill one key, once, unless it is deleted in between. Valid for 3 s.
#[derive(Debug)]
pub struct FillLease {
    key: CacheKey,
    mark: String,
}

/// What lay under a key at one moment, unread; good for the request that looked, and for no other.
#[derive(Debug, Clone)]
pub struct Peeked {
    key: CacheKey,
    found: Option<Vec<u8>>,
}

impl Peeked {
    pub(crate) const fn of(key: CacheKey, found: Option<Vec<u8>>) -> Self {
        Self { key, found }
    }
}

impl FillLease {
    /// Under a mark that nobody else has; the right itself comes with a miss.
    pub(crate) fn new(key: &CacheKey) -> Self {
        Self { key: key.clone(), mark: format!("{}{:032x}", char::from(LEASE), rand::rng().random::<u128>()) }
    }

    pub(crate) fn mark(&self) -> &str {
        &self.mark
    }
}

fn read_value<T: DeserializeOwned>(found: Option<&[u8]>) -> Option<T> {
    serde_json::from_slice(found?.strip_prefix(VALUE.as_bytes())?).ok()
}

pub(crate) fn count_lookup<T>(key: &CacheKey, lookup: &Lookup<T>) {
    let outcome = match lookup {
        Lookup::Hit(_) => "hit",
        Lookup::Miss(_) => "miss",
    };
    metrics::counter!("forecastle_cache_lookups_total", "class" => key.class, "outcome" => outcome).increment(1);
}

/// How to reach Redis.
#[derive(Debug, Clone)]
pub struct CacheOptions {
    /// `redis://host:port/`
    pub redis_url: String,
    /// Longest wait for any answer.
    pub timeout: Duration,
}

/// One process's access to Redis. Cheap to clone.
#[derive(Clone)]
pub struct Cache {
    pub(crate) shared: Arc<Shared>,
}

pub(crate) struct Shared {
    link: RedisLink,
    /// Whether what is found may be given out.
    pub(crate) trust: Trust,
    /// Where deletions go that Redis does not confirm; without it they are only remembered.
    debts: Option<Debts>,
    hasher: RandomState,
    flights: Vec<tokio::sync::Mutex<()>>,
    /// Deletions Redis has not confirmed, each with the number of the debt that it is.
    owed: Mutex<Owed>,
    owed_arrived: tokio::sync::Notify,
}

#[derive(Default)]
struct Owed {
    deletions: HashMap<CacheKey, u64>,
    last: u64,
}

impl Shared {
    fn owed(&self) -> std::sync::MutexGuard<'_, Owed> {
        self.owed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Cache {
    /// Prepares the link; connects when first used, so a dead Redis delays no start. Must be called
    /// inside a tokio runtime. For a cache that only this process uses: what Redis does not confirm is
    /// known here alone.
    ///
    /// # Errors
    /// `BadAddress`.
    pub fn open(options: &CacheOptions) -> Result<Self, CacheUnavailable> {
        Self::open_with(options, Trust::always(), None)
    }

    /// The same for an instance that shares its cache with others. What is cached is given out only while
    /// the instance knows, for `trust` at a time, that nothing is owed; one connection to PostgreSQL of
    /// its own sees to that.
    ///
    /// # Errors
    /// `BadAddress`.
    pub fn open_shared(options: &CacheOptions, db: &Db, trust: Duration) -> Result<Self, CacheUnavailable> {
        let cache = Self::open_with(options, Trust::none(), Some(Debts::new(db.clone())))?;
        tokio::spawn(cache_trust::keep(Arc::downgrade(&cache.shared), db.clone(), trust));
        Ok(cache)
    }

    /// The same for a process that changes what is cached and reads none of it: every look is a miss.
    ///
    /// # Errors
    /// `BadAddress`.
    pub fn open_for_writing(options: &CacheOptions, db: &Db) -> Result<Self, CacheUnavailable> {
        Self::open_with(options, Trust::none(), Some(Debts::new(db.clone())))
    }

    fn open_with(options: &CacheOptions, trust: Trust, debts: Option<Debts>) -> Result<Self, CacheUnavailable> {
        let shared = Arc::new(Shared {
            link: RedisLink::open(&options.redis_url, options.timeout)?,
            trust,
            debts,
            hasher: RandomState::new(),
            flights: (0..FLIGHTS).map(|_| tokio::sync::Mutex::new(())).collect(),
            owed: Mutex::new(Owed::default()),
            owed_arrived: tokio::sync::Notify::new(),
        });
        tokio::spawn(pay_owed_deletions(Arc::downgrade(&shared)));
        Ok(Self { shared })
    }

    /// Looks a key up. A value that does not read is a miss, and is emptied for the next one; one that
    /// may be owed is a miss without a lease.
    pub async fn get<T: DeserializeOwned>(&self, key: &CacheKey) -> Lookup<T> {
        let lookup = self.look(key, &LOOK).await;
        count_lookup(key, &lookup);
        lookup
    }

    async fn look<T: DeserializeOwned>(&self, key: &CacheKey, script: &Script) -> Lookup<T> {
        // Asked before Redis is: what was acknowledged before now is not owed then.
        if !self.may_give_out(key) {
            return Lookup::Miss(None);
        }
        let lease = FillLease::new(key);
        let mut call = script.key(key.as_str());
        call.arg(&lease.mark).arg(FILL_LEASE_MS);
        match self.shared.link.script::<Option<Vec<u8>>>(&call).await {
            Ok(found) => self.settle_look(lease, found).await,
            Err(_) => Lookup::Miss(None),
        }
    }

    /// What was found under the lease's key, by a script that leaves its mark where there was nothing.
    pub(crate) async fn settle_look<T: DeserializeOwned>(&self, lease: FillLease, found: Option<Vec<u8>>) -> Lookup<T> {
        if let Some(value) = read_value(found.as_deref()) {
            return Lookup::Hit(value);
        }
        match found {
            None => Lookup::Miss(Some(lease)),
            Some(found) if found.starts_with(&[LEASE]) || found == BLOCK.as_bytes() => Lookup::Miss(None),
            Some(found) => self.throw_away(&lease.key, &found).await,
        }
    }

    /// Another build's value, or garbage: it would be a miss for as long as it lives.
    async fn throw_away<T>(&self, key: &CacheKey, found: &[u8]) -> Lookup<T> {
        metrics::counter!("forecastle_cache_unreadable_total", "class" => key.class).increment(1);
        let mut call = THROW_AWAY.key(key.as_str());
        call.arg(found);
        let _: Result<i64, _> = self.shared.link.script(&call).await;
        Lookup::Miss(None)
    }

    pub(crate) fn may_give_out(&self, key: &CacheKey) -> bool {
        self.shared.trust.holds() && !self.shared.owed().deletions.contains_key(key)
    }

    /// Fills the key a look missed; whether it took. `ttl` is shortened by up to 15 % at random, so
    /// that keys filled together do not end together; it is never lengthened.
    pub async fn fill<T: Serialize + Sync>(&self, lease: FillLease, value: &T, ttl: Duration) -> bool {
        let Ok(json) = serde_json::to_string(value) else {
            return false;
        };
        let mut call = FILL.key(lease.key.as_str());
        call.arg(&lease.mark).arg(format!("{VALUE}{json}")).arg(jittered_ms(ttl));
        self.shared.link.script::<i64>(&call).await == Ok(1)
    }

    /// The value from Redis, or else from `load`, one caller at a time for each key while Redis
    /// answers and the callers before this one are done within half a second. `keep` says whether a value may
    /// be kept (a forecast only once it has ended); what is found and may not is nothing of ours.
    ///
    /// # Errors
    /// Those of `load`; never Redis's.
    pub async fn get_or_load<T, E, L, K>(&self, key: &CacheKey, ttl: Duration, load: L, keep: K) -> Result<T, E>
    where
        T: Serialize + DeserializeOwned + Sync,
        L: Future<Output = Result<T, E>>,
        K: Fn(&T) -> bool,
    {
        self.peeked_or_load(None, key, ttl, load, keep).await
    }

    /// The same after a look that this very request has had already, if it was one at this key.
    ///
    /// # Errors
    /// Those of `load`; never Redis's.
    pub async fn peeked_or_load<T, E, L, K>(
        &self,
        peeked: Option<Peeked>,
        key: &CacheKey,
        ttl: Duration,
        load: L,
        keep: K,
    ) -> Result<T, E>
    where
        T: Serialize + DeserializeOwned + Sync,
        L: Future<Output = Result<T, E>>,
        K: Fn(&T) -> bool,
    {
        if ttl.is_zero() {
            // Set so by whoever runs it: nothing of this is kept, nor looked for.
            return load.await;
        }
        let peeked = match peeked {
            Some(peeked) if peeked.key == *key => peeked,
            _ => self.peek(key).await,
        };
        let lookup = read_value(peeked.found.as_deref()).map_or(Lookup::Miss(None), Lookup::Hit);
        count_lookup(key, &lookup);
        if let Lookup::Hit(value) = lookup
            && keep(&value)
        {
            return Ok(value);
        }
        if self.shared.link.is_cut_off() || !self.may_give_out(key) {
            return load.await;
        }
        let flight = self.shared.hasher.hash_one(key) as usize % FLIGHTS;
        let flight = self.shared.flights[flight].lock();
        let Ok(_one_at_a_time) = tokio::time::timeout(FLIGHT_WAIT_MAX, flight).await else {
            return load.await;
        };
        // Whoever was first has filled it by now, after this caller arrived or before: either is new
        // enough, since a deletion in between would have emptied the key. The first caller itself
        // leaves its mark here, in place of another instance's if there is one.
        let lease = match self.take_over(key).await {
            Lookup::Hit(value) if keep(&value) => return Ok(value),
            // Nobody of ours has put that there.
            Lookup::Hit(_) => {
                let _ = self.try_delete(std::slice::from_ref(key)).await;
                None
            }
            Lookup::Miss(lease) => lease,
        };
        let value = load.await?;
        if let Some(lease) = lease
            && keep(&value)
        {
            self.fill(lease, &value, ttl).await;
        }
        Ok(value)
    }

    /// A look that leaves no mark behind: all that a hit takes, and cheaper than a script.
    async fn peek(&self, key: &CacheKey) -> Peeked {
        let found = match self.may_give_out(key) {
            true => self.shared.link.command::<Option<Vec<u8>>>(redis::cmd("GET").arg(key.as_str())).await,
            false => Ok(None),
        };
        Peeked::of(key.clone(), found.ok().flatten())
    }

    /// Like [`Cache::get`], but a mark that stands is taken over: its owner's fill will be refused.
    async fn take_over<T: DeserializeOwned>(&self, key: &CacheKey) -> Lookup<T> {
        static TAKE_OVER: LazyLock<Script> = LazyLock::new(|| {
            Script::new(
                "local v = redis.pcall('GET', KEYS[1]) \
                 if type(v) == 'table' then redis.call('DEL', KEYS[1]) v = false end \
                 if v and string.sub(v, 1, 1) ~= 'L' then return v end \
                 redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2]) \
                 return false",
            )
        });
        self.look(key, &TAKE_OVER).await
    }

    /// Empties keys that a transaction is about to change, and keeps them empty until they are deleted,
    /// or for 15 s: so a writer that dies between its commit and its deletion leaves no old value
    /// behind. Call it before the transaction begins. Where Redis does not confirm, the others are asked
    /// to do it; where nobody can be asked, only that protection is lost.
    pub async fn announce(&self, keys: &[CacheKey]) {
        if keys.is_empty() || self.block_names(keys.iter().map(CacheKey::as_str)).await.is_ok() {
            return;
        }
        if let Some(debts) = &self.shared.debts
            && let Err(error) = debts.settle(keys, Debt::Block).await
        {
            tracing::debug!(%error, "announce a change");
        }
    }

    /// Deletes keys after a commit that changed what they hold, together with any reader's mark, and
    /// returns once no instance can give the old value out: Redis has confirmed, or the deletion is
    /// recorded and another instance has made it, or none uses the cache before it is made. Keys of several
    /// tenants go in one trip too.
    pub async fn delete(&self, keys: &[CacheKey]) -> Deletion {
        if keys.is_empty() || self.try_delete(keys).await.is_ok() {
            return Deletion::Confirmed;
        }
        let of_each = keys.chunk_by(|one, next| one.tenant() == next.tenant()).map(|keys| self.owe(keys));
        join_all(of_each).await.into_iter().max().unwrap_or(Deletion::Confirmed)
    }

    /// Where Redis did not confirm; all keys of one tenant.
    async fn owe(&self, keys: &[CacheKey]) -> Deletion {
        if let Some(debts) = &self.shared.debts {
            match debts.settle(keys, Debt::Deletion).await {
                Ok(Settlement::Paid) => return Deletion::Confirmed,
                Ok(Settlement::NobodyTrusts) => return Deletion::Recorded,
                Err(error) => tracing::warn!(%error, "record a deletion that redis did not confirm"),
            }
        }
        let mut owed = self.shared.owed();
        for key in keys {
            owed.last += 1;
            let debt = owed.last;
            if owed.deletions.len() < OWED_DELETIONS_MAX || owed.deletions.contains_key(key) {
                owed.deletions.insert(key.clone(), debt);
            }
        }
        drop(owed);
        self.shared.owed_arrived.notify_one();
        Deletion::Unrecorded
    }

    /// Deletes one key and returns only when Redis has said so to this very process.
    ///
    /// # Errors
    /// What kept Redis from confirming.
    pub async fn delete_confirmed(&self, key: &CacheKey) -> Result<(), CacheUnavailable> {
        self.try_delete(std::slice::from_ref(key)).await
    }

    /// Whether Redis answers.
    ///
    /// # Errors
    /// What kept it from answering.
    pub async fn ping(&self) -> Result<(), CacheUnavailable> {
        self.shared.link.command::<String>(&redis::cmd("PING")).await.map(drop)
    }

    /// Runs a script of another module of this crate over the same guarded link.
    pub(crate) async fn script<T: redis::FromRedisValue>(
        &self,
        script: &redis::ScriptInvocation<'_>,
    ) -> Result<T, CacheUnavailable> {
        self.shared.link.script(script).await
    }

    async fn try_delete(&self, keys: &[CacheKey]) -> Result<(), CacheUnavailable> {
        let names = || keys.iter().map(CacheKey::as_str);
        match self.delete_names(names()).await {
            // A connection that broke while nobody used it says so to the first who does.
            Err(CacheUnavailable::Failed) => self.delete_names(names()).await,
            answered => answered,
        }
    }

    pub(crate) async fn delete_names<'n>(&self, names: impl Iterator<Item = &'n str>) -> Result<(), CacheUnavailable> {
        let mut command = redis::cmd("DEL");
        let mut is_empty = true;
        for name in names {
            command.arg(name);
            is_empty = false;
        }
        if is_empty {
            return Ok(());
        }
        self.shared.link.command::<i64>(&command).await.map(drop)
    }

    pub(crate) async fn block_names<'n>(&self, names: impl Iterator<Item = &'n str>) -> Result<(), CacheUnavailable> {
        let mut call = ANNOUNCE.prepare_invoke();
        let mut is_empty = true;
        for name in names {
            call.key(name);
            is_empty = false;
        }
        if is_empty {
            return Ok(());
        }
        call.arg(BLOCK).arg(BLOCK_MS);
        self.shared.link.script::<i64>(&call).await.map(drop)
    }
}

/// Ends when the last handle of the cache is gone.
async fn pay_owed_deletions(shared: std::sync::Weak<Shared>) {
    loop {
        let Some(strong) = shared.upgrade() else {
            return;
        };
        let cache = Cache { shared: strong };
        let owed: Vec<(CacheKey, u64)> = {
            let owed = cache.shared.owed();
            owed.deletions.iter().take(64).map(|(key, debt)| (key.clone(), *debt)).collect()
        };
        if owed.is_empty() {
            // Woken by the next debt; looks up now and then to see whether the cache still exists.
            let _ = tokio::time::timeout(Duration::from_secs(1), cache.shared.owed_arrived.notified()).await;
            continue;
        }
        let keys: Vec<CacheKey> = owed.iter().map(|(key, _)| key.clone()).collect();
        if cache.try_delete(&keys).await.is_ok() {
            // A debt that was renewed meanwhile is for a later commit, and stays.
            let mut standing = cache.shared.owed();
            for (key, debt) in &owed {
                if standing.deletions.get(key) == Some(debt) {
                    standing.deletions.remove(key);
                }
            }
        } else {
            drop(cache);
            tokio::time::sleep(OWED_DELETIONS_PAUSE).await;
        }
    }
}

fn jittered_ms(ttl: Duration) -> u64 {
    let longest = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX).max(1);
    let shortest = longest - longest.saturating_mul(15) / 100;
    rand::rng().random_range(shortest.max(1)..=longest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_begins_with_its_tenant() {
        let tenant = TenantId::from_uuid(uuid::Uuid::from_u128(7));
        let key = CacheKey::dashboard(tenant);
        assert_eq!(key.as_str(), format!("t:{tenant}:dashboard"));
    }

    #[test]
    fn jitter_only_shortens() {
        for _ in 0..1_000 {
            let ms = jittered_ms(Duration::from_secs(30));
            assert!((25_500..=30_000).contains(&ms), "{ms}");
        }
        assert_eq!(jittered_ms(Duration::ZERO), 1);
    }
}
