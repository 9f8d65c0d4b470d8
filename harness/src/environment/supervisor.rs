//! Starts the system's processes on the host and sees each of them end.
//!
//! Every exit becomes a [`ProcessEvent`] that says whether it was planned; every child is reaped.
//! Each process leads a group of its own, works in the run's scratch directory (by which a sweep
//! finds it) and writes its log into the run directory. For both engines alike.

use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nogo_faults::ProcessIdentity;
use serde::Serialize;
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::log_tail::{last_lines, log_tail};
use super::process_tree::kill_tree;
use super::registration::Registration;
use super::system_process::SystemProcess;

/// Events that may wait for their reader; more than a run has processes and restarts.
const EVENTS_MAX: usize = 1_024;

/// How one process of the system is started.
#[derive(Debug, Clone)]
pub struct ProcessSpec {
    /// Name within the run, such as `worker-1`; unique among running processes.
    pub name: String,
    /// The binary.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// Environment on top of `PATH`; nothing else is inherited. Secrets belong here, since a
    /// command line shows in every process list.
    pub environment: Vec<(String, String)>,
    /// Time in which its first line must stand on stdout.
    pub ready_limit: Duration,
    /// Where a process that is ready answers with success, below the `address` of its first line; without it, one that
    /// runs is ready.
    pub ready_path: Option<&'static str>,
}

/// What happened to a process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum ProcessChange {
    /// It runs and has said its first line.
    Started,
    /// It ended.
    Exited {
        /// Exit code; none if a signal ended it.
        code: Option<i32>,
        /// The signal that ended it.
        signal: Option<i32>,
        /// Whether a kill or a termination by this run came before.
        planned: bool,
    },
}

/// One change of one process, told once.
#[derive(Debug, Clone, Serialize)]
pub struct ProcessEvent {
    /// Name within the run.
    pub process: String,
    /// Which incarnation.
    pub identity: ProcessIdentity,
    /// What happened.
    pub change: ProcessChange,
    /// When the supervisor saw it, on the monotonic clock.
    #[serde(skip)]
    pub at: Instant,
}

/// A run that was meant to end by itself: its output and exit.
#[derive(Debug, Clone)]
pub struct Finished {
    /// Exit code; none if a signal ended it.
    pub code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// Everything on stdout.
    pub stdout: String,
    /// Everything on stderr.
    pub stderr: String,
    /// From start to exit.
    pub elapsed: Duration,
}

/// A process on its way to its end.
pub struct OneShot {
    supervisor: Arc<Supervisor>,
    name: String,
    started: Instant,
    child: Child,
    identity: Option<ProcessIdentity>,
}

impl OneShot {
    /// Which process it is; none if it had ended before it could be looked at.
    #[must_use]
    pub fn identity(&self) -> Option<ProcessIdentity> {
        self.identity
    }

    /// Waits for its end, at most for `limit`; past that it is killed.
    ///
    /// # Errors
    /// If it exceeds the limit; any exit code is an answer.
    pub async fn finish(self, limit: Duration) -> Result<Finished> {
        // Kept beyond the limit: dropped, it would kill the leader and hide its descendants.
        let mut whole = Box::pin(self.child.wait_with_output());
        match tokio::time::timeout(limit, &mut whole).await {
            Ok(output) => {
                let output = output?;
                let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
                self.supervisor.keep_log(&self.name, &stderr)?;
                Ok(Finished {
                    code: output.status.code(),
                    signal: output.status.signal(),
                    stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
                    stderr,
                    elapsed: self.started.elapsed(),
                })
            }
            Err(_) => {
                if let Some(identity) = self.identity {
                    tokio::task::spawn_blocking(move || kill_tree(identity, None)).await??;
                }
                drop(whole);
                bail!("{} did not end within {} s and was killed", self.name, limit.as_secs())
            }
        }
    }
}

