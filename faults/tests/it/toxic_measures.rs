//! Rates, sizes, delays and ends, measured at both peers of a connection.

use std::{io::ErrorKind, time::Duration};

use nogo_faults::{Stream, Toxic, ToxidOptions};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, timeout},
};

use crate::echo_rig::{LIMIT, Rig, echo, next_read, pattern};

const fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

async fn listening() -> (Rig, tokio::net::TcpListener) {
    Rig::start_listening(ToxidOptions { seed: 1, ..ToxidOptions::default() }).await
}

/// Everything that comes until the end, and how long that took.
async fn read_all(socket: &mut TcpStream) -> (Vec<u8>, Duration) {
    let start = Instant::now();
    let mut received = Vec::new();
    timeout(LIMIT, socket.read_to_end(&mut received)).await.expect("in time").expect("no reset");
    (received, start.elapsed())
}

/// That nothing comes for a while: neither data nor an end.
async fn hears_nothing(socket: &mut TcpStream) {
    let heard = timeout(ms(300), socket.read(&mut [0; 1])).await;
    assert!(heard.is_err(), "{heard:?}");
}

#[tokio::test]
async fn bandwidth_keeps_its_rate_over_a_long_transfer() {
    let (rig, listener) = listening().await;
    rig.add(Stream::Downstream, Toxic::Bandwidth { rate_kb_per_s: 500 }).await;
    let (mut client, mut server) = rig.pair(&listener).await;
    let data = pattern(1_000_000);
    let sent = data.clone();
    let sending = tokio::spawn(async move {
        server.write_all(&sent).await.expect("send");
        drop(server);
    });
    let (received, elapsed) = read_all(&mut client).await;
    sending.await.expect("sender");
    assert!(received == data);
    let kb_per_s = 1_000.0 / elapsed.as_secs_f64();
    println!("{kb_per_s:.1} KB/s of 500");
    assert!((200.0..505.0).contains(&kb_per_s), "{kb_per_s} KB/s");
}

#[tokio::test]
async fn raising_the_rate_in_the_middle_of_a_transfer_lets_the_rest_go_faster() {
    let (rig, listener) = listening().await;
    rig.add(Stream::Downstream, Toxic::Bandwidth { rate_kb_per_s: 20 }).await;
    let (mut client, mut server) = rig.pair(&listener).await;
    // At the first rate this takes 10 s.
    let data = pattern(200_000);
    let sent = data.clone();
    let sending = tokio::spawn(async move {
        server.write_all(&sent).await.expect("send");
        drop(server);
    });
    let mut first = vec![0; 2_000];
    client.read_exact(&mut first).await.expect("receive");
    let faster = Toxic::Bandwidth { rate_kb_per_s: 20_000 };
    rig.client.update_toxic("echo", "bandwidth_downstream", Stream::Downstream, faster, 1.0).await.expect("update");
    let (rest, elapsed) = read_all(&mut client).await;
    sending.await.expect("sender");
    assert!([first, rest].concat() == data);
    assert!(elapsed < ms(3_000), "{elapsed:?}");
}

#[tokio::test]
async fn jitter_spreads_latency_within_its_bounds() {
    let rig = Rig::start().await;
    rig.add(Stream::Upstream, Toxic::Latency { latency_ms: 30, jitter_ms: 20 }).await;
    let mut socket = rig.connect().await;
    let mut trips = Vec::new();
    for _ in 0..40 {
        trips.push(echo(&mut socket, b"x").await);
    }
    trips.sort();
    println!("{:?} to {:?}, median {:?}", trips[0], trips[39], trips[20]);
    assert!(trips[0] >= ms(10), "{:?}", trips[0]);
    assert!(trips[39] - trips[0] >= ms(15), "no spread: {trips:?}");
    assert!(trips[20] >= ms(20), "{:?}", trips[20]);
}

#[tokio::test]
async fn latencies_of_one_direction_add_up_and_chunks_in_a_row_do_not() {
    let (rig, listener) = listening().await;
    for name in ["first", "second"] {
        let slow = Toxic::Latency { latency_ms: 100, jitter_ms: 0 };
        rig.client.add_toxic_named("echo", name, Stream::Upstream, slow, 1.0).await.expect("add");
    }
    let (mut client, mut server) = rig.pair(&listener).await;
    let start = Instant::now();
    for piece in [b"one", b"two", b"six"] {
        client.write_all(piece).await.expect("send");
        // Apart, so that they are read as chunks of their own.
        tokio::time::sleep(ms(20)).await;
    }
    let mut text = [0; 9];
    server.read_exact(&mut text).await.expect("receive");
    let elapsed = start.elapsed();
    assert_eq!(&text, b"onetwosix");
    assert!((ms(239)..ms(2_000)).contains(&elapsed), "{elapsed:?}");
}

