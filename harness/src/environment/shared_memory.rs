//! The memory that a PostgreSQL server shares outside its folder, noted before the server is killed.
//!
//! One that ends in order removes it, and one that starts on a killed one's data removes what that left. Where a server is
//! killed and nobody starts it again, a System V segment and files in `/dev/shm` stay for good; only the live server's
//! mappings tell which they are.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use nogo_faults::process::ProcessIdentity;
use serde::{Deserialize, Serialize};

use super::process_tree::working_below;

/// In the server's folder, beside its data.
const NOTE: &str = "shared-memory.json";
/// Where the kernel shows shared memory that has a name.
const NAMED: &str = "/dev/shm/";
/// What a server calls such memory.
const NAME_BEGINS: &str = "PostgreSQL.";
/// The line of `postmaster.pid` with the segment's key and id, from 0.
const SEGMENT_LINE: usize = 6;

#[derive(Debug, Default, Serialize, Deserialize)]
struct Noted {
    leader: u32,
    segment: Option<String>,
    files: Vec<PathBuf>,
}

/// Notes in `folder`, the server's own, what its processes share now. Without effect where they share nothing.
///
/// # Errors
/// If the note cannot be written.
pub fn note(folder: &Path, leader: ProcessIdentity) -> Result<()> {
    let told = fs::read_to_string(folder.join("data/postmaster.pid")).unwrap_or_default();
    let segment = told.lines().nth(SEGMENT_LINE).and_then(|line| line.split_ascii_whitespace().last());
    let mut files: Vec<PathBuf> = working_below(folder).into_iter().flat_map(|process| mapped(process.pid)).collect();
    files.sort();
    files.dedup();
    let noted = Noted { leader: leader.pid, segment: segment.map(str::to_owned), files };
    if noted.segment.is_none() && noted.files.is_empty() {
        return Ok(());
    }
    let file = folder.join(NOTE);
    fs::write(&file, serde_json::to_vec(&noted)?).with_context(|| format!("write {}", file.display()))
}

/// Removes what [`note`] noted in `folder` and is still there. Call once the server has ended for good.
///
/// # Errors
/// If something stays.
pub fn remove_noted(folder: &Path) -> Result<()> {
    let Ok(text) = fs::read(folder.join(NOTE)) else {
        return Ok(());
    };
    let noted: Noted = serde_json::from_slice(&text).context("read what a server shared")?;
    for file in &noted.files {
        match fs::remove_file(file) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("remove {}", file.display()));
            }
            _ => {}
        }
    }
    match noted.segment {
        Some(id) if is_abandoned(&id, noted.leader) => remove_segment(&id),
        _ => Ok(()),
    }
}

fn mapped(pid: u32) -> Vec<PathBuf> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
    let names = maps.lines().filter_map(|line| line.split_once(NAMED)).map(|(_, name)| name.trim_end());
    names.filter(|name| name.starts_with(NAME_BEGINS)).map(|name| Path::new(NAMED).join(name)).collect()
}

/// Whether the segment was made by that process and nobody uses it: an id may come to mean another's.
fn is_abandoned(id: &str, leader: u32) -> bool {
    let known = fs::read_to_string("/proc/sysvipc/shm").unwrap_or_default();
    known.lines().skip(1).any(|line| {
        // key, id, mode, size, maker, last user, users
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        fields.get(1) == Some(&id) && fields.get(4) == Some(&leader.to_string().as_str()) && fields.get(6) == Some(&"0")
    })
}

fn remove_segment(id: &str) -> Result<()> {
    let output = Command::new("ipcrm").args(["--shmem-id", id]).output();
    let output = output.context("run ipcrm; it is part of the package util-linux")?;
    if !output.status.success() {
        bail!("remove shared memory segment {id}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
