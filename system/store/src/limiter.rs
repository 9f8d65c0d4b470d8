//! The shared rate limiter: one token bucket for each caller, counted over all instances in one script.
//!
//! Not for what happens without Redis: the caller keeps a floor of its own and never lets everybody in.

use std::net::IpAddr;
use std::sync::LazyLock;
use std::time::Duration;

use forecastle_domain::{TenantId, UserId};
use redis::Script;

use crate::cache::{Cache, CacheKey, CacheUnavailable};

/// One number for each bucket: when it will be full again, Redis's own µs, so instances with other clocks
/// count alike (the generic cell rate algorithm, which admits what a token bucket admits). A clock that
/// steps back refills nothing and empties the bucket at worst; garbage under the key is a full bucket; a
/// refusal writes nothing. An untouched bucket expires once it would be full again.
static TAKE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "local t = redis.call('TIME') \
         local now = t[1] * 1000000 + t[2] \
         local step, burst = 1000000 / tonumber(ARGV[1]), tonumber(ARGV[2]) \
         local kept = redis.pcall('GET', KEYS[1]) \
         local full = type(kept) == 'string' and tonumber(kept) or now \
         full = math.min(math.max(full, now), now + burst * step) \
         local n, admitted = burst - (full - now) / step, 0 \
         if n >= 1 then \
           n, full, admitted = n - 1, full + step, 1 \
           redis.call('SET', KEYS[1], string.format('%.0f', full), 'PX', math.ceil((full - now) / 1000) + 1000) \
         end \
         local wait = 0 \
         if n < 1 then wait = math.ceil((1 - n) * step / 1000) end \
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
            Bucket::User(tenant, user) => format!("{}:full", CacheKey::limiter_of_user(tenant, user).as_str()),
            Bucket::Address(address) => format!("{}:full", CacheKey::limiter_of_address(address).as_str()),
            Bucket::Credentials(address) => {
                format!("{}:credentials:full", CacheKey::limiter_of_address(address).as_str())
            }
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
