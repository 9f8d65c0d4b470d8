//! What whoever owns a server can do to it.

use std::net::SocketAddr;

use serde_json::Value;

use crate::fault::{BoxFuture, ControlError};

/// Who starts and ends one service of the run.
///
/// What an owner cannot do it refuses by an error; the fault that needed it then does not land.
pub trait ServiceControl: Send + Sync {
    /// Name of the service within the run, such as `redis`.
    fn name(&self) -> String;

    /// Where its clients connect now, past any proxy; may change with a restart.
    fn address(&self) -> SocketAddr;

    /// What its clients authenticate with; none where it asks for nothing. Never part of a proof.
    fn password(&self) -> Option<String> {
        None
    }

    /// Ends it at once and without a farewell, as SIGKILL does.
    fn kill(&self) -> BoxFuture<'_, Result<(), ControlError>>;

    /// Starts it with no data from before. Returns without effect if it runs.
    fn start_empty(&self) -> BoxFuture<'_, Result<(), ControlError>>;

    /// Starts it on the data it had, and returns once it answers. Returns without effect if it runs.
    fn start_again(&self) -> BoxFuture<'_, Result<(), ControlError>> {
        let name = self.name();
        Box::pin(async move { Err(ControlError(format!("{name} cannot be started on the data it had"))) })
    }

    /// Stops every process of it where it stands, ending none. Once more changes nothing.
    fn freeze(&self) -> BoxFuture<'_, Result<(), ControlError>> {
        let name = self.name();
        Box::pin(async move { Err(ControlError(format!("{name} cannot be frozen"))) })
    }

    /// Lets every process of it go on. Without effect on what was not frozen.
    fn thaw(&self) -> BoxFuture<'_, Result<(), ControlError>> {
        let name = self.name();
        Box::pin(async move { Err(ControlError(format!("{name} cannot be thawed"))) })
    }

    /// Whether all of it stands still, as the operating system or engine sees it.
    fn is_frozen(&self) -> BoxFuture<'_, Result<bool, ControlError>> {
        Box::pin(async { Ok(false) })
    }

    /// Whether its process or container runs, as the operating system or engine sees it.
    fn is_alive(&self) -> BoxFuture<'_, bool>;

    /// What the engine can read about it right now (pid, container state), for the record.
    fn probe(&self) -> BoxFuture<'_, Result<Value, ControlError>>;
}
