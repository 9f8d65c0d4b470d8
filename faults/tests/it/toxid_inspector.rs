//! What stands between client and toxics reads, changes and ends what a connection carries.

use std::{
    io::ErrorKind,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use nogo_faults::{
    Accepted, BoxFuture, Ending, Inspector, InspectorFactory, ProxySpec, Side, Stream, ToxiError, Toxic, ToxidOptions,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy},
    net::{TcpListener, TcpStream},
    time::timeout,
};

use crate::{
    echo_rig::{LIMIT, LOOPBACK, Rig, echo, next_read, pattern},
    wait::wait_until,
};

/// Sends the client's text on in capitals; ends where the client says so.
struct Shouting {
    dropped: Arc<AtomicBool>,
}

impl Drop for Shouting {
    fn drop(&mut self) {
        self.dropped.store(true, Ordering::SeqCst);
    }
}

impl Inspector for Shouting {
    fn relay<'a>(&'a mut self, mut client: Side<'a>, mut server: Side<'a>) -> BoxFuture<'a, Ending> {
        Box::pin(async move {
            let up = async {
                let mut buffer = [0; 4096];
                loop {
                    let count = client.reads.read(&mut buffer).await.unwrap_or(0);
                    let text = &buffer[..count];
                    match text {
                        b"" => break server.writes.shutdown().await.is_err().then_some(Ending::Close),
                        b"reset" => break Some(Ending::Reset),
                        b"close" => {
                            server.writes.write_all(b"LAST WORDS").await.expect("the server takes them");
                            break Some(Ending::Close);
                        }
                        text => server.writes.write_all(&text.to_ascii_uppercase()).await.expect("send"),
                    }
                }
            };
            let down = async {
                let _ = copy(&mut server.reads, &mut client.writes).await;
                client.writes.shutdown().await.is_err()
            };
            tokio::pin!(up, down);
            tokio::select! {
                ending = &mut up => match ending {
                    Some(ending) => ending,
                    None => {
                        down.await;
                        Ending::Close
                    }
                },
                _ = &mut down => up.await.unwrap_or(Ending::Close),
            }
        })
    }
}

/// Inspects every connection but the one with this number; remembers all it was asked for.
#[derive(Default)]
struct Shouters {
    spared: Option<u64>,
    asked: Mutex<Vec<Accepted>>,
    dropped: Arc<AtomicBool>,
}

impl InspectorFactory for Shouters {
    fn inspector(&self, connection: &Accepted) -> Option<Box<dyn Inspector>> {
        self.asked.lock().expect("lock").push(connection.clone());
        (self.spared != Some(connection.connection))
            .then(|| Box::new(Shouting { dropped: Arc::clone(&self.dropped) }) as Box<dyn Inspector>)
    }
}

async fn answer_to(socket: &mut TcpStream, text: &[u8], expected: &[u8]) {
    socket.write_all(text).await.expect("send");
    let mut answer = vec![0; expected.len()];
    timeout(LIMIT, socket.read_exact(&mut answer)).await.expect("in time").expect("receive");
    assert_eq!(String::from_utf8_lossy(&answer), String::from_utf8_lossy(expected));
}

async fn shouting_rig(spared: Option<u64>) -> (Rig, Arc<Shouters>) {
    let rig = Rig::start().await;
    let shouters = Arc::new(Shouters { spared, ..Shouters::default() });
    rig.server.set_inspectors("echo", Some(Arc::clone(&shouters) as _)).await.expect("inspect");
    (rig, shouters)
}

#[tokio::test]
async fn an_inspector_changes_what_passes_and_toxics_act_behind_it() {
    let (rig, shouters) = shouting_rig(None).await;
    let mut socket = rig.connect().await;
    answer_to(&mut socket, b"hello", b"HELLO").await;
    rig.add(Stream::Downstream, Toxic::Latency { latency_ms: 150, jitter_ms: 0 }).await;
    let start = tokio::time::Instant::now();
    answer_to(&mut socket, b"slowly", b"SLOWLY").await;
    assert!(start.elapsed() >= Duration::from_millis(149), "{:?}", start.elapsed());

    let asked = shouters.asked.lock().expect("lock").clone();
    assert_eq!(asked.len(), 1);
    assert_eq!((asked[0].proxy.as_str(), asked[0].connection, asked[0].seed), ("echo", 0, 1));
    assert_eq!(asked[0].client, socket.local_addr().expect("address"));
}

