//! Two instances, restarted one after the other under load, and not one request lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use serde_json::json;

use crate::process::{Ground, Process, free_port, scenario, sign_up, text, until};

/// Clients at work at once.
const CLIENTS: usize = 6;
/// How often whoever distributes requests looks at `/readyz`.
const PROBE_EVERY: Duration = Duration::from_millis(50);

/// One instance as the distributor of requests sees it.
struct Backend {
    base: String,
    ready: AtomicBool,
    served: AtomicU64,
}

impl Backend {
    async fn probe(&self, client: &reqwest::Client) {
        let answer = client.get(format!("{}/readyz", self.base)).timeout(Duration::from_secs(5)).send().await;
        self.ready.store(answer.is_ok_and(|answer| answer.status().is_success()), Ordering::SeqCst);
    }
}

fn start(ground: &Ground, name: &str, port: u16) -> Process {
    ground.serve(name, &["--listen", &format!("127.0.0.1:{port}"), "--drain-delay-ms", "600", "--log-level", "warn"])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_loses_no_request() {
    let ground = Ground::start().await;
    let ports = [free_port(), free_port()];
    let mut processes = [Some(start(&ground, "one", ports[0])), Some(start(&ground, "two", ports[1]))];
    let backends: Arc<Vec<Backend>> = Arc::new(
        ports
            .iter()
            .map(|port| Backend {
                base: format!("http://127.0.0.1:{port}"),
                ready: AtomicBool::new(true),
                served: AtomicU64::new(0),
            })
            .collect(),
    );
    let session = sign_up(&reqwest::Client::new(), &backends[0].base, "ada").await;
    let token = text(&session, "access_token").to_owned();

    let stop = Arc::new(AtomicBool::new(false));
    for index in 0..ports.len() {
        let (backends, stop) = (Arc::clone(&backends), Arc::clone(&stop));
        tokio::spawn(async move {
            let client = reqwest::Client::new();
            while !stop.load(Ordering::SeqCst) {
                backends[index].probe(&client).await;
                tokio::time::sleep(PROBE_EVERY).await;
            }
        });
    }
    let mut clients = Vec::new();
    for number in 0..CLIENTS {
        let (backends, stop, token) = (Arc::clone(&backends), Arc::clone(&stop), token.clone());
        clients.push(tokio::spawn(async move {
            // Keeps its connections, as a proxy does.
            let client = reqwest::Client::new();
            let (mut sent, mut lost) = (0_usize, Vec::new());
            while !stop.load(Ordering::SeqCst) {
                sent += 1;
                let turn = sent + number;
                let order = [turn % 2, (turn + 1) % 2];
                let Some(backend) =
                    order.iter().map(|at| &backends[*at]).find(|backend| backend.ready.load(Ordering::SeqCst))
                else {
                    lost.push("nobody was ready".to_owned());
                    continue;
                };
                let request = if sent % 5 == 0 {
                    let key = format!("{number}-{sent}");
                    let body = scenario(&key);
                    client.post(format!("{}/v1/scenarios", backend.base)).header("idempotency-key", key).json(&body)
                } else {
                    client.get(format!("{}/v1/dashboard", backend.base)).json(&json!({}))
                };
                match request.bearer_auth(&token).send().await {
                    Ok(answer) if answer.status().is_success() => {
                        backend.served.fetch_add(1, Ordering::SeqCst);
                        let _ = answer.bytes().await.map_err(|error| lost.push(format!("cut off: {error}")));
                    }
                    Ok(answer) => lost.push(format!("{} from {}", answer.status(), backend.base)),
                    Err(error) => lost.push(format!("{error:?}")),
                }
            }
            (sent, lost)
        }));
    }

    let mut served_before = 0;
    for (index, name) in [(0, "one"), (1, "two"), (0, "one"), (1, "two")] {
        let at_work = || backends.iter().map(|backend| backend.served.load(Ordering::SeqCst)).sum::<u64>();
        until("both serve", async || at_work() > served_before + 50).await;
        let process = processes[index].take().expect("a running instance");
        process.signal("TERM");
        let base = backends[index].base.clone();
        until("readyz says no", async || !backends[index].ready.load(Ordering::SeqCst)).await;
        assert!(process.ended().await.success(), "a drain ends well");
        assert!(reqwest::get(format!("{base}/livez")).await.is_err(), "nobody listens there now");
        processes[index] = Some(start(&ground, name, ports[index]));
        let own = backends[index].served.load(Ordering::SeqCst);
        until("it serves again", async || backends[index].served.load(Ordering::SeqCst) > own).await;
        served_before = at_work();
    }
    stop.store(true, Ordering::SeqCst);
    let (mut sent, mut lost) = (0, Vec::new());
    for client in clients {
        let (more, missing) = client.await.expect("no panic");
        sent += more;
        lost.extend(missing);
    }
    println!("{sent} requests over four restarts");
    assert!(sent > 200, "{sent}");
    assert!(lost.is_empty(), "{} of {sent} lost: {:?}", lost.len(), &lost[..lost.len().min(5)]);
}
