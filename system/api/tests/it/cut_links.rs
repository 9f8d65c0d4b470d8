//! Two instances on one Redis, and one of the two links, or both, are hurt: an acknowledged write is seen by
//! everybody, at once, and an ended session is nobody's way in.

use std::time::{Duration, Instant};

use forecastle_store::CacheKey;
use forecastle_testbed::{Redis, Relay};
use reqwest::Method;
use serde_json::Value;

use crate::fixtures::{Instance, config, scenario, text};
use crate::servers::Servers;

/// Longest a write takes whose own instance has lost Redis while another one has not; requests to a silent
/// link time out after 250 ms each until the breaker opens.
const WRITE_MAX: Duration = Duration::from_secs(2);

struct Pair {
    _servers: Servers,
    _redis: Redis,
    link: Relay,
    /// Behind the link that can be hurt.
    hurt: Instance,
    well: Instance,
}

async fn pair() -> Pair {
    let servers = Servers::start().await;
    let redis = Redis::start();
    let link = Relay::to(redis.port());
    let mut over_link = config(&servers);
    over_link.cache.redis_url = format!("redis://127.0.0.1:{}/", link.port());
    let mut direct = config(&servers);
    direct.cache.redis_url = redis.url();
    let (hurt, well) = (Instance::start(over_link).await, Instance::start(direct).await);
    Pair { _servers: servers, _redis: redis, link, hurt, well }
}

/// Two instances whose links to Redis are cut together and mended together, while Redis itself keeps what it
/// holds: other than one that restarts, it comes back with the old entries.
pub(crate) struct BothCut {
    _servers: Servers,
    pub(crate) one: Instance,
    pub(crate) two: Instance,
    redis: Redis,
    links: [Relay; 2],
}

impl BothCut {
    pub(crate) async fn start() -> Self {
        let servers = Servers::start().await;
        let redis = Redis::start();
        let links = [Relay::to(redis.port()), Relay::to(redis.port())];
        let over = |link: &Relay| {
            let mut config = config(&servers);
            config.cache.redis_url = format!("redis://127.0.0.1:{}/", link.port());
            config
        };
        let (one, two) = (Instance::start(over(&links[0])).await, Instance::start(over(&links[1])).await);
        Self { _servers: servers, one, two, redis, links }
    }

    /// Both instances lose Redis, which keeps this session's entry.
    pub(crate) async fn cut_keeping(&self, session: &Value) {
        let given_up = Instant::now() + Duration::from_secs(10);
        while !self.keeps(session).await {
            assert!(Instant::now() < given_up, "the session was never kept");
            self.two.get("/v1/me", text(session, "access_token")).await.expect(200);
        }
        self.links.iter().for_each(Relay::cut);
    }

    /// Both have Redis again, which held the session's entry all the while.
    pub(crate) async fn mend_still_keeping(&self, session: &Value) {
        assert!(self.keeps(session).await, "the entry is gone, so nothing is shown");
        self.links.iter().for_each(Relay::mend);
    }

    async fn keeps(&self, session: &Value) -> bool {
        let (tenant, id) = (text(session, "tenant_id").parse().unwrap(), text(session, "session_id").parse().unwrap());
        let client = redis::Client::open(self.redis.url()).unwrap();
        let mut connection = client.get_multiplexed_async_connection().await.unwrap();
        let entry: Option<String> =
            redis::cmd("GET").arg(CacheKey::session(tenant, id).as_str()).query_async(&mut connection).await.unwrap();
        // What is no value is a reader's mark.
        entry.is_some_and(|entry| entry.starts_with('V'))
    }
}

#[tokio::test]
async fn a_write_by_an_instance_without_redis_is_read_by_the_other_one_at_once() {
    let Pair { link, hurt, well, .. } = &pair().await;
    let session = well.sign_up("ada", "PRO").await;
    let token = text(&session, "access_token");
    let id = text(&well.scenario(token, "s0").await, "id").to_owned();
    let path = format!("/v1/scenarios/{id}");
    let mut version = 1;
    for silent in [false, true] {
        if silent {
            link.silence()
        } else {
            link.cut()
        }
        for _ in 0..15 {
            // Kept by the well one, as often as it takes to be sure.
            for _ in 0..3 {
                well.get(&path, token).await.expect(200);
                well.get("/v1/dashboard", token).await.expect(200);
            }
            let (tag, name) = (format!("\"{version}\""), format!("s{version}"));
            let started = Instant::now();
            let edited =
                hurt.send(Method::PUT, &path, Some(token), &[("if-match", &tag)], Some(&scenario(&name))).await;
            edited.expect(200);
            assert!(started.elapsed() < WRITE_MAX, "{:?}", started.elapsed());
            version += 1;
            let read = well.get(&path, token).await.expect(200);
            assert_eq!(read.header("etag"), format!("\"{version}\""), "silent {silent}");

            let key = format!("f{version}");
            let body = serde_json::json!({"scenario_id": id});
            hurt.post_with_key("/v1/forecasts", token, &key, body).await.expect(202);
            let dashboard = well.get("/v1/dashboard", token).await.expect(200).json();
            assert_eq!(dashboard["forecasts"]["queued"], version - 1);
            assert_eq!(text(&dashboard["recent_forecasts"][0], "scenario_name"), name);
        }
        link.mend();
    }
}

#[tokio::test]
async fn a_session_ended_by_an_instance_without_redis_is_over_at_the_other_one() {
    let Pair { link, hurt, well, .. } = &pair().await;
    well.sign_up("ada", "FREE").await;
    for silent in [false, true] {
        let session = well.log_in("ada").await;
        let token = text(&session, "access_token");
        for _ in 0..3 {
            well.get("/v1/me", token).await.expect(200);
        }
        if silent {
            link.silence()
        } else {
            link.cut()
        }
        let started = Instant::now();
        hurt.send(Method::POST, "/v1/logout", Some(token), &[], None).await.expect(204);
        assert!(started.elapsed() < WRITE_MAX, "it does not wait for the entry to run out: {:?}", started.elapsed());
        assert_eq!(well.get("/v1/me", token).await.code().0, 401);
        assert_eq!(hurt.get("/v1/me", token).await.code().0, 401);
        link.mend();
    }
}
