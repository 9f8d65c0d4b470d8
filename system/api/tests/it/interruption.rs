//! Work that is cut short: by the client, by locks, by a drain, by a reader that comes too late.

use std::time::{Duration, Instant};

use forecastle_domain::{SessionId, TenantId};
use forecastle_store::{Cache, CacheKey, CacheOptions, Lookup};
use reqwest::Method;
use serde_json::json;
use sqlx::{Connection as _, PgConnection};

use crate::fixtures::{Instance, config, sign_up, text};
use crate::product::join_all;
use crate::servers::Servers;

/// A superuser's transaction that holds a table.
struct Held(PgConnection);

impl Held {
    async fn table(servers: &Servers, statement: &'static str) -> Self {
        let mut connection = PgConnection::connect(&servers.database_url("postgres")).await.unwrap();
        sqlx::query("BEGIN").execute(&mut connection).await.unwrap();
        sqlx::query(statement).execute(&mut connection).await.unwrap();
        Self(connection)
    }

    /// Waits until so many of the application's statements wait for the table.
    async fn until_waited_for(&mut self, waiters: i64) {
        let given_up = Instant::now() + Duration::from_secs(20);
        loop {
            let query =
                "SELECT count(*) FROM pg_stat_activity WHERE usename = 'forecastle_app' AND wait_event_type = 'Lock'";
            let waiting: i64 = sqlx::query_scalar(query).fetch_one(&mut self.0).await.unwrap();
            // The snapshot of the statistics is kept for a transaction unless told otherwise.
            sqlx::query("SELECT pg_stat_clear_snapshot()").execute(&mut self.0).await.unwrap();
            if waiting >= waiters {
                return;
            }
            assert!(Instant::now() < given_up, "nobody waits");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn release(mut self) {
        sqlx::query("ROLLBACK").execute(&mut self.0).await.unwrap();
    }
}

/// Waits until none of the application's connections is in a transaction.
async fn until_no_transaction_is_open(servers: &Servers) {
    let mut admin = PgConnection::connect(&servers.database_url("postgres")).await.unwrap();
    let given_up = Instant::now() + Duration::from_secs(20);
    loop {
        let query = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'forecastle_app' AND xact_start IS NOT NULL";
        let open: i64 = sqlx::query_scalar(query).fetch_one(&mut admin).await.unwrap();
        if open == 0 {
            return;
        }
        assert!(Instant::now() < given_up, "{open} transactions stay open");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_request_goes_on_when_its_client_hangs_up() {
    let servers = Servers::start().await;
    let api = Instance::start(config(&servers)).await;
    let session = api.sign_up("ada", "PRO").await;
    let token = text(&session, "access_token");
    let body = json!({"scenario_id": api.scenario(token, "s").await["id"]});

    let mut held = Held::table(&servers, "LOCK TABLE app.jobs IN ACCESS EXCLUSIVE MODE").await;
    let request = reqwest::Client::new().post(api.url("/v1/forecasts")).bearer_auth(token);
    let request = request.header("idempotency-key", "k").json(&body).send();
    let hung_up = tokio::spawn(request);
    held.until_waited_for(1).await;
    hung_up.abort();
    assert!(hung_up.await.unwrap_err().is_cancelled());
    held.release().await;
    until_no_transaction_is_open(&servers).await;

    let again = api.post_with_key("/v1/forecasts", token, "k", body).await.expect(202);
    assert_eq!(again.header("idempotency-replayed"), "true", "the first one was finished and kept");
    let page = api.get("/v1/forecasts", token).await.json();
    assert_eq!(page["items"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn an_exhausted_pool_refuses_in_time_and_comes_back_clean() {
    let servers = Servers::start().await;
    let mut small = config(&servers);
    small.db.max_connections = 2;
    small.db.acquire_timeout = Duration::from_millis(500);
    small.db.lock_timeout = Duration::from_millis(1500);
    let api = Instance::start(small).await;
    let session = api.sign_up("ada", "PRO").await;
    let token = text(&session, "access_token");
    api.scenario(token, "s").await;

    let held = Held::table(&servers, "LOCK TABLE app.scenarios IN ACCESS EXCLUSIVE MODE").await;
    let started = Instant::now();
    for answer in join_all((0..12).map(|_| api.get("/v1/scenarios", token))).await {
        assert_eq!(answer.code(), (503, "unavailable".to_owned()));
        assert_eq!(answer.header("retry-after"), "1");
    }
    assert!(started.elapsed() < Duration::from_secs(6), "{:?}", started.elapsed());
    api.send(Method::GET, "/livez", None, &[], None).await.expect(200);
    held.release().await;
    until_no_transaction_is_open(&servers).await;
    for answer in join_all((0..12).map(|_| api.get("/v1/scenarios", token))).await {
        assert_eq!(answer.expect(200).json()["items"].as_array().unwrap().len(), 1);
    }
}

#[tokio::test]
async fn a_drain_finishes_what_is_under_way() {
    let servers = Servers::start().await;
    let api = Instance::start(config(&servers)).await;
    let session = api.sign_up("ada", "FREE").await;
    let token = text(&session, "access_token");
    let mut held = Held::table(&servers, "LOCK TABLE app.invoices IN ACCESS EXCLUSIVE MODE").await;
    let request = reqwest::Client::new().get(api.url("/v1/invoices")).bearer_auth(token).send();
    let under_way = tokio::spawn(request);
    held.until_waited_for(1).await;
    let address = api.url("/livez");
    let drained = tokio::spawn(api.drain());
    let given_up = Instant::now() + Duration::from_secs(10);
    while reqwest::Client::new().get(&address).send().await.is_ok() {
        assert!(Instant::now() < given_up, "it still takes connections");
    }
    held.release().await;
    assert_eq!(under_way.await.unwrap().unwrap().status().as_u16(), 200);
    drained.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_reader_of_the_old_session_cannot_write_it_back() {
    let servers = Servers::start().await;
    let cache = Cache::open(&CacheOptions { redis_url: servers.redis_url(), timeout: Duration::from_secs(1) }).unwrap();
    let key = CacheKey::session(TenantId::from_uuid(uuid::Uuid::nil()), SessionId::from_uuid(uuid::Uuid::max()));
    let Lookup::Miss(Some(before)) = cache.get::<String>(&key).await else { panic!("an empty cache") };
    cache.delete_confirmed(&key).await.unwrap();
    assert!(!cache.fill(before, &"live", Duration::from_secs(30)).await, "read before the revocation");
    assert!(matches!(cache.get::<String>(&key).await, Lookup::Miss(Some(_))));
}

#[tokio::test]
async fn a_writer_that_dies_before_its_deletion_leaves_no_old_value() {
    let servers = Servers::start().await;
    let options = CacheOptions { redis_url: servers.redis_url(), timeout: Duration::from_secs(1) };
    let (writer, reader) = (Cache::open(&options).unwrap(), Cache::open(&options).unwrap());
    let key = CacheKey::dashboard(TenantId::from_uuid(uuid::Uuid::nil()));
    let ttl = Duration::from_secs(300);
    let load = async |value: &'static str| {
        let load = async move { Ok::<_, std::convert::Infallible>(value.to_owned()) };
        reader.get_or_load(&key, ttl, load, |_| true).await.unwrap()
    };
    assert_eq!(load("old").await, "old");
    assert_eq!(load("new").await, "old", "kept");

    writer.announce(std::slice::from_ref(&key)).await;
    assert_eq!(load("old").await, "old", "read before the commit, and not kept");
    drop(writer);
    assert_eq!(load("new").await, "new", "the commit happened, the deletion did not");
    reader.delete(std::slice::from_ref(&key)).await;
    assert_eq!(load("newer").await, "newer");
    assert_eq!(load("newest").await, "newer", "kept again");
}

#[tokio::test]
async fn a_frozen_redis_slows_answers_down_and_changes_none() {
    let servers = Servers::start().await;
    let api = Instance::start(config(&servers)).await;
    let session = api.sign_up("ada", "FREE").await;
    let token = text(&session, "access_token");
    let gone = api.log_in("ada").await;
    let gone = text(&gone, "access_token");
    api.send(Method::POST, "/v1/logout", Some(gone), &[], None).await.expect(204);
    servers.freeze_redis();
    for _ in 0..10 {
        let started = Instant::now();
        api.get("/v1/dashboard", token).await.expect(200);
        assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
        assert_eq!(api.get("/v1/me", gone).await.code().0, 401);
    }
    servers.thaw_redis();
    api.get("/v1/dashboard", token).await.expect(200);
    assert_eq!(api.get("/v1/me", gone).await.code().0, 401);
}

#[tokio::test]
async fn a_full_launch_phase_takes_no_further_customer() {
    let servers = Servers::start().await;
    let mut capped = config(&servers);
    capped.customer_cap = Some(1);
    let api = Instance::start(capped).await;
    api.sign_up("ada", "FREE").await;
    let refused = api.post("/v1/signup", sign_up("eve", "FREE")).await;
    assert_eq!(refused.code(), (403, "customer_cap_reached".to_owned()));
    api.log_in("ada").await;
}

#[tokio::test]
async fn sign_ups_at_the_same_moment_do_not_pass_the_cap() {
    let servers = Servers::start().await;
    let mut capped = config(&servers);
    capped.customer_cap = Some(2);
    let (one, other) = (Instance::start(capped.clone()).await, Instance::start(capped).await);
    one.sign_up("ada", "FREE").await;
    let ask = async |api: &Instance, name: &str| api.post("/v1/signup", sign_up(name, "FREE")).await.status.as_u16();
    let (a, b, c, d) = tokio::join!(ask(&one, "a"), ask(&other, "b"), ask(&one, "c"), ask(&other, "d"));
    let mut answers = [a, b, c, d];
    answers.sort_unstable();
    assert_eq!(answers, [201, 403, 403, 403]);
}
