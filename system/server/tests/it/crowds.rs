//! More connections, and more bytes of bodies, than an instance takes.

use std::sync::Arc;

use tokio::io::AsyncWriteExt as _;

use crate::process::{Ground, until};
use crate::raw_client::{Raw, Subject};

/// What a crowd of connections may add to the memory of the process, KiB.
const CROWD_KIB: u64 = 24 << 10;
/// What bodies may add beside the room that is set for them, KiB: they are read in pieces, and freed memory
/// does not all go back.
const BODIES_KIB: u64 = 40 << 10;
const MIB: usize = 1 << 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_connections_beyond_the_cap_make_room_for_newcomers() {
    let ground = Ground::start().await;
    let subject = Subject::start(&ground, &["--connections-max", "64"]).await;
    let bystander = subject.bystander();
    let mut idle = Vec::new();
    for number in 0..600 {
        let mut one = Raw::open(&subject.address()).await;
        match number % 3 {
            0 => {}
            1 => drop(one.stream.write_all(b"GET /v1/me HTTP/1.1\r\nhost").await),
            _ => drop(one.stream.write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n").await),
        }
        idle.push(one);
        if number % 50 == 0 {
            subject.honest().await;
        }
    }
    assert!(subject.metric("forecastle_connections_open", "").await <= 64.0);
    let displaced = subject.metric("forecastle_connections_cut_total", "displaced").await;
    assert!(displaced >= 500.0, "{displaced}");
    assert_eq!(subject.metric("forecastle_connections_refused_total", "").await, 0.0);
    subject.grew_at_most(CROWD_KIB, "600 connections, 64 allowed");
    bystander.was_served("600 connections, 64 allowed").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_every_connection_is_at_work_a_newcomer_is_refused_at_once() {
    let ground = Ground::start().await;
    let subject = Subject::start(&ground, &["--connections-max", "4"]).await;
    let request =
        format!("GET /v1/forecasts/events HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n\r\n", subject.token);
    let mut streams = Vec::new();
    for _ in 0..4 {
        let mut stream = Raw::open(&subject.address()).await;
        assert_eq!(stream.ask(request.as_bytes()).await.expect("a stream").status, 200);
        streams.push(stream);
    }
    for _ in 0..20 {
        let mut newcomer = Raw::open(&subject.address()).await;
        let told = newcomer.ask(b"").await.expect("a word");
        assert_eq!((told.status, told.code.as_str()), (503, "too_many_connections"));
        assert!(told.head.contains("retry-after: 1"), "{}", told.head);
    }
    drop(streams.pop());
    until("there is room again", async || {
        let mut newcomer = Raw::open(&subject.address()).await;
        let told = newcomer.ask(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n").await;
        told.is_some_and(|told| told.status == 200)
    })
    .await;
    subject.honest().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_of_100_mb_is_refused_and_not_kept() {
    let ground = Ground::start().await;
    let subject = Subject::start(&ground, &[]).await;
    let bystander = subject.bystander();
    let hundred = 100 * MIB;
    let signed = format!("idempotency-key: k\r\nauthorization: Bearer {}\r\n", subject.token);
    let head = |path: &str, more: &str| {
        format!("POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n{more}\r\n\r\n").into_bytes()
    };
    let with_length = format!("content-length: {hundred}");
    let mut sizes = Vec::new();
    for (path, more) in [("/v1/login", ""), ("/v1/scenarios", signed.as_str()), ("/v1/webhooks/payments", "")] {
        for chunked in [false, true] {
            let framing = if chunked { "transfer-encoding: chunked" } else { &with_length };
            let mut request = head(path, &format!("{more}{framing}"));
            let piece = vec![b'['; MIB];
            for _ in 0..100 {
                if chunked {
                    request.extend_from_slice(format!("{MIB:x}\r\n").as_bytes());
                }
                request.extend_from_slice(&piece);
                if chunked {
                    request.extend_from_slice(b"\r\n");
                }
            }
            let request = Arc::new(request);
            let clients: Vec<_> = (0..4)
                .map(|_| {
                    let (address, request) = (subject.address(), Arc::clone(&request));
                    tokio::spawn(async move { Raw::open(&address).await.ask(&request).await.expect("an answer") })
                })
                .collect();
            let expected = match path {
                "/v1/webhooks/payments" => (503, "payments_unavailable".to_owned()),
                _ => (413, "body_too_large".to_owned()),
            };
            for client in clients {
                let told = client.await.expect("no panic");
                assert_eq!((told.status, told.code), expected, "{path} {framing}");
            }
            sizes.push(subject.api.resident_kib());
        }
    }
    println!("VmRSS after each kind, KiB: {sizes:?}");
    bystander.was_served("bodies of 100 MB").await;
    subject.grew_at_most(BODIES_KIB, "24 bodies of 100 MB");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_that_have_no_room_together_are_refused_until_there_is_room_again() {
    let ground = Ground::start().await;
    let subject = Subject::start(&ground, &["--bodies-bytes-max", "3145728", "--body-timeout-ms", "2000"]).await;
    let head = format!(
        "POST /v1/login HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {MIB}\r\n\r\n"
    );
    let piece = [head.clone().into_bytes(), vec![b' '; MIB - 1]].concat();
    let mut holders = Vec::new();
    for _ in 0..8 {
        let (address, piece) = (subject.address(), piece.clone());
        holders.push(tokio::spawn(async move {
            let told = Raw::open(&address).await.ask(&piece).await.expect("an answer");
            (told.status, told.code)
        }));
    }
    let mut told = Vec::new();
    for holder in holders {
        told.push(holder.await.expect("no panic"));
    }
    told.sort();
    let waited = told.iter().filter(|told| told.0 == 408).count();
    let refused = told.iter().filter(|told| **told == (503, "unavailable".to_owned())).count();
    assert!(waited >= 1 && refused >= 5 && waited + refused == 8, "{told:?}");
    let whole = [head.into_bytes(), vec![b' '; MIB]].concat();
    let last = Raw::open(&subject.address()).await.ask(&whole).await.expect("an answer");
    assert_eq!((last.status, last.code.as_str()), (400, "malformed_json"), "there is room again");
    subject.honest().await;
}
