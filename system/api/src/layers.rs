//! What every request passes on its way in and out, from the outside: observation, panics, time,
//! size of headers, the address's rate; and for protected routes authentication, the user's rate and the
//! right.
//!
//! All of that is two of the router's layers, [`enter`] and [`authenticate`]: for every request the router
//! clones whatever lies within a layer.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::{ConnectInfo, MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use forecastle_domain::Right;
use forecastle_store::{CacheKey, Peeked};
use futures_util::FutureExt as _;
use uuid::Uuid;

use crate::client_address::{client_address, limiter_address};
use crate::error::{ApiError, Cause};
use crate::openapi;
use crate::product_events;
use crate::rate_limit::Decisions;
use crate::session_check::{self, Caller, forget_limit};
use crate::state::AppState;
use crate::tokens::Subject;
use crate::wanted;

/// Where the request came from, as a limiter counts it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ClientAddress(pub(crate) IpAddr);

/// Gives the request an id, measures it, and logs the cause of a bug once; inside of that it is bounded. The
/// outermost layer.
pub(crate) async fn enter(State(entrance): State<Entrance>, mut request: Request, next: Next) -> Response {
    let started = Instant::now();
    let id = Uuid::new_v4().to_string();
    let route = request.extensions().get::<MatchedPath>().map_or("unmatched", MatchedPath::as_str).to_owned();
    let method = method_label(request.method());
    let is_private = request.uri().path().starts_with("/v1/");
    let decisions = Arc::new(Decisions::default());
    request.extensions_mut().insert(decisions.clone());

    let mut measurement = Measurement { route: route.clone(), method, started, is_taken: false };
    let mut response = bounded(&entrance, request, next).await;

    let status = response.status();
    if let Some(Cause(cause)) = response.extensions_mut().remove::<Cause>() {
        tracing::error!(request_id = %id, %route, method, cause = %cause, "request failed by a bug");
    }
    let headers = response.headers_mut();
    headers.insert(HeaderName::from_static("x-request-id"), HeaderValue::from_str(&id).expect("a UUID is ASCII"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if is_private {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-store"));
    }
    if entrance.state.is_draining() {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    decisions.write(headers);

    let elapsed = started.elapsed();
    // Declared, and to be tried again: counted apart from failures.
    let is_refused = matches!(status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS)
        && response.headers().contains_key(header::RETRY_AFTER);
    measurement.take(status.as_str(), if is_refused { "refused" } else { "answered" });
    tracing::debug!(request_id = %id, %route, method, status = status.as_u16(), ms = elapsed.as_millis(), "answered");
    response
}

/// What is counted of a request, once. Dropped before that, its client has given up: that is counted too, and how
/// long it had waited; else the slowest requests would be the ones that nobody sees.
struct Measurement {
    route: String,
    method: &'static str,
    started: Instant,
    is_taken: bool,
}

impl Measurement {
    fn take(&mut self, status: &str, outcome: &'static str) {
        let Self { route, method, started, is_taken } = self;
        if std::mem::replace(is_taken, true) {
            return;
        }
        let labels =
            [("route", route.as_str()), ("method", *method), ("outcome", outcome)].map(|(k, v)| (k, v.to_owned()));
        metrics::histogram!("http_request_duration_seconds", &labels).record(started.elapsed().as_secs_f64());
        let [route, method, outcome] = labels;
        let labels = [route, method, ("status", status.to_owned()), outcome];
        metrics::counter!("http_requests_total", &labels).increment(1);
    }
}

impl Drop for Measurement {
    fn drop(&mut self) {
        self.take("none", "given_up");
    }
}

/// Labels come from a fixed list: a client cannot invent one.
fn method_label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        Method::PATCH => "PATCH",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}

/// Answers 503 to what takes too long, and 500 where a handler panicked; what it said may hold anything, so it
/// is not logged here. What ends sessions may rightly wait for caches to run out.
async fn bounded(entrance: &Entrance, request: Request, next: Next) -> Response {
    let config = &entrance.state.config;
    let route = request.extensions().get::<MatchedPath>().map_or("unmatched", MatchedPath::as_str);
    let extra = if openapi::ends_sessions(request.method(), route) {
        forget_limit(config.session_cache)
    } else {
        Duration::ZERO
    };
    let answer = AssertUnwindSafe(limited(entrance, request, next)).catch_unwind();
    match tokio::time::timeout(config.request_timeout + extra, answer).await {
        Ok(Ok(response)) => response,
        Ok(Err(_)) => ApiError::internal("a handler panicked").into_response(),
        Err(_) => ApiError::unavailable().into_response(),
    }
}

/// Refuses a request with too much in its headers, or of an address that asks too often.
async fn limited(entrance: &Entrance, mut request: Request, next: Next) -> Response {
    let bytes: usize = request.headers().iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    let bytes = bytes + request.uri().path_and_query().map_or(0, |p| p.as_str().len());
    if bytes > entrance.state.config.header_bytes_max {
        return ApiError::headers_too_large().into_response();
    }
    match limit_address(entrance, &mut request).await {
        Ok(()) => next.run(request).await,
        Err(refusal) => refusal.into_response(),
    }
}

/// Methods by path, as the router matches it.
pub(crate) type Operations = HashMap<String, Vec<Method>>;

/// What [`enter`] goes by.
#[derive(Clone)]
pub(crate) struct Entrance {
    pub(crate) state: AppState,
    /// What stands behind [`authenticate`].
    pub(crate) authenticated: Arc<Operations>,
}

/// The address's token is still to be taken from Redis, by [`authenticate`] together with the user's.
#[derive(Debug, Clone, Copy)]
struct AddressDue(IpAddr);

/// Finds out the client's address and takes one of its tokens. What machines ask (health, metrics) is
/// not counted. Where authentication follows, only this instance's own count is asked here, and Redis there,
/// once for everything.
async fn limit_address(entrance: &Entrance, request: &mut Request) -> Result<(), ApiError> {
    let state = &entrance.state;
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|info| info.0.ip());
    let peer = peer.ok_or_else(|| ApiError::internal("no peer address"))?;
    let address = limiter_address(client_address(peer, request.headers(), &state.config.trusted_proxies));
    request.extensions_mut().insert(ClientAddress(address));
    if ["/livez", "/readyz", "/metrics"].contains(&request.uri().path()) {
        return Ok(());
    }
    let route = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
    let methods = route.and_then(|route| entrance.authenticated.get(route));
    let is_authenticated = methods.is_some_and(|methods| methods.contains(request.method()));
    let decision = if is_authenticated {
        request.extensions_mut().insert(AddressDue(address));
        state.limiter.address_ceiling(address)
    } else {
        Some(state.limiter.address(address).await)
    };
    decision.map_or(Ok(()), |decision| decisions_of(request).note(decision))
}

/// Takes one of the address's tokens for guessing credentials, beside the general one.
pub(crate) async fn limit_credentials(State(state): State<AppState>, request: Request, next: Next) -> Response {
    let Some(ClientAddress(address)) = request.extensions().get().copied() else {
        return ApiError::internal("no client address").into_response();
    };
    let decision = state.limiter.credentials(address).await;
    match decisions_of(&request).note(decision) {
        Ok(()) => next.run(request).await,
        Err(refusal) => refusal.into_response(),
    }
}

/// What [`authenticate`] goes by.
#[derive(Clone)]
pub(crate) struct Guard {
    pub(crate) state: AppState,
    /// What the route's group declares.
    pub(crate) right: Right,
}

/// Lets through who bears a good token of a session that stands, counts its user, and then lets through whose
/// role has the group's right.
pub(crate) async fn authenticate(State(guard): State<Guard>, mut request: Request, next: Next) -> Response {
    let Guard { state, right } = guard;
    let due = request.extensions_mut().remove::<AddressDue>();
    let subject = bearer_token(request.headers()).and_then(|token| state.config.keys.current().verify(token).ok());
    let wanted = subject.and_then(|subject| wanted::key_of(&request, subject.tenant));
    let admitted = admit(&state, subject, decisions_of(&request), due, wanted).await;
    let permitted = admitted.and_then(|admitted| match admitted.0.role.may(right) {
        true => Ok(admitted),
        false => Err(ApiError::role_forbidden()),
    });
    match permitted {
        Ok((caller, peeked)) => {
            request.extensions_mut().insert(caller);
            if let Some(peeked) = peeked {
                request.extensions_mut().insert(peeked);
            }
            let event = product_events::of(&request);
            let response = next.run(request).await;
            if let Some(event) = event
                && response.status().is_success()
            {
                product_events::record(&state, event, caller.tenant, caller.user);
            }
            response
        }
        Err(refusal) => {
            metrics::counter!("forecastle_refused_total", "code" => refusal.code()).increment(1);
            refusal.into_response()
        }
    }
}

/// Who asks, and what was already found of that which they ask for.
async fn admit(
    state: &AppState,
    subject: Option<Subject>,
    decisions: Arc<Decisions>,
    due: Option<AddressDue>,
    wanted: Option<CacheKey>,
) -> Result<(Caller, Option<Peeked>), ApiError> {
    // Whatever was sent costs the address a token, before anybody is told what is wrong with it.
    let Some(subject) = subject else {
        if let Some(AddressDue(address)) = due {
            decisions.note(state.limiter.address_below_ceiling(address).await)?;
        }
        return Err(ApiError::unauthenticated());
    };
    let Some(AddressDue(address)) = due else {
        let (caller, of_user) =
            tokio::join!(session_check::check(state, subject), state.limiter.user(subject.tenant, subject.user));
        let caller = caller?;
        decisions.note(of_user)?;
        return Ok((caller, None));
    };
    let key = session_check::key_of(subject);
    let wanted = wanted.filter(|_| !state.config.cache_ttl.is_zero());
    let asked = match state.limiter.admit(address, (subject.tenant, subject.user), &key, wanted).await {
        Ok(asked) => asked,
        Err(refusal) => return Err(decisions.note(refusal).err().unwrap_or_else(ApiError::unauthenticated)),
    };
    decisions.note(asked.address)?;
    let caller = session_check::judge(state, subject, asked.session).await?;
    decisions.note(asked.user)?;
    Ok((caller, asked.wanted))
}

/// The token of the one `Authorization: Bearer` header.
fn bearer_token(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
}

fn decisions_of(request: &Request) -> Arc<Decisions> {
    request.extensions().get::<Arc<Decisions>>().cloned().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(values: &[&'static str]) -> Option<String> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(header::AUTHORIZATION, HeaderValue::from_static(value));
        }
        bearer_token(&headers).map(str::to_owned)
    }

    #[test]
    fn exactly_one_bearer_token_is_taken() {
        assert_eq!(read(&["Bearer abc"]).as_deref(), Some("abc"));
        assert_eq!(read(&["bearer abc"]).as_deref(), Some("abc"));
        for none in [&[][..], &["abc"], &["Basic abc"], &["Bearer abc", "Bearer abc"], &["Bearer"]] {
            assert_eq!(read(none), None);
        }
    }
}
