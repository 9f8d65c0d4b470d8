//! The cases of Toxiproxy's own API suite that are about proxies, in our words.

use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    private_servers::free_address,
    proxy_program::{Program, address_of, listens, nowhere},
};

#[tokio::test]
async fn every_answer_names_its_request() {
    let server = Program::start().await;
    let mut seen = Vec::new();
    for path in ["/version", "/proxies", "/proxies/none"] {
        let response = server.get_as("curl", path).await;
        seen.push(response.headers()["X-Toxiproxy-Request-Id"].clone());
    }
    assert!(seen.iter().all(|id| !id.is_empty()));
    assert!(seen[0] != seen[1] && seen[1] != seen[2], "{seen:?}");
}

#[tokio::test]
async fn a_browser_is_refused() {
    let server = Program::start().await;
    let agent = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0 Safari/537.36";
    let response = server.get_as(agent, "/proxies").await;
    assert_eq!(response.status(), 403);
    assert_eq!(response.headers()["content-type"], "text/plain; charset=utf-8");
    assert_eq!(response.text().await.expect("body"), "User agent not allowed\n");
}

#[tokio::test]
async fn what_is_no_browser_is_served() {
    let server = Program::start().await;
    assert_eq!(server.get_as("Wget/2.1", "/proxies").await.status(), 200);
}

#[tokio::test]
async fn without_proxies_the_list_is_empty() {
    let server = Program::start().await;
    let list = server.get("/proxies").await;
    assert_eq!((list.status, list.json), (200, json!({})));
}

#[tokio::test]
async fn a_proxy_needs_a_name() {
    let server = Program::start().await;
    let answer = server.post("/proxies", json!({ "name": "", "upstream": "", "listen": "" })).await;
    answer.refuses(400, "missing required field: name");
}

#[tokio::test]
async fn a_proxy_needs_an_upstream() {
    let server = Program::start().await;
    let answer = server.post("/proxies", json!({ "name": "one", "upstream": "" })).await;
    answer.refuses(400, "missing required field: upstream");
}

#[tokio::test]
async fn populate_creates_every_proxy_in_the_order_asked() {
    let server = Program::start().await;
    let asked = json!([nowhere("one", "localhost:0"), nowhere("two", "localhost:0")]);
    let made = server.post("/populate", asked).await;
    assert_eq!(made.status, 201, "{made:?}");
    let proxies = made.json["proxies"].as_array().expect("proxies");
    assert_eq!(proxies.iter().map(|proxy| proxy["name"].as_str()).collect::<Vec<_>>(), [Some("one"), Some("two")]);
    assert!(proxies.iter().all(|proxy| listens(address_of(proxy))));
}

#[tokio::test]
async fn populate_enables_where_nothing_is_said_about_it() {
    let server = Program::start().await;
    let asked = json!([{ "name": "one", "listen": "localhost:0", "upstream": "localhost:9" }]);
    assert_eq!(server.post("/populate", asked).await.status, 201);
    let list = server.get("/proxies").await.json;
    assert_eq!(list.as_object().map(serde_json::Map::len), Some(1));
    assert!(listens(address_of(&list["one"])));
}

#[tokio::test]
async fn populate_creates_a_disabled_proxy_without_listening() {
    let server = Program::start().await;
    let quiet = free_address();
    let mut disabled = nowhere("one", &quiet.to_string());
    disabled["enabled"] = false.into();
    let made = server.post("/populate", json!([disabled, nowhere("two", "localhost:0")])).await;
    assert_eq!(made.status, 201, "{made:?}");
    let proxies = &made.json["proxies"];
    assert_eq!((&proxies[0]["name"], &proxies[0]["enabled"]), (&json!("one"), &json!(false)));
    assert!(!listens(quiet) && listens(address_of(&proxies[1])));
}