/// Starts processes and watches them.
pub struct Supervisor {
    pub(super) run: Arc<Registration>,
    pub(super) log_folder: PathBuf,
    pub(super) events: mpsc::Sender<ProcessEvent>,
}

impl Supervisor {
    /// A supervisor whose logs go to `log_folder`, with the receiver of its events. At most 1,024
    /// events wait; exits are reaped even if nobody reads them.
    ///
    /// # Errors
    /// If the folder cannot be made.
    pub fn new(run: Arc<Registration>, log_folder: PathBuf) -> Result<(Arc<Self>, mpsc::Receiver<ProcessEvent>)> {
        std::fs::create_dir_all(&log_folder).with_context(|| format!("create log folder {}", log_folder.display()))?;
        let (events, receiver) = mpsc::channel(EVENTS_MAX);
        Ok((Arc::new(Self { run, log_folder, events }), receiver))
    }

    /// Starts a process that stays, and waits for its first line.
    ///
    /// # Errors
    /// If it cannot be started, ends, or says no JSON line within its limit; with the end of its
    /// log. Nothing of it is left then.
    pub async fn start(self: &Arc<Self>, spec: ProcessSpec) -> Result<Arc<SystemProcess>> {
        let process = Arc::new(SystemProcess::new(Arc::clone(self), spec));
        process.start().await?;
        Ok(process)
    }

    /// Runs a process to its end, at most for `limit`; past that it is killed.
    ///
    /// # Errors
    /// If it cannot be started or exceeds the limit; any exit code is an answer.
    pub async fn run_to_end(self: &Arc<Self>, spec: &ProcessSpec, limit: Duration) -> Result<Finished> {
        self.begin(spec)?.finish(limit).await
    }

    /// Starts a process that runs to its end; it can be killed and stopped by its identity meanwhile.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn begin(self: &Arc<Self>, spec: &ProcessSpec) -> Result<OneShot> {
        let child = self
            .command(spec)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("run {}", spec.program.display()))?;
        let identity = child.id().and_then(|pid| ProcessIdentity::of_pid(pid).ok());
        if let Some(identity) = identity {
            self.run.record_process(&spec.name, identity)?;
        }
        let supervisor = Arc::clone(self);
        Ok(OneShot { supervisor, name: spec.name.clone(), started: Instant::now(), child, identity })
    }

    /// As [`Self::run_to_end`], for a run that must exit with 0; gives its last stdout line,
    /// parsed.
    ///
    /// # Errors
    /// Also if the exit code is another, or the last line is no JSON; with the end of its log.
    pub async fn run_for_answer(self: &Arc<Self>, spec: &ProcessSpec, limit: Duration) -> Result<serde_json::Value> {
        let finished = self.run_to_end(spec, limit).await?;
        if finished.code != Some(0) {
            let said = last_lines(&finished.stderr);
            bail!("{} exited with {:?}; its log ends:\n{said}", spec.name, finished.code);
        }
        let line = finished.stdout.lines().last().unwrap_or_default();
        serde_json::from_str(line).with_context(|| format!("read the answer of {}: {line:?}", spec.name))
    }

    pub(super) fn log_file(&self, name: &str) -> PathBuf {
        self.log_folder.join(format!("{name}.log"))
    }

    pub(super) fn log_end(&self, name: &str) -> String {
        log_tail(&self.log_file(name))
    }

    pub(super) fn command(&self, spec: &ProcessSpec) -> Command {
        let mut command = Command::new(&spec.program);
        command
            .args(&spec.arguments)
            .current_dir(self.run.scratch())
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("TZ", "UTC")
            .envs(spec.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .process_group(0)
            .kill_on_drop(true);
        command
    }

    fn keep_log(&self, name: &str, text: &str) -> Result<()> {
        use std::io::Write as _;
        let mut file = std::fs::OpenOptions::new().create(true).append(true).open(self.log_file(name))?;
        Ok(file.write_all(text.as_bytes())?)
    }
}
