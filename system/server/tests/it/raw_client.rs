//! Clients that do with their sockets what no HTTP library does, and one honest client beside them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

use crate::process::{Ground, Process, metric, metrics_of, scenario, sign_up, text};

/// Longest answer to an honest request while others misbehave.
const HONEST_MAX: Duration = Duration::from_secs(3);
/// Longest wait for the end of an answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// An instance with one customer, and what it takes in memory when nothing is wrong.
pub(crate) struct Subject {
    pub(crate) api: Process,
    pub(crate) token: String,
    scenario: String,
    before_kib: u64,
}

impl Subject {
    pub(crate) async fn start(ground: &Ground, settings: &[&str]) -> Self {
        let mut all = vec!["--log-level", "warn"];
        all.extend(settings);
        let api = ground.serve("hostile", &all);
        let client = reqwest::Client::new();
        let session = sign_up(&client, &api.base(), "ada").await;
        let token = text(&session, "access_token").to_owned();
        let post = client.post(format!("{}/v1/scenarios", api.base())).header("idempotency-key", "s");
        let answer = post.bearer_auth(&token).json(&scenario("s")).send().await.expect("an answer");
        let id = text(&answer.json::<Value>().await.expect("a scenario"), "id").to_owned();
        let mut subject = Self { api, token, scenario: format!("/v1/scenarios/{id}"), before_kib: 0 };
        for _ in 0..50 {
            subject.honest().await;
        }
        subject.before_kib = subject.api.resident_kib();
        subject
    }

    pub(crate) fn address(&self) -> String {
        self.api.base().trim_start_matches("http://").to_owned()
    }

    /// A request on a connection of its own is served; how long it took.
    pub(crate) async fn honest(&self) -> Duration {
        honest(&self.api.base(), &self.scenario, &self.token).await
    }

    /// Honest requests one after the other until told to stop.
    pub(crate) fn bystander(&self) -> Bystander {
        let stop = Arc::new(AtomicBool::new(false));
        let (base, path, token, until) = (self.api.base(), self.scenario.clone(), self.token.clone(), stop.clone());
        let served = tokio::spawn(async move {
            let mut times = Vec::new();
            while !until.load(Ordering::SeqCst) {
                times.push(honest(&base, &path, &token).await);
            }
            times
        });
        Bystander { stop, served }
    }

    /// What it holds more than before is at most so much.
    pub(crate) fn grew_at_most(&self, kib_max: u64, what: &str) {
        let now = self.api.resident_kib();
        println!("{what}: VmRSS {} KiB before, {now} KiB now; bound of the growth {kib_max} KiB", self.before_kib);
        assert!(now <= self.before_kib + kib_max, "{what}: {} KiB to {now} KiB", self.before_kib);
    }

    pub(crate) async fn metric(&self, name: &str, label: &str) -> f64 {
        metric(&metrics_of(&self.api.base()).await, name, label)
    }
}

async fn honest(base: &str, path: &str, token: &str) -> Duration {
    let started = Instant::now();
    let client = reqwest::Client::new();
    let answer = client.get(format!("{base}{path}")).bearer_auth(token).timeout(HONEST_MAX).send().await;
    assert_eq!(answer.expect("an honest request is answered").status().as_u16(), 200);
    started.elapsed()
}

pub(crate) struct Bystander {
    stop: Arc<AtomicBool>,
    served: tokio::task::JoinHandle<Vec<Duration>>,
}

impl Bystander {
    /// Every one of its requests was served in time, and there were some.
    pub(crate) async fn was_served(self, what: &str) {
        self.stop.store(true, Ordering::SeqCst);
        let times = self.served.await.expect("every honest request is served");
        println!("{what}: {} honest requests meanwhile, slowest {:?}", times.len(), times.iter().max());
        assert!(!times.is_empty());
    }
}

/// An answer, if there was one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) status: u16,
    pub(crate) code: String,
    pub(crate) head: String,
}

/// A socket.
pub(crate) struct Raw {
    pub(crate) stream: TcpStream,
}

impl Raw {
    pub(crate) async fn open(address: &str) -> Self {
        Self { stream: TcpStream::connect(address).await.expect("connect") }
    }

    /// One that takes next to nothing of what it does not read.
    pub(crate) async fn narrow(address: &str) -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(4_096).expect("a small buffer");
        Self { stream: socket.connect(address.parse().expect("an address")).await.expect("connect") }
    }

    /// Writes all of it, and reads the answer, whichever comes first; `None` if the connection ends without.
    pub(crate) async fn ask(&mut self, request: &[u8]) -> Option<Told> {
        let (mut reading, mut writing) = self.stream.split();
        // Who is refused need not hear everything.
        let send = async {
            let _ = writing.write_all(request).await;
            std::future::pending::<()>().await;
        };
        let told = async {
            let mut answer = Vec::new();
            let mut bytes = [0; 4_096];
            loop {
                if let Some(told) = whole(&answer) {
                    return Some(told);
                }
                match reading.read(&mut bytes).await {
                    Ok(0) | Err(_) => return None,
                    Ok(count) => answer.extend_from_slice(&bytes[..count]),
                }
            }
        };
        tokio::select! {
            () = send => unreachable!("it waits for ever"),
            told = tokio::time::timeout(PATIENCE, told) => told.expect("an answer or an end"),
        }
    }

    /// Writes the first part at once and then a byte of the rest in each pause, until there is an answer or an
    /// end, and tells when that was.
    pub(crate) async fn trickle(&mut self, first: &[u8], pause: Duration) -> (Option<Told>, Duration) {
        let started = Instant::now();
        let (mut reading, mut writing) = self.stream.split();
        let send = async {
            let _ = writing.write_all(first).await;
            loop {
                tokio::time::sleep(pause).await;
                let _ = writing.write_all(b"a").await;
            }
        };
        let told = async {
            let mut answer = Vec::new();
            let mut bytes = [0; 4_096];
            while let Ok(count @ 1..) = reading.read(&mut bytes).await {
                answer.extend_from_slice(&bytes[..count]);
            }
            whole(&answer)
        };
        tokio::select! {
            () = send => unreachable!("it goes on for ever"),
            told = tokio::time::timeout(PATIENCE, told) => (told.expect("an end in time"), started.elapsed()),
        }
    }
}

/// An answer that came wholly; a body without a length is not waited for.
fn whole(bytes: &[u8]) -> Option<Told> {
    let text = String::from_utf8_lossy(bytes);
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.get(9..12)?.parse().ok()?;
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).map_or(0, |l| l.parse().unwrap());
    if body.len() < length {
        return None;
    }
    let is_problem = head.contains("content-type: application/problem+json");
    let code = if is_problem { text_of(body, "code") } else { String::new() };
    Some(Told { status, code, head: head.to_owned() })
}

fn text_of(body: &str, field: &str) -> String {
    let body: Value = serde_json::from_str(body).expect("a problem is JSON");
    text(&body, field).to_owned()
}
