//! Each fault of PostgreSQL and Redis on both engines: bites, heals, heals once more, and keeps its radius.
//!
//! The servers of one engine are shared by the faults of one store. The process engine's volume of a set size needs root.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use nogo_faults::catalogue::Family;
use nogo_faults::{
    BlastRadius, Deadlocks, DeadlocksConfig, DiskFull, Fault, FreezeLimits, Greeting, Harm, HeldTransaction,
    HeldTransactionConfig, LinkHarm, LinkResets, LinkResetsConfig, LinkShows, LinksHurt, MaxConnections,
    MaxConnectionsConfig, OutsideRadius, PoolExhaustion, PoolExhaustionConfig, PostgresCrash, PostgresCrashLimits,
    ProofError, RedisClientKill, RedisDemotion, RedisFlush, RedisLoss, RedisLossLimits, RedisMemoryFull, ReplayPause,
    SerializationConfig, SerializationFailures, ServiceFreeze, SlowStatement, SlowStatementConfig, Struck, Tolerance,
    WhenFull, catalogue,
};
use nogo_harness::environment::engine::{Engine, PostgresSpec, RedisSpec};
use nogo_harness::environment::links::Links;
use nogo_harness::environment::process_tree::working_below;
use nogo_harness::environment::replication::wait_until_streaming;
use nogo_harness::environment::servers::{PostgresServer, dsn};
use nogo_harness::environment::service_control::{DataVolume, PostgresControl, RedisControl};
use nogo_harness::environment::volume::may_mount;
use nogo_harness::nemesis::planting::link_harm;
use redis::AsyncCommands as _;
use redis::aio::MultiplexedConnection;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};
use tokio::time::Instant;

use crate::environment_world::{World, not_exercised};

pub(crate) const LIMIT: Duration = Duration::from_secs(20);
pub(crate) const SOON: Duration = Duration::from_millis(700);
pub(crate) const TOLERANCE: Tolerance =
    Tolerance { goodput_ratio_min: 0.0, outage_ms_max: 10_000, recover_ms_max: 10_000 };

/// Refused outside its radius, installed inside it, felt, healed, over, healed once more.
async fn goes_through<H: Harm + 'static>(
    harm: H,
    addresses: &[SocketAddr],
    bites: impl AsyncFn(),
    is_well: impl AsyncFn(),
) {
    fault_goes_through(Struck::new(harm, TOLERANCE), addresses, bites, is_well).await;
}

/// The same for what is a fault by itself.
pub(crate) async fn fault_goes_through<F: Fault>(
    mut fault: F,
    addresses: &[SocketAddr],
    bites: impl AsyncFn(),
    is_well: impl AsyncFn(),
) {
    let name = Fault::name(&fault).to_owned();
    let began = Instant::now();
    let refusal = BlastRadius::new(LIMIT).grant(&fault, LIMIT).expect_err("granted outside its radius");
    assert!(matches!(refusal, OutsideRadius::NotAllowed(_)), "{name}: {refusal}");
    let mut radius = BlastRadius::new(LIMIT);
    addresses.iter().for_each(|address| {
        radius.allow_address(*address);
    });
    let grant = radius.grant(&fault, LIMIT).unwrap_or_else(|error| panic!("{name}: {error}"));
    is_well().await;
    let proof = fault.install(&grant).await.unwrap_or_else(|error| panic!("{name}: install: {error}"));
    println!("{name}: {proof:?}");
    bites().await;
    fault.control_proof().await.unwrap_or_else(|error| panic!("{name}: while it stands: {error}"));
    let healed = fault.heal().await.unwrap_or_else(|error| panic!("{name}: heal: {error}"));
    println!("{name}: {healed:?}");
    is_well().await;
    fault.heal().await.unwrap_or_else(|error| panic!("{name}: heal once more: {error}"));
    is_well().await;
    let over = fault.control_proof().await.expect_err("a healed fault still shows");
    assert!(matches!(over, ProofError::NoHarm(_)), "{name}: {over}");
    fault.install(&grant).await.expect_err("a used fault was installed again");
    println!("{name}: {:.1} s", began.elapsed().as_secs_f64());
}

