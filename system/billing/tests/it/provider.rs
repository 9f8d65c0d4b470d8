//! A payment provider with a book: honours keys, and can lose answers after it charged.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use axum::{Json, Router};
use serde_json::{Value, json};

#[derive(Default)]
pub(crate) struct Book {
    /// One entry for each key that was charged: what was sent, and the charge.
    pub(crate) charges: Mutex<BTreeMap<String, (Value, Value)>>,
    /// Answers to POST still to be lost, after the charge was made.
    pub(crate) answers_to_lose: AtomicU32,
    /// Answers to GET still to be lost.
    pub(crate) look_ups_to_lose: AtomicU32,
    pub(crate) declining: AtomicBool,
    pub(crate) posts: AtomicU32,
}

impl Book {
    pub(crate) fn total_minor(&self) -> i64 {
        self.charges.lock().unwrap().values().filter_map(|(sent, _)| sent["amount_minor"].as_i64()).sum()
    }

    pub(crate) fn count(&self) -> i64 {
        i64::try_from(self.charges.lock().unwrap().len()).unwrap()
    }
}

/// Starts it; its address and its book.
pub(crate) async fn start() -> (String, Arc<Book>) {
    let book = Arc::new(Book::default());
    let app = Router::new().route("/v1/charges", post(charge).get(look_up)).with_state(Arc::clone(&book));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await });
    (url, book)
}

fn take_one(counter: &AtomicU32) -> bool {
    counter.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok()
}

async fn charge(State(book): State<Arc<Book>>, headers: HeaderMap, Json(sent): Json<Value>) -> Response {
    book.posts.fetch_add(1, Ordering::SeqCst);
    let key = headers["idempotency-key"].to_str().unwrap().to_owned();
    if book.declining.load(Ordering::SeqCst) {
        return (StatusCode::PAYMENT_REQUIRED, Json(json!({ "code": "card_declined" }))).into_response();
    }
    let (status, charge) = {
        let mut charges = book.charges.lock().unwrap();
        match charges.get(&key) {
            Some((earlier, charge)) if *earlier == sent => (StatusCode::OK, charge.clone()),
            Some(_) => return StatusCode::UNPROCESSABLE_ENTITY.into_response(),
            None => {
                let charge = json!({
                    "id": format!("ch_{}", charges.len()), "state": "succeeded", "amount_minor": sent["amount_minor"],
                    "currency": sent["currency"], "idempotency_key": key, "reference": sent["reference"],
                });
                charges.insert(key, (sent, charge.clone()));
                (StatusCode::CREATED, charge)
            }
        }
    };
    if take_one(&book.answers_to_lose) {
        return StatusCode::BAD_GATEWAY.into_response();
    }
    (status, Json(charge)).into_response()
}

async fn look_up(State(book): State<Arc<Book>>, Query(query): Query<BTreeMap<String, String>>) -> Response {
    if take_one(&book.look_ups_to_lose) {
        return StatusCode::BAD_GATEWAY.into_response();
    }
    let charges = book.charges.lock().unwrap();
    let items: Vec<Value> = query
        .get("idempotency_key")
        .and_then(|key| charges.get(key))
        .map(|(_, charge)| charge.clone())
        .into_iter()
        .collect();
    Json(json!({ "items": items })).into_response()
}
