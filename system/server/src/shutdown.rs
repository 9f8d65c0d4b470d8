//! SIGTERM and SIGINT: stop taking work, finish what is under way.

use tokio::signal::unix::{SignalKind, signal};

/// Resolves at the first of the two signals; never if they cannot be watched.
pub(crate) async fn requested() {
    let (Ok(mut term), Ok(mut int)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) else {
        tracing::error!("watch signals");
        return std::future::pending().await;
    };
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
}
