//! Answers to what never became a request, byte by byte: the same problem documents as everywhere.

use axum::body::Bytes;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse as _;
use uuid::Uuid;

use crate::error::ApiError;

/// The head that the protocol would send, and so what was wrong, as a problem.
pub(super) fn in_place_of(head: &[u8]) -> Bytes {
    let status = head.get(9..12).and_then(|digits| std::str::from_utf8(digits).ok());
    match status {
        Some("431") => bytes(&ApiError::headers_too_large()),
        Some("414") => bytes(&ApiError::new(StatusCode::URI_TOO_LONG, "uri_too_long")),
        _ => bytes(&ApiError::new(StatusCode::BAD_REQUEST, "malformed_request").detail("This is no HTTP request.")),
    }
}

/// A whole answer that closes its connection.
pub(super) fn bytes(error: &ApiError) -> Bytes {
    let body = error.body();
    let response = error.clone().into_response();
    let status = response.status();
    let reason = status.canonical_reason().unwrap_or("Error");
    let mut text = format!("HTTP/1.1 {} {reason}\r\n", status.as_u16());
    let mut line = |name: &str, value: &str| {
        text.push_str(name);
        text.push_str(": ");
        text.push_str(value);
        text.push_str("\r\n");
    };
    for (name, value) in response.headers() {
        if *name != header::CONTENT_LENGTH {
            line(name.as_str(), value.to_str().unwrap_or_default());
        }
    }
    line("x-request-id", &Uuid::new_v4().to_string());
    line("x-content-type-options", "nosniff");
    line("cache-control", "private, no-store");
    line("connection", "close");
    line("date", &chrono::Utc::now().format("%a, %d %b %Y %H:%M:%S GMT").to_string());
    line("content-length", &body.len().to_string());
    text.push_str("\r\n");
    text.push_str(&body);
    text.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_protocol_refuses_is_told_as_a_problem() {
        for (head, status, code) in [
            ("HTTP/1.1 431 Request Header Fields Too Large\r\n\r\n", "431", "headers_too_large"),
            ("HTTP/1.1 414 URI Too Long\r\n\r\n", "414", "uri_too_long"),
            ("HTTP/1.1 400 Bad Request\r\n\r\n", "400", "malformed_request"),
            ("", "400", "malformed_request"),
        ] {
            let told = in_place_of(head.as_bytes());
            let told = std::str::from_utf8(&told).unwrap();
            let (head, body) = told.split_once("\r\n\r\n").unwrap();
            assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{told}");
            assert!(head.contains("content-type: application/problem+json\r\n"), "{told}");
            assert!(head.contains("connection: close\r\n"), "{told}");
            assert!(head.ends_with(&format!("content-length: {}", body.len())), "{told}");
            assert_eq!(serde_json::from_str::<serde_json::Value>(body).unwrap()["code"], code);
        }
    }

    #[test]
    fn a_refused_newcomer_is_told_when_to_come_back() {
        let told = bytes(&ApiError::unavailable());
        assert!(std::str::from_utf8(&told).unwrap().contains("retry-after: 1\r\n"));
    }
}
