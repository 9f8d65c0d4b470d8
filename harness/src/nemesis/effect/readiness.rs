//! `/readyz` of the APIs: one trip over its own pool to PostgreSQL, one over its own link to Redis.
//!
//! Where the victim is one of them, only its own answer shows the effect: a bystander that suffers from something else
//! proves nothing of it.

use std::time::Duration;

use nogo_faults::BoxFuture;
use nogo_invariants::history::{Proof, ProofKind};
use serde_json::Value;
use tokio::time::Instant;

use super::{EffectProbe, proof};

/// An API that is well answers within this.
const READY_MS_MAX: u64 = 750;
/// Questions of one look at whether every answer is late.
const QUESTIONS: usize = 5;
/// No answer at all counts as such after this.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// How an API that a fault reaches shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unwell {
    /// It does not say that it is ready, or not in time.
    NotReady,
    /// Each of its answers takes at least so many milliseconds: a busy machine makes some late, and not all.
    SlowerThanMs(u64),
    /// It is ready and says that Redis does not answer.
    WithoutRedis,
}

/// Looks at the readiness of APIs.
pub struct Readiness {
    client: reqwest::Client,
    /// Name and base URL of each that has to be well afterwards.
    apis: Vec<(String, String)>,
    /// Those that can show the effect; every one unless set.
    victims: Option<Vec<String>>,
    unwell: Unwell,
}

struct Look {
    is_victim: bool,
    ready: bool,
    redis: bool,
    took_ms: u64,
    what: String,
}

impl Readiness {
    /// Looks at every API, by number at `bases`, such as `http://127.0.0.1:40123`.
    ///
    /// # Errors
    /// When no HTTP client can be made.
    pub fn new(bases: Vec<String>, unwell: Unwell) -> anyhow::Result<Self> {
        let client = reqwest::Client::builder().no_proxy().timeout(ANSWER_LIMIT).build()?;
        let apis = (1..).zip(bases).map(|(number, base)| (format!("api-{number}"), base)).collect();
        Ok(Readiness { client, apis, victims: None, unwell })
    }

    /// Only these show the effect; well afterwards has to be every API.
    #[must_use]
    pub fn felt_by(mut self, victims: Vec<String>) -> Self {
        self.victims = Some(victims);
        self
    }

    /// Looks at no others, neither for the effect nor afterwards.
    #[must_use]
    pub fn only(mut self, names: &[String]) -> Self {
        self.apis.retain(|(name, _)| names.contains(name));
        self
    }

    async fn look(&self) -> Vec<Look> {
        let looks = self.apis.iter().map(|(name, base)| async move {
            let began = Instant::now();
            let answer = self.client.get(format!("{base}/readyz")).send().await;
            let took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
            let (status, body) = match answer {
                Ok(answer) => (answer.status().as_u16(), answer.json::<Value>().await.unwrap_or_default()),
                Err(_) => (0, Value::Null),
            };
            let (ready, redis) = (status == 200, body["redis"] == true);
            let is_victim = self.victims.as_ref().is_none_or(|victims| victims.contains(name));
            let what = format!("{name} {status} in {took_ms} ms, redis {redis}");
            Look { is_victim, ready, redis, took_ms, what }
        });
        futures_util::future::join_all(looks).await
    }

    /// The quickest of a few looks at each API.
    async fn quickest(&self) -> Vec<Look> {
        let mut quickest = self.look().await;
        for _ in 1..QUESTIONS {
            for (kept, again) in quickest.iter_mut().zip(self.look().await) {
                if again.took_ms < kept.took_ms {
                    *kept = again;
                }
            }
        }
        quickest
    }

    /// Whether every API looked at is ready in time, with Redis, and what each said.
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
            let looks = match self.unwell {
                Unwell::SlowerThanMs(_) => self.quickest().await,
                Unwell::NotReady | Unwell::WithoutRedis => self.look().await,
            };
            let mut victims = looks.iter().filter(|look| look.is_victim).peekable();
            let suffers = match self.unwell {
                Unwell::NotReady => victims.any(|look| !look.ready || look.took_ms > READY_MS_MAX),
                // Where there is nobody to suffer, nobody does.
                Unwell::SlowerThanMs(ms) => victims.peek().is_some() && victims.all(|look| look.took_ms >= ms),
                Unwell::WithoutRedis => victims.any(|look| look.ready && !look.redis),
            };
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

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::http::StatusCode;
    use axum::routing::get;

    use super::*;

    /// An API that answers `/readyz` with that status.
    async fn api(status: StatusCode) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let answer = move || async move { (status, r#"{"redis":true}"#) };
        let router = Router::new().route("/readyz", get(answer));
        tokio::spawn(async move { axum::serve(listener, router).await });
        base
    }

    #[tokio::test]
    async fn a_bystander_that_is_not_ready_does_not_prove_the_fault_of_another() {
        let bases = vec![api(StatusCode::OK).await, api(StatusCode::SERVICE_UNAVAILABLE).await];
        let of = |victims: Option<&str>| {
            let all = Readiness::new(bases.clone(), Unwell::NotReady).unwrap();
            match victims {
                None => all,
                Some(victim) => all.felt_by(vec![victim.to_owned()]),
            }
        };
        assert!(!of(Some("api-1")).effect().await.holds, "api-2 is not the victim");
        assert!(of(Some("api-2")).effect().await.holds);
        assert!(of(None).effect().await.holds);
        assert!(!of(Some("api-1")).recovery().await.holds, "whoever was hurt, all have to be well afterwards");
        let alone = of(None).only(&["api-2".to_owned()]).effect().await;
        assert!(alone.holds && alone.what.starts_with("api-2 503"), "each under its own name: {}", alone.what);
    }
}
