//! Every route is driven with a string of its own in every field, through real processes with all sinks
//! on. None of those strings may reach a log, a metric, an error report or an analytics event.

use std::time::Duration;

use forecastle_testbed::{SmtpMode, SmtpServer, customers};
use reqwest::Method;
use serde_json::{Value, json};

use crate::process::{Ground, KEY, metric, metrics_of, scenario, text, until};
use crate::sink::Sink;

const EMAIL: &str = "canarymail7f3a@leak.example";
const PASSWORD: &str = "CanaryPassword4410 with spaces";
const OTHER_PASSWORD: &str = "CanaryPassword5521 with spaces";
/// Sent somewhere by the test, expected nowhere.
const CANARIES: [&str; 16] = [
    "canarymail7f3a",
    "canaryother8",
    "CanaryPassword4410",
    "CanaryPassword5521",
    "CanaryPerson",
    "CanaryOrganisation",
    "CanaryPayment",
    "CanaryScenario",
    "CanaryNotes",
    "CanaryLine",
    "CanaryKey",
    "CanaryPath",
    "CanaryQuery",
    "CanaryBearer",
    "CanaryAgent",
    "918273645",
];
const CLIENT_ADDRESS: &str = "203.0.113.77";

fn sign_up(email: &str) -> Value {
    json!({
        "organization": "CanaryOrganisation Ltd", "name": "CanaryPerson", "email": email, "password": PASSWORD,
        "plan": "PRO", "currency": "EUR", "time_zone": "Europe/Berlin", "payment_token": "CanaryPayment",
    })
}

fn canary_scenario() -> Value {
    let mut body = scenario("CanaryScenario");
    body["notes"] = json!("CanaryNotes");
    body["input"]["opening_cash"] = json!("918273645.11");
    body["input"]["revenue"][0]["name"] = json!("CanaryLine");
    body
}

/// An object with a canary in whatever field a route may have, known or not.
fn anything() -> Value {
    json!({
        "email": EMAIL, "password": PASSWORD, "token": "CanaryBearer", "refresh_token": "CanaryBearer",
        "name": "CanaryPerson", "notes": "CanaryNotes", "organization": "CanaryOrganisation", "plan": "CanaryKey",
        "scenario_id": "CanaryPath", "payment_token": "CanaryPayment", "amount": "918273645.11",
        "input": { "CanaryLine": 918_273_645 }, "CanaryKey": true,
    })
}

struct Driver {
    client: reqwest::Client,
    base: String,
}

