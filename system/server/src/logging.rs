//! JSON logs on stderr by allow-list: a field that is not listed here is not printed, whoever logs it.
//! So no body, token, address, e-mail or amount can slip in by a new log line or another crate's.
//! What is at level error goes to the error sink as well, by a shorter list.

use forecastle_telemetry::{ErrorEvent, ErrorReporter, scrubbed};
use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::log_writer::LogWriter;

/// Fields that may be printed, when our own crates log them.
const FIELDS: &[&str] = &[
    "attempt",
    "cause",
    "class",
    "code",
    "constraint",
    "elapsed_ms",
    "error",
    "event",
    "fence",
    "file",
    "flag",
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
    "tenant_id",
    "unknown",
    "version",
    "what",
];

/// Fields that are no part of an error report: names of things at work, counts of them.
const NOT_REPORTED: &[&str] = &["message", "instance", "job_id", "fence", "healed", "incomplete", "unknown"];
/// Fields whose text is made of other errors' texts: looked through once more.
const FREE_TEXT: &[&str] = &["cause", "error", "message", "reason"];

/// Installs the subscriber; `level` is `error`, `warn`, `info`, `debug`, `trace` or `off`. Errors are
/// reported whatever the level. Lines go out by `writer`.
pub(crate) fn install(level: &LevelFilter, writer: LogWriter, reporter: Option<ErrorReporter>) {
    let reports = reporter.map(|reporter| Reported(reporter).with_filter(LevelFilter::ERROR));
    tracing_subscriber::registry().with(AllowListed(writer).with_filter(*level)).with(reports).init();
}

/// Sends what is at level error to the error sink.
struct Reported(ErrorReporter);

impl<S: Subscriber> Layer<S> for Reported {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let target = event.metadata().target();
        let mut fields = Map::new();
        let mut message = "an error of another crate".to_owned();
        if target.starts_with("forecastle") {
            event.record(&mut Printable(&mut fields));
            if let Some(text) = fields.get("message").and_then(Value::as_str) {
                text.clone_into(&mut message);
            }
            fields.retain(|name, _| !NOT_REPORTED.contains(&name.as_str()));
        }
        self.0.report(ErrorEvent { at: chrono::Utc::now(), logger: target.to_owned(), message, fields });
    }
}

struct AllowListed(LogWriter);

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
        self.0.write(bytes);
    }
}

struct Printable<'a>(&'a mut Map<String, Value>);

impl Printable<'_> {
    fn put(&mut self, field: &Field, value: impl Into<Value>) {
        let name = field.name();
        if !FIELDS.contains(&name) {
            return;
        }
        let value = match value.into() {
            Value::String(text) if FREE_TEXT.contains(&name) => scrubbed(&text).into(),
            value => value,
        };
        self.0.insert(name.to_owned(), value);
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

    /// Every call of a logging macro in the product's sources, with its file.
    fn log_calls() -> Vec<(String, String)> {
        let mut calls = Vec::new();
        let mut folders = vec![std::path::PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap().flatten() {
                let path = entry.path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.extension().is_some_and(|end| end == "rs") {
                    let source = std::fs::read_to_string(&path).unwrap();
                    for level in ["error", "warn", "info", "debug", "trace"] {
                        let needle = format!("tracing::{level}!(");
                        for (at, _) in source.match_indices(&needle) {
                            calls.push((path.display().to_string(), arguments(&source[at + needle.len()..])));
                        }
                    }
                }
            }
        }
        calls
    }

    /// Up to the bracket that closes the call.
    fn arguments(source: &str) -> String {
        let mut depth = 1_u32;
        source
            .chars()
            .take_while(|c| {
                match c {
                    '(' => depth += 1,
                    ')' => depth -= 1,
                    _ => {}
                }
                depth > 0
            })
            .collect()
    }

    #[test]
    fn no_log_call_formats_a_message_or_shows_a_structs_inside() {
        let calls = log_calls();
        assert!(calls.len() > 15, "{}", calls.len());
        for (file, call) in calls {
            let message = call.split('"').nth_back(1).unwrap_or_default();
            assert!(!message.contains('{') || call.contains("format_args!"), "{file}: a formatted message: {call}");
            // A kind is one of a closed list of words.
            let fields = call.split('"').next().unwrap_or_default().replace("?error.kind()", "");
            assert!(
                !fields.contains("= ?") && !fields.trim_start().starts_with('?') && !fields.contains(", ?"),
                "{file}: a Debug of something: {call}"
            );
        }
    }
}
