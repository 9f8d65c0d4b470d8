//! Every duration, limit and secret of the HTTP interface, as data.
//!
//! Not for reading flags or the environment: the binary fills this in.

use std::time::Duration;

use forecastle_billing::{BillingTerms, Patience, Provider, WebhookSecrets};
use forecastle_domain::LaunchPhase;
use forecastle_store::sessions::Lifetimes;
use forecastle_store::{CacheOptions, DbOptions, ReplicaOptions};
use forecastle_telemetry::Analytics;
use metrics_exporter_prometheus::PrometheusHandle;

use crate::client_address::TrustedNetwork;
use crate::connections::ConnectionLimits;
use crate::invitation::Invited;
use crate::key_ring::KeyRing;
use crate::mail::MailConfig;
use crate::streams::StreamLimits;

/// How fast one caller may go: a bucket of `burst` tokens, refilled at `per_second`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Sustained requests per second; at least 1.
    pub per_second: u32,
    /// Requests that may come at once; at least 1.
    pub burst: u32,
}

impl Rate {
    /// A bucket that holds two seconds' worth.
    #[must_use]
    pub const fn per_second(per_second: u32) -> Self {
        Self { per_second, burst: per_second.saturating_mul(2) }
    }
}

/// What one caller may spend, with Redis and without it.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Each signed-in user, counted over all instances.
    pub user: Rate,
    /// Each client address, counted over all instances.
    pub address: Rate,
    /// Each client address on sign-up and login, counted over all instances.
    pub credentials: Rate,
    /// Each signed-in user on this instance while Redis does not answer.
    pub user_floor: Rate,
    /// Each client address on this instance while Redis does not answer.
    pub address_floor: Rate,
    /// Each client address on sign-up and login, on this instance, while Redis does not answer.
    pub credentials_floor: Rate,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            user: Rate::per_second(50),
            address: Rate::per_second(100),
            credentials: Rate::per_second(20),
            user_floor: Rate::per_second(25),
            address_floor: Rate::per_second(50),
            credentials_floor: Rate::per_second(10),
        }
    }
}

/// Everything the interface needs to know. Holds secrets, so it has no `Debug`.
#[derive(Clone)]
pub struct ApiConfig {
    /// How to reach PostgreSQL; one of the connections is for listening.
    pub db: DbOptions,
    /// Copies of the database that may answer reads.
    pub replicas: ReplicaOptions,
    /// How to reach Redis.
    pub cache: CacheOptions,
    /// What `/metrics` renders; `None` installs a recorder for this process.
    pub metrics: Option<PrometheusHandle>,
    /// The step of the launch; `None` takes whoever comes.
    pub launch_phase: Option<LaunchPhase>,
    /// Who may sign up while the phase needs an invitation.
    pub invited: Invited,
    /// Most tenants there may be, beside the phase's own limit; `None` is no further cap.
    pub customer_cap: Option<u64>,
    /// Keys that sign and verify access tokens; the first one signs. May be replaced while it serves.
    pub keys: KeyRing,
    /// Lifetime of an access token.
    pub access_ttl: Duration,
    /// Lifetime of a refresh token, counted from its own issue.
    pub refresh_ttl: Duration,
    /// Lifetime of a session, however often it is refreshed.
    pub session_ttl: Duration,
    /// How long a rotated refresh token still answers with its own lineage.
    pub refresh_grace: Duration,
    /// Longest time a cached session may answer for PostgreSQL; bounds how long logout may wait.
    pub session_cache: Duration,
    /// Longest life of cached scenarios, finished forecasts and dashboards.
    pub cache_ttl: Duration,
    /// How long an instance gives out cached values without having heard from PostgreSQL that none of
    /// them is owed a deletion; the longest a write may wait while Redis is lost.
    pub cache_trust: Duration,
    /// Longest life of a cached plan.
    pub entitlement_cache: Duration,
    /// How long a stored idempotent answer is replayed.
    pub idempotency_ttl: Duration,
    /// A request that takes longer is answered 503.
    pub request_timeout: Duration,
    /// Time between two counts of what waits, for metrics.
    pub gauges_every: Duration,
    /// How long new requests are still taken after `/readyz` has turned to 503.
    pub drain_delay: Duration,
    /// Longest time a drain may take after that before open connections are dropped.
    pub drain_timeout: Duration,
    /// Largest request body, bytes.
    pub body_bytes_max: usize,
    /// Connections of clients.
    pub connections: ConnectionLimits,
    /// Largest sum of path, query, and all header names and values of a request, bytes.
    pub header_bytes_max: usize,
    /// Calculator requests computed at once; further ones wait up to 2 s.
    pub calculations_max: usize,
    /// Password hashes computed at once.
    pub password_hashes_max: usize,
    /// Password hashes that may wait for their turn; further ones are refused with 503.
    pub password_waiters_max: usize,
    /// Longest wait for that turn, then 503.
    pub password_wait: Duration,
    /// Memory of one password hash, KiB.
    pub password_memory_kib: u32,
    /// Passes of one password hash.
    pub password_passes: u32,
    /// Networks whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<TrustedNetwork>,
    /// Mails that carry a token; `None` sends none.
    pub mail: Option<MailConfig>,
    /// Where product analytics go; `None` is nowhere.
    pub analytics: Option<Analytics>,
    /// Rate limits.
    pub limits: Limits,
    /// The payment provider; without it, what charges is answered 503.
    pub provider: Option<Provider>,
    /// Longest time that one request asks the provider; what is not known by then is answered 202. Less than
    /// `request_timeout`.
    pub provider_patience: Duration,
    /// The durations of dunning; the biller's own.
    pub billing_terms: BillingTerms,
    /// What the payment provider signs its events with; without it they are answered 503.
    pub webhook_secrets: Option<WebhookSecrets>,
    /// How far from this host's clock an event may have been signed, either way.
    pub webhook_tolerance: Duration,
    /// Largest body of an event, bytes.
    pub webhook_bytes_max: usize,
    /// Streams of events.
    pub streams: StreamLimits,
}

