//! What one caller is admitted, whatever Redis does with the counts: never more than the bound that
//! `rate_limit.rs` states, never nothing, and everything again once it has waited.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use forecastle_api::Rate;
use forecastle_testbed::Redis;
use serde_json::json;

use crate::fixtures::{Instance, config, text};
use crate::product::join_all;
use crate::servers::Servers;

const USER: Rate = Rate { per_second: 20, burst: 30 };
const FLOOR: Rate = Rate { per_second: 4, burst: 6 };
const LONG: Duration = Duration::from_secs(3);

struct World {
    _servers: Servers,
    redis: Redis,
    instances: [Instance; 2],
    token: String,
}

impl World {
    async fn start() -> Self {
        let servers = Servers::start().await;
        let redis = Redis::start();
        let mut limited = config(&servers);
        limited.cache.redis_url = redis.url();
        (limited.limits.user, limited.limits.user_floor) = (USER, FLOOR);
        let instances = [Instance::start(limited.clone()).await, Instance::start(limited).await];
        let session = instances[0].sign_up("ada", "PRO").await;
        let token = text(&session, "access_token").to_owned();
        Self { _servers: servers, redis, instances, token }
    }

    /// How many of as many requests as fit into the time were admitted, and the time.
    async fn admitted(&self) -> (u32, f64) {
        let started = Instant::now();
        let admitted = AtomicU32::new(0);
        let callers = (0..16).map(|n| {
            let (api, admitted) = (&self.instances[n % 2], &admitted);
            async move {
                while started.elapsed() < LONG {
                    let answer = api.get("/v1/me", &self.token).await;
                    match answer.status.as_u16() {
                        200 => admitted.fetch_add(1, Ordering::Relaxed),
                        429 => {
                            assert_eq!(answer.code().1, "rate_limited");
                            assert!(answer.header("retry-after").parse::<u32>().unwrap() >= 1);
                            0
                        }
                        other => panic!("{other}: {}", answer.text),
                    };
                }
            }
        });
        join_all(callers).await;
        (admitted.into_inner(), started.elapsed().as_secs_f64())
    }

    /// Nobody is blocked longer than a bucket takes to fill.
    async fn is_free_again(&self) {
        tokio::time::sleep(Duration::from_millis(1_600)).await;
        for api in &self.instances {
            for _ in 0..3 {
                let answer = api.get("/v1/me", &self.token).await.expect(200);
                assert!(answer.header("ratelimit-policy").contains("\"user\";q="), "{:?}", answer.headers);
            }
        }
    }
}

fn bucket(rate: Rate, seconds: f64) -> f64 {
    f64::from(rate.burst) + f64::from(rate.per_second) * seconds
}

