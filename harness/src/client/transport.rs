//! One request out, one whole answer in, or the way it got lost. Loopback only, no redirects, no retries.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context;
use serde_json::Value;

/// One instance of the API, as a client sees it: an address and a name for the record.
#[derive(Debug, Clone)]
pub struct Api {
    /// Name of the instance, e.g. `api-1`.
    pub name: String,
    base: String,
    http: reqwest::Client,
}

/// A request before it is sent.
#[derive(Debug, Clone)]
pub struct Request {
    /// `GET`, `POST`, `PUT`.
    pub method: &'static str,
    /// The path with its parameters filled in, from `/`.
    pub path: String,
    /// The path as the OpenAPI document writes it, e.g. `/v1/scenarios/{id}`.
    pub route: String,
    /// JSON body, or none.
    pub body: Option<Value>,
    /// The access token, or none.
    pub bearer: Option<String>,
    /// Idempotency-Key, or none.
    pub idempotency_key: Option<String>,
    /// If-Match, or none.
    pub if_match: Option<String>,
    /// Further headers, names in lower case.
    pub headers: Vec<(&'static str, String)>,
    /// The address the client claims through X-Forwarded-For.
    pub forwarded_for: String,
    /// After this the client gives up.
    pub timeout: Duration,
    /// The time-out is a client that hangs up on purpose.
    pub hangs_up: bool,
}

impl Request {
    /// A request without body, token or conditions; 10 s of patience.
    pub fn new(method: &'static str, route: &str) -> Self {
        Self {
            method,
            path: route.to_owned(),
            route: route.to_owned(),
            body: None,
            bearer: None,
            idempotency_key: None,
            if_match: None,
            headers: Vec::new(),
            forwarded_for: "10.255.255.1".to_owned(),
            timeout: Duration::from_secs(10),
            hangs_up: false,
        }
    }

    /// Fills `{id}` in the route.
    pub fn with_id(mut self, id: &str) -> Self {
        self.path = self.route.replace("{id}", id);
        self
    }

    /// Sets the JSON body.
    pub fn with_body(mut self, body: Value) -> Self {
        self.body = Some(body);
        self
    }
}

/// A whole answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Header names in lower case; values joined by `, ` where a name came twice.
    pub headers: BTreeMap<String, String>,
    /// The whole body.
    pub body: bytes::Bytes,
}

impl Answer {
    /// A header's value by its lower-case name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    /// The body as JSON, or null.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    /// The stable `code` of a problem document, where it is one.
    pub fn problem_code(&self) -> Option<String> {
        let is_problem = self.header("content-type").is_some_and(|kind| kind.starts_with("application/problem+json"));
        if !is_problem {
            return None;
        }
        self.json()["code"].as_str().map(str::to_owned)
    }

    /// 2xx.
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// All headers but those that differ between two equal answers by right: date, request id, rate limits, and the
    /// connection's own.
    pub fn comparable_headers(&self) -> BTreeMap<String, String> {
        self.headers
            .iter()
            .filter(|(name, _)| {
                !matches!(name.as_str(), "date" | "x-request-id" | "connection" | "keep-alive")
                    && !name.starts_with("ratelimit")
                    && !name.starts_with("x-ratelimit")
            })
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect()
    }
}

/// Why no whole answer came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LostReason {
    /// No connection was made, so nothing was sent.
    NotConnected,
    /// The client's patience ended.
    TimedOut,
    /// The client hung up on purpose.
    HungUp,
    /// The connection broke, or the answer was no HTTP.
    Broken,
}

impl LostReason {
    /// As it stands in the history.
    pub fn name(self) -> &'static str {
        match self {
            Self::NotConnected => "refused",
            Self::TimedOut => "timeout",
            Self::HungUp => "hung_up",
            Self::Broken => "reset",
        }
    }
}

/// What came of a request.
#[derive(Debug, Clone)]
pub enum Exchange {
    /// A whole answer.
    Answered(Answer),
    /// None.
    Lost(LostReason),
}

impl Exchange {
    /// The answer, if one came.
    pub fn answer(&self) -> Option<&Answer> {
        match self {
            Self::Answered(answer) => Some(answer),
            Self::Lost(_) => None,
        }
    }

    /// The answer, if it was a 2xx.
    pub fn success(&self) -> Option<&Answer> {
        self.answer().filter(|answer| answer.is_success())
    }
}