#[tokio::test]
async fn populate_keeps_an_equal_proxy_with_its_toxics_and_replaces_another() {
    let server = Program::start().await;
    let first = server.with_proxy("one").await;
    let second = server.with_proxy("two").await;
    server.toxic("one", json!({ "type": "latency" })).await;
    let moved = free_address();
    // The same place by another name, and another place.
    let same = nowhere("one", &format!("localhost:{}", first.port()));
    let other = json!({ "name": "two", "listen": moved.to_string(), "upstream": "localhost:10", "enabled": true });
    let made = server.post("/populate", json!([same, other])).await;
    assert_eq!(made.status, 201, "{made:?}");
    let proxies = &made.json["proxies"];
    assert_eq!((address_of(&proxies[0]), address_of(&proxies[1])), (first, moved));
    let toxics = server.get("/proxies/one/toxics").await.json;
    assert_eq!((toxics.as_array().map(Vec::len), &toxics[0]["type"]), (Some(1), &json!("latency")));
    assert!(listens(first) && listens(moved) && !listens(second));
}

#[tokio::test]
async fn populate_creates_nothing_where_one_has_no_name() {
    let server = Program::start().await;
    let asked = json!([nowhere("one", "localhost:0"), { "name": "", "listen": "", "enabled": true }]);
    let answer = server.post("/populate", asked).await;
    assert_eq!((answer.status, &answer.json["error"]), (400, &json!("missing required field: name at proxy 2")));
    assert_eq!(answer.json["status"], 400);
    assert!(answer.json["proxies"].as_array().is_none_or(Vec::is_empty), "{answer:?}");
    assert_eq!(server.get("/proxies").await.json, json!({}));
}

#[tokio::test]
async fn populate_stops_at_an_address_that_cannot_be_had_and_keeps_what_came_before() {
    let server = Program::start().await;
    let asked = json!([nowhere("one", "localhost:0"), nowhere("two", "local373"), nowhere("three", "localhost:0")]);
    let answer = server.post("/populate", asked).await;
    assert_eq!(answer.status, 500, "{answer:?}");
    let list = server.get("/proxies").await.json;
    assert_eq!(list.as_object().map(|list| list.keys().collect::<Vec<_>>()), Some(vec![&"one".to_owned()]));
}

#[tokio::test]
async fn a_populated_proxy_takes_toxics() {
    let server = Program::start().await;
    assert_eq!(server.post("/populate", json!([nowhere("one", "localhost:0")])).await.status, 201);
    let toxic = server.toxic("one", json!({ "type": "latency", "stream": "downstream", "toxicity": 1 })).await;
    assert_eq!(toxic["name"], "latency_downstream");
}

#[tokio::test]
async fn the_list_shows_where_a_proxy_really_listens() {
    let server = Program::start().await;
    let port = free_address().port();
    assert_eq!(server.post("/proxies", nowhere("db", &format!("localhost:{port}"))).await.status, 201);
    let shown = &server.get("/proxies").await.json["db"];
    assert_eq!(shown["listen"], format!("127.0.0.1:{port}"));
    assert_eq!((&shown["name"], &shown["upstream"]), (&json!("db"), &json!("localhost:9")));
    assert_eq!(shown["toxics"], json!([]));
}

#[tokio::test]
async fn a_created_proxy_is_shown_under_its_name() {
    let server = Program::start().await;
    let made = server.post("/proxies", nowhere("db", "localhost:0")).await;
    let shown = server.get("/proxies/db").await;
    assert_eq!((shown.status, &shown.json), (200, &made.json));
    assert_eq!((&shown.json["enabled"], &shown.json["toxics"]), (&json!(true), &json!([])));
}

#[tokio::test]
async fn a_proxy_can_be_connected_to_once_it_is_created() {
    let server = Program::start().await;
    let made = server.post("/proxies", nowhere("db", "localhost:0")).await;
    assert_eq!(made.status, 201);
    assert_eq!(made.json["enabled"], true);
    assert!(listens(address_of(&server.get("/proxies/db").await.json)));
}

fn disabled(name: &str, listen: &str) -> Value {
    let mut proxy = nowhere(name, listen);
    proxy["enabled"] = false.into();
    proxy
}

