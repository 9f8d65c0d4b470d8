//! A sink's HTTP face: any POST is taken in; 200 where it could be read, 400 where not.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::routing::post;
use tokio::net::TcpListener;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::book::{Language, SinkBook};

/// Most bytes of one body; the system sends a few kilobytes.
const BODY_BYTES_MAX: usize = 16 << 20;

/// A running sink on a free port of 127.0.0.1. Its book outlives it.
#[derive(Debug)]
pub struct Sink {
    address: SocketAddr,
    book: Arc<SinkBook>,
    stop: CancellationToken,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl Sink {
    /// Serves until [`Self::stop`]; keeps the bodies in a file at `path`.
    ///
    /// # Errors
    /// If no port can be bound, or the file cannot be made.
    pub async fn start(language: Language, path: &Path) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.context("bind a sink")?;
        let address = listener.local_addr().context("read a sink's address")?;
        let book = Arc::new(SinkBook::open(language, path)?);
        let stop = CancellationToken::new();
        let app = Router::new().route("/{*path}", post(take)).layer(DefaultBodyLimit::max(BODY_BYTES_MAX));
        let app = app.with_state(Arc::clone(&book));
        let stopped = stop.clone();
        let task = tokio::spawn(async move {
            tokio::select! {
                ended = axum::serve(listener, app).into_future() => {
                    if let Err(error) = ended {
                        tracing::error!(%error, "a sink ended");
                    }
                }
                () = stopped.cancelled() => {}
            }
        });
        Ok(Self { address, book, stop, task: Mutex::new(Some(task)) })
    }

    /// Where it listens; a proxy stands in front of it.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it was told.
    #[must_use]
    pub fn book(&self) -> &Arc<SinkBook> {
        &self.book
    }

    /// Ends it. May be called again.
    pub async fn stop(&self) {
        self.stop.cancel();
        if let Some(task) = self.task.lock().await.take()
            && let Err(error) = task.await
        {
            tracing::error!(%error, "a sink did not end cleanly");
        }
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn take(State(book): State<Arc<SinkBook>>, body: Bytes) -> StatusCode {
    match book.take(&body) {
        Ok(true) => StatusCode::OK,
        Ok(false) => StatusCode::BAD_REQUEST,
        Err(error) => {
            tracing::error!("{error:#}");
            StatusCode::INTERNAL_SERVER_ERROR
        }
    }
}
