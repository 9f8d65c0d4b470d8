//! What a run holds on this host while it lives, and what of it is still there once it should be gone.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use nogo_faults::ProcessIdentity;
use nogo_harness::environment::docker_connection;
use nogo_harness::environment::process_tree::working_below;
use nogo_harness::environment::registration::{LABEL_RUN, group_prefix, read_record, runs_folder};
use nogo_harness::environment::volume::mounted_below;
use testcontainers::bollard::models::ContainerSummaryStateEnum;
use testcontainers::bollard::query_parameters::{
    InspectContainerOptions, ListContainersOptions, ListNetworksOptions, ListVolumesOptions,
};

use crate::environment_world::{shared_memory_below, still_shared};

/// Where the kernel shows its control groups, in either layout.
const GROUP_FOLDERS: [&str; 3] = ["/sys/fs/cgroup", "/sys/fs/cgroup/cpu", "/sys/fs/cgroup/cpu,cpuacct"];

/// Everything that was ever seen of one run.
pub struct Holdings {
    /// Its id.
    pub run_id: String,
    /// Its folder outside the store.
    pub scratch: PathBuf,
    record: PathBuf,
    owner: u32,
    processes: BTreeSet<ProcessIdentity>,
    sockets: BTreeSet<String>,
    shared: (Vec<PathBuf>, Vec<String>),
    containers: BTreeSet<String>,
    volumes: BTreeSet<String>,
}

impl Holdings {
    /// Of the one run that is registered in `store`; none before there is one.
    pub fn of_the_run_in(store: &Path) -> Option<Self> {
        let entry = fs::read_dir(runs_folder(store)).ok()?.flatten().find_map(|entry| {
            let record = read_record(&entry.path())?;
            Some((entry.path(), record))
        });
        let (file, record) = entry?;
        Some(Self {
            run_id: record.run_id,
            scratch: record.scratch,
            record: file,
            owner: record.owner.pid,
            processes: BTreeSet::new(),
            sockets: BTreeSet::new(),
            shared: Default::default(),
            containers: BTreeSet::new(),
            volumes: BTreeSet::new(),
        })
    }

    /// Adds the processes of the run.
    pub fn look_at_processes(&mut self) {
        self.processes.extend(working_below(&self.scratch));
    }

    /// Adds what the run holds now.
    pub async fn look(&mut self) {
        self.look_at_processes();
        let pids = self.processes.iter().map(|process| process.pid).chain([self.owner]);
        let held: BTreeSet<String> = pids.flat_map(sockets_of).collect();
        self.sockets.extend(listening().intersection(&held).cloned());
        let (files, segments) = shared_memory_below(&self.scratch);
        self.shared.0.extend(files);
        self.shared.1.extend(segments);
        for (id, _) in containers_of(&self.run_id).await {
            for volume in volumes_in(&id).await {
                self.volumes.insert(volume);
            }
            self.containers.insert(id);
        }
    }

    /// Processes of the run that stand still, by what they are called.
    pub fn standing_still(&self) -> Vec<String> {
        let stopped = self.processes.iter().filter(|process| process.is_paused());
        stopped.map(|process| fs::read_to_string(format!("/proc/{}/comm", process.pid)).unwrap_or_default()).collect()
    }

