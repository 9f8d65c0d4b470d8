//! Another customer's things do not exist.

use reqwest::Method;
use serde_json::json;

use crate::fixtures::{Answer, Instance, config, scenario, text};
use crate::servers::Servers;

/// Everything but what differs between any two answers.
fn comparable(answer: &Answer) -> (u16, Vec<(String, String)>, String) {
    let ignored = ["date", "x-request-id", "ratelimit"];
    let headers = answer.headers.iter().filter(|(name, _)| !ignored.contains(&name.as_str()));
    let headers = headers.map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned())).collect();
    (answer.status.as_u16(), headers, answer.text.clone())
}

#[tokio::test]
async fn a_foreign_id_is_answered_like_one_that_nobody_has() {
    let servers = Servers::start().await;
    let api = Instance::start(config(&servers)).await;
    let owner = api.sign_up("ada", "PRO").await;
    let owner = text(&owner, "access_token");
    let stranger = api.sign_up("eve", "PRO").await;
    let stranger = text(&stranger, "access_token");
    let scenario_id = text(&api.scenario(owner, "s").await, "id").to_owned();
    let asked = api.post_with_key("/v1/forecasts", owner, "f", json!({"scenario_id": scenario_id})).await.expect(202);
    let forecast_id = text(&asked.json(), "id").to_owned();

    let absent = "00000000-0000-4000-8000-000000000000";
    for (kind, id) in [("scenarios", &scenario_id), ("forecasts", &forecast_id)] {
        api.get(&format!("/v1/{kind}/{id}"), owner).await.expect(200);
        let foreign = api.get(&format!("/v1/{kind}/{id}"), stranger).await.expect(404);
        for id in [absent, "not-a-uuid"] {
            let nobodys = api.get(&format!("/v1/{kind}/{id}"), stranger).await;
            assert_eq!(comparable(&foreign), comparable(&nobodys));
        }
    }
    let edit = async |id: &str| {
        let headers = [("if-match", "\"1\"")];
        api.send(Method::PUT, &format!("/v1/scenarios/{id}"), Some(stranger), &headers, Some(&scenario("x"))).await
    };
    let foreign = edit(&scenario_id).await.expect(404);
    assert_eq!(comparable(&foreign), comparable(&edit(absent).await));
    let ask =
        async |key: &str, id: &str| api.post_with_key("/v1/forecasts", stranger, key, json!({"scenario_id": id})).await;
    let foreign = ask("a", &scenario_id).await.expect(404);
    assert_eq!(comparable(&foreign), comparable(&ask("b", absent).await));

    for list in ["scenarios", "forecasts", "invoices"] {
        let page = api.get(&format!("/v1/{list}"), stranger).await.expect(200).json();
        assert_eq!(page, json!({"items": [], "next_cursor": null}), "{list}");
    }
    assert_eq!(api.get("/v1/dashboard", stranger).await.json()["scenarios"], json!(0));
    assert_eq!(api.get("/v1/dashboard", owner).await.json()["scenarios"], json!(1));
    let unchanged = api.get(&format!("/v1/scenarios/{scenario_id}"), owner).await.expect(200).json();
    assert_eq!((text(&unchanged, "name"), &unchanged["version"]), ("s", &json!(1)));
}

#[tokio::test]
async fn one_key_of_two_customers_is_two_keys() {
    let servers = Servers::start().await;
    let api = Instance::start(config(&servers)).await;
    let ada = api.sign_up("ada", "PRO").await;
    let eve = api.sign_up("eve", "PRO").await;
    let first = api.scenario(text(&ada, "access_token"), "same").await;
    let second =
        api.post_with_key("/v1/scenarios", text(&eve, "access_token"), "same", scenario("same")).await.expect(201);
    assert_ne!(first["id"], second.json()["id"]);
    assert_eq!(second.header("idempotency-replayed"), "");
    let keys = servers.redis_keys().await;
    let tenants = [text(&ada, "tenant_id"), text(&eve, "tenant_id")].map(|id| format!("t:{id}:"));
    assert!(keys.iter().all(|key| key.starts_with("rl:a:") || tenants.iter().any(|t| key.starts_with(t))), "{keys:?}");
}
