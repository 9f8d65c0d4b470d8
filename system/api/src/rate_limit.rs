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
use forecastle_store::admission::Admission;
use forecastle_store::limiter::{Allowance, Bucket, Taken};
use forecastle_store::{Cache, CacheKey, CacheUnavailable, Lookup, Peeked};
use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota};
use serde::de::DeserializeOwned;

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

/// Answers about one authenticated request whose address was admitted.
pub(crate) struct Asked<T> {
    pub(crate) address: Decision,
    /// To be noted once the session has been judged.
    pub(crate) user: Decision,
    pub(crate) session: Lookup<T>,
    /// To be opened once the session has been judged.
    pub(crate) wanted: Option<Peeked>,
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

    pub(crate) async fn address(&self, address: IpAddr) -> Decision {
        match self.address_ceiling(address) {
            Some(refusal) => refusal,
            None => self.address_below_ceiling(address).await,
        }
    }

    /// A refusal by this instance's own count, which costs nothing; with none, the address has one token less
    /// and Redis is still to be asked: [`Self::address_below_ceiling`] or [`Self::admit`].
    pub(crate) fn address_ceiling(&self, address: IpAddr) -> Option<Decision> {
        let ceiling = self.addresses.ceiling.decide("address", address);
        (!ceiling.admitted).then_some(ceiling)
    }

    pub(crate) async fn address_below_ceiling(&self, address: IpAddr) -> Decision {
        let taken = self.cache.take_token(self.address_allowance(address)).await;
        self.shared_or_floor("address", self.limits.address, taken, &self.addresses, address)
    }

    pub(crate) async fn credentials(&self, address: IpAddr) -> Decision {
        let (bucket, rate) = (Bucket::Credentials(address), self.limits.credentials);
        let ceiling = self.credentials.ceiling.decide("credentials", address);
        if !ceiling.admitted {
            return ceiling;
        }
        let taken = self.cache.take_token(allowance(bucket, rate)).await;
        self.shared_or_floor("credentials", rate, taken, &self.credentials, address)
    }

    pub(crate) async fn user(&self, tenant: TenantId, user: UserId) -> Decision {
        let (bucket, rate, caller) = (Bucket::User(tenant, user), self.limits.user, (tenant, user));
        let ceiling = self.users.ceiling.decide("user", caller);
        if !ceiling.admitted {
            return ceiling;
        }
        let taken = self.cache.take_token(allowance(bucket, rate)).await;
        self.shared_or_floor("user", rate, taken, &self.users, caller)
    }

    /// The address, which has passed [`Self::address_ceiling`], the user, a look at the session and one at what is
    /// wanted, in one trip.
    ///
    /// # Errors
    /// The address's refusal; nothing else was asked then.
    pub(crate) async fn admit<T: DeserializeOwned>(
        &self,
        address: IpAddr,
        caller: (TenantId, UserId),
        session: &CacheKey,
        wanted: Option<CacheKey>,
    ) -> Result<Asked<T>, Decision> {
        let user_ceiling = self.users.ceiling.decide("user", caller);
        if !user_ceiling.admitted {
            let address = self.address_below_ceiling(address).await;
            if !address.admitted {
                return Err(address);
            }
            // The session is judged before the user's rate: whoever is nobody learns nothing about it.
            return Ok(Asked { address, user: user_ceiling, session: self.cache.get(session).await, wanted: None });
        }
        let user = allowance(Bucket::User(caller.0, caller.1), self.limits.user);
        let answer = self.cache.admit(self.address_allowance(address), user, session, wanted).await;
        let answer = answer.unwrap_or_else(Admission::unanswered);
        let address = self.shared_or_floor("address", self.limits.address, answer.address, &self.addresses, address);
        if !address.admitted {
            return Err(address);
        }
        let user = self.shared_or_floor("user", self.limits.user, answer.user, &self.users, caller);
        Ok(Asked { address, user, session: answer.session, wanted: answer.wanted })
    }

    fn address_allowance(&self, address: IpAddr) -> Allowance {
        allowance(Bucket::Address(address), self.limits.address)
    }

    /// What Redis counted, or this instance's floor.
    fn shared_or_floor<K: Hash + Eq + Clone>(
        &self,
        policy: &'static str,
        rate: Rate,
        taken: Result<Taken, CacheUnavailable>,
        own: &OwnCount<K>,
        caller: K,
    ) -> Decision {
        match taken {
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

fn allowance(bucket: Bucket, rate: Rate) -> Allowance {
    Allowance { bucket, per_second: rate.per_second, burst: rate.burst }
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