pub(crate) async fn soon<T>(what: impl Future<Output = T>) -> Option<T> {
    tokio::time::timeout(SOON, what).await.ok()
}

async fn connect(dsn: &str) -> PgConnection {
    PgConnection::connect(dsn).await.unwrap_or_else(|error| panic!("connect: {error}"))
}

/// Runs it as the role behind `dsn`; the SQLSTATE of the refusal.
pub(crate) async fn sqlstate(dsn: &str, statements: &str) -> Result<(), String> {
    let mut connection = PgConnection::connect(dsn).await.map_err(|error| state_of(&error))?;
    connection.execute(AssertSqlSafe(statements.to_owned())).await.map(drop).map_err(|error| state_of(&error))
}

fn state_of(error: &sqlx::Error) -> String {
    match error {
        sqlx::Error::Database(refusal) => refusal.code().unwrap_or_default().into_owned(),
        other => format!("no answer: {other}"),
    }
}

pub(crate) async fn number(dsn: &str, question: &str) -> i64 {
    let mut connection = connect(dsn).await;
    sqlx::query_scalar(AssertSqlSafe(question.to_owned())).fetch_one(&mut connection).await.unwrap()
}

/// A server with a table `notes` of ten rows that the role `app` may write.
pub(crate) async fn with_notes(server: &PostgresServer) -> String {
    let mut admin = connect(&server.admin_dsn("postgres")).await;
    admin
        .execute(
            "CREATE ROLE app LOGIN PASSWORD 'app'; CREATE TABLE notes (id int PRIMARY KEY, text text NOT NULL); \
             INSERT INTO notes SELECT n, 'text' FROM generate_series(1, 10) n; GRANT ALL ON notes TO app",
        )
        .await
        .unwrap();
    dsn("app", "app", server.address(), "postgres")
}

const READ: &str = "SELECT count(*) FROM notes";

pub(crate) async fn answers(dsn: &str) -> bool {
    tokio::time::timeout(LIMIT, sqlstate(dsn, READ)).await.is_ok_and(|answer| answer.is_ok())
}

async fn is_gone(dsn: &str) -> bool {
    soon(sqlstate(dsn, READ)).await.is_none_or(|answer| answer.is_err())
}

