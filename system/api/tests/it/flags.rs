//! Switches: what plan and switch allow together, at once after they are set, and nothing by mistake.

use forecastle_domain::{Flag, TenantId};
use forecastle_store::flags;
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::Connection as _;

use crate::fixtures::{Instance, config, scenario, text};
use crate::servers::Servers;

fn tenant(session: &Value) -> TenantId {
    TenantId::from_uuid(text(session, "tenant_id").parse().unwrap())
}

fn simulated(name: &str) -> Value {
    let mut body = scenario(name);
    body["input"]["uncertainty"] =
        json!({"paths": 100, "price_sigma_monthly": "0.05", "adds_sigma_monthly": "0.05", "seed": "7"});
    body
}

async fn flags_of(api: &Instance, token: &str) -> (bool, bool) {
    let flags = api.get("/v1/flags", token).await.expect(200).json();
    (flags["flags"]["uncertainty"].as_bool().unwrap(), flags["flags"]["overage"].as_bool().unwrap())
}

#[tokio::test]
async fn a_switch_holds_for_its_tenant_at_once_and_everywhere() {
    let servers = Servers::start().await;
    let (one, two) = (Instance::start(config(&servers)).await, Instance::start(config(&servers)).await);
    let (ada, eve) = (one.sign_up("ada", "PRO").await, one.sign_up("eve", "FREE").await);
    let (token, other) = (text(&ada, "access_token"), text(&eve, "access_token"));
    for api in [&one, &two] {
        assert_eq!(flags_of(api, token).await, (true, true));
        assert_eq!(flags_of(api, other).await, (true, false), "no switch grants what the plan does not");
    }
    let made = one.post_with_key("/v1/scenarios", token, "s", simulated("s")).await.expect(201).json();
    let ask = json!({"scenario_id": made["id"]});
    one.post_with_key("/v1/forecasts", token, "f1", ask.clone()).await.expect(202);

    let admin = servers.database_url("postgres");
    flags::set(&admin, tenant(&ada), Flag::Uncertainty, Some(false)).await.unwrap();
    flags::set(&admin, tenant(&eve), Flag::Overage, Some(true)).await.unwrap();
    let refused = two.post_with_key("/v1/forecasts", token, "f2", ask.clone()).await;
    assert_eq!(refused.code(), (403, "switched_off".to_owned()));
    // What is kept is deleted by whoever hears of it first: well before its ten seconds are over.
    let given_up = std::time::Instant::now() + std::time::Duration::from_secs(3);
    for api in [&one, &two] {
        while flags_of(api, token).await != (false, true) {
            assert!(std::time::Instant::now() < given_up, "the switch is not seen");
        }
        assert_eq!(flags_of(api, other).await, (true, false));
    }
    let plain = text(&one.scenario(token, "plain").await, "id").to_owned();
    one.post_with_key("/v1/forecasts", token, "f3", json!({"scenario_id": plain})).await.expect(202);

    flags::set(&admin, tenant(&ada), Flag::Uncertainty, None).await.unwrap();
    let again = two.post_with_key("/v1/forecasts", token, "f2", ask).await.expect(202);
    assert_eq!(again.header("idempotency-replayed"), "", "a refusal by a switch is not kept");
    assert_eq!(flags::list(&admin, tenant(&ada)).await.unwrap(), []);
}

#[tokio::test]
async fn without_overage_the_included_forecasts_are_all_there_are() {
    let servers = Servers::start().await;
    let api = Instance::start(config(&servers)).await;
    let session = api.sign_up("ada", "STARTER").await;
    let token = text(&session, "access_token");
    let ask = json!({"scenario_id": api.scenario(token, "s").await["id"]});
    api.post_with_key("/v1/forecasts", token, "f0", ask.clone()).await.expect(202);
    let admin = servers.database_url("postgres");
    let mut operator = sqlx::PgConnection::connect(&admin).await.unwrap();
    sqlx::query("UPDATE app.quota_periods SET taken = 99").execute(&mut operator).await.unwrap();
    flags::set(&admin, tenant(&session), Flag::Overage, Some(false)).await.unwrap();
    api.post_with_key("/v1/forecasts", token, "f1", ask.clone()).await.expect(202);
    for _ in 0..2 {
        let refused = api.post_with_key("/v1/forecasts", token, "f2", ask.clone()).await;
        assert_eq!(refused.code(), (402, "quota_exceeded".to_owned()));
    }
    assert_eq!(api.get("/v1/usage", token).await.json()["quota_taken"], json!(100));
    flags::set(&admin, tenant(&session), Flag::Overage, Some(true)).await.unwrap();
    api.post_with_key("/v1/forecasts", token, "f2", ask).await.expect(202);
}

