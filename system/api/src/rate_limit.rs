//! How often one caller may ask: counted in Redis over all instances, and by a smaller floor of this
//! instance's own while Redis does not answer. It never lets everybody in.
//!
//! Bound: in any window of w seconds one caller is admitted at most `burst + per_second × w` times while
//! Redis keeps its bucket. Each time Redis loses the bucket (flush, eviction, an empty restart) a full one
//! takes its place, and while it does not answer each instance admits its floor's bucket. But whatever
//! Redis does, an instance admits no caller beyond the same rate in its own memory: so never more than
//! instances × (burst + per_second × w), also where Redis evicts a bucket as soon as it is made. Nobody is
//! blocked longer than it takes to refill one token: a refusal takes none.

use std::hash::Hash;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use forecastle_domain::{TenantId, UserId};
use forecastle_store::Cache;
use forecastle_store::limiter::Bucket;
use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota};

use crate::config::{Limits, Rate};
use crate::error::ApiError;

/// Decisions after which callers at rest are forgotten.
const SWEEP_EVERY: u64 = 4_096;

/// What a limiter decided about one request; a policy's name never names its subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Decision {
    policy: &'static str,
    rate: Rate,
    admitted: bool,
    remaining: u32,
    wait: Duration,
}

/// Decisions about one request, gathered for its answer's headers.
#[derive(Debug, Default)]
pub(crate) struct Decisions(Mutex<Vec<Decision>>);

impl Decisions {
    /// Notes a decision, and turns a refusal into the 429 it means.
    pub(crate) fn note(&self, decision: Decision) -> Result<(), ApiError> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(decision);
        if decision.admitted {
            return Ok(());
        }
        metrics::counter!("forecastle_rate_refusals_total", "policy" => decision.policy).increment(1);
        Err(ApiError::new(StatusCode::TOO_MANY_REQUESTS, "rate_limited")
            .detail("Too many requests. Wait, then try again.")
            .retry_after(decision.wait))
    }

    /// Writes `RateLimit-Policy` and `RateLimit`, one item for each decision.
    pub(crate) fn write(&self, headers: &mut HeaderMap) {
        let decisions = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if decisions.is_empty() {
            return;
        }
        let policies: Vec<_> =
            decisions.iter().map(|d| format!("\"{}\";q={};w={}", d.policy, d.rate.burst, window_s(d.rate))).collect();
        let states: Vec<_> =
            decisions.iter().map(|d| format!("\"{}\";r={};t={}", d.policy, d.remaining, whole_s(d.wait))).collect();
        let mut put = |name: &'static str, items: Vec<String>| {
            let value = HeaderValue::from_str(&items.join(", ")).expect("digits and fixed words");
            headers.insert(HeaderName::from_static(name), value);
        };
        put("ratelimit-policy", policies);
        put("ratelimit", states);
    }
}

/// Seconds in which an empty bucket fills.
fn window_s(rate: Rate) -> u32 {
    rate.burst.div_ceil(rate.per_second.max(1)).max(1)
}

fn whole_s(wait: Duration) -> u64 {
    wait.as_secs() + u64::from(wait.subsec_nanos() > 0)
}

/// One instance's limiter.
pub(crate) struct RateLimiter {
    cache: Cache,
    limits: Limits,
    users: OwnCount<(TenantId, UserId)>,
    addresses: OwnCount<IpAddr>,
    credentials: OwnCount<IpAddr>,
}

/// What this instance counts for itself under one policy.
struct OwnCount<K: Hash + Eq + Clone> {
    /// The whole rate: never passed, whatever Redis says.
    ceiling: Buckets<K>,
    /// The smaller one that holds while Redis says nothing.
    floor: Buckets<K>,
}

impl<K: Hash + Eq + Clone> OwnCount<K> {
    fn new(rate: Rate, floor: Rate) -> Self {
        Self { ceiling: Buckets::new(rate), floor: Buckets::new(floor) }
    }
}

impl RateLimiter {
    pub(crate) fn new(cache: Cache, limits: Limits) -> Self {
        Self {
            cache,
            limits,
            users: OwnCount::new(limits.user, limits.user_floor),
            addresses: OwnCount::new(limits.address, limits.address_floor),
            credentials: OwnCount::new(limits.credentials, limits.credentials_floor),
        }
    }

