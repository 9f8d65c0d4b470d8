//! Effect proofs: the system, or the path to it, seen to suffer while a fault stands, and to be well after.
//!
//! None of these asks the injector. A probe that cannot tell says so; only a reading that shows the effect holds.

use std::net::SocketAddr;
use std::time::Duration;

use nogo_faults::BoxFuture;
use nogo_invariants::history::{Proof, ProofKind};
use sqlx::PgPool;
use sqlx::Row as _;

mod metrics;
mod readiness;
mod stores;

pub use metrics::{Counter, CounterRises, SilentReplica};
pub use readiness::{Readiness, Unwell};
pub use stores::{AndStreaming, Asked, KeysLost};

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

/// The jobs that a killed worker held: running under its name, their leases extended by nobody.
pub struct OrphanedJobs {
    /// Read-only connections past every proxy.
    pub reader: PgPool,
    /// Name of the worker.
    pub worker: String,
    /// The first look, to compare later ones with.
    pub orphans: Vec<Orphan>,
}

/// A job as a worker left it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Orphan {
    job_id: String,
    worker: String,
    attempts: i32,
    lease_until_us: i64,
}

impl OrphanedJobs {
    /// Watches the jobs of `worker`.
    pub fn new(reader: PgPool, worker: String) -> Self {
        OrphanedJobs { reader, worker, orphans: Vec::new() }
    }

    async fn held(&self) -> Result<Vec<Orphan>, sqlx::Error> {
        let rows = sqlx::query(
            "SELECT job_id::text, worker, attempts, (extract(epoch FROM lease_until) * 1000000)::bigint
             FROM app.jobs WHERE state = 'running' AND (worker = $1 OR worker LIKE $1 || '/%') ORDER BY job_id",
        )
        .bind(&self.worker)
        .fetch_all(&self.reader)
        .await?;
        rows.iter()
            .map(|row| {
                Ok(Orphan {
                    job_id: row.try_get(0)?,
                    worker: row.try_get(1)?,
                    attempts: row.try_get(2)?,
                    lease_until_us: row.try_get(3)?,
                })
            })
            .collect()
    }

    /// Jobs that a later incarnation of the worker completed. What became of the orphans themselves is for a law to judge:
    /// were it part of the recovery, a lost job would look like a fault that is not over.
    async fn completed_since(&self) -> Result<i64, sqlx::Error> {
        let dead: Vec<&str> = self.orphans.iter().map(|orphan| orphan.worker.as_str()).collect();
        sqlx::query_scalar(
            "SELECT count(*) FROM app.job_attempts
             WHERE (worker = $1 OR worker LIKE $1 || '/%') AND worker <> ALL($2) AND outcome = 'succeeded'",
        )
        .bind(&self.worker)
        .bind(&dead)
        .fetch_one(&self.reader)
        .await
    }
}

impl EffectProbe for OrphanedJobs {
    fn effect(&mut self) -> BoxFuture<'_, Proof> {
        Box::pin(async move {
            let source = "app.jobs";
            match self.held().await {
                Err(error) => proof(ProofKind::Effect, source, false, format!("not read: {error}")),
                Ok(held) if held.is_empty() => {
                    proof(ProofKind::Effect, source, false, format!("{} holds no job", self.worker))
                }
                Ok(held) => {
                    // Held by a process that is gone (the control proof), and unchanged since the look before.
                    let stuck = !self.orphans.is_empty() && self.orphans.iter().all(|orphan| held.contains(orphan));
                    let what = format!(
                        "{} jobs stand running under {}, leases not extended: {stuck}",
                        held.len(),
                        self.worker
                    );
                    // A commit may have been under way at the blow; what is held now is what the next look compares with.
                    if !stuck {
                        self.orphans = held;
                    }
                    proof(ProofKind::Effect, source, stuck, what)
                }
            }
        })
    }

    fn recovery(&mut self) -> BoxFuture<'_, Proof> {
        Box::pin(async move {
            let source = "app.job_attempts";
            if self.orphans.is_empty() {
                return proof(ProofKind::Recovery, source, false, "its dead incarnation was never seen".to_owned());
            }
            match self.completed_since().await {
                Err(error) => proof(ProofKind::Recovery, source, false, format!("not read: {error}")),
                Ok(completed) => {
                    let what = format!("{} completed {completed} jobs since it was started again", self.worker);
                    proof(ProofKind::Recovery, source, completed > 0, what)
                }
            }
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
