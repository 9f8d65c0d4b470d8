//! The APIs' own counters, from `/metrics`: what they refused, what Redis refused them, who answered their reads.

use std::time::Duration;

use anyhow::{Context as _, Result};
use nogo_faults::BoxFuture;
use nogo_invariants::history::{Proof, ProofKind};
use tokio::time::Instant;

use super::{EffectProbe, Readiness, proof};

const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// Time in which a replica that answers reads answers some, and the others do.
const READS_WITHIN: Duration = Duration::from_millis(600);
/// Reads of everybody in that time from which on none of its own is no chance: each replica gets its share of them.
const READS_MIN: u64 = 10;
/// In which is measured how fast a counter rises before the fault.
const BEFORE_WITHIN: Duration = Duration::from_millis(800);
/// So many times as fast as before it has to rise.
const TIMES_BEFORE: f64 = 2.0;

/// One counter, summed over the label sets that hold a text, and over all APIs.
pub struct Counter {
    client: reqwest::Client,
    bases: Vec<String>,
    metric: &'static str,
    label: String,
}

impl Counter {
    /// The counter `metric`, of the lines whose labels hold `label`, such as `status="503"`.
    ///
    /// # Errors
    /// When no HTTP client can be made.
    pub fn new(bases: Vec<String>, metric: &'static str, label: impl Into<String>) -> Result<Self> {
        let client = reqwest::Client::builder().no_proxy().timeout(ANSWER_LIMIT).build()?;
        Ok(Counter { client, bases, metric, label: label.into() })
    }

    /// Its value now.
    ///
    /// # Errors
    /// When an API does not tell.
    pub async fn read(&self) -> Result<u64> {
        Ok(self.read_exact().await? as u64)
    }

    /// As [`Self::read`], with what stands behind the point.
    pub(super) async fn read_exact(&self) -> Result<f64> {
        let mut sum = 0.0;
        for base in &self.bases {
            let answer =
                self.client.get(format!("{base}/metrics")).send().await.context("ask an API for its metrics")?;
            sum += sum_of(&answer.text().await?, self.metric, &self.label);
        }
        Ok(sum)
    }

    pub(super) fn source(&self) -> String {
        format!("{}{{{}}}", self.metric, self.label)
    }
}

/// The value of a metric without labels in Prometheus's text format.
pub(super) fn one_of(text: &str, metric: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix(metric)?.strip_prefix(' ')?.trim().parse().ok())
}

/// The sum of a counter's lines in Prometheus's text format.
fn sum_of(text: &str, metric: &str, label: &str) -> f64 {
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.rsplit_once(' '))
        .filter(|(series, _)| {
            let (name, labels) = series.split_once('{').unwrap_or((series, ""));
            name == metric && labels.contains(label)
        })
        .filter_map(|(_, value)| value.parse::<f64>().ok())
        .sum()
}

/// A counter that rises under a fault as it did not before, and stands still after it.
pub struct CounterRises {
    counter: Counter,
    before: u64,
    /// How fast it rose by itself.
    before_per_s: f64,
    since: Instant,
    least: u64,
    well: Readiness,
    last: Option<u64>,
}

impl CounterRises {
    /// Watches it now, before the fault; it has to rise by `least`, and twice as fast as it does by itself. Afterwards `well`
    /// must hold.
    ///
    /// # Errors
    /// When an API does not tell.
    pub async fn new(counter: Counter, least: u64, well: Readiness) -> Result<Self> {
        let first = counter.read().await?;
        tokio::time::sleep(BEFORE_WITHIN).await;
        let before = counter.read().await?;
        let before_per_s = before.saturating_sub(first) as f64 / BEFORE_WITHIN.as_secs_f64();
        Ok(CounterRises { counter, before, before_per_s, since: Instant::now(), least, well, last: None })
    }
}

/// By how much a counter has to rise in `elapsed`.
fn rise_needed(least: u64, before_per_s: f64, elapsed: Duration) -> u64 {
    least.max((TIMES_BEFORE * before_per_s * elapsed.as_secs_f64()).ceil() as u64)
}

impl EffectProbe for CounterRises {
    fn effect(&mut self) -> BoxFuture<'_, Proof> {
        Box::pin(async move {
            let source = self.counter.source();
            match self.counter.read().await {
                Ok(now) => {
                    let risen = now.saturating_sub(self.before);
                    let needed = rise_needed(self.least, self.before_per_s, self.since.elapsed());
                    let what = format!(
                        "risen by {risen} from {} since before the fault, {:.0} a second before; {needed} is an effect",
                        self.before, self.before_per_s
                    );
                    proof(ProofKind::Effect, &source, risen >= needed, what)
                }
                Err(error) => proof(ProofKind::Effect, &source, false, format!("not read: {error:#}")),
            }
        })
    }

    fn recovery(&mut self) -> BoxFuture<'_, Proof> {
        Box::pin(async move {
            let source = self.counter.source();
            let (well, said) = self.well.all_well().await;
            match self.counter.read().await {
                Ok(now) => {
                    let still = self.last.replace(now) == Some(now);
                    proof(
                        ProofKind::Recovery,
                        &source,
                        well && still,
                        format!("stands still at {now}: {still}; {said}"),
                    )
                }
                Err(error) => proof(ProofKind::Recovery, &source, false, format!("not read: {error:#}")),
            }
        })
    }
}

/// A replica that answers no read any more while others do.
pub struct SilentReplica {
    all: Counter,
    its: Counter,
}

