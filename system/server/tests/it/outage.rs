//! Sinks that are gone, refuse or never answer: requests take as long as before, and queues stay bounded.

use std::time::{Duration, Instant};

use forecastle_testbed::customers;

use crate::process::{Ground, KEY, Process, metric, metrics_of, sign_up, text};
use crate::sink::{Sink, SinkMode};

/// Events that may wait in each queue of this test.
const QUEUE_MAX: &str = "16";
/// Requests of one block; each makes an event for each sink.
const REQUESTS: usize = 200;

struct Subject {
    api: Process,
    client: reqwest::Client,
    token: String,
}

impl Subject {
    /// Half of the requests fail by a bug, so they are reported, and half succeed, so they are counted:
    /// the median and the longest of their times.
    async fn block(&self) -> (Duration, Duration) {
        let mut times = Vec::with_capacity(REQUESTS);
        for index in 0..REQUESTS {
            let path = if index % 2 == 0 { "/v1/usage" } else { "/v1/invoices" };
            let started = Instant::now();
            let request = self.client.get(format!("{}{path}", self.api.base())).bearer_auth(&self.token);
            let status = request.send().await.expect("an answer").status().as_u16();
            times.push(started.elapsed());
            assert_eq!(status, if index % 2 == 0 { 500 } else { 200 }, "{path}");
        }
        times.sort_unstable();
        (times[REQUESTS / 2], times[REQUESTS - 1])
    }
}

async fn subject(ground: &Ground, name: &str, errors: &str, analytics: &str) -> Subject {
    let dsn = format!("http://public@{errors}/1");
    let url = format!("http://{analytics}/batch");
    let sinks = [
        "--error-dsn",
        &dsn,
        "--error-queue-max",
        QUEUE_MAX,
        "--analytics-url",
        &url,
        "--analytics-key",
        KEY,
        "--analytics-queue-max",
        QUEUE_MAX,
        "--analytics-batch-max",
        "4",
        "--analytics-linger-ms",
        "10",
        "--log-level",
        "off",
    ];
    let api = ground.serve(name, &sinks);
    let client = reqwest::Client::new();
    let session = sign_up(&client, &api.base(), name).await;
    let token = text(&session, "access_token").to_owned();
    // From here on its usage cannot be computed: a bug, reported each time.
    let mut admin = customers::connect(&ground.postgres.admin_url()).await;
    sqlx::query("UPDATE app.tenants SET time_zone = 'nowhere'").execute(&mut admin).await.unwrap();
    Subject { api, client, token }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_notices_a_sink_that_is_gone_refuses_or_never_answers() {
    let ground = Ground::start().await;
    let (errors, analytics) = (Sink::start().await, Sink::start().await);
    let subject_here = subject(&ground, "here", &errors.address, &analytics.address).await;
    let nobody = format!("127.0.0.1:{}", crate::process::free_port());
    let subject_gone = subject(&ground, "gone", &nobody, &nobody).await;

    subject_here.block().await;
    let mut table = Vec::new();
    let mut healthy = Vec::new();
    let mut troubled = Vec::new();
    for round in 0..3 {
        for (name, mode) in [("answers", SinkMode::Take), ("500", SinkMode::Refuse), ("silent", SinkMode::Silent)] {
            errors.set(mode);
            analytics.set(mode);
            let times = subject_here.block().await;
            table.push(format!("{round} {name}: median {:?}, longest {:?}", times.0, times.1));
            if mode == SinkMode::Take { &mut healthy } else { &mut troubled }.push(times.0);
            let length = metric(&metrics_of(&subject_here.api.base()).await, "forecastle_sink_queue_length", "");
            assert!(length <= 32.0, "{name}: {length} events wait");
        }
        let times = subject_gone.block().await;
        table.push(format!("{round} gone: median {:?}, longest {:?}", times.0, times.1));
        troubled.push(times.0);
    }
    println!("{}", table.join("\n"));
    healthy.sort_unstable();
    troubled.sort_unstable();
    // Medians of one run against each other; the margin is for a busy machine, a sink's time-out is 2 s.
    let (usual, worst) = (healthy[healthy.len() / 2], troubled[troubled.len() - 1]);
    assert!(worst < usual * 4 + Duration::from_millis(20), "{table:#?}");

    for (api, outcomes) in
        [(&subject_here.api, ["sent", "refused", "timeout"]), (&subject_gone.api, ["unreachable"; 3])]
    {
        // The silent sink's time-out may still be running: what it took is told once that is over.
        crate::process::until("each outcome is counted", async || {
            let exposition = metrics_of(&api.base()).await;
            outcomes.iter().all(|outcome| {
                metric(&exposition, "forecastle_sink_events_total", &format!("outcome=\"{outcome}\"")) > 0.0
            })
        })
        .await;
    }
    let exposition = metrics_of(&subject_here.api.base()).await;
    for sink in ["errors", "analytics"] {
        let dropped = metric(&exposition, "forecastle_sink_dropped_total", &format!("sink=\"{sink}\""));
        assert!(dropped > 0.0, "{sink}: a full queue drops and counts");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_nobody_reads_holds_up_no_request() {
    let ground = Ground::start().await;
    // More lines than a pipe holds, twice over.
    let (api, _unread) = ground.serve_unread("api", &["--log-level", "debug", "--log-queue-max", "16"]);
    let client = reqwest::Client::new();
    let answers = async {
        for _ in 0..1_500 {
            let answer = client.get(format!("{}/livez", api.base())).send().await.expect("an answer");
            assert!(answer.status().is_success());
        }
    };
    tokio::time::timeout(Duration::from_secs(60), answers).await.expect("requests wait for the log");
    let dropped = metric(&metrics_of(&api.base()).await, "forecastle_log_lines_dropped_total", "");
    assert!(dropped > 0.0, "the pipe was never full");
    api.signal("TERM");
    assert!(api.ended().await.success(), "it ends, log or no log");
}