#[tokio::test]
async fn slicer_delivers_small_pieces_with_its_delay_between_them() {
    let (rig, listener) = listening().await;
    let slicer = Toxic::Slicer { average_bytes: 100, variation_bytes: 30, delay_us: 10_000 };
    rig.add(Stream::Upstream, slicer).await;
    let (mut client, mut server) = rig.pair(&listener).await;
    let data = pattern(2_000);
    client.write_all(&data).await.expect("send");
    client.shutdown().await.expect("half-close");
    let start = Instant::now();
    let (mut received, mut reads, mut buffer) = (Vec::new(), Vec::new(), vec![0; 8_192]);
    loop {
        let count = timeout(LIMIT, server.read(&mut buffer)).await.expect("in time").expect("receive");
        if count == 0 {
            break;
        }
        reads.push(count);
        received.extend_from_slice(&buffer[..count]);
    }
    let elapsed = start.elapsed();
    println!("{} reads in {elapsed:?}: {reads:?}", reads.len());
    assert!(received == data);
    // Slices are at most 130 bytes, so there are at least 16; a slow reader sees some as one.
    assert!(reads.len() >= 8, "{reads:?}");
    assert!(elapsed >= ms(120), "{elapsed:?}");
}

#[tokio::test]
async fn limit_data_delivers_to_the_byte_and_ends_with_fin_for_each_connection() {
    let (rig, listener) = listening().await;
    rig.add(Stream::Downstream, Toxic::LimitData { bytes: 1_500 }).await;
    for _ in 0..2 {
        let (mut client, mut server) = rig.pair(&listener).await;
        let data = pattern(3_000);
        server.write_all(&data[..1_000]).await.expect("send");
        let mut first = vec![0; 1_000];
        client.read_exact(&mut first).await.expect("receive");
        server.write_all(&data[1_000..]).await.expect("send");
        let (rest, _) = read_all(&mut client).await;
        assert!([first, rest].concat() == data[..1_500]);
        assert_eq!(next_read(&mut server).await, Ok(0), "both sides are closed");
    }
}

#[tokio::test]
async fn limit_data_keeps_its_count_when_the_limit_is_raised() {
    let (rig, listener) = listening().await;
    rig.add(Stream::Downstream, Toxic::LimitData { bytes: 100 }).await;
    let (mut client, mut server) = rig.pair(&listener).await;
    server.write_all(&[1; 60]).await.expect("send");
    client.read_exact(&mut [0; 60]).await.expect("receive");
    let raised = Toxic::LimitData { bytes: 150 };
    rig.client.update_toxic("echo", "limit_data_downstream", Stream::Downstream, raised, 1.0).await.expect("update");
    server.write_all(&[1; 200]).await.expect("send");
    assert_eq!(read_all(&mut client).await.0.len(), 90);
}

#[tokio::test]
async fn slow_close_holds_back_the_end_and_no_data() {
    let (rig, listener) = listening().await;
    rig.add(Stream::Downstream, Toxic::SlowClose { delay_ms: 1_000 }).await;
    let (mut client, mut server) = rig.pair(&listener).await;
    let start = Instant::now();
    server.write_all(b"last").await.expect("send");
    drop(server);
    let mut last = [0; 4];
    client.read_exact(&mut last).await.expect("receive");
    assert!(start.elapsed() < ms(900), "{:?}", start.elapsed());
    assert_eq!(next_read(&mut client).await, Ok(0));
    assert!((ms(999)..ms(3_000)).contains(&start.elapsed()), "{:?}", start.elapsed());
}

#[tokio::test]
async fn removing_slow_close_lets_a_held_end_go() {
    let (rig, listener) = listening().await;
    rig.add(Stream::Downstream, Toxic::SlowClose { delay_ms: 60_000 }).await;
    let (mut client, server) = rig.pair(&listener).await;
    drop(server);
    hears_nothing(&mut client).await;
    rig.client.remove_toxic("echo", "slow_close_downstream").await.expect("remove");
    assert_eq!(next_read(&mut client).await, Ok(0));
}

#[tokio::test]
async fn timeout_counts_from_the_last_data_and_ends_with_fin() {
    let (rig, listener) = listening().await;
    rig.add(Stream::Upstream, Toxic::Timeout { timeout_ms: 1_000 }).await;
    let (mut client, mut server) = rig.pair(&listener).await;
    let start = Instant::now();
    for _ in 0..4 {
        client.write_all(b"swallowed").await.expect("send");
        tokio::time::sleep(ms(200)).await;
    }
    assert_eq!(next_read(&mut client).await, Ok(0));
    assert!(start.elapsed() >= ms(1_599), "{:?}", start.elapsed());
    assert_eq!(read_all(&mut server).await.0, b"");
}

