//! The toxics of a proxy, its inspectors, and the live links that must hear of changes.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::{
    mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    oneshot,
};

use super::{
    chain::{Chain, LinkOrigin},
    inspector::{Accepted, Inspector, InspectorFactory},
    link::Change,
    metrics::{LinkLabels, Metrics, Traffic},
    server::ToxidOptions,
    toxic::ToxicConfig,
};
use crate::network::Stream;

const TAKE_MS_MAX: u64 = 5_000;

/// What is said about a proxy while connections run through it; clones share it.
#[derive(Clone)]
pub(super) struct Board {
    options: ToxidOptions,
    proxy: Arc<str>,
    metrics: Metrics,
    state: Arc<Mutex<BoardState>>,
}

#[derive(Default)]
struct BoardState {
    toxics: Vec<ToxicConfig>,
    links: BTreeMap<(u64, Stream), UnboundedSender<Change>>,
    inspectors: Option<Arc<dyn InspectorFactory>>,
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
    pub traffic: Traffic,
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
    pub(super) fn new(proxy: &str, options: ToxidOptions, metrics: Metrics) -> Self {
        Self { options, proxy: proxy.into(), metrics, state: Arc::default() }
    }

    /// In the order of their chains: those of the upstream first, each as they were added.
    pub(super) fn toxics(&self) -> Vec<ToxicConfig> {
        self.lock().toxics.clone()
    }

    /// A number no toxic of this proxy had before.
    pub(super) fn next_toxic_id(&self) -> u64 {
        let mut state = self.lock();
        state.last_toxic += 1;
        state.last_toxic
    }

    /// A number no connection of this proxy had before, from 0.
    pub(super) fn next_connection(&self) -> u64 {
        let mut state = self.lock();
        let connection = state.connections;
        state.connections += 1;
        connection
    }

    /// Inspects connections that are registered from now on, or no longer.
    pub(super) fn set_inspectors(&self, inspectors: Option<Arc<dyn InspectorFactory>>) {
        self.lock().inspectors = inspectors;
    }

    pub(super) fn inspector(&self, connection: u64, client: std::net::SocketAddr) -> Option<Box<dyn Inspector>> {
        let factory = self.lock().inspectors.clone()?;
        let accepted = Accepted { proxy: self.proxy.to_string(), connection, client, seed: self.options.seed };
        factory.inspector(&accepted)
    }

    /// Replaces the toxics; returns when every live link acts by them.
    pub(super) async fn set_toxics(&self, mut toxics: Vec<ToxicConfig>) {
        toxics.sort_by_key(|toxic| toxic.stream);
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
    pub(super) fn register(&self, connection: u64, listener: &Arc<str>, upstream: &Arc<str>) -> Links {
        let mut state = self.lock();
        let mut link = |stream| {
            let (sender, changes) = unbounded_channel();
            state.links.insert((connection, stream), sender);
            let origin = LinkOrigin {
                seed: self.options.seed,
                proxy: self.proxy.to_string(),
                connection,
                stream,
                reset_live_links: self.options.reset_live_links,
            };
            let traffic = self.metrics.count(LinkLabels {
                direction: stream,
                listener: Arc::clone(listener),
                proxy: Arc::clone(&self.proxy),
                upstream: Arc::clone(upstream),
            });
            Link { chain: Chain::new(origin, &state.of(stream), Instant::now()), changes, traffic }
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
