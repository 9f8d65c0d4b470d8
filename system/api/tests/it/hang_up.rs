//! A client that hangs up: in the middle of its body, before the answer, in the middle of the transaction,
//! on every route that changes something. No transaction stays open, no connection stays taken, and each
//! effect is there with its idempotency key or not at all.

use std::time::{Duration, Instant};

use forecastle_api::MailConfig;
use forecastle_store::mail_tokens::MailTokenKey;
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::fixtures::{Instance, PASSWORD, config, scenario, sign_up, text};
use crate::servers::Servers;

/// Rounds over all routes.
const ROUNDS: u32 = 12;

/// Where a client stops.
#[derive(Debug, Clone, Copy)]
enum Cut {
    /// After this share of the request's bytes, in thousandths.
    InRequest(usize),
    /// So long after the last byte.
    After(Duration),
}

/// Draws the same numbers in each run.
struct Draw(u64);

impl Draw {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }

    fn cut(&mut self) -> Cut {
        match self.below(3) {
            0 => Cut::InRequest(usize::try_from(self.below(1000)).unwrap()),
            1 => Cut::After(Duration::from_micros(self.below(1_500))),
            _ => Cut::After(Duration::from_micros(self.below(20_000))),
        }
    }
}

struct Bed {
    servers: Servers,
    api: Instance,
    admin: PgConnection,
    token: String,
    refresh: String,
    scenario: String,
    forecast: String,
}

async fn bed() -> Bed {
    let servers = Servers::start().await;
    let mut config = config(&servers);
    config.mail = Some(MailConfig::new(MailTokenKey::new([2; 32])));
    config.db.lock_timeout = Duration::from_secs(8);
    config.db.statement_timeout = Duration::from_secs(9);
    let api = Instance::start(config).await;
    let session = api.sign_up("ada", "PRO").await;
    let token = text(&session, "access_token").to_owned();
    let scenario = text(&api.scenario(&token, "first").await, "id").to_owned();
    let asked =
        api.post_with_key("/v1/forecasts", &token, "first POST /v1/forecasts", json!({"scenario_id": scenario})).await;
    let forecast = text(&asked.expect(202).json(), "id").to_owned();
    let admin = PgConnection::connect(&servers.database_url("postgres")).await.unwrap();
    let refresh = text(&session, "refresh_token").to_owned();
    Bed { servers, api, admin, token, refresh, scenario, forecast }
}

impl Bed {
    /// Every operation that changes something, but the one that would end the session.
    fn operations() -> Vec<(Method, String)> {
        let document: Value = serde_json::from_str(&forecastle_api::openapi()).unwrap();
        let mut found = Vec::new();
        for (path, item) in document["paths"].as_object().unwrap() {
            for method in item.as_object().unwrap().keys().filter(|method| *method != "get") {
                if path != "/v1/logout" {
                    found.push((method.to_uppercase().parse().unwrap(), path.clone()));
                }
            }
        }
        found
    }

    /// A request that its route would grant, where this test knows what that takes.
    fn request(&self, method: &Method, path: &str, key: &str) -> Vec<u8> {
        let body = match path {
            "/v1/signup" => sign_up(&format!("p{}", key.replace(' ', "-")), "FREE"),
            "/v1/login" => json!({"email": "ada@example.com", "password": PASSWORD}),
            "/v1/token/refresh" => json!({"refresh_token": self.refresh}),
            "/v1/password-reset" => json!({"email": "ada@example.com"}),
            "/v1/scenarios" | "/v1/scenarios/{id}" => scenario(key),
            "/v1/forecasts" => json!({"scenario_id": self.scenario}),
            _ => json!({}),
        };
        let id = if path.starts_with("/v1/forecasts") { &self.forecast } else { &self.scenario };
        let at: Vec<&str> = path.split('/').map(|part| if part.starts_with('{') { id } else { part }).collect();
        let body = body.to_string();
        format!(
            "{method} {} HTTP/1.1\r\nhost: test\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\n\
             idempotency-key: {key}\r\nif-match: \"1\"\r\ncontent-length: {}\r\n\r\n{body}",
            at.join("/"),
            self.token,
            body.len()
        )
        .into_bytes()
    }

    async fn connect(&self) -> TcpStream {
        let address = self.api.url("");
        TcpStream::connect(address.strip_prefix("http://").unwrap()).await.unwrap()
    }

    async fn hang_up(&self, request: &[u8], cut: Cut) {
        let mut stream = self.connect().await;
        match cut {
            Cut::InRequest(share) => {
                stream.write_all(&request[..request.len() * share / 1000]).await.unwrap();
                stream.flush().await.unwrap();
            }
            Cut::After(wait) => {
                stream.write_all(request).await.unwrap();
                stream.flush().await.unwrap();
                tokio::time::sleep(wait).await;
            }
        }
        drop(stream);
    }

    async fn count(&mut self, statement: &str) -> i64 {
        sqlx::query_scalar(AssertSqlSafe(statement.to_owned())).fetch_one(&mut self.admin).await.unwrap()
    }

