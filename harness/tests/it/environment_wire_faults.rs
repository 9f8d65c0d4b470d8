//! Each fault of single requests on both engines: the k-th is hurt, no other, on no other link; and it is over when healed.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use nogo_faults::{BookLimits, ParamValue, RuleBook, Step, Target, WireFault, catalogue};
use nogo_harness::environment::engine::{Engine, PostgresSpec, RedisSpec};
use nogo_harness::environment::links::Links;
use nogo_harness::environment::servers::dsn;
use redis::AsyncCommands as _;

use crate::environment_store_faults::{
    LIMIT, TOLERANCE, answers, fault_goes_through, number, redis_at, soon, sqlstate, with_notes,
};
use crate::environment_world::World;

/// How late a late answer is.
const LATE_MS: u64 = 450;

/// Links to one store, of two processes, and the book that is asked for every request on them.
struct Rig {
    links: Links,
    book: RuleBook,
}

impl Rig {
    async fn start() -> Self {
        let book = RuleBook::new(Instant::now(), BookLimits::default());
        Self { links: Links::start(1, Some(book.clone())).await.unwrap(), book }
    }

    /// The fault of a schedule's line, on the link of `api-1` to `store`: the second match, once.
    fn fault(&self, name: &str, store: &str, params: &[(&str, ParamValue)]) -> WireFault {
        // A book forgets no name.
        let id = format!("t{}", self.book.records().len());
        let row = catalogue::find(name).expect("a row");
        let mut all: BTreeMap<String, ParamValue> =
            params.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        all.insert("kth".to_owned(), ParamValue::Whole(2));
        all.insert("times".to_owned(), ParamValue::Whole(1));
        let target = format!("api-1-{store}");
        let step = Step { fault: name.to_owned(), target, at_ms: 0, when: None, duration_ms: 1, params: all };
        let rules = catalogue::rules_of(&step, &id).unwrap();
        let targets = vec![Target::Proxy { api: self.links.client().api_addr(), name: step.target }];
        WireFault::new(row.name, self.book.clone(), rules, targets, TOLERANCE, 5_000).unwrap()
    }
}

fn text(value: &str) -> ParamValue {
    ParamValue::Text(value.to_owned())
}

async fn postgres_rows(engine: &dyn Engine) {
    let server = engine.start_postgres(&PostgresSpec::default()).await.unwrap();
    let past_links = with_notes(&server).await;
    let rig = Rig::start().await;
    let at = [rig.links.client().api_addr()];
    let hurt = dsn("app", "app", rig.links.open("api-1", "postgres", server.address()).await.unwrap(), "postgres");
    let spared = dsn("app", "app", rig.links.open("worker-1", "postgres", server.address()).await.unwrap(), "postgres");
    let is_well = async || assert!(answers(&hurt).await && answers(&spared).await);
    let has = async |id: i32| number(&past_links, &format!("SELECT count(*) FROM notes WHERE id = {id}")).await == 1;
    let insert = |id: i32| format!("INSERT INTO notes VALUES ({id}, 'text')");

    for (first, name, applied) in [(100, "postgres-commit-lost", false), (200, "postgres-commit-answer-lost", true)] {
        let bites = async || {
            sqlstate(&hurt, &insert(first)).await.expect("the first match passes");
            sqlstate(&spared, &insert(first + 1)).await.expect("another process is not counted");
            sqlstate(&hurt, &insert(first + 2)).await.expect_err("the second match was answered");
            sqlstate(&hurt, &insert(first + 3)).await.expect("the third match passes");
            let found = [has(first).await, has(first + 1).await, has(first + 2).await, has(first + 3).await];
            assert_eq!(found, [true, true, applied, true], "{name}");
        };
        fault_goes_through(rig.fault(name, "postgres", &[]), &at, bites, &is_well).await;
    }

    let statement = "SELECT count(*) FROM notes WHERE id = 7";
    let named = [("statement", text("select count(*) from notes where id ="))];
    let took = async |dsn: &str| {
        let began = Instant::now();
        number(dsn, statement).await;
        began.elapsed()
    };
    let late = [named[0].clone(), ("late_ms", ParamValue::Whole(LATE_MS.cast_signed()))];
    let bites = async || {
        sqlstate(&hurt, "SELECT 1").await.expect("another statement is not counted");
        let times = [took(&hurt).await, took(&hurt).await, took(&hurt).await]
            .map(|time| time >= Duration::from_millis(LATE_MS));
        assert_eq!(times, [false, true, false]);
    };
    fault_goes_through(rig.fault("postgres-answer-late", "postgres", &late), &at, bites, &is_well).await;

    let bites = async || {
        let answered = [(); 3].map(|()| soon(sqlstate(&hurt, statement)));
        let mut met = Vec::new();
        for answer in answered {
            met.push(answer.await);
        }
        assert_eq!(met, [Some(Ok(())), None, Some(Ok(()))], "{:?}", rig.book.events());
        assert!(answers(&spared).await);
    };
    fault_goes_through(rig.fault("postgres-request-held", "postgres", &named), &at, bites, &is_well).await;
    rig.links.close().await.unwrap();
    server.stop().await.unwrap();
}

