//! The supervisor and the links: every exit is told, a restart is seen, a link follows its server.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use nogo_faults::{ProcessControl as _, ServiceControl as _};
use nogo_harness::environment::engine::{Engine as _, RedisSpec};
use nogo_harness::environment::links::Links;
use nogo_harness::environment::process_tree::working_below;
use nogo_harness::environment::service_control::RedisControl;
use nogo_harness::environment::supervisor::{ProcessChange, ProcessEvent, ProcessSpec, Supervisor};
use redis::AsyncCommands as _;
use tokio::sync::mpsc::Receiver;

use crate::environment_world::World;

const LIMIT: Duration = Duration::from_secs(20);

/// Says an address, then does what `then` says.
fn shell(name: &str, then: &str) -> ProcessSpec {
    let script = format!("echo '{{\"event\":\"listening\",\"address\":\"127.0.0.1:4\"}}'; echo said >&2; {then}");
    ProcessSpec {
        name: name.to_owned(),
        program: PathBuf::from("/bin/sh"),
        arguments: vec!["-c".to_owned(), script],
        environment: vec![("SECRET".to_owned(), "kept".to_owned())],
        ready_limit: LIMIT,
        ready_path: None,
    }
}

fn supervisor(world: &World) -> (Arc<Supervisor>, Receiver<ProcessEvent>) {
    Supervisor::new(Arc::clone(&world.run), world.store.join("logs")).unwrap()
}

async fn next(events: &mut Receiver<ProcessEvent>) -> ProcessEvent {
    tokio::time::timeout(LIMIT, events.recv()).await.expect("no event came").expect("the supervisor is gone")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unplanned_exit_is_told_with_its_code() {
    let world = World::new();
    let (supervisor, mut events) = supervisor(&world);
    let script = "while [ ! -e end ]; do sleep 0.01; done; exit 9";
    let process = supervisor.start(shell("api-1", script)).await.unwrap();
    assert_eq!(process.address("address").unwrap(), "127.0.0.1:4".parse().unwrap());
    assert_eq!(next(&mut events).await.change, ProcessChange::Started);
    std::fs::write(world.run.scratch().join("end"), "").unwrap();
    let exit = next(&mut events).await;
    assert_eq!(exit.change, ProcessChange::Exited { code: Some(9), signal: None, planned: false });
    assert_eq!(exit.process, "api-1");
    assert!(!process.runs());
    assert_eq!(std::fs::read_to_string(world.store.join("logs/api-1.log")).unwrap(), "said\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_is_planned_and_a_restart_is_another_incarnation() {
    let world = World::new();
    let (supervisor, mut events) = supervisor(&world);
    let process = supervisor.start(shell("worker-1", "exec sleep 600")).await.unwrap();
    let first = process.identity().unwrap();
    next(&mut events).await;
    process.kill(first).await.unwrap();
    let exit = next(&mut events).await;
    assert_eq!(exit.change, ProcessChange::Exited { code: None, signal: Some(9), planned: true });
    process.kill(first).await.expect_err("the dead incarnation was killed once more");

    let second = process.restart().await.unwrap();
    assert_ne!(second, first);
    assert!(process.is_alive().await);
    assert_eq!(next(&mut events).await.identity, second);
    process.start().await.expect_err("started twice");
    assert!(!process.terminate(LIMIT).await.unwrap(), "sleep ends by SIGTERM and not with code 0");
    assert!(working_below(world.run.scratch()).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_drains_ends_well_and_one_that_does_not_is_killed() {
    let world = World::new();
    let (supervisor, _events) = supervisor(&world);
    let drains = supervisor.start(shell("api-1", "trap 'exit 0' TERM; while :; do sleep 0.05; done")).await.unwrap();
    assert!(drains.terminate(LIMIT).await.unwrap());
    let deaf = supervisor.start(shell("api-2", "trap '' TERM; while :; do sleep 0.05; done")).await.unwrap();
    assert!(!deaf.terminate(Duration::from_millis(200)).await.unwrap());
    assert!(!deaf.runs());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_fails_quotes_the_log() {
    let world = World::new();
    let (supervisor, _events) = supervisor(&world);
    let mut spec = shell("api-1", "");
    spec.arguments[1] = "echo 'no such database' >&2; exit 1".to_owned();
    let error = supervisor.start(spec).await.err().expect("a process that ended was taken as started");
    assert!(format!("{error:#}").contains("no such database"), "{error:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_to_the_end_gives_output_and_is_killed_past_its_limit() {
    let world = World::new();
    let (supervisor, _events) = supervisor(&world);
    let mut spec = shell("biller-1", "");
    spec.arguments[1] = "echo '{\"charged\":3}'; echo $SECRET$HOME >&2".to_owned();
    assert_eq!(supervisor.run_for_answer(&spec, LIMIT).await.unwrap()["charged"], 3);
    let finished = supervisor.run_to_end(&spec, LIMIT).await.unwrap();
    assert_eq!((finished.code, finished.stderr.as_str()), (Some(0), "kept\n"), "no environment is inherited");
    spec.arguments[1] = "sleep 600 & wait".to_owned();
    supervisor.run_to_end(&spec, Duration::from_millis(200)).await.expect_err("outlived its limit");
    assert!(working_below(world.run.scratch()).is_empty(), "a grandchild was left");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_carries_leads_elsewhere_and_closes() {
    let world = World::new();
    let engine = world.process_engine();
    let redis = Arc::new(engine.start_redis(&RedisSpec::default()).await.unwrap());
    let links = Arc::new(Links::start(1, None).await.unwrap());
    let listen = links.open("api-1", "redis", redis.address()).await.unwrap();
    links.open("api-1", "redis", redis.address()).await.expect_err("a second link of one name");
    let client = redis::Client::open(redis.url_at(listen)).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let _: () = connection.set("key", "value").await.unwrap();

    let control = RedisControl::new(Arc::clone(&redis), Arc::clone(&links));
    control.kill().await.unwrap();
    assert!(!control.is_alive().await);
    control.start_empty().await.unwrap();
    control.start_empty().await.expect("no effect while it runs");
    assert_eq!(control.probe().await.unwrap()["alive"], true);
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    assert_eq!(connection.get::<_, Option<String>>("key").await.unwrap(), None);

    let other = engine.start_redis(&RedisSpec { name: "other".to_owned(), ..RedisSpec::default() }).await.unwrap();
    links.follow("redis", other.address()).await.unwrap();
    assert_eq!(links.list()[0].upstream, other.address());
    let direct = redis::Client::open(other.url_at(listen)).unwrap();
    direct.get_multiplexed_async_connection().await.expect("the link leads to the other server");
    links.close().await.unwrap();
    links.close().await.expect("close may be called again");
    tokio::net::TcpStream::connect(listen).await.expect_err("a closed link listens");
}