#[tokio::test]
async fn a_retry_is_granted_what_a_request_would_be_granted() {
    let servers = Servers::start().await;
    let api = Instance::start(config(&servers)).await;
    let session = api.sign_up("ada", "STARTER").await;
    let token = text(&session, "access_token");
    let mut cancelled = Vec::new();
    for (key, body) in [("simulated", simulated("simulated")), ("plain", scenario("plain"))] {
        let made = api.post_with_key("/v1/scenarios", token, key, body).await.expect(201).json();
        let ask = json!({"scenario_id": made["id"]});
        let asked = api.post_with_key("/v1/forecasts", token, &format!("ask {key}"), ask).await.expect(202).json();
        let path = format!("/v1/forecasts/{}", text(&asked, "id"));
        api.send(Method::POST, &format!("{path}/cancel"), Some(token), &[], None).await.expect(200);
        cancelled.push(format!("{path}/retry"));
    }
    let retry = async |path: &str, key: &str| api.post_with_key(path, token, key, json!({})).await;
    let admin = servers.database_url("postgres");
    flags::set(&admin, tenant(&session), Flag::Uncertainty, Some(false)).await.unwrap();
    assert_eq!(retry(&cancelled[0], "a").await.code(), (403, "switched_off".to_owned()));
    retry(&cancelled[1], "b").await.expect(202);
    flags::set(&admin, tenant(&session), Flag::Uncertainty, None).await.unwrap();
    retry(&cancelled[0], "a").await.expect(202);

    let mut operator = sqlx::PgConnection::connect(&admin).await.unwrap();
    sqlx::query("UPDATE app.quota_periods SET taken = 100").execute(&mut operator).await.unwrap();
    flags::set(&admin, tenant(&session), Flag::Overage, Some(false)).await.unwrap();
    assert_eq!(retry(&cancelled[1], "c").await.code(), (402, "quota_exceeded".to_owned()));
    assert_eq!(api.get("/v1/usage", token).await.json()["quota_taken"], json!(100));
    flags::set(&admin, tenant(&session), Flag::Overage, None).await.unwrap();
    retry(&cancelled[1], "c").await.expect(202);
}

#[tokio::test]
async fn words_that_are_no_flag_grant_nothing_and_nobody_elses_are_touched() {
    let servers = Servers::start().await;
    let api = Instance::start(config(&servers)).await;
    let session = api.sign_up("ada", "FREE").await;
    let token = text(&session, "access_token");
    let admin = servers.database_url("postgres");
    let mut operator = sqlx::PgConnection::connect(&admin).await.unwrap();
    for word in ["everything", "overage_", "a"] {
        sqlx::query("INSERT INTO app.tenant_flags (tenant_id, flag, enabled, set_at) VALUES ($1, $2, true, now())")
            .bind(tenant(&session).as_uuid())
            .bind(word)
            .execute(&mut operator)
            .await
            .unwrap();
    }
    let answer = api.get("/v1/flags", token).await.expect(200).json();
    assert_eq!(answer, json!({"flags": {"overage": false, "uncertainty": true}}));
    assert_eq!(flags::list(&admin, tenant(&session)).await.unwrap().len(), 3);
    let nobody = TenantId::from_uuid(uuid::Uuid::max());
    let refused = flags::set(&admin, nobody, Flag::Overage, Some(true)).await;
    assert_eq!(refused, Err(forecastle_store::StoreError::NotFound));
    // The application itself cannot set one.
    let mut app = sqlx::PgConnection::connect(&servers.database_url("forecastle_app")).await.unwrap();
    let own = format!("SET app.tenant = '{}'", tenant(&session));
    sqlx::raw_sql(sqlx::AssertSqlSafe(own)).execute(&mut app).await.unwrap();
    let set = sqlx::raw_sql("UPDATE app.tenant_flags SET enabled = true").execute(&mut app).await;
    assert!(set.unwrap_err().as_database_error().unwrap().code().unwrap() == "42501");
}

#[tokio::test]
async fn where_switches_cannot_be_read_nothing_is_granted() {
    let mut servers = Servers::start().await;
    let api = Instance::start(config(&servers)).await;
    let session = api.sign_up("ada", "PRO").await;
    let token = text(&session, "access_token");
    api.get("/v1/me", token).await.expect(200);
    servers.stop_postgres();
    assert_eq!(api.get("/v1/flags", token).await.code(), (503, "unavailable".to_owned()));
}
