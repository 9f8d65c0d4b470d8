//! Starting and stopping a server.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use axum::serve::ListenerExt;
use tokio::{net::TcpListener, sync::Mutex, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use super::{
    api::{self, Shared},
    api_error::ApiError,
    inspector::InspectorFactory,
    metrics::Metrics,
    registry::Registry,
    request::{self, ProxyRequest},
};
use crate::network::{ProxySpec, ProxyView, ToxiError};

const STOP_MS_MAX: u64 = 2_000;
/// As the official server's.
const HANDLER_MS_MAX: u64 = 25_000;

/// How a server behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ToxidOptions {
    /// Decides every random draw, together with the link and the toxic it is for.
    pub seed: u64,
    /// Let a `reset_peer` toxic that is added to a live connection reset it. Off in the
    /// official server, where such a connection is closed in the ordinary way.
    pub reset_live_links: bool,
    /// Know the toxic `blackhole`: swallows data and the end, so that the receiver keeps a
    /// half-open connection. Off, for the official server does not know it.
    pub blackhole: bool,
    /// Show the bytes of ended links at `/metrics`.
    pub proxy_metrics: bool,
    /// Show the process at `/metrics`.
    pub runtime_metrics: bool,
    /// How long a request may take before 503 is answered, milliseconds.
    pub handler_ms_max: u64,
}

impl Default for ToxidOptions {
    /// Seed 0, nothing that the official server does not do, no metrics.
    fn default() -> Self {
        Self {
            seed: 0,
            reset_live_links: false,
            blackhole: false,
            proxy_metrics: false,
            runtime_metrics: false,
            handler_ms_max: HANDLER_MS_MAX,
        }
    }
}

/// Starts servers.
pub struct ToxidServer;

impl ToxidServer {
    /// Starts a server whose API listens on `api_addr`; port 0 takes a free one.
    ///
    /// # Errors
    /// As binding the address gives them.
    pub async fn start(seed: u64, api_addr: SocketAddr) -> io::Result<ToxidHandle> {
        let options = ToxidOptions { seed, ..ToxidOptions::default() };
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
        let metrics = Metrics::default();
        let registry: Shared = Arc::new(Mutex::new(Registry::new(options, stop.clone(), metrics.clone())));
        let router = api::router(Arc::clone(&registry), options, metrics);
        let stopped = stop.clone().cancelled_owned();
        let api = tokio::spawn(async move {
            // Answers are small and waited for.
            let listener = listener.tap_io(|socket| {
                let _ = socket.set_nodelay(true);
            });
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

    /// Creates a proxy, as a client would; each of its connections is inspected by what
    /// `inspectors` gives it.
    ///
    /// # Errors
    /// [`ToxiError::Refused`] with the status and the words of the API.
    pub async fn create_proxy(
        &self,
        spec: &ProxySpec,
        inspectors: Option<Arc<dyn InspectorFactory>>,
    ) -> Result<ProxyView, ToxiError> {
        let action = format!("create proxy {}", spec.name);
        let request = ProxyRequest {
            name: spec.name.clone(),
            listen: spec.listen.clone(),
            upstream: spec.upstream.clone(),
            enabled: None,
        };
        let shown = self.registry.lock().await.create_inspected(request, inspectors).await;
        let shown = shown.map_err(|error| refused(&action, &error))?;
        serde_json::from_value(shown).map_err(|error| ToxiError::NotTaken { action, shown: error.to_string() })
    }

    /// Inspects the connections that this proxy accepts from now on by what `inspectors` gives
    /// them, or, with none, no longer. Those that stand keep what they have, as do the toxics.
    ///
    /// # Errors
    /// [`ToxiError::Refused`] with status 404 if there is no such proxy.
    pub async fn set_inspectors(
        &self,
        proxy: &str,
        inspectors: Option<Arc<dyn InspectorFactory>>,
    ) -> Result<(), ToxiError> {
        let outcome = self.registry.lock().await.set_inspectors(proxy, inspectors);
        outcome.map_err(|error| refused(&format!("inspect proxy {proxy}"), &error))
    }

    /// Creates the proxies of this text, in the form that `/populate` takes; returns how many.
    ///
    /// # Errors
    /// [`ToxiError::Refused`] for the first that cannot be created; the earlier ones stay.
    pub async fn populate(&self, config: &str) -> Result<usize, ToxiError> {
        let action = "populate";
        let requests: Vec<ProxyRequest> = request::read(config.as_bytes()).map_err(|error| refused(action, &error))?;
        let outcome = self.registry.lock().await.populate(requests).await;
        outcome.map(|proxies| proxies.len()).map_err(|(error, _)| refused(action, &error))
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

fn refused(action: &str, error: &ApiError) -> ToxiError {
    ToxiError::Refused { action: action.to_owned(), status: error.status().as_u16(), message: error.to_string() }
}
