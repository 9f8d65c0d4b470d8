//! One run's folder in the store: its files by name, its manifest, and how a run is found again.
//!
//! Everything a verdict rests on lies in this one folder. `nogo gate` reads it and nothing else.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use nogo_invariants::Settings;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::exit_code::EndsWith;

/// The files of one run, below `store/<run id>/`.
#[derive(Debug, Clone)]
pub struct RunDirectory {
    root: PathBuf,
}

impl RunDirectory {
    /// Makes the folder of a new run.
    ///
    /// # Errors
    /// When the folder exists already or cannot be made.
    pub fn create(store: &Path, run_id: &str) -> Result<Self> {
        std::fs::create_dir_all(store).with_context(|| format!("make the store folder {}", store.display()))?;
        let root = std::path::absolute(store.join(run_id)).context("find the store's absolute path")?;
        std::fs::create_dir(&root).with_context(|| format!("make the run folder {}", root.display()))?;
        std::fs::create_dir(root.join("logs")).context("make the folder for logs")?;
        std::fs::create_dir(root.join("evidence")).context("make the folder for evidence")?;
        Ok(RunDirectory { root })
    }

    /// Finds a stored run by id, by the start of its id, by path, or as `latest`. What stands behind a `#` names one of its
    /// violations and does not matter here.
    ///
    /// # Errors
    /// A usage error that names what was looked for, and lists near candidates.
    pub fn find(store: &Path, name: &str) -> Result<Self> {
        let name = name.split_once('#').map_or(name, |(run, _)| run);
        let by_path = PathBuf::from(name);
        if by_path.join("manifest.json").is_file() {
            return Ok(RunDirectory { root: std::path::absolute(by_path)? });
        }
        let by_id = store.join(name);
        if by_id.join("manifest.json").is_file() {
            return Ok(RunDirectory { root: std::fs::canonicalize(by_id)? });
        }
        let known = stored_runs(store);
        let starting: Vec<&String> = known.iter().filter(|id| !name.is_empty() && id.starts_with(name)).collect();
        match starting.as_slice() {
            [only] => Ok(RunDirectory { root: std::fs::canonicalize(store.join(only))? }),
            [] => Err(EndsWith::usage(format!(
                "no run '{name}' in {}: `nogo list runs` names those that are stored",
                store.display()
            ))
            .into()),
            several => Err(EndsWith::usage(format!(
                "'{name}' is the start of {} runs ({} …): write more of the id",
                several.len(),
                several[0]
            ))
            .into()),
        }
    }

    /// The folder itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The run's id: the folder's name.
    pub fn id(&self) -> String {
        self.root.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
    }

    /// A file of the run by its name.
    pub fn file(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// Writes a file so that a reader sees the old or the new bytes, never half of them.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let target = self.file(name);
        let draft = self.file(&format!(".{name}.draft"));
        let write = || -> std::io::Result<()> {
            let mut file = std::fs::File::create(&draft)?;
            file.write_all(bytes)?;
            file.sync_data()?;
            std::fs::rename(&draft, &target)
        };
        write().with_context(|| format!("write {}", target.display()))
    }

    /// Reads the manifest.
    ///
    /// # Errors
    /// When it is missing or was written by another version.
    pub fn manifest(&self) -> Result<Manifest> {
        let path = self.file("manifest.json");
        let text = std::fs::read(&path).with_context(|| format!("read {}", path.display()))?;
        serde_json::from_slice(&text).with_context(|| format!("understand {}", path.display()))
    }

    /// Writes the manifest, with the SHA-256 of every file that lies in the folder by now.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn seal(&self, manifest: &mut Manifest) -> Result<()> {
        manifest.files = BTreeMap::new();
        for name in SEALED_FILES {
            let path = self.file(name);
            if path.is_file() {
                manifest.files.insert((*name).to_owned(), file_sha256(&path)?);
            }
        }
        self.write("manifest.json", &pretty_json(manifest)?)
    }

    /// Points `store/latest` here.
    ///
    /// # Errors
    /// When the link cannot be replaced.
    pub fn mark_latest(&self) -> Result<()> {
        let store = self.root.parent().context("find the store of the run")?;
        let link = store.join("latest");
        let draft = store.join(format!(".latest-{}", std::process::id()));
        std::os::unix::fs::symlink(self.id(), &draft).context("make the link store/latest")?;
        std::fs::rename(&draft, &link).context("replace the link store/latest")
    }
}

/// Version of the manifest's layout.
pub const MANIFEST_FORMAT: u32 = 1;

/// The raw record: what the verdict rests on, and what the manifest's digests cover.
pub const SEALED_FILES: &[&str] = &["schedule.toml", "history.ndjson.zst", "final_state.json.zst"];

