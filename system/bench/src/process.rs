//! Processes under measurement: started, told apart, measured from `/proc`, ended.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use serde_json::Value;

/// Longest wait for a process's first line.
const START_MAX: Duration = Duration::from_secs(30);
/// Longest wait for a process to end by itself after SIGTERM.
const END_MAX: Duration = Duration::from_secs(15);

/// A child that ends with this value, and at the latest with this process's main thread.
pub(crate) struct Process {
    name: String,
    child: Child,
}

impl Process {
    /// Starts a program that announces itself with one line of JSON, and returns that line too.
    pub(crate) fn start(name: &str, program: &Path, arguments: &[String]) -> anyhow::Result<(Self, Value)> {
        let mut child = Command::new("setpriv")
            .arg("--pdeathsig=KILL")
            .arg(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("start {name}"))?;
        let stdout = child.stdout.take().context("read its output")?;
        let process = Self { name: name.to_owned(), child };
        let (send, receive) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let mut lines = BufReader::new(stdout).lines();
            let _ = send.send(lines.next());
            // Read on, so that it never blocks on a full pipe.
            lines.for_each(drop);
        });
        match receive.recv_timeout(START_MAX) {
            Ok(Some(Ok(line))) => {
                let line = serde_json::from_str(&line).with_context(|| format!("read {name}'s first line"))?;
                Ok((process, line))
            }
            _ => bail!("{name} did not announce itself"),
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Whether it still runs.
    pub(crate) fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Resident memory, bytes.
    pub(crate) fn resident_bytes(&self) -> u64 {
        resident_bytes(self.pid())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = Command::new("kill").arg("-TERM").arg(self.child.id().to_string()).status();
        let end = Instant::now() + END_MAX;
        while Instant::now() < end {
            if !self.is_running() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn resident_bytes(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next()).and_then(|kib| kib.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

/// CPU time that processes have used, with all their descendants that live, and those that were waited
/// for; seconds. A descendant that ended unwaited for is lost, so measure between, not across, ends.
pub(crate) fn cpu_seconds(roots: &[u32]) -> f64 {
    let mut total = 0.0;
    let mut all: Vec<u32> = roots.to_vec();
    let parents = parents();
    let mut next = 0;
    while next < all.len() {
        let pid = all[next];
        next += 1;
        total += own_cpu_seconds(pid);
        all.extend(parents.iter().filter(|(_, parent)| *parent == pid).map(|(child, _)| *child));
    }
    total
}

/// Every process with its parent.
fn parents() -> Vec<(u32, u32)> {
    let Ok(folder) = std::fs::read_dir("/proc") else { return Vec::new() };
    let pids = folder.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter_map(|pid| Some((pid, fields_after_name(pid)?.get(1)?.parse().ok()?))).collect()
}

fn own_cpu_seconds(pid: u32) -> f64 {
    let Some(fields) = fields_after_name(pid) else { return 0.0 };
    // utime, stime, cutime, cstime: fields 14 to 17 of the line, which counts from 1 and has two before these.
    let ticks: u64 = fields.get(11..15).unwrap_or_default().iter().filter_map(|field| field.parse::<u64>().ok()).sum();
    ticks as f64 / rustix::param::clock_ticks_per_second() as f64
}

/// The fields of `/proc/PID/stat` after the program's name, which may hold spaces.
fn fields_after_name(pid: u32) -> Option<Vec<String>> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(") ")?;
    Some(rest.split_whitespace().map(str::to_owned).collect())
}
