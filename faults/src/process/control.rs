//! What whoever keeps a process can do to it, and what it can tell of it.

use serde::Serialize;

use super::ProcessIdentity;
use crate::fault::{BoxFuture, ControlError};

/// Who starts and ends one process of the run.
///
/// What a keeper cannot do it refuses by an error; the fault that needed it then does not land.
pub trait ProcessControl: Send + Sync {
    /// Name of the process within the run, such as `worker-1`.
    fn name(&self) -> String;

    /// The present incarnation, or the last one if it has ended; none before the first start.
    fn identity(&self) -> Option<ProcessIdentity>;

    /// Sends SIGKILL to this incarnation and to no other, and takes note that its end is
    /// intended. Need not wait for the end. [`ProcessIdentity::kill`] does the sending.
    fn kill(&self, identity: ProcessIdentity) -> BoxFuture<'_, Result<(), ControlError>>;

    /// Asks this incarnation, and no other, to end by itself (SIGTERM), and takes note that its end is intended. Need not
    /// wait for it.
    fn ask_to_end(&self, _: ProcessIdentity) -> BoxFuture<'_, Result<(), ControlError>> {
        let name = self.name();
        Box::pin(async move { Err(ControlError(format!("{name} cannot be asked to end"))) })
    }

    /// Takes note that an end of this incarnation is intended, whatever brings it about; or that it is not, or no longer.
    ///
    /// # Errors
    /// If it is not the present one.
    fn expect_end(&self, _: ProcessIdentity, _intended: bool) -> Result<(), ControlError> {
        Err(ControlError(format!("nobody waits for an end of {}", self.name())))
    }

    /// How this incarnation ended; none while it runs, or once another came after it.
    fn ending(&self, _: ProcessIdentity) -> Option<ProcessEnding> {
        None
    }

    /// Starts the process anew, reaping the old one; returns when the new one runs.
    fn restart(&self) -> BoxFuture<'_, Result<ProcessIdentity, ControlError>>;

    /// Whether the present incarnation runs, as the operating system or engine sees it.
    fn is_alive(&self) -> BoxFuture<'_, bool>;

    /// Whether it does its work; in words why it does not. Where there is no way to ask, running is enough.
    fn is_ready(&self) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async { if self.is_alive().await { Ok(()) } else { Err("it does not run".to_owned()) } })
    }
}

/// How a process ended: one of the two is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct ProcessEnding {
    /// Its exit code.
    pub code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
}

/// Tells whether a process is in the middle of a job.
pub trait MidJobProbe: Send + Sync {
    /// The evidence (a job's id, its lease, its attempt), or none if it is idle right now.
    fn mid_job(&self) -> BoxFuture<'_, Option<String>>;
}

impl<F> MidJobProbe for F
where
    F: Fn() -> BoxFuture<'static, Option<String>> + Send + Sync,
{
    fn mid_job(&self) -> BoxFuture<'_, Option<String>> {
        self()
    }
}

/// Gives a process work for which it needs memory that it does not have yet.
pub trait Burden: Send + Sync {
    /// Once more. Whether the process or one of its kind takes it up is not known.
    fn lay_on(&self) -> BoxFuture<'_, ()>;
}

impl<F> Burden for F
where
    F: Fn() -> BoxFuture<'static, ()> + Send + Sync,
{
    fn lay_on(&self) -> BoxFuture<'_, ()> {
        self()
    }
}

/// For a process that may be struck at any moment.
#[derive(Debug, Clone, Copy)]
pub struct AnyMoment;

impl MidJobProbe for AnyMoment {
    fn mid_job(&self) -> BoxFuture<'_, Option<String>> {
        Box::pin(async { Some("whatever it does".to_owned()) })
    }
}
