//! Removes what dead owners left: containers, processes, frozen ones too, volumes, control groups, scratch directories, records.
//!
//! Runs at the start of every run and as `nogo clean`. Touches nothing whose owner lives, nothing
//! whose owner cannot be judged from here, and nothing that carries no mark of nogo.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use nogo_faults::process::ProcessIdentity;
use nogo_faults::remove_groups;
use rustix::fs::{FlockOperation, flock};
use serde::Serialize;
use testcontainers::bollard::Docker;
use testcontainers::bollard::errors::Error as DockerError;
use testcontainers::bollard::query_parameters::{ListContainersOptions, RemoveContainerOptions};
use tokio::time::Instant;

use super::clock_library::forget_clock;
use super::docker_connection;
use super::process_tree::{end_postgres_below, kill_tree, place, working_below};
use super::registration::{
    LABEL_OWNER_PID, LABEL_OWNER_PLACE, LABEL_OWNER_START, LABEL_RUN, RunRecord, SCRATCH_PREFIX, SCRATCH_RECORD,
    group_prefix, read_record, runs_folder,
};
use super::shared_memory::remove_noted;
use super::volume::unmount_below;

/// An engine that takes longer than this to list its containers is left to the next sweep.
const ENGINE_LIMIT: Duration = Duration::from_secs(60);
/// Time for a removal that somebody else has begun.
const REMOVAL_LIMIT: Duration = Duration::from_secs(30);
/// Pause between two looks at a lock or a removal.
const POLL_EVERY: Duration = Duration::from_millis(20);
/// In the system's temporary directory.
const LOCK_FILE: &str = "nogo-sweep.lock";

/// What a sweep removed.
#[derive(Debug, Default, Serialize)]
pub struct Swept {
    /// Ids of the dead runs that something was left of, sorted, each once.
    pub runs: Vec<String>,
    /// Containers removed, by id.
    pub containers: Vec<String>,
    /// Processes killed, by pid.
    pub processes: Vec<u32>,
    /// Volumes unmounted, by where they were.
    pub volumes: Vec<PathBuf>,
    /// Control groups removed.
    pub groups: Vec<PathBuf>,
    /// Directories removed.
    pub directories: Vec<PathBuf>,
    /// What could not be removed, each with its reason.
    pub left: Vec<String>,
}

impl Swept {
    /// Whether there was nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.containers.is_empty()
            && self.processes.is_empty()
            && self.volumes.is_empty()
            && self.groups.is_empty()
            && self.directories.is_empty()
    }
}

/// Whether an owner still holds what it made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Owner {
    Alive,
    Dead,
    /// Of another pid namespace: its pid says nothing here.
    Elsewhere,
}

/// Removes what dead owners left: of every run recorded in `store`, of every scratch directory of
/// nogo, and, where an engine answers, of every container with its labels.
///
/// # Errors
/// Only if the store's records cannot be listed; what resists removal is told in `left`.
pub async fn sweep(store: &Path) -> Result<Swept> {
    let mut swept = Swept::default();
    let _alone = SweepLock::take().await;
    let records = collect_records(store)?;
    for (file, record) in &records {
        match judge(record.owner, &record.place) {
            Owner::Dead => remove_run(file, record, &mut swept),
            Owner::Alive | Owner::Elsewhere => {}
        }
    }
    if let Ok(connection) = docker_connection::connect().await {
        let known: Vec<&str> = records.values().map(|record| record.run_id.as_str()).collect();
        let outcome = tokio::time::timeout(ENGINE_LIMIT, sweep_containers(&connection.docker, &known, &mut swept));
        match outcome.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => swept.left.push(format!("containers: {error:#}")),
            Err(_) => swept.left.push("containers: the engine does not answer".to_owned()),
        }
    }
    swept.runs.sort();
    swept.runs.dedup();
    Ok(swept)
}

/// Every record there is, by the file that holds it.
fn collect_records(store: &Path) -> Result<BTreeMap<PathBuf, RunRecord>> {
    let mut files = Vec::new();
    let folder = runs_folder(store);
    if folder.exists() {
        let entries = fs::read_dir(&folder).with_context(|| format!("list {}", folder.display()))?;
        files.extend(entries.flatten().map(|entry| entry.path()));
    }
    // Stores may be gone, or another user's: a scratch directory tells its owner by itself.
    for entry in fs::read_dir(std::env::temp_dir()).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(SCRATCH_PREFIX) {
            files.push(entry.path().join(SCRATCH_RECORD));
        }
    }
    Ok(files.into_iter().filter_map(|file| Some((file.clone(), read_record(&file)?))).collect())
}

fn judge(owner: ProcessIdentity, owner_place: &str) -> Owner {
    let here = place();
    let boot = |place: &str| place.split(':').next().unwrap_or_default().to_owned();
    if owner_place == here {
        if owner.alive() { Owner::Alive } else { Owner::Dead }
    } else if boot(owner_place) == boot(&here) {
        Owner::Elsewhere
    } else {
        // The record lies on this machine's disk and nothing survives a boot.
        Owner::Dead
    }
}

