//! Redis gone: slower, never wrong. PostgreSQL gone: refused, never let in.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::json;

use crate::cut_links::BothCut;
use crate::fixtures::{Instance, config, scenario, text};
use crate::servers::Servers;

#[tokio::test]
async fn without_redis_every_answer_is_still_right() {
    let mut servers = Servers::start().await;
    let api = Instance::start(config(&servers)).await;
    let session = api.sign_up("ada", "PRO").await;
    let token = text(&session, "access_token");
    let id = text(&api.scenario(token, "s").await, "id").to_owned();
    api.get(&format!("/v1/scenarios/{id}"), token).await.expect(200);
    api.get("/v1/dashboard", token).await.expect(200);

    servers.stop_redis();
    let ready = api.send(Method::GET, "/readyz", None, &[], None).await.expect(200).json();
    assert_eq!(ready["redis"], json!(false));
    let edited = [("if-match", "\"1\"")];
    api.send(Method::PUT, &format!("/v1/scenarios/{id}"), Some(token), &edited, Some(&scenario("t"))).await.expect(200);
    let read = api.get(&format!("/v1/scenarios/{id}"), token).await.expect(200).json();
    assert_eq!(text(&read, "name"), "t");
    api.post_with_key("/v1/forecasts", token, "f", json!({"scenario_id": id})).await.expect(202);
    let dashboard = api.get("/v1/dashboard", token).await.expect(200).json();
    assert_eq!(dashboard["forecasts"]["queued"], json!(1));
    api.log_in("ada").await;
    api.refresh(text(&session, "refresh_token")).await.expect(200);

    servers.start_redis().await;
    let dashboard = api.get("/v1/dashboard", token).await.expect(200).json();
    assert_eq!(dashboard["forecasts"]["queued"], json!(1));
}

#[tokio::test]
async fn a_logout_without_redis_is_acknowledged_when_no_instance_looks_there_any_more() {
    let bed = BothCut::start().await;
    let session = bed.one.sign_up("ada", "FREE").await;
    let token = text(&session, "access_token");
    bed.cut_keeping(&session).await;
    let started = Instant::now();
    bed.one.send(Method::POST, "/v1/logout", Some(token), &[], None).await.expect(204);
    assert!(started.elapsed() < Duration::from_secs(4), "{:?}", started.elapsed());
    for api in [&bed.two, &bed.one] {
        assert_eq!(api.get("/v1/me", token).await.code(), (401, "unauthenticated".to_owned()));
    }
    // The entry of the ended session would still be good for a while.
    bed.mend_still_keeping(&session).await;
    for _ in 0..20 {
        for api in [&bed.two, &bed.one] {
            assert_eq!(api.get("/v1/me", token).await.code().0, 401);
        }
    }
}

#[tokio::test]
async fn a_logout_is_acknowledged_as_soon_as_redis_is_back() {
    let mut servers = Servers::start().await;
    let api = Instance::start(config(&servers)).await;
    let session = api.sign_up("ada", "FREE").await;
    let token = text(&session, "access_token").to_owned();
    servers.stop_redis();
    let started = Instant::now();
    let (left, ()) = tokio::join!(api.send(Method::POST, "/v1/logout", Some(&token), &[], None), servers.start_redis());
    left.expect(204);
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    assert_eq!(api.get("/v1/me", &token).await.code().0, 401);
}

#[tokio::test]
async fn without_postgres_nobody_is_let_in_and_it_recovers_by_itself() {
    let mut servers = Servers::start().await;
    let api = Instance::start(config(&servers)).await;
    let session = api.sign_up("ada", "PRO").await;
    let token = text(&session, "access_token");
    let scenario_id = text(&api.scenario(token, "s").await, "id").to_owned();
    let cached = format!("/v1/scenarios/{scenario_id}");
    api.get(&cached, token).await.expect(200);
    let uncached = api.log_in("ada").await;

    servers.stop_postgres();
    api.get(&cached, token).await.expect(200);
    api.send(Method::GET, "/livez", None, &[], None).await.expect(200);
    let refused = [
        api.send(Method::GET, "/readyz", None, &[], None).await,
        api.get("/v1/me", text(&uncached, "access_token")).await,
        api.get("/v1/scenarios", token).await,
        api.post_with_key("/v1/forecasts", token, "f", json!({"scenario_id": scenario_id})).await,
        api.refresh(text(&session, "refresh_token")).await,
        api.post("/v1/login", json!({"email": "ada@example.com", "password": "correct horse battery"})).await,
    ];
    for answer in refused {
        assert_eq!(answer.code(), (503, "unavailable".to_owned()));
        assert_eq!(answer.header("retry-after"), "1");
    }
    servers.stop_redis();
    assert_eq!(api.get(&cached, token).await.code().0, 503, "neither can say whether the session stands");

    servers.start_postgres().await;
    api.get(&cached, token).await.expect(200);
    api.post_with_key("/v1/forecasts", token, "f", json!({"scenario_id": scenario_id})).await.expect(202);
}
