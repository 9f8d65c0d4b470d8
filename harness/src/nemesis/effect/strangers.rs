//! What a stranger who asks one process over HTTP sees: no connection, a late answer, a wrong time of day.

use std::time::Duration;

use anyhow::{Context as _, Result};
use jiff::Timestamp;
use nogo_faults::BoxFuture;
use nogo_invariants::history::{Proof, ProofKind};
use tokio::time::Instant;

use super::metrics::one_of;
use super::{EffectProbe, proof};

/// A process that is well answers a new connection within this.
const ANSWER_MS_MAX: u64 = 750;
/// No answer at all counts as such after this.
const PATIENCE: Duration = Duration::from_secs(3);
/// An answer takes a moment.
const TIME_S_OFF: f64 = 2.0;
/// The gauge that a process tells its time of day by.
const TIME: &str = "forecastle_time_seconds";
/// Questions of one look at how late answers come.
const QUESTIONS: usize = 5;

/// Asks over a connection of its own; the answer with the time it took.
async fn ask(url: &str, patience: Duration) -> Result<(reqwest::Response, Duration)> {
    let client = reqwest::Client::builder().no_proxy().timeout(patience).build()?;
    let began = Instant::now();
    let answer = client.get(url).send().await?;
    Ok((answer, began.elapsed()))
}

/// New connections that are not served, whatever becomes of the old ones.
pub struct NewConnection {
    /// What is asked for, without a session.
    pub url: String,
}

impl NewConnection {
    async fn look(&self) -> (bool, String) {
        match ask(&self.url, Duration::from_millis(ANSWER_MS_MAX)).await {
            Ok((answer, after)) => (true, format!("{} after {} ms", answer.status(), after.as_millis())),
            Err(error) => (false, format!("no answer within {ANSWER_MS_MAX} ms: {error:#}")),
        }
    }
}

impl EffectProbe for NewConnection {
    fn effect(&mut self) -> BoxFuture<'_, Proof> {
        Box::pin(async move {
            let (served, what) = self.look().await;
            proof(ProofKind::Effect, "a new connection", !served, what)
        })
    }

    fn recovery(&mut self) -> BoxFuture<'_, Proof> {
        Box::pin(async move {
            let (served, what) = self.look().await;
            proof(ProofKind::Recovery, "a new connection", served, what)
        })
    }
}

/// Answers that come late from one process.
pub struct SlowAnswers {
    /// What is asked for, without a session.
    pub url: String,
    /// As late as this at least, milliseconds.
    pub late_ms: u64,
}

impl SlowAnswers {
    /// The latest of a few answers, milliseconds; a lost one counts with the patience.
    async fn look(&self) -> u64 {
        let mut latest = Duration::ZERO;
        for _ in 0..QUESTIONS {
            latest = latest.max(ask(&self.url, PATIENCE).await.map_or(PATIENCE, |(_, after)| after));
        }
        u64::try_from(latest.as_millis()).unwrap_or(u64::MAX)
    }
}

impl EffectProbe for SlowAnswers {
    fn effect(&mut self) -> BoxFuture<'_, Proof> {
        Box::pin(async move {
            let latest_ms = self.look().await;
            let what = format!("the latest of {QUESTIONS} answers came after {latest_ms} ms");
            proof(ProofKind::Effect, "its answers", latest_ms >= self.late_ms, what)
        })
    }

    fn recovery(&mut self) -> BoxFuture<'_, Proof> {
        Box::pin(async move {
            let latest_ms = self.look().await;
            let what = format!("the latest of {QUESTIONS} answers came after {latest_ms} ms");
            proof(ProofKind::Recovery, "its answers", latest_ms < self.late_ms, what)
        })
    }
}

/// The time of day that a process tells with its metrics. The date of its answers would not do: a server keeps one for a
/// while, and is wrong for as long as its clock was ahead.
pub struct ClockSeen {
    /// Its metrics.
    pub url: String,
    /// How far ahead it is set, seconds.
    pub ahead_s: i64,
}

impl ClockSeen {
    /// How far ahead of ours its clock is, seconds.
    async fn ahead_s(&self) -> Result<f64> {
        let (answer, _) = ask(&self.url, PATIENCE).await?;
        let told = one_of(&answer.text().await?, TIME).with_context(|| format!("its metrics have no {TIME}"))?;
        Ok(told - Timestamp::now().as_millisecond() as f64 / 1_000.0)
    }

    async fn look(&self, expected_s: i64) -> (bool, String) {
        match self.ahead_s().await {
            Ok(ahead_s) => {
                let off_s = (ahead_s - expected_s as f64).abs();
                (off_s <= TIME_S_OFF, format!("its clock is {ahead_s:.1} s ahead"))
            }
            Err(error) => (false, format!("not read: {error:#}")),
        }
    }
}

impl EffectProbe for ClockSeen {
    fn effect(&mut self) -> BoxFuture<'_, Proof> {
        Box::pin(async move {
            let (shows, what) = self.look(self.ahead_s).await;
            proof(ProofKind::Effect, TIME, shows, what)
        })
    }

    fn recovery(&mut self) -> BoxFuture<'_, Proof> {
        Box::pin(async move {
            let (shows, what) = self.look(0).await;
            proof(ProofKind::Recovery, TIME, shows, what)
        })
    }
}
