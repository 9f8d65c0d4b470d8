//! A copy of the workspace that patches go into, so that the real tree is never touched.
//!
//! The copy keeps modification times and is brought up to date in place: a build after one patch compiles only what
//! the patch changed. It has a target folder of its own, dependencies included.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::replaced::{Replaced, replaced};
use crate::exit_code::EndsWith;

/// The scratch copy.
#[derive(Debug)]
pub struct Scratch {
    workspace: PathBuf,
    tree: PathBuf,
    /// Held as long as this lives: two that plant into one copy would judge each other's bugs.
    _lock: File,
}

impl Scratch {
    /// Brings `target/mutants/tree` in line with the workspace's files: those that git tracks and those that it
    /// neither tracks nor ignores.
    ///
    /// # Errors
    /// While another process uses the copy, outside a git checkout, or when the disk refuses.
    pub fn sync(workspace: &Path) -> Result<Self> {
        let folder = workspace.join("target/mutants");
        let lock = lock(&folder)?;
        let tree = folder.join("tree");
        let listed = Command::new("git")
            .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
            .current_dir(workspace)
            .output()
            .context("ask git for the workspace's files")?;
        if !listed.status.success() {
            bail!("git does not list {}: planting bugs needs a checkout", workspace.display());
        }
        let mut wanted = BTreeSet::new();
        for name in listed.stdout.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
            let relative = PathBuf::from(String::from_utf8_lossy(name).into_owned());
            if workspace.join(&relative).is_file() {
                copy_if_changed(&workspace.join(&relative), &tree.join(&relative))?;
                wanted.insert(relative);
            }
        }
        remove_unwanted(&tree, &tree, &wanted)?;
        Ok(Scratch { workspace: workspace.to_owned(), tree, _lock: lock })
    }

    /// Whether a patch applies to the copy as it is, and changes nothing that a later migration writes anew.
    ///
    /// # Errors
    /// What git says against it, or the function and the migration that replaces it.
    pub fn check(&self, patch: &Path) -> Result<()> {
        self.apply(patch, &["--check"])?;
        let text = std::fs::read_to_string(patch).with_context(|| format!("read {}", patch.display()))?;
        if let Some(Replaced { function, changed, later }) = replaced(&self.tree, &text)?.first() {
            bail!(
                "{}: it changes {function} in {changed}, and {later} writes that anew: change it there",
                patch.display()
            );
        }
        Ok(())
    }

    /// Applies a patch that stands the [`Scratch::check`].
    ///
    /// # Errors
    /// What is against it.
    pub fn plant(&self, patch: &Path) -> Result<()> {
        self.check(patch)?;
        self.apply(patch, &[])
    }

    /// Takes a planted patch back out.
    ///
    /// # Errors
    /// What git says against it.
    pub fn uproot(&self, patch: &Path) -> Result<()> {
        self.apply(patch, &["--reverse"])
    }

    /// Folder of the copy.
    pub fn tree(&self) -> &Path {
        &self.tree
    }

    /// The workspace that was copied.
    pub fn workspace(&self) -> &Path {
        &self.workspace
    }

    fn apply(&self, patch: &Path, flags: &[&str]) -> Result<()> {
        // Inside a checkout git would resolve the patch against the repository's root; the ceiling makes it
        // treat the copy as a plain folder.
        let output = Command::new("git")
            .arg("apply")
            .args(flags)
            .arg("--whitespace=nowarn")
            .arg(patch)
            .current_dir(&self.tree)
            .env("GIT_CEILING_DIRECTORIES", self.tree.parent().unwrap_or(&self.tree))
            .output()
            .context("run git apply")?;
        if !output.status.success() {
            bail!("{}: {}", patch.display(), String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(())
    }
}

/// The right to plant below `folder`, which ends with the file's closing, be it by a kill.
fn lock(folder: &Path) -> Result<File> {
    std::fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
    let path = folder.join("lock");
    let file = File::create(&path).with_context(|| format!("make {}", path.display()))?;
    if file.try_lock().is_err() {
        let message = format!("another 'nogo mutants' is planting in {}: wait for its end", folder.display());
        return Err(EndsWith::environment(message).into());
    }
    Ok(file)
}

fn copy_if_changed(from: &Path, to: &Path) -> Result<()> {
    let bytes = std::fs::read(from).with_context(|| format!("read {}", from.display()))?;
    if std::fs::read(to).is_ok_and(|present| present == bytes) {
        return Ok(());
    }
    if let Some(parent) = to.parent() {
        std::fs::create_dir_all(parent).with_context(|| format!("make {}", parent.display()))?;
    }
    std::fs::write(to, bytes).with_context(|| format!("write {}", to.display()))
}

fn remove_unwanted(tree: &Path, folder: &Path, wanted: &BTreeSet<PathBuf>) -> Result<()> {
    if !folder.is_dir() {
        return Ok(());
    }
    for entry in std::fs::read_dir(folder).with_context(|| format!("list {}", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            remove_unwanted(tree, &path, wanted)?;
        } else if path.strip_prefix(tree).is_ok_and(|relative| !wanted.contains(relative)) {
            std::fs::remove_file(&path).with_context(|| format!("remove {}", path.display()))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit_code::{ExitCode, exit_code_of};

    fn git(folder: &Path, arguments: &[&str]) {
        let status = Command::new("git").args(arguments).current_dir(folder).status().unwrap();
        assert!(status.success());
    }

    const PATCH: &str = "--- a/rate.txt\n+++ b/rate.txt\n@@ -1 +1 @@\n-right\n+wrong\n";

    #[test]
    fn a_patch_goes_into_the_copy_alone_and_comes_out_again() {
        let workspace = tempfile::tempdir().unwrap();
        git(workspace.path(), &["init", "-q"]);
        std::fs::write(workspace.path().join(".gitignore"), "/target/\n").unwrap();
        std::fs::write(workspace.path().join("rate.txt"), "right\n").unwrap();
        let patch = workspace.path().join("target/wrong.patch");
        let scratch = Scratch::sync(workspace.path()).unwrap();
        std::fs::write(&patch, PATCH).unwrap();
        scratch.check(&patch).unwrap();
        scratch.plant(&patch).unwrap();
        assert_eq!(std::fs::read_to_string(scratch.tree().join("rate.txt")).unwrap(), "wrong\n");
        assert_eq!(std::fs::read_to_string(workspace.path().join("rate.txt")).unwrap(), "right\n");
        scratch.check(&patch).expect_err("planted already");
        scratch.uproot(&patch).unwrap();
        assert_eq!(std::fs::read_to_string(scratch.tree().join("rate.txt")).unwrap(), "right\n");
    }

    #[test]
    fn two_never_plant_into_one_copy() {
        let workspace = tempfile::tempdir().unwrap();
        git(workspace.path(), &["init", "-q"]);
        std::fs::write(workspace.path().join(".gitignore"), "/target/\n").unwrap();
        let first = Scratch::sync(workspace.path()).unwrap();
        let second = Scratch::sync(workspace.path()).unwrap_err();
        assert!(second.to_string().contains("wait for its end"), "{second}");
        assert_eq!(exit_code_of(&second), ExitCode::EnvironmentNotReady);
        drop(first);
        Scratch::sync(workspace.path()).unwrap();
    }

    #[test]
    fn a_sync_heals_a_copy_that_was_left_with_a_bug_and_drops_files_that_are_gone() {
        let workspace = tempfile::tempdir().unwrap();
        git(workspace.path(), &["init", "-q"]);
        std::fs::write(workspace.path().join(".gitignore"), "/target/\n").unwrap();
        std::fs::write(workspace.path().join("rate.txt"), "right\n").unwrap();
        std::fs::write(workspace.path().join("old.txt"), "old\n").unwrap();
        let scratch = Scratch::sync(workspace.path()).unwrap();
        std::fs::write(scratch.tree().join("rate.txt"), "wrong\n").unwrap();
        drop(scratch);
        std::fs::remove_file(workspace.path().join("old.txt")).unwrap();
        let scratch = Scratch::sync(workspace.path()).unwrap();
        assert_eq!(std::fs::read_to_string(scratch.tree().join("rate.txt")).unwrap(), "right\n");
        assert!(!scratch.tree().join("old.txt").exists());
    }
}