#[tokio::test]
async fn a_disabled_proxy_shows_its_address_as_asked_and_does_not_listen() {
    let server = Program::start().await;
    let quiet = free_address();
    let listen = format!("localhost:{}", quiet.port());
    assert_eq!(server.post("/proxies", disabled("db", &listen)).await.status, 201);
    let shown = server.get("/proxies/db").await.json;
    assert_eq!((&shown["listen"], &shown["enabled"]), (&json!(listen), &json!(false)));
    assert!(!listens(quiet));
}

#[tokio::test]
async fn a_disabled_proxy_is_enabled_and_disabled_again() {
    let server = Program::start().await;
    let address = free_address();
    let made = server.post("/proxies", disabled("db", &format!("localhost:{}", address.port()))).await;
    assert_eq!(made.status, 201);
    for (method, enabled) in [(Method::POST, true), (Method::PATCH, false), (Method::POST, true)] {
        let mut proxy = server.get("/proxies/db").await.json;
        proxy["enabled"] = enabled.into();
        let saved = server.send(method, "/proxies/db", proxy.to_string()).await;
        assert_eq!((saved.status, &saved.json["enabled"]), (200, &json!(enabled)), "{saved:?}");
        assert_eq!(listens(address), enabled);
    }
}

#[tokio::test]
async fn a_deleted_proxy_is_gone_from_its_port_and_from_the_list() {
    let server = Program::start().await;
    let address = server.with_proxy("db").await;
    assert!(listens(address));
    let deleted = server.delete("/proxies/db").await;
    assert_eq!((deleted.status, deleted.text.as_str()), (204, ""));
    assert!(!listens(address));
    assert_eq!(server.get("/proxies").await.json, json!({}));
    server.delete("/proxies/db").await.refuses(404, "proxy not found");
}

#[tokio::test]
async fn two_proxies_cannot_have_one_port_until_the_first_is_gone() {
    let server = Program::start().await;
    let address = server.with_proxy("db").await;
    let listen = format!("localhost:{}", address.port());
    let words = format!("listen tcp {address}: bind: address already in use");
    server.post("/proxies", nowhere("other", &listen)).await.refuses(500, &words);
    assert_eq!(server.delete("/proxies/db").await.status, 204);
    assert_eq!(server.post("/proxies", nowhere("other", &listen)).await.status, 201);
}

#[tokio::test]
async fn two_proxies_cannot_have_one_name_until_the_first_is_gone() {
    let server = Program::start().await;
    server.with_proxy("db").await;
    server.post("/proxies", nowhere("db", "localhost:0")).await.refuses(409, "proxy already exists");
    assert_eq!(server.delete("/proxies/db").await.status, 204);
    assert_eq!(server.post("/proxies", nowhere("db", "localhost:0")).await.status, 201);
}

#[tokio::test]
async fn reset_keeps_proxies_up_and_takes_their_toxics() {
    let server = Program::start().await;
    let address = server.with_proxy("db").await;
    let attributes = json!({ "latency": 100, "jitter": 10 });
    let toxic = server.toxic("db", json!({ "type": "latency", "attributes": attributes })).await;
    assert_eq!(toxic["attributes"], attributes);
    let down = server.post("/proxies/db", json!({ "enabled": false })).await;
    assert_eq!(down.status, 200);
    let reset = server.post("/reset", Value::Null).await;
    assert_eq!((reset.status, reset.text.as_str()), (204, ""));
    let shown = server.get("/proxies").await.json;
    assert_eq!((&shown["db"]["enabled"], &shown["db"]["toxics"]), (&json!(true), &json!([])));
    assert_eq!(server.get("/proxies/db/toxics").await.json, json!([]));
    assert!(listens(address));
}

#[tokio::test]
async fn the_version_is_told_as_json() {
    let server = Program::start().await;
    let response = server.get_as("curl", "/version").await;
    assert_eq!(response.headers()["content-type"], "application/json;charset=utf-8");
    let text = response.text().await.expect("body");
    let told: Value = serde_json::from_str(&text).expect("JSON");
    let version = told["version"].as_str().expect("version");
    assert_eq!(text, format!("{{\"version\": \"{version}\"}}\n"));
}
