//! Members come, change and go; whoever manages them, however many at once.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};
use sqlx::Connection as _;

use crate::cut_links::BothCut;
use crate::fixtures::{Answer, Instance, NOBODYS_ID, PASSWORD, config, scenario, sign_up, text};
use crate::product::join_all;
use crate::servers::Servers;

fn member(name: &str, role: &str) -> Value {
    json!({"email": format!("{name}@example.com"), "name": name, "role": role, "password": PASSWORD})
}

/// Adds a member under a key made of its name and role.
pub(crate) async fn add(api: &Instance, owner: &str, name: &str, role: &str) -> String {
    let added = api.post_with_key("/v1/users", owner, &format!("{name} {role}"), member(name, role)).await.expect(201);
    assert_eq!(added.header("location"), format!("/v1/users/{}", text(&added.json(), "id")));
    text(&added.json(), "id").to_owned()
}

async fn patch(api: &Instance, token: &str, id: &str, body: Value) -> Answer {
    api.send(Method::PATCH, &format!("/v1/users/{id}"), Some(token), &[], Some(&body)).await
}

async fn delete(api: &Instance, token: &str, id: &str) -> Answer {
    api.send(Method::DELETE, &format!("/v1/users/{id}"), Some(token), &[], None).await
}

fn access(session: &Value) -> &str {
    text(session, "access_token")
}

