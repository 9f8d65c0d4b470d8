//! One proxy: its addresses and its listener.

use std::{sync::Arc, time::Duration};

use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    board::Board,
    connection::{self, Route},
    listen::{self, ListenError},
    toxic::ToxicConfig,
};

/// Wait after a failed accept, which otherwise would spin while file handles are short.
const ACCEPT_RETRY_MS: u64 = 10;

/// A proxy; listens while it is enabled.
pub(super) struct Proxy {
    pub name: String,
    /// As asked until the first start, then with the real port.
    pub listen: String,
    pub upstream: String,
    pub board: Board,
    running: Option<Running>,
}

struct Running {
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Proxy {
    pub(super) fn new(name: String, listen: String, upstream: String, board: Board) -> Self {
        Self { name, listen, upstream, board, running: None }
    }

    pub(super) fn is_enabled(&self) -> bool {
        self.running.is_some()
    }

    /// Whether these addresses are others than this proxy's, once a host name is resolved.
    pub(super) async fn differs(&self, listen: &str, upstream: &str) -> Result<bool, ListenError> {
        if upstream != self.upstream {
            return Ok(true);
        }
        Ok(listen != self.listen && listen::resolve(listen).await?[0].to_string() != self.listen)
    }

    /// Listens; without effect if it does.
    pub(super) async fn start(&mut self, server_stop: &CancellationToken) -> Result<(), ListenError> {
        if self.running.is_some() {
            return Ok(());
        }
        let (listener, address) = listen::bind(&self.listen).await?;
        self.listen = address.to_string();
        let stop = server_stop.child_token();
        let tasks = TaskTracker::new();
        let route = Route {
            listener: self.listen.as_str().into(),
            upstream: self.upstream.as_str().into(),
            board: self.board.clone(),
        };
        tasks.spawn(accept(listener, route, stop.clone(), tasks.clone()));
        self.running = Some(Running { stop, tasks });
        Ok(())
    }

    /// Closes the listener and every connection; returns when they are closed.
    pub(super) async fn stop(&mut self) {
        if let Some(running) = self.running.take() {
            running.stop.cancel();
            running.tasks.close();
            running.tasks.wait().await;
        }
    }

    pub(super) fn to_json(&self) -> Value {
        let toxics: Vec<Value> = self.board.toxics().iter().map(ToxicConfig::to_json).collect();
        json!({
            "name": self.name,
            "listen": self.listen,
            "upstream": self.upstream,
            "enabled": self.is_enabled(),
            "toxics": toxics,
        })
    }
}

async fn accept(listener: TcpListener, route: Route, stop: CancellationToken, tasks: TaskTracker) {
    let route = Arc::new(route);
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((client, address)) => {
                // Numbered here, so that the number does not depend on how fast the upstream answers.
                let number = route.board.next_connection();
                tasks.spawn(connection::serve(client, address, number, Arc::clone(&route), stop.clone()));
            }
            Err(error) => {
                tracing::warn!(%error, "accept failed");
                tokio::time::sleep(Duration::from_millis(ACCEPT_RETRY_MS)).await;
            }
        }
    }
}
