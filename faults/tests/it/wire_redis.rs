//! Rules on links to a real Redis, driven by the redis crate.

use std::time::{Duration, Instant};

use nogo_faults::{Action, Outcome, Pattern, Place, Point, Protocol, RedisPattern, ServiceControl, WireEventKind};
use redis::{
    AsyncCommands, AsyncConnectionConfig, RedisResult, Script,
    aio::{ConnectionLike as _, MultiplexedConnection},
};
use tokio::time::timeout;

use crate::{
    private_servers::PrivateRedis,
    wire_rig::{LIMIT, WireRig},
};

struct Rig {
    wire: WireRig,
    _server: PrivateRedis,
    /// Past the proxy.
    direct: MultiplexedConnection,
}

impl Rig {
    async fn start() -> Self {
        let server = PrivateRedis::start().await;
        let direct = server.connection().await.expect("connect");
        let wire = WireRig::start(server.address(), Protocol::Redis).await;
        Self { wire, _server: server, direct }
    }

    async fn connect(&self) -> MultiplexedConnection {
        self.connect_as("").await
    }

    async fn connect_as(&self, query: &str) -> MultiplexedConnection {
        let client = redis::Client::open(format!("redis://{}/{query}", self.wire.listen)).expect("address");
        let config = AsyncConnectionConfig::new().set_response_timeout(Some(LIMIT));
        client.get_multiplexed_async_connection_with_config(&config).await.expect("connect through the proxy")
    }

    async fn has(&mut self, key: &str) -> bool {
        self.direct.exists(key).await.expect("ask past the proxy")
    }
}

fn set(key_prefix: &str) -> Pattern {
    Pattern::Redis(RedisPattern {
        command: Some("SET".into()),
        key_prefix: Some(key_prefix.into()),
        ..RedisPattern::default()
    })
}

fn error(code: &str) -> Action {
    Action::Error { code: code.into(), text: None, retry_after_s: None }
}

#[tokio::test]
async fn a_lost_reply_is_lost_and_the_write_is_there() {
    let mut rig = Rig::start().await;
    for (place, is_there) in [(Place::BeforeServer, false), (Place::BeforeClient, true)] {
        for action in [Action::Drop, Action::Cut, Action::Reset] {
            let name = format!("{place:?}-{action:?}");
            rig.wire.rule(&name, set("lost:"), 2, place, action.clone());
            let mut client = rig.connect().await;
            let _: () = client.set("kept:0", 0).await.expect("another key");
            let _: () = client.set("lost:1", 1).await.expect("the first is not meant");
            let key = format!("lost:{name}");
            let (mut setter, written) = (client.clone(), key.clone());
            let mut setting = tokio::spawn(async move { setter.set::<_, _, ()>(written, 1).await });
            rig.wire.book.wait_for(&name, LIMIT, |record| record.observed == 1).await.expect("bites");
            if action == Action::Drop {
                let silence = timeout(Duration::from_millis(100), &mut setting).await;
                assert!(silence.is_err(), "{name}: {silence:?}");
                setting.abort();
            } else {
                setting.await.expect("join").expect_err("the connection is gone");
            }
            assert_eq!(rig.has(&key).await, is_there, "{name}");
            let record = rig.wire.record(&name);
            assert_eq!((record.matched, record.observed, record.applied), (2, 1, u64::from(is_there)), "{name}");
            rig.wire.book.remove(&name).expect("remove");
        }
    }
    assert_eq!(rig.wire.untracked(), Vec::<String>::new());
}

#[tokio::test]
async fn a_late_reply_comes_late_and_after_the_effect() {
    let mut rig = Rig::start().await;
    rig.wire.rule("late", set("k"), 1, Place::BeforeClient, Action::Late { ms: 1_000 });
    let mut client = rig.connect().await;
    let started = Instant::now();
    let setting = tokio::spawn(async move { client.set::<_, _, ()>("k", 1).await });
    rig.wire.book.wait_for("late", LIMIT, |record| record.applied == 1).await.expect("applied");
    assert!(rig.has("k").await);
    assert!(!setting.is_finished() || started.elapsed() >= Duration::from_millis(1_000));
    setting.await.expect("join").expect("late, but not lost");
    assert!(started.elapsed() >= Duration::from_millis(1_000));
}