#[tokio::test]
async fn a_member_is_added_once_signs_in_and_may_what_its_role_may() {
    let servers = Servers::start().await;
    let api = Instance::start(config(&servers)).await;
    let owner = api.sign_up("ada", "PRO").await;
    let owner = access(&owner);
    let first = api.post_with_key("/v1/users", owner, "k", member("bob", "editor")).await.expect(201);
    let again = api.post_with_key("/v1/users", owner, "k", member("bob", "editor")).await.expect(201);
    assert_eq!((again.header("idempotency-replayed"), &again.text), ("true", &first.text));
    let other = api.post_with_key("/v1/users", owner, "k", member("bob", "viewer")).await;
    assert_eq!(other.code(), (422, "idempotency_key_reused".to_owned()));
    let taken = api.post_with_key("/v1/users", owner, "k2", member("BOB", "editor")).await;
    assert_eq!(taken.code(), (409, "email_taken".to_owned()));
    let elsewhere = api.sign_up("eve", "PRO").await;
    let taken = api.post_with_key("/v1/users", access(&elsewhere), "k", member("bob", "owner")).await;
    assert_eq!(taken.code(), (409, "email_taken".to_owned()), "an address has one account, in whichever tenant");
    assert!(!first.text.contains("password") && !first.text.contains("argon2"));
    let wrong = api.post_with_key("/v1/users", owner, "k3", json!({"role": "admin", "password": "short"})).await;
    let pointers = wrong.expect(422).json()["errors"].to_string();
    assert!(["/name", "/email", "/role", "/password"].iter().all(|p| pointers.contains(p)), "{pointers}");

    let bob = api.log_in("bob").await;
    let me = api.get("/v1/me", access(&bob)).await.expect(200).json();
    assert_eq!((text(&me, "role"), text(&me, "organization")), ("editor", "ada Ltd"));
    let id = text(&me, "user_id");
    api.scenario(access(&bob), "bobs").await;
    let seen = api.get(&format!("/v1/users/{id}"), access(&bob)).await.expect(200).json();
    assert_eq!(seen, first.json());
    for path in [format!("/v1/users/{id}"), format!("/v1/users/{NOBODYS_ID}")] {
        assert_eq!(api.get(&path, access(&elsewhere)).await.code(), (404, "not_found".to_owned()));
    }
    add(&api, owner, "cid", "viewer").await;
    let (mut names, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = api.get(&format!("/v1/users?limit=1{cursor}"), owner).await.expect(200).json();
        names.extend(page["items"].as_array().unwrap().iter().map(|user| text(user, "name").to_owned()));
        let Some(next) = page["next_cursor"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    assert_eq!(names, ["cid", "bob", "ada"]);
}

#[tokio::test]
async fn the_plans_room_for_users_holds_when_everybody_asks_at_once() {
    let servers = Servers::start().await;
    let (one, two) = (Instance::start(config(&servers)).await, Instance::start(config(&servers)).await);
    let owner = one.sign_up("ada", "STARTER").await;
    let instances = [&one, &two];
    let answers = join_all((0..10).map(|n| {
        let (instance, owner) = (instances[n % 2], access(&owner));
        async move {
            let name = format!("m{n}");
            instance.post_with_key("/v1/users", owner, &name, member(&name, "viewer")).await.code()
        }
    }))
    .await;
    let refused = answers.iter().filter(|code| **code == (402, "user_limit".to_owned())).count();
    assert_eq!((answers.iter().filter(|(status, _)| *status == 201).count(), refused), (4, 6), "{answers:?}");
    let free = one.sign_up("eve", "FREE").await;
    let refused = one.post_with_key("/v1/users", access(&free), "k", member("x", "viewer")).await;
    assert!(text(&refused.expect(402).json(), "detail").contains("STARTER"));
}

#[tokio::test]
async fn a_new_role_holds_on_every_instance_once_it_is_acknowledged() {
    let servers = Servers::start().await;
    let (one, two) = (Instance::start(config(&servers)).await, Instance::start(config(&servers)).await);
    let owner = one.sign_up("ada", "PRO").await;
    let bob = add(&one, access(&owner), "bob", "editor").await;
    let (first, second) = (one.log_in("bob").await, two.log_in("bob").await);
    let write = async |api: &Instance, session: &Value, key: &str| {
        api.post_with_key("/v1/scenarios", access(session), key, scenario(key)).await.code()
    };
    for round in 0..4 {
        for (api, session, key) in [(&one, &first, "a"), (&two, &second, "b")] {
            assert_eq!(write(api, session, &format!("{key}{round}")).await.0, 201);
        }
        let changed = patch(&one, access(&owner), &bob, json!({"role": "viewer"})).await.expect(200).json();
        assert_eq!(text(&changed, "role"), "viewer");
        for (api, session) in [(&two, &first), (&one, &second), (&one, &first), (&two, &second)] {
            assert_eq!(write(api, session, "late").await, (403, "role_forbidden".to_owned()));
            api.get("/v1/scenarios", access(session)).await.expect(200);
        }
        patch(&two, access(&owner), &bob, json!({"role": "editor", "name": format!("bob {round}")})).await.expect(200);
    }
    assert_eq!(patch(&one, access(&owner), NOBODYS_ID, json!({"name": "x"})).await.code().0, 404);
    assert_eq!(patch(&one, access(&owner), &bob, json!({})).await.code().0, 422);
}

/// As after an instance that died between its commit and what follows it, or while it still is at that.
#[tokio::test]
async fn a_role_that_stood_already_holds_on_every_instance_once_it_is_acknowledged() {
    let servers = Servers::start().await;
    let (one, two) = (Instance::start(config(&servers)).await, Instance::start(config(&servers)).await);
    let owner = one.sign_up("ada", "PRO").await;
    let bob = add(&one, access(&owner), "bob", "editor").await;
    let session = two.log_in("bob").await;
    for key in ["a", "b", "c"] {
        two.scenario(access(&session), key).await;
    }
    let mut operator = sqlx::PgConnection::connect(&servers.database_url("postgres")).await.unwrap();
    let set = sqlx::query("UPDATE app.users SET role = 'viewer' WHERE user_id = $1::uuid").bind(&bob);
    assert_eq!(set.execute(&mut operator).await.unwrap().rows_affected(), 1);
    two.scenario(access(&session), "by the role that is kept").await;
    patch(&one, access(&owner), &bob, json!({"role": "viewer"})).await.expect(200);
    let refused = two.post_with_key("/v1/scenarios", access(&session), "d", scenario("d")).await;
    assert_eq!(refused.code(), (403, "role_forbidden".to_owned()));
}

#[tokio::test]
async fn a_role_changed_without_redis_holds_once_it_is_acknowledged() {
    let bed = BothCut::start().await;
    let owner = bed.one.sign_up("ada", "PRO").await;
    let bob = add(&bed.one, access(&owner), "bob", "editor").await;
    let session = bed.two.log_in("bob").await;
    bed.cut_keeping(&session).await;
    bed.two.scenario(access(&session), "a").await;
    let started = Instant::now();
    patch(&bed.one, access(&owner), &bob, json!({"role": "viewer"})).await.expect(200);
    assert!(started.elapsed() < Duration::from_secs(8), "{:?}", started.elapsed());
    let refused = async |api: &Instance| {
        let refused = api.post_with_key("/v1/scenarios", access(&session), "b", scenario("b")).await;
        assert_eq!(refused.code(), (403, "role_forbidden".to_owned()));
    };
    refused(&bed.two).await;
    refused(&bed.one).await;
    bed.mend_still_keeping(&session).await;
    for _ in 0..20 {
        refused(&bed.two).await;
        refused(&bed.one).await;
    }
}

#[tokio::test]
async fn a_removed_member_is_out_everywhere_and_what_it_made_stays() {
    let servers = Servers::start().await;
    let (one, two) = (Instance::start(config(&servers)).await, Instance::start(config(&servers)).await);
    let owner = one.sign_up("ada", "PRO").await;
    let bob = add(&one, access(&owner), "bob", "editor").await;
    let sessions = [one.log_in("bob").await, two.log_in("bob").await];
    let id = text(&one.scenario(access(&sessions[0]), "s").await, "id").to_owned();
    let body = json!({"scenario_id": id});
    let asked = two.post_with_key("/v1/forecasts", access(&sessions[1]), "f", body).await.expect(202).json();

    delete(&two, access(&owner), &bob).await.expect(204);
    for (session, api) in sessions.iter().zip([&two, &one]) {
        assert_eq!(api.get("/v1/me", access(session)).await.code(), (401, "unauthenticated".to_owned()));
        assert_eq!(api.refresh(text(session, "refresh_token")).await.code().0, 401);
    }
    let refused = one.post("/v1/login", json!({"email": "bob@example.com", "password": PASSWORD})).await;
    assert_eq!(refused.code(), (401, "invalid_credentials".to_owned()));
    one.get(&format!("/v1/forecasts/{}", text(&asked, "id")), access(&owner)).await.expect(200);
    assert_eq!(one.get(&format!("/v1/users/{bob}"), access(&owner)).await.code().0, 404);
    let left = one.get("/v1/users", access(&owner)).await.json();
    assert_eq!(left["items"].as_array().unwrap().len(), 1);
    for gone in [bob.as_str(), NOBODYS_ID, "not-a-uuid"] {
        assert_eq!(delete(&one, access(&owner), gone).await.code(), (404, "not_found".to_owned()), "{gone}");
    }
    // The address is free: it may come back, or be a customer of its own.
    let back = add(&one, access(&owner), "bob", "viewer").await;
    assert_ne!(back, bob);
}

#[tokio::test]
async fn an_address_that_a_removal_might_leave_is_nobodys_and_keeps_nobody_in() {
    let servers = Servers::start().await;
    let api = Instance::start(config(&servers)).await;
    let owner = api.sign_up("ada", "PRO").await;
    let bob = add(&api, access(&owner), "bob", "editor").await;
    let guessed = format!("removed-{bob}@removed.invalid");
    let mut body = sign_up("eve", "FREE");
    body["email"] = json!(guessed);
    let refused = api.post("/v1/signup", body).await.expect(422).json();
    assert!(refused["errors"].to_string().contains("/email"), "{refused}");
    // One that was let in before is in nobody's way.
    let eve = api.sign_up("eve", "FREE").await;
    let mut operator = sqlx::PgConnection::connect(&servers.database_url("postgres")).await.unwrap();
    let taken = sqlx::query("UPDATE app.users SET email = $1 WHERE user_id = $2::uuid").bind(&guessed);
    taken.bind(text(&eve, "user_id")).execute(&mut operator).await.unwrap();
    delete(&api, access(&owner), &bob).await.expect(204);
    assert_eq!(api.get(&format!("/v1/users/{bob}"), access(&owner)).await.code().0, 404);
}

#[tokio::test]
async fn a_tenant_never_loses_its_last_owner() {
    let servers = Servers::start().await;
    let (one, two) = (Instance::start(config(&servers)).await, Instance::start(config(&servers)).await);
    let ada = one.sign_up("ada", "PRO").await;
    let ada_id = text(&ada, "user_id").to_owned();
    let last = (409, "last_owner".to_owned());
    assert_eq!(delete(&one, access(&ada), &ada_id).await.code(), last);
    assert_eq!(patch(&one, access(&ada), &ada_id, json!({"role": "editor"})).await.code(), last);
    let eve_id = add(&one, access(&ada), "eve", "owner").await;
    for round in 0..8 {
        let eve = two.log_in("eve").await;
        let ada = one.log_in("ada").await;
        let demote = json!({"role": "viewer"});
        // Each the other, or each itself: one of the two must stay.
        let (of_ada, of_eve) = if round % 2 == 0 { (&eve_id, &ada_id) } else { (&ada_id, &eve_id) };
        let (a, b) = tokio::join!(
            patch(&one, access(&ada), of_ada, demote.clone()),
            patch(&two, access(&eve), of_eve, demote.clone())
        );
        let mut answers = [a.status.as_u16(), b.status.as_u16()];
        answers.sort_unstable();
        assert!(matches!(answers, [200, 403 | 409]), "{} {}", a.text, b.text);
        let (left, lost) = if a.status.as_u16() == 200 {
            if round % 2 == 0 { (&ada, &eve_id) } else { (&eve, &ada_id) }
        } else if round % 2 == 0 {
            (&eve, &ada_id)
        } else {
            (&ada, &eve_id)
        };
        patch(&one, access(left), lost, json!({"role": "owner"})).await.expect(200);
    }
}

#[tokio::test]
async fn a_new_password_ends_every_other_session_and_the_old_one_opens_none() {
    let servers = Servers::start().await;
    let (one, two) = (Instance::start(config(&servers)).await, Instance::start(config(&servers)).await);
    let kept = one.sign_up("ada", "FREE").await;
    let other = two.log_in("ada").await;
    two.get("/v1/me", access(&other)).await.expect(200);
    let put = async |old: &str, new: &str| {
        let body = json!({"old_password": old, "new_password": new});
        one.send(Method::PUT, "/v1/me/password", Some(access(&kept)), &[], Some(&body)).await
    };
    for wrong in ["wrong horse battery", "short", ""] {
        assert_eq!(put(wrong, "another horse battery").await.code(), (403, "wrong_password".to_owned()));
    }
    assert_eq!(put(PASSWORD, "short").await.code().0, 422);
    two.get("/v1/me", access(&other)).await.expect(200);
    put(PASSWORD, "another horse battery").await.expect(204);
    for api in [&two, &one] {
        assert_eq!(api.get("/v1/me", access(&other)).await.code().0, 401);
        api.get("/v1/me", access(&kept)).await.expect(200);
    }
    assert_eq!(two.refresh(text(&other, "refresh_token")).await.code().0, 401);
    let log_in = async |password: &str| {
        two.post("/v1/login", json!({"email": "ada@example.com", "password": password})).await.status.as_u16()
    };
    assert_eq!((log_in(PASSWORD).await, log_in("another horse battery").await), (401, 200));
    // Two changes from the same old password: one of them comes too late.
    let (a, b) = tokio::join!(
        put("another horse battery", "horse number three"),
        put("another horse battery", "horse number four")
    );
    let mut answers = [a.status.as_u16(), b.status.as_u16()];
    answers.sort_unstable();
    assert_eq!(answers, [204, 403]);
}