impl Driver {
    async fn send(&self, method: &Method, path: &str, token: Option<&str>, body: &Value) -> (u16, Value) {
        let mut request = self
            .client
            .request(method.clone(), format!("{}{path}", self.base))
            .timeout(Duration::from_secs(5))
            .header("user-agent", "CanaryAgent/1")
            .header("x-forwarded-for", CLIENT_ADDRESS)
            .header("idempotency-key", format!("CanaryKey {}", uuid::Uuid::new_v4()))
            .header("if-match", "\"1\"");
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        // A stream of events never ends by itself; its head is enough.
        let Ok(response) = request.json(body).send().await else { return (0, Value::Null) };
        let status = response.status().as_u16();
        (status, response.json().await.unwrap_or(Value::Null))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_canary_reaches_a_log_a_metric_an_error_report_or_an_analytics_event() {
    let ground = Ground::start().await;
    let (errors, analytics, smtp) = (Sink::start().await, Sink::start().await, SmtpServer::start());
    let dsn = format!("http://public@{}/7", errors.address);
    let url = format!("http://{}/batch", analytics.address);
    let api = ground.serve(
        "api",
        &[
            "--error-dsn",
            &dsn,
            "--analytics-url",
            &url,
            "--analytics-key",
            KEY,
            "--analytics-linger-ms",
            "50",
            "--mail-token-key",
            KEY,
            "--mail-reset-floor-ms",
            "10",
            "--log-level",
            "debug",
            "--trusted-proxies",
            "127.0.0.1/32",
        ],
    );
    let smtp_port = smtp.port().to_string();
    let mail = ground.run(
        "mail",
        "mail",
        &[
            "--error-dsn",
            &dsn,
            "--mail-token-key",
            KEY,
            "--smtp-port",
            &smtp_port,
            "--mail-from",
            "no-reply@forecastle.example",
            "--public-url",
            "http://127.0.0.1",
            "--poll-ms",
            "50",
            "--metrics-listen",
            "127.0.0.1:0",
            "--log-level",
            "debug",
        ],
    );
    let redis_url = ground.redis.url();
    let work = ground.run(
        "work",
        "work",
        &["--error-dsn", &dsn, "--redis-url", &redis_url, "--metrics-listen", "127.0.0.1:0", "--log-level", "debug"],
    );
    let driver = Driver { client: reqwest::Client::new(), base: api.base() };
    let post = Method::POST;

    // A life with canaries in it.
    let (status, session) = driver.send(&post, "/v1/signup", None, &sign_up(EMAIL)).await;
    assert_eq!(status, 201, "{session}");
    let token = text(&session, "access_token").to_owned();
    let mut secrets =
        vec![token.clone(), text(&session, "refresh_token").to_owned(), text(&session, "tenant_id").to_owned()];
    secrets.push(text(&session, "user_id").to_owned());
    let (status, made) = driver.send(&post, "/v1/scenarios", Some(&token), &canary_scenario()).await;
    assert_eq!(status, 201, "{made}");
    let id = text(&made, "id").to_owned();
    assert_eq!(driver.send(&post, "/v1/forecasts", Some(&token), &json!({"scenario_id": id})).await.0, 202);
    assert_eq!(driver.send(&post, "/v1/password-reset", None, &json!({"email": EMAIL})).await.0, 202);
    until("both mails arrive", async || smtp.mails().len() == 2).await;
    let reset = smtp.mails().iter().find(|mail| mail.header("Subject").contains("password")).unwrap().token().unwrap();
    let body = json!({"token": reset, "password": OTHER_PASSWORD});
    assert_eq!(driver.send(&post, "/v1/password-reset/confirm", None, &body).await.0, 204);
    secrets.push(reset);
    let (status, session) =
        driver.send(&post, "/v1/login", None, &json!({"email": EMAIL, "password": OTHER_PASSWORD})).await;
    assert_eq!(status, 200);
    let token = text(&session, "access_token").to_owned();
    secrets.extend([token.clone(), text(&session, "refresh_token").to_owned()]);

    // Every route: as asked for, with rubbish in it, and by nobody.
    let document = driver.send(&Method::GET, "/openapi.json", None, &json!({})).await.1;
    let mut driven = 0;
    for (path, item) in document["paths"].as_object().expect("paths") {
        for method in item.as_object().expect("operations").keys() {
            if path == "/v1/logout" {
                continue;
            }
            let method: Method = method.to_uppercase().parse().unwrap();
            for id in [id.as_str(), "CanaryPath"] {
                let at = format!("{}?after=CanaryQuery&limit=CanaryQuery", path.replace("{id}", id));
                for token in [Some(token.as_str()), Some("CanaryBearer.CanaryBearer.CanaryBearer"), None] {
                    driver.send(&method, &at, token, &anything()).await;
                    driven += 1;
                }
            }
        }
    }
    assert!(driven > 100, "{driven}");
    let broken = driver.client.post(format!("{}/v1/login", driver.base)).header("content-type", "application/json");
    broken.body("{\"email\": \"canarymail7f3a@leak.example\", CanaryKey").send().await.expect("an answer");

    // Bugs: rows that no code of ours writes, and a mail that can never be delivered.
    let mut admin = customers::connect(&ground.postgres.admin_url()).await;
    sqlx::query("UPDATE app.tenants SET time_zone = 'CanaryPath'").execute(&mut admin).await.unwrap();
    for path in ["/v1/usage", "/v1/dashboard", "/v1/plan"] {
        let (status, problem) = driver.send(&Method::GET, path, Some(&token), &json!({})).await;
        assert!(status == 500 || status == 200, "{path}: {status} {problem}");
    }
    smtp.set(SmtpMode::Refuse(550));
    assert_eq!(driver.send(&post, "/v1/signup", None, &sign_up("canaryother8@leak.example")).await.0, 201);
    let told = |what: &str| errors.received().iter().any(|report| report.contains(what));
    until("both bugs are reported", async || told("request failed by a bug") && told("mail given up")).await;
    until("analytics arrive", async || analytics.received().iter().any(|batch| batch.contains("forecast_requested")))
        .await;
    assert_eq!(driver.send(&post, "/v1/logout", Some(&token), &json!({})).await.0, 204);

    let mut places = vec![
        ("metrics of the api", metrics_of(&api.base()).await),
        ("metrics of mail", metrics_of(&mail.base()).await),
        ("metrics of work", metrics_of(&work.base()).await),
    ];
    assert!(metric(&places[0].1, "http_requests_total", "") > 100.0, "{}", places[0].1);
    assert!(metric(&places[1].1, "forecastle_mails_total", "sent") >= 2.0, "{}", places[1].1);
    for process in [&api, &mail, &work] {
        process.signal("TERM");
    }
    until("the drains are logged", async || api.logged().contains("draining")).await;
    places.push(("log of the api", api.logged()));
    places.push(("log of mail", mail.logged()));
    places.push(("log of work", work.logged()));
    assert!(places[3].1.lines().count() > 20 && places[4].1.lines().count() > 1, "the logs do hold something");
    assert!(places[3].1.contains("\"cause\":"), "causes of bugs are printed");
    places.extend(errors.received().into_iter().map(|report| ("error report", report)));
    places.extend(analytics.received().into_iter().map(|batch| ("analytics", batch)));
    let reports = errors.received().len();
    assert!(reports >= 2 && !analytics.received().is_empty(), "{reports} reports");
    assert!(errors.received().iter().all(|report| report.starts_with("/api/7/envelope/")));

    for (place, text) in &places {
        let lower = text.to_lowercase();
        for canary in CANARIES.iter().copied().chain(secrets.iter().map(String::as_str)).chain([CLIENT_ADDRESS]) {
            assert!(!lower.contains(&canary.to_lowercase()), "{canary} in the {place}: {text}");
        }
    }
}
