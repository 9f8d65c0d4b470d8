//! SIGTERM and SIGINT: stop taking work, finish what is under way.

use tokio::signal::unix::{SignalKind, signal};

/// Resolves at the first of the two signals that come from now on, and not from when it is first waited for: a process
/// that is asked to go just after its start drains too. Never if they cannot be watched. Needs a runtime.
pub(crate) fn requested() -> impl Future<Output = ()> + Send + 'static {
    let watched = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()));
    async move {
        let (Ok(mut term), Ok(mut int)) = watched else {
            tracing::error!("watch signals");
            return std::future::pending().await;
        };
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
    }
}
