//! The provider's events: forged, twice, late, out of order, about others, and all at once.

use std::sync::atomic::Ordering;
use std::time::Duration;

use chrono::Utc;
use reqwest::Method;
use serde_json::{Value, json};

use crate::fixtures::Instance;
use crate::paying::{Event, Owner, PayBed, SECRET, charge_event, send_to};

const OTHER_SECRET: &str = "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// An owner whose first invoice is charged, and nobody told us.
async fn charged_in_silence(bed: &mut PayBed) -> (Owner, Value) {
    let owner = bed.owner("ada", "STARTER").await;
    bed.book.answers_to_lose.store(100, Ordering::SeqCst);
    bed.book.look_ups_to_lose.store(100, Ordering::SeqCst);
    let summary = bed.bill(Utc::now() + Duration::from_secs(7200)).await;
    assert_eq!((summary.unknown, bed.book.count()), (1, 1));
    let charge = bed.book.charges().remove(0);
    (owner, charge)
}

#[tokio::test]
async fn a_forged_event_is_refused_before_the_database_is_asked() {
    let mut bed = PayBed::start().await;
    let (_, charge) = charged_in_silence(&mut bed).await;
    let body = charge_event("charge.succeeded", &charge);
    let with = |id: &'static str, secret: &'static str, minutes: i64| Event {
        id,
        at: Utc::now() + chrono::Duration::minutes(minutes),
        secret,
        body: body.clone(),
    };
    bed.servers.stop_postgres();
    for forged in [with("evt_1", OTHER_SECRET, 0), with("evt_1", SECRET, -6), with("evt_1", SECRET, 6)] {
        assert_eq!(bed.send(&forged).await.code(), (401, "webhook_signature_invalid".to_owned()));
    }
    let unsigned = bed.api.send(Method::POST, "/v1/webhooks/payments", None, &[], Some(&body)).await;
    assert_eq!(unsigned.code(), (401, "webhook_signature_invalid".to_owned()));
    assert_eq!(bed.send(&with("evt_1", SECRET, 0)).await.code().0, 503, "a true one is to come again");
    bed.servers.start_postgres().await;
    bed.send(&with("evt_1", SECRET, 0)).await.expect(200);
}

#[tokio::test]
async fn a_storm_of_one_event_has_one_effect() {
    let mut bed = PayBed::start().await;
    let (owner, charge) = charged_in_silence(&mut bed).await;
    let second = Instance::start(bed.config.clone()).await;
    let body = charge_event("charge.succeeded", &charge);
    let ids: Vec<String> = (0..20).map(|n| format!("evt_{}", n % 4)).collect();
    let storm = ids.iter().enumerate().map(|(n, id)| {
        let api = if n % 2 == 0 { &bed.api } else { &second };
        let event = Event::now(id, body.clone());
        async move { send_to(api, &event).await.status.as_u16() }
    });
    let answers = crate::product::join_all(storm).await;
    assert!(answers.iter().all(|status| *status == 200), "{answers:?}");
    assert_eq!(bed.count("SELECT count(*) FROM app.webhook_events").await, 4);
    assert_eq!(bed.count("SELECT count(*) FROM app.webhook_events WHERE outcome = 'applied'").await, 1);
    assert_eq!(bed.count("SELECT count(*) FROM app.invoices WHERE state = 'paid'").await, 1);
    bed.assert_square().await;
    let payments = bed.api.get("/v1/payments", &owner.token).await.expect(200).json();
    assert_eq!((payments["items"].as_array().unwrap().len(), &payments["items"][0]["state"]), (1, &json!("succeeded")));
    assert!(!payments.to_string().contains("tok_good"));
}

#[tokio::test]
async fn an_event_and_the_run_at_once_record_the_money_once() {
    let mut bed = PayBed::start().await;
    let (_, charge) = charged_in_silence(&mut bed).await;
    bed.book.answers_to_lose.store(0, Ordering::SeqCst);
    bed.book.look_ups_to_lose.store(0, Ordering::SeqCst);
    let event = Event::now("evt_1", charge_event("charge.succeeded", &charge));
    let (answer, _) = tokio::join!(bed.send(&event), bed.bill(Utc::now() + Duration::from_secs(7200)));
    answer.expect(200);
    assert_eq!(bed.count("SELECT count(*) FROM app.invoices WHERE state = 'paid'").await, 1);
    bed.assert_square().await;
}

#[tokio::test]
async fn what_came_in_never_goes_back_to_failed() {
    let mut bed = PayBed::start().await;
    let (_, charge) = charged_in_silence(&mut bed).await;
    for (id, kind) in [("evt_2", "charge.succeeded"), ("evt_1", "charge.failed"), ("evt_3", "charge.succeeded")] {
        bed.send(&Event::now(id, charge_event(kind, &charge))).await.expect(200);
    }
    assert_eq!(bed.count("SELECT count(*) FROM app.payments WHERE state = 'succeeded'").await, 1);
    bed.assert_square().await;
}

