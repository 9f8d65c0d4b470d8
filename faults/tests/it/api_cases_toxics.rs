//! The cases of Toxiproxy's own API suite that are about toxics, in our words.

use reqwest::Method;
use serde_json::{Value, json};

use crate::proxy_program::Program;

const TOXICS: &str = "/proxies/db/toxics";

async fn server() -> Program {
    let server = Program::start().await;
    server.with_proxy("db").await;
    server
}

fn latency(name: &str, stream: &str, latency: i64, jitter: i64, toxicity: f64) -> Value {
    json!({
        "attributes": { "latency": latency, "jitter": jitter }, "name": name, "type": "latency",
        "stream": stream, "toxicity": toxicity,
    })
}

/// Compares numbers by value: 1 is 1.0.
#[track_caller]
fn same(shown: &Value, expected: &Value) {
    for field in ["name", "type", "stream"] {
        assert_eq!(shown[field], expected[field], "{shown}");
    }
    assert_eq!(shown["toxicity"].as_f64(), expected["toxicity"].as_f64(), "{shown}");
    assert_eq!(shown["attributes"], expected["attributes"], "{shown}");
}

#[track_caller]
fn only(shown: &Value, expected: &[Value]) {
    let shown = shown.as_array().expect("a list");
    assert_eq!(shown.len(), expected.len(), "{shown:?}");
    for (shown, expected) in shown.iter().zip(expected) {
        same(shown, expected);
    }
}

#[tokio::test]
async fn without_toxics_the_list_is_an_empty_array() {
    let server = server().await;
    let list = server.get(TOXICS).await;
    assert_eq!((list.status, list.text.trim()), (200, "[]"));
}

#[tokio::test]
async fn a_toxic_is_added_under_its_name_and_read_back() {
    let server = server().await;
    let asked = latency("slow", "downstream", 100, 10, 1.0);
    same(&server.toxic("db", asked.clone()).await, &asked);
    only(&server.get(TOXICS).await.json, &[asked]);
}

#[tokio::test]
async fn toxics_of_one_type_stand_beside_each_other_under_their_names() {
    let server = server().await;
    for name in ["first", "second"] {
        server.toxic("db", json!({ "name": name, "type": "latency", "stream": "downstream" })).await;
    }
    let expected = ["first", "second"].map(|name| latency(name, "downstream", 0, 0, 1.0));
    only(&server.get(TOXICS).await.json, &expected);
}

#[tokio::test]
async fn a_name_is_taken_also_for_another_type() {
    let server = server().await;
    server.toxic("db", json!({ "name": "one", "type": "latency", "stream": "downstream" })).await;
    let twin = json!({ "name": "one", "type": "slow_close", "stream": "downstream" });
    server.post(TOXICS, twin).await.refuses(409, "toxic already exists");
    only(&server.get(TOXICS).await.json, &[latency("one", "downstream", 0, 0, 1.0)]);
}

#[tokio::test]
async fn a_name_is_taken_also_for_the_other_direction() {
    let server = server().await;
    server.toxic("db", json!({ "name": "one", "type": "latency", "stream": "upstream" })).await;
    let twin = json!({ "name": "one", "type": "latency", "stream": "downstream" });
    server.post(TOXICS, twin).await.refuses(409, "toxic already exists");
    only(&server.get(TOXICS).await.json, &[latency("one", "upstream", 0, 0, 1.0)]);
}

#[tokio::test]
async fn default_names_differ_by_direction() {
    let server = server().await;
    // Listed by direction, whichever came first.
    for stream in ["downstream", "upstream"] {
        server.toxic("db", json!({ "type": "latency", "stream": stream })).await;
    }
    let expected = ["upstream", "downstream"].map(|s| latency(&format!("latency_{s}"), s, 0, 0, 1.0));
    only(&server.get(TOXICS).await.json, &expected);
}

#[tokio::test]
async fn toxicity_is_shown_to_the_digit() {
    let server = server().await;
    let asked = latency("latency_downstream", "downstream", 100, 10, 0.2);
    let mut nameless = asked.clone();
    nameless["name"] = "".into();
    same(&server.toxic("db", nameless).await, &asked);
    only(&server.get(TOXICS).await.json, &[asked]);
}

#[tokio::test]
async fn a_placebo_can_be_added_and_acts_downstream_where_nothing_is_said() {
    let server = server().await;
    let expected =
        json!({ "attributes": {}, "name": "placebo", "type": "noop", "stream": "downstream", "toxicity": 1.0 });
    same(&server.toxic("db", json!({ "name": "placebo", "type": "noop" })).await, &expected);
    only(&server.get(TOXICS).await.json, &[expected]);
}

#[tokio::test]
async fn an_update_changes_what_it_names_and_leaves_the_rest() {
    let server = server().await;
    let attributes = json!({ "latency": 100, "jitter": 10 });
    let added = server.toxic("db", json!({ "type": "latency", "attributes": attributes })).await;
    same(&added, &latency("latency_downstream", "downstream", 100, 10, 1.0));
    let one = "/proxies/db/toxics/latency_downstream";
    for (method, change, expected) in [
        (
            Method::POST,
            json!({ "attributes": { "latency": 1000 }, "toxicity": 0.5 }),
            latency("latency_downstream", "downstream", 1000, 10, 0.5),
        ),
        (
            Method::PATCH,
            json!({ "attributes": { "latency": 500 } }),
            latency("latency_downstream", "downstream", 500, 10, 0.5),
        ),
    ] {
        let updated = server.send(method, one, change.to_string()).await;
        assert_eq!(updated.status, 200, "{updated:?}");
        same(&updated.json, &expected);
        same(&server.get(one).await.json, &expected);
        only(&server.get(TOXICS).await.json, &[expected]);
    }
}

#[tokio::test]
async fn a_removed_toxic_is_gone_from_the_list() {
    let server = server().await;
    server.toxic("db", json!({ "type": "latency", "stream": "downstream" })).await;
    only(&server.get(TOXICS).await.json, &[latency("latency_downstream", "downstream", 0, 0, 1.0)]);
    let removed = server.delete("/proxies/db/toxics/latency_downstream").await;
    assert_eq!((removed.status, removed.text.as_str()), (204, ""));
    assert_eq!(server.get(TOXICS).await.json, json!([]));
}

#[tokio::test]
async fn a_direction_that_does_not_exist_is_refused() {
    let server = server().await;
    let sideways = json!({ "type": "latency", "stream": "sideways" });
    let words = "stream was invalid, can be either upstream or downstream";
    server.post(TOXICS, sideways).await.refuses(400, words);
    assert_eq!(server.get(TOXICS).await.json, json!([]));
}
