//! Answers kept in Redis, so that PostgreSQL is asked less often. Never the truth, never needed.
//!
//! A miss, an error, a time-out and an evicted key all mean the same: ask PostgreSQL.
//!
//! A late reader cannot put an old value back: whoever misses gets a lease, a random mark left under
//! the key, and may fill the key only while the mark is still there. A writer deletes the key *after*
//! its commit, mark included, so a value read before that commit is refused afterwards. It announces
//! itself before, so that its death in between leaves nothing old.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;

use forecastle_domain::{ForecastId, ScenarioId, SessionId, TenantId, UserId};
use rand::RngExt;
use redis::Script;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::redis_link::RedisLink;

/// How long a reader may take from its miss to its fill.
const FILL_LEASE_MS: u64 = 3_000;
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

const VALUE: char = 'V';
const LEASE: char = 'L';
const BLOCK: &str = "B";

/// GET, and where there is nothing, leave the caller's mark. One trip.
static LOOK: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "local v = redis.call('GET', KEYS[1]) \
         if v then return v end \
         redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2]) \
         return false",
    )
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

/// Put what nobody may fill or take over under each key.
static ANNOUNCE: LazyLock<Script> = LazyLock::new(|| {
    Script::new("for _, key in ipairs(KEYS) do redis.call('SET', key, ARGV[1], 'PX', ARGV[2]) end return 1")
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

/// The right to fill one key, once, unless it is deleted in between. Valid for 3 s.
#[derive(Debug)]
pub struct FillLease {
    key: CacheKey,
    mark: String,
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
    shared: Arc<Shared>,
}

struct Shared {
    link: RedisLink,
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
    /// inside a tokio runtime.
    ///
    /// # Errors
    /// `BadAddress`.
    pub fn open(options: &CacheOptions) -> Result<Self, CacheUnavailable> {
        let shared = Arc::new(Shared {
            link: RedisLink::open(&options.redis_url, options.timeout)?,
            hasher: RandomState::new(),
            flights: (0..FLIGHTS).map(|_| tokio::sync::Mutex::new(())).collect(),
            owed: Mutex::new(Owed::default()),
            owed_arrived: tokio::sync::Notify::new(),
        });
        tokio::spawn(pay_owed_deletions(Arc::downgrade(&shared)));
        Ok(Self { shared })
    }

    /// Looks a key up. A value that does not decode counts as a miss without a lease, and so does one
    /// that this process has not yet managed to delete.
    pub async fn get<T: DeserializeOwned>(&self, key: &CacheKey) -> Lookup<T> {
        if self.shared.owed().deletions.contains_key(key) {
            return Lookup::Miss(None);
        }
        let mark = format!("{LEASE}{:032x}", rand::rng().random::<u128>());
        let mut call = LOOK.key(key.as_str());
        call.arg(&mark).arg(FILL_LEASE_MS);
        let found: Result<Option<String>, _> = self.shared.link.script(&call).await;
        let lookup = match found {
            Ok(None) => Lookup::Miss(Some(FillLease { key: key.clone(), mark })),
            Ok(Some(text)) => text
                .strip_prefix(VALUE)
                .and_then(|json| serde_json::from_str(json).ok())
                .map_or(Lookup::Miss(None), Lookup::Hit),
            Err(_) => Lookup::Miss(None),
        };
        let outcome = match &lookup {
            Lookup::Hit(_) => "hit",
            Lookup::Miss(_) => "miss",
        };
        metrics::counter!("forecastle_cache_lookups_total", "class" => key.class, "outcome" => outcome).increment(1);
        lookup
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
    /// answers and the callers before this one are done within half a second. `keep` says whether a loaded value may be kept (a forecast only once it has ended).
    ///
    /// # Errors
    /// Those of `load`; never Redis's.
    pub async fn get_or_load<T, E, L, K>(&self, key: &CacheKey, ttl: Duration, load: L, keep: K) -> Result<T, E>
    where
        T: Serialize + DeserializeOwned + Sync,
        L: Future<Output = Result<T, E>>,
        K: FnOnce(&T) -> bool,
    {
        if let Lookup::Hit(value) = self.get(key).await {
            return Ok(value);
        }
        if self.shared.link.is_cut_off() {
            return load.await;
        }
        let flight = self.shared.hasher.hash_one(key) as usize % FLIGHTS;
        let flight = self.shared.flights[flight].lock();
        let Ok(_one_at_a_time) = tokio::time::timeout(FLIGHT_WAIT_MAX, flight).await else {
            return load.await;
        };
        // Whoever was first has filled it by now, after this caller arrived or before: either is new
        // enough, since a deletion in between would have emptied the key. The first caller itself
        // takes over the mark it left.
        let lease = match self.take_over(key).await {
            Lookup::Hit(value) => return Ok(value),
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

    /// Like [`Cache::get`], but a mark that stands is taken over: its owner's fill will be refused.
    async fn take_over<T: DeserializeOwned>(&self, key: &CacheKey) -> Lookup<T> {
        if self.shared.owed().deletions.contains_key(key) {
            return Lookup::Miss(None);
        }
        static TAKE_OVER: LazyLock<Script> = LazyLock::new(|| {
            Script::new(
                "local v = redis.call('GET', KEYS[1]) \
                 if v and string.sub(v, 1, 1) ~= 'L' then return v end \
                 redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2]) \
                 return false",
            )
        });
        let mark = format!("{LEASE}{:032x}", rand::rng().random::<u128>());
        let mut call = TAKE_OVER.key(key.as_str());
        call.arg(&mark).arg(FILL_LEASE_MS);
        match self.shared.link.script::<Option<String>>(&call).await {
            Ok(None) => Lookup::Miss(Some(FillLease { key: key.clone(), mark })),
            Ok(Some(text)) => text
                .strip_prefix(VALUE)
                .and_then(|json| serde_json::from_str(json).ok())
                .map_or(Lookup::Miss(None), Lookup::Hit),
            Err(_) => Lookup::Miss(None),
        }
    }

    /// Empties keys that a transaction is about to change, and keeps them empty until they are deleted,
    /// or for 15 s: so a writer that dies between its commit and its deletion leaves no old value
    /// behind. Call it before the transaction begins. Redis's refusal costs only that protection.
    pub async fn announce(&self, keys: &[CacheKey]) {
        let mut call = ANNOUNCE.prepare_invoke();
        for key in keys {
            call.key(key.as_str());
        }
        call.arg(BLOCK).arg(BLOCK_MS);
        let _: Result<i64, _> = self.shared.link.script(&call).await;
    }

    /// Deletes keys after a commit that changed what they hold, together with any reader's mark. When
    /// Redis does not answer, the deletion is owed and tried again until it succeeds.
    pub async fn delete(&self, keys: &[CacheKey]) {
        if keys.is_empty() || self.try_delete(keys).await.is_ok() {
            return;
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
    }

    /// Deletes one key and returns only when Redis has said so: for revocations. After an error the
    /// caller waits out the entry's longest lifetime instead.
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
        let mut command = redis::cmd("DEL");
        for key in keys {
            command.arg(key.as_str());
        }
        self.shared.link.command::<i64>(&command).await.map(drop)
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
