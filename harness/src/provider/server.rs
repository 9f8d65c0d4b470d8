//! The provider's HTTP face: `POST /v1/charges`, `GET /v1/charges?idempotency_key=`.
//!
//! A lost answer is a connection that breaks before its first byte, which is what a caller sees when the network dies
//! after the charge. Each accepted stream therefore carries a switch that its handler can throw.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use axum::extract::connect_info::Connected;
use axum::extract::{ConnectInfo, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::serve::{IncomingStream, Listener};
use serde_json::json;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::book::{Behaviour, BookSnapshot, Charge, ChargeAnswer, ChargeRequest, ProviderBook};
use crate::randomness::Randomness;
use crate::recorder::RunClock;

/// A running provider on a free port of 127.0.0.1. Its book outlives every connection; it ends with `stop`.
#[derive(Debug)]
pub struct Provider {
    address: SocketAddr,
    book: Arc<ProviderBook>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

#[derive(Debug, Clone)]
struct Desk {
    book: Arc<ProviderBook>,
    clock: RunClock,
}

impl Provider {
    /// Binds 127.0.0.1 on a free port and serves until [`Provider::stop`].
    ///
    /// # Errors
    /// Where no port can be bound.
    pub async fn start(randomness: Randomness, behaviour: Behaviour, clock: RunClock) -> anyhow::Result<Self> {
        Self::start_with(ProviderBook::new(randomness, behaviour), clock).await
    }

    /// The same with a book that may hold charges already.
    ///
    /// # Errors
    /// Where no port can be bound.
    pub async fn start_with(book: ProviderBook, clock: RunClock) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.context("bind the payment provider")?;
        let address = listener.local_addr().context("read the payment provider's address")?;
        let book = Arc::new(book);
        let stop = CancellationToken::new();
        let desk = Desk { book: Arc::clone(&book), clock };
        let app = Router::new().route("/v1/charges", post(charge).get(find)).with_state(desk);
        let service = app.into_make_service_with_connect_info::<CutSwitch>();
        let server = axum::serve(CuttableListener(listener), service);
        let stopped = stop.clone();
        let task = tokio::spawn(async move {
            tokio::select! {
                ended = server.into_future() => {
                    if let Err(error) = ended {
                        tracing::error!(%error, "payment provider ended");
                    }
                }
                () = stopped.cancelled() => {}
            }
        });
        Ok(Self { address, book, stop, task })
    }

    /// Where it listens; a proxy stands in front of it.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it booked and saw so far.
    pub fn book(&self) -> BookSnapshot {
        self.book.snapshot()
    }

    /// The book itself, which outlives the server.
    pub fn ledger(&self) -> Arc<ProviderBook> {
        Arc::clone(&self.book)
    }

    /// Ends the server and hands the book back.
    pub async fn stop(self) -> BookSnapshot {
        self.stop.cancel();
        if let Err(error) = self.task.await {
            tracing::error!(%error, "payment provider did not end cleanly");
        }
        self.book.snapshot()
    }
}

async fn charge(
    ConnectInfo(cut): ConnectInfo<CutSwitch>,
    State(desk): State<Desk>,
    headers: HeaderMap,
    body: axum::body::Bytes,
) -> Response {
    let time_ns = desk.clock.now_ns();
    let key = headers.get("idempotency-key").and_then(|value| value.to_str().ok()).unwrap_or_default();
    let request: ChargeRequest = match serde_json::from_slice(&body) {
        Ok(request) if !key.is_empty() => request,
        _ => {
            desk.book.bad_request("POST", key, time_ns);
            return problem(StatusCode::BAD_REQUEST, "bad_request");
        }
    };
    match desk.book.charge(key, &request, time_ns) {
        ChargeAnswer::Created { charge, delay_ms } => {
            if delay_ms > 0 {
                tokio::time::sleep(Duration::from_millis(delay_ms)).await;
            }
            (StatusCode::CREATED, axum::Json(wire(&charge))).into_response()
        }
        ChargeAnswer::Replayed(charge) => (StatusCode::OK, axum::Json(wire(&charge))).into_response(),
        ChargeAnswer::KeyReused => problem(StatusCode::UNPROCESSABLE_ENTITY, "idempotency_key_reused"),
        ChargeAnswer::Declined => problem(StatusCode::PAYMENT_REQUIRED, "card_declined"),
        ChargeAnswer::ErrorAfterEffect => problem(StatusCode::INTERNAL_SERVER_ERROR, "internal"),
        ChargeAnswer::AnswerLost => {
            cut.throw();
            // Never sent: the stream refuses the first byte.
            StatusCode::BAD_GATEWAY.into_response()
        }
    }
}

#[derive(serde::Deserialize)]
struct FindQuery {
    idempotency_key: String,
}

async fn find(State(desk): State<Desk>, Query(query): Query<FindQuery>) -> Response {
    let items: Vec<_> = desk.book.look_up(&query.idempotency_key, desk.clock.now_ns()).iter().map(wire).collect();
    axum::Json(json!({ "items": items })).into_response()
}

fn wire(charge: &Charge) -> serde_json::Value {
    json!({
        "id": charge.id,
        "state": charge.state,
        "amount_minor": charge.amount_minor,
        "currency": charge.currency,
        "idempotency_key": charge.idempotency_key,
        "reference": charge.reference,
    })
}

fn problem(status: StatusCode, code: &str) -> Response {
    (status, axum::Json(json!({ "code": code }))).into_response()
}

/// Shared by one connection and its handlers; once thrown, nothing more is written.
#[derive(Debug, Clone, Default)]
struct CutSwitch(Arc<AtomicBool>);

impl CutSwitch {
    fn throw(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    fn is_thrown(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

impl Connected<IncomingStream<'_, CuttableListener>> for CutSwitch {
    fn connect_info(stream: IncomingStream<'_, CuttableListener>) -> Self {
        stream.io().cut.clone()
    }
}

struct CuttableListener(TcpListener);

impl Listener for CuttableListener {
    type Io = CuttableStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (CuttableStream, SocketAddr) {
        let (stream, address) = Listener::accept(&mut self.0).await;
        (CuttableStream { stream, cut: CutSwitch::default() }, address)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

struct CuttableStream {
    stream: TcpStream,
    cut: CutSwitch,
}

impl CuttableStream {
    fn refuse_when_cut(&self) -> io::Result<()> {
        if self.cut.is_thrown() { Err(io::ErrorKind::ConnectionAborted.into()) } else { Ok(()) }
    }
}

impl AsyncRead for CuttableStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for CuttableStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.refuse_when_cut()?;
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn post_charge(provider: &Provider, key: &str, amount_minor: i64) -> reqwest::Result<reqwest::Response> {
        reqwest::Client::new()
            .post(format!("http://{}/v1/charges", provider.address()))
            .header("idempotency-key", key)
            .json(&json!({"amount_minor": amount_minor, "currency": "EUR", "payment_token": "tok_1", "reference": "i"}))
            .send()
            .await
    }

    fn always_lost() -> Behaviour {
        Behaviour { answer_lost_share: 1.0, error_after_effect_share: 0.0, slow_share: 0.0, slow_ms: 0 }
    }

    #[tokio::test]
    async fn a_lost_answer_breaks_the_connection_and_the_charge_stands_once() {
        let provider = Provider::start(Randomness::new(1), always_lost(), RunClock::start()).await.expect("start");
        let lost = post_charge(&provider, "k", 5).await;
        assert!(lost.is_err(), "{lost:?}");
        let again = post_charge(&provider, "k", 5).await.expect("replay");
        assert_eq!(again.status().as_u16(), 200);
        let found = reqwest::get(format!("http://{}/v1/charges?idempotency_key=k", provider.address())).await;
        let found: serde_json::Value = found.expect("find").json().await.expect("json");
        assert_eq!(found["items"][0]["amount_minor"], 5);
        let book = provider.stop().await;
        assert_eq!(book.charges.len(), 1);
        assert_eq!(book.counts.answers_lost, 1);
    }

    #[tokio::test]
    async fn a_key_with_another_body_is_answered_422() {
        let honest = Behaviour { answer_lost_share: 0.0, ..always_lost() };
        let provider = Provider::start(Randomness::new(1), honest, RunClock::start()).await.expect("start");
        assert_eq!(post_charge(&provider, "k", 5).await.expect("first").status().as_u16(), 201);
        assert_eq!(post_charge(&provider, "k", 6).await.expect("second").status().as_u16(), 422);
        assert_eq!(provider.stop().await.charges.len(), 1);
    }
}
