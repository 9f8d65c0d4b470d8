//! Whether a session stands: from Redis if it knows, else from PostgreSQL, else nobody gets in.
//! And its end: revoked in PostgreSQL first, then forgotten by every instance before it is acknowledged.

use std::time::Duration;

use chrono::{DateTime, Utc};
use forecastle_domain::{AuditAction, Role, SessionId, TenantId, UserId};
use forecastle_store::audit::{self, AuditEvent};
use forecastle_store::{CacheKey, Deletion, Lookup, StoreError, TenantTx, sessions};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::error::ApiError;
use crate::state::AppState;
use crate::tokens::Subject;

/// Longest time between a reader's look at the cache and its fill; the store's own bound.
const FILL_DELAY_MAX: Duration = Duration::from_secs(3);
/// Entries forgotten in one go.
const FORGET_BATCH: usize = 256;
/// Pause between two tries to have a deletion confirmed or recorded.
const FORGET_PAUSE: Duration = Duration::from_millis(100);

/// Who is asking, checked against the session on this very request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caller {
    /// Whose data it may touch.
    pub tenant: TenantId,
    /// The person.
    pub user: UserId,
    /// The session.
    pub session: SessionId,
    /// What the person may do.
    pub role: Role,
}

/// What Redis keeps about a session that stands. One that does not is never kept.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct CachedSession {
    user: UserId,
    role: Role,
    expires_at: DateTime<Utc>,
}

/// The caller behind a verified token.
///
/// # Errors
/// 401 if the session is over, revoked or not this user's; 503 if neither Redis nor PostgreSQL says.
pub async fn check(state: &AppState, subject: Subject) -> Result<Caller, ApiError> {
    let found = state.cache.get(&key_of(subject)).await;
    judge(state, subject, found).await
}

/// The key under which the subject's session is looked up.
pub(crate) fn key_of(subject: Subject) -> CacheKey {
    CacheKey::session(subject.tenant, subject.session)
}

/// The same as [`check`] after a look at [`key_of`] on this very request.
pub(crate) async fn judge(
    state: &AppState,
    subject: Subject,
    found: Lookup<CachedSession>,
) -> Result<Caller, ApiError> {
    let session = match found {
        Lookup::Hit(session) => session,
        Lookup::Miss(lease) => {
            let live = sessions::live(&state.db.tenant(subject.tenant), subject.session).await?;
            let live = live.ok_or_else(ApiError::unauthenticated)?;
            let session = CachedSession { user: live.user_id, role: live.role, expires_at: live.expires_at };
            if let Some(lease) = lease {
                state.cache.fill(lease, &session, entry_ttl(state.config.session_cache)).await;
            }
            session
        }
    };
    if session.user != subject.user || session.expires_at <= Utc::now() {
        return Err(ApiError::unauthenticated());
    }
    Ok(Caller { tenant: subject.tenant, user: subject.user, session: subject.session, role: session.role })
}

/// Ends the caller's own session everywhere. Returns once no instance can let it in any more: PostgreSQL has
/// committed, and the cached entry is deleted, or is not looked at before it is, or has run out.
///
/// # Errors
/// 503 if PostgreSQL does not confirm; the session may stand or not.
pub async fn end(state: &AppState, caller: &Caller) -> Result<(), ApiError> {
    let mut tx = state.db.tenant(caller.tenant).begin().await?;
    if sessions::revoke(&mut tx, caller.session).await? {
        let event = AuditEvent::of_session(AuditAction::LoggedOut, caller.session).by(caller.user);
        audit::record(&mut tx, event).await?;
    }
    commit_ending(state, tx, &[caller.session]).await
}

/// Commits what ends these sessions, or changes what their user may do, and makes it known to every instance.
///
/// # Errors
/// 503 if PostgreSQL does not confirm: then whether they stand is asked of it alone for a while.
pub(crate) async fn commit_ending(state: &AppState, tx: TenantTx, sessions: &[SessionId]) -> Result<(), ApiError> {
    let tenant = tx.tenant_id();
    match tx.commit().await {
        Ok(()) => {
            forget(state, tenant, sessions).await;
            Ok(())
        }
        Err(StoreError::CommitUnknown) => {
            withhold(state, tenant, sessions).await;
            Err(ApiError::from(StoreError::CommitUnknown))
        }
        Err(error) => Err(error.into()),
    }
}

/// A commit that ends these sessions has lost its answer, and may still be carried out. What is kept of them is
/// emptied, and kept empty for longer than that can take; whoever asks again finds out.
pub(crate) async fn withhold(state: &AppState, tenant: TenantId, sessions: &[SessionId]) {
    for sessions in sessions.chunks(FORGET_BATCH) {
        let keys: Vec<_> = sessions.iter().map(|session| CacheKey::session(tenant, *session)).collect();
        state.cache.announce(&keys).await;
    }
}

/// Makes a commit that revoked these sessions, or changed what their user may do, known to every instance:
/// returns once their entries are deleted, or are not looked at before they are, or have run out. A reader of
/// the old state cannot write it back (the store's law), and the new one is read from here on.
pub async fn forget(state: &AppState, tenant: TenantId, sessions: &[SessionId]) {
    let entries_end = Instant::now() + forget_limit(state.config.session_cache);
    let keys: Vec<_> = sessions.iter().map(|session| CacheKey::session(tenant, *session)).collect();
    for keys in keys.chunks(FORGET_BATCH) {
        // Recorded is as good: then no instance looks into the cache before the entry is gone.
        while state.cache.delete(keys).await == Deletion::Unrecorded {
            if Instant::now() >= entries_end {
                metrics::counter!("forecastle_revocations_waited_out_total").increment(1);
                return;
            }
            tokio::time::sleep(FORGET_PAUSE.min(entries_end - Instant::now())).await;
        }
    }
}

/// Lifetime of an entry such that, however late it is filled, it ends within `session_cache` of the
/// look that led to it; with a very short setting, half of it.
fn entry_ttl(session_cache: Duration) -> Duration {
    session_cache.saturating_sub(FILL_DELAY_MAX).max(session_cache / 2)
}

/// When the last entry that was read before a revocation has run out, counted from the revocation.
pub(crate) fn forget_limit(session_cache: Duration) -> Duration {
    entry_ttl(session_cache) + FILL_DELAY_MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_end_within_the_setting_and_the_wait_covers_them() {
        let s = Duration::from_secs;
        assert_eq!(entry_ttl(s(30)), s(27));
        assert_eq!(forget_limit(s(30)), s(30));
        assert_eq!(entry_ttl(s(2)), s(1));
        assert_eq!(forget_limit(s(2)), s(4));
    }
}
