//! What `/metrics` shows, in Prometheus' text format: bytes of links that have ended, and the process.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::network::Stream;

/// Which link the bytes went over; the order is that of the labels.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct LinkLabels {
    pub direction: Stream,
    pub listener: Arc<str>,
    pub proxy: Arc<str>,
    pub upstream: Arc<str>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Bytes {
    received: u64,
    sent: u64,
}

/// Totals of a server; clones share them.
#[derive(Debug, Clone, Default)]
pub(super) struct Metrics {
    totals: Arc<Mutex<BTreeMap<LinkLabels, Bytes>>>,
}

impl Metrics {
    /// Counts one link, from now to the counter's drop.
    pub(super) fn count(&self, labels: LinkLabels) -> Traffic {
        Traffic { metrics: self.clone(), labels, bytes: Bytes::default() }
    }

    /// The counters of all links that have ended, under the official names.
    pub(super) fn proxy_text(&self) -> String {
        let totals = self.lock();
        let mut text = String::new();
        for (name, read) in [
            ("toxiproxy_proxy_received_bytes_total", (|bytes| bytes.received) as fn(&Bytes) -> u64),
            ("toxiproxy_proxy_sent_bytes_total", |bytes| bytes.sent),
        ] {
            if !totals.is_empty() {
                let _ = writeln!(text, "# HELP {name} \n# TYPE {name} counter");
            }
            for (labels, bytes) in totals.iter() {
                let LinkLabels { direction, listener, proxy, upstream } = labels;
                let (listener, proxy, upstream) = (escaped(listener), escaped(proxy), escaped(upstream));
                let _ = writeln!(
                    text,
                    "{name}{{direction=\"{direction}\",listener=\"{listener}\",proxy=\"{proxy}\",upstream=\"{upstream}\"}} {}",
                    read(bytes)
                );
            }
        }
        text
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<LinkLabels, Bytes>> {
        self.totals.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Gauges of this process, in place of the official server's, which speak of Go.
pub(super) fn runtime_text() -> String {
    let mut text = String::new();
    let mut gauge = |name: &str, value: Option<u64>| {
        if let Some(value) = value {
            let _ = writeln!(text, "# HELP {name} \n# TYPE {name} gauge\n{name} {value}");
        }
    };
    gauge("process_open_fds", fs::read_dir("/proc/self/fd").ok().map(|entries| entries.count() as u64));
    let resident = fs::read_to_string("/proc/self/status").ok().and_then(|status| {
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    });
    let resident = resident.map(|kibibytes| kibibytes * 1024);
    gauge("process_resident_memory_bytes", resident);
    let tasks = tokio::runtime::Handle::try_current().ok().map(|handle| handle.metrics().num_alive_tasks() as u64);
    gauge("toxid_tasks", tasks);
    text
}

/// Bytes of one link; they count when it is dropped.
pub(super) struct Traffic {
    metrics: Metrics,
    labels: LinkLabels,
    bytes: Bytes,
}

impl Traffic {
    pub(super) fn received(&mut self, count: usize) {
        self.bytes.received += count as u64;
    }

    pub(super) fn sent(&mut self, count: usize) {
        self.bytes.sent += count as u64;
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        let mut totals = self.metrics.lock();
        let total = totals.entry(self.labels.clone()).or_default();
        total.received += self.bytes.received;
        total.sent += self.bytes.sent;
    }
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(direction: Stream, proxy: &str) -> LinkLabels {
        LinkLabels { direction, listener: "127.0.0.1:1".into(), proxy: proxy.into(), upstream: "db:5432".into() }
    }

    #[test]
    fn links_count_when_they_end_and_add_up_per_proxy_and_direction() {
        let metrics = Metrics::default();
        assert_eq!(metrics.proxy_text(), "");
        let mut open = metrics.count(labels(Stream::Upstream, "a"));
        open.received(100);
        for (received, sent) in [(5, 3), (2, 2)] {
            let mut link = metrics.count(labels(Stream::Downstream, "a"));
            link.received(received);
            link.sent(sent);
        }
        let text = metrics.proxy_text();
        let line = "toxiproxy_proxy_received_bytes_total{direction=\"downstream\",listener=\"127.0.0.1:1\",proxy=\"a\",upstream=\"db:5432\"} 7\n";
        assert!(text.contains(line), "{text}");
        assert!(text.contains("\"} 5\n"), "{text}");
        assert!(!text.contains("direction=\"upstream\""), "{text}");
        drop(open);
        assert!(metrics.proxy_text().contains("direction=\"upstream\""));
    }

    #[test]
    fn names_cannot_break_the_text() {
        let metrics = Metrics::default();
        drop(metrics.count(labels(Stream::Upstream, "a\"\n\\b")));
        let text = metrics.proxy_text();
        assert!(text.contains("proxy=\"a\\\"\\n\\\\b\""), "{text}");
        assert_eq!(text.lines().count(), 6, "{text}");
    }
}
