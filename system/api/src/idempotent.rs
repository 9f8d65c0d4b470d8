//! One effect for each idempotency key: the key's row and the effect commit together.
//!
//! Replayed: successes, and refusals that the request itself earned. Not kept: 401, 402, 409 and 429,
//! which another moment may answer otherwise, and everything from 500 on, which is driven again.

use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use forecastle_store::idempotency::{self, Claim, IdempotentRequest};
use forecastle_store::{StoreError, TenantTx};
use sha2::{Digest as _, Sha256};
use std::time::Duration;

use crate::error::ApiError;
use crate::reply::Reply;
use crate::session_check::Caller;
use crate::state::AppState;

/// Longest key accepted, characters.
const KEY_LENGTH_MAX: usize = 255;

/// A key as sent: 1 to 255 printable ASCII characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyKey(String);

impl IdempotencyKey {
    /// Reads the header.
    ///
    /// # Errors
    /// 400 if it is absent, twice there, empty, too long or not printable ASCII.
    pub fn from_headers(headers: &HeaderMap) -> Result<Self, ApiError> {
        let mut values = headers.get_all("idempotency-key").iter();
        let required = || {
            ApiError::new(StatusCode::BAD_REQUEST, "idempotency_key_required")
                .detail("Send one Idempotency-Key header of 1 to 255 printable characters.")
        };
        let (Some(value), None) = (values.next(), values.next()) else { return Err(required()) };
        let key = value.to_str().map_err(|_| required())?.trim();
        let is_printable = key.bytes().all(|b| (0x20..0x7f).contains(&b));
        if key.is_empty() || key.len() > KEY_LENGTH_MAX || !is_printable {
            return Err(required());
        }
        Ok(Self(key.to_owned()))
    }

    /// Binds the key to its owner and to what was sent under it.
    #[must_use]
    pub fn bind(self, caller: &Caller, method: &str, path: &str, body: &[u8]) -> IdempotentRequest {
        let mut digest = Sha256::new();
        for part in [method.as_bytes(), path.as_bytes(), body] {
            digest.update((part.len() as u64).to_be_bytes());
            digest.update(part);
        }
        IdempotentRequest { user_id: caller.user, key: self.0, fingerprint: digest.finalize().into() }
    }
}

/// What a key leads to.
pub enum Begun {
    /// The answer that was given before.
    Replay(Response),
    /// Nothing yet: do the work in the attempt's transaction, then finish it.
    Fresh(Attempt),
}

/// A request under a key nobody else holds.
pub struct Attempt {
    /// Where the effect belongs.
    pub tx: TenantTx,
    request: IdempotentRequest,
    ttl: Duration,
}

/// Takes the key.
///
/// # Errors
/// 409 if another request works under it now; 422 if it belongs to another request; 503.
pub async fn begin(state: &AppState, caller: &Caller, request: IdempotentRequest) -> Result<Begun, ApiError> {
    let mut tx = state.db.tenant(caller.tenant).begin().await?;
    let claim = idempotency::claim(&mut tx, &request).await?;
    if claim == Claim::Fresh {
        return Ok(Begun::Fresh(Attempt { tx, request, ttl: state.config.idempotency_ttl }));
    }
    // Before the answer: the caller's next request must not find the key taken by this one.
    tx.rollback().await;
    match claim {
        Claim::Replay(stored) => Reply::from_stored(&stored)
            .map(|reply| Begun::Replay(reply.into_replay()))
            .ok_or_else(|| ApiError::internal("stored answer does not read")),
        Claim::FingerprintDiffers => Err(reused()),
        Claim::InFlight | Claim::Fresh => Err(in_flight()),
    }
}

impl Attempt {
    /// Commits the effect with its answer. A refusal that is kept must have written nothing.
    ///
    /// # Errors
    /// The refusal itself; 409 if somebody else answered under the key meanwhile; 503.
    pub async fn finish(mut self, outcome: Result<Reply, ApiError>) -> Result<Response, ApiError> {
        let reply = match &outcome {
            Ok(reply) => reply.clone(),
            Err(refusal) if refusal.is_final() => Reply::from(refusal),
            Err(refusal) => {
                self.tx.rollback().await;
                return Err(refusal.clone());
            }
        };
        let stored = idempotency::store(&mut self.tx, &self.request, &reply.to_stored(), self.ttl).await;
        match stored {
            Err(StoreError::Conflict { .. }) => return Err(in_flight()),
            stored => stored?,
        }
        self.tx.commit().await?;
        outcome.map(Reply::into_response)
    }
}

/// 422: the key belongs to another request.
pub(crate) fn reused() -> ApiError {
    ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "idempotency_key_reused")
        .detail("This Idempotency-Key was used for another request.")
}

fn in_flight() -> ApiError {
    ApiError::new(StatusCode::CONFLICT, "idempotency_in_flight")
        .detail("A request with this Idempotency-Key is being worked on.")
        .retry_after(Duration::from_secs(1))
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;
    use forecastle_domain::{Flag, Role, SessionId, TenantId, UserId};
    use uuid::Uuid;

    use super::*;

    fn read(values: &[&str]) -> Result<IdempotencyKey, ApiError> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append("idempotency-key", HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        IdempotencyKey::from_headers(&headers)
    }

    #[test]
    fn exactly_one_printable_key_is_required() {
        assert_eq!(read(&["a b-1"]).unwrap(), IdempotencyKey("a b-1".to_owned()));
        for values in [&[][..], &["a", "a"], &[""], &["  "], &["ä"], &[&"x".repeat(256)]] {
            assert_eq!(read(values).unwrap_err().code(), "idempotency_key_required");
        }
    }

    #[test]
    fn the_fingerprint_tells_method_path_and_body_apart() {
        let caller = Caller {
            tenant: TenantId::from_uuid(Uuid::nil()),
            user: UserId::from_uuid(Uuid::nil()),
            session: SessionId::from_uuid(Uuid::nil()),
            role: Role::Owner,
        };
        let of = |method: &str, path: &str, body: &str| {
            IdempotencyKey("k".to_owned()).bind(&caller, method, path, body.as_bytes()).fingerprint
        };
        let base = of("POST", "/v1/forecasts", "{}");
        assert_eq!(base, of("POST", "/v1/forecasts", "{}"));
        for other in [of("PUT", "/v1/forecasts", "{}"), of("POST", "/v1/forecasts{", "}"), of("POST", "/v1/x", "{}")] {
            assert_ne!(base, other);
        }
    }

    #[test]
    fn refusals_that_may_change_are_not_kept() {
        let kept = |code: u16| ApiError::new(StatusCode::from_u16(code).unwrap(), "x").is_final();
        assert!([400, 403, 404, 422].into_iter().all(kept));
        assert!(![401, 402, 409, 429, 500, 503].into_iter().any(kept));
        assert!(!ApiError::switched_off(Flag::Uncertainty).is_final());
    }
}