#[tokio::test]
async fn reset_peer_waits_its_time_and_both_peers_see_the_reset() {
    let (rig, listener) = listening().await;
    rig.add(Stream::Upstream, Toxic::ResetPeer { timeout_ms: 200 }).await;
    let (mut client, mut server) = rig.pair(&listener).await;
    hears_nothing(&mut client).await;
    let start = Instant::now();
    client.write_all(b"x").await.expect("send");
    assert_eq!(next_read(&mut client).await, Err(ErrorKind::ConnectionReset));
    assert!(start.elapsed() >= ms(199), "{:?}", start.elapsed());
    assert_eq!(next_read(&mut server).await, Err(ErrorKind::ConnectionReset));
}

#[tokio::test]
async fn reset_peer_is_triggered_by_the_end_as_well() {
    let (rig, listener) = listening().await;
    rig.add(Stream::Upstream, Toxic::ResetPeer { timeout_ms: 0 }).await;
    let (mut client, mut server) = rig.pair(&listener).await;
    client.shutdown().await.expect("half-close");
    assert_eq!(next_read(&mut server).await, Err(ErrorKind::ConnectionReset));
}

#[tokio::test]
async fn links_that_reset_peer_spares_carry_on_and_end_with_fin() {
    let (rig, listener) = listening().await;
    let toxic = Toxic::ResetPeer { timeout_ms: 0 };
    rig.client.add_toxic_named("echo", "never", Stream::Upstream, toxic, 0.0).await.expect("add");
    let (mut client, mut server) = rig.pair(&listener).await;
    client.write_all(b"through").await.expect("send");
    server.read_exact(&mut [0; 7]).await.expect("receive");
    drop(server);
    assert_eq!(next_read(&mut client).await, Ok(0));
}

#[tokio::test]
async fn raising_the_toxicity_of_a_standing_toxic_hurts_a_link_it_had_spared() {
    let (rig, listener) = listening().await;
    let toxic = Toxic::Timeout { timeout_ms: 100 };
    rig.client.add_toxic_named("echo", "t", Stream::Downstream, toxic, 0.0).await.expect("add");
    let (mut client, mut server) = rig.pair(&listener).await;
    server.write_all(b"x").await.expect("send");
    client.read_exact(&mut [0; 1]).await.expect("spared");
    rig.client.update_toxic("echo", "t", Stream::Downstream, toxic, 1.0).await.expect("update");
    // The link may end before the proxy has taken this.
    let _ = server.write_all(b"x").await;
    assert_eq!(next_read(&mut client).await, Ok(0));
}

#[tokio::test]
async fn black_hole_keeps_a_connection_half_open_until_its_removal_resets_it() {
    let options = ToxidOptions { blackhole: true, ..ToxidOptions::default() };
    let (rig, listener) = Rig::start_listening(options).await;
    let (mut client, mut server) = rig.pair(&listener).await;
    client.write_all(b"before").await.expect("send");
    server.read_exact(&mut [0; 6]).await.expect("receive");
    for stream in [Stream::Upstream, Stream::Downstream] {
        rig.add(stream, Toxic::Blackhole).await;
    }
    client.write_all(b"lost").await.expect("send");
    drop(client);
    hears_nothing(&mut server).await;
    server.write_all(b"to nobody").await.expect("the server's side is open still");
    hears_nothing(&mut server).await;
    rig.client.remove_toxic("echo", "blackhole_upstream").await.expect("remove");
    assert_eq!(next_read(&mut server).await, Err(ErrorKind::ConnectionReset));
}

#[tokio::test]
async fn a_black_hole_that_swallowed_nothing_leaves_no_trace() {
    let options = ToxidOptions { blackhole: true, ..ToxidOptions::default() };
    let rig = Rig::start_with(options).await;
    let mut socket = rig.connect().await;
    rig.add(Stream::Downstream, Toxic::Blackhole).await;
    rig.client.remove_toxic("echo", "blackhole_downstream").await.expect("remove");
    echo(&mut socket, b"still here").await;
}

#[tokio::test]
async fn a_placebo_changes_nothing() {
    let rig = Rig::start().await;
    for stream in [Stream::Upstream, Stream::Downstream] {
        rig.add(stream, Toxic::Noop).await;
    }
    let mut socket = rig.connect().await;
    let data = pattern(100_000);
    let elapsed = echo(&mut socket, &data[..50_000]).await;
    assert!(elapsed < ms(500), "{elapsed:?}");
}
