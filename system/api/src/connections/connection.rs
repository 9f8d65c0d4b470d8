//! One connection, from its first byte to its close.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::ConnectInfo;
use axum::http::{HeaderValue, StatusCode, header};
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use super::activity::{Activity, Cut, Phase};
use super::body::{Room, bounded};
use super::client_stream::ClientStream;
use super::own_answer;
use super::registry::Place;
use crate::error::ApiError;

/// Bytes read at once of what is thrown away.
const THROWN_AWAY: usize = 8 << 10;

/// What all connections of an instance share.
#[derive(Clone)]
pub(super) struct Shared {
    pub(super) app: Router,
    pub(super) http: http1::Builder,
    pub(super) room: Room,
    pub(super) body: Duration,
    pub(super) linger: Duration,
    pub(super) closing: CancellationToken,
}

/// How the protocol ended.
enum Ended {
    /// By itself.
    Done,
    /// Its last words were to something that is no request.
    Refused,
    Cut(Cut),
}

/// Serves it to its end.
pub(super) async fn serve(shared: Shared, socket: TcpStream, peer: SocketAddr, place: Place) {
    let activity = Arc::clone(&place.activity);
    let (stream, home) = ClientStream::new(socket, Arc::clone(&activity));
    let ended = speak(&shared, stream, peer, &activity).await;
    let Some(socket) = home.lock().unwrap_or_else(PoisonError::into_inner).take() else { return };
    match ended {
        Ended::Done if activity.has_body_left() => linger(socket, &[], &activity, shared.linger).await,
        Ended::Refused if !activity.has_ended() => linger(socket, &[], &activity, shared.linger).await,
        Ended::Done | Ended::Refused => {}
        Ended::Cut(why) => {
            metrics::counter!("forecastle_connections_cut_total", "reason" => why.as_str()).increment(1);
            tracing::debug!(reason = why.as_str(), "connection cut");
            match why {
                Cut::HeadSlow if activity.has_begun() => {
                    let late = own_answer::bytes(&ApiError::request_timeout());
                    linger(socket, &late, &activity, shared.linger).await;
                }
                // What the kernel still holds for this client is not waited for either.
                Cut::AnswerUnread => drop(socket.set_zero_linger()),
                Cut::HeadSlow | Cut::Idle | Cut::Displaced => {}
            }
        }
    }
}

async fn speak(shared: &Shared, stream: ClientStream, peer: SocketAddr, activity: &Arc<Activity>) -> Ended {
    let service = service_fn(|request| answer(shared, request, peer, activity));
    let mut connection = pin!(shared.http.serve_connection(TokioIo::new(stream), service));
    let mut is_closing = false;
    loop {
        tokio::select! {
            ended = connection.as_mut() => {
                return match ended {
                    Err(error) if error.is_parse() => Ended::Refused,
                    _ => Ended::Done,
                };
            }
            why = activity.to_be_cut() => return Ended::Cut(why),
            () = shared.closing.cancelled(), if !is_closing => {
                is_closing = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    }
}

fn answer(
    shared: &Shared,
    request: hyper::Request<Incoming>,
    peer: SocketAddr,
    activity: &Arc<Activity>,
) -> impl Future<Output = Result<hyper::Response<Answer>, Infallible>> + Send + use<> {
    let activity = Arc::clone(activity);
    activity.asked(!request.body().is_end_stream());
    let (head, incoming) = request.into_parts();
    let (body, held) = bounded(incoming, &activity, &shared.room, shared.body);
    let mut request = hyper::Request::from_parts(head, body);
    request.extensions_mut().insert(ConnectInfo(peer));
    let answer = TowerToHyperService::new(shared.app.clone()).call(request);
    async move {
        let mut answer = answer.await?;
        drop(held);
        let gave_up = [StatusCode::REQUEST_TIMEOUT, StatusCode::PAYLOAD_TOO_LARGE, StatusCode::SERVICE_UNAVAILABLE];
        if activity.has_body_left() && gave_up.contains(&answer.status()) {
            answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        Ok(answer.map(|body| Answer { body, activity }))
    }
}

/// An answer's body, that tells when it is in the protocol's hands.
struct Answer {
    body: Body,
    activity: Arc<Activity>,
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.activity.answered();
    }
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Says the last words, and throws away what the client still sends, for a while: closing at once would
/// reset the connection, and take the answer from a client that sends before it reads.
async fn linger(mut socket: TcpStream, last: &[u8], activity: &Activity, limit: Duration) {
    activity.enter(Phase::Linger);
    // On the heap, and so only while it is needed.
    let thrown_away = Box::pin(async {
        socket.write_all(last).await?;
        socket.shutdown().await?;
        let mut bytes = vec![0; THROWN_AWAY];
        while socket.read(&mut bytes).await? > 0 {}
        Ok::<_, std::io::Error>(())
    });
    tokio::select! {
        _ = tokio::time::timeout(limit, thrown_away) => {}
        _ = activity.to_be_cut() => {}
    }
}
