//! The shared rate limiter: one token bucket for each caller, counted over all instances in one script.
//!
//! Not for what happens without Redis: the caller keeps a floor of its own and never lets everybody in.

use std::net::IpAddr;
use std::sync::LazyLock;
use std::time::Duration;

use forecastle_domain::{TenantId, UserId};
use redis::Script;

use crate::cache::{Cache, CacheKey, CacheUnavailable};

/// `take(key, per_second, burst, now)`, in Lua, which returns whether a token was there, how many whole ones are
/// left, and the ms until the next.
///
/// One number for each bucket: when it will be full again, Redis's own µs, so instances with other clocks
/// count alike (the generic cell rate algorithm, which admits what a token bucket admits). A clock that
/// steps back refills nothing and empties the bucket at worst; garbage under the key is a full bucket; a
/// refusal writes nothing. An untouched bucket expires once it would be full again. Where Redis has no memory
/// left to count in, the first number is -1.
pub(crate) const TAKE_LUA: &str = "\
local function take(key, per_second, burst, now) \
  local step = 1000000 / per_second \
  local kept = redis.pcall('GET', key) \
  local full = type(kept) == 'string' and tonumber(kept) or now \
  full = math.min(now + burst * step, math.max(now, full)) \
  local n, admitted = burst - (full - now) / step, 0 \
  if n >= 1 then \
    n, full, admitted = n - 1, full + step, 1 \
    local lasts_ms = math.ceil((full - now) / 1000) + 1000 \
    local done = redis.pcall('SET', key, string.format('%.0f', full), 'PX', lasts_ms) \
    if type(done) == 'table' and done.err then return -1, 0, 0 end \
  end \
  local wait = 0 \
  if n < 1 then wait = math.ceil((1 - n) * step / 1000) end \
  return admitted, math.floor(n), wait \
end \
local t = redis.call('TIME') \
local now = t[1] * 1000000 + t[2] ";

static TAKE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(&format!("{TAKE_LUA} return {{take(KEYS[1], tonumber(ARGV[1]), tonumber(ARGV[2]), now)}}"))
});

/// Whose bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bucket {
    /// A signed-in user's.
    User(TenantId, UserId),
    /// A client address's, for everything it sends.
    Address(IpAddr),
    /// A client address's, for sign-up and login only.
    Credentials(IpAddr),
}

impl Bucket {
    /// Its key as Redis sees it.
    pub(crate) fn key(self) -> String {
        match self {
            Self::User(tenant, user) => format!("{}:full", CacheKey::limiter_of_user(tenant, user).as_str()),
            Self::Address(address) => format!("{}:full", CacheKey::limiter_of_address(address).as_str()),
            Self::Credentials(address) => {
                format!("{}:credentials:full", CacheKey::limiter_of_address(address).as_str())
            }
        }
    }
}

/// A bucket with its size: `burst` tokens, refilled at `per_second`; 0 of either counts as 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowance {
    /// Whose.
    pub bucket: Bucket,
    /// Tokens a second.
    pub per_second: u32,
    /// Most tokens.
    pub burst: u32,
}

/// What a bucket holds after a token was asked of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Taken {
    /// Whether there was one.
    pub admitted: bool,
    /// Whole tokens left.
    pub remaining: u32,
    /// Until the next whole token; zero if there is one.
    pub wait: Duration,
}

impl Taken {
    /// From what `take` returned.
    pub(crate) fn read((admitted, remaining, wait_ms): (i64, i64, i64)) -> Result<Self, CacheUnavailable> {
        if admitted < 0 {
            let refused = CacheUnavailable::Refused;
            metrics::counter!("forecastle_redis_failures_total", "kind" => refused.as_str()).increment(1);
            return Err(refused);
        }
        Ok(Self {
            admitted: admitted == 1,
            remaining: u32::try_from(remaining).unwrap_or(0),
            wait: Duration::from_millis(u64::try_from(wait_ms).unwrap_or(0)),
        })
    }
}

impl Cache {
    /// Takes one token from a bucket.
    ///
    /// # Errors
    /// What kept Redis from counting: the caller falls back to its floor.
    pub async fn take_token(&self, allowance: Allowance) -> Result<Taken, CacheUnavailable> {
        let mut call = TAKE.key(allowance.bucket.key());
        call.arg(allowance.per_second.max(1)).arg(allowance.burst.max(1));
        Taken::read(self.script(&call).await?)
    }
}
