//! Problems, limits and headers.

use forecastle_api::Rate;
use reqwest::Method;
use serde_json::json;

use crate::fixtures::{Instance, config, scenario, text};
use crate::servers::Servers;

#[tokio::test]
async fn what_is_not_there_or_too_large_is_a_problem_document() {
    let servers = Servers::start().await;
    let api = Instance::start(config(&servers)).await;
    let session = api.sign_up("ada", "FREE").await;
    let token = text(&session, "access_token");
    let long = "x".repeat(20_000);
    let mut large = scenario("s");
    large["notes"] = json!("x".repeat(1 << 20));
    let answers = [
        (404, "not_found", api.send(Method::GET, "/v1/nothing", None, &[], None).await),
        (405, "method_not_allowed", api.send(Method::DELETE, "/v1/login", None, &[], None).await),
        (413, "body_too_large", api.post_with_key("/v1/scenarios", token, "k", large).await),
        (
            415,
            "unsupported_media_type",
            api.send(Method::POST, "/v1/login", None, &[("content-type", "text/plain")], None).await,
        ),
        (431, "headers_too_large", api.send(Method::GET, "/v1/me", Some(token), &[("x-long", &long)], None).await),
        (400, "limit_invalid", api.get("/v1/scenarios?limit=0", token).await),
        (422, "invalid", api.post("/v1/login", json!({"email": 1})).await),
    ];
    for (status, code, answer) in answers {
        assert_eq!(answer.code(), (status, code.to_owned()));
        assert_eq!(answer.header("content-type"), "application/problem+json");
        assert_eq!(answer.json()["type"], json!(format!("urn:forecastle:problem:{code}")));
        assert!(!answer.header("x-request-id").is_empty() && !answer.text.contains(answer.header("x-request-id")));
    }
    let malformed = [("content-type", "application/json")];
    let answer = api.send(Method::POST, "/v1/login", None, &malformed, None).await;
    assert_eq!(answer.code(), (400, "malformed_json".to_owned()));
}

#[tokio::test]
async fn a_caller_that_asks_too_often_is_told_to_wait_with_redis_and_without() {
    let mut servers = Servers::start().await;
    let mut strict = config(&servers);
    strict.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    strict.limits.address = Rate { per_second: 1, burst: 5 };
    strict.limits.address_floor = Rate { per_second: 1, burst: 2 };
    let api = Instance::start(strict).await;
    let ask = async |address: &str| api.send(Method::GET, "/v1/me", None, &[("x-forwarded-for", address)], None).await;
    for (redis, burst, address) in [(true, 5, "198.51.100.1"), (false, 2, "198.51.100.2")] {
        if !redis {
            servers.stop_redis();
        }
        let mut admitted = 0;
        let refused = loop {
            let answer = ask(address).await;
            assert!(answer.header("ratelimit-policy").starts_with("\"address\";q="), "{:?}", answer.headers);
            match answer.status.as_u16() {
                401 => admitted += 1,
                _ => break answer,
            }
            assert!(admitted < 50, "never refused");
        };
        assert_eq!(refused.code(), (429, "rate_limited".to_owned()));
        assert_eq!(refused.header("retry-after"), "1");
        assert!((burst..=burst + 2).contains(&admitted), "{admitted}");
        assert_eq!(ask("203.0.113.9").await.status.as_u16(), 401, "another address is not held back");
        api.send(Method::GET, "/livez", None, &[("x-forwarded-for", address)], None).await.expect(200);
    }
}

#[tokio::test]
async fn machines_find_the_document_the_keys_and_metrics_without_names() {
    let servers = Servers::start().await;
    let api = Instance::start(config(&servers)).await;
    let session = api.sign_up("ada", "FREE").await;
    let token = text(&session, "access_token");
    let id = text(&api.scenario(token, "s").await, "id").to_owned();
    let read = api.get(&format!("/v1/scenarios/{id}"), token).await.expect(200);
    assert_eq!(read.header("cache-control"), "private, no-store");

    let document = api.send(Method::GET, "/openapi.json", None, &[], None).await.expect(200);
    assert_eq!(document.text, forecastle_api::openapi());
    let jwks = api.send(Method::GET, "/.well-known/jwks.json", None, &[], None).await.expect(200).json();
    assert_eq!((text(&jwks["keys"][0], "kid"), text(&jwks["keys"][0], "alg")), ("test", "EdDSA"));

    let metrics = api.send(Method::GET, "/metrics", None, &[], None).await.expect(200).text;
    assert!(
        metrics.contains(
            "http_requests_total{route=\"/v1/scenarios/{id}\",method=\"GET\",status=\"200\",outcome=\"answered\"} 1"
        ),
        "{metrics}"
    );
    assert!(metrics.contains("forecastle_pool_connections_in_use"));
    let told = metrics.lines().find_map(|line| line.strip_prefix("forecastle_time_seconds "));
    let told: f64 = told.and_then(|seconds| seconds.parse().ok()).expect("what its clock says");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
    assert!((now - 30.0..=now).contains(&told), "{told} at {now}");
    for secret in [&id, text(&session, "tenant_id"), text(&session, "user_id"), "example.com"] {
        assert!(!metrics.contains(secret), "{secret}");
    }
}
