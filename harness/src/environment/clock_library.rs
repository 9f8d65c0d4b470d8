//! libfaketime of the distribution: found, and put before a process so that its wall clock can be set.
//!
//! The monotonic clock is left alone: what is set apart is the time of day, as a bad time server would do it.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

/// Says where the library is, if not where a distribution puts it.
const SETTING: &str = "NOGO_FAKETIME_LIB";
/// The variant for processes with several threads.
const FILE: &str = "libfaketimeMT.so.1";
/// Below one of these, in a folder `faketime`, perhaps behind one for the architecture.
const LIBRARY_FOLDERS: [&str; 3] = ["/usr/lib", "/usr/lib64", "/usr/local/lib"];

/// The library.
///
/// # Errors
/// If it is not installed; names the package.
pub fn clock_library() -> Result<PathBuf> {
    let named = std::env::var_os(SETTING).map(PathBuf::from);
    named.into_iter().chain(places()).find(|place| place.is_file()).with_context(|| {
        format!(
            "{FILE} is not installed: ci/setup, or as root apt-get install libfaketime, or set {SETTING} to its path"
        )
    })
}

fn places() -> impl Iterator<Item = PathBuf> {
    LIBRARY_FOLDERS.into_iter().flat_map(|folder| {
        let folder = Path::new(folder);
        let below = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
        std::iter::once(folder.to_owned()).chain(below).map(|parent| parent.join("faketime").join(FILE))
    })
}

/// Removes the shared memory of the library that a killed process of that pid leaves behind. Call once it has ended.
pub(super) fn forget_clock(pid: u32) {
    for name in ["faketime_shm_", "sem.faketime_sem_"] {
        // Most have none, or removed it themselves.
        let _ = std::fs::remove_file(format!("/dev/shm/{name}{pid}"));
    }
}

/// What a process is started with, so that `file` sets its clock, read anew every second.
#[must_use]
pub fn clock_environment(library: &Path, file: &Path) -> Vec<(String, String)> {
    let text = |path: &Path| path.to_string_lossy().into_owned();
    [
        ("LD_PRELOAD", text(library)),
        ("FAKETIME_TIMESTAMP_FILE", text(file)),
        ("FAKETIME_CACHE_DURATION", "1".to_owned()),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
        ("DONT_FAKE_MONOTONIC", "1".to_owned()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .to_vec()
}
