//! The HTTP API case by case, as its clients see it.

use std::net::{Ipv4Addr, SocketAddr};

use nogo_faults::{ToxidHandle, ToxidServer};
use reqwest::{Method, Response};
use serde_json::{Value, json};

struct Api {
    server: ToxidHandle,
    http: reqwest::Client,
}

impl Api {
    async fn start() -> Self {
        let server = ToxidServer::start(1, (Ipv4Addr::LOCALHOST, 0).into()).await.expect("start");
        let http = reqwest::Client::builder().no_proxy().build().expect("client");
        Self { server, http }
    }

    async fn send(&self, method: Method, path: &str, body: &str) -> Response {
        let url = format!("http://{}{path}", self.server.api_addr());
        self.http.request(method, url).body(body.to_owned()).send().await.expect("answer")
    }

    async fn call(&self, method: Method, path: &str, body: Value) -> (u16, Value) {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let response = self.send(method, path, &body).await;
        let status = response.status().as_u16();
        let text = response.text().await.expect("body");
        (status, serde_json::from_str(&text).unwrap_or(Value::Null))
    }

    async fn with_proxy() -> Self {
        let api = Self::start().await;
        let (status, _) = api.call(Method::POST, "/proxies", proxy("db")).await;
        assert_eq!(status, 201);
        api
    }
}

fn proxy(name: &str) -> Value {
    json!({ "name": name, "listen": "127.0.0.1:0", "upstream": "127.0.0.1:9" })
}

fn error(message: &str, status: u16) -> (u16, Value) {
    (status, json!({ "error": message, "status": status }))
}

#[tokio::test]
async fn created_proxy_shows_its_real_port_and_no_toxics() {
    let api = Api::start().await;
    let (status, made) = api.call(Method::POST, "/proxies", proxy("db")).await;
    assert_eq!(status, 201);
    let listen: SocketAddr = made["listen"].as_str().expect("listen").parse().expect("address");
    assert_ne!(listen.port(), 0);
    assert_eq!(made["enabled"], true);
    assert_eq!(made["toxics"], json!([]));
    assert_eq!(api.call(Method::GET, "/proxies/db", Value::Null).await, (200, made.clone()));
    assert_eq!(api.call(Method::GET, "/proxies", Value::Null).await, (200, json!({ "db": made })));
}

#[tokio::test]
async fn creating_is_refused_with_the_official_words() {
    let api = Api::with_proxy().await;
    let create = async |body| api.call(Method::POST, "/proxies", body).await;
    assert_eq!(create(proxy("db")).await, error("proxy already exists", 409));
    assert_eq!(create(json!({ "upstream": "127.0.0.1:9" })).await, error("missing required field: name", 400));
    assert_eq!(create(json!({ "name": "x" })).await, error("missing required field: upstream", 400));
    let response = api.send(Method::POST, "/proxies", "{").await;
    assert_eq!(response.status(), 400);
    assert_eq!(response.headers()["content-type"], "text/plain; charset=utf-8");
    let text = response.text().await.expect("body");
    assert!(text.starts_with("{\"error\":\"bad request body: ") && text.ends_with("\n"), "{text}");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = taken.local_addr().expect("address").to_string();
    let (status, _) = create(json!({ "name": "x", "listen": address, "upstream": "127.0.0.1:9" })).await;
    assert_eq!(status, 500);
}

#[tokio::test]
async fn what_is_missing_is_not_found() {
    let api = Api::with_proxy().await;
    for (method, path) in [
        (Method::GET, "/proxies/no"),
        (Method::POST, "/proxies/no"),
        (Method::PATCH, "/proxies/no"),
        (Method::DELETE, "/proxies/no"),
        (Method::GET, "/proxies/no/toxics"),
        (Method::POST, "/proxies/no/toxics"),
        (Method::GET, "/proxies/no/toxics/t"),
    ] {
        assert_eq!(api.call(method, path, json!({})).await, error("proxy not found", 404), "{path}");
    }
    for method in [Method::GET, Method::POST, Method::PATCH, Method::DELETE] {
        let answer = api.call(method, "/proxies/db/toxics/no", json!({})).await;
        assert_eq!(answer, error("toxic not found", 404));
    }
}

