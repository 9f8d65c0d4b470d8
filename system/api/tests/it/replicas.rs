//! Two instances, a primary and two streaming replicas: no answer is older than a write that was
//! acknowledged, whichever instance took it, whatever Redis has lost and however far the replicas lag.

use std::time::{Duration, Instant};

use forecastle_api::ApiConfig;
use forecastle_store::migrate::{RolePasswords, migrate};
use forecastle_store::{ReplicaAddress, ReplicaOptions};
use forecastle_testbed::{Postgres, Redis, Replica};
use reqwest::Method;
use serde_json::{Value, json};

use crate::fixtures::{Instance, config_at, scenario, text};

struct World {
    replicas: [Replica; 2],
    redis: Redis,
    _primary: Postgres,
    config: ApiConfig,
}

async fn world() -> World {
    let (primary, redis) = (Postgres::start(), Redis::start());
    migrate(&primary.admin_url(), &RolePasswords::default()).await.expect("migrate");
    let replicas = [Replica::start(&primary, "replica-1").await, Replica::start(&primary, "replica-2").await];
    let mut config = config_at(primary.url_of("forecastle_app"), redis.url());
    let address =
        |replica: &Replica| ReplicaAddress { name: replica.name().to_owned(), url: replica.url_of("forecastle_app") };
    config.replicas = ReplicaOptions { replicas: replicas.iter().map(address).collect(), ..ReplicaOptions::default() };
    World { replicas, redis, _primary: primary, config }
}

