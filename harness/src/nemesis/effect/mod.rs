//! Effect proofs: the system, or the path to it, seen to suffer while a fault stands, and to be well after.
//!
//! None of these asks the injector. A probe that cannot tell says so; only a reading that shows the effect holds.

use std::net::SocketAddr;
use std::time::Duration;

use nogo_faults::BoxFuture;
use nogo_invariants::history::{Proof, ProofKind};

mod alerts;
mod billers;
mod metrics;
mod provider;
mod rates;
mod readiness;
mod sinks;
mod stores;
mod strangers;
mod wire;
mod workers;

pub use alerts::AlertUnheard;
pub use billers::{FirstCharges, MoneyUnrecorded, PassStuck, TakenOver};
pub use metrics::{Counter, CounterRises, SilentReplica, SlowMean};
pub use provider::{Billing, Events, EventsShow, Told};
pub use rates::{Exceeds, Measure};
pub use readiness::{Readiness, Unwell};
pub use sinks::{SinkHurt, Slips};
pub use stores::{AndStreaming, Asked, KeysLost};
pub use strangers::{ClockSeen, NewConnection, SlowAnswers};
pub use wire::WireSeen;
pub use workers::{ClaimsNothing, LeasesLost, OrphanedJobs, SlowJobs};

/// Looks along the path that a fault hurts.
pub trait EffectProbe: Send {
    /// One look while the fault stands; `holds` says whether the effect was seen.
    fn effect(&mut self) -> BoxFuture<'_, Proof>;
    /// One look after healing; `holds` says whether the path is well.
    fn recovery(&mut self) -> BoxFuture<'_, Proof>;
}

fn proof(kind: ProofKind, source: &str, holds: bool, what: String) -> Proof {
    Proof { kind, source: source.to_owned(), what, holds }
}

/// PING through an API's own link to Redis.
pub struct RedisPath {
    /// Name of the link.
    pub link: String,
    /// URL by way of the link, password included.
    pub url: String,
}

/// One PING, connection included, takes at most this.
const PING_LIMIT: Duration = Duration::from_millis(500);

impl RedisPath {
    async fn ping(&self) -> Result<(), String> {
        let ask = async {
            let client = redis::Client::open(self.url.as_str()).map_err(|error| error.to_string())?;
            let mut connection =
                client.get_multiplexed_async_connection().await.map_err(|error| error.kind().to_string_lossy())?;
            redis::cmd("PING")
                .query_async::<String>(&mut connection)
                .await
                .map(drop)
                .map_err(|error| error.kind().to_string_lossy())
        };
        tokio::time::timeout(PING_LIMIT, ask).await.unwrap_or_else(|_| Err("no answer in time".to_owned()))
    }
}

/// An error's kind in words, without addresses or credentials.
trait KindInWords {
    fn to_string_lossy(&self) -> String;
}

impl KindInWords for redis::ErrorKind {
    fn to_string_lossy(&self) -> String {
        format!("{self:?}")
    }
}

impl EffectProbe for RedisPath {
    fn effect(&mut self) -> BoxFuture<'_, Proof> {
        Box::pin(async move {
            let answer = self.ping().await;
            let what =
                format!("PING through {}: {}", self.link, answer.as_ref().err().map_or("answered", String::as_str));
            proof(ProofKind::Effect, "redis link", answer.is_err(), what)
        })
    }

    fn recovery(&mut self) -> BoxFuture<'_, Proof> {
        Box::pin(async move {
            let answer = self.ping().await;
            let what =
                format!("PING through {}: {}", self.link, answer.as_ref().err().map_or("answered", String::as_str));
            proof(ProofKind::Recovery, "redis link", answer.is_ok(), what)
        })
    }
}

/// What a placebo shows: a path that nothing happens to.
pub struct Nothing {
    /// Where the untouched server listens.
    pub address: SocketAddr,
}

impl EffectProbe for Nothing {
    fn effect(&mut self) -> BoxFuture<'_, Proof> {
        Box::pin(async move {
            let refused = tokio::net::TcpStream::connect(self.address).await.is_err();
            proof(ProofKind::Effect, "tcp", refused, format!("the server is reached: {}", !refused))
        })
    }

    fn recovery(&mut self) -> BoxFuture<'_, Proof> {
        Box::pin(async move {
            let reached = tokio::net::TcpStream::connect(self.address).await.is_ok();
            proof(ProofKind::Recovery, "tcp", reached, format!("the server is reached: {reached}"))
        })
    }
}
