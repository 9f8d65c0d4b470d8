//! The shared rate limiter: one token bucket for each caller, counted over all instances in one script.
//!
//! Not for what happens without Redis: the caller keeps a floor of its own and never lets everybody in.

use std::net::IpAddr;
use std::sync::LazyLock;
use std::time::Duration;

use forecastle_domain::{TenantId, UserId};
use redis::Script;

use crate::cache::{Cache, CacheKey, CacheUnavailable};

/// Time is Redis's own, so instances with other clocks count alike; a clock that steps back refills
/// nothing and breaks nothing. An untouched bucket expires once it would be full again.
static TAKE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "local t = redis.call('TIME') \
         local now = t[1] * 1000 + math.floor(t[2] / 1000) \
         local rate, burst = tonumber(ARGV[1]), tonumber(ARGV[2]) \
         local s = redis.pcall('HMGET', KEYS[1], 'n', 't') \
         if s.err then redis.call('DEL', KEYS[1]) s = {} end \
         local n, at = tonumber(s[1]) or burst, tonumber(s[2]) or now \
         n = math.min(burst, n + math.max(0, now - at) * rate / 1000) \
         local admitted = 0 \
         if n >= 1 then n = n - 1 admitted = 1 end \
         redis.call('HSET', KEYS[1], 'n', n, 't', now) \
         redis.call('PEXPIRE', KEYS[1], math.ceil(burst * 1000 / rate) + 1000) \
         local wait = 0 \
         if n < 1 then wait = math.ceil((1 - n) * 1000 / rate) end \
         return {admitted, math.floor(n), wait}",
    )
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

impl Cache {
    /// Takes one token from a bucket of `burst` tokens, refilled at `per_second`; both at least 1.
    ///
    /// # Errors
    /// What kept Redis from answering: the caller falls back to its floor.
    pub async fn take_token(&self, bucket: Bucket, per_second: u32, burst: u32) -> Result<Taken, CacheUnavailable> {
        let key = match bucket {
            Bucket::User(tenant, user) => CacheKey::limiter_of_user(tenant, user).as_str().to_owned(),
            Bucket::Address(address) => CacheKey::limiter_of_address(address).as_str().to_owned(),
            Bucket::Credentials(address) => format!("{}:credentials", CacheKey::limiter_of_address(address).as_str()),
        };
        let mut call = TAKE.key(key);
        call.arg(per_second.max(1)).arg(burst.max(1));
        let (admitted, remaining, wait_ms): (i64, i64, i64) = self.script(&call).await?;
        Ok(Taken {
            admitted: admitted == 1,
            remaining: u32::try_from(remaining).unwrap_or(0),
            wait: Duration::from_millis(u64::try_from(wait_ms).unwrap_or(0)),
        })
    }
}
