//! Each toxic measured on real sockets.

use std::{io::ErrorKind, time::Duration};

use nogo_faults::{Stream, Toxic, ToxidOptions};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, timeout},
};

use crate::echo_rig::{LIMIT, Rig, echo, echo_server, next_read, pattern};

#[tokio::test]
async fn clean_link_carries_large_data_both_ways_and_half_closes() {
    let rig = Rig::start().await;
    let data = pattern(16 * 1024 * 1024);
    let socket = rig.connect().await;
    let (mut reads, mut writes) = socket.into_split();
    let sent = data.clone();
    let start = Instant::now();
    let sending = tokio::spawn(async move {
        writes.write_all(&sent).await.expect("send");
        writes.shutdown().await.expect("half-close");
        writes
    });
    let mut received = Vec::new();
    timeout(LIMIT * 4, reads.read_to_end(&mut received)).await.expect("in time").expect("receive");
    println!("16 MiB echoed in {:?}", start.elapsed());
    sending.await.expect("sender");
    assert!(received == data, "{} of {} bytes came back", received.len(), data.len());
}

#[tokio::test]
async fn latency_delays_and_its_removal_ends_the_delay_on_the_same_connection() {
    let rig = Rig::start().await;
    let mut socket = rig.connect().await;
    echo(&mut socket, b"before").await;
    rig.add(Stream::Upstream, Toxic::Latency { latency_ms: 150, jitter_ms: 0 }).await;
    rig.add(Stream::Downstream, Toxic::Latency { latency_ms: 50, jitter_ms: 0 }).await;
    let slow = echo(&mut socket, b"during").await;
    assert!((Duration::from_millis(199)..Duration::from_millis(700)).contains(&slow), "{slow:?}");
    rig.client.remove_toxic("echo", "latency_upstream").await.expect("remove");
    rig.client.remove_toxic("echo", "latency_downstream").await.expect("remove");
    let fast = echo(&mut socket, b"after").await;
    assert!(fast < Duration::from_millis(150), "{fast:?}");
}

#[tokio::test]
async fn toxics_that_come_and_go_under_load_lose_no_byte() {
    let rig = Rig::start().await;
    let data = pattern(4 * 1024 * 1024);
    let (mut reads, mut writes) = rig.connect().await.into_split();
    let sent = data.clone();
    let sending = tokio::spawn(async move {
        writes.write_all(&sent).await.expect("send");
        writes.shutdown().await.expect("half-close");
        writes
    });
    let client = rig.client.clone();
    let changing = tokio::spawn(async move {
        let mut rounds = 0;
        loop {
            for (stream, toxic) in [
                (Stream::Upstream, Toxic::Latency { latency_ms: 5, jitter_ms: 5 }),
                (Stream::Downstream, Toxic::Bandwidth { rate_kb_per_s: 2_000 }),
            ] {
                client.add_toxic("echo", stream, toxic).await.expect("add");
            }
            let faster = Toxic::Bandwidth { rate_kb_per_s: 50_000 };
            client.update_toxic("echo", "bandwidth_downstream", Stream::Downstream, faster, 1.0).await.expect("update");
            for name in ["latency_upstream", "bandwidth_downstream"] {
                client.remove_toxic("echo", name).await.expect("remove");
            }
            rounds += 1;
            if rounds == 20 {
                return;
            }
        }
    });
    let mut received = Vec::new();
    timeout(LIMIT * 4, reads.read_to_end(&mut received)).await.expect("in time").expect("receive");
    sending.await.expect("sender");
    changing.await.expect("every change was taken");
    assert!(received == data, "{} of {} bytes came back", received.len(), data.len());
}

#[tokio::test]
async fn bandwidth_caps_the_rate() {
    let rig = Rig::start().await;
    rig.add(Stream::Upstream, Toxic::Bandwidth { rate_kb_per_s: 200 }).await;
    let mut socket = rig.connect().await;
    let elapsed = echo(&mut socket, &pattern(100_000)).await;
    assert!((Duration::from_millis(490)..Duration::from_millis(1_500)).contains(&elapsed), "{elapsed:?}");
}

#[tokio::test]
async fn timeout_swallows_data_then_closes_after_the_silence() {
    let rig = Rig::start().await;
    let mut socket = rig.connect().await;
    rig.add(Stream::Upstream, Toxic::Timeout { timeout_ms: 200 }).await;
    let start = Instant::now();
    socket.write_all(b"lost").await.expect("send");
    assert_eq!(next_read(&mut socket).await, Ok(0), "closed without an answer");
    let elapsed = start.elapsed();
    assert!((Duration::from_millis(195)..Duration::from_millis(1_000)).contains(&elapsed), "{elapsed:?}");
}

