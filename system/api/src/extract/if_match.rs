//! The version an edit is based on.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};

use crate::error::ApiError;

/// The version in `If-Match`; `None` where the tag can match no version of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct IfMatch(pub(crate) Option<i32>);

impl IfMatch {
    /// One strong entity tag. A weak tag, a list and `*` match nothing here: an edit names the one
    /// version that it replaces.
    fn from_headers(headers: &HeaderMap) -> Result<Self, ApiError> {
        let mut values = headers.get_all(header::IF_MATCH).iter();
        let Some(value) = values.next() else {
            return Err(ApiError::new(StatusCode::PRECONDITION_REQUIRED, "if_match_required")
                .detail("Send the version's ETag in If-Match."));
        };
        let tag = value.to_str().ok().map(str::trim).filter(|_| values.next().is_none());
        let version = tag
            .and_then(|tag| tag.strip_prefix('"')?.strip_suffix('"'))
            .filter(|digits| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()))
            .filter(|digits| !digits.starts_with('0'))
            .and_then(|digits| digits.parse().ok());
        Ok(Self(version))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for IfMatch {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        Self::from_headers(&parts.headers)
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn read(value: &'static str) -> Option<i32> {
        let mut headers = HeaderMap::new();
        headers.insert(header::IF_MATCH, HeaderValue::from_static(value));
        IfMatch::from_headers(&headers).unwrap().0
    }

    #[test]
    fn one_strong_tag_names_a_version() {
        assert_eq!(read("\"12\""), Some(12));
        for none in ["12", "W/\"12\"", "*", "\"1\", \"2\"", "\"012\"", "\"+1\"", "\"\"", "\"99999999999\""] {
            assert_eq!(read(none), None, "{none}");
        }
    }

    #[test]
    fn an_edit_without_a_version_is_refused() {
        let refused = IfMatch::from_headers(&HeaderMap::new()).unwrap_err();
        assert_eq!(refused.status(), StatusCode::PRECONDITION_REQUIRED);
    }
}