async fn postgres_faults(engine: &dyn Engine) {
    let spec = PostgresSpec { max_connections: 33, ..PostgresSpec::default() };
    let primary = engine.start_postgres(&spec).await.unwrap();
    let replica = engine.start_replica(&PostgresSpec::replica("replica-1", 33), &primary).await.unwrap();
    let replicas = [("replica-1".to_owned(), replica.clone())];
    let app = with_notes(&primary).await;
    let app_there = dsn("app", "app", replica.address(), "postgres");
    let at = [primary.address()];
    let stream = async || {
        wait_until_streaming(&primary, &replicas, LIMIT).await.unwrap();
    };
    let both_answer = async || {
        stream().await;
        assert!(answers(&app).await);
        // One that streams may not have replayed the notes yet.
        let replayed = async {
            while sqlstate(&app_there, READ).await.is_err() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(LIMIT, replayed).await.expect("the replica does not answer");
    };
    both_answer().await;
    let admin = primary.admin_dsn("postgres");

    let control = Arc::new(PostgresControl::new("postgres", primary.clone()));
    let crash =
        PostgresCrash::new("postgres-crash", "t1", control.clone(), &admin, PostgresCrashLimits::default()).unwrap();
    let bites = async || assert!(is_gone(&app).await && answers(&app_there).await);
    goes_through(crash, &at, &bites, &both_answer).await;
    assert_eq!(number(&admin, "SELECT count(*) FROM notes").await, 10);

    let freeze = ServiceFreeze::new("postgres-freeze", control.clone(), Greeting::Postgres, FreezeLimits::default());
    goes_through(freeze, &at, &bites, &both_answer).await;

    let there = replica.admin_dsn("postgres");
    let control_there = Arc::new(PostgresControl::new("replica-1", replica.clone()));
    let stop = PostgresCrash::new("replica-stop", "t2", control_there, &there, PostgresCrashLimits::default()).unwrap();
    let bites = async || assert!(answers(&app).await && is_gone(&app_there).await);
    goes_through(stop, &[replica.address()], bites, &both_answer).await;

    let lag = ReplayPause::new("t3", &there, 10_000).unwrap();
    let bites = async || {
        sqlstate(&app, "INSERT INTO notes VALUES (11, 'late')").await.unwrap();
        assert_eq!(number(&there, "SELECT count(*) FROM notes").await, 10, "the replica is up to date");
    };
    let caught_up = async || {
        let seen = || number(&there, "SELECT count(*) FROM notes WHERE id = 11");
        let written = number(&admin, "SELECT count(*) FROM notes WHERE id = 11").await;
        assert_eq!(seen().await, written, "what had been received was not replayed");
    };
    goes_through(lag, &[replica.address()], bites, caught_up).await;

    locks(&primary, &app).await;
    refusals(&primary, &app).await;
    let stays = async || assert!(answers(&app).await);
    links(primary.address(), Greeting::Postgres, &stays).await;
    resets(&primary, &stays).await;
    both_answer().await;
    replica.stop().await.unwrap();
    primary.stop().await.unwrap();
}

/// Transactions that hold what others want.
async fn locks(primary: &PostgresServer, app: &str) {
    let at = [primary.address()];
    let held = |name, statement: &str, contender: Option<&str>| {
        HeldTransaction::new(HeldTransactionConfig {
            name,
            id: name.to_owned(),
            admin_dsn: primary.admin_dsn("postgres"),
            statements: vec![statement.to_owned()],
            contender: contender.map(str::to_owned),
            lock_ms_max: 3_000,
            heal_ms_max: 5_000,
        })
        .unwrap()
    };
    let update = "SET lock_timeout = 50; UPDATE notes SET text = 'new' WHERE id = 1";
    let read = "SET lock_timeout = 50; SELECT count(*) FROM notes";
    let writes = async || sqlstate(app, update).await.unwrap();

    let rows = held("row-locks", "SELECT FROM notes FOR UPDATE", Some("SELECT FROM notes FOR UPDATE"));
    let bites = async || {
        assert_eq!(sqlstate(app, update).await, Err("55P03".to_owned()));
        sqlstate(app, read).await.expect("a reader needs no row lock");
    };
    goes_through(rows, &at, bites, &writes).await;

    let lock = "LOCK TABLE notes IN ACCESS EXCLUSIVE MODE";
    let table = held("table-locks", lock, Some("SELECT FROM notes"));
    let bites = async || assert_eq!(sqlstate(app, read).await, Err("55P03".to_owned()));
    goes_through(table, &at, bites, &writes).await;

    let idle = held("idle-in-transaction", "SELECT pg_current_xact_id()", None);
    let settled = "SELECT CASE WHEN pg_snapshot_xmin(pg_current_snapshot()) >= pg_current_xact_id() THEN 1::bigint ELSE 0::bigint END";
    let bites = async || {
        assert_eq!(number(app, settled).await, 0, "everything older has ended");
        sqlstate(app, update).await.expect("it holds no lock");
    };
    let is_well = async || {
        let end = Instant::now() + LIMIT;
        // The server's own workers run short transactions as well.
        while number(app, settled).await == 0 {
            assert!(Instant::now() < end, "an older transaction runs on");
        }
    };
    goes_through(idle, &at, bites, is_well).await;
}

/// Statements that the server refuses or ends.
async fn refusals(primary: &PostgresServer, app: &str) {
    let at = [primary.address()];
    let admin_dsn = primary.admin_dsn("postgres");
    let stays = async || assert!(answers(app).await);

    let deadlocks = Deadlocks::new(DeadlocksConfig {
        id: "t1".to_owned(),
        admin_dsn: admin_dsn.clone(),
        table: "public.notes".to_owned(),
        landing_ms_max: 10_000,
        heal_ms_max: 5_000,
    })
    .unwrap();
    let victim = Arc::new((AtomicBool::new(false), AtomicU64::new(0)));
    let (shared, dsn) = (Arc::clone(&victim), app.to_owned());
    let writer = tokio::spawn(async move {
        let mut connection = connect(&dsn).await;
        while !shared.0.load(Ordering::Relaxed) {
            match connection.execute("UPDATE notes SET text = 'mine' WHERE id = 2").await {
                Ok(_) => {}
                Err(error) => {
                    assert_eq!(state_of(&error), "40P01");
                    shared.1.fetch_add(1, Ordering::Relaxed);
                }
            }
            tokio::task::yield_now().await;
        }
    });
    let bites = async || assert!(victim.1.load(Ordering::Relaxed) > 0, "the rival was the victim");
    goes_through(deadlocks, &at, bites, &stays).await;
    victim.0.store(true, Ordering::Relaxed);
    writer.await.unwrap();
    assert_eq!(number(app, "SELECT setting::bigint FROM pg_settings WHERE name = 'deadlock_timeout'").await, 1_000);

    let failures = SerializationFailures::new(SerializationConfig {
        id: "t2".to_owned(),
        admin_dsn: admin_dsn.clone(),
        rewrite: "UPDATE public.notes SET text = text".to_owned(),
        landing_ms_max: 5_000,
        heal_ms_max: 5_000,
    })
    .unwrap();
    let slow_writer =
        "BEGIN; SELECT count(*) FROM notes; SELECT pg_sleep(0.3); UPDATE notes SET text = text WHERE id = 3; COMMIT";
    let bites = async || assert_eq!(sqlstate(app, slow_writer).await, Err("40001".to_owned()));
    let is_well = async || sqlstate(app, slow_writer).await.unwrap();
    goes_through(failures, &at, bites, is_well).await;

    let slow = SlowStatement::new(SlowStatementConfig {
        id: "t3".to_owned(),
        admin_dsn: admin_dsn.clone(),
        table: "public.notes".to_owned(),
        events: "UPDATE".to_owned(),
        witness: "UPDATE public.notes SET text = text WHERE false".to_owned(),
        sleep_ms: 20_000,
        lock_ms_max: 5_000,
    })
    .unwrap();
    let update = "SET statement_timeout = 200; UPDATE notes SET text = 'new' WHERE id = 4";
    let bites = async || {
        assert_eq!(sqlstate(app, update).await, Err("57014".to_owned()));
        sqlstate(app, "SET statement_timeout = 200; DELETE FROM notes WHERE id = 0").await.expect("only updates sleep");
    };
    let is_well = async || sqlstate(app, update).await.unwrap();
    goes_through(slow, &at, bites, is_well).await;

    let config = PoolExhaustionConfig {
        evict_roles: vec!["app".to_owned()],
        ..PoolExhaustionConfig::new("t4", app, admin_dsn.clone())
    };
    let full = PoolExhaustion::new(config, TOLERANCE).unwrap();
    let kept = tokio::sync::Mutex::new(connect(app).await);
    let bites = async || {
        kept.lock().await.execute("SELECT 1").await.expect_err("an idle connection was left");
        assert_eq!(sqlstate(app, "SELECT 1").await, Err("53300".to_owned()));
    };
    fault_goes_through(full, &at, bites, &stays).await;

    let used_up = MaxConnections::new(MaxConnectionsConfig {
        id: "t5".to_owned(),
        admin_dsn: admin_dsn.clone(),
        ordinary_dsn: app.to_owned(),
        role: "app".to_owned(),
        keep_each: 2,
        limit_ms: 10_000,
    })
    .unwrap();
    let mut pool = Vec::new();
    for _ in 0..6 {
        pool.push(connect(app).await);
    }
    let pool = tokio::sync::Mutex::new(pool);
    let bites = async || {
        assert_eq!(sqlstate(app, "SELECT 1").await, Err("53300".to_owned()));
        let mut kept = 0;
        for connection in pool.lock().await.iter_mut() {
            kept += u32::from(connection.execute("SELECT 1").await.is_ok());
        }
        assert_eq!(kept, 2, "of six connections");
    };
    goes_through(used_up, &at, bites, &stays).await;
}

/// Links to one server hurt as each row hurts them, another link to it left alone.
async fn links(server: SocketAddr, greeting: Greeting, stays: impl AsyncFn()) {
    let links = Links::start(1, None).await.unwrap();
    let mut hurt = Vec::new();
    for process in ["api-1", "api-2"] {
        hurt.push((format!("{process}-store"), links.open(process, "store", server).await.unwrap()));
    }
    let spared = links.open("worker-1", "store", server).await.unwrap();
    let store = if greeting == Greeting::Postgres { "postgres" } else { "redis" };
    let server_rows = [format!("{store}-slow"), format!("{store}-blackhole")];
    let rows = catalogue::all().filter(|row| {
        let of_links = catalogue::family_of(row) == Family::Network;
        let leads_there = |target: &&str| catalogue::role_and_store(target).is_some_and(|(_, known)| known == store);
        (of_links && row.targets.iter().any(leads_there)) || server_rows.iter().any(|name| name == row.name)
    });
    for row in rows {
        let name = row.name;
        let (toxics, shows) = link_harm(row).expect("what the row does to a link");
        let id = name.to_owned();
        let harm = LinkHarm { name, id, links: hurt.clone(), toxics, shows, greeting, limit_ms: 10_000 };
        let (late_ms, patience) = match shows {
            LinkShows::LateMs(ms) | LinkShows::LongLateMs(ms) => (Some(ms), Duration::from_millis(1_500)),
            LinkShows::SilentMs(_) | LinkShows::Broken => (None, Duration::from_millis(400)),
        };
        let bites = async || {
            for (_, listen) in &hurt {
                let met = match shows {
                    LinkShows::LongLateMs(_) => nogo_faults::greet_at_length(*listen, patience).await,
                    _ => nogo_faults::greet(*listen, greeting, patience).await,
                };
                match late_ms {
                    Some(late_ms) => {
                        let after = met.as_ref().map(|after| u64::try_from(after.as_millis()).unwrap());
                        assert!(after.is_ok_and(|after| after >= late_ms), "{name}: {met:?}");
                    }
                    None => assert!(met.is_err(), "{name}: {met:?}"),
                }
            }
            let mut soonest = LIMIT;
            for _ in 0..5 {
                let greeted = match shows {
                    LinkShows::LongLateMs(_) => nogo_faults::greet_at_length(spared, LIMIT).await,
                    _ => nogo_faults::greet(spared, greeting, LIMIT).await,
                };
                soonest = soonest.min(greeted.unwrap());
            }
            let well_within = Duration::from_millis(late_ms.unwrap_or(100));
            assert!(soonest < well_within, "{name}: the other link is late by {soonest:?}");
            stays().await;
        };
        let client = links.client().clone();
        goes_through(LinksHurt::new(harm, client.clone()), &[client.api_addr()], bites, &stays).await;
    }
    links.close().await.unwrap();
}

/// Connections by one link reset, one by another left alone.
async fn resets(primary: &PostgresServer, stays: impl AsyncFn()) {
    let links = Links::start(1, None).await.unwrap();
    let hurt = links.open("api-1", "postgres", primary.address()).await.unwrap();
    let spared = links.open("bystander", "postgres", primary.address()).await.unwrap();
    connect(&primary.admin_dsn("postgres")).await.execute("CREATE ROLE bystander LOGIN PASSWORD 'b'").await.unwrap();
    let (hurt_dsn, spared_dsn) = (dsn("app", "app", hurt, "postgres"), dsn("bystander", "b", spared, "postgres"));
    let bystander = tokio::sync::Mutex::new(connect(&spared_dsn).await);
    let victim = tokio::sync::Mutex::new(connect(&hurt_dsn).await);
    let config = LinkResetsConfig {
        name: "postgres-reset",
        id: "t6".to_owned(),
        links: vec![("api-1-postgres".to_owned(), hurt)],
        greeting: Greeting::Postgres,
        limit_ms: 10_000,
    };
    let client = links.client().clone();
    let harm = LinkResets::new(config, client.clone());
    let bites = async || {
        let end = Instant::now() + LIMIT;
        while victim.lock().await.execute("SELECT pg_sleep(0.01)").await.is_ok() {
            assert!(Instant::now() < end, "who is busy all the time was never reset");
            bystander.lock().await.execute("SELECT 1").await.expect("the other link is left alone");
        }
        while sqlstate(&hurt_dsn, READ).await.is_err() {
            assert!(Instant::now() < end, "there is no time to work in between");
        }
    };
    let is_well = async || {
        assert!(answers(&hurt_dsn).await);
        stays().await;
    };
    goes_through(harm, &[client.api_addr()], bites, is_well).await;
    links.close().await.unwrap();
}

async fn a_full_volume(engine: &dyn Engine) {
    let sized = PostgresSpec { name: "sized".to_owned(), data_mib_max: Some(96), ..PostgresSpec::default() };
    let server = engine.start_postgres(&sized).await.unwrap();
    let other =
        engine.start_postgres(&PostgresSpec { name: "other".to_owned(), ..PostgresSpec::default() }).await.unwrap();
    let (app, elsewhere) = (with_notes(&server).await, with_notes(&other).await);
    let insert = "INSERT INTO notes SELECT n, repeat(md5(n::text), 40) FROM generate_series(1000, 2000) n; \
                  DELETE FROM notes WHERE id >= 1000";
    let bites = async || {
        assert_eq!(sqlstate(&app, insert).await, Err("53100".to_owned()));
        sqlstate(&app, "SELECT count(*) FROM notes").await.expect("reading needs no room");
        sqlstate(&elsewhere, insert).await.expect("another server's disk has room");
        assert!(server.is_alive().await.unwrap());
    };
    let is_well = async || sqlstate(&app, insert).await.unwrap();
    let volume = Arc::new(DataVolume::of(&server));
    let full = DiskFull::new("t1", volume, &server.admin_dsn("postgres"), 5_000).unwrap();
    goes_through(full, &[server.address()], bites, is_well).await;

    let unsized_volume = Arc::new(DataVolume::of(&other));
    let full = DiskFull::new("t2", unsized_volume, &other.admin_dsn("postgres"), 5_000).unwrap();
    let mut fault = Struck::new(full, TOLERANCE);
    let mut radius = BlastRadius::new(LIMIT);
    radius.allow_address(other.address());
    let grant = radius.grant(&fault, LIMIT).unwrap();
    let error = fault.install(&grant).await.expect_err("filled a disk that is not ours");
    assert!(error.to_string().contains("no volume of a set size"), "{error}");
    server.stop().await.unwrap();
    other.stop().await.unwrap();
}

pub(crate) async fn redis_at(url: &str) -> MultiplexedConnection {
    redis::Client::open(url).unwrap().get_multiplexed_async_connection().await.unwrap()
}

async fn redis_faults(engine: &dyn Engine) {
    let redis = Arc::new(engine.start_redis(&RedisSpec::default()).await.unwrap());
    let other = engine.start_redis(&RedisSpec { name: "other".to_owned(), ..RedisSpec::default() }).await.unwrap();
    let links_of = Arc::new(Links::start(1, None).await.unwrap());
    let control = Arc::new(RedisControl::new(Arc::clone(&redis), links_of));
    let (address, password) = (redis.address(), Some(redis.password()));
    let at = [address];
    let _: () = redis_at(&other.url()).await.set("kept", 1).await.unwrap();
    let is_well = async || {
        let mut connection = redis_at(&redis.url()).await;
        let _: () = connection.set("key", 7).await.unwrap();
        assert_eq!(connection.get::<_, i64>("key").await.unwrap(), 7);
        assert_eq!(redis_at(&other.url()).await.get::<_, i64>("kept").await.unwrap(), 1, "the other server was hurt");
    };
    let code = |error: redis::RedisError| error.code().map(str::to_owned);

    let freeze = ServiceFreeze::new("redis-freeze", control.clone(), Greeting::Redis, FreezeLimits::default());
    let silent = async || assert!(soon(redis_at(&redis.url())).await.is_none(), "a frozen server answered");
    goes_through(freeze, &at, silent, &is_well).await;

    let flush = RedisFlush::new("redis", address, password, 5_000).unwrap();
    let emptied = async || {
        let mut connection = redis_at(&redis.url()).await;
        let _: () = connection.set("new", 1).await.unwrap();
        let end = Instant::now() + LIMIT;
        while connection.exists::<_, bool>("new").await.unwrap() {
            assert!(Instant::now() < end, "what was put there stays");
        }
    };
    goes_through(flush, &at, emptied, &is_well).await;

    let evicting = RedisMemoryFull::new("redis", address, password, WhenFull::Evict, 10_000).unwrap();
    let forgotten = async || {
        let mut connection = redis_at(&redis.url()).await;
        let end = Instant::now() + LIMIT;
        let _: () = connection.set("key", 7).await.unwrap();
        while connection.exists::<_, bool>("key").await.unwrap() {
            assert!(Instant::now() < end, "what was used least stays");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    goes_through(evicting, &at, forgotten, &is_well).await;

    let refusing = RedisMemoryFull::new("redis", address, password, WhenFull::Refuse, 5_000).unwrap();
    let refused = async |expected: &str| {
        let mut connection = redis_at(&redis.url()).await;
        let error = connection.set::<_, _, ()>("new", 1).await.expect_err("a write was taken");
        assert_eq!(code(error).as_deref(), Some(expected));
        assert_eq!(connection.get::<_, i64>("key").await.unwrap(), 7, "reads go on");
    };
    goes_through(refusing, &at, async || refused("OOM").await, &is_well).await;

    let demotion = RedisDemotion::new("redis", address, password, 5_000).unwrap();
    goes_through(demotion, &at, async || refused("READONLY").await, &is_well).await;

    let mut first = redis_at(&redis.url()).await;
    let _: i64 = first.get("key").await.unwrap();
    let cut = RedisClientKill::new("redis", address, password, 5_000).unwrap();
    let bites = async || {
        let mut connection = first.clone();
        connection.get::<_, i64>("key").await.expect_err("a client from before is connected");
    };
    goes_through(cut, &at, bites, &is_well).await;

    links(address, Greeting::Redis, &is_well).await;

    let lost = RedisLoss::new(control, RedisLossLimits::default(), TOLERANCE);
    let gone = async || {
        let client = redis::Client::open(redis.url()).unwrap();
        let met = soon(client.get_multiplexed_async_connection()).await;
        assert!(met.is_none_or(|met| met.is_err()), "a killed server answers");
        assert_eq!(redis_at(&other.url()).await.get::<_, i64>("kept").await.unwrap(), 1, "the other one is gone too");
    };
    let _: () = redis_at(&redis.url()).await.set("before", 1).await.unwrap();
    fault_goes_through(lost, &at, gone, &is_well).await;
    assert!(
        !redis_at(&redis.url()).await.exists::<_, bool>("before").await.unwrap(),
        "it is started with nothing in it"
    );
    redis.stop().await.unwrap();
    other.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn process_postgres_faults_bite_heal_and_keep_their_radius() {
    let world = World::new();
    postgres_faults(&world.process_engine()).await;
    assert!(working_below(world.run.scratch()).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn docker_postgres_faults_bite_heal_and_keep_their_radius() {
    let world = World::new();
    if let Some(engine) = world.docker_engine().await {
        postgres_faults(&engine).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn process_disk_full_refuses_statements_and_ends_no_server() {
    let world = World::new();
    let engine = world.process_engine();
    if let Err(error) = may_mount() {
        let sized = PostgresSpec { data_mib_max: Some(96), ..PostgresSpec::default() };
        let refusal = engine.start_postgres(&sized).await.err().expect("mounted without being root");
        assert!(format!("{refusal:#}").contains("root"), "{refusal:#}");
        not_exercised(Some("process"), &format!("{error:#}"));
        return;
    }
    a_full_volume(&engine).await;
    assert!(nogo_harness::environment::volume::mounted_below(world.run.scratch()).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn docker_disk_full_refuses_statements_and_ends_no_server() {
    let world = World::new();
    if let Some(engine) = world.docker_engine().await {
        a_full_volume(&engine).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn process_redis_faults_bite_heal_and_keep_their_radius() {
    let world = World::new();
    redis_faults(&world.process_engine()).await;
    assert!(working_below(world.run.scratch()).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn docker_redis_faults_bite_heal_and_keep_their_radius() {
    let world = World::new();
    if let Some(engine) = world.docker_engine().await {
        redis_faults(&engine).await;
    }
}