#[tokio::test(flavor = "multi_thread")]
async fn one_bucket_over_all_instances() {
    let world = World::start().await;
    for _ in 0..2 {
        let (admitted, seconds) = world.admitted().await;
        let bound = bucket(USER, seconds);
        assert!(f64::from(admitted) <= bound, "{admitted} of {bound}");
        assert!(f64::from(admitted) >= 0.8 * bound, "what is allowed is admitted: {admitted} of {bound}");
        world.is_free_again().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_floor_of_each_instance_without_redis() {
    let mut world = World::start().await;
    world.is_free_again().await;
    world.redis.pause();
    // Until the breaker is open, each wait for Redis is 250 ms long; none of it counts more.
    let (admitted, seconds) = world.admitted().await;
    let bound = 2.0 * bucket(FLOOR, seconds);
    assert!(f64::from(admitted) <= bound, "{admitted} of {bound}");
    assert!(admitted >= 2 * FLOOR.burst, "nobody is shut out: {admitted}");
    world.redis.resume();
    world.redis.kill();
    let (admitted, seconds) = world.admitted().await;
    assert!(f64::from(admitted) <= 2.0 * bucket(FLOOR, seconds), "{admitted}");
    world.redis = Redis::start_on(world.redis.port());
    world.is_free_again().await;
    let (admitted, seconds) = world.admitted().await;
    assert!(f64::from(admitted) <= bucket(USER, seconds) + 2.0 * bucket(FLOOR, 0.0), "{admitted}");
}

#[tokio::test(flavor = "multi_thread")]
async fn counts_that_redis_loses_all_the_time_are_bounded_by_each_instances_own() {
    let world = World::start().await;
    let client = redis::Client::open(world.redis.url()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let flushing = tokio::spawn(async move {
        loop {
            let _: () = redis::cmd("FLUSHALL").query_async(&mut connection).await.unwrap();
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    });
    let (admitted, seconds) = world.admitted().await;
    let bound = 2.0 * bucket(USER, seconds);
    assert!(f64::from(admitted) <= bound, "{admitted} of {bound}");
    assert!(f64::from(admitted) > bucket(USER, seconds), "the test bites: one bucket is passed: {admitted}");
    flushing.abort();
    world.is_free_again().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_redis_counts_by_the_floors() {
    let world = World::start().await;
    let client = redis::Client::open(world.redis.url()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let mut set = async |name: &str, value: &str| {
        let mut command = redis::cmd("CONFIG");
        let _: () = command.arg("SET").arg(name).arg(value).query_async(&mut connection).await.unwrap();
    };
    set("maxmemory", "1").await;
    let (admitted, seconds) = world.admitted().await;
    assert!(f64::from(admitted) <= 2.0 * bucket(FLOOR, seconds) + f64::from(USER.burst), "{admitted}");
    assert!(admitted >= 2 * FLOOR.burst, "{admitted}");
    set("maxmemory", "0").await;
    world.is_free_again().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn guessing_passwords_is_bounded_most_and_a_claimed_address_does_not_help() {
    let servers = Servers::start().await;
    let mut limited = config(&servers);
    limited.limits.credentials = Rate { per_second: 1, burst: 5 };
    limited.limits.credentials_floor = Rate { per_second: 1, burst: 2 };
    let api = Instance::start(limited.clone()).await;
    limited.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    let behind_proxy = Instance::start(limited).await;
    let guess = async |api: &Instance, forwarded: String| {
        let body = json!({"email": "nobody@example.com", "password": "correct horse battery"});
        let answer =
            api.send(reqwest::Method::POST, "/v1/login", None, &[("x-forwarded-for", &forwarded)], Some(&body)).await;
        answer.status.as_u16()
    };
    let started = Instant::now();
    let mut unlimited = 0;
    for n in 0..40 {
        unlimited += u32::from(guess(&api, format!("198.51.100.{n}")).await == 401);
    }
    let bound = 5 + started.elapsed().as_secs() as u32 + 1;
    assert!((5..=bound).contains(&unlimited), "an untrusted peer's claims do not count: {unlimited}");
    // Behind a trusted proxy each client has a bucket of its own, and what a client claims before is ignored.
    assert_eq!(guess(&behind_proxy, "203.0.113.1".to_owned()).await, 401);
    let started = Instant::now();
    let mut admitted = 0;
    for n in 0..40 {
        admitted += u32::from(guess(&behind_proxy, format!("198.51.100.{n}, 203.0.113.2")).await == 401);
    }
    let bound = 5 + started.elapsed().as_secs() as u32 + 1;
    assert!((5..=bound).contains(&admitted), "{admitted}");
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_sent_costs_the_address_one_token_also_where_nobody_is_signed_in() {
    let servers = Servers::start().await;
    let redis = Redis::start();
    let mut limited = config(&servers);
    limited.cache.redis_url = redis.url();
    limited.limits.address = Rate { per_second: 1, burst: 20 };
    limited.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    let api = Instance::start(limited).await;
    let session = api.sign_up("ada", "PRO").await;
    let token = text(&session, "access_token");
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let forged = format!("{signed}.{}", signature.chars().rev().collect::<String>());
    for (address, method, path, bearer, until_then) in [
        ("198.51.100.1", reqwest::Method::GET, "/v1/me", Some(token), 200),
        ("198.51.100.2", reqwest::Method::HEAD, "/v1/me", Some(token), 200),
        ("198.51.100.3", reqwest::Method::GET, "/v1/me", Some(forged.as_str()), 401),
        ("198.51.100.4", reqwest::Method::GET, "/v1/me", None, 401),
        ("198.51.100.5", reqwest::Method::PATCH, "/v1/me", Some(token), 405),
        ("198.51.100.6", reqwest::Method::GET, "/v1/nowhere", Some(token), 404),
    ] {
        let started = Instant::now();
        let mut answered = 0;
        for _ in 0..30 {
            let answer = api.send(method.clone(), path, bearer, &[("x-forwarded-for", address)], None).await;
            let status = answer.status.as_u16();
            assert!(status == until_then || status == 429, "{method} {path}: {status}");
            answered += u64::from(status == until_then);
        }
        let refilled = started.elapsed().as_secs() + 1;
        assert!((20..=20 + refilled).contains(&answered), "{method} {path}: {answered} in {:?}", started.elapsed());
    }
}