impl ApiConfig {
    /// How long what a sign-in gives lasts.
    #[must_use]
    pub const fn lifetimes(&self) -> Lifetimes {
        Lifetimes { session: self.session_ttl, refresh_token: self.refresh_ttl }
    }

    /// Most tenants there may be; `None` is no limit.
    #[must_use]
    pub fn customers_max(&self) -> Option<u64> {
        forecastle_domain::launch_phase::customers_max(self.launch_phase, self.customer_cap)
    }

    /// The documented defaults, with the given servers and signing keys.
    #[must_use]
    pub fn new(db: DbOptions, cache: CacheOptions, keys: impl Into<KeyRing>) -> Self {
        Self {
            db,
            replicas: ReplicaOptions::default(),
            cache,
            metrics: None,
            launch_phase: None,
            invited: Invited::default(),
            customer_cap: None,
            keys: keys.into(),
            access_ttl: Duration::from_secs(300),
            refresh_ttl: Duration::from_secs(30 * 24 * 3600),
            session_ttl: Duration::from_secs(90 * 24 * 3600),
            refresh_grace: Duration::from_secs(10),
            session_cache: Duration::from_secs(30),
            cache_ttl: Duration::from_secs(300),
            cache_trust: Duration::from_secs(2),
            entitlement_cache: Duration::from_secs(10),
            idempotency_ttl: Duration::from_secs(24 * 3600),
            request_timeout: Duration::from_secs(10),
            gauges_every: Duration::from_secs(10),
            drain_delay: Duration::from_millis(500),
            drain_timeout: Duration::from_secs(30),
            body_bytes_max: 1 << 20,
            connections: ConnectionLimits::default(),
            header_bytes_max: 16 << 10,
            calculations_max: 2,
            password_hashes_max: 2,
            password_waiters_max: 64,
            password_wait: Duration::from_secs(5),
            password_memory_kib: 19 * 1024,
            password_passes: 2,
            trusted_proxies: Vec::new(),
            mail: None,
            analytics: None,
            limits: Limits::default(),
            provider: None,
            provider_patience: Duration::from_secs(5),
            billing_terms: BillingTerms::default(),
            webhook_secrets: None,
            webhook_tolerance: Duration::from_secs(300),
            webhook_bytes_max: 64 << 10,
            streams: StreamLimits::default(),
        }
    }

    /// The time that one request has for asking the provider, from now.
    pub(crate) fn patience(&self) -> Patience {
        Patience::of_request(self.provider_patience)
    }

    /// The tolerance in the type that times are compared in.
    pub(crate) fn webhook_tolerance(&self) -> chrono::Duration {
        chrono::Duration::from_std(self.webhook_tolerance).unwrap_or(chrono::Duration::MAX)
    }
}
