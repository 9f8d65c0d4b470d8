//! From scrapes to one number for each rule.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use crate::exposition::Sample;
use crate::rules::{Selector, Signal};

/// What one look at an instance found.
#[derive(Debug, Clone)]
pub(crate) struct Look {
    pub(crate) at: Instant,
    /// `None` if it did not answer.
    pub(crate) samples: Option<Vec<Sample>>,
    /// Whether it says that it can serve; true for processes that are never asked to.
    pub(crate) ready: bool,
}

/// What a rule's signal says.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Reading {
    Value(f64),
    /// The instance answers, and has nothing to say about this, or too little.
    Quiet,
    /// The instance does not answer.
    Unknown,
}

/// The newest look is at the back.
pub(crate) fn read(signal: &Signal, window: Duration, looks: &VecDeque<Look>) -> Reading {
    let Some(newest) = looks.back() else { return Reading::Unknown };
    if matches!(signal, Signal::Gone) {
        return Reading::Value(f64::from(u8::from(newest.samples.is_none())));
    }
    let Some(now) = &newest.samples else { return Reading::Unknown };
    let value = match signal {
        Signal::Gone => None,
        Signal::NotReady => Some(f64::from(u8::from(!newest.ready))),
        Signal::Largest { of } => matching(of, now).map(|sample| sample.value).reduce(f64::max),
        Signal::Smallest { of } => matching(of, now).map(|sample| sample.value).reduce(f64::min),
        Signal::Share { of, within } => {
            let whole: f64 = matching(within, now).map(|sample| sample.value).sum();
            let part = matching(of, now).map(|sample| sample.value).reduce(f64::max);
            part.filter(|_| whole > 0.0).map(|part| part / whole)
        }
        Signal::Rate { of } => base(looks, window).and_then(|(base, elapsed)| {
            let grown: f64 = growth(of, base, now).map(|(_, grown)| grown).sum();
            (elapsed > 0.0).then(|| grown / elapsed)
        }),
        Signal::Ratio { of, within, least } => base(looks, window).and_then(|(base, _)| {
            let sum = |selector| growth(selector, base, now).map(|(_, grown)| grown).sum::<f64>();
            let whole = sum(within);
            (whole >= *least && whole > 0.0).then(|| sum(of) / whole)
        }),
        Signal::Quantile { of, q, least } => {
            base(looks, window).and_then(|(base, _)| quantile(of, *q, *least, base, now))
        }
    };
    value.map_or(Reading::Quiet, Reading::Value)
}

/// The oldest look inside the window that got an answer, and how long ago that was, seconds.
fn base(looks: &VecDeque<Look>, window: Duration) -> Option<(&[Sample], f64)> {
    let newest = looks.back()?.at;
    let oldest = looks.iter().find(|look| look.samples.is_some() && newest.duration_since(look.at) <= window)?;
    Some((oldest.samples.as_deref()?, newest.duration_since(oldest.at).as_secs_f64()))
}

fn matching<'a>(selector: &'a Selector, samples: &'a [Sample]) -> impl Iterator<Item = &'a Sample> {
    samples.iter().filter(|sample| sample.name == selector.metric && has_labels(selector, sample))
}

fn has_labels(selector: &Selector, sample: &Sample) -> bool {
    selector.labels.iter().all(|(name, wanted)| {
        let found = sample.labels.get(name).map_or("", String::as_str);
        let (wanted, expected) = wanted.strip_prefix('!').map_or((wanted.as_str(), true), |other| (other, false));
        wanted.strip_suffix('*').map_or(found == wanted, |prefix| found.starts_with(prefix)) == expected
    })
}

/// By how much each series has grown; one that shrank began again at nought with its process.
fn growth<'a>(
    selector: &'a Selector,
    base: &'a [Sample],
    now: &'a [Sample],
) -> impl Iterator<Item = (&'a Sample, f64)> {
    matching(selector, now).map(|sample| {
        let before = base.iter().find(|old| old.name == sample.name && old.labels == sample.labels);
        let before = before.map_or(0.0, |old| old.value);
        (sample, if sample.value < before { sample.value } else { sample.value - before })
    })
}

