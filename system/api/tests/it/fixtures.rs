//! An instance under test and a client that speaks to it.

use std::sync::OnceLock;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use forecastle_api::{ApiConfig, KeySet, Limits, Rate};
use forecastle_domain::Right;
use forecastle_store::{CacheOptions, DbOptions};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::servers::Servers;

/// An id that nothing has.
pub(crate) const NOBODYS_ID: &str = "00000000-0000-4000-8000-000000000000";

pub(crate) const PASSWORD: &str = "correct horse battery";

/// Signing keys of every instance in these tests.
pub(crate) fn keys() -> KeySet {
    KeySet::parse(&format!("test:{}", URL_SAFE_NO_PAD.encode([7; 32]))).expect("test keys")
}

/// Metrics are one for the whole process.
fn metrics() -> PrometheusHandle {
    static METRICS: OnceLock<PrometheusHandle> = OnceLock::new();
    METRICS.get_or_init(|| PrometheusBuilder::new().install_recorder().expect("install recorder")).clone()
}

/// Generous limits, cheap hashes, short waits.
pub(crate) fn config(servers: &Servers) -> ApiConfig {
    config_at(servers.database_url("forecastle_app"), servers.redis_url())
}

/// The same for servers at these addresses.
pub(crate) fn config_at(database_url: String, redis_url: String) -> ApiConfig {
    let mut db = DbOptions::new(database_url, "api-test");
    db.max_connections = 10;
    db.acquire_timeout = Duration::from_millis(1500);
    let cache = CacheOptions { redis_url, timeout: Duration::from_millis(250) };
    let mut config = ApiConfig::new(db, cache, keys());
    config.metrics = Some(metrics());
    config.password_memory_kib = 64;
    config.password_passes = 1;
    let plenty = Rate::per_second(10_000);
    config.limits = Limits {
        user: plenty,
        address: plenty,
        credentials: plenty,
        user_floor: plenty,
        address_floor: plenty,
        credentials_floor: plenty,
    };
    config
}

/// One instance, stopped when dropped.
pub(crate) struct Instance {
    base: String,
    client: reqwest::Client,
    stop: tokio::sync::oneshot::Sender<()>,
    served: tokio::task::JoinHandle<Result<(), forecastle_api::ServeError>>,
}

/// An answer, read whole.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: reqwest::header::HeaderMap,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("not JSON: {}", self.text))
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("ASCII header"))
    }

    /// Status and, of a problem, its code.
    pub(crate) fn code(&self) -> (u16, String) {
        let code = if self.text.is_empty() { Value::Null } else { self.json()["code"].take() };
        (self.status.as_u16(), code.as_str().unwrap_or_default().to_owned())
    }

    pub(crate) fn expect(self, status: u16) -> Self {
        assert_eq!(self.status.as_u16(), status, "{}", self.text);
        self
    }
}

impl Instance {
    pub(crate) async fn start(config: ApiConfig) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let base = format!("http://{}", listener.local_addr().expect("address"));
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let stopped = async move {
            let _ = stopped.await;
        };
        let served = tokio::spawn(forecastle_api::serve(config, listener, stopped));
        Self { base, client: reqwest::Client::new(), stop, served }
    }

    /// Asks it to drain, and gives what it ends with.
    pub(crate) async fn drain(self) -> Result<(), forecastle_api::ServeError> {
        let Self { client, stop, served, .. } = self;
        drop(client);
        drop(stop);
        served.await.expect("no panic")
    }

    /// What a client with connections of its own needs.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        token: Option<&str>,
        headers: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Answer {
        let mut request = self.client.request(method, format!("{}{path}", self.base));
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = request.send().await.expect("an answer");
        let (status, headers) = (response.status(), response.headers().clone());
        Answer { status, headers, text: response.text().await.expect("a whole answer") }
    }

    /// Status and problem code of an empty JSON object sent so; a success's body, which may never end,
    /// is not read.
    pub(crate) async fn status(&self, method: Method, path: &str, token: &str) -> (u16, String) {
        let request = self.client.request(method, self.url(path)).bearer_auth(token).json(&json!({}));
        let response = request.send().await.expect("an answer");
        let status = response.status();
        if status.is_success() {
            return (status.as_u16(), String::new());
        }
        let body: Value = response.json().await.expect("a problem");
        (status.as_u16(), text(&body, "code").to_owned())
    }

    pub(crate) async fn get(&self, path: &str, token: &str) -> Answer {
        self.send(Method::GET, path, Some(token), &[], None).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Answer {
        self.send(Method::POST, path, None, &[], Some(&body)).await
    }

    pub(crate) async fn post_with_key(&self, path: &str, token: &str, key: &str, body: Value) -> Answer {
        self.send(Method::POST, path, Some(token), &[("idempotency-key", key)], Some(&body)).await
    }

    pub(crate) async fn sign_up(&self, name: &str, plan: &str) -> Value {
        self.post("/v1/signup", sign_up(name, plan)).await.expect(201).json()
    }

    pub(crate) async fn log_in(&self, name: &str) -> Value {
        self.post("/v1/login", json!({"email": format!("{name}@example.com"), "password": PASSWORD}))
            .await
            .expect(200)
            .json()
    }

    pub(crate) async fn refresh(&self, token: &str) -> Answer {
        self.post("/v1/token/refresh", json!({"refresh_token": token})).await
    }

    /// A stored scenario.
    pub(crate) async fn scenario(&self, token: &str, key: &str) -> Value {
        self.post_with_key("/v1/scenarios", token, key, scenario(key)).await.expect(201).json()
    }
}