/// Who, what, where and with which bytes: the identity of a run.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Version of this file's layout.
    pub format: u32,
    /// The run's id.
    pub run_id: String,
    /// Name of the suite, which is the scope of the verdict.
    pub suite: String,
    /// Root seed.
    pub seed: u64,
    /// The engine that ran.
    pub engine: String,
    /// Wall-clock start, RFC 3339 in UTC; for people, never for a checker.
    pub started_at: String,
    /// The command line.
    pub argv: Vec<String>,
    /// Commit of the working tree, or empty outside a checkout.
    pub commit: String,
    /// Whether the working tree differed from that commit.
    pub dirty: bool,
    /// Faults asked for, by name.
    pub faults_requested: Vec<String>,
    /// Limits that the system was configured with, or is held to.
    pub settings: Settings,
    /// SHA-256 of Cargo.lock, hexadecimal.
    pub lock_sha256: String,
    /// SHA-256 of the system's binary, hexadecimal.
    pub system_sha256: String,
    /// Versions and image digests of the servers, by name.
    pub servers: BTreeMap<String, String>,
    /// Version of nogo.
    pub nogo_version: String,
    /// Kernel, cores and memory, for people.
    pub host: BTreeMap<String, String>,
    /// Whether the run came to its end; a partial record is never a pass.
    pub complete: bool,
    /// Why it did not, else empty.
    pub aborted_because: String,
    /// SHA-256 of each file of the raw record, hexadecimal.
    pub files: BTreeMap<String, String>,
}

/// Ids of the runs in a store, oldest first.
pub fn stored_runs(store: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(store) else { return Vec::new() };
    let mut ids: Vec<String> = entries
        .filter_map(|entry| entry.ok())
        .filter(|entry| entry.file_name() != "latest" && entry.path().join("manifest.json").is_file())
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    ids.sort();
    ids
}

/// SHA-256 of a file, lower-case hexadecimal.
///
/// # Errors
/// When it cannot be read.
pub fn file_sha256(path: &Path) -> Result<String> {
    let mut file = std::fs::File::open(path).with_context(|| format!("open {}", path.display()))?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0u8; 1 << 16];
    loop {
        let read = std::io::Read::read(&mut file, &mut buffer).with_context(|| format!("read {}", path.display()))?;
        if read == 0 {
            return Ok(hex::encode(hasher.finalize()));
        }
        hasher.update(&buffer[..read]);
    }
}

/// Pretty JSON with a newline at its end.
///
/// # Errors
/// When the value cannot be expressed, which is a programmer's error.
pub fn pretty_json<T: Serialize>(value: &T) -> Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec_pretty(value).context("express a record as JSON")?;
    bytes.push(b'\n');
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(run_id: &str) -> Manifest {
        Manifest {
            format: 1,
            run_id: run_id.to_owned(),
            suite: "smoke".to_owned(),
            seed: 1,
            engine: "process".to_owned(),
            started_at: String::new(),
            argv: Vec::new(),
            commit: String::new(),
            dirty: false,
            faults_requested: Vec::new(),
            settings: Settings::default(),
            lock_sha256: String::new(),
            system_sha256: String::new(),
            servers: BTreeMap::new(),
            nogo_version: String::new(),
            host: BTreeMap::new(),
            complete: false,
            aborted_because: String::new(),
            files: BTreeMap::new(),
        }
    }

    #[test]
    fn a_run_is_found_by_id_by_prefix_and_as_latest_and_its_manifest_covers_the_record() {
        let store = tempfile::tempdir().unwrap();
        let run = RunDirectory::create(store.path(), "20260101-000000-abcd").unwrap();
        run.write("schedule.toml", b"steps = []\n").unwrap();
        run.seal(&mut manifest("20260101-000000-abcd")).unwrap();
        run.mark_latest().unwrap();
        for name in ["20260101-000000-abcd", "20260101", "latest", "latest#V2"] {
            let found = RunDirectory::find(store.path(), name).unwrap();
            let digest = &found.manifest().unwrap().files["schedule.toml"];
            assert_eq!(digest, &hex::encode(Sha256::digest(b"steps = []\n")));
        }
        assert_eq!(stored_runs(store.path()), ["20260101-000000-abcd"]);
    }

    #[test]
    fn an_unknown_run_is_a_usage_error_that_names_the_fix() {
        let store = tempfile::tempdir().unwrap();
        let error = RunDirectory::find(store.path(), "nothing").unwrap_err();
        assert_eq!(crate::exit_code::exit_code_of(&error), crate::exit_code::ExitCode::Usage);
        assert!(error.to_string().contains("nogo list runs"));
    }
}
