//! Two instances on one Redis, and one of the two links is hurt: an acknowledged write is seen by
//! everybody, at once, and an ended session is nobody's way in.

use std::time::{Duration, Instant};

use forecastle_testbed::{Redis, Relay};
use reqwest::Method;

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
