//! Ends whole families of processes: a leader, its group, its descendants, its orphans.
//!
//! An orphan is recognised by its working directory: PostgreSQL's children lead sessions of their
//! own and lose their parent when it is killed, but they stay in the data directory. For Linux.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use nogo_faults::process::ProcessIdentity;
use rustix::process::{Pid, Signal, kill_process, kill_process_group};

/// Time that killed processes may take to disappear; an exit of PostgreSQL's children takes
/// milliseconds, writing back a loaded disk may hold one up.
const GONE_LIMIT: Duration = Duration::from_secs(10);

/// Time that a server which was asked to end may take. PostgreSQL itself kills those of its children that do not
/// go, after 5 s.
const ASKED_LIMIT: Duration = Duration::from_secs(7);

/// Where `leader` is a PostgreSQL server: asks it to end at once, and waits until it has, for some seconds at most.
/// It alone removes the memory that it shares outside its folder (a System V segment, files in `/dev/shm`), which a
/// kill leaves on the host for good. Whatever is left is to be killed. Whether it has ended. Blocks.
pub fn end_postgres(leader: ProcessIdentity) -> bool {
    let name = fs::read_to_string(format!("/proc/{}/comm", leader.pid)).unwrap_or_default();
    if !leader.alive() || name.trim_end() != "postgres" {
        return false;
    }
    signal(leader, Signal::QUIT);
    // One that stands still hears it when it goes on.
    signal(leader, Signal::CONT);
    let deadline = Instant::now() + ASKED_LIMIT;
    while leader.alive() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(5));
    }
    !leader.alive()
}

/// Asks every PostgreSQL server that works below `folder` to end, as [`end_postgres`] does; gives those that have. Blocks.
pub fn end_postgres_below(folder: &Path) -> Vec<ProcessIdentity> {
    let found = working_below(folder);
    let is_server = |identity: &&ProcessIdentity| {
        // A server's children are called as it is, and work where it does.
        let parent = parent(identity.pid);
        !found.iter().any(|other| Some(other.pid) == parent)
    };
    found.iter().filter(is_server).copied().filter(|leader| end_postgres(*leader)).collect()
}

/// Sends `signal` to the process if it is still this one.
pub fn signal(identity: ProcessIdentity, signal: Signal) {
    if let Some(pid) = raw_pid(identity) {
        // It may have ended since: then there is nobody left to tell.
        let _ = kill_process(pid, signal);
    }
}

