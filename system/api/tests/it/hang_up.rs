//! A client that hangs up: in the middle of its body, before the answer, in the middle of the transaction,
//! on every route that changes something. No transaction stays open, no connection stays taken, and each
//! effect is there with its idempotency key or not at all.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::Utc;
use forecastle_api::MailConfig;
use forecastle_billing::WebhookSecrets;
use forecastle_store::mail_tokens::MailTokenKey;
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::fixtures::{Instance, PASSWORD, scenario, sign_up, text};
use crate::members;
use crate::paying::{PayBed, SECRET, charge_event};

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

/// Operations that are no `get` and change nothing.
const CHANGES_NOTHING: &str = "/v1/calculators/";

/// Each request that changes something is made so that it would be granted, by whoever it takes for that.
struct Bed {
    api: Instance,
    admin: PgConnection,
    /// Ada, who owns a tenant on the PRO plan.
    owner: Value,
    /// Bob, its editor, whose password nobody changes; one session to act by, and two to end.
    editor: [Value; 3],
    /// Eve, who owes an invoice.
    debtor: Value,
    scenario: String,
    /// One that waits, and one that was cancelled.
    forecasts: [String; 2],
    /// Members to change and to remove.
    members: [String; 2],
    invoice: String,
    /// Of Zoe's charge, which is paid.
    event: Value,
    verification: String,
    reset: String,
    paying: PayBed,
}

const TOKEN_KEY: MailTokenKey = MailTokenKey::new([2; 32]);

async fn bed() -> Bed {
    let paying = PayBed::start().await;
    let mut config = paying.config.clone();
    let mut mail = MailConfig::new(TOKEN_KEY);
    // Instead of a minute between two mails to one user: whatever is asked writes one.
    mail.interval = Duration::from_millis(1);
    config.mail = Some(mail);
    config.db.lock_timeout = Duration::from_secs(20);
    config.db.statement_timeout = Duration::from_secs(21);
    let api = Instance::start(config).await;
    let mut admin = PgConnection::connect(&paying.servers.database_url("postgres")).await.unwrap();

    let month = Utc::now() + Duration::from_secs(2 * 3600);
    api.sign_up("zoe", "STARTER").await;
    paying.bill(month).await;
    let event = charge_event("charge.succeeded", &paying.book.charges().remove(0));
    let debtor = api.sign_up("eve", "STARTER").await;
    paying.book.decline("tok_good");
    paying.bill(month).await;
    let token = |session: &Value| text(session, "access_token").to_owned();
    let invoices = api.get("/v1/invoices", &token(&debtor)).await.expect(200).json();
    let invoice = text(&invoices["items"][0], "id").to_owned();

    let owner = api.sign_up("ada", "PRO").await;
    let ada = token(&owner);
    let scenario = text(&api.scenario(&ada, "first").await, "id").to_owned();
    let mut forecasts = Vec::new();
    for name in ["first", "second"] {
        let body = json!({"scenario_id": scenario});
        let asked = api.post_with_key("/v1/forecasts", &ada, &format!("{name} POST /v1/forecasts"), body).await;
        forecasts.push(text(&asked.expect(202).json(), "id").to_owned());
    }
    let cancel = format!("/v1/forecasts/{}/cancel", forecasts[1]);
    api.send(Method::POST, &cancel, Some(&ada), &[], None).await.expect(200);
    let mut added = Vec::new();
    for (name, role) in [("bob", "editor"), ("cid", "viewer"), ("dot", "viewer"), ("eli", "viewer")] {
        added.push(members::add(&api, &ada, name, role).await);
    }
    let editor = [api.log_in("bob").await, api.log_in("bob").await, api.log_in("bob").await];
    api.post("/v1/password-reset", json!({"email": "eli@example.com"})).await.expect(202);
    let mut verification = String::new();
    let mut reset = String::new();
    for (purpose, user, kept) in [
        ("email_verification", text(&owner, "user_id"), &mut verification),
        ("password_reset", added[3].as_str(), &mut reset),
    ] {
        let query = "SELECT token_id FROM app.mail_tokens WHERE purpose = $1 AND user_id = $2::uuid";
        let id = sqlx::query_scalar(query).bind(purpose).bind(user).fetch_one(&mut admin).await.unwrap();
        *kept = URL_SAFE_NO_PAD.encode(TOKEN_KEY.token(id).0);
    }
    let members = [added.swap_remove(1), added.swap_remove(2)];
    let forecasts = [forecasts.remove(0), forecasts.remove(0)];
    Bed { api, admin, owner, editor, debtor, scenario, forecasts, members, invoice, event, verification, reset, paying }
}

impl Bed {
    /// Every operation that changes something, in the document's order.
    fn operations() -> Vec<(Method, String)> {
        let document: Value = serde_json::from_str(&forecastle_api::openapi()).unwrap();
        let mut found = Vec::new();
        for (path, item) in document["paths"].as_object().unwrap() {
            if path.starts_with(CHANGES_NOTHING) {
                continue;
            }
            for method in item.as_object().unwrap().keys().filter(|method| *method != "get") {
                found.push((method.to_uppercase().parse().unwrap(), path.clone()));
            }
        }
        found
    }

