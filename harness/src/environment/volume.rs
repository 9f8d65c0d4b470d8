//! A volume of a set size for one server's data: mounted, filled, freed, and unmounted wherever it was left.
//!
//! In memory, mounted by root below the run's scratch directory; the kernel's own list of mounts leads the sweep to what
//! a killed owner left. Everything here blocks.

use std::fs;
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use nogo_faults::VolumeUsage;
use rustix::fs::statvfs;

/// The file that fills a volume.
pub const BALLAST: &str = "nogo.ballast";
/// Written at once; smaller pieces follow where no more of these fit.
const PIECES: [usize; 3] = [1 << 20, 4 << 10, 1];

/// Whether this process may mount volumes; the reason where it may not.
///
/// # Errors
/// Names the fix.
pub fn may_mount() -> Result<()> {
    if rustix::process::geteuid().is_root() {
        return Ok(());
    }
    bail!("a volume of a set size is mounted by root: run nogo as root, or with --engine docker")
}

/// Mounts a volume of `mib` MiB at `folder`, which must exist and be empty.
///
/// # Errors
/// If this process is not root's, or the kernel refuses.
pub fn mount(folder: &Path, mib: u32) -> Result<()> {
    may_mount()?;
    let size = format!("size={mib}m,mode=0700,nosuid,nodev");
    command("mount", &["-t", "tmpfs", "-o", &size, "nogo"], folder)
}

/// Unmounts every volume at `folder` or below it, the innermost first; gives where they were.
///
/// # Errors
/// If one stays: a process works there.
pub fn unmount_below(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut mounted = mounted_below(folder);
    // A path sorts before what lies below it.
    mounted.sort();
    mounted.reverse();
    for path in &mounted {
        command("umount", &[], path)?;
    }
    Ok(mounted)
}

/// Where volumes are mounted at `folder` or below it, by the kernel's list.
#[must_use]
pub fn mounted_below(folder: &Path) -> Vec<PathBuf> {
    let list = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    list.lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(|point| PathBuf::from(point.replace("\\040", " ")))
        .filter(|point| point.starts_with(folder))
        .collect()
}

/// Size and room of the file system that `folder` lies on.
///
/// # Errors
/// As the kernel gives them.
pub fn usage(folder: &Path) -> Result<VolumeUsage> {
    let found = statvfs(folder).with_context(|| format!("read the file system of {}", folder.display()))?;
    Ok(VolumeUsage { size: found.f_blocks * found.f_frsize, free: found.f_bavail * found.f_frsize })
}

/// Fills the volume mounted at `folder` to the last byte.
///
/// # Errors
/// If `folder` is no mount point, so that nothing else is ever filled; or as the file system gives them.
pub fn fill(folder: &Path) -> Result<()> {
    if !mounted_below(folder).iter().any(|point| point == folder) {
        bail!("{} is no volume of its own", folder.display());
    }
    let path = folder.join(BALLAST);
    let mut file = fs::File::create(&path).with_context(|| format!("create {}", path.display()))?;
    for size in PIECES {
        let piece = vec![0; size];
        loop {
            match file.write(&piece) {
                Ok(_) => {}
                Err(error) if matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded) => break,
                Err(error) => return Err(error).with_context(|| format!("fill {}", folder.display())),
            }
        }
    }
    Ok(())
}

/// Removes what [`fill`] wrote. Without effect if there is nothing.
///
/// # Errors
/// As the file system gives them.
pub fn release(folder: &Path) -> Result<()> {
    match fs::remove_file(folder.join(BALLAST)) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("free {}", folder.display()))
        }
        _ => Ok(()),
    }
}

fn command(program: &str, arguments: &[&str], folder: &Path) -> Result<()> {
    let output = Command::new(program)
        .args(arguments)
        .arg(folder)
        .output()
        .with_context(|| format!("run {program}; it is part of the package mount"))?;
    if !output.status.success() {
        bail!("{program} {}: {}", folder.display(), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_fills_to_its_size_is_freed_and_goes_away() {
        if may_mount().is_err() {
            assert_ne!(std::env::var("NOGO_MUST_EXERCISE").as_deref(), Ok("1"), "only root mounts");
            println!("NOT EXERCISED: only root mounts");
            return;
        }
        let scratch = tempfile::tempdir().unwrap();
        let folder = scratch.path().join("data");
        fs::create_dir(&folder).unwrap();
        fill(&folder).expect_err("filled what is no volume");
        mount(&folder, 4).unwrap();
        assert_eq!(mounted_below(scratch.path()), std::slice::from_ref(&folder));
        assert_eq!(usage(&folder).unwrap().size, 4 << 20);
        fill(&folder).unwrap();
        assert_eq!(usage(&folder).unwrap().free, 0);
        fs::write(folder.join("more"), [0; 8192]).expect_err("there was room");
        release(&folder).unwrap();
        release(&folder).expect("release may be called again");
        fs::write(folder.join("more"), [0; 8192]).unwrap();
        assert_eq!(unmount_below(scratch.path()).unwrap(), std::slice::from_ref(&folder));
        assert!(mounted_below(scratch.path()).is_empty());
        assert!(unmount_below(scratch.path()).unwrap().is_empty());
        assert!(!folder.join("more").exists());
    }
}
