//! The raw JSON body: its media type, coding and size checked, its text kept for the fingerprint.

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{FromRequest, Request};
use axum::http::{StatusCode, header};

use crate::connections::{BodyFault, fault_of};
use crate::error::ApiError;

/// A body declared as JSON, not yet read as such.
pub(crate) struct JsonBody(pub(crate) Bytes);

impl<S: Send + Sync> FromRequest<S> for JsonBody {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        if !is_json(request.headers().get(header::CONTENT_TYPE)) {
            return Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type")
                .detail("Send the body as application/json."));
        }
        // Nothing here unpacks: what is small when packed may be anything when not.
        if request.headers().get_all(header::CONTENT_ENCODING).iter().any(|coding| coding != "identity") {
            return Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_content_encoding")
                .detail("Send the body as it is, without a content coding."));
        }
        match Bytes::from_request(request, state).await {
            Ok(bytes) => Ok(Self(bytes)),
            Err(BytesRejection::FailedToBufferBody(rejection))
                if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE =>
            {
                Err(ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large"))
            }
            Err(rejection) => Err(match fault_of(&rejection) {
                BodyFault::Slow => ApiError::request_timeout(),
                BodyFault::NoRoom => ApiError::unavailable(),
                BodyFault::Broken => ApiError::new(StatusCode::BAD_REQUEST, "body_unreadable"),
            }),
        }
    }
}

fn is_json(content_type: Option<&axum::http::HeaderValue>) -> bool {
    let Some(text) = content_type.and_then(|value| value.to_str().ok()) else { return false };
    let essence = text.split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("application/json")
}
