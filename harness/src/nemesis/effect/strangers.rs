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
/// Questions of one look at how late answers come, and from one to the next: over several turns of a share of the
/// processor, which is given out anew every 100 ms, and never at the same point of two.
const QUESTIONS: u32 = 12;
const APART: Duration = Duration::from_millis(37);
/// So many of them have to be late: a busy machine makes one or two so.
const LATE_MIN: usize = 4;
/// So many times as late as before the fault.
const TIMES_BEFORE: u64 = 2;

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

/// Answers that come late from one process: four of twelve, a moment apart each.
pub struct SlowAnswers {
    /// What is asked for, without a session.
    url: String,
    /// As late as this, milliseconds: at least so, and twice as late as before the fault.
    late_ms: u64,
}

impl SlowAnswers {
    /// Looks at `url` now, before the fault: as late as `late_ms` at least, and twice as late as now, is late.
    pub async fn new(url: String, late_ms: u64) -> Self {
        let mut probe = SlowAnswers { url, late_ms };
        probe.late_ms = late_ms.max(TIMES_BEFORE * probe.look().await);
        probe
    }

    /// How late so many of the answers are at least, milliseconds; a lost one counts with the patience.
    async fn look(&self) -> u64 {
        let asked = (0..QUESTIONS).map(|number| async move {
            tokio::time::sleep(APART * number).await;
            ask(&self.url, PATIENCE).await.map_or(PATIENCE, |(_, after)| after)
        });
        let mut times = futures_util::future::join_all(asked).await;
        times.sort_unstable_by_key(|time| std::cmp::Reverse(*time));
        u64::try_from(times[LATE_MIN - 1].as_millis()).unwrap_or(u64::MAX)
    }

    fn words(&self, late_ms: u64) -> String {
        format!("{LATE_MIN} of {QUESTIONS} answers came after {late_ms} ms or later; {} is late", self.late_ms)
    }
}

impl EffectProbe for SlowAnswers {
    fn effect(&mut self) -> BoxFuture<'_, Proof> {
        Box::pin(async move {
            let late_ms = self.look().await;
            proof(ProofKind::Effect, "its answers", late_ms >= self.late_ms, self.words(late_ms))
        })
    }

    fn recovery(&mut self) -> BoxFuture<'_, Proof> {
        Box::pin(async move {
            let late_ms = self.look().await;
            proof(ProofKind::Recovery, "its answers", late_ms < self.late_ms, self.words(late_ms))
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