    /// Control groups that bear the run's name.
    pub fn groups(&self) -> Vec<PathBuf> {
        let prefix = group_prefix(&self.run_id);
        let entries = GROUP_FOLDERS.into_iter().flat_map(|folder| fs::read_dir(folder).into_iter().flatten().flatten());
        entries
            .filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix))
            .map(|entry| entry.path())
            .collect()
    }

    /// Shared memory of the clocks of its processes.
    pub fn clocks(&self) -> Vec<PathBuf> {
        let names = self.processes.iter().flat_map(|process| {
            ["faketime_shm_", "sem.faketime_sem_"].map(|name| PathBuf::from(format!("/dev/shm/{name}{}", process.pid)))
        });
        names.filter(|path| path.exists()).collect()
    }

    /// How many containers of it are paused, and how many there are.
    pub async fn paused(&self) -> (usize, usize) {
        let containers = containers_of(&self.run_id).await;
        (containers.iter().filter(|(_, paused)| *paused).count(), containers.len())
    }

    /// What of all that is on this host, in words; empty once nothing is.
    pub async fn left(&self) -> Vec<String> {
        let mut left: Vec<String> = Vec::new();
        let processes =
            self.processes.iter().copied().filter(ProcessIdentity::alive).chain(working_below(&self.scratch));
        left.extend(processes.map(|process| format!("process {process}")));
        let listening = listening();
        left.extend(self.sockets.intersection(&listening).map(|inode| format!("socket {inode}, still listening")));
        left.extend(still_shared(&self.shared).into_iter().map(|name| format!("shared memory {name}")));
        left.extend(self.clocks().iter().map(|path| format!("clock {}", path.display())));
        left.extend(self.groups().iter().map(|path| format!("control group {}", path.display())));
        left.extend(mounted_below(&self.scratch).iter().map(|path| format!("volume {}", path.display())));
        let temporary = fs::read_dir(std::env::temp_dir()).into_iter().flatten().flatten().map(|entry| entry.path());
        let named = temporary.filter(|path| path.to_string_lossy().contains(&self.run_id));
        left.extend(
            named
                .chain([self.record.clone()])
                .filter(|path| path.exists())
                .map(|path| format!("file {}", path.display())),
        );
        left.extend(containers_of(&self.run_id).await.into_iter().map(|(id, _)| format!("container {id}")));
        left.extend(self.still_in_docker().await);
        left
    }

    async fn still_in_docker(&self) -> Vec<String> {
        if self.containers.is_empty() {
            return Vec::new();
        }
        let docker = docker_connection::connect().await.expect("the engine that ran them").docker;
        let mut left = Vec::new();
        for id in &self.containers {
            if docker.inspect_container(id, None::<InspectContainerOptions>).await.is_ok() {
                left.push(format!("container {id}"));
            }
        }
        let volumes = docker.list_volumes(None::<ListVolumesOptions>).await.expect("list volumes").volumes;
        let names = volumes.into_iter().flatten().map(|volume| volume.name);
        left.extend(names.filter(|name| self.volumes.contains(name)).map(|name| format!("docker volume {name}")));
        let networks = docker.list_networks(None::<ListNetworksOptions>).await.expect("list networks");
        let ours = networks.into_iter().filter(|network| {
            network.labels.as_ref().and_then(|labels| labels.get(LABEL_RUN)).is_some_and(|run| *run == self.run_id)
        });
        left.extend(ours.filter_map(|network| network.name).map(|name| format!("docker network {name}")));
        left
    }
}

/// Containers of a run, and whether each is paused; none where no engine answers.
async fn containers_of(run: &str) -> Vec<(String, bool)> {
    let Ok(connection) = docker_connection::connect().await else { return Vec::new() };
    let options = ListContainersOptions {
        all: true,
        filters: Some([("label".to_owned(), vec![format!("{LABEL_RUN}={run}")])].into()),
        ..Default::default()
    };
    let found = connection.docker.list_containers(Some(options)).await.unwrap_or_default();
    let paused = Some(ContainerSummaryStateEnum::PAUSED);
    found.into_iter().filter_map(|container| Some((container.id?, container.state == paused))).collect()
}

/// The volumes that an engine made for a container.
async fn volumes_in(container: &str) -> Vec<String> {
    let Ok(connection) = docker_connection::connect().await else { return Vec::new() };
    let found = connection.docker.inspect_container(container, None::<InspectContainerOptions>).await;
    let mounts = found.ok().and_then(|container| container.mounts).unwrap_or_default();
    mounts.into_iter().filter_map(|mount| mount.name).collect()
}

/// Sockets that the process has open, by inode.
fn sockets_of(pid: u32) -> Vec<String> {
    let open = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let names = open.filter_map(|entry| Some(fs::read_link(entry.path()).ok()?.to_string_lossy().into_owned()));
    names.filter_map(|name| Some(name.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned())).collect()
}

/// Every TCP socket of this host that listens, by inode.
fn listening() -> BTreeSet<String> {
    let lines = ["/proc/net/tcp", "/proc/net/tcp6"].map(|path| fs::read_to_string(path).unwrap_or_default());
    let fields = lines.iter().flat_map(|text| text.lines().skip(1)).map(|line| line.split_ascii_whitespace());
    // State and inode are the fourth and the tenth field; 0A is a listener.
    fields.filter_map(|mut fields| (fields.nth(3)? == "0A").then(|| fields.nth(5).map(str::to_owned))?).collect()
}
