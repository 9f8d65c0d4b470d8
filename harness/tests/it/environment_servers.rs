//! Both engines: what was committed outlives a kill, what was cached does not.

use nogo_harness::environment::engine::{Engine, PostgresSpec, RedisSpec};
use nogo_harness::environment::process_tree::working_below;
use redis::AsyncCommands as _;
use sqlx::{Connection as _, PgConnection};

use crate::environment_world::{World, shared_memory_below, still_shared};

async fn committed_rows_survive_a_kill(engine: &dyn Engine) {
    let spec = PostgresSpec { max_connections: 33, ..PostgresSpec::default() };
    let postgres = engine.start_postgres(&spec).await.unwrap();
    assert!(postgres.origin().version.starts_with("15."), "{:?}", postgres.origin());
    assert!(postgres.origin().digest.starts_with("sha256:"), "{:?}", postgres.origin());
    let dsn = postgres.admin_dsn("postgres");
    let mut connection = PgConnection::connect(&dsn).await.unwrap();
    let setting = |name: &'static str| sqlx::query_scalar::<_, String>("SELECT current_setting($1)").bind(name);
    assert_eq!(setting("max_connections").fetch_one(&mut connection).await.unwrap(), "33");
    assert_eq!(setting("fsync").fetch_one(&mut connection).await.unwrap(), "on");
    assert_eq!(setting("TimeZone").fetch_one(&mut connection).await.unwrap(), "UTC");
    sqlx::query("CREATE TABLE kept (n int)").execute(&mut connection).await.unwrap();
    sqlx::query("INSERT INTO kept VALUES (7)").execute(&mut connection).await.unwrap();

    postgres.kill().await.unwrap();
    assert!(!postgres.is_alive().await.unwrap());
    sqlx::query("SELECT 1").execute(&mut connection).await.expect_err("a killed server answered");
    let address = postgres.address();
    postgres.start_again().await.unwrap();
    assert_eq!(postgres.address(), address, "a restart keeps the address");
    let mut connection = PgConnection::connect(&dsn).await.unwrap();
    let kept: i32 = sqlx::query_scalar("SELECT n FROM kept").fetch_one(&mut connection).await.unwrap();
    assert_eq!(kept, 7);

    let wrong = dsn.replace("postgres://postgres:", "postgres://postgres:x");
    PgConnection::connect(&wrong).await.expect_err("a wrong password was let in");
    postgres.stop().await.unwrap();
    postgres.stop().await.expect("stop may be called again");
    PgConnection::connect(&dsn).await.expect_err("a stopped server answered");
}

async fn redis_comes_back_empty(engine: &dyn Engine) {
    let redis = engine.start_redis(&RedisSpec::default()).await.unwrap();
    assert!(redis.origin().version.starts_with("7."), "{:?}", redis.origin());
    let client = redis::Client::open(redis.url()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let _: () = connection.set("key", "value").await.unwrap();

    redis.kill().await.unwrap();
    assert!(!redis.is_alive().await.unwrap());
    connection.get::<_, Option<String>>("key").await.expect_err("a killed server answered");
    let address = redis.address();
    redis.start_again_empty().await.unwrap();
    assert_eq!(redis.address(), address, "a restart keeps the address");
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    assert_eq!(connection.get::<_, Option<String>>("key").await.unwrap(), None);

    let open = redis::Client::open(format!("redis://{address}/0")).unwrap();
    let refused = match open.get_multiplexed_async_connection().await {
        Ok(mut connection) => connection.get::<_, Option<String>>("key").await.is_err(),
        Err(_) => true,
    };
    assert!(refused, "redis answered without a password");
    redis.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn process_postgres_keeps_committed_rows_over_a_kill() {
    let world = World::new();
    committed_rows_survive_a_kill(&world.process_engine()).await;
    assert!(working_below(world.run.scratch()).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn process_redis_restarts_empty_on_the_same_address() {
    let world = World::new();
    redis_comes_back_empty(&world.process_engine()).await;
    assert!(working_below(world.run.scratch()).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn docker_postgres_keeps_committed_rows_over_a_kill() {
    let world = World::new();
    if let Some(engine) = world.docker_engine().await {
        committed_rows_survive_a_kill(&engine).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn docker_redis_restarts_empty_on_the_same_address() {
    let world = World::new();
    if let Some(engine) = world.docker_engine().await {
        redis_comes_back_empty(&engine).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_cannot_start_says_why() {
    let world = World::new();
    let spec = PostgresSpec { settings: vec!["no_such_setting=1".to_owned()], ..PostgresSpec::default() };
    let error = world.process_engine().start_postgres(&spec).await.err().expect("started with a wrong setting");
    assert!(format!("{error:#}").contains("no_such_setting"), "{error:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_server_leaves_nothing() {
    let world = World::new();
    let redis = world.process_engine().start_redis(&RedisSpec::default()).await.unwrap();
    assert_eq!(working_below(world.run.scratch()).len(), 1);
    drop(redis);
    assert!(working_below(world.run.scratch()).is_empty());
    let postgres = world.process_engine().start_postgres(&PostgresSpec::default()).await.unwrap();
    let shared = shared_memory_below(world.run.scratch());
    assert!(still_shared(&shared).len() > 1, "a file and a segment: {shared:?}");
    drop(postgres);
    assert!(working_below(world.run.scratch()).is_empty());
    assert_eq!(still_shared(&shared), [""; 0]);
}
