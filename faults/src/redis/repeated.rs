//! A blow to Redis that is over at once, struck again and again until it is healed.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};
use std::time::Duration;

use ::redis::Cmd;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::admin::Admin;

/// A command sent at regular times on one connection of ours.
pub(super) struct Repeated {
    stop: CancellationToken,
    task: JoinHandle<()>,
    answered: Arc<AtomicU64>,
}

impl Repeated {
    /// Sends `command` at once and then every `every`; a connection that ends is opened anew.
    pub(super) fn start(admin: Admin, command: Cmd, every: Duration) -> Self {
        let stop = CancellationToken::new();
        let answered = Arc::<AtomicU64>::default();
        let task = tokio::spawn(keep_striking(admin, command, every, stop.clone(), Arc::clone(&answered)));
        Self { stop, task, answered }
    }

    /// Blows that the server confirmed.
    pub(super) fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    /// Ends it; no blow falls after this returns.
    pub(super) async fn end(mut self) {
        self.stop.cancel();
        let _ = (&mut self.task).await;
    }
}

impl Drop for Repeated {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn keep_striking(admin: Admin, command: Cmd, every: Duration, stop: CancellationToken, answered: Arc<AtomicU64>) {
    let mut connection = admin.connection().await.ok();
    let mut tick = tokio::time::interval(every);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = tick.tick() => {}
        }
        let Some(open) = &mut connection else {
            connection = admin.connection().await.ok();
            continue;
        };
        match command.query_async::<::redis::Value>(open).await {
            Ok(_) => {
                answered.fetch_add(1, Ordering::Relaxed);
            }
            Err(_) => connection = None,
        }
    }
}
