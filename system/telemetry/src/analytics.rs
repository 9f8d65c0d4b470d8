//! What the product is used for, without telling by whom: an event's name, its minute, and keyed
//! digests of tenant and user that mean nothing without the key.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, SecondsFormat, SubsecRound as _, Timelike as _, Utc};
use forecastle_domain::{TenantId, UserId};
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde::Serialize;
use sha2::Sha256;
use uuid::Uuid;

use crate::http::{BadSinkAddress, Poster, plain_url};
use crate::outlet::{self, Inlet, Outlet};

/// Bytes of a digest that are sent; enough to tell a million customers apart.
const DIGEST_BYTES: usize = 16;

/// Everything that may be told. A new kind of event is a new variant here and nowhere else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ProductEvent {
    /// A tenant was made.
    SignedUp,
    /// A session was opened.
    LoggedIn,
    /// A session was ended by its user.
    LoggedOut,
    /// A scenario was made.
    ScenarioCreated,
    /// A scenario was changed.
    ScenarioEdited,
    /// A scenario was looked at.
    ScenarioViewed,
    /// A forecast was asked for.
    ForecastRequested,
    /// A forecast was looked at.
    ForecastViewed,
    /// The dashboard was looked at.
    DashboardViewed,
    /// Invoices were looked at.
    InvoicesViewed,
}

/// How analytics are sent. Has no `Debug`: it holds the key.
#[derive(Clone)]
pub struct AnalyticsOptions {
    /// Where batches are posted.
    pub url: String,
    /// The key of the digests.
    pub key: [u8; 32],
    /// Most events that may wait; further ones are dropped and counted.
    pub queue_max: usize,
    /// Most events in one POST; at least 1.
    pub batch_max: usize,
    /// Longest time an event waits for others.
    pub linger: Duration,
    /// Longest time for one POST.
    pub timeout: Duration,
}

#[derive(Serialize)]
struct Record {
    event: ProductEvent,
    tenant: String,
    user: String,
    at: String,
}

#[derive(Serialize)]
struct Batch {
    events: Vec<Record>,
}

/// Takes events. Cheap to clone.
#[derive(Clone)]
pub struct Analytics {
    key: Arc<[u8; 32]>,
    outlet: Outlet<Record>,
}

impl Analytics {
    /// Starts the task that sends; needs a runtime.
    ///
    /// # Errors
    /// If the address cannot be used.
    pub fn start(options: AnalyticsOptions) -> Result<Self, BadSinkAddress> {
        let poster = Poster::new(plain_url(&options.url)?, options.timeout)?;
        let (outlet, inlet) = outlet::open("analytics", options.queue_max);
        tokio::spawn(send(inlet, poster, options.batch_max.max(1), options.linger));
        Ok(Self { key: Arc::new(options.key), outlet })
    }

    /// Notes that a user did something. Never waits.
    pub fn record(&self, event: ProductEvent, tenant: TenantId, user: UserId) {
        let record = Record {
            event,
            tenant: self.digest(b"tenant", tenant.as_uuid()),
            user: self.digest(b"user", user.as_uuid()),
            at: minute(Utc::now()),
        };
        self.outlet.offer(record);
    }

    /// Lets what waits be sent, at most for `limit`.
    pub async fn flush(&self, limit: Duration) {
        self.outlet.flush(limit).await;
    }

    fn digest(&self, kind: &[u8], id: Uuid) -> String {
        let mut mac = Hmac::<Sha256>::new_from_slice(self.key.as_slice()).expect("HMAC takes a key of any length");
        mac.update(kind);
        mac.update(id.as_bytes());
        hex::encode(&mac.finalize().into_bytes()[..DIGEST_BYTES])
    }
}

/// To the minute: an exact time beside an access log would name the user.
fn minute(at: DateTime<Utc>) -> String {
    let whole = at.trunc_subsecs(0).with_second(0).unwrap_or(at);
    whole.to_rfc3339_opts(SecondsFormat::Secs, true)
}

async fn send(mut inlet: Inlet<Record>, poster: Poster, batch_max: usize, linger: Duration) {
    while let Some(events) = inlet.next_batch(batch_max, linger).await {
        if events.is_empty() {
            continue;
        }
        let count = events.len();
        let body = serde_json::to_vec(&Batch { events }).expect("a record is plain data");
        let outcome = poster.post(&[("content-type", "application/json")], body).await;
        inlet.count(outcome, count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_tells_nothing_without_the_key_and_keeps_tenant_and_user_apart() {
        let with = |key: u8| Analytics { key: Arc::new([key; 32]), outlet: outlet::open("test", 1).0 };
        let id = Uuid::from_u128(7);
        assert_eq!(with(1).digest(b"tenant", id), with(1).digest(b"tenant", id));
        assert_ne!(with(1).digest(b"tenant", id), with(2).digest(b"tenant", id));
        assert_ne!(with(1).digest(b"tenant", id), with(1).digest(b"user", id));
        assert_eq!(with(1).digest(b"tenant", id).len(), 2 * DIGEST_BYTES);
    }

    #[test]
    fn times_are_told_to_the_minute() {
        let at = DateTime::parse_from_rfc3339("2026-03-01T12:34:56.789Z").unwrap().to_utc();
        assert_eq!(minute(at), "2026-03-01T12:34:00Z");
    }
}
