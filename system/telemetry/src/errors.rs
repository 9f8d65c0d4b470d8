//! Error reports by Sentry's protocol: one envelope for each, built field by field.
//!
//! The official client collects the host's name, the operating system, breadcrumbs and stack frames by
//! itself; here nothing is collected, so nothing has to be taken out again.

use std::time::Duration;

use chrono::{DateTime, Utc};
use reqwest::Url;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::http::{BadSinkAddress, Poster, plain_url};
use crate::outlet::{self, Inlet, Outlet};

/// Name and version this client gives of itself.
const CLIENT: &str = concat!("forecastle/", env!("CARGO_PKG_VERSION"));

/// Where reports go: `http://key@host:port/project`. Has no `Debug`: the key is a credential.
#[derive(Clone)]
pub struct Dsn {
    endpoint: Url,
    auth: String,
}

impl std::str::FromStr for Dsn {
    type Err = BadSinkAddress;

    fn from_str(text: &str) -> Result<Self, BadSinkAddress> {
        let mut url = plain_url(text)?;
        let key = url.username().to_owned();
        let path = url.path().trim_end_matches('/').to_owned();
        let (before, project) = path.rsplit_once('/').ok_or(BadSinkAddress::Malformed)?;
        if key.is_empty() || project.is_empty() || url.query().is_some() {
            return Err(BadSinkAddress::Malformed);
        }
        url.set_path(&format!("{before}/api/{project}/envelope/"));
        let auth = format!("Sentry sentry_version=7, sentry_client={CLIENT}, sentry_key={key}");
        url.set_username("").and_then(|()| url.set_password(None)).map_err(|()| BadSinkAddress::Malformed)?;
        Ok(Self { endpoint: url, auth })
    }
}

/// How reports are sent.
#[derive(Clone)]
pub struct ReporterOptions {
    /// Where to.
    pub dsn: Dsn,
    /// Name of this process in each report.
    pub instance: String,
    /// Version of this build in each report.
    pub release: String,
    /// Most reports that may wait; further ones are dropped and counted.
    pub queue_max: usize,
    /// Longest time for one of them.
    pub timeout: Duration,
}

/// Something that went wrong, as it may be told.
#[derive(Debug, Clone, PartialEq)]
pub struct ErrorEvent {
    /// When.
    pub at: DateTime<Utc>,
    /// The module that tells it.
    pub logger: String,
    /// What happened, in our own words.
    pub message: String,
    /// Listed fields only; the caller's allow-list decides.
    pub fields: Map<String, Value>,
}

/// Takes reports. Cheap to clone.
#[derive(Clone)]
pub struct ErrorReporter {
    outlet: Outlet<ErrorEvent>,
}

/// Sends them; needs a runtime to run on.
pub struct ErrorTask {
    inlet: Inlet<ErrorEvent>,
    options: ReporterOptions,
    poster: Poster,
}

impl ErrorReporter {
    /// A reporter and the task that must run for it.
    ///
    /// # Errors
    /// If no HTTP client can be made.
    pub fn open(options: ReporterOptions) -> Result<(Self, ErrorTask), BadSinkAddress> {
        let poster = Poster::new(options.dsn.endpoint.clone(), options.timeout)?;
        let (outlet, inlet) = outlet::open("errors", options.queue_max);
        Ok((Self { outlet }, ErrorTask { inlet, options, poster }))
    }

    /// Hands a report over, or drops it where too many wait. Never waits.
    pub fn report(&self, event: ErrorEvent) {
        self.outlet.offer(event);
    }

    /// Lets what waits be sent, at most for `limit`.
    pub async fn flush(&self, limit: Duration) {
        self.outlet.flush(limit).await;
    }
}

impl ErrorTask {
    /// Runs until the reporter flushes for the last time.
    pub async fn run(mut self) {
        while let Some(batch) = self.inlet.next_batch(1, Duration::ZERO).await {
            for event in batch {
                let headers = [
                    ("content-type", "application/x-sentry-envelope"),
                    ("x-sentry-auth", self.options.dsn.auth.as_str()),
                ];
                let outcome = self.poster.post(&headers, envelope(&event, &self.options)).await;
                self.inlet.count(outcome, 1);
            }
        }
    }
}

fn envelope(event: &ErrorEvent, options: &ReporterOptions) -> Vec<u8> {
    let id = Uuid::new_v4().simple().to_string();
    let at = event.at.to_rfc3339_opts(chrono::SecondsFormat::Millis, true);
    let payload = json!({
        "event_id": id,
        "timestamp": at,
        "platform": "other",
        "level": "error",
        "logger": event.logger,
        "release": options.release,
        "tags": { "instance": options.instance },
        "logentry": { "formatted": event.message },
        "extra": event.fields,
    })
    .to_string();
    let head = json!({ "event_id": id, "sent_at": at });
    let item = json!({ "type": "event", "length": payload.len(), "content_type": "application/json" });
    format!("{head}\n{item}\n{payload}\n").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dsn_names_project_and_key_and_keeps_the_key_out_of_the_address() {
        let dsn: Dsn = "http://abc@127.0.0.1:9000/relay/7".parse().ok().unwrap();
        assert_eq!(dsn.endpoint.as_str(), "http://127.0.0.1:9000/relay/api/7/envelope/");
        assert!(dsn.auth.ends_with("sentry_key=abc"));
        for (bad, why) in [
            ("https://abc@sentry.example/7", BadSinkAddress::NotHttp),
            ("http://127.0.0.1/7", BadSinkAddress::Malformed),
            ("http://abc@127.0.0.1", BadSinkAddress::Malformed),
            ("abc", BadSinkAddress::Malformed),
        ] {
            assert_eq!(bad.parse::<Dsn>().err(), Some(why), "{bad}");
        }
    }

    #[test]
    fn an_envelope_is_three_lines_whose_second_tells_the_thirds_length() {
        let dsn = "http://abc@127.0.0.1:9000/7".parse().ok().unwrap();
        let options = ReporterOptions {
            dsn,
            instance: "api-1".to_owned(),
            release: "1.2.3".to_owned(),
            queue_max: 1,
            timeout: Duration::from_secs(1),
        };
        let event = ErrorEvent {
            at: DateTime::UNIX_EPOCH,
            logger: "forecastle_api".to_owned(),
            message: "panicked".to_owned(),
            fields: Map::from_iter([("line".to_owned(), json!(7))]),
        };
        let text = String::from_utf8(envelope(&event, &options)).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 3);
        let item: Value = serde_json::from_str(lines[1]).unwrap();
        assert_eq!(item["length"], lines[2].len());
        let payload: Value = serde_json::from_str(lines[2]).unwrap();
        let keys: Vec<&String> = payload.as_object().unwrap().keys().collect();
        assert_eq!(
            keys,
            ["event_id", "timestamp", "platform", "level", "logger", "release", "tags", "logentry", "extra"]
        );
        assert!(!text.contains("abc"), "the key is a header's");
    }
}