impl SilentReplica {
    /// Watches the reads that the APIs at `bases` let `replica` answer.
    ///
    /// # Errors
    /// When no HTTP client can be made.
    pub fn new(bases: Vec<String>, replica: &str) -> Result<Self> {
        const READS: &str = "forecastle_reads_total";
        let its = Counter::new(bases.clone(), READS, format!("target=\"{replica}\""))?;
        Ok(SilentReplica { all: Counter::new(bases, READS, "")?, its })
    }

    /// Reads of the replica, and of everybody, in a short while.
    async fn look(&self) -> Result<(u64, u64)> {
        let (its, all) = (self.its.read().await?, self.all.read().await?);
        tokio::time::sleep(READS_WITHIN).await;
        Ok((self.its.read().await?.saturating_sub(its), self.all.read().await?.saturating_sub(all)))
    }
}

impl EffectProbe for SilentReplica {
    fn effect(&mut self) -> BoxFuture<'_, Proof> {
        Box::pin(async move {
            let source = self.its.source();
            match self.look().await {
                Ok((its, all)) => {
                    let what = format!("{its} of {all} reads in {} ms", READS_WITHIN.as_millis());
                    proof(ProofKind::Effect, &source, its == 0 && all >= READS_MIN, what)
                }
                Err(error) => proof(ProofKind::Effect, &source, false, format!("not read: {error:#}")),
            }
        })
    }

    fn recovery(&mut self) -> BoxFuture<'_, Proof> {
        Box::pin(async move {
            let source = self.its.source();
            match self.look().await {
                Ok((its, all)) => {
                    let what = format!("{its} of {all} reads in {} ms", READS_WITHIN.as_millis());
                    proof(ProofKind::Recovery, &source, its > 0, what)
                }
                Err(error) => proof(ProofKind::Recovery, &source, false, format!("not read: {error:#}")),
            }
        })
    }
}

/// The mean time of the APIs' answers, against the time before the fault.
pub struct SlowMean {
    seconds: Counter,
    count: Counter,
    before_us: u64,
    well: Readiness,
}

/// A mean that is twice what it was is later by this much at least: twice nearly nothing is no effect.
const SLOWER_US_MIN: u64 = 5_000;
/// Time in which enough is answered for a mean.
const MEAN_WITHIN: Duration = Duration::from_millis(1_000);

impl SlowMean {
    /// Measures it now, before the fault. Afterwards `well` must hold.
    ///
    /// # Errors
    /// When an API does not tell, or answers nothing.
    pub async fn new(bases: Vec<String>, well: Readiness) -> Result<Self> {
        let seconds = Counter::new(bases.clone(), "http_request_duration_seconds_sum", "")?;
        let count = Counter::new(bases, "http_request_duration_seconds_count", "")?;
        let mut probe = SlowMean { seconds, count, before_us: 0, well };
        // One moment may be quieter than most.
        probe.before_us = probe.mean_us().await?.max(probe.mean_us().await?);
        Ok(probe)
    }

    fn is_slow(&self, now_us: u64) -> bool {
        now_us >= (2 * self.before_us).max(self.before_us + SLOWER_US_MIN)
    }

    async fn mean_us(&self) -> Result<u64> {
        let (seconds, count) = (self.seconds.read_exact().await?, self.count.read_exact().await?);
        tokio::time::sleep(MEAN_WITHIN).await;
        let (took, answers) = (self.seconds.read_exact().await? - seconds, self.count.read_exact().await? - count);
        anyhow::ensure!(answers >= 1.0, "nothing was answered");
        Ok((took * 1_000_000.0 / answers) as u64)
    }
}

impl EffectProbe for SlowMean {
    fn effect(&mut self) -> BoxFuture<'_, Proof> {
        Box::pin(async move {
            let source = "http_request_duration_seconds";
            match self.mean_us().await {
                Ok(now_us) => {
                    let what = format!("the mean answer takes {now_us} us, {} before", self.before_us);
                    proof(ProofKind::Effect, source, self.is_slow(now_us), what)
                }
                Err(error) => proof(ProofKind::Effect, source, false, format!("not read: {error:#}")),
            }
        })
    }

    fn recovery(&mut self) -> BoxFuture<'_, Proof> {
        Box::pin(async move {
            let source = "http_request_duration_seconds";
            let (well, said) = self.well.all_well().await;
            match self.mean_us().await {
                Ok(now_us) => {
                    let what = format!("the mean answer takes {now_us} us, {} before; {said}", self.before_us);
                    proof(ProofKind::Recovery, source, well && !self.is_slow(now_us), what)
                }
                Err(error) => proof(ProofKind::Recovery, source, false, format!("not read: {error:#}")),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_counter_rises_by_itself_is_no_effect() {
        let after = Duration::from_secs(4);
        assert_eq!(rise_needed(3, 0.0, after), 3);
        assert_eq!(rise_needed(3, 2.5, after), 20);
    }

    #[test]
    fn a_counter_is_summed_over_the_label_sets_that_hold_the_text_and_no_other_metric() {
        let text = "# HELP http_requests_total all\nhttp_requests_total{route=\"/a\",status=\"503\"} 3\n\
                    http_requests_total{route=\"/b\",status=\"200\"} 9\nhttp_requests_total{route=\"/b\",status=\"503\"} 4\n\
                    http_requests_total_more{status=\"503\"} 100\nplain 5\n";
        assert_eq!(sum_of(text, "http_requests_total", "status=\"503\""), 7.0);
        assert_eq!(sum_of(text, "http_requests_total", ""), 16.0);
        assert_eq!(sum_of(text, "plain", ""), 5.0);
        assert_eq!(sum_of(text, "absent", ""), 0.0);
        assert_eq!(one_of(text, "plain"), Some(5.0));
        assert_eq!(one_of(text, "http_requests_total"), None, "it has labels");
        assert_eq!(one_of(text, "absent"), None);
    }
}
