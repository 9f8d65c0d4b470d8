//! A control group of the kernel that caps the processor time of its members. Needs root.
//!
//! Both layouts are known: the first version's `cpu` hierarchy, and the single tree of the second.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use super::ProcessIdentity;

/// Where the hierarchies are mounted.
const MOUNT: &str = "/sys/fs/cgroup";
/// Names that the first version's hierarchy goes by.
const FIRST_VERSION: [&str; 2] = ["cpu", "cpu,cpuacct"];
/// Time after which a member gets its share anew, microseconds.
const PERIOD_US: u64 = 50_000;
/// Time that the threads of a killed member may take to be gone; those of a starved one wait for their share.
const LAST_THREADS_LIMIT: Duration = Duration::from_secs(10);

/// A group, made by this process.
#[derive(Debug, Clone)]
pub struct ControlGroup {
    folder: PathBuf,
    hierarchy: Hierarchy,
}

#[derive(Debug, Clone)]
enum Hierarchy {
    First(PathBuf),
    Second(PathBuf),
}

impl Hierarchy {
    fn root(&self) -> &Path {
        match self {
            Self::First(root) | Self::Second(root) => root,
        }
    }

    /// The one that counts processor time here.
    fn find() -> io::Result<Self> {
        let mount = Path::new(MOUNT);
        for name in FIRST_VERSION {
            let root = mount.join(name);
            if root.join("cpu.shares").exists() || root.join("cpu.cfs_quota_us").exists() {
                return Ok(Self::First(root));
            }
        }
        let controllers = fs::read_to_string(mount.join("cgroup.controllers")).unwrap_or_default();
        if controllers.split_ascii_whitespace().any(|name| name == "cpu") {
            return Ok(Self::Second(mount.to_owned()));
        }
        Err(io::Error::new(io::ErrorKind::Unsupported, format!("{MOUNT} has no hierarchy that counts processor time")))
    }
}

impl ControlGroup {
    /// Whether groups can be made here; in words why not.
    ///
    /// # Errors
    /// Without such a hierarchy, or without the right to write it.
    pub fn can_be_made() -> io::Result<()> {
        let hierarchy = Hierarchy::find()?;
        let procs = hierarchy.root().join("cgroup.procs");
        fs::OpenOptions::new()
            .write(true)
            .open(&procs)
            .map(drop)
            .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}; run nogo as root", procs.display())))
    }

    /// Makes the group `name`.
    ///
    /// # Errors
    /// As [`Self::can_be_made`], or if there is one of that name.
    pub fn create(name: &str) -> io::Result<Self> {
        let hierarchy = Hierarchy::find()?;
        if let Hierarchy::Second(root) = &hierarchy {
            fs::write(root.join("cgroup.subtree_control"), "+cpu")?;
        }
        let folder = hierarchy.root().join(name);
        fs::create_dir(&folder)?;
        Ok(Self { folder, hierarchy })
    }

    /// Its members together get at most so many hundredths of one core.
    ///
    /// # Errors
    /// As writing the setting gives them.
    pub fn cap(&self, percent: u64) -> io::Result<()> {
        let quota_us = PERIOD_US * percent / 100;
        match self.hierarchy {
            Hierarchy::First(_) => {
                fs::write(self.folder.join("cpu.cfs_period_us"), PERIOD_US.to_string())?;
                fs::write(self.folder.join("cpu.cfs_quota_us"), quota_us.to_string())
            }
            Hierarchy::Second(_) => fs::write(self.folder.join("cpu.max"), format!("{quota_us} {PERIOD_US}")),
        }
    }

    /// Moves a process into it; gives the folder of the group it was in.
    ///
    /// # Errors
    /// If the process has ended or may not be moved.
    pub fn take_in(&self, identity: ProcessIdentity) -> io::Result<PathBuf> {
        let former = self.folder_of(identity)?;
        fs::write(self.folder.join("cgroup.procs"), identity.pid.to_string())?;
        Ok(former)
    }

    /// Whether the process is a member.
    ///
    /// # Errors
    /// If the process has ended.
    pub fn holds(&self, identity: ProcessIdentity) -> io::Result<bool> {
        Ok(self.folder_of(identity)? == self.folder)
    }

    /// Periods in which members had to wait for their next share.
    ///
    /// # Errors
    /// If the group is gone.
    pub fn throttled(&self) -> io::Result<u64> {
        let stat = fs::read_to_string(self.folder.join("cpu.stat"))?;
        let count = stat.lines().find_map(|line| line.strip_prefix("nr_throttled ")?.trim().parse().ok());
        count.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "its cpu.stat has no nr_throttled"))
    }

    /// Removes it; what it still holds goes to the root of the hierarchy. Without effect once it is gone. Blocks
    /// while threads of a killed member are on their way out, for ten seconds at most.
    ///
    /// # Errors
    /// If the kernel keeps it.
    pub fn remove(&self) -> io::Result<()> {
        remove_folder(&self.folder, self.hierarchy.root())
    }

    fn folder_of(&self, identity: ProcessIdentity) -> io::Result<PathBuf> {
        let text = fs::read_to_string(format!("/proc/{}/cgroup", identity.pid))?;
        let path = text.lines().find_map(|line| {
            let mut fields = line.splitn(3, ':');
            let (number, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
            let is_it = match self.hierarchy {
                Hierarchy::First(_) => controllers.split(',').any(|name| name == "cpu"),
                Hierarchy::Second(_) => number == "0" && controllers.is_empty(),
            };
            is_it.then(|| self.hierarchy.root().join(path.trim_start_matches('/')))
        });
        path.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "it is in no group of this hierarchy"))
    }
}

/// Removes every group whose name begins with `prefix`, as a run that was killed leaves them; gives their folders.
///
/// # Errors
/// If the kernel keeps one.
pub fn remove_groups(prefix: &str) -> io::Result<Vec<PathBuf>> {
    let Ok(hierarchy) = Hierarchy::find() else {
        return Ok(Vec::new());
    };
    let mut removed = Vec::new();
    for entry in fs::read_dir(hierarchy.root())?.flatten() {
        let is_ours = entry.file_name().to_str().is_some_and(|name| name.starts_with(prefix));
        if is_ours && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_folder(&entry.path(), hierarchy.root())?;
            removed.push(entry.path());
        }
    }
    Ok(removed)
}

fn remove_folder(folder: &Path, root: &Path) -> io::Result<()> {
    let deadline = Instant::now() + LAST_THREADS_LIMIT;
    loop {
        // Each time anew: a member may have had a child meanwhile.
        let members = match fs::read_to_string(folder.join("cgroup.procs")) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            members => members?,
        };
        for pid in members.lines() {
            // One that ended meanwhile is no member either.
            let _ = fs::write(root.join("cgroup.procs"), pid);
        }
        match fs::remove_dir(folder) {
            // A thread on its way out is a member that cannot be moved, and the last of its way takes processor time.
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy && Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(1));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            outcome => return outcome,
        }
    }
}
