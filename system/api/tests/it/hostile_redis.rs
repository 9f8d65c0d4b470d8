//! Redis that is slow, silent, full, flushed, read-only, restarted or full of garbage: sessions stay right,
//! no acknowledged write is forgotten, and nothing takes long. Then it is well again, and so is everything.

use std::time::{Duration, Instant};

use forecastle_testbed::Redis;
use reqwest::Method;
use serde_json::json;

use crate::fixtures::{Answer, Instance, config, scenario, text};
use crate::servers::Servers;

/// Longest any request may take here, the slowest included: a few waits of 250 ms for Redis, and for a write
/// the longest that another instance may still trust what it kept.
const READ_MAX: Duration = Duration::from_secs(3);
const WRITE_MAX: Duration = Duration::from_secs(5);

struct World {
    _servers: Servers,
    redis: Redis,
    instances: [Instance; 2],
    token: String,
    /// Of a session that was in use and has been ended.
    ended: String,
    path: String,
    version: u32,
    forecasts: u32,
}

impl World {
    async fn start() -> Self {
        let servers = Servers::start().await;
        let redis = Redis::start();
        let mut over_tcp = config(&servers);
        over_tcp.cache.redis_url = redis.url();
        let instances = [Instance::start(over_tcp.clone()).await, Instance::start(over_tcp).await];
        let session = instances[0].sign_up("ada", "PRO").await;
        let token = text(&session, "access_token").to_owned();
        let path = format!("/v1/scenarios/{}", text(&instances[0].scenario(&token, "s").await, "id"));
        let mut world =
            Self { _servers: servers, redis, instances, token, ended: String::new(), path, version: 1, forecasts: 0 };
        world.end_a_session().await;
        world
    }

    /// Opened and used at both, then ended at one.
    async fn end_a_session(&mut self) {
        let session = self.instances[0].log_in("ada").await;
        let token = text(&session, "access_token").to_owned();
        for api in [&self.instances[0], &self.instances[1], &self.instances[0]] {
            timely(READ_MAX, api.get("/v1/me", &token)).await.expect(200);
        }
        timely(WRITE_MAX, self.instances[1].send(Method::POST, "/v1/logout", Some(&token), &[], None))
            .await
            .expect(204);
        self.ended = token;
    }

    /// What must hold whatever Redis does.
    async fn all_holds(&mut self, when: &str) {
        for round in 0..3_usize {
            for api in &self.instances {
                assert_eq!(timely(READ_MAX, api.get("/v1/me", &self.ended)).await.code().0, 401, "{when}");
                timely(READ_MAX, api.get("/v1/me", &self.token)).await.expect(200);
                for _ in 0..2 {
                    self.reads_are_new(api, when).await;
                }
            }
            let (writer, reader) = (&self.instances[round % 2], &self.instances[(round + 1) % 2]);
            let (tag, name) = (format!("\"{}\"", self.version), format!("s{}", self.version + 1));
            let edit = [("if-match", tag.as_str())];
            let body = scenario(&name);
            timely(WRITE_MAX, writer.send(Method::PUT, &self.path, Some(&self.token), &edit, Some(&body)))
                .await
                .expect(200);
            self.version += 1;
            self.reads_are_new(reader, when).await;
            let key = format!("f{}", self.forecasts);
            let id = self.path.rsplit('/').next().unwrap();
            timely(WRITE_MAX, reader.post_with_key("/v1/forecasts", &self.token, &key, json!({"scenario_id": id})))
                .await
                .expect(202);
            self.forecasts += 1;
            self.reads_are_new(writer, when).await;
        }
        self.end_a_session().await;
    }

    async fn reads_are_new(&self, api: &Instance, when: &str) {
        let read = timely(READ_MAX, api.get(&self.path, &self.token)).await.expect(200);
        assert_eq!(read.header("etag"), format!("\"{}\"", self.version), "{when}");
        let dashboard = timely(READ_MAX, api.get("/v1/dashboard", &self.token)).await.expect(200).json();
        assert_eq!(dashboard["forecasts"]["queued"], self.forecasts, "{when}");
    }

    async fn command(&self, words: &[&str]) {
        let client = redis::Client::open(self.redis.url()).unwrap();
        let mut connection = client.get_multiplexed_async_connection().await.unwrap();
        let mut command = redis::cmd(words[0]);
        for word in &words[1..] {
            command.arg(*word);
        }
        let _: redis::Value = command.query_async(&mut connection).await.unwrap();
    }
}

