//! What the stores themselves show of the system under a fault: who waits, what is held back, what is gone.

use std::time::Duration;

use nogo_faults::BoxFuture;
use nogo_invariants::history::{Proof, ProofKind};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

use super::{EffectProbe, Readiness, proof};

const ANSWER_LIMIT: Duration = Duration::from_secs(3);

/// A question to PostgreSQL whose one row says whether the effect shows, and in what words.
pub struct Asked {
    /// DSN past every proxy.
    pub dsn: String,
    /// What is read, for the record.
    pub source: &'static str,
    /// `SELECT <boolean>, <text>`.
    pub question: String,
    /// What must hold afterwards.
    pub well: Readiness,
}

impl Asked {
    async fn ask(&self) -> Result<(bool, String), String> {
        let asking = async {
            let mut connection = PgConnection::connect(&self.dsn).await?;
            let answer = sqlx::query_as(AssertSqlSafe(self.question.clone())).fetch_one(&mut connection).await?;
            connection.close().await?;
            Ok::<_, sqlx::Error>(answer)
        };
        match tokio::time::timeout(ANSWER_LIMIT, asking).await {
            Ok(answer) => answer.map_err(|error| error.to_string()),
            Err(_) => Err(format!("no answer within {} s", ANSWER_LIMIT.as_secs())),
        }
    }
}

impl EffectProbe for Asked {
    fn effect(&mut self) -> BoxFuture<'_, Proof> {
        Box::pin(async move {
            match self.ask().await {
                Ok((shows, what)) => proof(ProofKind::Effect, self.source, shows, what),
                Err(error) => proof(ProofKind::Effect, self.source, false, format!("not read: {error}")),
            }
        })
    }

    fn recovery(&mut self) -> BoxFuture<'_, Proof> {
        Box::pin(async move {
            let (well, said) = self.well.all_well().await;
            match self.ask().await {
                Ok((shows, what)) => proof(ProofKind::Recovery, self.source, well && !shows, format!("{what}; {said}")),
                Err(error) => proof(ProofKind::Recovery, self.source, false, format!("not read: {error}")),
            }
        })
    }
}

/// Keys of the system that are gone from Redis, counted through an API's own link.
pub struct KeysLost {
    link: String,
    url: String,
    before: u64,
    well: Readiness,
}

impl KeysLost {
    /// Counts them now, before the fault, by way of `url`.
    ///
    /// # Errors
    /// When Redis does not tell.
    pub async fn new(link: String, url: String, well: Readiness) -> anyhow::Result<Self> {
        let mut probe = KeysLost { link, url, before: 0, well };
        probe.before = probe.count().await.map_err(anyhow::Error::msg)?;
        Ok(probe)
    }

    async fn count(&self) -> Result<u64, String> {
        let ask = async {
            let client = redis::Client::open(self.url.as_str())?;
            let mut connection = client.get_multiplexed_async_connection().await?;
            redis::cmd("DBSIZE").query_async::<u64>(&mut connection).await
        };
        match tokio::time::timeout(ANSWER_LIMIT, ask).await {
            // Its kind alone: an error's words may hold the address with the password.
            Ok(answer) => answer.map_err(|error: redis::RedisError| format!("{:?}", error.kind())),
            Err(_) => Err(format!("no answer within {} s", ANSWER_LIMIT.as_secs())),
        }
    }
}

impl EffectProbe for KeysLost {
    fn effect(&mut self) -> BoxFuture<'_, Proof> {
        Box::pin(async move {
            let (lost, what) = match self.count().await {
                Ok(now) => (now * 2 < self.before, format!("{now} keys through {}, {} before", self.link, self.before)),
                Err(error) => (false, format!("not counted: {error}")),
            };
            proof(ProofKind::Effect, "DBSIZE", lost, what)
        })
    }

    fn recovery(&mut self) -> BoxFuture<'_, Proof> {
        Box::pin(async move {
            let (well, said) = self.well.all_well().await;
            let (back, what) = match self.count().await {
                Ok(now) => (now > 0, format!("{now} keys through {}", self.link)),
                Err(error) => (false, format!("not counted: {error}")),
            };
            proof(ProofKind::Recovery, "DBSIZE", back && well, format!("{what}; {said}"))
        })
    }
}

/// A probe, and that replication stands again afterwards as well.
pub struct AndStreaming<P> {
    /// What is felt.
    pub probe: P,
    /// DSN of the primary's superuser.
    pub primary: String,
    /// Names of the replicas.
    pub replicas: Vec<String>,
}

/// How many of `replicas` the primary says stream from it.
async fn streaming(primary: &str, replicas: &[String]) -> Result<i64, String> {
    let asking = async {
        let mut connection = PgConnection::connect(primary).await?;
        let question =
            "SELECT count(*) FROM pg_stat_replication WHERE application_name = ANY($1) AND state = 'streaming'";
        let count = sqlx::query_scalar(question).bind(replicas).fetch_one(&mut connection).await?;
        connection.close().await?;
        Ok::<i64, sqlx::Error>(count)
    };
    match tokio::time::timeout(ANSWER_LIMIT, asking).await {
        Ok(answer) => answer.map_err(|error| error.to_string()),
        Err(_) => Err(format!("no answer within {} s", ANSWER_LIMIT.as_secs())),
    }
}

impl<P: EffectProbe> EffectProbe for AndStreaming<P> {
    fn effect(&mut self) -> BoxFuture<'_, Proof> {
        self.probe.effect()
    }

    fn recovery(&mut self) -> BoxFuture<'_, Proof> {
        Box::pin(async move {
            let mut recovery = self.probe.recovery().await;
            match streaming(&self.primary, &self.replicas).await {
                Ok(count) => {
                    recovery.holds &= usize::try_from(count) == Ok(self.replicas.len());
                    recovery.what.push_str(&format!("; {count} of {} replicas stream", self.replicas.len()));
                }
                Err(error) => {
                    recovery.holds = false;
                    recovery.what.push_str(&format!("; replication not read: {error}"));
                }
            }
            recovery
        })
    }
}
