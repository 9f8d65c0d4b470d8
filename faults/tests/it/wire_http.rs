//! Rules on links to an HTTP server that counts what it did.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use axum::{Router, body::Bytes, extract::State, http::HeaderMap, routing::post};
use nogo_faults::{Action, HttpPattern, Pattern, Place, Protocol};
use reqwest::{Client, RequestBuilder, StatusCode};
use tokio::{net::TcpListener, time::timeout};

use crate::{
    echo_rig::LOOPBACK,
    wire_rig::{LIMIT, WireRig},
};

/// Charges that were made, and bytes that came with them.
#[derive(Clone, Default)]
struct Charges {
    made: Arc<AtomicU64>,
    bytes: Arc<AtomicU64>,
}

async fn charge(State(charges): State<Charges>, body: Bytes) -> String {
    charges.made.fetch_add(1, Ordering::SeqCst);
    charges.bytes.fetch_add(body.len() as u64, Ordering::SeqCst);
    "charged ".repeat(100)
}

async fn provider() -> (SocketAddr, Charges) {
    let charges = Charges::default();
    let routes = Router::new().route("/v1/charges", post(charge).get(|| async { "none" })).with_state(charges.clone());
    let listener = TcpListener::bind(LOOPBACK).await.expect("bind");
    let address = listener.local_addr().expect("address");
    tokio::spawn(async move { axum::serve(listener, routes).await });
    (address, charges)
}

struct Rig {
    wire: WireRig,
    charges: Charges,
    client: Client,
}

impl Rig {
    async fn start() -> Self {
        let (address, charges) = provider().await;
        let wire = WireRig::start(address, Protocol::Http).await;
        let client = Client::builder().no_proxy().timeout(LIMIT).build().expect("client");
        Self { wire, charges, client }
    }

    fn post(&self) -> RequestBuilder {
        self.client.post(format!("http://{}/v1/charges?key=1", self.wire.listen)).body("x".repeat(10_000))
    }

    fn made(&self) -> u64 {
        self.charges.made.load(Ordering::SeqCst)
    }
}

fn charges() -> Pattern {
    Pattern::Http(HttpPattern { method: Some("POST".into()), path: Some("/v1/*".into()) })
}

#[tokio::test]
async fn a_request_or_its_answer_is_lost_before_or_after_the_effect() {
    let rig = Rig::start().await;
    let mut made = 0;
    for (place, effect) in [(Place::BeforeServer, 0), (Place::BeforeClient, 1)] {
        for action in [Action::Drop, Action::Cut, Action::Reset, Action::Hold { ms: None }] {
            let name = format!("{place:?}-{action:?}");
            rig.wire.rule(&name, charges(), 2, place, action.clone());
            rig.client.get(format!("http://{}/v1/charges", rig.wire.listen)).send().await.expect("another method");
            assert_eq!(rig.post().send().await.expect("the first is not meant").status(), StatusCode::OK);
            let mut posting = tokio::spawn(rig.post().send());
            rig.wire.book.wait_for(&name, LIMIT, |record| record.observed == 1).await.expect("bites");
            if matches!(action, Action::Drop | Action::Hold { .. }) {
                let silence = timeout(Duration::from_millis(100), &mut posting).await;
                assert!(silence.is_err(), "{name}: {silence:?}");
                posting.abort();
            } else {
                let failure = posting.await.expect("join").expect_err("the connection is gone");
                assert!(!failure.is_timeout(), "{name}: {failure:?}");
            }
            made += 1 + effect;
            assert_eq!(rig.made(), made, "{name}");
            let record = rig.wire.record(&name);
            assert_eq!((record.matched, record.observed, record.applied), (2, 1, effect), "{name}");
            rig.wire.book.remove(&name).expect("remove");
        }
    }
    assert_eq!(rig.wire.untracked(), Vec::<String>::new());
}