/// Kills the process, its group and its descendants and, if a folder is given, every process
/// whose working directory lies below it; waits until all are gone. Blocks.
///
/// # Errors
/// If some of them outlive the limit of ten seconds.
pub fn kill_tree(leader: ProcessIdentity, folder: Option<&Path>) -> Result<()> {
    let mut doomed = BTreeSet::new();
    let deadline = Instant::now() + GONE_LIMIT;
    loop {
        if leader.alive() {
            doomed.insert(leader);
            // Stopped first, so that it starts no further child while they are collected.
            signal(leader, Signal::STOP);
            doomed.extend(descendants(leader.pid));
            if let Some(pid) = raw_pid(leader) {
                let _ = kill_process_group(pid, Signal::KILL);
            }
        }
        if let Some(folder) = folder {
            doomed.extend(working_below(folder));
        }
        doomed.retain(ProcessIdentity::alive);
        if doomed.is_empty() {
            return Ok(());
        }
        for identity in &doomed {
            // An error means that it ended meanwhile; the next round looks again.
            let _ = identity.kill();
        }
        if Instant::now() > deadline {
            bail!("kill {leader}: still alive: {doomed:?}");
        }
        // An orphan's end has no other sign than that its entry goes.
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Stops one process where it stands; returns when it does nothing of its own any more. Blocks.
///
/// # Errors
/// If it has ended, or goes on past the limit of ten seconds.
pub fn stop_process(identity: ProcessIdentity) -> Result<()> {
    signal_one(identity, Signal::STOP, true)
}

/// Lets one process go on; returns when it does. Blocks.
///
/// # Errors
/// If it has ended, or stands still past the limit of ten seconds.
pub fn continue_process(identity: ProcessIdentity) -> Result<()> {
    signal_one(identity, Signal::CONT, false)
}

fn signal_one(identity: ProcessIdentity, kind: Signal, stopped: bool) -> Result<()> {
    let deadline = Instant::now() + GONE_LIMIT;
    signal(identity, kind);
    loop {
        if !identity.alive() {
            bail!("{identity} has ended");
        }
        if is_stopped(identity) == stopped {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!("{identity} still {}", if stopped { "goes on" } else { "stands still" });
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Stops every process that works below `folder`, `leader` first, so that it starts no further one; waits until nothing
/// goes on. Blocks.
///
/// # Errors
/// If some of them go on past the limit of ten seconds.
pub fn stop_below(folder: &Path, leader: Option<ProcessIdentity>) -> Result<()> {
    signal_below(folder, leader, Signal::STOP, true)
}

/// Lets every process that works below `folder` go on, `leader` last; waits until none stands still. Blocks.
///
/// # Errors
/// If some of them stand still past the limit of ten seconds.
pub fn continue_below(folder: &Path, leader: Option<ProcessIdentity>) -> Result<()> {
    signal_below(folder, leader, Signal::CONT, false)
}

/// Whether processes work below `folder` and all of them stand still.
#[must_use]
pub fn stands_still_below(folder: &Path) -> bool {
    let found = working_below(folder);
    !found.is_empty() && found.into_iter().all(is_stopped)
}

fn signal_below(folder: &Path, leader: Option<ProcessIdentity>, kind: Signal, stopped: bool) -> Result<()> {
    let deadline = Instant::now() + GONE_LIMIT;
    loop {
        let mut others: Vec<_> = working_below(folder).into_iter().filter(|found| Some(*found) != leader).collect();
        let at = if stopped { 0 } else { others.len() };
        if let Some(leader) = leader {
            others.insert(at, leader);
        }
        others.retain(|found| found.alive() && is_stopped(*found) != stopped);
        if others.is_empty() {
            return Ok(());
        }
        for identity in &others {
            signal(*identity, kind);
        }
        if Instant::now() > deadline {
            let verb = if stopped { "go on" } else { "stand still" };
            bail!("{others:?} still {verb}");
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Whether a signal stopped it, or will before it executes anything of its own again: a call that no signal interrupts,
/// such as a vfork whose child stands still, holds the stop back.
fn is_stopped(identity: ProcessIdentity) -> bool {
    match state(identity.pid) {
        Some('T' | 't') => true,
        Some('D') => stop_is_pending(identity.pid),
        _ => false,
    }
}

fn stop_is_pending(pid: u32) -> bool {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let pending = text.lines().find_map(|line| line.strip_prefix("ShdPnd:"));
    // One bit for each signal, the lowest for signal 1.
    let stop = 1 << (Signal::STOP.as_raw() - 1);
    pending.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & stop != 0)
}

/// The boot and the pid namespace that pids of this process belong to, as
/// `<boot id>:<namespace>`. Pids of two places cannot be compared.
#[must_use]
pub fn place() -> String {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let namespace = fs::read_link("/proc/self/ns/pid").unwrap_or_default();
    format!("{}:{}", boot.trim(), namespace.display())
}

/// Every process whose working directory is `folder` or lies below it, this process excepted.
/// Only those are seen whose `/proc/<pid>/cwd` may be read.
#[must_use]
pub fn working_below(folder: &Path) -> Vec<ProcessIdentity> {
    all_pids()
        .filter(|pid| *pid != std::process::id())
        .filter(|pid| fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| strip(cwd).starts_with(folder)))
        .filter_map(|pid| ProcessIdentity::of_pid(pid).ok())
        .collect()
}

/// The kernel marks a removed working directory so.
fn strip(cwd: PathBuf) -> PathBuf {
    match cwd.to_str().and_then(|text| text.strip_suffix(" (deleted)")) {
        Some(text) => PathBuf::from(text),
        None => cwd,
    }
}

fn descendants(root: u32) -> Vec<ProcessIdentity> {
    let parents: Vec<(u32, u32)> = all_pids().filter_map(|pid| Some((pid, parent(pid)?))).collect();
    let mut family = BTreeSet::from([root]);
    loop {
        let before = family.len();
        for (pid, parent) in &parents {
            if family.contains(parent) {
                family.insert(*pid);
            }
        }
        if family.len() == before {
            break;
        }
    }
    family.remove(&root);
    family.into_iter().filter_map(|pid| ProcessIdentity::of_pid(pid).ok()).collect()
}

fn all_pids() -> impl Iterator<Item = u32> {
    fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

fn state(pid: u32) -> Option<char> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    text.rsplit_once(')')?.1.trim_start().chars().next()
}

fn parent(pid: u32) -> Option<u32> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the name in parentheses and may itself hold blanks and parentheses.
    let mut fields = text.rsplit_once(')')?.1.split_ascii_whitespace();
    fields.nth(1)?.parse().ok()
}

/// The pid, while it is this process's.
fn raw_pid(identity: ProcessIdentity) -> Option<Pid> {
    if !identity.alive() {
        return None;
    }
    Pid::from_raw(i32::try_from(identity.pid).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::CommandExt as _;
    use std::process::Command;

    #[test]
    fn one_process_is_stopped_and_goes_on_and_a_dead_one_is_told() {
        let mut child = Command::new("sleep").arg("600").spawn().unwrap();
        let identity = ProcessIdentity::of_pid(child.id()).unwrap();
        stop_process(identity).unwrap();
        assert_eq!(state(identity.pid), Some('T'));
        stop_process(identity).unwrap();
        continue_process(identity).unwrap();
        assert_ne!(state(identity.pid), Some('T'));
        child.kill().unwrap();
        child.wait().unwrap();
        stop_process(identity).unwrap_err();
    }

    #[test]
    fn killing_the_tree_takes_a_grandchild_in_a_session_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let mut child = Command::new("sh")
            .args(["-c", "setsid sleep 600 & echo started >ready; wait"])
            .current_dir(folder.path())
            .process_group(0)
            .spawn()
            .unwrap();
        let deadline = Instant::now() + Duration::from_secs(5);
        while !folder.path().join("ready").exists() || working_below(folder.path()).len() < 2 {
            assert!(Instant::now() < deadline, "the child did not start");
            std::thread::yield_now();
        }
        kill_tree(ProcessIdentity::of_pid(child.id()).unwrap(), None).unwrap();
        assert!(working_below(folder.path()).is_empty());
        child.wait().unwrap();
    }

    #[test]
    fn a_family_stands_still_goes_on_and_is_killed_where_it_stands() {
        let folder = tempfile::tempdir().unwrap();
        let mut child = Command::new("sh")
            .args(["-c", "setsid sh -c 'while :; do sleep 0.01; done' & while :; do sleep 0.01; done"])
            .current_dir(folder.path())
            .process_group(0)
            .spawn()
            .unwrap();
        let leader = ProcessIdentity::of_pid(child.id()).unwrap();
        let deadline = Instant::now() + Duration::from_secs(5);
        while working_below(folder.path()).len() < 3 {
            assert!(Instant::now() < deadline, "the family did not start");
            std::thread::yield_now();
        }
        assert!(!stands_still_below(folder.path()));
        stop_below(folder.path(), Some(leader)).unwrap();
        assert!(stands_still_below(folder.path()));
        stop_below(folder.path(), Some(leader)).expect("once more changes nothing");
        continue_below(folder.path(), Some(leader)).unwrap();
        assert!(!stands_still_below(folder.path()));
        continue_below(folder.path(), Some(leader)).expect("once more changes nothing");
        stop_below(folder.path(), Some(leader)).unwrap();
        kill_tree(leader, Some(folder.path())).unwrap();
        assert!(working_below(folder.path()).is_empty());
        child.wait().unwrap();
    }

    #[test]
    fn an_orphan_is_found_by_its_working_directory() {
        let folder = tempfile::tempdir().unwrap();
        let mut child =
            Command::new("sh").args(["-c", "setsid sleep 600 & exec true"]).current_dir(folder.path()).spawn().unwrap();
        let identity = ProcessIdentity { pid: child.id(), start_ticks: 0 };
        child.wait().unwrap();
        assert_eq!(working_below(folder.path()).len(), 1);
        kill_tree(identity, Some(folder.path())).unwrap();
        assert!(working_below(folder.path()).is_empty());
    }
}
