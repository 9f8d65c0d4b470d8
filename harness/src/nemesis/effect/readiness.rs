//! `/readyz` of every API: one trip over its own pool to PostgreSQL, one over its own link to Redis.

use std::time::Duration;

use nogo_faults::BoxFuture;
use nogo_invariants::history::{Proof, ProofKind};
use serde_json::Value;
use tokio::time::Instant;

use super::{EffectProbe, proof};

/// An API that is well answers within this.
const READY_MS_MAX: u64 = 750;
/// No answer at all counts as such after this.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// How an API that a fault reaches shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unwell {
    /// It does not say that it is ready, or not in time.
    NotReady,
    /// It takes at least so many milliseconds.
    SlowerThanMs(u64),
    /// It is ready and says that Redis does not answer.
    WithoutRedis,
}

/// Looks at the readiness of every API.
pub struct Readiness {
    client: reqwest::Client,
    bases: Vec<String>,
    unwell: Unwell,
}

struct Look {
    ready: bool,
    redis: bool,
    took_ms: u64,
    what: String,
}

impl Readiness {
    /// Looks at the APIs at `bases`, such as `http://127.0.0.1:40123`.
    ///
    /// # Errors
    /// When no HTTP client can be made.
    pub fn new(bases: Vec<String>, unwell: Unwell) -> anyhow::Result<Self> {
        let client = reqwest::Client::builder().no_proxy().timeout(ANSWER_LIMIT).build()?;
        Ok(Readiness { client, bases, unwell })
    }

    async fn look(&self) -> Vec<Look> {
        let looks = (1..).zip(&self.bases).map(|(number, base)| async move {
            let began = Instant::now();
            let answer = self.client.get(format!("{base}/readyz")).send().await;
            let took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
            let (status, body) = match answer {
                Ok(answer) => (answer.status().as_u16(), answer.json::<Value>().await.unwrap_or_default()),
                Err(_) => (0, Value::Null),
            };
            let (ready, redis) = (status == 200, body["redis"] == true);
            Look { ready, redis, took_ms, what: format!("api-{number} {status} in {took_ms} ms, redis {redis}") }
        });
        futures_util::future::join_all(looks).await
    }

    /// Whether every API is ready in time, with Redis, and what each said.
    pub async fn all_well(&self) -> (bool, String) {
        let looks = self.look().await;
        let limit = match self.unwell {
            Unwell::SlowerThanMs(ms) => ms,
            Unwell::NotReady | Unwell::WithoutRedis => READY_MS_MAX,
        };
        let well = looks.iter().all(|look| look.ready && look.redis && look.took_ms < limit);
        (well, words(&looks))
    }
}

impl EffectProbe for Readiness {
    fn effect(&mut self) -> BoxFuture<'_, Proof> {
        Box::pin(async move {
            let looks = self.look().await;
            let suffers = looks.iter().any(|look| match self.unwell {
                Unwell::NotReady => !look.ready || look.took_ms > READY_MS_MAX,
                Unwell::SlowerThanMs(ms) => look.took_ms >= ms,
                Unwell::WithoutRedis => look.ready && !look.redis,
            });
            proof(ProofKind::Effect, "GET /readyz", suffers, words(&looks))
        })
    }

    fn recovery(&mut self) -> BoxFuture<'_, Proof> {
        Box::pin(async move {
            let (well, what) = self.all_well().await;
            proof(ProofKind::Recovery, "GET /readyz", well, what)
        })
    }
}

fn words(looks: &[Look]) -> String {
    looks.iter().map(|look| look.what.as_str()).collect::<Vec<_>>().join("; ")
}
