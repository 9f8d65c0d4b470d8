//! The caller's sessions: listed, ended one by one, and what the audit log keeps of it.

use std::time::{Duration, Instant};

use forecastle_store::migrate::{RolePasswords, migrate};
use forecastle_testbed::{Postgres, Redis, Relay};
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::Connection as _;

use crate::cut_links::BothCut;
use crate::fixtures::{Instance, NOBODYS_ID, config, config_at, text};
use crate::members;
use crate::servers::Servers;

fn access(session: &Value) -> &str {
    text(session, "access_token")
}

async fn delete(api: &Instance, token: &str, session: &Value) -> (u16, String) {
    let path = format!("/v1/sessions/{}", text(session, "session_id"));
    let answer = api.send(Method::DELETE, &path, Some(token), &[], None).await;
    if answer.status.is_success() { (answer.status.as_u16(), String::new()) } else { answer.code() }
}

#[tokio::test]
async fn a_session_is_ended_by_another_one_of_its_user_and_by_nobody_else() {
    let servers = Servers::start().await;
    let (one, two) = (Instance::start(config(&servers)).await, Instance::start(config(&servers)).await);
    let first = one.sign_up("ada", "PRO").await;
    let second = two.log_in("ada").await;
    members::add(&one, access(&first), "bob", "owner").await;
    let colleague = two.log_in("bob").await;
    let stranger = two.sign_up("eve", "PRO").await;

    let (mut seen, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = one.get(&format!("/v1/sessions?limit=1{cursor}"), access(&first)).await.expect(200).json();
        for item in page["items"].as_array().unwrap() {
            seen.push((text(item, "id").to_owned(), item["is_current"] == json!(true)));
        }
        let Some(next) = page["next_cursor"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    let expected = [(text(&second, "session_id").to_owned(), false), (text(&first, "session_id").to_owned(), true)];
    assert_eq!(seen, expected);

    let not_found = (404, "not_found".to_owned());
    for token in [access(&colleague), access(&stranger)] {
        assert_eq!(delete(&one, token, &second).await, not_found, "nobody else ends it");
    }
    assert_eq!(delete(&one, access(&first), &json!({"session_id": NOBODYS_ID})).await, not_found);
    two.get("/v1/me", access(&second)).await.expect(200);

    assert_eq!(delete(&one, access(&first), &second).await.0, 204);
    for api in [&two, &one] {
        assert_eq!(api.get("/v1/me", access(&second)).await.code(), (401, "unauthenticated".to_owned()));
        assert_eq!(api.refresh(text(&second, "refresh_token")).await.code().0, 401);
    }
    assert_eq!(delete(&one, access(&first), &second).await.0, 204, "whoever lost the answer may ask again");
    let left = one.get("/v1/sessions", access(&first)).await.json();
    assert_eq!(left["items"].as_array().unwrap().len(), 1);
    assert_eq!(delete(&one, access(&first), &first).await.0, 204);
    assert_eq!(one.get("/v1/me", access(&first)).await.code().0, 401);
}

#[tokio::test]
async fn a_session_ended_without_redis_is_refused_once_that_is_acknowledged() {
    let bed = BothCut::start().await;
    let first = bed.one.sign_up("ada", "FREE").await;
    let second = bed.two.log_in("ada").await;
    bed.cut_keeping(&second).await;
    let started = Instant::now();
    assert_eq!(delete(&bed.one, access(&first), &second).await.0, 204);
    assert!(started.elapsed() < Duration::from_secs(8), "{:?}", started.elapsed());
    for api in [&bed.two, &bed.one] {
        assert_eq!(api.get("/v1/me", access(&second)).await.code().0, 401);
    }
    bed.mend_still_keeping(&second).await;
    for _ in 0..20 {
        for api in [&bed.two, &bed.one] {
            assert_eq!(api.get("/v1/me", access(&second)).await.code().0, 401);
        }
    }
}

/// As after an instance that died between its commit and what follows it.
#[tokio::test]
async fn a_refresh_that_finds_its_session_over_makes_that_known() {
    let servers = Servers::start().await;
    let (one, two) = (Instance::start(config(&servers)).await, Instance::start(config(&servers)).await);
    let session = one.sign_up("ada", "FREE").await;
    for _ in 0..3 {
        two.get("/v1/me", access(&session)).await.expect(200);
    }
    let mut operator = sqlx::PgConnection::connect(&servers.database_url("postgres")).await.unwrap();
    sqlx::query("UPDATE app.sessions SET revoked_at = now()").execute(&mut operator).await.unwrap();
    two.get("/v1/me", access(&session)).await.expect(200);
    assert_eq!(one.refresh(text(&session, "refresh_token")).await.code().0, 401);
    assert_eq!(two.get("/v1/me", access(&session)).await.code().0, 401);
}

/// The commit is held by a trigger, its link cut, and then it is carried out, with nobody left to hear so.
#[tokio::test]
async fn a_session_whose_end_is_committed_unheard_is_nobodys_way_in() {
    let (postgres, redis) = (Postgres::start(), Redis::start());
    migrate(&postgres.admin_url(), &RolePasswords::default()).await.unwrap();
    let link = Relay::to(postgres.port());
    let over_link = postgres.url_of("forecastle_app").replace(&postgres.port().to_string(), &link.port().to_string());
    let mut hurt = config_at(over_link, redis.url());
    hurt.refresh_grace = Duration::ZERO;
    (hurt.db.lock_timeout, hurt.db.statement_timeout) = (Duration::from_secs(30), Duration::from_secs(30));
    let hurt = Instance::start(hurt).await;
    let well = Instance::start(config_at(postgres.url_of("forecastle_app"), redis.url())).await;
    let mut admin = sqlx::PgConnection::connect(&postgres.admin_url()).await.unwrap();
    let hold = "CREATE FUNCTION app.hold_commit() RETURNS trigger LANGUAGE plpgsql AS $$
                BEGIN PERFORM pg_advisory_xact_lock_shared(4711); RETURN NULL; END $$;
                CREATE CONSTRAINT TRIGGER hold_commit AFTER UPDATE ON app.sessions
                DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION app.hold_commit()";
    sqlx::raw_sql(hold).execute(&mut admin).await.unwrap();
    well.sign_up("ada", "FREE").await;
    for way in ["reuse", "logout"] {
        let session = well.log_in("ada").await;
        let token = access(&session);
        hurt.refresh(text(&session, "refresh_token")).await.expect(200);
        for _ in 0..3 {
            well.get("/v1/me", token).await.expect(200);
        }
        sqlx::raw_sql("SELECT pg_advisory_lock(4711)").execute(&mut admin).await.unwrap();
        let cutting = async {
            let waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 4711 AND NOT granted";
            until(&mut admin, waiting, 1).await;
            link.cut();
        };
        let ending = async {
            match way {
                "reuse" => hurt.refresh(text(&session, "refresh_token")).await,
                _ => hurt.send(Method::POST, "/v1/logout", Some(token), &[], None).await,
            }
        };
        let (unknown, ()) = tokio::join!(ending, cutting);
        assert_eq!(unknown.code(), (503, "unavailable".to_owned()), "{way}");
        link.mend();
        sqlx::raw_sql("SELECT pg_advisory_unlock(4711)").execute(&mut admin).await.unwrap();
        let id = text(&session, "session_id");
        let ended = format!("SELECT count(*) FROM app.sessions WHERE session_id = '{id}' AND revoked_at IS NOT NULL");
        until(&mut admin, &ended, 1).await;
        for _ in 0..3 {
            assert_eq!(well.get("/v1/me", token).await.code().0, 401, "{way}");
        }
    }
}

/// Waits until a count is as wanted.
async fn until(admin: &mut sqlx::PgConnection, count: &str, wanted: i64) {
    let given_up = Instant::now() + Duration::from_secs(20);
    loop {
        let query = sqlx::query_scalar(sqlx::AssertSqlSafe(count.to_owned()));
        let found: i64 = query.fetch_one(&mut *admin).await.unwrap();
        if found == wanted {
            return;
        }
        assert!(Instant::now() < given_up, "{found}, not {wanted}: {count}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn the_audit_log_tells_who_did_what_and_no_more() {
    let servers = Servers::start().await;
    let api = Instance::start(config(&servers)).await;
    let mut impatient = config(&servers);
    impatient.refresh_grace = Duration::ZERO;
    let impatient = Instance::start(impatient).await;
    let ada = api.sign_up("ada", "PRO").await;
    let owner = access(&ada);
    let bob = members::add(&api, owner, "bob", "editor").await;
    let session = api.log_in("bob").await;
    let wrong = json!({"email": "bob@example.com", "password": "wrong horse battery"});
    api.post("/v1/login", wrong).await.expect(401);
    api.refresh(text(&session, "refresh_token")).await.expect(200);
    impatient.refresh(text(&session, "refresh_token")).await.expect(401);
    let session = api.log_in("bob").await;
    api.send(Method::POST, "/v1/logout", Some(access(&session)), &[], None).await.expect(204);
    let path = format!("/v1/users/{bob}");
    api.send(Method::PATCH, &path, Some(owner), &[], Some(&json!({"role": "viewer"}))).await.expect(200);
    api.send(Method::DELETE, &path, Some(owner), &[], None).await.expect(204);

    let expected = [
        "account.signed_up",
        "login.failed",
        "login.succeeded",
        "login.succeeded",
        "member.added",
        "member.removed",
        "member.role_changed",
        "refresh.reused",
        "session.logged_out",
    ];
    let given_up = Instant::now() + Duration::from_secs(10);
    let entries = loop {
        // The failed login is noted after its answer.
        let page = api.get("/v1/audit-log?limit=100", owner).await.expect(200).json();
        let entries = page["items"].as_array().unwrap().clone();
        if entries.len() >= expected.len() {
            break entries;
        }
        assert!(Instant::now() < given_up, "{page}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    let mut actions: Vec<_> = entries.iter().map(|entry| text(entry, "action")).collect();
    actions.sort_unstable();
    assert_eq!(actions, expected);
    let changed = entries.iter().find(|entry| entry["action"] == "member.role_changed").unwrap();
    assert_eq!((text(changed, "before"), text(changed, "after")), ("editor", "viewer"));
    assert_eq!((text(changed, "actor_id"), text(changed, "object_id")), (text(&ada, "user_id"), bob.as_str()));
    let failed = entries.iter().find(|entry| entry["action"] == "login.failed").unwrap();
    assert_eq!((&failed["actor_id"], text(failed, "object_id")), (&Value::Null, bob.as_str()));
    let everything = serde_json::to_string(&entries).unwrap();
    assert!(!everything.contains("example.com") && !everything.contains("horse"), "{everything}");

    let stranger = api.sign_up("eve", "PRO").await;
    let theirs = api.get("/v1/audit-log", access(&stranger)).await.json();
    assert_eq!(theirs["items"].as_array().unwrap().len(), 1, "{theirs}");
    let mut app = sqlx::PgConnection::connect(&servers.database_url("forecastle_app")).await.unwrap();
    for statement in
        ["DELETE FROM app.audit_events", "UPDATE app.audit_events SET action = 'a.b'", "TRUNCATE app.audit_events"]
    {
        let refused = sqlx::query(statement).execute(&mut app).await.unwrap_err();
        assert_eq!(refused.as_database_error().unwrap().code().as_deref(), Some("42501"), "{statement}");
    }
}