#[tokio::test]
async fn only_connections_accepted_later_are_inspected_and_a_factory_may_spare_some() {
    let rig = Rig::start().await;
    let mut before = rig.connect().await;
    echo(&mut before, b"plain").await;
    let shouters = Arc::new(Shouters { spared: Some(2), ..Shouters::default() });
    rig.server.set_inspectors("echo", Some(shouters as _)).await.expect("inspect");
    echo(&mut before, b"still plain").await;
    let mut inspected = rig.connect().await;
    answer_to(&mut inspected, b"loud", b"LOUD").await;
    echo(&mut rig.connect().await, b"spared").await;
    rig.server.set_inspectors("echo", None).await.expect("no longer inspect");
    answer_to(&mut inspected, b"still loud", b"STILL LOUD").await;
    echo(&mut rig.connect().await, b"plain again").await;
    let missing = rig.server.set_inspectors("no", None).await;
    assert!(matches!(missing, Err(ToxiError::Refused { status: 404, .. })), "{missing:?}");
}

#[tokio::test]
async fn half_closing_passes_through_an_inspector() {
    let (rig, _shouters) = shouting_rig(None).await;
    let mut socket = rig.connect().await;
    socket.write_all(b"to the end").await.expect("send");
    socket.shutdown().await.expect("half-close");
    let mut answer = Vec::new();
    timeout(LIMIT, socket.read_to_end(&mut answer)).await.expect("in time").expect("receive");
    assert_eq!(answer, b"TO THE END");
}

#[tokio::test]
async fn a_reset_by_the_inspector_is_seen_by_both_peers() {
    let (rig, listener) = recording_rig().await;
    let (mut client, mut server) = rig.pair(&listener).await;
    client.write_all(b"reset").await.expect("send");
    assert_eq!(next_read(&mut client).await, Err(ErrorKind::ConnectionReset));
    assert_eq!(next_read(&mut server).await, Err(ErrorKind::ConnectionReset));
}

#[tokio::test]
async fn a_close_by_the_inspector_delivers_what_it_wrote_and_then_ends_in_the_ordinary_way() {
    let (rig, listener) = recording_rig().await;
    rig.add(Stream::Upstream, Toxic::Latency { latency_ms: 100, jitter_ms: 0 }).await;
    let (mut client, mut server) = rig.pair(&listener).await;
    client.write_all(b"close").await.expect("send");
    let mut heard = Vec::new();
    timeout(LIMIT, server.read_to_end(&mut heard)).await.expect("in time").expect("no reset");
    assert_eq!(heard, b"LAST WORDS");
    assert_eq!(next_read(&mut client).await, Ok(0));
}

#[tokio::test]
async fn what_a_toxic_lets_through_before_it_closes_reaches_the_client_through_the_inspector() {
    let (rig, listener) = recording_rig().await;
    rig.client.add_toxic("echo", Stream::Downstream, Toxic::LimitData { bytes: 100_000 }).await.expect("add");
    let (mut client, mut server) = rig.pair(&listener).await;
    let sent = pattern(150_000);
    let sending = tokio::spawn({
        let sent = sent.clone();
        // The proxy closes in the middle, so the end may be refused.
        async move { server.write_all(&sent).await.is_err() }
    });
    let mut received = Vec::new();
    timeout(LIMIT, client.read_to_end(&mut received)).await.expect("in time").expect("no reset");
    assert!(received == sent[..100_000], "{} bytes", received.len());
    sending.await.expect("sender");
}

#[tokio::test]
async fn disabling_the_proxy_drops_its_inspectors() {
    let (rig, shouters) = shouting_rig(None).await;
    let mut socket = rig.connect().await;
    answer_to(&mut socket, b"a", b"A").await;
    assert!(!shouters.dropped.load(Ordering::SeqCst));
    rig.client.set_enabled("echo", false).await.expect("disable");
    assert_eq!(next_read(&mut socket).await, Ok(0));
    wait_until("the inspector is dropped", LIMIT, || async { shouters.dropped.load(Ordering::SeqCst).then_some(()) })
        .await;
}

/// A rig whose server is the test itself, inspected from the first connection on.
async fn recording_rig() -> (Rig, TcpListener) {
    let (mut rig, listener) = Rig::start_listening(ToxidOptions::default()).await;
    rig.client.delete_proxy("echo").await.expect("delete");
    let spec = ProxySpec {
        name: "echo".into(),
        listen: LOOPBACK.to_string(),
        upstream: listener.local_addr().expect("address").to_string(),
    };
    let shouters = Arc::new(Shouters::default());
    let view = rig.server.create_proxy(&spec, Some(shouters as _)).await.expect("create");
    rig.listen = view.listen.parse().expect("address");
    (rig, listener)
}
