//! The caller that the authentication layer has let through.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;

use crate::error::ApiError;
use crate::session_check::Caller;

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = ApiError;

    /// Only routes behind the layer have one; anywhere else this refuses, so a route that was put into
    /// the wrong group lets nobody in.
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        parts.extensions.get().copied().ok_or_else(ApiError::unauthenticated)
    }
}
