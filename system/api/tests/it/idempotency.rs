//! One effect for each key.

use std::time::Duration;

use serde_json::json;
use sqlx::Connection as _;

use crate::fixtures::{Instance, config, scenario, text};
use crate::product::join_all;
use crate::servers::Servers;

#[tokio::test]
async fn a_repeated_request_gets_the_same_bytes_and_another_body_is_refused() {
    let servers = Servers::start().await;
    let (one, two) = (Instance::start(config(&servers)).await, Instance::start(config(&servers)).await);
    let session = one.sign_up("ada", "PRO").await;
    let token = text(&session, "access_token");

    let without = one.send(reqwest::Method::POST, "/v1/scenarios", Some(token), &[], Some(&scenario("a"))).await;
    assert_eq!(without.code(), (400, "idempotency_key_required".to_owned()));
    let first = one.post_with_key("/v1/scenarios", token, "k", scenario("a")).await.expect(201);
    assert_eq!(first.header("idempotency-replayed"), "");
    let again = two.post_with_key("/v1/scenarios", token, "k", scenario("a")).await.expect(201);
    assert_eq!((again.header("idempotency-replayed"), &again.text), ("true", &first.text));
    assert_eq!((again.header("etag"), again.header("location")), (first.header("etag"), first.header("location")));
    let other = one.post_with_key("/v1/scenarios", token, "k", scenario("b")).await;
    assert_eq!(other.code(), (422, "idempotency_key_reused".to_owned()));
    let elsewhere = one.post_with_key("/v1/forecasts", token, "k", scenario("a")).await;
    assert_eq!(elsewhere.code(), (422, "idempotency_key_reused".to_owned()));

    let absent = json!({"scenario_id": "00000000-0000-4000-8000-000000000000"});
    let refused = one.post_with_key("/v1/forecasts", token, "n", absent.clone()).await.expect(404);
    let again = two.post_with_key("/v1/forecasts", token, "n", absent).await.expect(404);
    assert_eq!((again.header("idempotency-replayed"), &again.text), ("true", &refused.text));
    assert_eq!(again.header("content-type"), "application/problem+json");
    let list = one.get("/v1/scenarios", token).await.json();
    assert_eq!(list["items"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn many_at_once_under_one_key_have_one_effect() {
    let servers = Servers::start().await;
    let (one, two) = (Instance::start(config(&servers)).await, Instance::start(config(&servers)).await);
    let session = one.sign_up("ada", "PRO").await;
    let token = text(&session, "access_token");
    let id = one.scenario(token, "s").await["id"].clone();
    let instances = [&one, &two];
    let answers = join_all((0..16).map(|n| {
        let (instance, body) = (instances[n % 2], json!({"scenario_id": id}));
        async move { instance.post_with_key("/v1/forecasts", token, "k", body).await }
    }))
    .await;
    let accepted: Vec<_> = answers.iter().filter(|a| a.status.as_u16() == 202).collect();
    assert!(!accepted.is_empty() && accepted.iter().all(|a| a.text == accepted[0].text));
    assert_eq!(accepted.iter().filter(|a| a.header("idempotency-replayed").is_empty()).count(), 1);
    for other in answers.iter().filter(|a| a.status.as_u16() != 202) {
        assert_eq!(other.code(), (409, "idempotency_in_flight".to_owned()));
        assert_eq!(other.header("retry-after"), "1");
    }
    let page = one.get("/v1/forecasts", token).await.json();
    assert_eq!(page["items"].as_array().unwrap().len(), 1);
    assert_eq!(one.get("/v1/usage", token).await.json()["quota_taken"], json!(1));
}

#[tokio::test]
async fn a_refused_payment_is_not_remembered() {
    let servers = Servers::start().await;
    let api = Instance::start(config(&servers)).await;
    let session = api.sign_up("ada", "FREE").await;
    let token = text(&session, "access_token");
    for n in 0..3 {
        api.scenario(token, &format!("s{n}")).await;
    }
    for _ in 0..2 {
        let refused = api.post_with_key("/v1/scenarios", token, "k", scenario("x")).await.expect(402);
        assert_eq!(refused.header("idempotency-replayed"), "");
    }
}

#[tokio::test]
async fn keys_whose_time_is_over_have_effect_again_and_do_not_pile_up() {
    let servers = Servers::start().await;
    let mut forgetful = config(&servers);
    forgetful.idempotency_ttl = Duration::ZERO;
    let api = Instance::start(forgetful).await;
    let session = api.sign_up("ada", "PRO").await;
    let token = text(&session, "access_token");
    for n in 0..8 {
        let key = format!("k{}", n / 2);
        let answer = api.post_with_key("/v1/scenarios", token, &key, scenario("a")).await.expect(201);
        assert_eq!(answer.header("idempotency-replayed"), "");
    }
    let mut admin = sqlx::PgConnection::connect(&servers.database_url("postgres")).await.unwrap();
    let kept: i64 =
        sqlx::query_scalar("SELECT count(*) FROM app.idempotency_keys").fetch_one(&mut admin).await.unwrap();
    assert_eq!(kept, 1, "only the latest is left");
}
