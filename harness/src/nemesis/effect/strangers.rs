//! What a stranger who asks one process over HTTP sees: no connection, a late answer, a wrong date.

use std::time::Duration;

use anyhow::{Context as _, Result};
use jiff::Timestamp;
use nogo_faults::BoxFuture;
use nogo_invariants::history::{Proof, ProofKind};
use tokio::time::Instant;

use super::{EffectProbe, proof};

/// A process that is well answers a new connection within this.
const ANSWER_MS_MAX: u64 = 750;
/// No answer at all counts as such after this.
const PATIENCE: Duration = Duration::from_secs(3);
/// A date has whole seconds, and an answer takes a moment.
const DATE_S_OFF: i64 = 2;
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

/// The time of day that a process stamps its answers with.
pub struct ClockSeen {
    /// What is asked for, without a session.
    pub url: String,
    /// How far ahead it is set, seconds.
    pub ahead_s: i64,
}

impl ClockSeen {
    /// How far ahead of ours its date is, seconds.
    async fn ahead_s(&self) -> Result<i64> {
        let (answer, _) = ask(&self.url, PATIENCE).await?;
        let date = answer.headers().get("date").context("an answer without a date")?.to_str()?;
        let its = jiff::fmt::rfc2822::parse(date)?.timestamp();
        Ok(its.as_second() - Timestamp::now().as_second())
    }

    async fn look(&self, expected_s: i64) -> (bool, String) {
        match self.ahead_s().await {
            Ok(ahead_s) => {
                let off_s = (ahead_s - expected_s).abs();
                (off_s <= DATE_S_OFF, format!("its answers are dated {ahead_s} s ahead"))
            }
            Err(error) => (false, format!("not read: {error:#}")),
        }
    }
}

impl EffectProbe for ClockSeen {
    fn effect(&mut self) -> BoxFuture<'_, Proof> {
        Box::pin(async move {
            let (shows, what) = self.look(self.ahead_s).await;
            proof(ProofKind::Effect, "the date header", shows, what)
        })
    }

    fn recovery(&mut self) -> BoxFuture<'_, Proof> {
        Box::pin(async move {
            let (shows, what) = self.look(0).await;
            proof(ProofKind::Recovery, "the date header", shows, what)
        })
    }
}