#[tokio::test]
async fn another_answer_takes_the_place_of_the_servers_before_or_after_the_effect() {
    let rig = Rig::start().await;
    let busy = Action::Error { code: "429".into(), text: Some("slow down".into()), retry_after_s: Some(7) };
    let broken = Action::Error { code: "502".into(), text: None, retry_after_s: None };
    rig.wire.rule("busy", charges(), 1, Place::BeforeServer, busy);
    rig.wire.rule("broken", charges(), 2, Place::BeforeClient, broken);

    let answer = rig.post().send().await.expect("an answer");
    assert_eq!(answer.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(answer.headers()["retry-after"], "7");
    let problem: serde_json::Value = answer.json().await.expect("a problem");
    assert_eq!(problem["title"], "slow down");
    assert_eq!(rig.made(), 0, "refused without effect");

    let answer = rig.post().send().await.expect("an answer");
    assert_eq!(answer.status(), StatusCode::BAD_GATEWAY);
    assert_eq!(rig.made(), 1, "refused after the effect");
    assert_eq!(rig.wire.record("broken").applied, 1);

    let answer = rig.post().send().await.expect("an answer");
    assert_eq!(answer.text().await.expect("text"), "charged ".repeat(100), "the connection goes on");
    assert_eq!((rig.made(), rig.charges.bytes.load(Ordering::SeqCst)), (2, 20_000));
    assert_eq!(rig.wire.untracked(), Vec::<String>::new());
}

#[tokio::test]
async fn a_slow_body_trickles_after_a_head_that_came_at_once() {
    let rig = Rig::start().await;
    let trickle = Action::Slow { bytes: 100, every_ms: 20 };
    rig.wire.rule("slow-answer", charges(), 1, Place::BeforeClient, trickle.clone());
    rig.wire.rule("slow-request", charges(), 2, Place::BeforeServer, Action::Slow { bytes: 2_000, every_ms: 20 });
    let started = Instant::now();
    let answer = rig.post().send().await.expect("a head");
    assert_eq!(answer.text().await.expect("text").len(), 800);
    assert!(started.elapsed() >= Duration::from_millis(160), "eight pieces of 100 bytes: {:?}", started.elapsed());

    let started = Instant::now();
    assert_eq!(rig.post().send().await.expect("an answer").status(), StatusCode::OK);
    assert!(started.elapsed() >= Duration::from_millis(100), "five pieces and more: {:?}", started.elapsed());
    assert_eq!(rig.made(), 2);
    for name in ["slow-answer", "slow-request"] {
        assert_eq!(rig.wire.record(name).observed, 1, "{name}");
    }
}

#[tokio::test]
async fn a_late_answer_is_late_and_the_effect_is_not() {
    let rig = Rig::start().await;
    rig.wire.rule("late", charges(), 1, Place::BeforeClient, Action::Late { ms: 1_000 });
    let started = Instant::now();
    let request = rig.post();
    let posting = tokio::spawn(request.send());
    rig.wire.book.wait_for("late", LIMIT, |record| record.applied == 1).await.expect("applied");
    assert_eq!(rig.made(), 1);
    assert!(!posting.is_finished() || started.elapsed() >= Duration::from_millis(1_000));
    assert_eq!(posting.await.expect("join").expect("late, but not lost").status(), StatusCode::OK);
    assert!(started.elapsed() >= Duration::from_millis(1_000));
}

/// A sink that takes what is signed for, and remembers its number.
async fn take_signed(State(taken): State<Arc<Mutex<Vec<u64>>>>, headers: HeaderMap, body: String) -> StatusCode {
    let number: u64 = body.parse().expect("a number");
    if headers.get("signature").is_none_or(|signature| signature != &signed(&body)) {
        return StatusCode::UNAUTHORIZED;
    }
    taken.lock().expect("taken").push(number);
    StatusCode::NO_CONTENT
}

/// Enough to tell a changed body.
fn signed(body: &str) -> String {
    format!("{:x}", body.bytes().fold(7_u64, |sum, byte| sum.wrapping_mul(31) + u64::from(byte)))
}

#[tokio::test]
async fn webhooks_come_twice_forged_late_and_in_another_order() {
    let taken = Arc::new(Mutex::new(Vec::new()));
    let routes = Router::new().route("/webhooks", post(take_signed)).with_state(Arc::clone(&taken));
    let listener = TcpListener::bind(LOOPBACK).await.expect("bind");
    let address = listener.local_addr().expect("address");
    tokio::spawn(async move { axum::serve(listener, routes).await });
    let wire = WireRig::start(address, Protocol::Http).await;
    let send = async |number: u64| {
        // Each on a connection of its own.
        let client = Client::builder().no_proxy().timeout(LIMIT).build().expect("client");
        let body = number.to_string();
        let request = client.post(format!("http://{}/webhooks", wire.listen)).header("signature", signed(&body));
        request.body(body).send().await.expect("an answer").status()
    };
    let hooks = || Pattern::Http(HttpPattern { method: Some("POST".into()), path: Some("/webhooks".into()) });
    wire.rule("twice", hooks(), 1, Place::BeforeServer, Action::Twice);
    wire.rule("forge", hooks(), 2, Place::BeforeServer, Action::Forge);
    wire.rule("late", hooks(), 3, Place::BeforeServer, Action::Late { ms: 1_000 });

    assert_eq!(send(10).await, StatusCode::NO_CONTENT, "one answer");
    wire.book.wait_for("twice", LIMIT, |record| record.observed == 1).await.expect("twice");
    assert_eq!(*taken.lock().expect("taken"), [10, 10]);
    assert_eq!(wire.record("twice").applied, 1);

    assert_eq!(send(20).await, StatusCode::UNAUTHORIZED);
    assert_eq!(wire.record("forge").observed, 1);

    let overtake = async {
        wire.book.wait_for("late", LIMIT, |record| record.acted == 1).await.expect("the third is held back");
        assert_eq!(send(40).await, StatusCode::NO_CONTENT);
    };
    let (late, ()) = tokio::join!(send(30), overtake);
    assert_eq!(late, StatusCode::NO_CONTENT);
    assert_eq!(*taken.lock().expect("taken"), [10, 10, 40, 30]);
    assert_eq!(wire.record("late").observed, 1);
    assert_eq!(wire.untracked(), Vec::<String>::new());
}
