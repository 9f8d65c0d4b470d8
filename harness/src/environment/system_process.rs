//! One process of the system through all its incarnations: start, kill, terminate, restart.

use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nogo_faults::{BoxFuture, ControlError, ProcessControl, ProcessEnding, ProcessIdentity};
use rustix::process::Signal;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, ChildStdout};
use tokio::sync::watch;
use tokio::time::Instant;

use super::clock_library::forget_clock;
use super::process_tree::signal;
use super::supervisor::{ProcessChange, ProcessEvent, ProcessSpec, Supervisor};

/// Time for the kernel to end a killed process.
const GONE_LIMIT: Duration = Duration::from_secs(10);
/// Time for a process that is ready to say so.
const READY_ANSWER_LIMIT: Duration = Duration::from_secs(1);

/// A process that the supervisor keeps.
pub struct SystemProcess {
    supervisor: Arc<Supervisor>,
    spec: ProcessSpec,
    life: Mutex<Option<Life>>,
}

/// One incarnation.
#[derive(Clone)]
struct Life {
    identity: ProcessIdentity,
    first_line: Value,
    planned: Arc<Mutex<bool>>,
    /// None while it runs.
    exit: watch::Receiver<Option<ExitStatus>>,
}

impl SystemProcess {
    pub(super) fn new(supervisor: Arc<Supervisor>, spec: ProcessSpec) -> Self {
        Self { supervisor, spec, life: Mutex::new(None) }
    }

    /// Name within the run.
    #[must_use]
    pub fn process_name(&self) -> &str {
        &self.spec.name
    }

    /// The present incarnation, or the last one if it ended.
    #[must_use]
    pub fn current_identity(&self) -> Option<ProcessIdentity> {
        self.life().map(|life| life.identity)
    }

    /// The first line that the present incarnation said, such as
    /// `{"event":"listening","address":"127.0.0.1:40123"}`; null before the first start.
    #[must_use]
    pub fn first_line(&self) -> Value {
        self.life().map_or(Value::Null, |life| life.first_line)
    }

    /// The address in `field` of the first line; changes with a restart.
    ///
    /// # Errors
    /// If the line has no such field or it holds no address.
    pub fn address(&self, field: &str) -> Result<SocketAddr> {
        let line = self.first_line();
        let text = line.get(field).and_then(Value::as_str);
        text.and_then(|text| text.parse().ok()).with_context(|| format!("{} said no {field}: {line}", self.spec.name))
    }

    /// Whether the present incarnation runs.
    #[must_use]
    pub fn runs(&self) -> bool {
        self.life().is_some_and(|life| life.exit.borrow().is_none() && life.identity.alive())
    }

    /// SIGKILL; planned. Returns when it has been reaped. No effect if it does not run.
    ///
    /// # Errors
    /// If it outlives its limit of 10 s.
    pub async fn kill_now(&self) -> Result<()> {
        if let Some(life) = self.life() {
            life.plan();
            // NotFound: it ended by itself; the exit was told as it came.
            let _ = life.identity.kill();
            life.ended(GONE_LIMIT).await.with_context(|| format!("kill {}", self.spec.name))?;
        }
        Ok(())
    }

    /// SIGTERM, then SIGKILL once `limit` is over; planned. True if it ended within the limit and
    /// with exit code 0.
    ///
    /// # Errors
    /// If it outlives the SIGKILL.
    pub async fn terminate(&self, limit: Duration) -> Result<bool> {
        let Some(life) = self.life() else {
            return Ok(true);
        };
        if life.exit.borrow().is_some() {
            return Ok(true);
        }
        life.plan();
        signal(life.identity, Signal::TERM);
        match life.ended(limit).await {
            Ok(status) => Ok(status.code() == Some(0)),
            Err(_) => {
                self.kill_now().await?;
                Ok(false)
            }
        }
    }

