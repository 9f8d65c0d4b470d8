//! The wrapper does what it says on whichever server it is pointed at: ours, and an official one
//! where `NOGO_TOXIPROXY` names its API on this machine.

use std::{
    io::ErrorKind,
    net::SocketAddr,
    time::{Duration, Instant},
};

use nogo_faults::{ProxySpec, Stream, ToxiClient, ToxiError, Toxic, ToxidServer};
use tokio::{io::AsyncWriteExt, net::TcpStream};

use crate::echo_rig::{LIMIT, LOOPBACK, echo, echo_server, next_read};

#[tokio::test]
async fn the_wrapper_holds_on_our_server() {
    let server = ToxidServer::start(1, LOOPBACK).await.expect("start");
    hold(server.api_addr()).await;
}

#[tokio::test]
#[ignore = "needs an official server: NOGO_TOXIPROXY=address:port cargo nextest run -p nogo-faults --run-ignored only -E 'test(official_server)'"]
async fn the_wrapper_holds_on_the_official_server() {
    let api = std::env::var("NOGO_TOXIPROXY").expect("NOGO_TOXIPROXY names an official server's API");
    hold(api.parse().expect("address:port")).await;
}

/// Everything the wrapper offers, each effect seen on a connection. Leaves nothing behind, unless it fails.
async fn hold(api: SocketAddr) {
    let client = ToxiClient::connect(api).await.expect("connect");
    assert!(!client.version().await.expect("version").is_empty());
    let (name, other) = (format!("wrapper-{}", std::process::id()), format!("wrapper-{}-b", std::process::id()));
    let spec = |name: &str, upstream: &str| ProxySpec {
        name: name.to_owned(),
        listen: "127.0.0.1:0".into(),
        upstream: upstream.to_owned(),
    };
    let upstream = echo_server().await.to_string();
    let listen: SocketAddr =
        client.create_proxy(&spec(&name, &upstream)).await.expect("create").listen.parse().expect("address");
    let connect = async || TcpStream::connect(listen).await.expect("connect to the proxy");
    assert_eq!(status(client.create_proxy(&spec(&name, &upstream)).await), Some(409));
    assert_eq!(client.populate(&[spec(&other, "127.0.0.1:9")]).await.expect("populate")[0].name, other);
    client.delete_proxy(&other).await.expect("delete");
    assert_eq!(status(client.proxy(&other).await), Some(404));

    let mut socket = connect().await;
    echo(&mut socket, b"before").await;
    every_toxic_is_taken(&client, &name).await;
    latency_acts(&client, &name, &mut socket).await;

    client.add_toxic(&name, Stream::Upstream, Toxic::ResetPeer { timeout_ms: 0 }).await.expect("add");
    let mut reset = connect().await;
    reset.write_all(b"x").await.expect("send");
    assert_eq!(next_read(&mut reset).await, Err(ErrorKind::ConnectionReset));
    client.heal_all().await.expect("heal");
    echo(&mut connect().await, b"healed").await;

    let mut dropped = connect().await;
    echo(&mut dropped, b"before").await;
    client.set_enabled(&name, false).await.expect("disable");
    assert!(next_read(&mut dropped).await.is_ok_and(|count| count == 0), "closed in the ordinary way");
    assert!(TcpStream::connect(listen).await.is_err());
    client.heal_all().await.expect("heal");
    echo(&mut connect().await, b"up again").await;

    let moved = echo_server().await.to_string();
    let view = client.set_upstream(&name, &moved).await.expect("move");
    assert_eq!((view.upstream, view.listen), (moved, listen.to_string()));
    echo(&mut connect().await, b"moved").await;
    client.delete_proxy(&name).await.expect("delete");
    assert!(TcpStream::connect(listen).await.is_err());
}

async fn every_toxic_is_taken(client: &ToxiClient, name: &str) {
    let kinds = [
        Toxic::Latency { latency_ms: 1, jitter_ms: 1 },
        Toxic::Bandwidth { rate_kb_per_s: 1_000 },
        Toxic::SlowClose { delay_ms: 1 },
        Toxic::Timeout { timeout_ms: 60_000 },
        Toxic::ResetPeer { timeout_ms: 60_000 },
        Toxic::Slicer { average_bytes: 100, variation_bytes: 10, delay_us: 10 },
        Toxic::LimitData { bytes: 1_000_000 },
        Toxic::Noop,
    ];
    for toxic in kinds {
        for stream in [Stream::Upstream, Stream::Downstream] {
            // Spares every link, for the one that stands shall go on.
            let toxic_name = toxic.default_name(stream);
            let shown = client.add_toxic_named(name, &toxic_name, stream, toxic, 0.0).await.expect("add");
            assert_eq!((shown.name.as_str(), shown.kind.as_str()), (toxic_name.as_str(), toxic.kind()));
            assert_eq!(status(client.add_toxic(name, stream, toxic).await), Some(409));
        }
    }
    assert_eq!(client.proxy(name).await.expect("show").toxics.len(), 2 * kinds.len());
    for toxic in kinds.iter().filter(|toxic| !matches!(toxic, Toxic::Timeout { .. })) {
        client.remove_toxic(name, &toxic.default_name(Stream::Upstream)).await.expect("remove");
    }
    client.heal_all().await.expect("heal");
    assert!(client.proxy(name).await.expect("show").toxics.is_empty());
}

async fn latency_acts(client: &ToxiClient, name: &str, standing: &mut TcpStream) {
    // The removed timeout toxics may have closed the connection that stood: the official server
    // does so also where its toxicity spared the link.
    let listen: SocketAddr = client.proxy(name).await.expect("show").listen.parse().expect("address");
    let mut fresh = TcpStream::connect(listen).await.expect("connect");
    std::mem::swap(standing, &mut fresh);
    echo(standing, b"before").await;
    let slow = Toxic::Latency { latency_ms: 600, jitter_ms: 0 };
    client.add_toxic(name, Stream::Downstream, slow).await.expect("add");
    let elapsed = echo(standing, b"slow").await;
    assert!((Duration::from_millis(599)..LIMIT).contains(&elapsed), "{elapsed:?}");
    let faster = Toxic::Latency { latency_ms: 200, jitter_ms: 0 };
    client.update_toxic(name, "latency_downstream", Stream::Downstream, faster, 1.0).await.expect("update");
    let elapsed = echo(standing, b"faster").await;
    assert!((Duration::from_millis(199)..Duration::from_millis(599)).contains(&elapsed), "{elapsed:?}");
    client.heal_all().await.expect("heal");
    let start = Instant::now();
    echo(standing, b"fast").await;
    assert!(start.elapsed() < Duration::from_millis(199), "{:?}", start.elapsed());
}

fn status<T>(outcome: Result<T, ToxiError>) -> Option<u16> {
    match outcome {
        Err(ToxiError::Refused { status, .. }) => Some(status),
        _ => None,
    }
}