    /// What is sent, in whose name, and about what.
    fn body(&self, method: &Method, path: &str, key: &str) -> (Value, &Value, &str) {
        let name = key.replace([' ', '/', '{', '}'], "-");
        let (owner, none) = (&self.owner, "");
        match (method.as_str(), path) {
            (_, "/v1/signup") => (sign_up(&format!("p{name}"), "FREE"), owner, none),
            (_, "/v1/login") => (json!({"email": "bob@example.com", "password": PASSWORD}), owner, none),
            (_, "/v1/logout") => (json!({}), &self.editor[1], none),
            (_, "/v1/sessions/{id}") => (json!({}), &self.editor[0], text(&self.editor[2], "session_id")),
            (_, "/v1/token/refresh") => (json!({"refresh_token": owner["refresh_token"]}), owner, none),
            (_, "/v1/password-reset") => (json!({"email": "ada@example.com"}), owner, none),
            (_, "/v1/password-reset/confirm") => {
                (json!({"token": self.reset, "password": "another horse battery"}), owner, none)
            }
            (_, "/v1/email-verification") => (json!({}), owner, none),
            (_, "/v1/email-verification/confirm") => (json!({"token": self.verification}), owner, none),
            (_, "/v1/me/password") => {
                (json!({"old_password": PASSWORD, "new_password": "another horse battery"}), owner, none)
            }
            (_, "/v1/scenarios" | "/v1/scenarios/{id}") => (scenario(key), owner, &self.scenario),
            (_, "/v1/forecasts") => (json!({"scenario_id": self.scenario}), owner, none),
            (_, "/v1/forecasts/{id}/cancel") => (json!({}), owner, &self.forecasts[0]),
            (_, "/v1/forecasts/{id}/retry") => (json!({}), owner, &self.forecasts[1]),
            (_, "/v1/users") => {
                let email = format!("{}@example.com", name.to_lowercase());
                (json!({"email": email, "name": "m", "role": "viewer", "password": PASSWORD}), owner, none)
            }
            ("PATCH", "/v1/users/{id}") => (json!({"name": key, "role": "editor"}), owner, &self.members[0]),
            ("DELETE", "/v1/users/{id}") => (json!({}), owner, &self.members[1]),
            (_, "/v1/plan/changes") => (json!({"plan": "STARTER"}), owner, none),
            (_, "/v1/plan/changes/pending") => (json!({}), owner, none),
            (_, "/v1/payment-method") => (json!({"payment_token": "tok_better"}), owner, none),
            (_, "/v1/invoices/{id}/pay") => (json!({}), &self.debtor, &self.invoice),
            (_, "/v1/webhooks/payments") => (self.event.clone(), owner, none),
            other => panic!("say here what {other:?} takes to be granted"),
        }
    }

    /// A request that its route would grant.
    fn request(&self, method: &Method, path: &str, key: &str) -> Vec<u8> {
        let (body, session, id) = self.body(method, path, key);
        let at: Vec<&str> = path.split('/').map(|part| if part.starts_with('{') { id } else { part }).collect();
        let body = body.to_string();
        let now = Utc::now().timestamp();
        let event = key.replace(|c: char| !c.is_ascii_alphanumeric(), "-");
        let signature = WebhookSecrets::parse(SECRET).unwrap().sign(&event, now, body.as_bytes());
        format!(
            "{method} {} HTTP/1.1\r\nhost: test\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\n\
             idempotency-key: {key}\r\nif-match: \"1\"\r\nwebhook-id: {event}\r\nwebhook-timestamp: {now}\r\n\
             webhook-signature: {signature}\r\ncontent-length: {}\r\n\r\n{body}",
            at.join("/"),
            text(session, "access_token"),
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
    let token = text(&bed.owner, "access_token").to_owned();
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
    let mut refused = BTreeSet::new();
    for (method, path) in Bed::operations() {
        // Reading goes on, so whoever waits does so with something to write; the cache is left out, which is
        // kept by a connection of its own.
        let tables = "SELECT string_agg(format('app.%I', tablename), ', ') FROM pg_tables
                      WHERE schemaname = 'app' AND tablename NOT LIKE 'cache%'";
        let tables: String = sqlx::query_scalar(tables).fetch_one(&mut bed.admin).await.unwrap();
        let mut holder = PgConnection::connect(&bed.paying.servers.database_url("postgres")).await.unwrap();
        let held = format!("BEGIN; LOCK TABLE {tables} IN SHARE MODE");
        sqlx::raw_sql(AssertSqlSafe(held)).execute(&mut holder).await.unwrap();
        let mut stream = bed.connect().await;
        stream.write_all(&bed.request(&method, &path, &format!("held {method} {path}"))).await.unwrap();
        stream.flush().await.unwrap();
        let given_up = Instant::now() + Duration::from_secs(5);
        let waiters = "SELECT count(*) FROM pg_stat_activity
                       WHERE usename = 'forecastle_app' AND wait_event_type = 'Lock'";
        while bed.count(waiters).await == 0 {
            if Instant::now() > given_up {
                let mut answer = [0; 4096];
                let read = tokio::time::timeout(Duration::from_secs(1), stream.read(&mut answer)).await;
                let read = read.map_or(0, |read| read.unwrap_or(0));
                refused.insert(format!("{method} {path}: {}", String::from_utf8_lossy(&answer[..read])));
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        drop(stream);
        sqlx::raw_sql("ROLLBACK").execute(&mut holder).await.unwrap();
        bed.until_clean().await;
    }
    assert_eq!(refused, BTreeSet::new(), "these wrote nothing");
    bed.assert_whole().await;
}
