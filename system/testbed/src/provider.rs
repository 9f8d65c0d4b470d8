//! A payment provider with a book of its own: honours keys, is final about declines, and can be unkind in
//! the ways that real ones are. It knows nothing of Forecastle but the protocol of charges.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
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

/// The provider's book, and the switches of its moods. Counters say how often, and count down.
#[derive(Default)]
pub struct Book {
    /// One entry for each key that was charged: what was sent, and the charge.
    charges: Mutex<BTreeMap<String, (Value, Value)>>,
    /// Keys that were declined: they stay so.
    declined: Mutex<BTreeSet<String>>,
    declined_tokens: Mutex<BTreeSet<String>>,
    /// Requests for a charge that arrived, each counted once its effect, if it has one, is there.
    asked: watch::Sender<u32>,
    answers_held: watch::Sender<bool>,
    /// Charges made and answered with 502.
    pub answers_to_lose: AtomicU32,
    /// Charges made and never answered: the caller waits until its own limit.
    pub answers_to_withhold: AtomicU32,
    /// Charges made only `late_ms` after the request, by which time the caller may be gone.
    pub effects_to_delay: AtomicU32,
    /// How late those are.
    pub late_ms: AtomicU64,
    /// Requests for a charge refused with 503, nothing charged.
    pub requests_to_refuse: AtomicU32,
    /// Look-ups answered with 502.
    pub look_ups_to_lose: AtomicU32,
    /// New keys still to be declined.
    pub declines_left: AtomicU32,
    /// Whether every new key is declined; one with a token that begins `tok_declined` always is. One that begins
    /// `tok_malformed` is refused with 422, and its key stays new.
    pub declining: AtomicBool,
    /// How long every answer takes, ms.
    pub answer_ms: AtomicU64,
}

impl Book {
    /// All that was taken.
    ///
    /// # Panics
    /// Never: amounts were read as numbers before they were booked.
    #[must_use]
    pub fn total_minor(&self) -> i64 {
        self.locked().values().filter_map(|(sent, _)| sent["amount_minor"].as_i64()).sum()
    }

    /// How many charges there are.
    #[must_use]
    pub fn count(&self) -> i64 {
        i64::try_from(self.locked().len()).unwrap_or(i64::MAX)
    }

    /// What was sent with each charge, by key.
    #[must_use]
    pub fn charged(&self) -> BTreeMap<String, Value> {
        self.locked().iter().map(|(key, (sent, _))| (key.clone(), sent.clone())).collect()
    }

    /// Every charge as it was answered, in the order of keys.
    #[must_use]
    pub fn charges(&self) -> Vec<Value> {
        self.locked().values().map(|(_, charge)| charge.clone()).collect()
    }

    /// How often a charge was asked for.
    #[must_use]
    pub fn posts(&self) -> u32 {
        *self.asked.borrow()
    }

    /// Declines every new key with this token from now on.
    pub fn decline(&self, token: &str) {
        lock(&self.declined_tokens).insert(token.to_owned());
    }

    /// Keeps answers to charges back, charges made, until [`Book::release_answers`].
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

    /// Keys that were declined.
    #[must_use]
    pub fn declined(&self) -> BTreeSet<String> {
        lock(&self.declined).clone()
    }

    fn locked(&self) -> MutexGuard<'_, BTreeMap<String, (Value, Value)>> {
        lock(&self.charges)
    }

    fn count_request(&self) {
        self.asked.send_modify(|count| *count += 1);
    }

    /// Charges the key once; the status and body of the answer.
    fn charge(&self, key: &str, sent: &Value) -> (StatusCode, Value) {
        let mut declined = lock(&self.declined);
        let mut charges = self.locked();
        match charges.get(key) {
            Some((earlier, charge)) if earlier == sent => return (StatusCode::OK, charge.clone()),
            Some(_) => return (StatusCode::UNPROCESSABLE_ENTITY, json!({ "code": "key_reused" })),
            None => {}
        }
        let token = sent["payment_token"].as_str().unwrap_or_default();
        if token.starts_with("tok_malformed") {
            return (StatusCode::UNPROCESSABLE_ENTITY, json!({ "code": "token_unknown" }));
        }
        let never_pays = token.starts_with("tok_declined") || lock(&self.declined_tokens).contains(token);
        let says_no = declined.contains(key) || never_pays || self.declining.load(Ordering::SeqCst);
        if says_no || take_one(&self.declines_left) {
            declined.insert(key.to_owned());
            return (StatusCode::PAYMENT_REQUIRED, json!({ "code": "card_declined" }));
        }
        let charge = json!({
            "id": format!("ch_{}", charges.len()), "state": "succeeded", "amount_minor": sent["amount_minor"],
            "currency": sent["currency"], "idempotency_key": key, "reference": sent["reference"],
        });
        charges.insert(key.to_owned(), (sent.clone(), charge.clone()));
        (StatusCode::CREATED, charge)
    }
}

/// Starts one on a free port; its address and its book. It lives as long as the runtime.
///
/// # Panics
/// If no port is free.
pub async fn start() -> (String, Arc<Book>) {
    let book = Arc::new(Book::default());
    let app = Router::new().route("/v1/charges", post(charge).get(look_up)).with_state(Arc::clone(&book));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bind the provider");
    let url = format!("http://{}", listener.local_addr().expect("the provider's address"));
    tokio::spawn(async move { axum::serve(listener, app).await });
    (url, book)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn take_one(counter: &AtomicU32) -> bool {
    counter.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok()
}

async fn charge(State(book): State<Arc<Book>>, headers: HeaderMap, Json(sent): Json<Value>) -> Response {
    let Some(key) = headers.get("idempotency-key").and_then(|key| key.to_str().ok()).map(str::to_owned) else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    if take_one(&book.requests_to_refuse) {
        book.count_request();
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    if take_one(&book.effects_to_delay) {
        book.count_request();
        // In a task of its own: it happens even if the caller has hung up.
        let (late, later) = (Duration::from_millis(book.late_ms.load(Ordering::SeqCst)), Arc::clone(&book));
        let effect = tokio::spawn(async move {
            tokio::time::sleep(late).await;
            later.charge(&key, &sent)
        });
        return effect
            .await
            .map_or(StatusCode::BAD_GATEWAY.into_response(), |(s, body)| (s, Json(body)).into_response());
    }
    let (status, body) = book.charge(&key, &sent);
    book.count_request();
    let _ = book.answers_held.subscribe().wait_for(|held| !held).await;
    tokio::time::sleep(Duration::from_millis(book.answer_ms.load(Ordering::SeqCst))).await;
    if take_one(&book.answers_to_withhold) {
        std::future::pending::<()>().await;
    }
    if take_one(&book.answers_to_lose) {
        return StatusCode::BAD_GATEWAY.into_response();
    }
    (status, Json(body)).into_response()
}

async fn look_up(State(book): State<Arc<Book>>, Query(query): Query<BTreeMap<String, String>>) -> Response {
    if take_one(&book.look_ups_to_lose) {
        return StatusCode::BAD_GATEWAY.into_response();
    }
    let charges = book.locked();
    let items: Vec<Value> = query
        .get("idempotency_key")
        .and_then(|key| charges.get(key))
        .map(|(_, charge)| charge.clone())
        .into_iter()
        .collect();
    Json(json!({ "items": items })).into_response()
}