impl World {
    /// An instance that has seen both replicas.
    async fn instance(&self) -> Instance {
        let instance = Instance::start(self.config.clone()).await;
        let given_up = Instant::now() + Duration::from_secs(10);
        while !(1..=2)
            .all(|n| metric(&instance_page(&self.config), &format!("usable{{replica=\"replica-{n}\"}}")) > 0.0)
        {
            assert!(Instant::now() < given_up, "the replicas were not found");
            instance.send(Method::GET, "/metrics", None, &[], None).await.expect(200);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        instance
    }

    async fn flush_redis(&self) {
        let client = redis::Client::open(self.redis.url()).expect("redis address");
        let mut connection = client.get_multiplexed_async_connection().await.expect("connect to redis");
        redis::cmd("FLUSHALL").query_async::<()>(&mut connection).await.expect("flush");
    }
}

/// The metrics of this process, both instances in one.
fn instance_page(config: &ApiConfig) -> String {
    config.metrics.as_ref().expect("a recorder").render()
}

/// The sum of a metric's lines that hold `name`.
fn metric(page: &str, name: &str) -> f64 {
    let lines = page.lines().filter(|line| line.contains(name) && !line.starts_with('#'));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

async fn rename(instance: &Instance, token: &str, path: &str, version: i64, name: &str) -> i64 {
    let tag = format!("\"{version}\"");
    let answer = instance.send(Method::PUT, path, Some(token), &[("if-match", &tag)], Some(&scenario(name))).await;
    answer.expect(200).json()["version"].as_i64().expect("a version")
}

/// Every read that may be a replica's shows `name`.
async fn expect_everywhere(instance: &Instance, token: &str, path: &str, name: &str) {
    assert_eq!(text(&instance.get(path, token).await.expect(200).json(), "name"), name);
    let list = instance.get("/v1/scenarios", token).await.expect(200).json();
    assert_eq!(text(&list["items"][0], "name"), name);
    let dashboard = instance.get("/v1/dashboard", token).await.expect(200).json();
    assert_eq!(text(&dashboard["recent_forecasts"][0], "scenario_name"), name);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_writes_are_each_read_back_from_the_other_instance() {
    let world = world().await;
    let instances = [world.instance().await, world.instance().await];
    let session = instances[0].sign_up("ada", "PRO").await;
    let token = text(&session, "access_token");
    let id = text(&instances[0].scenario(token, "s").await, "id").to_owned();
    let path = format!("/v1/scenarios/{id}");
    let mut version = 1;
    for round in 0..1_000 {
        let (writer, reader) = (&instances[round % 2], &instances[(round + 1) % 2]);
        let name = format!("round {round}");
        version = rename(writer, token, &path, version, &name).await;
        let read = if round % 3 == 0 { "/v1/scenarios" } else { &path };
        let answer = reader.get(read, token).await.expect(200).json();
        let seen = if round % 3 == 0 { &answer["items"][0] } else { &answer };
        assert_eq!(text(seen, "name"), name, "{read}");
        match round {
            300 => world.replicas[0].pause_replay().await,
            400 => world.replicas[1].pause_replay().await,
            500 => world.replicas[0].resume_replay().await,
            600 => world.replicas[1].resume_replay().await,
            n if n % 100 == 50 => world.flush_redis().await,
            _ => {}
        }
    }
    let page = instance_page(&world.config);
    assert!(metric(&page, "forecastle_reads_total{target=\"replica-") > 300.0, "{page}");
    assert!(metric(&page, "forecastle_replica_fallbacks_total") > 0.0, "{page}");
}

#[tokio::test(flavor = "multi_thread")]
async fn with_both_replicas_behind_and_redis_frozen_flushed_or_gone_nothing_old_is_shown() {
    let mut world = world().await;
    let (one, two) = (world.instance().await, world.instance().await);
    let session = one.sign_up("ada", "PRO").await;
    let token = text(&session, "access_token");
    let id = text(&one.scenario(token, "s").await, "id").to_owned();
    let path = format!("/v1/scenarios/{id}");
    one.post_with_key("/v1/forecasts", token, "f", json!({ "scenario_id": id })).await.expect(202);
    expect_everywhere(&two, token, &path, "s").await;

    for replica in &world.replicas {
        replica.pause_replay().await;
    }
    let version = rename(&one, token, &path, 1, "both lag").await;
    expect_everywhere(&two, token, &path, "both lag").await;
    world.flush_redis().await;
    let version = rename(&two, token, &path, version, "redis flushed").await;
    world.flush_redis().await;
    expect_everywhere(&one, token, &path, "redis flushed").await;
    world.redis.pause();
    let version = rename(&one, token, &path, version, "redis frozen").await;
    expect_everywhere(&two, token, &path, "redis frozen").await;
    world.redis.resume();
    expect_everywhere(&two, token, &path, "redis frozen").await;
    let port = world.redis.port();
    drop(std::mem::replace(&mut world.redis, Redis::start()));
    rename(&two, token, &path, version, "redis gone").await;
    expect_everywhere(&one, token, &path, "redis gone").await;
    drop(std::mem::replace(&mut world.redis, Redis::start_on(port)));
    expect_everywhere(&one, token, &path, "redis gone").await;
    expect_everywhere(&two, token, &path, "redis gone").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_come_in_is_never_asked_of_a_replica() {
    let world = world().await;
    let (one, two) = (world.instance().await, world.instance().await);
    let session = one.sign_up("ada", "FREE").await;
    let token = text(&session, "access_token");
    two.get("/v1/scenarios", token).await.expect(200);
    for replica in &world.replicas {
        replica.pause_replay().await;
    }
    // Neither replica knows the second session, or will hear of the first one's end.
    let second = one.log_in("ada").await;
    two.get("/v1/me", text(&second, "access_token")).await.expect(200);
    two.refresh(text(&second, "refresh_token")).await.expect(200);
    one.send(Method::POST, "/v1/logout", Some(token), &[], None).await.expect(204);
    world.flush_redis().await;
    for instance in [&one, &two] {
        for path in ["/v1/me", "/v1/scenarios", "/v1/dashboard"] {
            assert_eq!(instance.get(path, token).await.code(), (401, "unauthenticated".to_owned()), "{path}");
        }
        assert_eq!(instance.refresh(text(&session, "refresh_token")).await.code().0, 401);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_killed_and_frozen_cost_no_answer() {
    let mut world = world().await;
    let api = world.instance().await;
    let session = api.sign_up("ada", "PRO").await;
    let token = text(&session, "access_token");
    let id = text(&api.scenario(token, "s").await, "id").to_owned();
    let all = [
        "/v1/scenarios".to_owned(),
        "/v1/forecasts".to_owned(),
        "/v1/invoices".to_owned(),
        format!("/v1/scenarios/{id}"),
    ];
    let read_all = async |limit: Duration| {
        for path in &all {
            let started = Instant::now();
            api.get(path, token).await.expect(200);
            assert!(started.elapsed() < limit, "{path}: {:?}", started.elapsed());
        }
    };
    read_all(Duration::from_secs(2)).await;
    world.replicas[0].freeze();
    world.replicas[1].kill();
    for _ in 0..5 {
        read_all(Duration::from_secs(2)).await;
    }
    read_all(Duration::from_secs(1)).await;
    let page: Value = json!(instance_page(&world.config));
    assert!(page.as_str().is_some_and(|page| page.contains("forecastle_replica_fallbacks_total")), "{page}");
    world.replicas[0].thaw();
    read_all(Duration::from_secs(2)).await;
}
