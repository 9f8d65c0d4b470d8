//! A primary with two streaming replicas on both engines, asserted by name, through a kill and back.

use std::time::Duration;

use nogo_harness::environment::engine::{Engine, PostgresSpec};
use nogo_harness::environment::process_tree::working_below;
use nogo_harness::environment::replication::wait_until_streaming;
use nogo_harness::environment::servers::PostgresServer;
use nogo_harness::environment::topology::REPLICAS;
use sqlx::{Connection as _, PgConnection};
use tokio::time::Instant;

use crate::environment_world::World;

const LIMIT: Duration = Duration::from_secs(20);

/// Asks until the one number is `expected`.
async fn wait_for(server: &PostgresServer, question: &'static str, expected: i64) {
    let end = Instant::now() + LIMIT;
    loop {
        let asked = async {
            let mut connection = PgConnection::connect(&server.admin_dsn("postgres")).await?;
            sqlx::query_scalar::<_, i64>(question).fetch_one(&mut connection).await
        };
        match asked.await {
            Ok(seen) if seen == expected => return,
            seen => assert!(Instant::now() < end, "{question} is {seen:?}, not {expected}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn replicas_stream_and_come_back(engine: &dyn Engine) {
    let primary =
        engine.start_postgres(&PostgresSpec { max_connections: 33, ..PostgresSpec::default() }).await.unwrap();
    let began = Instant::now();
    let starting = REPLICAS.map(|name| async {
        let spec = PostgresSpec::replica(name, 33);
        (name.to_owned(), engine.start_replica(&spec, &primary).await.unwrap())
    });
    let replicas = futures_util::future::join_all(starting).await;
    let lines = wait_until_streaming(&primary, &replicas, LIMIT).await.unwrap();
    println!("{} after {:.1} s: {lines:?}", engine.kind(), began.elapsed().as_secs_f64());
    assert!(lines.iter().zip(REPLICAS).all(|(line, name)| line.starts_with(name)), "{lines:?}");

    let mut connection = PgConnection::connect(&primary.admin_dsn("postgres")).await.unwrap();
    sqlx::query("CREATE TABLE kept (n bigint)").execute(&mut connection).await.unwrap();
    sqlx::query("INSERT INTO kept VALUES (7)").execute(&mut connection).await.unwrap();
    for (_, replica) in &replicas {
        wait_for(replica, "SELECT max(n) FROM kept", 7).await;
        let mut there = PgConnection::connect(&replica.admin_dsn("postgres")).await.unwrap();
        sqlx::query("INSERT INTO kept VALUES (8)").execute(&mut there).await.expect_err("a replica took a write");
    }

    replicas[0].1.kill().await.unwrap();
    let missing = wait_until_streaming(&primary, &replicas, Duration::from_millis(200)).await.unwrap_err();
    assert!(format!("{missing:#}").contains("replica-1: "), "{missing:#}");
    assert!(!format!("{missing:#}").contains("replica-2: "), "{missing:#}");
    sqlx::query("INSERT INTO kept VALUES (9)").execute(&mut connection).await.unwrap();
    replicas[0].1.start_again().await.unwrap();
    wait_until_streaming(&primary, &replicas, LIMIT).await.unwrap();
    wait_for(&replicas[0].1, "SELECT max(n) FROM kept", 9).await;

    // Running under the right name is not enough: this one streams from nobody.
    let stranger = engine.start_postgres(&PostgresSpec::replica("replica-3", 33)).await.unwrap();
    let mut named = replicas;
    named[1].1 = stranger;
    let error = wait_until_streaming(&primary, &named, Duration::from_millis(200)).await.unwrap_err();
    assert!(format!("{error:#}").contains("replica-2"), "{error:#}");
    for (_, replica) in &named {
        replica.stop().await.unwrap();
    }
    primary.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn process_replicas_stream_by_name_and_come_back_after_a_kill() {
    let world = World::new();
    replicas_stream_and_come_back(&world.process_engine()).await;
    assert!(working_below(world.run.scratch()).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn docker_replicas_stream_by_name_and_come_back_after_a_kill() {
    let world = World::new();
    if let Some(engine) = world.docker_engine().await {
        replicas_stream_and_come_back(&engine).await;
    }
}
