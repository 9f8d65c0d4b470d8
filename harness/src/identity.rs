//! What a run is bound to: commit, lock file, host. For the manifest; no law reads a clock.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use crate::run_directory::file_sha256;

/// Commit of the working tree and whether it has changes; empty and true outside a checkout.
pub fn commit_of(workspace: &Path) -> (String, bool) {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").args(arguments).current_dir(workspace).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let commit = git(&["rev-parse", "HEAD"]).unwrap_or_default();
    let dirty = git(&["status", "--porcelain"]).is_none_or(|changes| !changes.is_empty());
    (commit, dirty)
}

/// SHA-256 of the lock file, hexadecimal; empty where there is none.
pub fn lock_digest(workspace: &Path) -> String {
    file_sha256(&workspace.join("Cargo.lock")).unwrap_or_default()
}

/// Kernel, cores and memory, for people.
pub fn host() -> BTreeMap<String, String> {
    let mut host = BTreeMap::new();
    if let Ok(kernel) = std::fs::read_to_string("/proc/sys/kernel/osrelease") {
        host.insert("kernel".to_owned(), kernel.trim().to_owned());
    }
    if let Ok(cores) = std::thread::available_parallelism() {
        host.insert("cores".to_owned(), cores.to_string());
    }
    let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    if let Some(total) = memory.lines().find_map(|line| line.strip_prefix("MemTotal:")) {
        host.insert("memory".to_owned(), total.trim().to_owned());
    }
    host
}
