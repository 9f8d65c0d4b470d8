//! Starting and stopping a server.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{net::TcpListener, sync::Mutex, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use super::{
    api::{self, Shared},
    registry::Registry,
};

const STOP_MS_MAX: u64 = 2_000;

/// How a server behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ToxidOptions {
    /// Decides every random draw, together with the link and the toxic it is for.
    pub seed: u64,
    /// Let a `reset_peer` toxic that is added to a live connection reset it. Off in the
    /// official server, where such a connection is closed in the ordinary way.
    pub reset_live_links: bool,
}

/// Starts servers.
pub struct ToxidServer;

impl ToxidServer {
    /// Starts a server whose API listens on `api_addr`; port 0 takes a free one.
    ///
    /// # Errors
    /// As binding the address gives them.
    pub async fn start(seed: u64, api_addr: SocketAddr) -> io::Result<ToxidHandle> {
        let options = ToxidOptions { seed, reset_live_links: false };
        Self::start_with(options, api_addr).await
    }

    /// Starts a server with all options.
    ///
    /// # Errors
    /// As binding the address gives them.
    pub async fn start_with(options: ToxidOptions, api_addr: SocketAddr) -> io::Result<ToxidHandle> {
        let listener = TcpListener::bind(api_addr).await?;
        let api_addr = listener.local_addr()?;
        let stop = CancellationToken::new();
        let registry: Shared = Arc::new(Mutex::new(Registry::new(options, stop.clone())));
        let router = api::router(Arc::clone(&registry));
        let stopped = stop.clone().cancelled_owned();
        let api = tokio::spawn(async move {
            let served = axum::serve(listener, router).with_graceful_shutdown(stopped).await;
            if let Err(error) = served {
                tracing::error!(%error, "proxy API ended");
            }
        });
        Ok(ToxidHandle { api_addr, stop, api, registry })
    }
}

/// A running server. Dropping it ends all its tasks soon; [`Self::stop`] also waits for them.
pub struct ToxidHandle {
    api_addr: SocketAddr,
    stop: CancellationToken,
    api: JoinHandle<()>,
    registry: Shared,
}

impl ToxidHandle {
    /// Address of the HTTP API, with the real port.
    pub fn api_addr(&self) -> SocketAddr {
        self.api_addr
    }

    /// Closes the API, every listener and every connection; returns when they are closed.
    pub async fn stop(mut self) {
        self.stop.cancel();
        let limit = Duration::from_millis(STOP_MS_MAX);
        if tokio::time::timeout(limit, &mut self.api).await.is_err() {
            // A client that neither reads nor closes must not keep us.
            self.api.abort();
        }
        self.registry.lock().await.stop_all().await;
    }
}

impl Drop for ToxidHandle {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}