fn remove_run(file: &Path, record: &RunRecord, swept: &mut Swept) {
    swept.runs.push(record.run_id.clone());
    let left_before = swept.left.len();
    // First, so that those who are starved of processor time come to their end.
    match remove_groups(&group_prefix(&record.run_id)) {
        Ok(mut groups) => swept.groups.append(&mut groups),
        Err(error) => swept.left.push(format!("control groups of {}: {error}", record.run_id)),
    }
    let recorded = record.processes.values().copied();
    let same_place = record.place == place();
    let recorded = recorded.filter(|identity| same_place && identity.alive());
    let recorded: Vec<_> = recorded.collect();
    // Found by where they work: a record that lies in the scratch directory names no process.
    swept.processes.extend(end_postgres_below(&record.scratch).iter().map(|leader| leader.pid));
    let found: Vec<_> = recorded.into_iter().chain(working_below(&record.scratch)).collect();
    for identity in found.iter().copied() {
        if !identity.alive() {
            continue;
        }
        match kill_tree(identity, None) {
            Ok(()) => swept.processes.push(identity.pid),
            Err(error) => swept.left.push(format!("{error:#}")),
        }
    }
    if same_place {
        found.iter().chain(record.processes.values()).for_each(|identity| forget_clock(identity.pid));
    }
    let marked = read_record(&record.scratch.join(SCRATCH_RECORD)).is_some_and(|inside| inside.run_id == record.run_id);
    if marked {
        for server in fs::read_dir(&record.scratch).into_iter().flatten().flatten() {
            if let Err(error) = remove_noted(&server.path()) {
                swept.left.push(format!("{error:#}"));
            }
        }
        match unmount_below(&record.scratch) {
            Ok(mut unmounted) => swept.volumes.append(&mut unmounted),
            Err(error) => swept.left.push(format!("{error:#}")),
        }
        match fs::remove_dir_all(&record.scratch) {
            Ok(()) => swept.directories.push(record.scratch.clone()),
            Err(error) => swept.left.push(format!("{}: {error}", record.scratch.display())),
        }
    }
    // The record goes last: what is left keeps its trace.
    if swept.left.len() == left_before {
        let _ = fs::remove_file(file);
    }
}

async fn sweep_containers(docker: &Docker, known: &[&str], swept: &mut Swept) -> Result<()> {
    let options = ListContainersOptions {
        all: true,
        filters: Some([("label".to_owned(), vec![LABEL_RUN.to_owned()])].into()),
        ..Default::default()
    };
    for container in docker.list_containers(Some(options)).await? {
        let labels = container.labels.unwrap_or_default();
        let (Some(id), Some(run)) = (container.id, labels.get(LABEL_RUN)) else {
            continue;
        };
        let number = |label| labels.get(label).and_then(|text| text.parse::<u64>().ok());
        let (Some(pid), Some(start_ticks), Some(owner_place)) = (
            number(LABEL_OWNER_PID).and_then(|pid| u32::try_from(pid).ok()),
            number(LABEL_OWNER_START),
            labels.get(LABEL_OWNER_PLACE),
        ) else {
            continue;
        };
        // An engine may serve several machines. A container from before a boot of this one is
        // ours only if a record found here knows its run.
        let owner = judge(ProcessIdentity { pid, start_ticks }, owner_place);
        let ours = *owner_place == place() || known.contains(&run.as_str());
        if owner != Owner::Dead || !ours {
            continue;
        }
        match remove_container(docker, &id).await {
            Ok(()) => {
                swept.runs.push(run.clone());
                swept.containers.push(id);
            }
            Err(error) => swept.left.push(format!("container {id}: {error}")),
        }
    }
    Ok(())
}

/// Removes a container with its volumes; returns when it is gone, whoever removed it.
async fn remove_container(docker: &Docker, id: &str) -> Result<(), DockerError> {
    let options = || RemoveContainerOptions { force: true, v: true, ..Default::default() };
    let deadline = Instant::now() + REMOVAL_LIMIT;
    loop {
        match docker.remove_container(id, Some(options())).await {
            Err(DockerError::DockerResponseServerError { status_code: 404, .. }) | Ok(()) => return Ok(()),
            // Somebody else is removing it: then there is only its end to wait for.
            Err(DockerError::DockerResponseServerError { status_code: 409, .. }) if Instant::now() < deadline => {
                tokio::time::sleep(POLL_EVERY).await;
            }
            Err(error) => return Err(error),
        }
    }
}

/// One sweep at a time on this machine, so that none reports as done what another is doing.
struct SweepLock(Option<fs::File>);

impl SweepLock {
    /// Waits its turn, at most for the limit; past it, or where no lock can be had, a sweep goes
    /// ahead all the same, since removing twice does no harm.
    async fn take() -> Self {
        let path = std::env::temp_dir().join(LOCK_FILE);
        let file = fs::File::open(&path).or_else(|_| fs::File::create(&path));
        let Ok(file) = file else {
            return Self(None);
        };
        let deadline = Instant::now() + ENGINE_LIMIT;
        while flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() && Instant::now() < deadline {
            tokio::time::sleep(POLL_EVERY).await;
        }
        Self(Some(file))
    }
}

impl Drop for SweepLock {
    fn drop(&mut self) {
        if let Some(file) = &self.0 {
            let _ = flock(file, FlockOperation::Unlock);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dead_owner_is_told_from_a_live_one_and_from_one_elsewhere() {
        let alive = ProcessIdentity::own().unwrap();
        let dead = ProcessIdentity { start_ticks: 1, ..alive };
        assert_eq!(judge(alive, &place()), Owner::Alive);
        assert_eq!(judge(dead, &place()), Owner::Dead);
        let boot = place().split(':').next().unwrap().to_owned();
        assert_eq!(judge(dead, &format!("{boot}:pid:[1]")), Owner::Elsewhere);
        assert_eq!(judge(alive, "another-boot:pid:[1]"), Owner::Dead);
    }
}
