//! One proxy: its listener, its toxics, and the live links that must hear of changes.

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tokio::{
    net::TcpListener,
    sync::{
        mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
        oneshot,
    },
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    chain::{Chain, LinkOrigin},
    connection,
    link::Change,
    toxic::ToxicConfig,
};
use crate::network::Stream;

const TAKE_MS_MAX: u64 = 5_000;
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

    /// Listens; without effect if it does.
    pub(super) async fn start(&mut self, server_stop: &CancellationToken) -> io::Result<()> {
        if self.running.is_some() {
            return Ok(());
        }
        let listener = TcpListener::bind(&self.listen).await?;
        self.listen = listener.local_addr()?.to_string();
        let stop = server_stop.child_token();
        let tasks = TaskTracker::new();
        tasks.spawn(accept(listener, self.upstream.clone(), self.board.clone(), stop.clone(), tasks.clone()));
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

async fn accept(listener: TcpListener, upstream: String, board: Board, stop: CancellationToken, tasks: TaskTracker) {
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((client, _)) => {
                tasks.spawn(connection::serve(client, upstream.clone(), board.clone(), stop.clone()));
            }
            Err(error) => {
                tracing::warn!(%error, "accept failed");
                tokio::time::sleep(Duration::from_millis(ACCEPT_RETRY_MS)).await;
            }
        }
    }
}

/// The toxics of a proxy and the live links they act on; clones share it.
#[derive(Clone)]
pub(super) struct Board {
    seed: u64,
    proxy: Arc<str>,
    reset_live_links: bool,
    state: Arc<Mutex<BoardState>>,
}

#[derive(Default)]
struct BoardState {
    toxics: Vec<ToxicConfig>,
    links: BTreeMap<(u64, Stream), UnboundedSender<Change>>,
    connections: u64,
    last_toxic: u64,
}

/// Both links of a new connection, with the toxics of this moment.
pub(super) struct Links {
    pub up: Link,
    pub down: Link,
    pub registration: Registration,
}

/// One direction, ready to carry.
pub(super) struct Link {
    pub chain: Chain,
    pub changes: UnboundedReceiver<Change>,
}

/// Strikes a connection's links off when dropped.
pub(super) struct Registration {
    board: Board,
    connection: u64,
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut state = self.board.lock();
        for stream in [Stream::Upstream, Stream::Downstream] {
            state.links.remove(&(self.connection, stream));
        }
    }
}

impl Board {
    pub(super) fn new(seed: u64, proxy: &str, reset_live_links: bool) -> Self {
        Self { seed, proxy: proxy.into(), reset_live_links, state: Arc::default() }
    }

    pub(super) fn toxics(&self) -> Vec<ToxicConfig> {
        self.lock().toxics.clone()
    }

    /// A number no toxic of this proxy had before.
    pub(super) fn next_toxic_id(&self) -> u64 {
        let mut state = self.lock();
        state.last_toxic += 1;
        state.last_toxic
    }

    /// Replaces the toxics; returns when every live link acts by them.
    pub(super) async fn set_toxics(&self, toxics: Vec<ToxicConfig>) {
        let waiting: Vec<oneshot::Receiver<()>> = {
            let mut state = self.lock();
            state.toxics = toxics;
            let up = state.of(Stream::Upstream);
            let down = state.of(Stream::Downstream);
            state
                .links
                .iter()
                .filter_map(|((_, stream), link)| {
                    let toxics = match stream {
                        Stream::Upstream => Arc::clone(&up),
                        Stream::Downstream => Arc::clone(&down),
                    };
                    let (taken, waiting) = oneshot::channel();
                    link.send(Change { toxics, taken }).ok().map(|()| waiting)
                })
                .collect()
        };
        let all = async {
            for taken in waiting {
                // An error means that the link ended, which is as good.
                let _ = taken.await;
            }
        };
        let limit = Duration::from_millis(TAKE_MS_MAX);
        if tokio::time::timeout(limit, all).await.is_err() {
            tracing::warn!(proxy = %self.proxy, "a live link did not take its toxics in time");
        }
    }

    /// Enters a new connection with both its links.
    pub(super) fn register(&self) -> Links {
        let mut state = self.lock();
        let connection = state.connections;
        state.connections += 1;
        let mut link = |stream| {
            let (sender, changes) = unbounded_channel();
            state.links.insert((connection, stream), sender);
            let origin = LinkOrigin {
                seed: self.seed,
                proxy: self.proxy.to_string(),
                connection,
                stream,
                reset_live_links: self.reset_live_links,
            };
            Link { chain: Chain::new(origin, &state.of(stream), Instant::now()), changes }
        };
        Links {
            up: link(Stream::Upstream),
            down: link(Stream::Downstream),
            registration: Registration { board: self.clone(), connection },
        }
    }

    fn lock(&self) -> MutexGuard<'_, BoardState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl BoardState {
    fn of(&self, stream: Stream) -> Arc<[ToxicConfig]> {
        self.toxics.iter().filter(|toxic| toxic.stream == stream).cloned().collect()
    }
}
