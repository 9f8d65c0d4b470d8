//! What the API answers when it cannot do as asked, in Toxiproxy's words and statuses.

use axum::{
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};

/// A refusal of the API.
#[derive(Debug, thiserror::Error)]
pub(super) enum ApiError {
    #[error("bad request body: {0}")]
    BadBody(String),
    #[error("missing required field: {0}")]
    MissingField(String),
    #[error("stream was invalid, can be either upstream or downstream")]
    InvalidStream,
    #[error("invalid toxic type")]
    InvalidToxicType,
    #[error("proxy not found")]
    ProxyNotFound,
    #[error("toxic not found")]
    ToxicNotFound,
    #[error("proxy already exists")]
    ProxyExists,
    #[error("toxic already exists")]
    ToxicExists,
    #[error("User agent not allowed")]
    Browser,
    #[error("{0}")]
    Listen(std::io::Error),
}

impl ApiError {
    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::BadBody(_) | Self::MissingField(_) | Self::InvalidStream | Self::InvalidToxicType => {
                StatusCode::BAD_REQUEST
            }
            Self::ProxyNotFound | Self::ToxicNotFound => StatusCode::NOT_FOUND,
            Self::ProxyExists | Self::ToxicExists => StatusCode::CONFLICT,
            Self::Browser => StatusCode::FORBIDDEN,
            Self::Listen(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    pub(super) fn body(&self) -> Value {
        json!({ "error": self.to_string(), "status": self.status().as_u16() })
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        plain(self.status(), &self.body())
    }
}

/// Errors go out as plain text with a newline, though they are JSON; clients rely on neither.
pub(super) fn plain(status: StatusCode, body: &Value) -> Response {
    (status, [(header::CONTENT_TYPE, "text/plain; charset=utf-8")], format!("{body}\n")).into_response()
}
