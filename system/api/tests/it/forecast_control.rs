//! Cancel and retry, as a client sees them.

use reqwest::Method;
use serde_json::{Value, json};

use crate::fixtures::{Answer, Instance, config, text};
use crate::product::join_all;
use crate::servers::Servers;

async fn cancel(api: &Instance, token: &str, id: &str) -> Answer {
    api.send(Method::POST, &format!("/v1/forecasts/{id}/cancel"), Some(token), &[], None).await
}

async fn retry(api: &Instance, token: &str, id: &str, key: &str) -> Answer {
    let path = format!("/v1/forecasts/{id}/retry");
    api.send(Method::POST, &path, Some(token), &[("idempotency-key", key)], None).await
}

async fn ask(api: &Instance, token: &str, scenario: &Value, key: &str) -> Answer {
    api.post_with_key("/v1/forecasts", token, key, json!({"scenario_id": scenario["id"]})).await
}

#[tokio::test]
async fn a_cancelled_forecast_gives_its_quota_back_once_and_stays_cancelled() {
    let servers = Servers::start().await;
    let api = Instance::start(config(&servers)).await;
    let session = api.sign_up("ada", "FREE").await;
    let token = text(&session, "access_token");
    let stranger = api.sign_up("eve", "FREE").await;
    let scenario = api.scenario(token, "s").await;
    let id = text(&ask(&api, token, &scenario, "f").await.expect(202).json(), "id").to_owned();
    assert_eq!(api.get("/v1/dashboard", token).await.expect(200).json()["usage"]["quota_taken"], json!(1));

    let foreign = cancel(&api, text(&stranger, "access_token"), &id).await.expect(404);
    let absent = cancel(&api, text(&stranger, "access_token"), "00000000-0000-4000-8000-000000000000").await;
    assert_eq!((foreign.status, foreign.text), (absent.status, absent.text));

    let done = join_all((0..6).map(|_| cancel(&api, token, &id))).await;
    let won: Vec<&Answer> = done.iter().filter(|answer| answer.status == 200).collect();
    assert_eq!(won.len(), 1, "{done:?}");
    assert_eq!((text(&won[0].json(), "state"), &won[0].json()["error_code"]), ("cancelled", &Value::Null));
    let lost = done.iter().filter(|answer| answer.status != 200);
    assert!(lost.map(Answer::code).all(|code| code == (409, "forecast_ended".to_owned())), "{done:?}");

    let read = api.get(&format!("/v1/forecasts/{id}"), token).await.expect(200).json();
    assert_eq!(text(&read, "state"), "cancelled");
    let dashboard = api.get("/v1/dashboard", token).await.expect(200).json();
    assert_eq!((&dashboard["usage"]["quota_taken"], &dashboard["forecasts"]["cancelled"]), (&json!(0), &json!(1)));
}

#[tokio::test]
async fn a_retry_is_a_new_forecast_under_one_key_and_counts_against_the_cap() {
    let servers = Servers::start().await;
    let api = Instance::start(config(&servers)).await;
    let session = api.sign_up("ada", "FREE").await;
    let token = text(&session, "access_token");
    let stranger = api.sign_up("eve", "FREE").await;
    let scenario = api.scenario(token, "s").await;
    let first = ask(&api, token, &scenario, "f").await.expect(202).json();
    let id = text(&first, "id");
    assert_eq!(retry(&api, token, id, "r").await.code(), (409, "forecast_not_retryable".to_owned()));
    cancel(&api, token, id).await.expect(200);
    let path = format!("/v1/forecasts/{id}/retry");
    let keyless = api.send(Method::POST, &path, Some(token), &[], None).await;
    assert_eq!(keyless.code(), (400, "idempotency_key_required".to_owned()));
    assert_eq!(retry(&api, text(&stranger, "access_token"), id, "r").await.code().0, 404);

    // The refusal above was not kept: the same key may be used again.
    let made = retry(&api, token, id, "r").await.expect(202);
    let new = text(&made.json(), "id").to_owned();
    assert_ne!(new, id);
    assert_eq!(made.header("location"), format!("/v1/forecasts/{new}"));
    assert_eq!((&made.json()["input"], &made.json()["state"]), (&first["input"], &json!("queued")));
    let replayed = retry(&api, token, id, "r").await.expect(202);
    assert_eq!((replayed.header("idempotency-replayed"), &replayed.text), ("true", &made.text));
    assert_eq!(api.get("/v1/usage", token).await.json()["quota_taken"], json!(1));

    let answers = join_all((0..8).map(|n| {
        let (api, key) = (&api, format!("again-{n}"));
        async move { retry(api, token, id, &key).await.status.as_u16() }
    }))
    .await;
    assert_eq!(answers.iter().filter(|status| **status == 202).count(), 4, "{answers:?}");
    assert_eq!(answers.iter().filter(|status| **status == 402).count(), 4, "{answers:?}");
    let unchanged = api.get(&format!("/v1/forecasts/{id}"), token).await.expect(200).json();
    assert_eq!(text(&unchanged, "state"), "cancelled");
}
