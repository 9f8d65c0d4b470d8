//! The one error of the HTTP interface: a status, a stable code, a message safe to show.
//!
//! Everything that goes wrong becomes one of these, and each is answered as a problem document
//! (RFC 9457). The cause of a bug is logged once, where the answer is made, never sent.

use std::borrow::Cow;
use std::time::Duration;

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use forecastle_domain::Flag;
use forecastle_store::StoreError;
use serde::Serialize;
use utoipa::ToSchema;

/// One wrong field of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct FieldProblem {
    /// JSON pointer (RFC 6901) to the field in the request's body.
    pub pointer: String,
    /// Stable, machine-readable reason.
    #[schema(example = "too_long")]
    pub code: Cow<'static, str>,
    /// The reason in English; never repeats what was sent.
    pub message: Cow<'static, str>,
}

impl FieldProblem {
    /// A problem of the field at `pointer`.
    pub fn new(
        pointer: impl Into<String>,
        code: impl Into<Cow<'static, str>>,
        message: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self { pointer: pointer.into(), code: code.into(), message: message.into() }
    }
}

/// Body of every answer that is not a success (RFC 9457, `application/problem+json`).
#[derive(Debug, Serialize, ToSchema)]
pub struct Problem {
    /// `urn:forecastle:problem:` and the code.
    #[serde(rename = "type")]
    #[schema(example = "urn:forecastle:problem:not_found")]
    kind: String,
    /// The status in words.
    title: &'static str,
    /// The HTTP status.
    status: u16,
    /// Stable, machine-readable reason.
    #[schema(example = "not_found")]
    code: &'static str,
    /// What to do about it, in English.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    detail: Option<Cow<'static, str>>,
    /// Each wrong field, where the request's content is at fault.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<FieldProblem>,
}

/// A request that does not get what it asked for.
#[derive(Debug, Clone)]
pub struct ApiError {
    status: StatusCode,
    code: &'static str,
    detail: Option<Cow<'static, str>>,
    errors: Vec<FieldProblem>,
    retry_after: Option<Duration>,
    /// For the log only.
    cause: Option<Cow<'static, str>>,
    /// The commit was sent and not answered.
    outcome_unknown: bool,
    /// The same request may succeed at another moment though the status does not say so.
    may_change: bool,
}

impl ApiError {
    /// A refusal with a stable code and nothing more.
    #[must_use]
    pub const fn new(status: StatusCode, code: &'static str) -> Self {
        Self {
            status,
            code,
            detail: None,
            errors: Vec::new(),
            retry_after: None,
            cause: None,
            outcome_unknown: false,
            may_change: false,
        }
    }

