//! What a migration may do while instances of the build before it run: each allowed kind of change is
//! made to the live schema under load, and nobody notices. The statements of the running build were
//! prepared before the change, which is what breaks first in practice.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use forecastle_testbed::customers;
use serde_json::json;
use sqlx::AssertSqlSafe;

use crate::process::{Ground, scenario, sign_up, text, until};

/// One of each kind that the check of the migrations lets pass; `no tx` runs outside a transaction.
const CHANGES: [(&str, &str); 9] = [
    ("a column that may be null", "ALTER TABLE app.users ADD COLUMN later_a text"),
    ("a column with a default", "ALTER TABLE app.sessions ADD COLUMN later_b integer NOT NULL DEFAULT 7"),
    ("a column of the busiest table", "ALTER TABLE app.scenarios ADD COLUMN later_c jsonb NOT NULL DEFAULT '{}'"),
    ("a column of the queue", "ALTER TABLE app.jobs ADD COLUMN later_d bigint"),
    ("a table", "CREATE TABLE app.later_e (tenant_id uuid PRIMARY KEY REFERENCES app.tenants, note text)"),
    ("an index, without a lock", "CREATE INDEX CONCURRENTLY later_f ON app.scenarios (tenant_id, updated_at)"),
    (
        "a check that is not yet believed",
        "ALTER TABLE app.scenarios ADD CONSTRAINT later_g CHECK (version < 1000000) NOT VALID",
    ),
    ("the same, believed", "ALTER TABLE app.scenarios VALIDATE CONSTRAINT later_g"),
    ("a function", "CREATE FUNCTION app.later_h() RETURNS integer LANGUAGE sql AS 'SELECT 1'"),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_instance_and_worker_survive_every_allowed_change_of_the_schema() {
    let ground = Ground::start().await;
    let api = ground.serve("api", &["--log-level", "warn"]);
    let redis_url = ground.redis.url();
    let _work = ground.run("work", "work", &["--redis-url", &redis_url, "--poll-ms", "50"]);
    let base = api.base();
    let session = sign_up(&reqwest::Client::new(), &base, "ada").await;
    let token = text(&session, "access_token").to_owned();

    let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let mut clients = Vec::new();
    for number in 0..4 {
        let (stop, done, base, token) = (Arc::clone(&stop), Arc::clone(&done), base.clone(), token.clone());
        clients.push(tokio::spawn(async move {
            let client = reqwest::Client::new();
            let mut bad = Vec::new();
            let mut turn = 0;
            while !stop.load(Ordering::SeqCst) {
                turn += 1;
                let key = format!("{number}-{turn}");
                let get = |path: &str| client.get(format!("{base}{path}"));
                let post = |path: &str, key: String, body| {
                    client.post(format!("{base}{path}")).header("idempotency-key", key).json(&body)
                };
                let made = post("/v1/scenarios", key.clone(), scenario(&key))
                    .bearer_auth(&token)
                    .send()
                    .await
                    .expect("an answer");
                let (status, made) = (made.status().as_u16(), made.json::<serde_json::Value>().await.unwrap());
                if status != 201 && status != 409 && status != 422 && status != 403 {
                    bad.push(format!("scenario: {status} {made}"));
                }
                let mut requests = vec![("dashboard", get("/v1/dashboard")), ("list", get("/v1/scenarios"))];
                requests.push(("me", get("/v1/me")));
                let credentials = json!({"email": "ada@example.com", "password": crate::process::PASSWORD});
                requests.push(("login", client.post(format!("{base}/v1/login")).json(&credentials)));
                if status == 201 {
                    let body = json!({"scenario_id": made["id"]});
                    requests.push(("forecast", post("/v1/forecasts", format!("f{key}"), body)));
                }
                for (what, request) in requests {
                    let answer = request.bearer_auth(&token).send().await.expect("an answer");
                    let status = answer.status().as_u16();
                    let told = answer.text().await.unwrap_or_default();
                    if status >= 500 {
                        bad.push(format!("{what}: {status} {told}"));
                    }
                }
                done.fetch_add(1, Ordering::SeqCst);
            }
            bad
        }));
    }
    let mut admin = customers::connect(&ground.postgres.admin_url()).await;
    sqlx::query("SET lock_timeout = '2s'").execute(&mut admin).await.unwrap();
    for (what, statement) in CHANGES {
        let before = done.load(Ordering::SeqCst);
        until("requests are answered before the change", async || done.load(Ordering::SeqCst) > before + 8).await;
        sqlx::raw_sql(AssertSqlSafe(statement.to_owned())).execute(&mut admin).await.expect(what);
    }
    let before = done.load(Ordering::SeqCst);
    until("requests are answered after all changes", async || done.load(Ordering::SeqCst) > before + 20).await;
    stop.store(true, Ordering::SeqCst);
    for client in clients {
        let bad = client.await.expect("no panic");
        assert!(bad.is_empty(), "{bad:?}");
    }
    let succeeded = "SELECT count(*) FROM app.forecasts WHERE state = 'succeeded'";
    until("the worker works on", async || customers::count(&mut admin, succeeded).await > 0).await;
}
