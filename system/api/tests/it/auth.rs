//! Who gets in, and who does not any more.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use forecastle_api::KeySet;
use forecastle_api::tokens::Subject;
use reqwest::Method;
use serde_json::{Value, json};

use crate::fixtures::{Instance, Protected, config, keys, protected_operations, text};
use crate::product::join_all;
use crate::servers::Servers;

fn now_s() -> u64 {
    std::time::UNIX_EPOCH.elapsed().unwrap().as_secs()
}

fn subject_of(session: &Value) -> Subject {
    Subject {
        tenant: text(session, "tenant_id").parse().unwrap(),
        user: text(session, "user_id").parse().unwrap(),
        session: text(session, "session_id").parse().unwrap(),
    }
}

#[tokio::test]
async fn no_bad_token_gets_past_any_protected_route_and_the_honest_one_does() {
    let servers = Servers::start().await;
    let api = Instance::start(config(&servers)).await;
    let session = api.sign_up("ada", "FREE").await;
    let other = api.sign_up("eve", "FREE").await;
    let honest = text(&session, "access_token").to_owned();

    let subject = subject_of(&session);
    let ttl = Duration::from_secs(300);
    let forger = KeySet::parse(&format!("test:{}", URL_SAFE_NO_PAD.encode([8; 32]))).unwrap();
    let unsigned = {
        let claims = honest.split('.').nth(1).unwrap();
        format!("{}.{claims}.", URL_SAFE_NO_PAD.encode(r#"{"alg":"none","kid":"test","typ":"at+jwt"}"#))
    };
    let mut tampered = honest.clone();
    tampered.replace_range(tampered.len() - 2.., if tampered.ends_with("AA") { "BA" } else { "AA" });
    let other_subject = subject_of(&other);
    let bad = [
        ("none", None),
        ("empty", Some(String::new())),
        ("unsigned", Some(unsigned)),
        ("tampered", Some(tampered)),
        ("forged", Some(forger.issue(subject, now_s(), ttl))),
        ("expired", Some(keys().issue(subject, now_s() - 1000, ttl))),
        ("not yet valid", Some(keys().issue(subject, now_s() + 1000, ttl))),
        ("refresh token", Some(text(&session, "refresh_token").to_owned())),
        ("foreign session", Some(keys().issue(Subject { session: other_subject.session, ..subject }, now_s(), ttl))),
        ("foreign tenant", Some(keys().issue(Subject { tenant: other_subject.tenant, ..subject }, now_s(), ttl))),
        ("foreign user", Some(keys().issue(Subject { user: other_subject.user, ..subject }, now_s(), ttl))),
    ];

    for Protected { method, path, .. } in protected_operations() {
        for (what, token) in &bad {
            let refused = api.send(method.clone(), &path, token.as_deref(), &[], Some(&json!({}))).await;
            assert_eq!(refused.code(), (401, "unauthenticated".to_owned()), "{what}: {method} {path}");
            assert_eq!(refused.header("cache-control"), "private, no-store");
        }
        if path != "/v1/logout" {
            let (status, _) = api.status(method.clone(), &path, &honest).await;
            assert_ne!(status, 401, "{method} {path}");
            assert!(status < 500, "{method} {path}: {status}");
        }
    }
}

#[tokio::test]
async fn refresh_rotates_and_answers_a_retry_with_the_same_successor() {
    let servers = Servers::start().await;
    let api = Instance::start(config(&servers)).await;
    let session = api.sign_up("ada", "FREE").await;
    let first = text(&session, "refresh_token").to_owned();

    let together = join_all((0..8).map(|_| api.refresh(&first))).await;
    let successors: Vec<_> =
        together.into_iter().map(|a| text(&a.expect(200).json(), "refresh_token").to_owned()).collect();
    assert!(successors.iter().all(|token| *token == successors[0] && *token != first));

    let second = api.refresh(&successors[0]).await.expect(200).json();
    let late = api.refresh(&first).await.expect(200).json();
    assert_eq!(late["refresh_token"], second["refresh_token"], "the line leads to its live end");
    assert_eq!(late["session_id"], session["session_id"]);
    api.get("/v1/me", text(&late, "access_token")).await.expect(200);

    for rubbish in ["", "x", &URL_SAFE_NO_PAD.encode([1; 32]), &"A".repeat(5000)] {
        assert_eq!(api.refresh(rubbish).await.code(), (401, "invalid_refresh_token".to_owned()));
    }
}

#[tokio::test]
async fn a_line_longer_than_anybody_needs_is_refused_and_lives_on() {
    let servers = Servers::start().await;
    let mut patient = config(&servers);
    patient.refresh_grace = Duration::from_secs(300);
    let api = Instance::start(patient).await;
    let session = api.sign_up("ada", "FREE").await;
    let first = text(&session, "refresh_token").to_owned();
    let mut newest = first.clone();
    for _ in 0..70 {
        newest = text(&api.refresh(&newest).await.expect(200).json(), "refresh_token").to_owned();
    }
    assert_eq!(api.refresh(&first).await.code(), (401, "invalid_refresh_token".to_owned()));
    api.refresh(&newest).await.expect(200);
}

#[tokio::test]
async fn reuse_after_the_grace_ends_the_family_on_every_instance() {
    let servers = Servers::start().await;
    let api = Instance::start(config(&servers)).await;
    let mut impatient = config(&servers);
    impatient.refresh_grace = Duration::ZERO;
    let impatient = Instance::start(impatient).await;
    let session = api.sign_up("ada", "FREE").await;
    let bystander = api.log_in("ada").await;
    let old = text(&session, "refresh_token").to_owned();
    let renewed = api.refresh(&old).await.expect(200).json();
    let access = text(&renewed, "access_token");
    api.get("/v1/me", access).await.expect(200);

    assert_eq!(impatient.refresh(&old).await.code(), (401, "invalid_refresh_token".to_owned()));
    for instance in [&api, &impatient] {
        assert_eq!(instance.get("/v1/me", access).await.code().0, 401);
        assert_eq!(instance.refresh(text(&renewed, "refresh_token")).await.code().0, 401, "the newest died with it");
    }
    api.get("/v1/me", text(&bystander, "access_token")).await.expect(200);
    api.refresh(text(&bystander, "refresh_token")).await.expect(200);
}

#[tokio::test]
async fn a_session_that_logged_out_is_refused_by_the_instance_that_had_it_cached() {
    let servers = Servers::start().await;
    let (one, two) = (Instance::start(config(&servers)).await, Instance::start(config(&servers)).await);
    let session = one.sign_up("ada", "FREE").await;
    let token = text(&session, "access_token");
    two.get("/v1/me", token).await.expect(200);
    assert!(servers.redis_keys().await.iter().any(|key| key.contains(":session:")), "the session is cached");

    let left = one.send(Method::POST, "/v1/logout", Some(token), &[], None).await.expect(204);
    assert_eq!((left.text.as_str(), left.header("cache-control")), ("", "private, no-store"));
    for instance in [&one, &two] {
        assert_eq!(instance.get("/v1/me", token).await.code(), (401, "unauthenticated".to_owned()));
        assert_eq!(instance.refresh(text(&session, "refresh_token")).await.code().0, 401);
    }
    let again = one.send(Method::POST, "/v1/logout", Some(token), &[], None).await;
    assert_eq!(again.code().0, 401);
    one.log_in("ada").await;
}

#[tokio::test]
async fn wrong_credentials_get_one_answer() {
    let servers = Servers::start().await;
    let api = Instance::start(config(&servers)).await;
    api.sign_up("ada", "FREE").await;
    let mut answers = Vec::new();
    for (email, password) in [
        ("ada@example.com", "wrong horse battery"),
        ("bob@example.com", "correct horse battery"),
        ("not an address", "correct horse battery"),
        ("ada@example.com", "short"),
        ("ada@example.com", ""),
    ] {
        let answer = api.post("/v1/login", json!({"email": email, "password": password})).await.expect(401);
        answers.push(answer.text);
    }
    assert!(answers[0].contains("invalid_credentials"));
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
}

#[tokio::test]
async fn signing_keys_rotate_without_a_restart_and_nobody_is_logged_out() {
    let servers = Servers::start().await;
    let (first, second) = (config(&servers), config(&servers));
    let rings = [first.keys.clone(), second.keys.clone()];
    let (one, two) = (Instance::start(first).await, Instance::start(second).await);
    let (old, new) =
        (format!("test:{}", URL_SAFE_NO_PAD.encode([7; 32])), format!("next:{}", URL_SAFE_NO_PAD.encode([9; 32])));
    let give = |ring: &forecastle_api::KeyRing, keys: &str| ring.replace(KeySet::parse(keys).unwrap());
    let session = one.sign_up("ada", "FREE").await;
    let before = text(&session, "access_token");
    // The new key is known everywhere before it signs anywhere.
    rings.iter().for_each(|ring| give(ring, &format!("{old},{new}")));
    let jwks = two.send(Method::GET, "/.well-known/jwks.json", None, &[], None).await.json();
    assert_eq!((text(&jwks["keys"][0], "kid"), text(&jwks["keys"][1], "kid")), ("test", "next"));
    give(&rings[0], &format!("{new},{old}"));
    // Two honest refreshes of one token, on instances that sign with different keys: one line.
    let refresh = text(&session, "refresh_token");
    let a = one.refresh(refresh).await.expect(200).json();
    let b = two.refresh(refresh).await.expect(200).json();
    assert_eq!(a["refresh_token"], b["refresh_token"]);
    give(&rings[1], &format!("{new},{old}"));
    let after = text(&a, "access_token");
    assert!(URL_SAFE_NO_PAD.decode(after.split('.').next().unwrap()).unwrap().windows(4).any(|kid| kid == b"next"));
    for api in [&one, &two] {
        for token in [before, after, text(&b, "access_token")] {
            api.get("/v1/me", token).await.expect(200);
        }
    }
    rings.iter().for_each(|ring| give(ring, &new));
    for api in [&one, &two] {
        assert_eq!(api.get("/v1/me", before).await.code(), (401, "unauthenticated".to_owned()));
        api.get("/v1/me", after).await.expect(200);
    }
    let renewed = two.refresh(text(&a, "refresh_token")).await.expect(200).json();
    one.get("/v1/me", text(&renewed, "access_token")).await.expect(200);
}