#[tokio::test]
async fn populate_leaves_equal_proxies_alone_and_replaces_others() {
    let api = Api::with_proxy().await;
    let (_, standing) = api.call(Method::GET, "/proxies/db", Value::Null).await;
    api.call(Method::POST, "/proxies/db/toxics", json!({ "type": "noop" })).await;
    let same = json!({ "name": "db", "listen": standing["listen"], "upstream": standing["upstream"] });
    let (status, answer) = api.call(Method::POST, "/populate", json!([same, proxy("cache")])).await;
    assert_eq!(status, 201);
    assert_eq!(answer["proxies"][0]["toxics"][0]["name"], "noop_downstream", "kept with its toxics");
    assert_eq!(answer["proxies"][1]["name"], "cache");

    let mut moved = same.clone();
    moved["upstream"] = "127.0.0.1:10".into();
    let (status, answer) = api.call(Method::POST, "/populate", json!([moved])).await;
    assert_eq!(status, 201);
    assert_eq!(answer["proxies"][0]["upstream"], "127.0.0.1:10");
    assert_eq!(answer["proxies"][0]["toxics"], json!([]));
}

#[tokio::test]
async fn populate_checks_all_before_it_creates_any_and_keeps_what_came_before_a_failure() {
    let api = Api::start().await;
    let nameless = json!([proxy("a"), { "upstream": "127.0.0.1:9" }]);
    let answer = api.call(Method::POST, "/populate", nameless).await;
    let mut expected = error("missing required field: name at proxy 2", 400);
    expected.1["proxies"] = json!([]);
    assert_eq!(answer, expected);
    assert_eq!(api.call(Method::GET, "/proxies", Value::Null).await, (200, json!({})));

    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
    let mut blocked = proxy("b");
    blocked["listen"] = taken.local_addr().expect("address").to_string().into();
    let (status, answer) = api.call(Method::POST, "/populate", json!([proxy("a"), blocked])).await;
    assert_eq!(status, 500);
    assert_eq!(answer["proxies"][0]["name"], "a");
    assert_eq!(api.call(Method::GET, "/proxies/a", Value::Null).await.0, 200);
}

#[tokio::test]
async fn update_by_post_or_patch_keeps_what_is_not_named() {
    let api = Api::with_proxy().await;
    let (_, before) = api.call(Method::GET, "/proxies/db", Value::Null).await;
    let (status, down) = api.call(Method::POST, "/proxies/db", json!({ "enabled": false })).await;
    assert_eq!((status, &down["enabled"], &down["listen"]), (200, &json!(false), &before["listen"]));
    let change = json!({ "enabled": true, "upstream": "127.0.0.1:10" });
    let (status, up) = api.call(Method::PATCH, "/proxies/db", change).await;
    assert_eq!((status, &up["enabled"], &up["upstream"]), (200, &json!(true), &json!("127.0.0.1:10")));
    assert_eq!(up["listen"], before["listen"], "the port stays over an outage");
    assert_eq!(api.send(Method::POST, "/proxies/db", "nonsense").await.status(), 400);
}

