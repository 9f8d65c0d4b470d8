//! The listener: takes connections up to the cap, and ends when it is told to, after the last of them.

use std::io::{self, Read as _, Write as _};
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::ConnectionLimits;
use super::body::Room;
use super::connection::{Shared, serve};
use super::own_answer;
use super::registry::{Patience, Registry};
use crate::error::ApiError;

/// Bytes of one connection that are read ahead, and that an answer may leave waiting beyond its own parts.
const BUFFER_BYTES: usize = 64 << 10;
/// What of a head is not counted in its limit: method, version, and separators.
const HEAD_SLACK_BYTES: usize = 1 << 10;
/// Pause after the kernel gave no connection (mostly: no file descriptor).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves `app` until `closing`; then takes no new connection and returns when the last one has ended. If it
/// is dropped before, so are they.
pub(crate) async fn serve_connections(
    listener: TcpListener,
    app: Router,
    limits: ConnectionLimits,
    header_bytes_max: usize,
    closing: CancellationToken,
) {
    let patience = Patience { head: limits.head, idle: limits.idle, write: limits.write };
    let registry = Registry::new(limits.max, patience);
    let head_bytes_max = header_bytes_max.saturating_add(HEAD_SLACK_BYTES);
    let mut http = http1::Builder::new();
    // The clock of heads is the registry's, which knows silence from slowness.
    http.header_read_timeout(None)
        .max_headers(limits.headers_max)
        .max_header_size(head_bytes_max)
        .max_buf_size(BUFFER_BYTES.max(head_bytes_max));
    let (room, body, linger) = (Room::new(limits.bodies_bytes_max), limits.body, limits.linger);
    let shared = Shared { app, http, room, body, linger, closing: closing.clone() };
    let mut open = JoinSet::new();
    let mut sweep = tokio::time::interval(patience.sweep_every());
    sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = closing.cancelled() => break,
            (socket, peer) = accept(&listener) => match registry.admit() {
                Some(place) => drop(open.spawn(serve(shared.clone(), socket, peer, place))),
                None => refuse(socket),
            },
            Some(_) = open.join_next(), if !open.is_empty() => {}
            _ = sweep.tick() => registry.sweep(),
        }
    }
    drop(listener);
    while !open.is_empty() {
        tokio::select! {
            _ = open.join_next() => {}
            _ = sweep.tick() => registry.sweep(),
        }
    }
}

async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            // Gone before it was taken.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::ConnectionRefused
                        | io::ErrorKind::ConnectionAborted
                        | io::ErrorKind::ConnectionReset
                ) => {}
            Err(error) => {
                tracing::warn!(error = %error, "accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Tells a newcomer that there is no room, and closes; waits for nobody.
fn refuse(socket: TcpStream) {
    metrics::counter!("forecastle_connections_refused_total").increment(1);
    // It stays non-blocking, and a fresh socket has room for so little.
    let Ok(mut socket) = socket.into_std() else { return };
    let _ = socket.write(&own_answer::bytes(&ApiError::too_many_connections()));
    // What has come already would turn the close into a reset.
    let _ = socket.read(&mut [0; 4 << 10]);
}
