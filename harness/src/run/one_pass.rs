//! One pass of a biller as a process that a fault may end, stop and have started again.
//!
//! A biller ends by itself. Where it was ended instead, whoever keeps it sends the next one the same way.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Result};
use jiff::Timestamp;
use nogo_faults::{BoxFuture, ControlError, ProcessControl, ProcessEnding, ProcessIdentity};
use tokio::sync::watch;

use super::books;
use crate::environment::topology::Topology;
use crate::recorder::Recorder;

/// A biller and the pass that it is at, or was at last.
pub struct PassingBiller {
    topology: Arc<Topology>,
    recorder: Recorder,
    name: String,
    as_of: Timestamp,
    pass: Mutex<Option<Pass>>,
}

#[derive(Clone)]
struct Pass {
    identity: ProcessIdentity,
    /// The run ends it.
    is_struck: Arc<AtomicBool>,
    /// None while it is under way.
    ended: watch::Receiver<Option<ProcessEnding>>,
}

impl PassingBiller {
    /// One of the topology's billers, which brings the tenants to `as_of`; not under way yet.
    #[must_use]
    pub fn new(topology: Arc<Topology>, recorder: Recorder, name: &str, as_of: Timestamp) -> Arc<Self> {
        Arc::new(Self { topology, recorder, name: name.to_owned(), as_of, pass: Mutex::default() })
    }

    /// Sends it on its way.
    ///
    /// # Errors
    /// If it cannot be started, or ends before it can be looked at.
    pub fn start(&self) -> Result<ProcessIdentity> {
        let shot = self.topology.begin_bill(&self.name, &self.as_of.to_string())?;
        let identity = shot.identity().with_context(|| format!("{} ended at once", self.name))?;
        let (told, ended) = watch::channel(None);
        let is_struck = Arc::new(AtomicBool::new(false));
        let pass = Pass { identity, is_struck: Arc::clone(&is_struck), ended };
        *self.pass.lock().unwrap_or_else(PoisonError::into_inner) = Some(pass);
        let (recorder, name, as_of) = (self.recorder.clone(), self.name.clone(), self.as_of);
        tokio::spawn(async move {
            let ending = match shot.finish(books::PASS_LIMIT).await {
                Ok(finished) => {
                    let is_killed = is_struck.load(Ordering::Acquire) && finished.code.is_none();
                    // Under a fault the database may answer nobody.
                    let is_wanted = is_killed || finished.code == Some(books::NOT_READY);
                    books::record(&recorder, &name, as_of, &finished, is_wanted);
                    ProcessEnding { code: finished.code, signal: finished.signal }
                }
                Err(error) => {
                    recorder.note(&format!("{name} under a fault: {error:#}"));
                    ProcessEnding { code: None, signal: None }
                }
            };
            told.send_replace(Some(ending));
        });
        Ok(identity)
    }

    /// Sees to it that it is on its way, or has been; the exit code of its last pass once that has ended.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn look(&self) -> Result<Option<ProcessEnding>> {
        match self.pass() {
            Some(pass) => Ok(*pass.ended.borrow()),
            None => self.start().map(|_| None),
        }
    }

    /// Waits for the pass that is under way, if one is; how the last one ended.
    pub async fn ended(&self) -> Option<ProcessEnding> {
        let mut pass = self.pass()?;
        pass.ended.wait_for(Option::is_some).await.ok().and_then(|ending| *ending)
    }

    /// One more pass from beginning to end, after the one that is under way; its exit code.
    ///
    /// # Errors
    /// If it cannot be started.
    pub async fn whole_pass(&self) -> Result<Option<i32>> {
        self.ended().await;
        self.start()?;
        Ok(self.ended().await.and_then(|ending| ending.code))
    }

    fn pass(&self) -> Option<Pass> {
        self.pass.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The pass under way, where it is the one that is meant.
    fn present(&self, identity: ProcessIdentity) -> Result<Pass, ControlError> {
        let pass = self.pass().filter(|pass| pass.identity == identity && pass.ended.borrow().is_none());
        pass.ok_or_else(|| ControlError(format!("{identity} is no longer {}", self.name)))
    }
}

impl ProcessControl for PassingBiller {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn identity(&self) -> Option<ProcessIdentity> {
        self.pass().map(|pass| pass.identity)
    }

    fn kill(&self, identity: ProcessIdentity) -> BoxFuture<'_, Result<(), ControlError>> {
        Box::pin(async move {
            self.present(identity)?.is_struck.store(true, Ordering::Release);
            identity.kill().map_err(|error| ControlError(error.to_string()))
        })
    }

    /// Its exit code stands in the history: one that is asked to end and does not end well has failed.
    fn ask_to_end(&self, identity: ProcessIdentity) -> BoxFuture<'_, Result<(), ControlError>> {
        Box::pin(async move {
            self.present(identity)?;
            identity.ask_to_end().map_err(|error| ControlError(error.to_string()))
        })
    }

    fn ending(&self, identity: ProcessIdentity) -> Option<ProcessEnding> {
        let pass = self.pass().filter(|pass| pass.identity == identity)?;
        *pass.ended.borrow()
    }

    fn restart(&self) -> BoxFuture<'_, Result<ProcessIdentity, ControlError>> {
        Box::pin(async move {
            self.ended().await;
            self.start().map_err(|error| ControlError(format!("{error:#}")))
        })
    }

    fn is_alive(&self) -> BoxFuture<'_, bool> {
        Box::pin(async move { self.pass().is_some_and(|pass| pass.identity.alive()) })
    }
}
