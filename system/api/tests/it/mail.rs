//! Addresses verified and passwords reset by a token that only the mail's reader has.

use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use forecastle_api::{ApiConfig, MailConfig};
use forecastle_store::mail_outbox::{self, MailTerms};
use forecastle_store::mail_tokens::MailTokenKey;
use forecastle_store::{Db, DbOptions};
use reqwest::Method;
use serde_json::json;
use std::time::Duration;

use crate::fixtures::{Instance, PASSWORD, config, text};
use crate::servers::Servers;

const NEW_PASSWORD: &str = "another horse battery";

fn key() -> MailTokenKey {
    MailTokenKey::new([3; 32])
}

fn with_mail(servers: &Servers) -> ApiConfig {
    let mut config = config(servers);
    let mut mail = MailConfig::new(key());
    mail.interval = Duration::from_secs(1_000_000_000);
    mail.reset_answer_floor = Duration::from_millis(100);
    config.mail = Some(mail);
    config
}

/// The tokens of every mail in the outbox, by template, as their readers would have them.
async fn mailed(servers: &Servers) -> Vec<(String, String)> {
    let db = Db::open(DbOptions::new(servers.database_url("forecastle_app"), "mail-reader")).unwrap();
    let terms = MailTerms { lease: Duration::from_secs(60) };
    let mails = mail_outbox::claim(&db, 100, terms).await.unwrap();
    let read = mails.into_iter().map(|mail| {
        let (token_id, _) = mail.token.expect("a token");
        (mail.mail.expect("a known template").template().to_owned(), URL_SAFE_NO_PAD.encode(key().token(token_id).0))
    });
    read.collect()
}

#[tokio::test]
async fn a_sign_up_is_verified_by_the_token_that_was_mailed_once() {
    let servers = Servers::start().await;
    let api = Instance::start(with_mail(&servers)).await;
    let session = api.sign_up("ada", "FREE").await;
    let token = text(&session, "access_token");
    assert_eq!(api.get("/v1/me", token).await.json()["email_verified"], json!(false));
    api.send(Method::POST, "/v1/email-verification", Some(token), &[], None).await.expect(202);
    let mails = mailed(&servers).await;
    assert_eq!(mails.len(), 1, "the sign-up's own is enough for this interval");
    assert_eq!(mails[0].0, "email_verification");

    let wrong = json!({"token": URL_SAFE_NO_PAD.encode([1; 32]), "password": NEW_PASSWORD});
    assert_eq!(api.post("/v1/password-reset/confirm", wrong).await.code(), (401, "invalid_token".to_owned()));
    let other_purpose = json!({"token": mails[0].1, "password": NEW_PASSWORD});
    assert_eq!(api.post("/v1/password-reset/confirm", other_purpose).await.code().0, 401);
    let body = json!({"token": mails[0].1});
    api.post("/v1/email-verification/confirm", body.clone()).await.expect(204);
    assert_eq!(api.get("/v1/me", token).await.json()["email_verified"], json!(true));
    assert_eq!(api.post("/v1/email-verification/confirm", body).await.code(), (401, "invalid_token".to_owned()));
    assert_eq!(api.post("/v1/email-verification/confirm", json!({})).await.code().0, 422);
    assert_eq!(acts(&api, token).await, ["email.verified", "account.signed_up"]);
}

/// What the audit log remembers, the newest first.
async fn acts(api: &Instance, token: &str) -> Vec<String> {
    let log = api.get("/v1/audit-log", token).await.expect(200).json();
    log["items"].as_array().expect("events").iter().map(|event| text(event, "action").to_owned()).collect()
}

#[tokio::test]
async fn a_reset_changes_the_password_once_and_ends_every_session_everywhere() {
    let servers = Servers::start().await;
    let (one, two) = (Instance::start(with_mail(&servers)).await, Instance::start(with_mail(&servers)).await);
    let first = one.sign_up("ada", "FREE").await;
    let second = one.log_in("ada").await;
    let stranger = one.sign_up("eve", "FREE").await;
    for session in [&first, &second, &stranger] {
        two.get("/v1/me", text(session, "access_token")).await.expect(200);
    }
    for _ in 0..2 {
        one.post("/v1/password-reset", json!({"email": "Ada@Example.com"})).await.expect(202);
    }
    let mails = mailed(&servers).await;
    let resets: Vec<_> = mails.iter().filter(|(template, _)| template == "password_reset").collect();
    assert_eq!(resets.len(), 1, "one mail an interval");

    let short = json!({"token": resets[0].1, "password": "short"});
    assert_eq!(one.post("/v1/password-reset/confirm", short).await.code().0, 422);
    let body = json!({"token": resets[0].1, "password": NEW_PASSWORD});
    let (a, b) = tokio::join!(
        one.post("/v1/password-reset/confirm", body.clone()),
        two.post("/v1/password-reset/confirm", body.clone())
    );
    let mut answers = [a.status.as_u16(), b.status.as_u16()];
    answers.sort_unstable();
    assert_eq!(answers, [204, 401], "one of two at the same moment");
    for session in [&first, &second] {
        for api in [&one, &two] {
            assert_eq!(api.get("/v1/me", text(session, "access_token")).await.code().0, 401);
        }
        assert_eq!(one.refresh(text(session, "refresh_token")).await.code().0, 401);
    }
    two.get("/v1/me", text(&stranger, "access_token")).await.expect(200);
    let credentials = |password: &str| json!({"email": "ada@example.com", "password": password});
    assert_eq!(one.post("/v1/login", credentials(PASSWORD)).await.code().0, 401);
    let again = one.post("/v1/login", credentials(NEW_PASSWORD)).await.expect(200).json();
    let acts = acts(&one, text(&again, "access_token")).await;
    assert_eq!(acts.iter().filter(|act| *act == "password.reset").count(), 1, "{acts:?}");
    assert_eq!(one.post("/v1/password-reset/confirm", body).await.code().0, 401, "used");
}

#[tokio::test]
async fn asking_for_a_reset_does_not_tell_whether_the_address_has_an_account() {
    let servers = Servers::start().await;
    let api = Instance::start(with_mail(&servers)).await;
    api.sign_up("ada", "FREE").await;
    let mut answers = Vec::new();
    for email in ["ada@example.com", "nobody@example.com", "no address at all"] {
        let started = Instant::now();
        let answer = api.post("/v1/password-reset", json!({"email": email})).await.expect(202);
        assert!(started.elapsed() >= Duration::from_millis(100), "{email}: {:?}", started.elapsed());
        let mut headers: Vec<_> = answer.headers.keys().map(ToString::to_string).collect();
        headers.sort();
        answers.push((answer.text, headers));
    }
    assert_eq!(answers[0], answers[1]);
    assert_eq!(answers[0], answers[2]);
    assert_eq!(mailed(&servers).await.len(), 2, "verification and reset of the one account");
}
