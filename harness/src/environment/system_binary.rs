//! Builds the system's binary and gives each run a copy of its own.
//!
//! Always through cargo, which knows what is stale; a copy, since a later build replaces the file.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, bail};
use serde_json::Value;
use tokio::process::Command;

use super::file_digest::sha256_of_file;
use super::log_tail::last_lines;

/// Name of the binary.
const BINARY: &str = "forecastle";

/// A binary that no later build changes.
#[derive(Debug, Clone)]
pub struct SystemBinary {
    /// Path of the run's own copy.
    pub path: PathBuf,
    /// `sha256:` and its digest.
    pub digest: String,
}

/// Builds in `workspace` with `CARGO` (or `cargo`) and gives the path of the executable as cargo
/// reports it. The whole workspace is selected, as by `cargo nextest run`: features are unified over what is selected,
/// and a narrower choice would compile most dependencies a second time. `target_folder` is where a changed copy of the workspace builds; none means cargo's own. A copy needs one
/// of its own, dependencies included: cargo names what it compiles by the path inside the workspace, so two copies that
/// share a folder take each other's crates for their own.
///
/// # Errors
/// If cargo cannot be run, or the build fails; with the compiler's first errors.
pub async fn build(workspace: &Path, target_folder: Option<&Path>) -> Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(&cargo);
    command
        .args(["build", "--locked", "--workspace", "--bin", BINARY])
        .arg("--message-format=json-render-diagnostics")
        .current_dir(workspace)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    if let Some(folder) = target_folder {
        command.arg("--target-dir").arg(folder);
    }
    let output =
        command.output().await.with_context(|| format!("run {}: is Rust installed?", Path::new(&cargo).display()))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let errors: Vec<&str> = said.lines().filter(|line| line.starts_with("error")).take(10).collect();
        bail!("build {BINARY} in {}: {}\n{}", workspace.display(), errors.join("\n"), last_lines(&said));
    }
    executable(&String::from_utf8_lossy(&output.stdout))
        .with_context(|| format!("find the executable of {BINARY} in cargo's messages"))
}

/// Copies the executable to `folder`. No hard link: some linkers write into the old file.
///
/// # Errors
/// If it cannot be copied or read.
pub fn keep_copy(executable: &Path, folder: &Path) -> Result<SystemBinary> {
    let path = folder.join(BINARY);
    std::fs::copy(executable, &path).with_context(|| format!("copy {} to {}", executable.display(), path.display()))?;
    Ok(SystemBinary { digest: sha256_of_file(&path)?, path })
}

/// The root of the workspace that this nogo was built in.
#[must_use]
pub fn workspace_root() -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.parent().unwrap_or(package).to_owned()
}

fn executable(messages: &str) -> Option<PathBuf> {
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|message| message["reason"] == "compiler-artifact" && message["target"]["name"] == BINARY)
        .filter_map(|message| message["executable"].as_str().map(PathBuf::from))
        .next_back()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_executable_is_that_of_the_binary_and_not_of_a_library() {
        let messages = r#"{"reason":"compiler-artifact","target":{"name":"forecastle"},"executable":null}
{"reason":"compiler-artifact","target":{"name":"other"},"executable":"/t/other"}
{"reason":"compiler-artifact","target":{"name":"forecastle"},"executable":"/t/debug/forecastle"}
{"reason":"build-finished","success":true}"#;
        assert_eq!(executable(messages), Some(PathBuf::from("/t/debug/forecastle")));
        assert_eq!(executable("no json"), None);
    }

    #[test]
    fn the_copy_outlives_a_later_write_into_the_original() {
        let folder = tempfile::tempdir().unwrap();
        let original = folder.path().join("built");
        let run = folder.path().join("run");
        std::fs::create_dir(&run).unwrap();
        std::fs::write(&original, "first").unwrap();
        let kept = keep_copy(&original, &run).unwrap();
        std::fs::write(&original, "second").unwrap();
        assert_eq!(std::fs::read_to_string(&kept.path).unwrap(), "first");
    }
}
