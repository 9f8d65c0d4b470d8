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

/// POSTs that need no key, and why.
const WITHOUT_KEY: [(&str, &str); 9] = [
    ("/v1/signup", "nobody is signed in to bind a key to; the e-mail address makes it one effect"),
    ("/v1/login", "opens a session each time, which is what is asked for"),
    ("/v1/token/refresh", "the token itself is the key: within the grace it answers with the same line"),
    ("/v1/logout", "ending what has ended changes nothing"),
    ("/v1/password-reset", "sends a mail, for which nobody pays; limited by address"),
    ("/v1/password-reset/confirm", "its token holds once"),
    ("/v1/email-verification", "sends a mail, for which nobody pays; limited by user"),
    ("/v1/email-verification/confirm", "its token holds once"),
    ("/v1/forecasts/{id}/cancel", "what is cancelled stays so; nothing is created"),
];
/// The same, by how their path begins: pure computations, and events with ids of their own.
const PURE: [&str; 2] = ["/v1/calculators/", "/v1/webhooks/"];

#[test]
fn every_post_that_creates_or_charges_declares_the_key() {
    let document: serde_json::Value = serde_json::from_str(&forecastle_api::openapi()).unwrap();
    let mut keyed = 0;
    for (path, item) in document["paths"].as_object().unwrap() {
        let Some(post) = item.get("post") else { continue };
        let declared = post["parameters"].as_array().is_some_and(|parameters| {
            parameters.iter().any(|parameter| {
                parameter["in"] == "header"
                    && parameter["required"] == true
                    && parameter["name"].as_str().is_some_and(|name| name.eq_ignore_ascii_case("idempotency-key"))
            })
        });
        let exempt =
            WITHOUT_KEY.iter().any(|(known, _)| known == path) || PURE.iter().any(|pure| path.starts_with(pure));
        assert!(declared != exempt, "POST {path}: key declared {declared}, exempt {exempt}");
        if declared {
            keyed += 1;
            for status in ["400", "409", "422"] {
                assert!(post["responses"].get(status).is_some(), "POST {path} can answer {status} for its key");
            }
        }
    }
    assert!(keyed >= 2);
}

#[tokio::test]
async fn a_key_is_its_users_and_its_tenants_own() {
    let servers = Servers::start().await;
    let api = Instance::start(config(&servers)).await;
    let (ada, eve) = (api.sign_up("ada", "PRO").await, api.sign_up("eve", "PRO").await);
    let mut operator = sqlx::PgConnection::connect(&servers.database_url("postgres")).await.unwrap();
    // A colleague of Ada's, with her password.
    sqlx::query(
        "INSERT INTO app.users (tenant_id, user_id, email, name, password_hash, role, created_at)
         SELECT tenant_id, gen_random_uuid(), 'bob@example.com', 'Bob', password_hash, 'owner', now()
         FROM app.users WHERE email = 'ada@example.com'",
    )
    .execute(&mut operator)
    .await
    .unwrap();
    let bob = api.log_in("bob").await;
    let mut made = std::collections::BTreeSet::new();
    for session in [&ada, &eve, &bob] {
        for _ in 0..2 {
            let answer = api.post_with_key("/v1/scenarios", text(session, "access_token"), "k", scenario("same")).await;
            made.insert(text(&answer.expect(201).json(), "id").to_owned());
        }
    }
    assert_eq!(made.len(), 3, "one each");
    let seen = api.get("/v1/scenarios", text(&eve, "access_token")).await.json();
    assert_eq!(seen["items"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_key_has_bounds_and_a_bad_one_has_no_effect() {
    let servers = Servers::start().await;
    let api = Instance::start(config(&servers)).await;
    let session = api.sign_up("ada", "PRO").await;
    let token = text(&session, "access_token");
    for bad in ["", " ", &"k".repeat(256), "tab\tinside"] {
        let refused = api.post_with_key("/v1/scenarios", token, bad, scenario("s")).await;
        assert_eq!(refused.code(), (400, "idempotency_key_required".to_owned()), "{bad:?}");
    }
    let twice = [("idempotency-key", "a"), ("idempotency-key", "a")];
    let body = scenario("s");
    let refused = api.send(reqwest::Method::POST, "/v1/scenarios", Some(token), &twice, Some(&body)).await;
    assert_eq!(refused.code().0, 400);
    assert_eq!(api.get("/v1/scenarios", token).await.json()["items"], json!([]));
    for good in ["k", &"k".repeat(255), "~!@#$%^&*()_+ {}[]\"'"] {
        let first = api.post_with_key("/v1/scenarios", token, good, body.clone()).await.expect(201);
        assert_eq!(api.post_with_key("/v1/scenarios", token, good, body.clone()).await.text, first.text, "{good:?}");
    }
}

#[tokio::test]
async fn an_instance_that_dies_before_its_commit_has_neither_effect_nor_answer() {
    let servers = Servers::start().await;
    let (dying, other) = (Instance::start(config(&servers)).await, Instance::start(config(&servers)).await);
    let session = dying.sign_up("ada", "PRO").await;
    let token = text(&session, "access_token").to_owned();
    let mut operator = sqlx::PgConnection::connect(&servers.database_url("postgres")).await.unwrap();
    // The effect is written and its answer waits for this lock.
    let mut held = operator.begin().await.unwrap();
    sqlx::query("LOCK TABLE app.idempotency_keys IN EXCLUSIVE MODE").execute(&mut *held).await.unwrap();
    let url = dying.url("/v1/scenarios");
    let under_way = tokio::spawn({
        let token = token.clone();
        let request = reqwest::Client::new().post(url).bearer_auth(token).header("idempotency-key", "k");
        request.json(&scenario("s")).send()
    });
    let waiting = "SELECT pid FROM pg_stat_activity WHERE application_name = 'api-test' AND wait_event_type = 'Lock'";
    let given_up = std::time::Instant::now() + Duration::from_secs(10);
    let pid: i32 = loop {
        if let Some(pid) = sqlx::query_scalar(waiting).fetch_optional(&mut *held).await.unwrap() {
            break pid;
        }
        assert!(std::time::Instant::now() < given_up, "nothing waits for the lock");
    };
    // The server's view of a process that is gone.
    sqlx::query("SELECT pg_terminate_backend($1)").bind(pid).execute(&mut *held).await.unwrap();
    held.rollback().await.unwrap();
    let answer = under_way.await.unwrap().unwrap();
    assert!(answer.status().is_server_error(), "{}", answer.status());
    let again = other.post_with_key("/v1/scenarios", &token, "k", scenario("s")).await.expect(201);
    assert_eq!(again.header("idempotency-replayed"), "", "what ended with a 5xx is driven again");
    let list = other.get("/v1/scenarios", &token).await.json();
    assert_eq!(list["items"].as_array().unwrap().len(), 1);
}