async fn timely(limit: Duration, asked: impl Future<Output = Answer>) -> Answer {
    let started = Instant::now();
    let answer = asked.await;
    assert!(started.elapsed() < limit, "{:?}", started.elapsed());
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_and_paused() {
    let mut world = World::start().await;
    world.all_holds("well").await;
    world.redis.pause();
    world.all_holds("stopped").await;
    world.redis.resume();
    world.all_holds("going again").await;
    world.command(&["CLIENT", "PAUSE", "3000", "ALL"]).await;
    world.all_holds("paused").await;
    world.all_holds("well again").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_and_restarted_empty() {
    let mut world = World::start().await;
    world.all_holds("well").await;
    let port = world.redis.port();
    for _ in 0..2 {
        world.redis.kill();
        world.all_holds("gone").await;
        world.redis = Redis::start_on(port);
        world.all_holds("back and empty").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn full_and_refusing_full_and_evicting() {
    let mut world = World::start().await;
    world.all_holds("well").await;
    for policy in ["noeviction", "allkeys-lru"] {
        world.command(&["CONFIG", "SET", "maxmemory-policy", policy]).await;
        world.command(&["CONFIG", "SET", "maxmemory", "1"]).await;
        world.all_holds(policy).await;
        world.command(&["CONFIG", "SET", "maxmemory", "0"]).await;
        world.all_holds("room again").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn flushed_all_the_time() {
    let mut world = World::start().await;
    let client = redis::Client::open(world.redis.url()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let flushing = tokio::spawn(async move {
        loop {
            let _: () = redis::cmd("FLUSHALL").query_async(&mut connection).await.unwrap();
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
    });
    world.all_holds("flushed").await;
    world.all_holds("flushed").await;
    assert!(!flushing.is_finished());
    flushing.abort();
    world.all_holds("left alone").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn turned_into_a_replica_that_only_reads() {
    let mut world = World::start().await;
    world.all_holds("well").await;
    world.command(&["REPLICAOF", "127.0.0.1", "1"]).await;
    world.all_holds("read-only").await;
    world.command(&["REPLICAOF", "NO", "ONE"]).await;
    world.all_holds("a primary again").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn full_of_garbage() {
    let mut world = World::start().await;
    world.all_holds("well").await;
    let client = redis::Client::open(world.redis.url()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let garbage: [&[u8]; 8] = [
        b"",
        b"V1",
        b"V1{\"user\":",
        b"V1{}",
        b"V1null",
        b"V0{\"user\":\"00000000-0000-4000-8000-000000000000\",\"role\":\"owner\",\"expires_at\":\"2099-01-01T00:00:00Z\"}",
        b"V1\xff\xfe",
        b"\x00",
    ];
    for wrong in garbage {
        let keys: Vec<String> = redis::cmd("KEYS").arg("*").query_async(&mut connection).await.unwrap();
        assert!(keys.iter().any(|key| key.contains(":session:")) && keys.iter().any(|key| key.contains("rl:")));
        for key in keys {
            let _: () = redis::cmd("SET").arg(key).arg(wrong).query_async(&mut connection).await.unwrap();
        }
        world.all_holds("garbage").await;
    }
    let keys: Vec<String> = redis::cmd("KEYS").arg("*").query_async(&mut connection).await.unwrap();
    for key in keys {
        let _: () = redis::cmd("DEL").arg(&key).query_async(&mut connection).await.unwrap();
        let _: () = redis::cmd("RPUSH").arg(&key).arg("x").query_async(&mut connection).await.unwrap();
    }
    world.all_holds("keys of another type").await;
    let me = world.instances[0].get("/v1/me", &world.token).await.expect(200).json();
    let left: Vec<String> = redis::cmd("KEYS").arg("*").query_async(&mut connection).await.unwrap();
    // Nobody asks again for the sessions that ended in earlier rounds, so nobody mends their keys.
    let asked_for = |key: &String| !key.contains(":session:") || key.contains(text(&me, "session_id"));
    assert!(left.iter().any(|key| key.contains(":session:") && asked_for(key)), "{left:?}");
    for key in left.into_iter().filter(asked_for) {
        let kind: String = redis::cmd("TYPE").arg(&key).query_async(&mut connection).await.unwrap();
        assert_ne!(kind, "list", "{key} was mended on the way");
    }
}
