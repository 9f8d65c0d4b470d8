//! What the API answers when it cannot do as asked, in Toxiproxy's words and statuses.

use axum::{
    http::{HeaderName, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};

use super::listen::ListenError;

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
    #[error(transparent)]
    Listen(#[from] ListenError),
}

impl ApiError {
    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::BadBody(_) | Self::MissingField(_) | Self::InvalidStream | Self::InvalidToxicType => {
                StatusCode::BAD_REQUEST
            }
            Self::ProxyNotFound | Self::ToxicNotFound => StatusCode::NOT_FOUND,
            Self::ProxyExists | Self::ToxicExists => StatusCode::CONFLICT,
            Self::Listen(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    pub(super) fn body(&self) -> Value {
        json!({ "error": self.to_string(), "status": self.status().as_u16() })
    }
}

impl IntoResponse for ApiError {
    /// Errors go out as plain text with a newline, though they are JSON; clients rely on neither.
    fn into_response(self) -> Response {
        plain(self.status(), &self.body().to_string())
    }
}

/// A line of plain text, as the official server's HTTP library writes what it refuses.
pub(super) fn plain(status: StatusCode, text: &str) -> Response {
    let headers = [
        (header::CONTENT_TYPE, "text/plain; charset=utf-8"),
        (HeaderName::from_static("x-content-type-options"), "nosniff"),
    ];
    (status, headers, format!("{text}\n")).into_response()
}
