//! HTTP/1.1 and 1.0: requests by method and path, answers with their status.

mod body;
mod session;

pub(super) use session::HttpSession;

/// What one request asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpOperation {
    /// As sent, in capitals by custom.
    pub method: String,
    /// Without query.
    pub path: String,
}

impl HttpOperation {
    pub fn label(&self) -> String {
        format!("{} {}", self.method, self.path)
    }
}

/// A whole answer with a problem document, after which the connection may go on.
pub(super) fn error_answer(status: u16, text: Option<&str>, retry_after_s: Option<u64>) -> Vec<u8> {
    let reason = match status {
        429 => "Too Many Requests",
        500 => "Internal Server Error",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        400..=499 => "Client Error",
        _ => "Server Error",
    };
    let body = serde_json::json!({ "title": text.unwrap_or(reason), "status": status }).to_string();
    let retry_after = retry_after_s.map_or_else(String::new, |seconds| format!("retry-after: {seconds}\r\n"));
    format!(
        "HTTP/1.1 {status} {reason}\r\ncontent-type: application/problem+json\r\ncontent-length: {}\r\n{retry_after}\r\n{body}",
        body.len()
    )
    .into_bytes()
}