    pub(crate) async fn user(&self, tenant: TenantId, user: UserId) -> Decision {
        let bucket = Bucket::User(tenant, user);
        self.decide("user", bucket, self.limits.user, &self.users, (tenant, user)).await
    }

    pub(crate) async fn address(&self, address: IpAddr) -> Decision {
        self.decide("address", Bucket::Address(address), self.limits.address, &self.addresses, address).await
    }

    pub(crate) async fn credentials(&self, address: IpAddr) -> Decision {
        let bucket = Bucket::Credentials(address);
        self.decide("credentials", bucket, self.limits.credentials, &self.credentials, address).await
    }

    async fn decide<K: Hash + Eq + Clone>(
        &self,
        policy: &'static str,
        bucket: Bucket,
        rate: Rate,
        own: &OwnCount<K>,
        caller: K,
    ) -> Decision {
        let ceiling = own.ceiling.decide(policy, caller.clone());
        if !ceiling.admitted {
            return ceiling;
        }
        match self.cache.take_token(bucket, rate.per_second, rate.burst).await {
            Ok(taken) => {
                Decision { policy, rate, admitted: taken.admitted, remaining: taken.remaining, wait: taken.wait }
            }
            Err(_) => {
                metrics::counter!("forecastle_rate_floor_decisions_total", "policy" => policy).increment(1);
                own.floor.decide(policy, caller)
            }
        }
    }
}

/// Token buckets in this process's memory.
struct Buckets<K: Hash + Eq + Clone> {
    rate: Rate,
    buckets: DefaultKeyedRateLimiter<K>,
    clock: DefaultClock,
    decisions: AtomicU64,
}

impl<K: Hash + Eq + Clone> Buckets<K> {
    fn new(rate: Rate) -> Self {
        let at_least_one = |n: u32| NonZeroU32::new(n).unwrap_or(NonZeroU32::MIN);
        let quota = Quota::per_second(at_least_one(rate.per_second)).allow_burst(at_least_one(rate.burst));
        Self {
            rate,
            buckets: DefaultKeyedRateLimiter::dashmap(quota),
            clock: DefaultClock::default(),
            decisions: AtomicU64::new(0),
        }
    }

    fn decide(&self, policy: &'static str, caller: K) -> Decision {
        if self.decisions.fetch_add(1, Ordering::Relaxed) % SWEEP_EVERY == SWEEP_EVERY - 1 {
            self.buckets.retain_recent();
            self.buckets.shrink_to_fit();
        }
        let refused_for = self.buckets.check_key(&caller).err().map(|until| until.wait_time_from(self.clock.now()));
        Decision {
            policy,
            rate: self.rate,
            admitted: refused_for.is_none(),
            remaining: 0,
            wait: refused_for.unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADDRESS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    #[test]
    fn a_floor_admits_its_burst_and_not_one_more() {
        let floor = Buckets::new(Rate { per_second: 1, burst: 3 });
        let admitted = (0..10).filter(|_| floor.decide("address", ADDRESS).admitted).count();
        assert_eq!(admitted, 3);
        let refused = floor.decide("address", ADDRESS);
        assert!(refused.wait > Duration::ZERO && refused.wait <= Duration::from_secs(1));
        assert!(floor.decide("address", IpAddr::V4(std::net::Ipv4Addr::BROADCAST)).admitted, "another caller is free");
    }

    #[test]
    fn a_refusal_is_a_429_and_the_headers_tell_every_policy() {
        let decision = |policy, admitted| Decision {
            policy,
            rate: Rate { per_second: 50, burst: 100 },
            admitted,
            remaining: 7,
            wait: Duration::from_millis(1),
        };
        let decisions = Decisions::default();
        assert!(decisions.note(decision("address", true)).is_ok());
        let refusal = decisions.note(decision("user", false)).unwrap_err();
        assert_eq!(refusal.status(), StatusCode::TOO_MANY_REQUESTS);
        let mut headers = HeaderMap::new();
        decisions.write(&mut headers);
        assert_eq!(headers["ratelimit-policy"], "\"address\";q=100;w=2, \"user\";q=100;w=2");
        assert_eq!(headers["ratelimit"], "\"address\";r=7;t=1, \"user\";r=7;t=1");
    }
}
