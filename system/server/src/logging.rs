//! JSON logs on stderr by allow-list: a field that is not listed here is not printed, whoever logs it.
//! So no body, token, address, e-mail or amount can slip in by a new log line or another crate's.

use std::io::Write as _;

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

/// Fields that may be printed, when our own crates log them.
const FIELDS: [&str; 27] = [
    "attempt",
    "class",
    "code",
    "constraint",
    "elapsed_ms",
    "error",
    "event",
    "fence",
    "file",
    "healed",
    "incomplete",
    "instance",
    "job_id",
    "kind",
    "latency_ms",
    "line",
    "message",
    "method",
    "outcome",
    "reason",
    "request_id",
    "route",
    "state",
    "status",
    "unknown",
    "version",
    "what",
];

/// Installs the subscriber; `level` is `error`, `warn`, `info`, `debug`, `trace` or `off`.
pub(crate) fn install(level: &LevelFilter) {
    tracing_subscriber::registry().with(AllowListed.with_filter(*level)).init();
}

struct AllowListed;

impl<S: Subscriber> Layer<S> for AllowListed {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let target = event.metadata().target();
        let ours = target.starts_with("forecastle");
        // Other crates' messages hold what they please (a statement, an address): only that they spoke.
        if !ours && *event.metadata().level() > Level::WARN {
            return;
        }
        let mut line = Map::new();
        line.insert("at".to_owned(), chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Millis, true).into());
        line.insert("level".to_owned(), event.metadata().level().as_str().into());
        line.insert("target".to_owned(), target.into());
        if ours {
            event.record(&mut Printable(&mut line));
        }
        let mut bytes = Value::Object(line).to_string().into_bytes();
        bytes.push(b'\n');
        let _ = std::io::stderr().lock().write_all(&bytes);
    }
}

struct Printable<'a>(&'a mut Map<String, Value>);

impl Printable<'_> {
    fn put(&mut self, field: &Field, value: impl Into<Value>) {
        if FIELDS.contains(&field.name()) {
            self.0.insert(field.name().to_owned(), value.into());
        }
    }
}

impl Visit for Printable<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.put(field, format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_field_that_names_a_person_or_a_secret_is_listed() {
        for word in ["email", "password", "token", "address", "body", "amount", "name", "url", "organization"] {
            assert!(FIELDS.iter().all(|field| !field.contains(word)), "{word}");
        }
    }
}
