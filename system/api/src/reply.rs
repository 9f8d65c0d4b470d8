//! A success as it is sent, and as it is stored for replay: the same bytes both times.

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use forecastle_store::idempotency::StoredAnswer;
use serde::{Deserialize, Serialize};

use crate::error::{ApiError, PROBLEM_JSON};

/// Status, body, and the headers that belong to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    status: StatusCode,
    parts: Parts,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Parts {
    is_problem: bool,
    location: Option<String>,
    etag: Option<String>,
    body: String,
}

impl Reply {
    /// A JSON answer.
    #[must_use]
    pub fn json(status: StatusCode, body: &impl Serialize) -> Self {
        let body = serde_json::to_string(body).expect("an answer is plain data");
        Self { status, parts: Parts { is_problem: false, location: None, etag: None, body } }
    }

    /// Where the new resource is.
    #[must_use]
    pub fn location(mut self, path: String) -> Self {
        self.parts.location = Some(path);
        self
    }

    /// The strong entity tag of a version.
    #[must_use]
    pub fn version(mut self, version: i32) -> Self {
        self.parts.etag = Some(format!("\"{version}\""));
        self
    }

    /// The form in which it is stored under an idempotency key.
    #[must_use]
    pub fn to_stored(&self) -> StoredAnswer {
        let response = serde_json::to_string(&self.parts).expect("an answer is plain data");
        StoredAnswer { status: self.status.as_u16(), response }
    }

    /// From its stored form; `None` if that is not one.
    #[must_use]
    pub fn from_stored(stored: &StoredAnswer) -> Option<Self> {
        let status = StatusCode::from_u16(stored.status).ok()?;
        Some(Self { status, parts: serde_json::from_str(&stored.response).ok()? })
    }

    /// The same answer, marked as given before.
    #[must_use]
    pub fn into_replay(self) -> Response {
        let mut response = self.into_response();
        let name = HeaderName::from_static("idempotency-replayed");
        response.headers_mut().insert(name, HeaderValue::from_static("true"));
        response
    }
}

impl From<&ApiError> for Reply {
    /// A refusal that may be replayed; its retry-after, if any, is lost.
    fn from(error: &ApiError) -> Self {
        let parts = Parts { is_problem: true, location: None, etag: None, body: error.body() };
        Self { status: error.status(), parts }
    }
}

impl IntoResponse for Reply {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::from(self.parts.body));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        let content_type = if self.parts.is_problem { PROBLEM_JSON } else { "application/json" };
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        for (name, value) in [(header::LOCATION, self.parts.location), (header::ETAG, self.parts.etag)] {
            if let Some(value) = value.and_then(|value| HeaderValue::from_str(&value).ok()) {
                headers.insert(name, value);
            }
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_stored_and_replayed_to_the_byte() {
        let reply = Reply::json(StatusCode::CREATED, &serde_json::json!({"b": 1, "a": "ü"}))
            .location("/v1/scenarios/1".to_owned())
            .version(1);
        assert_eq!(Reply::from_stored(&reply.to_stored()), Some(reply.clone()));
        let replayed = reply.into_replay();
        assert_eq!(replayed.headers()["idempotency-replayed"], "true");
        assert_eq!(replayed.headers()[header::ETAG], "\"1\"");
    }
}