async fn redis_rows(engine: &dyn Engine) {
    let server = engine.start_redis(&RedisSpec::default()).await.unwrap();
    let rig = Rig::start().await;
    let at = [rig.links.client().api_addr()];
    let hurt = server.url_at(rig.links.open("api-1", "redis", server.address()).await.unwrap());
    let spared = server.url_at(rig.links.open("api-2", "redis", server.address()).await.unwrap());
    let count = async |url: &str, key: &str| redis_at(url).await.incr::<_, _, i64>(key, 1).await;
    let is_well = async || {
        for url in [&hurt, &spared] {
            tokio::time::timeout(LIMIT, count(url, "well")).await.expect("in time").expect("answered");
        }
    };
    let read = async |key: &str| redis_at(&server.url()).await.get::<_, Option<i64>>(key).await.unwrap();
    let named = [("command", text("incrby")), ("key_prefix", text("n"))];

    let bites = async || {
        assert_eq!(count(&hurt, "n1").await.unwrap(), 1);
        assert_eq!(count(&spared, "n1").await.unwrap(), 2, "another process is not counted");
        // The client gives up by itself, or it waits on.
        assert!(!matches!(soon(count(&hurt, "n1")).await, Some(Ok(_))), "the second match was answered");
        assert_eq!(read("n1").await, Some(3), "the server did not carry it out");
        assert_eq!(count(&hurt, "n1").await.unwrap(), 4);
    };
    fault_goes_through(rig.fault("redis-reply-lost", "redis", &named), &at, bites, &is_well).await;

    let late = [&named[..], &[("late_ms", ParamValue::Whole(LATE_MS.cast_signed()))]].concat();
    let took = async |key: &str| {
        let began = Instant::now();
        count(&hurt, key).await.unwrap();
        began.elapsed() >= Duration::from_millis(LATE_MS)
    };
    let bites = async || assert_eq!([took("n2").await, took("other").await, took("n2").await], [false, false, true]);
    fault_goes_through(rig.fault("redis-reply-late", "redis", &late), &at, bites, &is_well).await;

    for code in ["OOM", "READONLY", "LOADING", "MISCONF"] {
        let key = format!("n-{code}");
        let bites = async || {
            assert_eq!(count(&hurt, &key).await.unwrap(), 1);
            let refusal = count(&hurt, &key).await.expect_err("the second match was carried out");
            assert!(
                format!("{refusal:?}").to_uppercase().contains(code) || refusal.code() == Some(code),
                "{code}: {refusal:?}"
            );
            assert_eq!((read(&key).await, count(&hurt, &key).await.unwrap()), (Some(1), 2));
        };
        let coded = [&named[..], &[("code", text(code))]].concat();
        fault_goes_through(rig.fault("redis-error-reply", "redis", &coded), &at, bites, &is_well).await;
    }
    rig.links.close().await.unwrap();
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn process_faults_of_single_requests_hurt_the_kth_and_no_other() {
    let world = World::new();
    postgres_rows(&world.process_engine()).await;
    redis_rows(&world.process_engine()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn docker_faults_of_single_requests_hurt_the_kth_and_no_other() {
    let world = World::new();
    if let Some(engine) = world.docker_engine().await {
        postgres_rows(&engine).await;
        redis_rows(&engine).await;
    }
}
