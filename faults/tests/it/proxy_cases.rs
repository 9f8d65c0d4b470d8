//! What a proxy does with its connections when it comes, goes, moves or cannot reach its server.

use std::{net::SocketAddr, time::Duration};

use nogo_faults::{ProxySpec, Stream, ToxiError, Toxic, ToxidOptions};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::{Instant, timeout},
};

use crate::{
    echo_rig::{LIMIT, LOOPBACK, Rig, echo, echo_server, next_read, pattern},
    private_servers::free_address,
};

async fn refuses(address: SocketAddr) -> bool {
    TcpStream::connect(address).await.is_err()
}

async fn heard(server: &mut TcpStream) -> Vec<u8> {
    let mut heard = Vec::new();
    timeout(LIMIT, server.read_to_end(&mut heard)).await.expect("in time").expect("no reset");
    heard
}

#[tokio::test]
async fn messages_small_large_and_in_parts_arrive_whole_before_the_end() {
    let (rig, listener) = Rig::start_listening(ToxidOptions::default()).await;
    let large = pattern(300_000);
    for parts in [vec![&b"hello world"[..]], vec![&large[..]], vec![&b"hello "[..], &b"world"[..], &large[..10]]] {
        let (mut client, mut server) = rig.pair(&listener).await;
        let expected = parts.concat();
        let sending = async {
            for part in &parts {
                client.write_all(part).await.expect("send");
            }
            drop(client);
        };
        let ((), received) = tokio::join!(sending, heard(&mut server));
        assert!(received == expected, "{} of {} bytes", received.len(), expected.len());
    }
}

#[tokio::test]
async fn where_the_server_is_down_the_client_is_closed_with_fin_even_if_it_has_sent() {
    let rig = Rig::start().await;
    rig.client.set_upstream("echo", &free_address().to_string()).await.expect("move");
    for text in [&b""[..], b"unheard"] {
        let mut socket = rig.connect().await;
        // The proxy may have closed by now.
        let _ = socket.write_all(text).await;
        assert_eq!(next_read(&mut socket).await, Ok(0));
    }
}

#[tokio::test]
async fn disabling_and_enabling_twice_is_as_good_as_once() {
    let rig = Rig::start().await;
    for _ in 0..3 {
        rig.client.set_enabled("echo", false).await.expect("disable");
        assert!(refuses(rig.listen).await);
    }
    for _ in 0..2 {
        rig.client.set_enabled("echo", true).await.expect("enable");
        echo(&mut rig.connect().await, b"up").await;
    }
}

#[tokio::test]
async fn enabling_an_enabled_proxy_keeps_its_connections() {
    let rig = Rig::start().await;
    let mut socket = rig.connect().await;
    echo(&mut socket, b"before").await;
    rig.client.set_enabled("echo", true).await.expect("enable");
    echo(&mut socket, b"after").await;
}

#[tokio::test]
async fn a_proxy_whose_port_was_taken_starts_once_it_is_free() {
    let rig = Rig::start().await;
    let spec =
        ProxySpec { name: "late".into(), listen: rig.listen.to_string(), upstream: echo_server().await.to_string() };
    let taken = rig.client.create_proxy(&spec).await;
    assert!(matches!(taken, Err(ToxiError::Refused { status: 500, .. })), "{taken:?}");
    assert!(rig.client.proxy("late").await.is_err(), "what did not start is not listed");
    rig.client.set_enabled("echo", false).await.expect("disable");
    rig.client.create_proxy(&spec).await.expect("create");
    let blocked = rig.client.set_enabled("echo", true).await;
    assert!(blocked.is_err(), "{blocked:?}");
    assert!(!rig.client.proxy("echo").await.expect("show").enabled);
    rig.client.delete_proxy("late").await.expect("delete");
    rig.client.set_enabled("echo", true).await.expect("enable");
    echo(&mut rig.connect().await, b"up again").await;
}