    /// None of the application's transactions has been idle for longer than a second, ever; in the end
    /// there is none, and no connection of the pool is in use.
    async fn until_clean(&mut self) {
        let given_up = Instant::now() + Duration::from_secs(30);
        let app = "FROM pg_stat_activity WHERE usename = 'forecastle_app'";
        loop {
            let idle = format!(
                "SELECT count(*) {app} AND state = 'idle in transaction' AND state_change < now() - interval '1 s'"
            );
            assert_eq!(self.count(&idle).await, 0, "a transaction was left open");
            let open = self.count(&format!("SELECT count(*) {app} AND xact_start IS NOT NULL")).await;
            let metrics = self.api.send(Method::GET, "/metrics", None, &[], None).await.text;
            let in_use = metrics.lines().find_map(|line| line.strip_prefix("forecastle_pool_connections_in_use "));
            if open == 0 && in_use == Some("0") {
                return;
            }
            assert!(Instant::now() < given_up, "{open} transactions, {in_use:?} connections");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Each effect has its key and each key its effect.
    async fn assert_whole(&mut self) {
        for (what, statement) in [
            (
                "a scenario without its key, or a key without its scenario",
                "SELECT (SELECT count(*) FROM app.scenarios)
                      - (SELECT count(*) FROM app.idempotency_keys WHERE status = 201 AND response LIKE '%/v1/scenarios/%')",
            ),
            (
                "a forecast without its key, or a key without its forecast",
                "SELECT (SELECT count(*) FROM app.forecasts WHERE retry_of IS NULL)
                      - (SELECT count(*) FROM app.idempotency_keys WHERE status = 202 AND key LIKE '%POST /v1/forecasts')",
            ),
            (
                "a forecast without its job",
                "SELECT count(*) FROM app.forecasts f LEFT JOIN app.jobs j ON j.subject_id = f.forecast_id
                 WHERE j.job_id IS NULL",
            ),
            (
                "a quota that differs from the forecasts that hold it",
                "SELECT abs((SELECT coalesce(sum(taken), 0) FROM app.quota_periods)
                      - (SELECT count(*) FROM app.forecasts WHERE quota_state <> 'released'))::bigint",
            ),
            (
                "a tenant without an owner, a session or its mail",
                "SELECT count(*) FROM app.tenants t LEFT JOIN app.users u USING (tenant_id)
                 LEFT JOIN app.sessions s USING (tenant_id) LEFT JOIN app.mail_outbox m USING (tenant_id)
                 WHERE u.user_id IS NULL OR s.session_id IS NULL OR m.mail_id IS NULL",
            ),
            (
                "a session without a token",
                "SELECT count(*) FROM app.sessions s LEFT JOIN app.refresh_tokens r USING (tenant_id, session_id)
                 WHERE r.token_hash IS NULL",
            ),
            ("a key that stays taken", "SELECT count(*) FROM app.idempotency_keys WHERE state <> 'done'"),
        ] {
            assert_eq!(self.count(statement).await, 0, "{what}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hanging_up_at_any_point_of_any_change_leaves_nothing_half_done() {
    let mut bed = bed().await;
    let operations = Bed::operations();
    assert!(operations.len() >= 10, "{operations:?}");
    let mut draw = Draw(7);
    for round in 0..ROUNDS {
        for (method, path) in &operations {
            let request = bed.request(method, path, &format!("{round} {method} {path}"));
            bed.hang_up(&request, draw.cut()).await;
        }
    }
    bed.until_clean().await;
    bed.assert_whole().await;
    let scenarios = bed.count("SELECT count(*) FROM app.scenarios").await;
    assert!((1..=i64::from(ROUNDS) + 1).contains(&scenarios), "{scenarios}");
    println!("{scenarios} of {} scenarios were made", ROUNDS + 1);

    // Sent again under its key, each is there once.
    let token = bed.token.clone();
    for round in 0..ROUNDS {
        let key = format!("{round} POST /v1/scenarios");
        bed.api.post_with_key("/v1/scenarios", &token, &key, scenario(&key)).await.expect(201);
    }
    assert_eq!(bed.count("SELECT count(*) FROM app.scenarios").await, i64::from(ROUNDS) + 1);
    bed.assert_whole().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hanging_up_inside_the_transaction_of_any_change_leaves_nothing_half_done() {
    let mut bed = bed().await;
    let mut waited = 0;
    for (method, path) in Bed::operations() {
        let mut holder = PgConnection::connect(&bed.servers.database_url("postgres")).await.unwrap();
        let held = "BEGIN; LOCK TABLE app.scenarios, app.jobs, app.sessions, app.refresh_tokens, app.mail_outbox,
                    app.idempotency_keys IN ACCESS EXCLUSIVE MODE";
        sqlx::raw_sql(held).execute(&mut holder).await.unwrap();
        let mut stream = bed.connect().await;
        stream.write_all(&bed.request(&method, &path, &format!("held {method} {path}"))).await.unwrap();
        stream.flush().await.unwrap();
        // Refused before any transaction, or waiting in the middle of one.
        let until = Instant::now() + Duration::from_millis(400);
        let waiters = "SELECT count(*) FROM pg_stat_activity
                       WHERE usename = 'forecastle_app' AND wait_event_type = 'Lock'";
        while Instant::now() < until {
            if bed.count(waiters).await > 0 {
                waited += 1;
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        drop(stream);
        sqlx::raw_sql("ROLLBACK").execute(&mut holder).await.unwrap();
        bed.until_clean().await;
    }
    assert!(waited >= 6, "only {waited} routes were inside a transaction");
    bed.assert_whole().await;
}
