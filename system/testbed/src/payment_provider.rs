//! A payment provider with a book: honours keys, can decline, lose requests and answers, and keep them
//! waiting. It knows nothing of Forecastle but the protocol of charges.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio::sync::watch;

/// Longest wait for the provider to have been asked.
const ASKED_MAX: Duration = Duration::from_secs(20);

/// What the provider did, and how it is to behave.
pub struct ProviderBook {
    /// One entry for each key that was clearly answered: what was sent, and the charge, or none of a decline.
    answered: Mutex<BTreeMap<String, (Value, Option<Value>)>>,
    declined_tokens: Mutex<BTreeSet<String>>,
    /// Requests for a charge still to be lost before anything happens.
    pub requests_to_lose: AtomicU32,
    /// Answers to charges still to be lost, after the charge was made.
    pub answers_to_lose: AtomicU32,
    /// Look-ups still to be lost.
    pub look_ups_to_lose: AtomicU32,
    /// Whether every charge is declined.
    pub declining: AtomicBool,
    asked: watch::Sender<u32>,
    answers_held: watch::Sender<bool>,
}

impl Default for ProviderBook {
    fn default() -> Self {
        Self {
            answered: Mutex::default(),
            declined_tokens: Mutex::default(),
            requests_to_lose: AtomicU32::new(0),
            answers_to_lose: AtomicU32::new(0),
            look_ups_to_lose: AtomicU32::new(0),
            declining: AtomicBool::new(false),
            asked: watch::channel(0).0,
            answers_held: watch::channel(false).0,
        }
    }
}

impl ProviderBook {
    /// Σ of all charges, minor units.
    #[must_use]
    pub fn total_minor(&self) -> i64 {
        self.charges().iter().filter_map(|charge| charge["amount_minor"].as_i64()).sum()
    }

    /// How many charges were made.
    #[must_use]
    pub fn count(&self) -> usize {
        self.charges().len()
    }

    /// Every charge, by key.
    #[must_use]
    pub fn charges(&self) -> Vec<Value> {
        lock(&self.answered).values().filter_map(|(_, charge)| charge.clone()).collect()
    }

    /// How often a charge was asked for.
    #[must_use]
    pub fn posts(&self) -> u32 {
        *self.asked.borrow()
    }

    /// Declines every charge of this token from now on.
    pub fn decline(&self, token: &str) {
        lock(&self.declined_tokens).insert(token.to_owned());
    }

    /// Keeps answers to charges back, charges made, until [`ProviderBook::release_answers`].
    pub fn hold_answers(&self) {
        self.answers_held.send_replace(true);
    }

    /// Lets every answer go.
    pub fn release_answers(&self) {
        self.answers_held.send_replace(false);
    }

    /// Waits until a charge was asked for so often.
    ///
    /// # Panics
    /// If that does not happen within 20 s.
    pub async fn until_asked(&self, times: u32) {
        let mut asked = self.asked.subscribe();
        let wait = asked.wait_for(|count| *count >= times);
        let Ok(Ok(_)) = tokio::time::timeout(ASKED_MAX, wait).await else {
            panic!("the provider was asked {} times, not {times}", self.posts());
        };
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Starts it on a free port of the loopback address; its address and its book. Must be called inside a
/// tokio runtime, and ends with it.
///
/// # Panics
/// If no port is free.
pub async fn start() -> (String, Arc<ProviderBook>) {
    let book = Arc::new(ProviderBook::default());
    let app = Router::new().route("/v1/charges", post(charge).get(look_up)).with_state(Arc::clone(&book));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bind the provider");
    let url = format!("http://{}", listener.local_addr().expect("the provider's address"));
    tokio::spawn(async move { axum::serve(listener, app).await });
    (url, book)
}

fn take_one(counter: &AtomicU32) -> bool {
    counter.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok()
}

async fn charge(State(book): State<Arc<ProviderBook>>, headers: HeaderMap, Json(sent): Json<Value>) -> Response {
    let Some(key) = headers.get("idempotency-key").and_then(|key| key.to_str().ok()) else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    let is_lost = take_one(&book.requests_to_lose);
    let answer = if is_lost { StatusCode::BAD_GATEWAY.into_response() } else { answer(&book, key, sent) };
    book.asked.send_modify(|count| *count += 1);
    let mut held = book.answers_held.subscribe();
    let _ = held.wait_for(|held| !held).await;
    if !is_lost && take_one(&book.answers_to_lose) {
        return StatusCode::BAD_GATEWAY.into_response();
    }
    answer
}

/// What the key's first clear answer was, or the first one now. A decline is final for its key.
fn answer(book: &ProviderBook, key: &str, sent: Value) -> Response {
    let mut answered = lock(&book.answered);
    let (status, charge) = match answered.get(key) {
        Some((earlier, _)) if *earlier != sent => return StatusCode::UNPROCESSABLE_ENTITY.into_response(),
        Some((_, charge)) => (StatusCode::OK, charge.clone()),
        None => {
            let token = sent["payment_token"].as_str().unwrap_or_default();
            let declines = book.declining.load(Ordering::SeqCst) || lock(&book.declined_tokens).contains(token);
            let charge = (!declines).then(|| {
                json!({
                    "id": format!("ch_{}", answered.len()), "state": "succeeded", "amount_minor": sent["amount_minor"],
                    "currency": sent["currency"], "idempotency_key": key, "reference": sent["reference"],
                })
            });
            answered.insert(key.to_owned(), (sent, charge.clone()));
            (StatusCode::CREATED, charge)
        }
    };
    match charge {
        Some(charge) => (status, Json(charge)).into_response(),
        None => (StatusCode::PAYMENT_REQUIRED, Json(json!({ "code": "card_declined" }))).into_response(),
    }
}

async fn look_up(State(book): State<Arc<ProviderBook>>, Query(query): Query<BTreeMap<String, String>>) -> Response {
    if take_one(&book.look_ups_to_lose) {
        return StatusCode::BAD_GATEWAY.into_response();
    }
    let answered = lock(&book.answered);
    let found = query.get("idempotency_key").and_then(|key| answered.get(key)).and_then(|(_, charge)| charge.clone());
    Json(json!({ "items": found.into_iter().collect::<Vec<_>>() })).into_response()
}