#[tokio::test]
async fn a_refund_before_its_charge_is_both_and_comes_once() {
    let mut bed = PayBed::start().await;
    let (owner, charge) = charged_in_silence(&mut bed).await;
    let refund = |minor: i64| {
        let mut body = charge_event("charge.refunded", &charge);
        body["data"]["refunded_minor"] = minor.into();
        body
    };
    for (id, minor) in [("evt_2", 700), ("evt_2", 700), ("evt_1", 300), ("evt_3", 700), ("evt_4", 999_999)] {
        bed.send(&Event::now(id, refund(minor))).await.expect(200);
    }
    bed.send(&Event::now("evt_0", charge_event("charge.succeeded", &charge))).await.expect(200);
    let payments = bed.api.get("/v1/payments", &owner.token).await.expect(200).json();
    assert_eq!(
        (&payments["items"][0]["state"], &payments["items"][0]["refunded_minor"]),
        (&json!("succeeded"), &json!(700))
    );
    let back = "SELECT coalesce(sum(credit_minor), 0)::bigint FROM app.ledger_entries WHERE account = 'cash'";
    assert_eq!(bed.count(back).await, 700);
    bed.assert_square().await;
    assert_eq!(bed.count("SELECT count(*) FROM app.webhook_events WHERE outcome = 'mismatch'").await, 1);
}

#[tokio::test]
async fn events_about_others_change_nothing_and_tell_nothing() {
    let mut bed = PayBed::start().await;
    let (owner, charge) = charged_in_silence(&mut bed).await;
    let stranger = bed.owner("eve", "FREE").await;
    let key = charge["idempotency_key"].as_str().unwrap().to_owned();
    let changed = |field: &str, value: Value| {
        let mut body = charge_event("charge.succeeded", &charge);
        body["data"][field] = value;
        body
    };
    let known = bed.send(&Event::now("evt_1", changed("amount_minor", json!(1)))).await.expect(200);
    let strangers_key = key.replace(&owner.tenant, &stranger.tenant);
    let nobodys_key = key.replace(&owner.tenant, "00000000-0000-7000-8000-000000000000");
    for (id, body) in [
        ("evt_2", changed("idempotency_key", strangers_key.into())),
        ("evt_3", changed("idempotency_key", nobodys_key.into())),
        ("evt_4", changed("idempotency_key", "order-1".into())),
        ("evt_5", changed("reference", "00000000-0000-7000-8000-000000000000".into())),
        ("evt_6", changed("currency", "USD".into())),
        ("evt_7", charge_event("payout.created", &charge)),
    ] {
        let answer = bed.send(&Event::now(id, body)).await.expect(200);
        assert_eq!(answer.text, known.text, "{id}");
    }
    assert_eq!(bed.count("SELECT count(*) FROM app.payments WHERE state = 'succeeded'").await, 0);
    assert_eq!(bed.count("SELECT count(*) FROM app.webhook_events").await, 2, "those two are about a charge of ours");
    let payments = bed.api.get("/v1/payments", &stranger.token).await.expect(200).json();
    assert_eq!(payments["items"], json!([]));
    let of_owner = bed.api.get("/v1/payments", &owner.token).await.json();
    let id = of_owner["items"][0]["id"].as_str().unwrap().to_owned();
    let foreign = bed.api.get(&format!("/v1/payments/{id}"), &stranger.token).await.expect(404);
    let absent = bed.api.get("/v1/payments/00000000-0000-7000-8000-000000000000", &stranger.token).await.expect(404);
    assert_eq!(foreign.text, absent.text);
}

#[tokio::test]
async fn a_large_body_and_a_body_that_is_no_event_are_refused() {
    let bed = PayBed::start().await;
    let large = json!({ "type": "charge.succeeded", "data": "x".repeat(70_000) });
    assert_eq!(bed.send(&Event::now("evt_1", large)).await.status.as_u16(), 413);
    let answer = bed.send(&Event::now("evt_1", json!({ "type": "charge.succeeded", "data": 7 }))).await;
    assert_eq!(answer.code(), (400, "event_malformed".to_owned()));
}

#[tokio::test]
async fn an_instance_without_a_provider_says_so() {
    let bed = PayBed::start().await;
    let mut config = bed.config.clone();
    (config.provider, config.webhook_secrets) = (None, None);
    let bare = Instance::start(config).await;
    let answer = send_to(&bare, &Event::now("evt_1", json!({ "type": "x" }))).await;
    assert_eq!(answer.code(), (503, "payments_unavailable".to_owned()));
    assert_eq!(answer.header("retry-after"), "60");
    let metrics = bare.send(Method::GET, "/metrics", None, &[], None).await.text;
    let counted = r#"route="/v1/webhooks/payments",method="POST",status="503",outcome="refused""#;
    assert!(metrics.contains(counted), "told apart from what fails: {metrics}");
}
