//! A change of something that is cached: announced before, deleted after, and acknowledged only when no
//! instance can give out what it was before.

use forecastle_store::{Cache, CacheKey, Deletion};

use crate::error::ApiError;

/// Does `work`, which changes what is kept under `keys` (all of one tenant). Belongs inside
/// [`crate::detached::detached`]: a caller that hangs up must not leave out the end.
///
/// # Errors
/// Those of `work`; 503 if it succeeded and neither Redis nor PostgreSQL took the deletion.
pub(crate) async fn changing<T>(
    cache: &Cache,
    keys: &[CacheKey],
    work: impl Future<Output = Result<T, ApiError>>,
) -> Result<T, ApiError> {
    cache.announce(keys).await;
    let outcome = work.await;
    if outcome.as_ref().is_err_and(ApiError::is_outcome_unknown) {
        // The commit may still be carried out: the keys stay blocked for longer than that can take.
        cache.announce(keys).await;
        return outcome;
    }
    match cache.delete(keys).await {
        Deletion::Confirmed | Deletion::Recorded => outcome,
        Deletion::Unrecorded => outcome.and_then(|_| Err(ApiError::unavailable())),
    }
}