#[tokio::test]
async fn a_toxic_is_added_shown_updated_and_removed() {
    let api = Api::with_proxy().await;
    let path = "/proxies/db/toxics";
    let body = json!({ "type": "latency", "stream": "upstream", "attributes": { "latency": 100, "odd": 1 } });
    let (status, added) = api.call(Method::POST, path, body).await;
    assert_eq!(status, 200);
    let expected = json!({
        "attributes": { "latency": 100, "jitter": 0 }, "name": "latency_upstream", "type": "latency",
        "stream": "upstream", "toxicity": 1.0,
    });
    assert_eq!(added, expected);
    assert_eq!(api.call(Method::GET, path, Value::Null).await, (200, json!([expected])));
    let one = "/proxies/db/toxics/latency_upstream";
    for (method, jitter) in [(Method::POST, 5), (Method::PATCH, 6)] {
        let change = json!({ "attributes": { "jitter": jitter }, "toxicity": 0.5, "stream": "downstream" });
        let (status, updated) = api.call(method, one, change).await;
        assert_eq!(status, 200);
        assert_eq!(updated["attributes"], json!({ "latency": 100, "jitter": jitter }));
        assert_eq!((&updated["toxicity"], &updated["stream"]), (&json!(0.5), &json!("upstream")));
        assert_eq!(api.call(Method::GET, one, Value::Null).await, (200, updated));
    }
    assert_eq!(api.call(Method::DELETE, one, Value::Null).await.0, 204);
    assert_eq!(api.call(Method::GET, path, Value::Null).await, (200, json!([])));
}

#[tokio::test]
async fn a_bad_toxic_is_refused_with_the_official_words() {
    let api = Api::with_proxy().await;
    let add = async |body| api.call(Method::POST, "/proxies/db/toxics", body).await;
    assert_eq!(add(json!({ "type": "gravity" })).await, error("invalid toxic type", 400));
    assert_eq!(
        add(json!({ "type": "noop", "stream": "sideways" })).await,
        error("stream was invalid, can be either upstream or downstream", 400)
    );
    let (status, _) = add(json!({ "type": "latency", "attributes": { "latency": "long" } })).await;
    assert_eq!(status, 400);
    assert_eq!(add(json!({ "type": "noop", "name": "n" })).await.0, 200);
    let twin = json!({ "type": "noop", "name": "n", "stream": "upstream" });
    assert_eq!(add(twin).await, error("toxic already exists", 409), "names count over both streams");
}

#[tokio::test]
async fn reset_enables_all_and_removes_every_toxic() {
    let api = Api::with_proxy().await;
    api.call(Method::POST, "/proxies/db/toxics", json!({ "type": "noop" })).await;
    api.call(Method::POST, "/proxies/db", json!({ "enabled": false })).await;
    assert_eq!(api.call(Method::POST, "/reset", Value::Null).await.0, 204);
    let (_, shown) = api.call(Method::GET, "/proxies/db", Value::Null).await;
    assert_eq!((&shown["enabled"], &shown["toxics"]), (&json!(true), &json!([])));
}

#[tokio::test]
async fn version_is_told_and_browsers_are_refused() {
    let api = Api::start().await;
    let response = api.send(Method::GET, "/version", "").await;
    assert_eq!(response.headers()["content-type"], "application/json;charset=utf-8");
    assert_eq!(response.text().await.expect("body"), "{\"version\": \"2.12.0\"}\n");
    let url = format!("http://{}/version", api.server.api_addr());
    let browser = api.http.get(url).header("User-Agent", "Mozilla/5.0").send().await.expect("answer");
    assert_eq!(browser.status(), 403);
}

#[tokio::test]
async fn deleted_proxy_and_stopped_server_no_longer_listen() {
    let api = Api::with_proxy().await;
    let (_, other) = api.call(Method::POST, "/proxies", proxy("other")).await;
    let (_, shown) = api.call(Method::GET, "/proxies/db", Value::Null).await;
    let connects = async |shown: &Value| {
        let address = shown["listen"].as_str().expect("listen").to_owned();
        tokio::net::TcpStream::connect(address).await.is_ok()
    };
    assert!(connects(&shown).await && connects(&other).await);
    assert_eq!(api.call(Method::DELETE, "/proxies/db", Value::Null).await.0, 204);
    assert!(!connects(&shown).await && connects(&other).await);
    let address = api.server.api_addr();
    api.server.stop().await;
    assert!(!connects(&other).await);
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
}
