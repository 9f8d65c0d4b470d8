//! The payment method: set by owners, never shown, never a card.

use reqwest::Method;
use serde_json::json;

use crate::paying::PayBed;

#[tokio::test]
async fn a_token_is_stored_and_only_its_end_is_shown() {
    let mut bed = PayBed::start().await;
    let owner = bed.owner("ada", "FREE").await;
    let put = async |body: serde_json::Value| {
        bed.api.send(Method::PUT, "/v1/payment-method", Some(&owner.token), &[], Some(&body)).await
    };
    let set = put(json!({ "payment_token": "tok_visa_4f9c" })).await.expect(200).json();
    assert_eq!(set["hint"], "4f9c");
    let shown = bed.api.get("/v1/payment-method", &owner.token).await.expect(200);
    assert_eq!(shown.json(), set);
    assert!(!shown.text.contains("tok_visa"));
    for (wrong, code) in [("4242 4242 4242 4242", "card_number"), ("a b", "malformed"), ("", "malformed")] {
        let refused = put(json!({ "payment_token": wrong })).await.expect(422);
        assert_eq!(refused.json()["errors"][0]["code"], code);
        assert!(wrong.is_empty() || !refused.text.contains(wrong));
    }
    assert_eq!(bed.count("SELECT count(*) FROM app.payment_methods").await, 1);
    assert_eq!(bed.count("SELECT count(*) FROM app.tenants WHERE payment_token = 'tok_visa_4f9c'").await, 1);
}

#[tokio::test]
async fn only_owners_see_and_set_it() {
    let mut bed = PayBed::start().await;
    let owner = bed.owner("ada", "STARTER").await;
    assert_eq!(bed.api.get("/v1/payment-method", &owner.token).await.expect(200).json()["hint"], "good");
    sqlx::query("UPDATE app.users SET role = 'editor'").execute(&mut bed.admin).await.unwrap();
    let editor = bed.api.log_in("ada").await;
    let token = editor["access_token"].as_str().unwrap();
    let body = json!({ "payment_token": "tok_other" });
    let put = bed.api.send(Method::PUT, "/v1/payment-method", Some(token), &[], Some(&body)).await;
    assert_eq!(put.code(), (403, "role_forbidden".to_owned()));
    assert_eq!(bed.api.get("/v1/payment-method", token).await.code().0, 403);
}
