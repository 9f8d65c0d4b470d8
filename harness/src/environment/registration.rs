//! A run's record of what it is about to create, written before it is created.
//!
//! One JSON file per run under `<store>/.runs/`, with a copy inside the run's scratch directory,
//! so that either of the two leads a later sweep to what a killed owner left behind. The scratch
//! directory is made here; the sweep is in `sweep.rs`.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result};
use nogo_faults::process::ProcessIdentity;
use nogo_faults::remove_groups;
use serde::{Deserialize, Serialize};

use super::process_tree::{end_postgres_below, kill_tree, place, working_below};
use super::volume::unmount_below;

/// Container label: the run's id.
pub const LABEL_RUN: &str = "nogo.run";
/// Container label: pid of the process that runs it.
pub const LABEL_OWNER_PID: &str = "nogo.owner_pid";
/// Container label: start ticks of that process.
pub const LABEL_OWNER_START: &str = "nogo.owner_start";
/// Container label: boot and pid namespace that the pid belongs to.
pub const LABEL_OWNER_PLACE: &str = "nogo.owner_place";

/// Name of the record's copy in a scratch directory; a directory without one is never removed.
pub const SCRATCH_RECORD: &str = ".nogo-run.json";
/// First part of a scratch directory's name.
pub const SCRATCH_PREFIX: &str = "nogo-";
const RUNS_FOLDER: &str = ".runs";

/// What a run owns outside its process.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RunRecord {
    /// The run's id; also the value of the containers' label.
    pub run_id: String,
    /// The process that runs it.
    pub owner: ProcessIdentity,
    /// Boot and pid namespace of all pids in this record.
    pub place: String,
    /// Directory outside the store that holds data directories, sockets and the copied binary.
    pub scratch: PathBuf,
    /// Processes started, by name: the latest of each name. Each leads a process group.
    pub processes: BTreeMap<String, ProcessIdentity>,
}

/// A live run's record, kept on disk as it grows.
#[derive(Debug)]
pub struct Registration {
    record: Mutex<RunRecord>,
    file: PathBuf,
    scratch: PathBuf,
    run_id: String,
    labels: Vec<(String, String)>,
}

impl Registration {
    /// Records the run and makes its scratch directory (mode 0755, so that an unprivileged user
    /// reaches the data directories in it; they are closed themselves).
    ///
    /// # Errors
    /// If the store or the system's temporary directory cannot be written.
    pub fn register(store: &Path, run_id: &str) -> Result<Self> {
        let owner = ProcessIdentity::own().context("read /proc for this process")?;
        let folder = runs_folder(store);
        fs::create_dir_all(&folder)
            .with_context(|| format!("create the folder of running runs {}", folder.display()))?;
        let scratch = std::env::temp_dir().join(format!("{SCRATCH_PREFIX}{run_id}"));
        let record = RunRecord {
            run_id: run_id.to_owned(),
            owner,
            place: place(),
            scratch: scratch.clone(),
            processes: BTreeMap::new(),
        };
        let file = folder.join(format!("{run_id}.json"));
        write_atomically(&file, &record)?;
        fs::create_dir(&scratch).with_context(|| format!("create scratch directory {}", scratch.display()))?;
        fs::set_permissions(&scratch, fs::Permissions::from_mode(0o755))?;
        write_atomically(&scratch.join(SCRATCH_RECORD), &record)?;
        let labels = vec![
            (LABEL_RUN.to_owned(), run_id.to_owned()),
            (LABEL_OWNER_PID.to_owned(), owner.pid.to_string()),
            (LABEL_OWNER_START.to_owned(), owner.start_ticks.to_string()),
            (LABEL_OWNER_PLACE.to_owned(), record.place.clone()),
        ];
        Ok(Self { record: Mutex::new(record), file, scratch, run_id: run_id.to_owned(), labels })
    }

    /// The run's id.
    #[must_use]
    pub fn run_id(&self) -> &str {
        &self.run_id
    }

    /// The run's directory outside the store; removed by [`Self::close`] or a later sweep.
    #[must_use]
    pub fn scratch(&self) -> &Path {
        &self.scratch
    }

    /// Labels for every container of the run: run id, owner's pid, start and place.
    #[must_use]
    pub fn labels(&self) -> &[(String, String)] {
        &self.labels
    }

    /// Adds a process that was just started, in place of an earlier one of the same name.
    ///
    /// Between start and record the process is found by its working directory in the scratch
    /// directory, so nothing can slip through.
    ///
    /// # Errors
    /// If the record cannot be written.
    pub fn record_process(&self, name: &str, identity: ProcessIdentity) -> Result<()> {
        let mut record = self.record.lock().unwrap_or_else(PoisonError::into_inner);
        record.processes.insert(name.to_owned(), identity);
        write_atomically(&self.file, &record)
    }

    /// Ends the run: kills what still works in the scratch directory, unmounts what is mounted there, removes it and the
    /// record.
    ///
    /// # Errors
    /// If a process outlives its SIGKILL or the directory cannot be removed; the record then stays.
    pub fn close(&self) -> Result<()> {
        end_postgres_below(&self.scratch);
        for identity in working_below(&self.scratch) {
            kill_tree(identity, None)?;
        }
        unmount_below(&self.scratch)?;
        remove_groups(&group_prefix(&self.run_id)).context("remove control groups")?;
        if self.scratch.exists() {
            fs::remove_dir_all(&self.scratch)
                .with_context(|| format!("remove scratch directory {}", self.scratch.display()))?;
        }
        match fs::remove_file(&self.file) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("remove {}", self.file.display()))
            }
            _ => Ok(()),
        }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        if let Err(error) = self.close() {
            tracing::warn!(run = %self.run_id, "leave it to the next sweep: {error:#}");
        }
    }
}

/// What the names of a run's control groups begin with.
#[must_use]
pub fn group_prefix(run_id: &str) -> String {
    format!("{SCRATCH_PREFIX}{run_id}-")
}

/// Where the records of a store's runs lie.
#[must_use]
pub fn runs_folder(store: &Path) -> PathBuf {
    store.join(RUNS_FOLDER)
}

/// The record in `file`; `None` if it is no record.
#[must_use]
pub fn read_record(file: &Path) -> Option<RunRecord> {
    serde_json::from_slice(&fs::read(file).ok()?).ok()
}

fn write_atomically(file: &Path, record: &RunRecord) -> Result<()> {
    let next = file.with_extension("json.next");
    let describe = || format!("write run record {}", file.display());
    let mut open = fs::File::create(&next).with_context(describe)?;
    open.write_all(&serde_json::to_vec_pretty(record)?).with_context(describe)?;
    open.sync_all().with_context(describe)?;
    fs::rename(&next, file).with_context(describe)
}
