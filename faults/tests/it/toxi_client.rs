//! The client notices a server that agrees and does nothing, and heals what it did.

use std::net::{Ipv4Addr, SocketAddr};

use axum::{Json, Router, http::StatusCode, response::IntoResponse, routing::get};
use nogo_faults::{ProxySpec, Stream, ToxiClient, ToxiError, Toxic, ToxidServer};
use serde_json::json;

const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
const LATENCY: Toxic = Toxic::Latency { latency_ms: 100, jitter_ms: 10 };
const RESET: Toxic = Toxic::ResetPeer { timeout_ms: 5 };

fn spec(name: &str) -> ProxySpec {
    ProxySpec { name: name.into(), listen: "127.0.0.1:0".into(), upstream: "127.0.0.1:9".into() }
}

/// Answers 200 to everything and shows one proxy, enabled, with one toxic, for ever.
async fn lying_server() -> SocketAddr {
    let shown = || {
        json!({
            "name": "db", "listen": "127.0.0.1:1", "upstream": "127.0.0.1:9", "enabled": true,
            "toxics": [{
                "name": "old", "type": "latency", "stream": "upstream", "toxicity": 1.0,
                "attributes": { "latency": 1, "jitter": 0 },
            }],
        })
    };
    let fine = || async { (StatusCode::OK, Json(json!({ "proxies": [] }))).into_response() };
    let router = Router::new()
        .route("/proxies", get(move || async move { Json(json!({ "db": shown() })) }).post(fine))
        .route("/proxies/{proxy}", get(move || async move { Json(shown()) }).post(fine).delete(fine))
        .fallback(fine);
    let listener = tokio::net::TcpListener::bind(LOOPBACK).await.expect("bind");
    let address = listener.local_addr().expect("address");
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

fn not_taken<T: std::fmt::Debug>(outcome: Result<T, ToxiError>) {
    assert!(matches!(outcome, Err(ToxiError::NotTaken { .. })), "{outcome:?}");
}

#[tokio::test]
async fn every_change_a_lying_server_does_not_take_is_noticed() {
    let client = ToxiClient::connect(lying_server().await).await.expect("it answers");
    not_taken(client.populate(&[spec("db"), spec("cache")]).await);
    let elsewhere = ProxySpec { upstream: "127.0.0.1:10".into(), ..spec("db") };
    not_taken(client.create_proxy(&elsewhere).await);
    not_taken(client.set_upstream("db", "127.0.0.1:10").await);
    not_taken(client.set_enabled("db", false).await);
    not_taken(client.delete_proxy("db").await);
    not_taken(client.add_toxic("db", Stream::Upstream, LATENCY).await);
    not_taken(client.add_toxic("db", Stream::Upstream, RESET).await);
    not_taken(client.update_toxic("db", "old", Stream::Upstream, LATENCY, 1.0).await);
    not_taken(client.remove_toxic("db", "old").await);
    not_taken(client.reset().await);
}

#[tokio::test]
async fn an_address_where_nobody_answers_is_unreachable() {
    let nobody = crate::private_servers::free_address();
    assert!(matches!(ToxiClient::connect(nobody).await, Err(ToxiError::Unreachable { .. })));
}

#[tokio::test]
async fn refusals_keep_their_status_whichever_client_would_have_sent_them() {
    let server = ToxidServer::start(1, LOOPBACK).await.expect("start");
    let client = ToxiClient::connect(server.api_addr()).await.expect("connect");
    let status = |outcome: Result<(), ToxiError>| match outcome {
        Err(ToxiError::Refused { status, .. }) => status,
        other => panic!("not refused: {other:?}"),
    };
    assert_eq!(status(client.add_toxic("no", Stream::Upstream, LATENCY).await.map(drop)), 404);
    assert_eq!(status(client.set_enabled("no", false).await), 404);
    assert_eq!(status(client.remove_toxic("no", "t").await), 404);
    client.create_proxy(&spec("db")).await.expect("create");
    assert_eq!(status(client.create_proxy(&spec("db")).await.map(drop)), 409);
    client.add_toxic("db", Stream::Upstream, LATENCY).await.expect("add");
    assert_eq!(status(client.add_toxic("db", Stream::Upstream, LATENCY).await.map(drop)), 409);
    client.heal_all().await.expect("what was refused needs no healing");
}

#[tokio::test]
async fn heal_all_undoes_what_a_panicked_task_did_and_nothing_else() {
    let server = ToxidServer::start(1, LOOPBACK).await.expect("start");
    let client = ToxiClient::connect(server.api_addr()).await.expect("connect");
    client.populate(&[spec("db"), spec("cache"), spec("mail")]).await.expect("populate");
    let stranger = ToxiClient::connect(server.api_addr()).await.expect("connect");
    stranger.add_toxic("mail", Stream::Downstream, LATENCY).await.expect("add");

    let hurting = client.clone();
    let task = tokio::spawn(async move {
        for toxic in [LATENCY, RESET, Toxic::Bandwidth { rate_kb_per_s: 10 }, Toxic::Timeout { timeout_ms: 0 }] {
            hurting.add_toxic("db", Stream::Upstream, toxic).await.expect("add");
        }
        hurting.set_enabled("cache", false).await.expect("disable");
        panic!("the run broke");
    });
    assert!(task.await.expect_err("panicked").is_panic());
    let hurt = client.proxies().await.expect("list");
    assert_eq!((hurt["db"].toxics.len(), hurt["cache"].enabled), (4, false));

    client.heal_all().await.expect("heal");
    client.heal_all().await.expect("heal is idempotent");
    let healed = client.proxies().await.expect("list");
    assert!(healed["db"].toxics.is_empty() && healed["cache"].enabled);
    assert_eq!(healed["mail"].toxics.len(), 1, "what others did stays");
    client.reset().await.expect("reset");
    assert!(client.proxy("mail").await.expect("show").toxics.is_empty());
}

#[tokio::test]
async fn updating_a_toxic_is_read_back() {
    let server = ToxidServer::start(1, LOOPBACK).await.expect("start");
    let client = ToxiClient::connect(server.api_addr()).await.expect("connect");
    client.create_proxy(&spec("db")).await.expect("create");
    client.add_toxic("db", Stream::Upstream, LATENCY).await.expect("add");
    let slower = Toxic::Latency { latency_ms: 200, jitter_ms: 0 };
    let view = client.update_toxic("db", "latency_upstream", Stream::Upstream, slower, 0.5).await.expect("update");
    assert_eq!(view.attributes["latency"], 200);
    // The stream of a toxic cannot be changed, so asking for another one is not taken.
    not_taken(client.update_toxic("db", "latency_upstream", Stream::Downstream, slower, 0.5).await);
}