fn quantile(of: &Selector, q: f64, least: f64, base: &[Sample], now: &[Sample]) -> Option<f64> {
    let buckets = Selector { metric: format!("{}_bucket", of.metric), labels: of.labels.clone() };
    // Cumulative counts over all series, by upper bound; the bound as text keeps the key exact.
    let mut counts: BTreeMap<String, f64> = BTreeMap::new();
    for (sample, grown) in growth(&buckets, base, now) {
        *counts.entry(sample.labels.get("le")?.clone()).or_default() += grown;
    }
    let mut counts: Vec<(f64, f64)> =
        counts.into_iter().filter_map(|(bound, count)| Some((bound.parse::<f64>().ok()?, count))).collect();
    counts.sort_by(|a, b| a.0.total_cmp(&b.0));
    let all = counts.last()?.1;
    if all < least || all <= 0.0 {
        return None;
    }
    counts.into_iter().find(|(_, count)| *count >= q * all).map(|(bound, _)| bound)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exposition::parse;
    use crate::rules::{Rule, Rules};

    fn looks(texts: &[Option<&str>], every_s: u64) -> VecDeque<Look> {
        let start = Instant::now();
        let look = |(index, text): (usize, &Option<&str>)| Look {
            at: start + Duration::from_secs(every_s * index as u64),
            samples: text.map(parse),
            ready: true,
        };
        texts.iter().enumerate().map(look).collect()
    }

    fn rule(name: &str) -> Rule {
        Rules::read(None).unwrap().all.into_iter().find(|rule| rule.name == name).expect(name)
    }

    fn holds(name: &str, texts: &[&str]) -> bool {
        let rule = rule(name);
        let texts: Vec<_> = texts.iter().map(|text| Some(*text)).collect();
        match read(&rule.signal, Duration::from_secs(rule.window_s), &looks(&texts, 10)) {
            Reading::Value(value) => rule.holds(value),
            Reading::Quiet | Reading::Unknown => false,
        }
    }

    /// For each built-in rule: an exposition (or two, ten seconds apart) on which it holds, and one on
    /// which it does not.
    #[test]
    fn each_rule_holds_on_what_it_is_for_and_not_on_a_healthy_system() {
        let requests = |good: u32, bad: u32| {
            format!(
                "http_requests_total{{route=\"/v1/a\",method=\"GET\",status=\"200\",outcome=\"answered\"}} {good}\n\
                 http_requests_total{{route=\"/v1/a\",method=\"GET\",status=\"500\",outcome=\"answered\"}} {bad}\n\
                 http_requests_total{{route=\"/readyz\",method=\"GET\",status=\"200\",outcome=\"answered\"}} {probes}",
                probes = good * 100
            )
        };
        let refused = |taken: u32, refused: u32| {
            format!(
                "http_requests_total{{route=\"/v1/a\",method=\"GET\",status=\"200\",outcome=\"answered\"}} {taken}\n\
                 http_requests_total{{route=\"/v1/a\",method=\"GET\",status=\"503\",outcome=\"refused\"}} {refused}"
            )
        };
        let sink = |outcome: &str, count: u32| {
            format!(
                "forecastle_sink_events_total{{sink=\"errors\",outcome=\"sent\"}} 100\n\
                 forecastle_sink_events_total{{sink=\"errors\",outcome=\"{outcome}\"}} {count}"
            )
        };
        let latency = |fast: u32, all: u32| {
            let name = "http_request_duration_seconds";
            format!(
                "{name}_bucket{{route=\"/v1/a\",le=\"0.1\"}} {fast}\n{name}_bucket{{route=\"/v1/a\",le=\"3\"}} {all}\n\
                 {name}_bucket{{route=\"/v1/a\",le=\"+Inf\"}} {all}\n{name}_count{{route=\"/v1/a\"}} {all}\n\
                 {name}_bucket{{route=\"/readyz\",le=\"0.1\"}} {probes}\n{name}_bucket{{route=\"/readyz\",le=\"+Inf\"}} {probes}\n\
                 {name}_bucket{{route=\"/v1/a\",outcome=\"refused\",le=\"0.1\"}} {probes}\n\
                 {name}_bucket{{route=\"/v1/a\",outcome=\"refused\",le=\"+Inf\"}} {probes}",
                probes = all * 100
            )
        };
        let pool = |used: u32| format!("forecastle_pool_connections_in_use {used}\nforecastle_pool_connections_max 50");
        let gauge = |name: &str, value: f64| format!("{name} {value}");
        let cases: Vec<(&str, Vec<String>, Vec<String>)> = vec![
            ("error_rate", vec![requests(100, 0), requests(190, 10)], vec![requests(100, 10), requests(300, 10)]),
            // What is declared is not an error, but is not well either.
            ("error_rate", vec![requests(100, 0), requests(190, 10)], vec![refused(100, 0), refused(190, 10)]),
            ("refusal_rate", vec![refused(100, 0), refused(190, 10)], vec![refused(100, 10), refused(300, 12)]),
            ("sink_failing", vec![sink("unreachable", 0), sink("unreachable", 20)], vec![sink("unreachable", 20); 2]),
            ("postgres_down", vec![gauge("forecastle_postgres_up", 0.0)], vec![gauge("forecastle_postgres_up", 1.0)]),
            ("latency_p95", vec![latency(0, 0), latency(90, 100)], vec![latency(0, 0), latency(99, 100)]),
            ("pool_exhausted", vec![pool(48)], vec![pool(20)]),
            (
                "pool_refusals",
                vec![gauge("forecastle_pool_refusals_total", 1.0), gauge("forecastle_pool_refusals_total", 9.0)],
                vec![gauge("forecastle_pool_refusals_total", 9.0), gauge("forecastle_pool_refusals_total", 9.0)],
            ),
            ("redis_down", vec![gauge("forecastle_redis_up", 0.0)], vec![gauge("forecastle_redis_up", 1.0)]),
            (
                "sink_dropping",
                vec![
                    gauge("forecastle_sink_dropped_total{sink=\"errors\"}", 0.0),
                    gauge("forecastle_sink_dropped_total{sink=\"errors\"}", 30.0),
                ],
                vec![gauge("forecastle_sink_dropped_total{sink=\"errors\"}", 30.0); 2],
            ),
            (
                "replica_lost",
                vec![
                    "forecastle_replica_usable{replica=\"1\"} 1\nforecastle_replica_usable{replica=\"2\"} 0".to_owned(),
                ],
                vec![
                    "forecastle_replica_usable{replica=\"1\"} 1\nforecastle_replica_usable{replica=\"2\"} 1".to_owned(),
                ],
            ),
        ];
        let gauges = [
            ("queue_depth", "forecastle_queue_waiting", 1001.0),
            ("queue_age", "forecastle_queue_oldest_age_seconds", 121.0),
            ("dead_letters", "forecastle_jobs_dead_last_hour", 1.0),
            ("replica_lagging", "forecastle_replica_lag_bytes{replica=\"1\"}", 7e7),
            ("payments_unknown", "forecastle_payments_unknown_oldest_age_seconds", 601.0),
            ("mail_stuck", "forecastle_mail_oldest_age_seconds", 901.0),
            ("mail_dead", "forecastle_mail_dead_last_hour", 1.0),
            ("billing_mismatched", "forecastle_billing_last_run{what=\"mismatched\"}", 1.0),
            ("billing_healed", "forecastle_billing_last_run{what=\"healed\"}", 1.0),
            ("billing_incomplete", "forecastle_billing_last_run{what=\"incomplete\"}", 1.0),
            ("billing_stale", "forecastle_billing_full_run_age_seconds", 1_801.0),
        ];
        let gauges = gauges.map(|(rule, metric, bad)| (rule, vec![gauge(metric, bad)], vec![gauge(metric, 0.0)]));
        let mut tested: Vec<&str> = vec!["process_gone", "not_ready"];
        for (name, bad, good) in cases.iter().chain(&gauges) {
            let texts = |texts: &[String]| texts.iter().map(String::as_str).collect::<Vec<_>>().clone().join("\u{1}");
            let (bad, good) = (texts(bad), texts(good));
            assert!(holds(name, &bad.split('\u{1}').collect::<Vec<_>>()), "{name} on {bad}");
            assert!(!holds(name, &good.split('\u{1}').collect::<Vec<_>>()), "{name} on {good}");
            tested.push(name);
        }
        tested.sort_unstable();
        tested.dedup();
        let mut all: Vec<String> = Rules::read(None).unwrap().all.into_iter().map(|rule| rule.name).collect();
        all.sort();
        assert_eq!(tested, all, "each built-in rule is tested");
    }

    #[test]
    fn a_process_that_does_not_answer_is_gone_and_says_nothing_else() {
        let gone = looks(&[Some("a 1"), None], 10);
        let window = Duration::from_secs(60);
        assert_eq!(read(&Signal::Gone, window, &gone), Reading::Value(1.0));
        assert_eq!(read(&Signal::NotReady, window, &gone), Reading::Unknown);
        assert_eq!(read(&rule("queue_age").signal, window, &gone), Reading::Unknown);
        let mut unready = looks(&[Some("a 1")], 10);
        assert_eq!(read(&Signal::NotReady, window, &unready), Reading::Value(0.0));
        unready[0].ready = false;
        assert_eq!(read(&Signal::NotReady, window, &unready), Reading::Value(1.0));
    }

    #[test]
    fn a_counter_that_begins_again_has_grown_by_what_it_shows() {
        let signal = Signal::Rate { of: Selector { metric: "a".to_owned(), labels: BTreeMap::new() } };
        let restarted = looks(&[Some("a 100"), Some("a 20")], 10);
        assert_eq!(read(&signal, Duration::from_secs(60), &restarted), Reading::Value(2.0));
    }
}