#[tokio::test]
async fn error_replies_take_the_place_of_replies_and_the_others_keep_theirs() {
    let mut rig = Rig::start().await;
    for (number, code) in ["OOM", "READONLY", "LOADING", "MISCONF"].into_iter().enumerate() {
        for (place, is_there) in [(Place::BeforeServer, false), (Place::BeforeClient, true)] {
            let name = format!("{code}-{place:?}");
            rig.wire.rule(&name, set("b"), 1, place, error(code));
            let mut client = rig.connect().await;
            let key = format!("b{number}{place:?}");
            let mut pipeline = redis::pipe();
            pipeline.set("a", number).set(&key, 1).get("a").ignore_errors();
            let replies: Vec<redis::Value> = pipeline.query_async(&mut client).await.expect("a pipeline of replies");
            match replies.as_slice() {
                [redis::Value::Okay, redis::Value::ServerError(error), redis::Value::BulkString(value)] => {
                    assert_eq!(error.code(), code, "{name}");
                    assert_eq!(*value, number.to_string().into_bytes(), "the reply of the command behind it");
                }
                other => panic!("{name}: {other:?}"),
            }
            assert_eq!(rig.has(&key).await, is_there, "{name}");
            let again: RedisResult<()> = client.set(&key, 2).await;
            again.expect("the connection goes on, and the rule has had its k");
            assert_eq!(rig.wire.record(&name).observed, 1);
            rig.wire.book.remove(&name).expect("remove");
        }
    }
    assert_eq!(rig.wire.untracked(), Vec::<String>::new());
}

#[tokio::test]
async fn a_transaction_is_one_write_and_is_refused_as_a_whole() {
    let mut rig = Rig::start().await;
    rig.wire.book.set_listing(true);
    rig.wire.rule("oom", set("n:"), 2, Place::BeforeServer, error("OOM"));
    for resp in ["", "?protocol=resp3"] {
        let mut client = rig.connect_as(resp).await;
        let mut outcomes = Vec::new();
        for number in 0..3 {
            let mut transaction = redis::pipe();
            transaction.atomic().set(format!("n:{resp}{number}"), 1).incr("count", 1).ignore();
            // The crate keeps no code of an error that EXEC itself was answered with, so the reply is read as it came.
            let skipped = transaction.len() + 1;
            let replies = client.req_packed_commands(&transaction, skipped, 1).await.expect("the connection goes on");
            outcomes.push(match replies.as_slice() {
                [redis::Value::Array(_)] => None,
                [redis::Value::ServerError(error)] => Some(error.code().to_owned()),
                other => panic!("{other:?}"),
            });
        }
        let expected = if resp.is_empty() { [None, Some("OOM".to_owned()), None] } else { [None, None, None] };
        assert_eq!(outcomes, expected, "{resp}");
    }
    assert!(!rig.has("n:1").await && rig.has("n:2").await);
    let count: i64 = rig.direct.get("count").await.expect("count");
    assert_eq!(count, 5, "the server's transaction was discarded, not left open");
    let (points, _) = rig.wire.book.points();
    assert!(points.iter().all(|point| point.operation.starts_with("EXEC[SET, INCRBY] n:")), "{points:?}");
    let done = |point: &&Point| point.outcome == Some(Outcome::Done);
    assert_eq!((points.len(), points.iter().filter(done).count()), (6, 5));
    assert_eq!(points[1].outcome, Some(Outcome::NotRun), "the server has seen a DISCARD in its place");
    let record = rig.wire.record("oom");
    assert_eq!((record.matched, record.observed, record.applied), (6, 1, 0));
    assert_eq!(rig.wire.untracked(), Vec::<String>::new());
}

#[tokio::test]
async fn scripts_are_known_by_name_once_their_text_was_seen() {
    let mut rig = Rig::start().await;
    let script = Script::new("-- take a token\nreturn redis.call('INCR', KEYS[1])");
    let mut client = rig.connect().await;
    let first: i64 = script.key("tokens:1").invoke_async(&mut client).await.expect("loads and runs");
    assert_eq!(first, 1);
    let by_name = Pattern::Redis(RedisPattern { script: Some("take a token".into()), ..RedisPattern::default() });
    rig.wire.rule("lost", by_name, 2, Place::BeforeClient, Action::Cut);
    let second: i64 = script.key("tokens:1").invoke_async(&mut client).await.expect("not meant");
    assert_eq!(second, 2);
    let third: RedisResult<i64> = script.key("tokens:1").invoke_async(&mut client).await;
    third.expect_err("the reply is lost");
    let tokens: i64 = rig.direct.get("tokens:1").await.expect("ask");
    assert_eq!(tokens, 3, "and the script has run");
    let (events, _) = rig.wire.book.events();
    let acted = events.iter().find(|event| event.kind == WireEventKind::Acted).expect("acted");
    assert_eq!(acted.operation.as_deref(), Some("EVALSHA take a token tokens:1"));
    let confirmed = WireEventKind::Confirmed { outcome: Outcome::Done };
    assert!(events.iter().any(|event| event.kind == confirmed));
}
