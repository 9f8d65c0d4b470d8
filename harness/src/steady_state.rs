//! Running figures of the load, and the tolerances they are held to before the faults begin.
//!
//! Buckets of one second by the time of completion. Not a law: the laws count again, from the history.

use std::collections::BTreeMap;
use std::sync::Mutex;

use hdrhistogram::Histogram;
use nogo_invariants::history::Completion;

use crate::client::Outcome;

/// Latencies are kept from 1 µs to this.
const LATENCY_US_MAX: u64 = 120_000_000;

/// Counts of one second. Only the load mix, no probes.
#[derive(Debug, Clone)]
pub struct Bucket {
    /// 2xx.
    pub succeeded: u64,
    /// 4xx that the request earned.
    pub earned: u64,
    /// Declared refusals: 429 or 503 with Retry-After.
    pub refused: u64,
    /// Everything else, a lost answer included.
    pub errors: u64,
    /// Clients that hung up on purpose.
    pub hung_up: u64,
    latencies_us: Histogram<u64>,
}

impl Default for Bucket {
    fn default() -> Self {
        let latencies_us = Histogram::new_with_bounds(1, LATENCY_US_MAX, 2).expect("fixed bounds are valid");
        Self { succeeded: 0, earned: 0, refused: 0, errors: 0, hung_up: 0, latencies_us }
    }
}

/// The figures of a span of time.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Figures {
    /// Whole seconds that the span covers.
    pub seconds: u64,
    /// Completions, hang-ups left out.
    pub completed: u64,
    /// 2xx and earned 4xx per second.
    pub goodput_per_s: f64,
    /// Share of declared refusals, 0 to 1.
    pub refused_share: f64,
    /// Share of errors, 0 to 1.
    pub error_share: f64,
    /// Median from the intended send time, ms.
    pub p50_ms: f64,
    /// 95th percentile from the intended send time, ms.
    pub p95_ms: f64,
}

/// Fills while the run goes on.
#[derive(Debug, Default)]
pub struct Tally {
    buckets: Mutex<BTreeMap<u64, Bucket>>,
}

impl Tally {
    /// Counts one completion at `now_ns`.
    pub fn observe(&self, now_ns: u64, outcome: Outcome, completion: &Completion) {
        let mut buckets = self.buckets.lock().expect("tally lock");
        let bucket = buckets.entry(now_ns / 1_000_000_000).or_default();
        match completion.status {
            _ if completion.error.as_deref() == Some("hung_up") => {
                bucket.hung_up += 1;
                return;
            }
            _ if outcome == Outcome::Ok => bucket.succeeded += 1,
            Some(429 | 503) if completion.retry_after => bucket.refused += 1,
            Some(400..=428 | 430..=499) => bucket.earned += 1,
            _ => bucket.errors += 1,
        }
        bucket.latencies_us.saturating_record(completion.latency_us.max(1));
    }

    /// The figures of the seconds `from_s..to_s` of the run's clock.
    pub fn figures(&self, from_s: u64, to_s: u64) -> Figures {
        let buckets = self.buckets.lock().expect("tally lock");
        let mut sum = Bucket::default();
        for bucket in buckets.range(from_s..to_s.max(from_s)).map(|(_, bucket)| bucket) {
            sum.succeeded += bucket.succeeded;
            sum.earned += bucket.earned;
            sum.refused += bucket.refused;
            sum.errors += bucket.errors;
            sum.hung_up += bucket.hung_up;
            sum.latencies_us.add(&bucket.latencies_us).expect("all buckets have the same bounds");
        }
        let seconds = to_s.saturating_sub(from_s);
        let completed = sum.succeeded + sum.earned + sum.refused + sum.errors;
        let share = |count: u64| if completed == 0 { 0.0 } else { count as f64 / completed as f64 };
        Figures {
            seconds,
            completed,
            goodput_per_s: if seconds == 0 { 0.0 } else { (sum.succeeded + sum.earned) as f64 / seconds as f64 },
            refused_share: share(sum.refused),
            error_share: share(sum.errors),
            p50_ms: sum.latencies_us.value_at_quantile(0.50) as f64 / 1_000.0,
            p95_ms: sum.latencies_us.value_at_quantile(0.95) as f64 / 1_000.0,
        }
    }