/// An operation of the document that needs a session; ids in its path are nobody's.
#[derive(Debug)]
pub(crate) struct Protected {
    pub(crate) method: Method,
    pub(crate) path: String,
    /// What its caller's role must have.
    pub(crate) right: Right,
}

/// Every operation that nobody has to sign in for. A further one is a decision, which is written down here.
const OPEN_TO_EVERYBODY: [&str; 12] = [
    "GET /.well-known/jwks.json",
    "GET /livez",
    "GET /metrics",
    "GET /openapi.json",
    "GET /readyz",
    "POST /v1/email-verification/confirm",
    "POST /v1/login",
    "POST /v1/password-reset",
    "POST /v1/password-reset/confirm",
    "POST /v1/signup",
    "POST /v1/token/refresh",
    "POST /v1/webhooks/payments",
];

/// All of them: every operation of the document but those above.
pub(crate) fn protected_operations() -> Vec<Protected> {
    let document: Value = serde_json::from_str(&forecastle_api::openapi()).expect("the document");
    let mut found = Vec::new();
    let mut open = Vec::new();
    for (path, item) in document["paths"].as_object().expect("paths") {
        let template = path;
        let path = path.split('/').map(|part| if part.starts_with('{') { NOBODYS_ID } else { part });
        let path = path.collect::<Vec<_>>().join("/");
        for (method, operation) in item.as_object().expect("operations") {
            let method = method.to_uppercase();
            if operation["security"].as_array().expect("security").is_empty() {
                open.push(format!("{method} {template}"));
            } else {
                let method = method.parse().expect("a method");
                let right = text(operation, "x-right").parse().expect("a right");
                found.push(Protected { method, path: path.clone(), right });
            }
        }
    }
    open.sort_unstable();
    assert_eq!(open, OPEN_TO_EVERYBODY);
    found
}

pub(crate) fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_else(|| panic!("{field} in {value}"))
}

pub(crate) fn sign_up(name: &str, plan: &str) -> Value {
    json!({
        "organization": format!("{name} Ltd"), "name": name, "email": format!("{name}@example.com"),
        "password": PASSWORD, "plan": plan, "currency": "EUR", "time_zone": "Europe/Berlin",
        "payment_token": "tok_good",
    })
}

pub(crate) fn scenario(name: &str) -> Value {
    json!({
        "name": name, "notes": "first\nsecond",
        "input": {
            "currency": "EUR", "start_month": "2026-01", "horizon_months": 3, "opening_cash": "1000",
            "discount_rate_annual": "0.05", "tax_rate": "0.2",
            "revenue": [{
                "name": "Plan", "opening_units": "10", "adds_per_month": "1", "adds_growth_monthly": "0",
                "churn_monthly": "0", "price": "9.99", "price_growth_annual": "0", "collection_lag_months": 0,
            }],
            "costs": [],
        },
    })
}
