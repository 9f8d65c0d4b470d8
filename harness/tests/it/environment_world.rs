//! What the environment's tests share: a store, a registration, the engines of this machine.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use nogo_harness::environment::docker::{DockerEngine, ImageOverrides};
use nogo_harness::environment::engine::Engine;
use nogo_harness::environment::process::ProcessEngine;
use nogo_harness::environment::registration::Registration;
use tempfile::TempDir;

/// A store of its own, and a run registered in it.
pub struct World {
    pub run: Arc<Registration>,
    pub store: PathBuf,
    _folder: TempDir,
}

impl World {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = folder.path().to_owned();
        let run = Arc::new(Registration::register(&store, &run_id()).unwrap());
        Self { run, store, _folder: folder }
    }

    pub fn process_engine(&self) -> ProcessEngine {
        process_engine(&self.run)
    }

    /// None, said aloud by [`not_exercised`], where no container engine with images answers.
    pub async fn docker_engine(&self) -> Option<DockerEngine> {
        match DockerEngine::connect(Arc::clone(&self.run), &ImageOverrides::default(), false).await {
            Ok(engine) => Some(engine),
            Err(error) => {
                not_exercised(Some("docker"), &format!("{error:#}"));
                None
            }
        }
    }
}

/// Says aloud why a test does nothing here, on one engine or on any. The runner hides what a test that passes has said:
/// so it fails where it must be exercised, which is where `NOGO_MUST_EXERCISE` is 1 and where `NOGO_ENGINE` names its engine.
pub fn not_exercised(engine: Option<&str>, reason: &str) {
    let set = |name| std::env::var(name).ok();
    let on = engine.map(|engine| format!(" on {engine}")).unwrap_or_default();
    let must = must_exercise(engine, set("NOGO_ENGINE").as_deref(), set("NOGO_MUST_EXERCISE").as_deref());
    assert!(!must, "not exercised{on}, though it has to be here: {reason}");
    println!("NOT EXERCISED{on}: {reason}");
}

fn must_exercise(engine: Option<&str>, asked: Option<&str>, must: Option<&str>) -> bool {
    must == Some("1") || (engine.is_some() && engine == asked)
}

#[test]
fn what_is_asked_for_by_name_or_by_setting_must_be_exercised() {
    for (engine, asked, must, expected) in [
        (Some("docker"), None, None, false),
        (Some("docker"), Some("process"), None, false),
        (Some("docker"), Some("docker"), None, true),
        (Some("docker"), Some("process"), Some("1"), true),
        (None, Some("docker"), None, false),
        (None, None, Some("0"), false),
        (None, None, Some("1"), true),
    ] {
        assert_eq!(must_exercise(engine, asked, must), expected, "{engine:?} {asked:?} {must:?}");
    }
}

pub fn run_id() -> String {
    format!("test-{}", uuid::Uuid::new_v4().simple())
}

/// The process engine, which every machine that runs these tests must have.
pub fn process_engine(run: &Arc<Registration>) -> ProcessEngine {
    ProcessEngine::find(Arc::clone(run)).expect("run ci/setup: the process engine is needed")
}

/// The engine of that name, for a store that another process has made.
pub async fn engine_for(kind: &str, store: &Path, run_id: &str) -> (Arc<Registration>, Arc<dyn Engine>) {
    let run = Arc::new(Registration::register(store, run_id).unwrap());
    let engine: Arc<dyn Engine> = if kind == "docker" {
        Arc::new(DockerEngine::connect(Arc::clone(&run), &ImageOverrides::default(), false).await.unwrap())
    } else {
        Arc::new(process_engine(&run))
    };
    (run, engine)
}

/// The memory that PostgreSQL servers below a folder share outside it: `/dev/shm` files, and ids of System V segments.
pub(crate) fn shared_memory_below(scratch: &Path) -> (Vec<PathBuf>, Vec<String>) {
    let (mut files, mut segments) = (Vec::new(), Vec::new());
    for server in std::fs::read_dir(scratch).into_iter().flatten().flatten() {
        let Ok(told) = std::fs::read_to_string(server.path().join("data/postmaster.pid")) else { continue };
        let lines: Vec<&str> = told.lines().collect();
        // Its pid, and as the seventh line the key and the id of its segment.
        let pid = lines.first().map_or("", |line| line.trim());
        let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
        let mapped = maps.lines().filter_map(|line| line.split_once("/dev/shm/"));
        files.extend(mapped.map(|(_, name)| Path::new("/dev/shm").join(name.trim_end())));
        let told = lines.get(6).and_then(|line| line.split_whitespace().last());
        segments.extend(told.map(str::to_owned));
    }
    (files, segments)
}

/// What of it is still on the host.
pub(crate) fn still_shared((files, segments): &(Vec<PathBuf>, Vec<String>)) -> Vec<String> {
    let known = std::fs::read_to_string("/proc/sysvipc/shm").unwrap();
    let ids: Vec<&str> = known.lines().skip(1).filter_map(|line| line.split_whitespace().nth(1)).collect();
    let files = files.iter().filter(|file| file.exists()).map(|file| file.display().to_string());
    files.chain(segments.iter().filter(|id| ids.contains(&id.as_str())).cloned()).collect()
}
