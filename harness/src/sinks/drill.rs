//! A target of the alert process that says what it is told to: with it an alert can be made to fire, and to be over, at any time,
//! while nothing is wrong with anybody.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, Result};
use axum::Router;
use axum::extract::State;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

/// The gauge of [`Drill::metrics`].
const GAUGE: &str = "nogo_drill";

/// A process of its own to whoever watches it; ends when it is dropped.
#[derive(Debug)]
pub struct Drill {
    address: SocketAddr,
    sounds: Arc<AtomicBool>,
    _serving: DropGuard,
}

impl Drill {
    /// Its name among the targets, and its rule's.
    pub const NAME: &'static str = "drill";

    /// Listens on a free port of 127.0.0.1, and is quiet.
    ///
    /// # Errors
    /// If no port can be bound.
    pub async fn start() -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.context("bind the drill")?;
        let address = listener.local_addr().context("read the drill's address")?;
        let (sounds, stop) = (Arc::new(AtomicBool::new(false)), CancellationToken::new());
        let routes = Router::new().route("/metrics", get(metrics)).route("/readyz", get(async || "ready"));
        let (app, stopped) = (routes.with_state(Arc::clone(&sounds)), stop.clone());
        tokio::spawn(async move {
            tokio::select! {
                _ = axum::serve(listener, app).into_future() => {}
                () = stopped.cancelled() => {}
            }
        });
        Ok(Self { address, sounds, _serving: stop.drop_guard() })
    }

    /// Where it is looked at.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Lets its alert fire at the next look, or be over.
    pub fn sound(&self, sounds: bool) {
        self.sounds.store(sounds, Ordering::Relaxed);
    }

    /// The rule by which it fires, as the alert process reads rules.
    #[must_use]
    pub fn rule() -> String {
        format!(
            "[[rule]]\nname = \"{}\"\nsummary = \"A drill.\"\nseverity = \"info\"\nfor_s = 0\nabove = 0.5\n\
             signal = {{ kind = \"largest\", of = {{ metric = \"{GAUGE}\" }} }}\n",
            Self::NAME
        )
    }
}

async fn metrics(State(sounds): State<Arc<AtomicBool>>) -> String {
    format!("# TYPE {GAUGE} gauge\n{GAUGE} {}\n", u8::from(sounds.load(Ordering::Relaxed)))
}
