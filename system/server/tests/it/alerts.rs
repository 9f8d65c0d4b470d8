//! Alerts from end to end: real processes are watched, real harm is done, a webhook hears of it; and a
//! system that is well says nothing.

use std::time::Duration;

use serde_json::Value;

use crate::process::{Ground, Process, metric, metrics_of, sign_up, until};
use crate::sink::{Sink, SinkMode};

/// Short times for the rules that this test provokes; everything else stays as it comes with the binary.
const RULES: &str = r#"
[[rule]]
name = "process_gone"
summary = "A process does not answer its metrics any more."
severity = "critical"
for_s = 1
above = 0.5
signal = { kind = "gone" }

[[rule]]
name = "redis_down"
summary = "Redis does not answer."
severity = "warning"
for_s = 1
below = 0.5
signal = { kind = "smallest", of = { metric = "forecastle_redis_up" } }
"#;

fn notices(sink: &Sink) -> Vec<Value> {
    let bodies = sink.received().into_iter().filter_map(|request| request.lines().last().map(str::to_owned));
    bodies.map(|body| serde_json::from_str(&body).expect("a notice is JSON")).collect()
}

fn of<'a>(notices: &'a [Value], alert: &str, instance: &str, state: &str) -> Vec<&'a Value> {
    let is = |notice: &&Value| notice["alert"] == alert && notice["instance"] == instance && notice["state"] == state;
    notices.iter().filter(is).collect()
}

fn alert(ground: &Ground, targets: &str, first: &str, second: &str) -> Process {
    let rules = std::env::temp_dir().join(format!("rules-{}.toml", uuid::Uuid::new_v4().simple()));
    std::fs::write(&rules, RULES).expect("write rules");
    ground.run_without_database(
        "alert",
        "alert",
        &[
            "--targets",
            targets,
            "--webhook-url",
            first,
            "--escalation-url",
            second,
            "--every-ms",
            "200",
            "--scrape-timeout-ms",
            "2000",
            "--webhook-timeout-ms",
            "500",
            "--escalate-after-s",
            "2",
            "--rules",
            rules.to_str().expect("a path"),
        ],
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn harm_is_told_once_escalates_unless_acknowledged_and_its_end_is_told() {
    let ground = Ground::start().await;
    let api = ground.serve("api", &["--gauges-every-ms", "200", "--log-level", "warn"]);
    let redis_url = ground.redis.url();
    let work = ground.run("work", "work", &["--redis-url", &redis_url, "--metrics-listen", "127.0.0.1:0"]);
    let (first, second) = (Sink::start().await, Sink::start().await);
    let targets = format!("api={},work={}", api.base(), work.base());
    let hook = |sink: &Sink| format!("http://{}/hook", sink.address);
    let watch = alert(&ground, &targets, &hook(&first), &hook(&second));

    // A system that is well and at work: rules are evaluated many times over, and nothing is told.
    let client = reqwest::Client::new();
    for index in 0..30 {
        sign_up(&client, &api.base(), &format!("user{index}")).await;
    }
    tokio::time::sleep(Duration::from_secs(4)).await;
    let firing = client.get(format!("{}/alerts", watch.base())).send().await.unwrap().json::<Value>().await.unwrap();
    assert_eq!(firing["items"], Value::Array(Vec::new()));
    assert!(first.received().is_empty() && second.received().is_empty(), "{:?}", first.received());

    // Redis is gone, and comes back.
    ground.redis.pause();
    until("Redis being down is told", async || !of(&notices(&first), "redis_down", "api", "firing").is_empty()).await;
    ground.redis.resume();
    until("and its end", async || !of(&notices(&first), "redis_down", "api", "resolved").is_empty()).await;
    assert_eq!(of(&notices(&first), "redis_down", "api", "firing").len(), 1, "once, however often it is looked at");
    assert!(notices(&second).is_empty(), "a warning does not escalate");

    // A webhook that never answers keeps nobody from watching; what it missed it is told afterwards.
    first.set(SinkMode::Silent);
    let looked = metric(&metrics_of(&watch.base()).await, "forecastle_alert_tries_failed_total", "");
    drop(work);
    until("tries fail", async || {
        metric(&metrics_of(&watch.base()).await, "forecastle_alert_tries_failed_total", "") > looked
    })
    .await;
    until("the second webhook hears of it", async || {
        !of(&notices(&second), "process_gone", "work", "escalated").is_empty()
    })
    .await;
    first.set(SinkMode::Take);
    until("the first one does in the end", async || !of(&notices(&first), "process_gone", "work", "firing").is_empty())
        .await;

    // A second process dies; somebody takes care of it in time, so it does not escalate.
    drop(api);
    until("the api being gone is told", async || !of(&notices(&first), "process_gone", "api", "firing").is_empty())
        .await;
    let told = notices(&first);
    let id = of(&told, "process_gone", "api", "firing")[0]["id"].as_str().expect("an id").to_owned();
    let taken = client.post(format!("{}/alerts/{id}/acknowledge", watch.base())).send().await.unwrap();
    assert_eq!(taken.status().as_u16(), 204);
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert!(of(&notices(&second), "process_gone", "api", "escalated").is_empty(), "acknowledged");
    assert_eq!(of(&notices(&second), "process_gone", "work", "escalated").len(), 1, "escalated once");
    ground.redis.resume();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_that_cannot_serve_and_a_dead_letter_are_told() {
    let ground = Ground::start().await;
    let api = ground.serve("api", &["--gauges-every-ms", "200", "--drain-delay-ms", "20000", "--log-level", "warn"]);
    let (first, second) = (Sink::start().await, Sink::start().await);
    let hook = |sink: &Sink| format!("http://{}/hook", sink.address);
    let _watch = alert(&ground, &format!("api={}", api.base()), &hook(&first), &hook(&second));

    let mut admin = forecastle_testbed::customers::connect(&ground.postgres.admin_url()).await;
    let customer = forecastle_testbed::customers::sign_up(&mut admin, "FREE", "EUR", "2026-01-01").await;
    let input = forecastle_testbed::customers::scenario_input();
    forecastle_testbed::customers::queue_forecast(&mut admin, &customer, &input).await;
    sqlx::query("UPDATE app.jobs SET state = 'dead', finished_at = now()").execute(&mut admin).await.unwrap();
    until("the dead letter is told", async || !of(&notices(&first), "dead_letters", "api", "firing").is_empty()).await;
    assert_eq!(notices(&first)[0]["severity"], "warning");

    // It drains for longer than the rule waits: alive, and not ready.
    api.signal("TERM");
    until("not being ready is told", async || !of(&notices(&first), "not_ready", "api", "firing").is_empty()).await;
    assert!(of(&notices(&first), "process_gone", "api", "firing").is_empty(), "it is still there");
}
