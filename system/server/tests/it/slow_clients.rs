//! Clients that send byte by byte, and clients that never read what they are answered.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection as _};
use tokio::io::AsyncWriteExt as _;

use crate::process::{Ground, text, until};
use crate::raw_client::{Raw, Subject};

/// What slow clients may add to the memory of the process, KiB: each takes a task and its buffers.
const GROWTH_KIB: u64 = 24 << 10;
const PAUSE: Duration = Duration::from_millis(40);
const HEAD: Duration = Duration::from_millis(1_000);
const BODY: Duration = Duration::from_millis(700);
/// What a sweep, a busy machine and the last words may take beside a limit.
const SLACK: Duration = Duration::from_millis(2_500);
const SETTINGS: [&str; 14] = [
    "--head-timeout-ms",
    "1000",
    "--body-timeout-ms",
    "700",
    "--idle-timeout-ms",
    "1500",
    "--write-timeout-ms",
    "1000",
    "--linger-ms",
    "300",
    "--connections-max",
    "400",
    "--stream-stall-ms",
    "300",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heads_and_bodies_that_trickle_are_answered_408_in_time_and_others_are_served_meanwhile() {
    let ground = Ground::start().await;
    let subject = Subject::start(&ground, &SETTINGS).await;
    let bystander = subject.bystander();
    let token = &subject.token;
    let post = |path: &str, more: &str| {
        format!("POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n{more}\r\n\r\n{{").into_bytes()
    };
    let signed = format!("idempotency-key: k\r\nauthorization: Bearer {token}\r\ncontent-length: 2000");
    let kinds = [
        (b"GET /v1/me HTTP/1.1\r\nhost: x\r\nx-slow: ".to_vec(), HEAD, true),
        (b"GE".to_vec(), HEAD, true),
        (b"GET /v1/".to_vec(), HEAD, true),
        (post("/v1/login", "content-length: 2000"), BODY, true),
        (post("/v1/login", "transfer-encoding: chunked\r\n\r\n200"), BODY, true),
        (post("/v1/scenarios", &signed), BODY, true),
    ];
    let mut clients = Vec::new();
    for (first, limit, _) in kinds.iter().cycle().take(40 * kinds.len()).cloned() {
        let address = subject.address();
        clients.push(tokio::spawn(async move {
            let (told, lasted) = Raw::open(&address).await.trickle(&first, PAUSE).await;
            let what = String::from_utf8_lossy(&first).into_owned();
            let told = told.unwrap_or_else(|| panic!("no answer to {what}"));
            assert_eq!((told.status, told.code.as_str()), (408, "request_timeout"), "{what}");
            assert!(told.head.contains("connection: close"), "{}", told.head);
            assert!(lasted + PAUSE >= limit && lasted <= limit + SLACK, "{lasted:?} for {what}");
        }));
    }
    for client in clients {
        client.await.expect("answered in time");
    }
    bystander.was_served("trickling").await;
    subject.grew_at_most(GROWTH_KIB, "trickling");

    // Who says nothing at all is let go without a word.
    for before in ["", "GET /livez HTTP/1.1\r\nhost: x\r\n\r\n"] {
        let mut silent = Raw::open(&subject.address()).await;
        if !before.is_empty() {
            assert_eq!(silent.ask(before.as_bytes()).await.expect("an answer").status, 200);
        }
        let started = Instant::now();
        assert_eq!(silent.ask(b"").await, None);
        assert!(started.elapsed() <= Duration::from_millis(1_500) + SLACK, "{:?}", started.elapsed());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_never_reads_its_answers_is_cut_off_and_holds_up_nobody() {
    let ground = Ground::start().await;
    let subject = Subject::start(&ground, &SETTINGS).await;
    let bystander = subject.bystander();
    let mut lazy = Vec::new();
    for _ in 0..40 {
        let mut reader = Raw::narrow(&subject.address()).await;
        let many = "GET /openapi.json HTTP/1.1\r\nhost: x\r\n\r\n".repeat(200);
        // More answers than all buffers between the two can hold.
        reader.stream.write_all(many.as_bytes()).await.expect("sent");
        lazy.push(reader);
    }
    until("they are cut off", async || {
        subject.metric("forecastle_connections_cut_total", "answer_unread").await >= 40.0
    })
    .await;
    subject.grew_at_most(GROWTH_KIB, "answers that nobody reads");
    bystander.was_served("answers that nobody reads").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_never_reads_its_stream_is_cut_off_and_holds_up_nobody() {
    let ground = Ground::start().await;
    let subject = Subject::start(&ground, &SETTINGS).await;
    let client = reqwest::Client::new();
    let scenario: Value = client
        .get(format!("{}/v1/scenarios", subject.api.base()))
        .bearer_auth(&subject.token)
        .send()
        .await
        .expect("an answer")
        .json()
        .await
        .expect("scenarios");
    let body = json!({"scenario_id": scenario["items"][0]["id"]});
    let request = client.post(format!("{}/v1/forecasts", subject.api.base())).header("idempotency-key", "f");
    let asked = request.bearer_auth(&subject.token).json(&body).send().await.expect("an answer");
    let forecast: Value = asked.json().await.expect("a forecast");

    let bystander = subject.bystander();
    let mut lazy = Vec::new();
    for _ in 0..8 {
        let mut reader = Raw::narrow(&subject.address()).await;
        let request =
            format!("GET /v1/forecasts/events HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n\r\n", subject.token);
        reader.stream.write_all(request.as_bytes()).await.expect("sent");
        lazy.push(reader);
    }
    until("the streams are open", async || subject.metric("forecastle_streams_open", "").await >= 8.0).await;
    let mut admin = sqlx::PgConnection::connect(&ground.postgres.admin_url()).await.expect("connect");
    // More than the buffers between the two can hold.
    let flood = format!(
        "WITH told AS (
             INSERT INTO app.forecast_events (tenant_id, forecast_id, state, error_code)
             SELECT tenant_id, forecast_id, 'running', repeat('x', 400)
             FROM app.forecasts, generate_series(1, 20000) WHERE forecast_id = '{}' RETURNING tenant_id)
         SELECT count(pg_notify('forecastle_events', tenant_id::text)) FROM told",
        text(&forecast, "id")
    );
    let told: i64 = sqlx::query_scalar(AssertSqlSafe(flood)).fetch_one(&mut admin).await.expect("flood");
    assert_eq!(told, 20_000);
    until("their streams end", async || subject.metric("forecastle_streams_open", "").await < 1.0).await;
    until("their connections are cut", async || {
        subject.metric("forecastle_connections_cut_total", "answer_unread").await >= 8.0
    })
    .await;
    subject.grew_at_most(GROWTH_KIB, "streams that nobody reads");
    bystander.was_served("streams that nobody reads").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_does_not_wait_for_slow_clients_longer_than_their_limits() {
    let ground = Ground::start().await;
    let subject = Subject::start(&ground, &SETTINGS).await;
    let mut slow = Vec::new();
    for first in ["GET /v1/me HTTP/1.1\r\nx-slow: ", "", "GET /openapi.json HTTP/1.1\r\nhost: x\r\n\r\n"] {
        for _ in 0..10 {
            let mut client = Raw::narrow(&subject.address()).await;
            client
                .stream
                .write_all(first.repeat(if first.ends_with("\r\n\r\n") { 200 } else { 1 }).as_bytes())
                .await
                .expect("sent");
            slow.push(client);
        }
    }
    until("all are there", async || subject.metric("forecastle_connections_open", "").await >= 30.0).await;
    let started = Instant::now();
    subject.api.signal("TERM");
    assert!(subject.api.ended().await.success());
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
}
