//! SIGKILL of an owner: the next sweep leaves nothing behind, and touches nobody who lives.
//!
//! The owner is this test binary started again with one ignored test, `plays_the_owner`.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nogo_faults::{ControlGroup, ProcessIdentity};
use nogo_harness::environment::docker_connection;
use nogo_harness::environment::engine::{PostgresSpec, RedisSpec};
use nogo_harness::environment::process_tree::working_below;
use nogo_harness::environment::registration::{LABEL_RUN, group_prefix, runs_folder};
use nogo_harness::environment::sweep::sweep;
use nogo_harness::environment::volume::{may_mount, mounted_below};
use testcontainers::bollard::query_parameters::ListContainersOptions;

use crate::environment_world::{World, engine_for, run_id, shared_memory_below, still_shared};

const OWNER_ENGINE: &str = "NOGO_TEST_OWNER_ENGINE";
const OWNER_STORE: &str = "NOGO_TEST_OWNER_STORE";
const OWNER_RUN: &str = "NOGO_TEST_OWNER_RUN";
const OWNER_READY: &str = "owner is ready";

/// An owner in a process of its own; ended when dropped.
struct Owner {
    process: Child,
    run: String,
}

impl Owner {
    fn start(engine: &str, store: &Path) -> Self {
        let run = run_id();
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "environment_sweep::plays_the_owner", "--ignored", "--nocapture"])
            .env(OWNER_ENGINE, engine)
            .env(OWNER_STORE, store)
            .env(OWNER_RUN, &run)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let ready = lines.any(|line| line.is_ok_and(|line| line.contains(OWNER_READY)));
        assert!(ready, "the owner ended before it was ready");
        Self { process, run }
    }

    fn scratch(&self) -> PathBuf {
        std::env::temp_dir().join(format!("nogo-{}", self.run))
    }

    fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

async fn containers_of(run: &str) -> usize {
    let connection = docker_connection::connect().await.unwrap();
    let options = ListContainersOptions {
        all: true,
        filters: Some([("label".to_owned(), vec![format!("{LABEL_RUN}={run}")])].into()),
        ..Default::default()
    };
    connection.docker.list_containers(Some(options)).await.unwrap().len()
}

/// Started by [`Owner::start`] alone: makes two servers in the middle of faults (one frozen, on a volume of a set size
/// where there can be one, the other turned a replica), says so, and waits to be killed.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "plays the part of the owner that the other tests kill"]
async fn plays_the_owner() {
    let variable = |name| std::env::var(name).expect("started by another test");
    let store = PathBuf::from(variable(OWNER_STORE));
    let (_run, engine) = engine_for(&variable(OWNER_ENGINE), &store, &variable(OWNER_RUN)).await;
    let data_mib_max = engine.can_size_volumes().is_ok().then_some(96);
    let postgres = engine.start_postgres(&PostgresSpec { data_mib_max, ..PostgresSpec::default() }).await.unwrap();
    let _redis = engine.start_redis(&RedisSpec::default()).await.unwrap();
    if data_mib_max.is_some() {
        postgres.process().fill_volume().await.unwrap();
    }
    if ControlGroup::can_be_made().is_ok() {
        let group = ControlGroup::create(&format!("{}f1", group_prefix(&variable(OWNER_RUN)))).unwrap();
        group.take_in(ProcessIdentity::own().unwrap()).unwrap();
    }
    postgres.freeze().await.unwrap();
    assert!(postgres.is_frozen().await.unwrap());
    println!("{OWNER_READY}");
    std::future::pending::<()>().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn process_servers_of_a_killed_owner_are_swept() {
    let world = World::new();
    let mut owner = Owner::start("process", &world.store);
    let scratch = owner.scratch();
    assert!(working_below(&scratch).len() > 2, "postgres, its children and redis run");
    let volumes = mounted_below(&scratch);
    assert_eq!(volumes.len(), usize::from(may_mount().is_ok()));

    let before = sweep(&world.store).await.unwrap();
    assert!(!before.runs.contains(&owner.run), "a live owner was swept: {before:?}");
    assert!(working_below(&scratch).len() > 2);

    owner.kill();
    assert!(!working_below(&scratch).is_empty(), "SIGKILL leaves the servers behind");
    let shared = shared_memory_below(&scratch);
    assert!(still_shared(&shared).len() > 1, "a file and a segment: {shared:?}");
    let swept = sweep(&world.store).await.unwrap();
    assert!(swept.runs.contains(&owner.run), "{swept:?}");
    assert!(swept.processes.len() > 1, "{swept:?}");
    assert_eq!(swept.volumes, volumes);
    assert_eq!(swept.groups.len(), usize::from(ControlGroup::can_be_made().is_ok()), "{swept:?}");
    assert!(swept.groups.iter().all(|group| !group.exists()));
    assert!(mounted_below(&scratch).is_empty());
    assert!(swept.left.is_empty(), "{swept:?}");
    assert!(working_below(&scratch).is_empty());
    assert!(!scratch.exists());
    assert_eq!(still_shared(&shared), [""; 0]);
    let records: Vec<_> = std::fs::read_dir(runs_folder(&world.store)).unwrap().collect();
    assert_eq!(records.len(), 1, "only the record of the test's own run stays");
    assert!(world.run.scratch().exists());
    let again = sweep(&world.store).await.unwrap();
    assert!(!again.runs.contains(&owner.run), "{again:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_store_does_not_hide_a_scratch_directory() {
    let lost = tempfile::tempdir().unwrap();
    let mut owner = Owner::start("process", lost.path());
    owner.kill();
    drop(lost);
    let shared = shared_memory_below(&owner.scratch());
    assert!(still_shared(&shared).len() > 1, "a file and a segment: {shared:?}");
    let elsewhere = tempfile::tempdir().unwrap();
    let swept = sweep(elsewhere.path()).await.unwrap();
    assert!(swept.runs.contains(&owner.run), "{swept:?}");
    assert_eq!(still_shared(&shared), [""; 0], "{swept:?}");
    assert!(working_below(&owner.scratch()).is_empty());
    assert!(!owner.scratch().exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn docker_containers_of_a_killed_owner_are_swept() {
    let world = World::new();
    if world.docker_engine().await.is_none() {
        return;
    }
    let mut owner = Owner::start("docker", &world.store);
    assert_eq!(containers_of(&owner.run).await, 2);
    sweep(&world.store).await.unwrap();
    assert_eq!(containers_of(&owner.run).await, 2, "a live owner was swept");

    owner.kill();
    assert_eq!(containers_of(&owner.run).await, 2, "SIGKILL leaves the containers behind");
    let swept = sweep(&world.store).await.unwrap();
    assert!(swept.runs.contains(&owner.run), "{swept:?}");
    assert_eq!(containers_of(&owner.run).await, 0);
    assert!(!owner.scratch().exists());
}
