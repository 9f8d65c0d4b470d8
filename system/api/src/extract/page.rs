//! Where a page begins and how long it is. A cursor is opaque, bounded, and names no tenant: it only
//! says where to go on in whatever list the caller may see.

use axum::extract::FromRequestParts;
use axum::http::StatusCode;
use axum::http::request::Parts;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::DateTime;
use forecastle_store::paging::PageKey;
use serde::Deserialize;
use utoipa::IntoParams;
use uuid::Uuid;

use crate::error::ApiError;

/// Items of a page where the caller does not say.
const LIMIT_DEFAULT: u32 = 20;
/// Times of a cursor lie before this, µs since 1970: some thousand years after `PageKey::start`.
const AT_MICROS_END: i64 = 1 << 58;
/// Most items of a page.
const LIMIT_MAX: u32 = 100;

/// Query of every list.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct PageParams {
    /// Items of the page, 1 to 100; 20 if absent.
    #[param(value_type = u32, required = false, minimum = 1, maximum = 100)]
    limit: Option<String>,
    /// `next_cursor` of the page before.
    #[param(value_type = String, required = false, pattern = "^A[A-Za-z0-9_-]{31}$")]
    cursor: Option<String>,
}

/// A page asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PageRequest {
    pub(crate) after: PageKey,
    pub(crate) limit: u32,
}

impl<S: Send + Sync> FromRequestParts<S> for PageRequest {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let refused = |code| ApiError::new(StatusCode::BAD_REQUEST, code);
        let axum::extract::Query(params) = axum::extract::Query::<PageParams>::from_request_parts(parts, state)
            .await
            .map_err(|_| refused("query_invalid"))?;
        let limit = match params.limit {
            None => LIMIT_DEFAULT,
            Some(text) => text
                .parse()
                .ok()
                .filter(|n| (1..=LIMIT_MAX).contains(n))
                .ok_or_else(|| refused("limit_invalid").detail("limit is a whole number from 1 to 100."))?,
        };
        let after = match params.cursor {
            None => PageKey::start(),
            Some(text) => decode_cursor(&text).ok_or_else(|| refused("cursor_invalid"))?,
        };
        Ok(Self { after, limit })
    }
}

/// The text form of a place in a list.
pub(crate) fn encode_cursor(key: &PageKey) -> String {
    let mut bytes = [0; 24];
    bytes[..8].copy_from_slice(&key.at.timestamp_micros().to_be_bytes());
    bytes[8..].copy_from_slice(key.id.as_bytes());
    URL_SAFE_NO_PAD.encode(bytes)
}

fn decode_cursor(text: &str) -> Option<PageKey> {
    let bytes: [u8; 24] = URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok()?;
    let (micros, id) = bytes.split_at(8);
    let at = DateTime::from_timestamp_micros(i64::from_be_bytes(micros.try_into().ok()?))?;
    // Those whose first character is an A, as the document says. PostgreSQL has no times far outside this range.
    let known = (0..AT_MICROS_END).contains(&at.timestamp_micros());
    known.then_some(PageKey { at, id: Uuid::from_slice(id).ok()? })
}

#[cfg(test)]
mod tests {
    use axum::http::Request;

    use super::*;

    async fn read(query: &str) -> Result<PageRequest, &'static str> {
        let request = Request::builder().uri(format!("/v1/scenarios{query}")).body(()).unwrap();
        let (mut parts, ()) = request.into_parts();
        PageRequest::from_request_parts(&mut parts, &()).await.map_err(|error| error.code())
    }

    #[tokio::test]
    async fn a_cursor_leads_back_to_its_place() {
        let key =
            PageKey { at: DateTime::from_timestamp_micros(1_700_000_000_123_456).unwrap(), id: Uuid::from_u128(9) };
        let page = read(&format!("?limit=100&cursor={}", encode_cursor(&key))).await.unwrap();
        assert_eq!(page, PageRequest { after: key, limit: 100 });
        assert_eq!(read("").await.unwrap(), PageRequest { after: PageKey::start(), limit: 20 });
    }

    #[tokio::test]
    async fn a_cursor_is_whatever_the_document_calls_one() {
        for cursor in
            ["A".repeat(32), format!("A{}", "_".repeat(31)), format!("A{}", "-0z".repeat(11))[..32].to_owned()]
        {
            assert!(read(&format!("?cursor={cursor}")).await.is_ok(), "{cursor}");
        }
        assert!(encode_cursor(&PageKey::start()).starts_with('A'));
        assert_eq!(read(&format!("?cursor=B{}", "A".repeat(31))).await, Err("cursor_invalid"));
    }

    #[tokio::test]
    async fn limits_and_cursors_out_of_bounds_are_refused() {
        for limit in ["0", "101", "-1", "x", "", "1e1", "99999999999"] {
            assert_eq!(read(&format!("?limit={limit}")).await, Err("limit_invalid"), "{limit}");
        }
        let far = URL_SAFE_NO_PAD.encode([0x7f; 24]);
        let (late, negative) = (URL_SAFE_NO_PAD.encode([4; 24]), URL_SAFE_NO_PAD.encode([0xff; 24]));
        for cursor in ["x", "", "AAAA", &far, &late, &negative, "%00"] {
            assert_eq!(read(&format!("?cursor={cursor}")).await, Err("cursor_invalid"), "{cursor}");
        }
        assert_eq!(read("?limit=1&limit=2").await, Err("query_invalid"));
    }
}