    /// The buckets so far, by second.
    pub fn buckets(&self) -> BTreeMap<u64, Bucket> {
        self.buckets.lock().expect("tally lock").clone()
    }
}

/// What a healthy system keeps to under the standard load.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tolerances {
    /// Of the offered rate, answered as asked; 0 to 1.
    pub goodput_share_min: f64,
    /// Share of errors.
    pub error_share_max: f64,
    /// Share of declared refusals.
    pub refused_share_max: f64,
    /// 95th percentile, ms.
    pub p95_ms_max: f64,
    /// Fewer completions than this say nothing.
    pub samples_min: u64,
}

impl Default for Tolerances {
    fn default() -> Self {
        // The error and p95 bars are the no-go conditions themselves; refusals without a fault point at a limit set too low.
        Self {
            goodput_share_min: 0.90,
            error_share_max: 0.01,
            refused_share_max: 0.02,
            p95_ms_max: 3_000.0,
            samples_min: 100,
        }
    }
}

impl Tolerances {
    /// Everything that `figures` misses, in words; empty means steady.
    pub fn misses(&self, figures: &Figures, offered_per_s: f64) -> Vec<String> {
        let mut misses = Vec::new();
        if figures.completed < self.samples_min {
            misses.push(format!("{} completions, needs {}", figures.completed, self.samples_min));
        }
        let least = offered_per_s * self.goodput_share_min;
        if figures.goodput_per_s < least {
            misses.push(format!("goodput {:.1} /s, needs {least:.1} /s", figures.goodput_per_s));
        }
        if figures.error_share > self.error_share_max {
            misses.push(format!("{:.2} % errors", figures.error_share * 100.0));
        }
        if figures.refused_share > self.refused_share_max {
            misses.push(format!("{:.2} % refused", figures.refused_share * 100.0));
        }
        if figures.p95_ms > self.p95_ms_max {
            misses.push(format!("p95 {:.0} ms", figures.p95_ms));
        }
        misses
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn completion(status: Option<u16>, retry_after: bool, latency_us: u64) -> Completion {
        Completion { status, retry_after, latency_us, ..Completion::default() }
    }

    #[test]
    fn refusals_errors_and_earned_refusals_are_counted_apart() {
        let tally = Tally::default();
        tally.observe(1, Outcome::Ok, &completion(Some(200), false, 2_000));
        tally.observe(2, Outcome::Fail, &completion(Some(402), false, 2_000));
        tally.observe(3, Outcome::Info, &completion(Some(503), true, 2_000));
        tally.observe(4, Outcome::Info, &completion(Some(503), false, 2_000));
        tally.observe(5, Outcome::Info, &completion(None, false, 9_000_000));
        let figures = tally.figures(0, 1);
        assert_eq!(figures.completed, 5);
        assert!((figures.goodput_per_s - 2.0).abs() < 1e-9);
        assert!((figures.refused_share - 0.2).abs() < 1e-9);
        assert!((figures.error_share - 0.4).abs() < 1e-9);
    }

    #[test]
    fn a_client_that_hangs_up_is_no_error() {
        let tally = Tally::default();
        let gone = Completion { error: Some("hung_up".into()), ..completion(None, false, 4_000) };
        tally.observe(1, Outcome::Info, &gone);
        assert_eq!(tally.figures(0, 1).completed, 0);
    }

    #[test]
    fn nothing_completed_is_not_steady() {
        let misses = Tolerances::default().misses(&Tally::default().figures(0, 5), 150.0);
        assert!(misses.iter().any(|miss| miss.contains("completions")));
    }

    #[test]
    fn a_healthy_second_is_steady() {
        let tally = Tally::default();
        (0..150).for_each(|n| tally.observe(n, Outcome::Ok, &completion(Some(200), false, 3_000)));
        assert_eq!(Tolerances::default().misses(&tally.figures(0, 1), 150.0), Vec::<String>::new());
    }
}
