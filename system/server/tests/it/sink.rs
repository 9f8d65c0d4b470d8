//! An HTTP server that keeps what it is sent, and can refuse or fall silent.

use std::sync::{Arc, Mutex};

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};

/// How it answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SinkMode {
    Take,
    /// Keeps nothing and says 500.
    Refuse,
    /// Takes requests and never answers.
    Silent,
}

struct Shared {
    mode: Mutex<SinkMode>,
    received: Mutex<Vec<String>>,
}

/// Cheap to clone; ends with the test's runtime.
#[derive(Clone)]
pub(crate) struct Sink {
    shared: Arc<Shared>,
    pub(crate) address: String,
}

impl Sink {
    pub(crate) async fn start() -> Self {
        let shared = Arc::new(Shared { mode: Mutex::new(SinkMode::Take), received: Mutex::default() });
        let app = axum::Router::new().fallback(take).with_state(Arc::clone(&shared));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let address = listener.local_addr().expect("address").to_string();
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { shared, address }
    }

    pub(crate) fn set(&self, mode: SinkMode) {
        *self.shared.mode.lock().unwrap() = mode;
    }

    /// Each request as one text: address, headers, body.
    pub(crate) fn received(&self) -> Vec<String> {
        self.shared.received.lock().unwrap().clone()
    }
}

async fn take(State(shared): State<Arc<Shared>>, uri: Uri, headers: HeaderMap, body: Bytes) -> StatusCode {
    let mode = *shared.mode.lock().unwrap();
    match mode {
        SinkMode::Take => {
            let text = format!("{uri}\n{headers:?}\n{}", String::from_utf8_lossy(&body));
            shared.received.lock().unwrap().push(text);
            StatusCode::OK
        }
        SinkMode::Refuse => StatusCode::INTERNAL_SERVER_ERROR,
        SinkMode::Silent => std::future::pending().await,
    }
}