    /// Adds an explanation that is safe to show.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<Cow<'static, str>>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// Tells the caller when to come back; rounded up to whole seconds, at least one.
    #[must_use]
    pub const fn retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    /// 401: no bearer token, or one that does not hold, or a session that has ended.
    #[must_use]
    pub fn unauthenticated() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "unauthenticated").detail("A valid access token is required.")
    }

    /// 403: the session is good, its user's role may not do this.
    #[must_use]
    pub fn role_forbidden() -> Self {
        Self::new(StatusCode::FORBIDDEN, "role_forbidden").detail("Your role does not allow this.")
    }

    /// 403: an operator has switched this off for the tenant; another moment may answer otherwise.
    #[must_use]
    pub fn switched_off(flag: Flag) -> Self {
        let mut error = Self::new(StatusCode::FORBIDDEN, "switched_off")
            .detail(format!("{flag} is switched off for your organization. Ask support."));
        error.may_change = true;
        error
    }

    /// 404: absent, or somebody else's. The two are never told apart.
    #[must_use]
    pub const fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found")
    }

    /// 422 with every wrong field.
    #[must_use]
    pub fn invalid(errors: Vec<FieldProblem>) -> Self {
        let mut error = Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid").detail("Some fields are not valid.");
        error.errors = errors;
        error
    }

    /// 503: something this needs does not answer in time. Nothing is known to have happened.
    #[must_use]
    pub fn unavailable() -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable")
            .detail("The service cannot answer right now. Try again.")
            .retry_after(Duration::from_secs(1))
    }

    /// 503: every connection that this instance may have is at work.
    #[must_use]
    pub fn too_many_connections() -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "too_many_connections")
            .detail("This instance has as many connections as it can serve. Try again.")
            .retry_after(Duration::from_secs(1))
    }

    /// 408: the request did not come in time.
    #[must_use]
    pub fn request_timeout() -> Self {
        Self::new(StatusCode::REQUEST_TIMEOUT, "request_timeout").detail("The request did not come in time.")
    }

    /// 431: too many headers, or too much in them.
    #[must_use]
    pub const fn headers_too_large() -> Self {
        Self::new(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "headers_too_large")
    }

    /// 400: the body is not JSON as RFC 8259 wants it from someone who is understood alike by all.
    #[must_use]
    pub fn malformed_json(detail: &'static str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "malformed_json").detail(detail)
    }

    /// 503: this instance was given no payment provider to ask.
    #[must_use]
    pub fn payments_unavailable() -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "payments_unavailable")
            .detail("Payments cannot be made right now. Try again later.")
            .retry_after(Duration::from_secs(60))
    }

    /// 500: a bug. `cause` is logged with the request's id and must hold no tenant's data.
    #[must_use]
    pub fn internal(cause: impl Into<Cow<'static, str>>) -> Self {
        let mut error = Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal").detail("This is our fault.");
        error.cause = Some(cause.into());
        error
    }

    /// Whether the same request would be refused so at any other moment: then the refusal may be kept under an
    /// idempotency key.
    #[must_use]
    pub fn is_final(&self) -> bool {
        self.status.is_client_error() && ![401, 402, 409, 429].contains(&self.status.as_u16()) && !self.may_change
    }

    /// Whether what it refuses may have been done all the same, or may yet be.
    #[must_use]
    pub const fn is_outcome_unknown(&self) -> bool {
        self.outcome_unknown
    }

    /// The HTTP status it answers with.
    #[must_use]
    pub const fn status(&self) -> StatusCode {
        self.status
    }

    /// The stable code it answers with.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        self.code
    }

    /// The body it answers with, as JSON text; the same text for the same error.
    #[must_use]
    pub fn body(&self) -> String {
        serde_json::to_string(&self.problem()).expect("a problem is plain data")
    }

    fn problem(&self) -> Problem {
        Problem {
            kind: format!("urn:forecastle:problem:{}", self.code),
            title: self.status.canonical_reason().unwrap_or("Error"),
            status: self.status.as_u16(),
            code: self.code,
            detail: self.detail.clone(),
            errors: self.errors.clone(),
        }
    }
}

/// Put into the answer's extensions so that the outermost layer can log it with the request's id.
#[derive(Debug, Clone)]
pub(crate) struct Cause(pub(crate) Cow<'static, str>);

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.problem())).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(wait) = self.retry_after {
            headers.insert(header::RETRY_AFTER, retry_after_value(wait));
        }
        if let Some(cause) = self.cause {
            response.extensions_mut().insert(Cause(cause));
        }
        response
    }
}

/// Media type of problem documents.
pub(crate) const PROBLEM_JSON: &str = "application/problem+json";

/// Whole seconds, rounded up, at least one.
pub(crate) fn retry_after_value(wait: Duration) -> HeaderValue {
    let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    HeaderValue::from(seconds.max(1))
}

impl From<StoreError> for ApiError {
    /// A store that cannot be asked is a 503, whatever the reason; a conflict or an absence that the
    /// caller did not expect is a bug.
    fn from(error: StoreError) -> Self {
        if error == StoreError::CommitUnknown {
            return Self { outcome_unknown: true, ..Self::unavailable() };
        }
        if error.is_unavailable() {
            tracing::debug!(%error, "store unavailable");
            return Self::unavailable();
        }
        Self::internal(format!("store: {error}"))
    }
}

#[cfg(test)]
mod tests {
    use forecastle_store::UnavailableReason;

    use super::*;

    #[test]
    fn a_store_that_cannot_be_asked_is_a_503_with_retry_after() {
        for error in [
            StoreError::Unavailable { reason: UnavailableReason::PoolExhausted },
            StoreError::Timeout,
            StoreError::CommitUnknown,
        ] {
            let response = ApiError::from(error).into_response();
            assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
            assert_eq!(response.headers()[header::RETRY_AFTER], "1");
            assert_eq!(response.headers()[header::CONTENT_TYPE], PROBLEM_JSON);
        }
    }

    #[test]
    fn the_cause_of_a_bug_is_logged_and_not_sent() {
        let error = ApiError::internal("store: corrupt row: tenants.plan");
        assert_eq!(error.status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert!(!error.body().contains("tenants"));
        assert!(error.into_response().extensions().get::<Cause>().is_some());
    }

    #[test]
    fn a_wait_is_told_in_whole_seconds_and_never_as_none() {
        assert_eq!(retry_after_value(Duration::ZERO), "1");
        assert_eq!(retry_after_value(Duration::from_millis(1001)), "2");
    }
}