#[tokio::test]
async fn moving_the_listener_leaves_the_old_port() {
    let rig = Rig::start().await;
    let mut socket = rig.connect().await;
    echo(&mut socket, b"before").await;
    let moved = free_address();
    let url = format!("http://{}/proxies/echo", rig.server.api_addr());
    let http = reqwest::Client::builder().no_proxy().build().expect("client");
    let body = serde_json::json!({ "listen": moved.to_string() }).to_string();
    assert_eq!(http.patch(&url).body(body).send().await.expect("answer").status(), 200);
    assert_eq!(next_read(&mut socket).await, Ok(0));
    assert!(refuses(rig.listen).await);
    echo(&mut TcpStream::connect(moved).await.expect("connect"), b"after").await;
    let body = serde_json::json!({ "listen": "nonsense" }).to_string();
    assert_eq!(http.patch(&url).body(body).send().await.expect("answer").status(), 500);
    echo(&mut TcpStream::connect(moved).await.expect("connect"), b"unmoved").await;
}

#[tokio::test]
async fn toxics_change_at_once_while_the_reader_is_stuck_and_nothing_is_lost() {
    let (rig, listener) = Rig::start_listening(ToxidOptions::default()).await;
    rig.add(Stream::Downstream, Toxic::Latency { latency_ms: 10, jitter_ms: 0 }).await;
    let (mut client, mut server) = rig.pair(&listener).await;
    let data = pattern(16 * 1024 * 1024);
    let sent = data.clone();
    let sending = tokio::spawn(async move {
        server.write_all(&sent).await.expect("send");
        drop(server);
    });
    // Until the client reads, the link is full.
    client.readable().await.expect("the first data");
    let start = Instant::now();
    rig.client.remove_toxic("echo", "latency_downstream").await.expect("remove");
    rig.add(Stream::Downstream, Toxic::Slicer { average_bytes: 50_000, variation_bytes: 1_000, delay_us: 0 }).await;
    rig.client.remove_toxic("echo", "slicer_downstream").await.expect("remove");
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    let mut received = Vec::new();
    timeout(LIMIT * 4, client.read_to_end(&mut received)).await.expect("in time").expect("no reset");
    sending.await.expect("sender");
    assert!(received == data, "{} of {} bytes", received.len(), data.len());
}

#[tokio::test]
async fn toxics_come_and_go_beside_connections_that_break() {
    let rig = Rig::start().await;
    let breaking = async {
        for _ in 0..60 {
            let mut socket = rig.connect().await;
            socket.write_all(b"x").await.expect("send");
            // With unread data on its way back, this is a reset.
            drop(socket);
        }
    };
    let changing = async {
        for _ in 0..20 {
            for stream in [Stream::Upstream, Stream::Downstream] {
                rig.add(stream, Toxic::Bandwidth { rate_kb_per_s: 0 }).await;
            }
            for name in ["bandwidth_upstream", "bandwidth_downstream"] {
                rig.client.remove_toxic("echo", name).await.expect("remove");
            }
        }
    };
    timeout(LIMIT * 4, async { tokio::join!(breaking, changing) }).await.expect("nothing hangs");
    echo(&mut rig.connect().await, b"and after").await;
}

#[tokio::test]
async fn a_client_that_breaks_off_closes_its_server_side() {
    let (rig, listener) = Rig::start_listening(ToxidOptions::default()).await;
    let (mut client, mut server) = rig.pair(&listener).await;
    server.write_all(b"unread").await.expect("send");
    client.readable().await.expect("it has come");
    client.write_all(b"last").await.expect("send");
    // Data is unread, so this is a reset.
    drop(client);
    let mut last = [0; 4];
    timeout(LIMIT, server.read_exact(&mut last)).await.expect("in time").expect("what was sent before arrives");
    assert_eq!(next_read(&mut server).await, Ok(0));
}

#[tokio::test]
async fn a_listener_on_a_name_takes_its_ipv4_address() {
    let rig = Rig::start().await;
    let upstream = TcpListener::bind(LOOPBACK).await.expect("bind").local_addr().expect("address");
    let spec = ProxySpec { name: "named".into(), listen: "localhost:0".into(), upstream: upstream.to_string() };
    let view = rig.client.create_proxy(&spec).await.expect("create");
    let listen: SocketAddr = view.listen.parse().expect("address");
    assert!(listen.is_ipv4() && listen.ip().is_loopback(), "{listen}");
}