#[tokio::test]
async fn timeout_of_zero_is_a_black_hole_until_its_removal_closes() {
    let rig = Rig::start().await;
    let mut socket = rig.connect().await;
    rig.add(Stream::Downstream, Toxic::Timeout { timeout_ms: 0 }).await;
    socket.write_all(b"lost").await.expect("send");
    let silence = timeout(Duration::from_millis(300), socket.read(&mut [0; 1])).await;
    assert!(silence.is_err(), "{silence:?}");
    rig.client.remove_toxic("echo", "timeout_downstream").await.expect("remove");
    assert_eq!(next_read(&mut socket).await, Ok(0));
    echo(&mut rig.connect().await, b"a new connection works").await;
}

#[tokio::test]
async fn reset_peer_is_seen_as_a_reset() {
    let rig = Rig::start().await;
    rig.add(Stream::Upstream, Toxic::ResetPeer { timeout_ms: 0 }).await;
    let mut socket = rig.connect().await;
    socket.write_all(b"x").await.expect("send");
    assert_eq!(next_read(&mut socket).await, Err(ErrorKind::ConnectionReset));
    rig.client.remove_toxic("echo", "reset_peer_upstream").await.expect("remove");
    echo(&mut rig.connect().await, b"a new connection works").await;
}

#[tokio::test]
async fn reset_peer_on_a_live_link_closes_it_or_resets_it_where_that_is_asked_for() {
    for (reset_live_links, expected) in [(false, Ok(0)), (true, Err(ErrorKind::ConnectionReset))] {
        let rig = Rig::start_with(ToxidOptions { seed: 1, reset_live_links, ..ToxidOptions::default() }).await;
        let mut socket = rig.connect().await;
        echo(&mut socket, b"before").await;
        rig.add(Stream::Upstream, Toxic::ResetPeer { timeout_ms: 0 }).await;
        socket.write_all(b"x").await.expect("send");
        assert_eq!(next_read(&mut socket).await, expected);
    }
}

#[tokio::test]
async fn a_proxy_that_is_down_drops_and_refuses_and_comes_back_at_the_same_port() {
    let rig = Rig::start().await;
    let mut socket = rig.connect().await;
    echo(&mut socket, b"before").await;
    rig.client.set_enabled("echo", false).await.expect("disable");
    assert_eq!(next_read(&mut socket).await, Ok(0));
    let refused = TcpStream::connect(rig.listen).await.expect_err("nobody listens");
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    rig.client.set_enabled("echo", true).await.expect("enable");
    echo(&mut rig.connect().await, b"after").await;
}

#[tokio::test]
async fn toxicity_hurts_the_share_of_links_that_the_seed_says() {
    let mut hurt = Vec::new();
    for _ in 0..2 {
        let rig = Rig::start().await;
        let toxic = Toxic::ResetPeer { timeout_ms: 0 };
        rig.client.add_toxic_named("echo", "some", Stream::Upstream, toxic, 0.5).await.expect("add");
        let mut pattern = Vec::new();
        for _ in 0..24 {
            let mut socket = rig.connect().await;
            socket.write_all(b"x").await.expect("send");
            pattern.push(next_read(&mut socket).await.is_err());
        }
        hurt.push(pattern);
    }
    assert_eq!(hurt[0], hurt[1], "the same seed hurts the same links");
    assert!(hurt[0].contains(&true) && hurt[0].contains(&false));
}

#[tokio::test]
async fn pointing_at_another_server_drops_the_old_links_and_keeps_the_port() {
    let rig = Rig::start().await;
    let mut socket = rig.connect().await;
    echo(&mut socket, b"old").await;
    let moved = echo_server().await.to_string();
    let view = rig.client.set_upstream("echo", &moved).await.expect("move");
    assert_eq!(view.listen, rig.listen.to_string());
    assert_eq!(next_read(&mut socket).await, Ok(0));
    echo(&mut rig.connect().await, b"new").await;
}

#[tokio::test]
async fn stopping_the_server_ends_every_task_it_started() {
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let rig = Rig::start().await;
    let mut sockets = Vec::new();
    for _ in 0..8 {
        let mut socket = rig.connect().await;
        echo(&mut socket, b"x").await;
        sockets.push(socket);
    }
    let with_links = tasks();
    rig.server.stop().await;
    for socket in &mut sockets {
        assert_eq!(next_read(socket).await, Ok(0));
    }
    // Eight links, their listener and the API; the echo server's own eight end with their links.
    crate::wait::wait_until("the tasks have ended", LIMIT, || async { (tasks() + 18 <= with_links).then_some(()) })
        .await;
}