    /// Starts it, anew if it had ended, and waits for its first line.
    ///
    /// # Errors
    /// If it runs, cannot be started, ends, or says no JSON line within its limit.
    pub async fn start(&self) -> Result<ProcessIdentity> {
        if self.runs() {
            bail!("{} already runs", self.spec.name);
        }
        let name = &self.spec.name;
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.supervisor.log_file(name))
            .with_context(|| format!("open the log of {name}"))?;
        let mut child = self
            .supervisor
            .command(&self.spec)
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .with_context(|| format!("start {name}: run {}", self.spec.program.display()))?;
        let stdout = child.stdout.take().context("take the process's stdout")?;
        let identity = child.id().and_then(|pid| ProcessIdentity::of_pid(pid).ok());
        let Some(identity) = identity else {
            let status = child.wait().await?;
            bail!("start {name}: {status}; its log ends:\n{}", self.supervisor.log_end(name));
        };
        self.supervisor.run.record_process(name, identity)?;
        let mut lines = BufReader::new(stdout).lines();
        let first = tokio::time::timeout(self.spec.ready_limit, lines.next_line()).await;
        let line = match first {
            Ok(Ok(Some(line))) => serde_json::from_str::<Value>(&line).map_err(|_| format!("said {line:?}")),
            Ok(Ok(None)) => Err("closed its output".to_owned()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("said nothing within {} s", self.spec.ready_limit.as_secs())),
        };
        let first_line = match line {
            Ok(line) => line,
            Err(why) => {
                let _ = child.kill().await;
                bail!("start {name}: it {why}; its log ends:\n{}", self.supervisor.log_end(name));
            }
        };
        let (told, exit) = watch::channel(None);
        let life = Life { identity, first_line, planned: Arc::default(), exit };
        *self.life.lock().unwrap_or_else(PoisonError::into_inner) = Some(life.clone());
        self.tell(identity, ProcessChange::Started).await;
        tokio::spawn(drain(lines));
        let watcher = Watcher { process: name.clone(), life, told, supervisor: Arc::clone(&self.supervisor) };
        tokio::spawn(watcher.watch(child));
        Ok(identity)
    }

    /// Whether it answers with success where its specification says; in words why not.
    ///
    /// # Errors
    /// If it does not run, does not answer in time, or answers anything else.
    pub async fn answers_that_it_is_ready(&self) -> Result<()> {
        if !self.runs() {
            bail!("{} does not run", self.spec.name);
        }
        let Some(path) = self.spec.ready_path else {
            return Ok(());
        };
        // A client of its own each time: what another incarnation left open would tell nothing of this one.
        let client = reqwest::Client::builder().no_proxy().timeout(READY_ANSWER_LIMIT).build()?;
        let answer = client.get(format!("http://{}{path}", self.address("address")?)).send().await?;
        if answer.status().is_success() { Ok(()) } else { bail!("{path} says {}", answer.status()) }
    }

    /// The present incarnation, while it runs and is the one that is meant.
    fn present(&self, identity: ProcessIdentity) -> Result<Life, ControlError> {
        let life = self.life().filter(|life| life.identity == identity && life.exit.borrow().is_none());
        life.ok_or_else(|| ControlError(format!("{identity} is no longer {}", self.spec.name)))
    }

    fn life(&self) -> Option<Life> {
        self.life.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn tell(&self, identity: ProcessIdentity, change: ProcessChange) {
        let process = self.spec.name.clone();
        // Without a reader nobody wants to know.
        let _ = self.supervisor.events.send(ProcessEvent { process, identity, change, at: Instant::now() }).await;
    }
}

impl Life {
    fn plan(&self) {
        self.expect_end(true);
    }

    fn expect_end(&self, intended: bool) {
        *self.planned.lock().unwrap_or_else(PoisonError::into_inner) = intended;
    }

    async fn ended(&self, limit: Duration) -> Result<ExitStatus> {
        let mut exit = self.exit.clone();
        let ended = tokio::time::timeout(limit, exit.wait_for(Option::is_some)).await;
        match ended {
            Ok(Ok(status)) => status.context("an exit without a status"),
            Ok(Err(_)) => bail!("its watcher is gone"),
            Err(_) => bail!("still runs after {} s", limit.as_secs()),
        }
    }
}

struct Watcher {
    process: String,
    life: Life,
    told: watch::Sender<Option<ExitStatus>>,
    supervisor: Arc<Supervisor>,
}

impl Watcher {
    async fn watch(self, mut child: Child) {
        let status = match child.wait().await {
            Ok(status) => status,
            Err(error) => {
                tracing::error!(process = %self.process, "wait for the process: {error}");
                return;
            }
        };
        forget_clock(self.life.identity.pid);
        let planned = *self.life.planned.lock().unwrap_or_else(PoisonError::into_inner);
        let event = ProcessEvent {
            process: self.process,
            identity: self.life.identity,
            change: ProcessChange::Exited { code: status.code(), signal: status.signal(), planned },
            at: Instant::now(),
        };
        // Told before the waiters wake, so that a restart's event cannot overtake it. Never
        // waited for: a full queue may not keep a kill from returning.
        if let Err(tokio::sync::mpsc::error::TrySendError::Full(event)) = self.supervisor.events.try_send(event) {
            tracing::error!(process = %event.process, "lost an exit: nobody reads the events");
        }
        self.told.send_replace(Some(status));
    }
}

/// Reads on, so that the process never waits for a full pipe.
async fn drain(mut lines: tokio::io::Lines<BufReader<ChildStdout>>) {
    while let Ok(Some(_)) = lines.next_line().await {}
}

impl ProcessControl for SystemProcess {
    fn name(&self) -> String {
        self.spec.name.clone()
    }

    fn identity(&self) -> Option<ProcessIdentity> {
        self.current_identity()
    }

    fn kill(&self, identity: ProcessIdentity) -> BoxFuture<'_, Result<(), ControlError>> {
        Box::pin(async move {
            self.present(identity)?.plan();
            identity.kill().map_err(|error| ControlError::from_cause(&error))
        })
    }

    fn ask_to_end(&self, identity: ProcessIdentity) -> BoxFuture<'_, Result<(), ControlError>> {
        Box::pin(async move {
            self.present(identity)?.plan();
            identity.ask_to_end().map_err(|error| ControlError::from_cause(&error))
        })
    }

    fn expect_end(&self, identity: ProcessIdentity, intended: bool) -> Result<(), ControlError> {
        self.present(identity)?.expect_end(intended);
        Ok(())
    }

    fn ending(&self, identity: ProcessIdentity) -> Option<ProcessEnding> {
        let life = self.life().filter(|life| life.identity == identity)?;
        let status = *life.exit.borrow();
        status.map(|status| ProcessEnding { code: status.code(), signal: status.signal() })
    }

    fn restart(&self) -> BoxFuture<'_, Result<ProcessIdentity, ControlError>> {
        Box::pin(async move {
            let again = async {
                self.kill_now().await?;
                self.start().await
            };
            again.await.map_err(|error| ControlError(format!("{error:#}")))
        })
    }

    fn is_alive(&self) -> BoxFuture<'_, bool> {
        Box::pin(async move { self.runs() })
    }

    fn is_ready(&self) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async move { self.answers_that_it_is_ready().await.map_err(|error| format!("{error:#}")) })
    }
}