impl Api {
    /// A client of the instance `name` at `base`, e.g. `http://127.0.0.1:40123`, with a connection pool of its own.
    ///
    /// # Errors
    /// Where the HTTP client cannot be built.
    pub fn new(name: &str, base: &str) -> anyhow::Result<Self> {
        let http = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(Duration::from_secs(2))
            .pool_idle_timeout(Duration::from_secs(15))
            .build()
            .context("build http client")?;
        Ok(Self { name: name.to_owned(), base: base.trim_end_matches('/').to_owned(), http })
    }

    /// Sends once and reads the whole answer.
    pub async fn send(&self, request: &Request) -> Exchange {
        let method = match request.method {
            "POST" => reqwest::Method::POST,
            "PUT" => reqwest::Method::PUT,
            "DELETE" => reqwest::Method::DELETE,
            "PATCH" => reqwest::Method::PATCH,
            _ => reqwest::Method::GET,
        };
        let mut builder = self
            .http
            .request(method, format!("{}{}", self.base, request.path))
            .header("x-forwarded-for", &request.forwarded_for)
            .timeout(request.timeout);
        if let Some(token) = &request.bearer {
            builder = builder.header("authorization", format!("Bearer {token}"));
        }
        if let Some(key) = &request.idempotency_key {
            builder = builder.header("idempotency-key", key);
        }
        if let Some(tag) = &request.if_match {
            builder = builder.header("if-match", tag);
        }
        for (name, value) in &request.headers {
            builder = builder.header(*name, value);
        }
        if let Some(body) = &request.body {
            builder = builder.json(body);
        }
        let lost = |error: &reqwest::Error| Exchange::Lost(lost_reason(error, request.hangs_up));
        match builder.send().await {
            Err(error) => lost(&error),
            Ok(response) => {
                let status = response.status().as_u16();
                let headers = collect_headers(response.headers());
                match response.bytes().await {
                    Ok(body) => Exchange::Answered(Answer { status, headers, body }),
                    Err(error) => lost(&error),
                }
            }
        }
    }
}

fn lost_reason(error: &reqwest::Error, hangs_up: bool) -> LostReason {
    if error.is_connect() {
        LostReason::NotConnected
    } else if error.is_timeout() {
        if hangs_up { LostReason::HungUp } else { LostReason::TimedOut }
    } else {
        LostReason::Broken
    }
}

fn collect_headers(headers: &reqwest::header::HeaderMap) -> BTreeMap<String, String> {
    let mut collected: BTreeMap<String, String> = BTreeMap::new();
    for (name, value) in headers {
        let text = String::from_utf8_lossy(value.as_bytes());
        collected
            .entry(name.as_str().to_owned())
            .and_modify(|known| {
                known.push_str(", ");
                known.push_str(&text);
            })
            .or_insert_with(|| text.into_owned());
    }
    collected
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_closed_port_is_not_connected() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let address = listener.local_addr().expect("address");
        drop(listener);
        let api = Api::new("api-1", &format!("http://{address}")).expect("client");
        let exchange = api.send(&Request::new("GET", "/livez")).await;
        assert!(matches!(exchange, Exchange::Lost(LostReason::NotConnected)), "{exchange:?}");
    }

    #[tokio::test]
    async fn a_connection_closed_without_an_answer_is_broken() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let address = listener.local_addr().expect("address");
        let server = tokio::spawn(async move {
            for _ in 0..2 {
                let (mut stream, _) = listener.accept().await.expect("accept");
                let mut first = [0_u8; 1];
                tokio::io::AsyncReadExt::read_exact(&mut stream, &mut first).await.expect("a byte");
            }
        });
        let api = Api::new("api-1", &format!("http://{address}")).expect("client");
        let exchange = api.send(&Request::new("POST", "/v1/forecasts")).await;
        assert!(matches!(exchange, Exchange::Lost(LostReason::Broken)), "{exchange:?}");
        server.abort();
    }

    #[tokio::test]
    async fn patience_that_ends_is_a_time_out_and_on_purpose_a_hang_up() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let api = Api::new("api-1", &format!("http://{}", listener.local_addr().expect("address"))).expect("client");
        let mut request = Request::new("GET", "/v1/me");
        request.timeout = Duration::from_millis(50);
        assert!(matches!(api.send(&request).await, Exchange::Lost(LostReason::TimedOut)));
        request.hangs_up = true;
        assert!(matches!(api.send(&request).await, Exchange::Lost(LostReason::HungUp)));
    }

    #[test]
    fn dates_ids_and_limits_are_left_out_of_comparisons() {
        let headers = [("date", "x"), ("x-request-id", "y"), ("ratelimit-remaining", "3"), ("content-type", "z")];
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let answer = Answer { status: 404, headers, body: bytes::Bytes::new() };
        assert_eq!(answer.comparable_headers().keys().collect::<Vec<_>>(), ["content-type"]);
    }
}
