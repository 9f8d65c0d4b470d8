//! Sessions and the families of refresh tokens that belong to them. PostgreSQL is the truth here.
//!
//! Law: a family has one live token. A token that was already exchanged answers again only within
//! the grace, and then with the newest token of its own line; after that it ends the whole family.
//! Only hashes of tokens are stored.

use std::time::Duration;

use chrono::{DateTime, Utc};
use forecastle_domain::{AuditAction, Role, SessionId, TenantId, UserId};
use sha2::{Digest as _, Sha256};
use sqlx::FromRow;
use uuid::Uuid;

use crate::audit::{self, AuditEvent};
use crate::error::StoreError;
use crate::paging::{Page, PageKey};
use crate::pool::Db;
use crate::scope::{TenantScope, TenantTx};

/// Successors followed from a token presented within its grace; of a longer line the token is refused.
const LINE_LENGTH_MAX: usize = 64;

/// The 32 random bytes a client holds. Neither shown nor stored.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct RefreshSecret(pub [u8; 32]);

impl RefreshSecret {
    /// What is stored in its place.
    #[must_use]
    pub fn hash(&self) -> [u8; 32] {
        Sha256::digest(self.0).into()
    }
}

impl std::fmt::Debug for RefreshSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RefreshSecret(hidden)")
    }
}

/// How long what a sign-in gives lasts.
#[derive(Debug, Clone, Copy)]
pub struct Lifetimes {
    /// A session, however often it is refreshed.
    pub session: Duration,
    /// A refresh token, from its own issue.
    pub refresh_token: Duration,
}

/// Opens a session with the first token of its family.
///
/// # Errors
/// As [`StoreError`] says.
pub async fn open(
    tx: &mut TenantTx,
    session: SessionId,
    user: UserId,
    secret: &RefreshSecret,
    lifetimes: Lifetimes,
) -> Result<(), StoreError> {
    let tenant = tx.tenant_id().as_uuid();
    tx.execute(
        sqlx::query(
            "INSERT INTO app.sessions (tenant_id, session_id, user_id, created_at, expires_at)
             VALUES ($1, $2, $3, now(), now() + $4 * interval '1 millisecond')",
        )
        .bind(tenant)
        .bind(session.as_uuid())
        .bind(user.as_uuid())
        .bind(milliseconds(lifetimes.session)),
    )
    .await?;
    insert_token(tx, session, secret, None, lifetimes.refresh_token).await
}

/// Opens a session for whoever has just shown a password, and notes it in the audit log. False, and nothing is
/// done, if the password was changed or the user removed while it was being checked: the row that is read here
/// cannot change until this transaction ends.
///
/// # Errors
/// As [`StoreError`] says.
pub async fn open_by_password(
    tx: &mut TenantTx,
    session: SessionId,
    user: UserId,
    verified_hash: &str,
    secret: &RefreshSecret,
    lifetimes: Lifetimes,
) -> Result<bool, StoreError> {
    let query = sqlx::query_scalar(
        "SELECT true FROM app.users
         WHERE tenant_id = $1 AND user_id = $2 AND password_hash = $3 AND removed_at IS NULL FOR SHARE",
    );
    let tenant = tx.tenant_id().as_uuid();
    if tx.scalar::<bool>(query.bind(tenant).bind(user.as_uuid()).bind(verified_hash)).await?.is_none() {
        return Ok(false);
    }
    open(tx, session, user, secret, lifetimes).await?;
    audit::record(tx, AuditEvent::of_session(AuditAction::LoginSucceeded, session).by(user)).await?;
    Ok(true)
}

/// A session that neither ended nor was revoked, as PostgreSQL says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LiveSession {
    /// Whose it is.
    pub user_id: UserId,
    /// The user's role now.
    pub role: Role,
    /// When it ends by itself.
    pub expires_at: DateTime<Utc>,
}

#[derive(FromRow)]
struct LiveRow {
    user_id: Uuid,
    role: String,
    expires_at: DateTime<Utc>,
}

/// The session, if it is live now, in one trip; `None` if it is revoked, over, or not this tenant's.
///
/// # Errors
/// As [`StoreError`] says: the caller may not read an error as either answer.
pub async fn live(scope: &TenantScope, session: SessionId) -> Result<Option<LiveSession>, StoreError> {
    let statement = "SELECT (session).user_id, (member).role, (session).expires_at FROM app.read_session($1, $2)
         WHERE (session).revoked_at IS NULL AND (session).expires_at > now()
           AND (member).removed_at IS NULL";
    let row: Option<LiveRow> = scope.read_optional(statement, |query| query.bind(session.as_uuid())).await?;
    row.map(|row| {
        let role = row.role.parse().map_err(|_| StoreError::Corrupt { what: "users.role" })?;
        Ok(LiveSession { user_id: row.user_id.into(), role, expires_at: row.expires_at })
    })
    .transpose()
}

/// Revokes a session; whether it was live until now. Its tokens die with it.
///
/// # Errors
/// As [`StoreError`] says.
pub async fn revoke(tx: &mut TenantTx, session: SessionId) -> Result<bool, StoreError> {
    let query = sqlx::query(
        "UPDATE app.sessions SET revoked_at = clock_timestamp()
         WHERE tenant_id = $1 AND session_id = $2 AND revoked_at IS NULL",
    );
    let tenant = tx.tenant_id().as_uuid();
    Ok(tx.execute(query.bind(tenant).bind(session.as_uuid())).await? == 1)
}

/// Revokes a session if it is this user's; `None` if there is none such, else whether it was live until now.
///
/// # Errors
/// As [`StoreError`] says.
pub async fn revoke_own(tx: &mut TenantTx, user: UserId, session: SessionId) -> Result<Option<bool>, StoreError> {
    let query =
        sqlx::query_scalar("SELECT true FROM app.sessions WHERE tenant_id = $1 AND session_id = $2 AND user_id = $3");
    let tenant = tx.tenant_id().as_uuid();
    let is_own: Option<bool> = tx.scalar(query.bind(tenant).bind(session.as_uuid()).bind(user.as_uuid())).await?;
    match is_own {
        Some(_) => revoke(tx, session).await.map(Some),
        None => Ok(None),
    }
}

/// Revokes every session of a user but one; those that were live until now.
///
/// Call it after the statement that locks the user's row, so that no session opens behind it.
///
/// # Errors
/// As [`StoreError`] says.
pub async fn revoke_of_user(
    tx: &mut TenantTx,
    user: UserId,
    except: Option<SessionId>,
) -> Result<Vec<SessionId>, StoreError> {
    let query = sqlx::query_as(
        "UPDATE app.sessions SET revoked_at = clock_timestamp()
         WHERE tenant_id = $1 AND user_id = $2 AND revoked_at IS NULL AND session_id IS DISTINCT FROM $3
         RETURNING session_id",
    );
    let tenant = tx.tenant_id().as_uuid();
    let query = query.bind(tenant).bind(user.as_uuid()).bind(except.map(SessionId::as_uuid));
    Ok(ids(tx.all(query).await?))
}

/// The user's live sessions.
///
/// # Errors
/// As [`StoreError`] says.
pub async fn live_of_user(tx: &mut TenantTx, user: UserId) -> Result<Vec<SessionId>, StoreError> {
    let query = sqlx::query_as(
        "SELECT session_id FROM app.sessions
         WHERE tenant_id = $1 AND user_id = $2 AND revoked_at IS NULL AND expires_at > now()",
    );
    let tenant = tx.tenant_id().as_uuid();
    Ok(ids(tx.all(query.bind(tenant).bind(user.as_uuid())).await?))
}

/// The user's sessions, revoked or not, whose time is not over.
///
/// # Errors
/// As [`StoreError`] says.
pub async fn unexpired_of_user(tx: &mut TenantTx, user: UserId) -> Result<Vec<SessionId>, StoreError> {
    let query = sqlx::query_as(
        "SELECT session_id FROM app.sessions WHERE tenant_id = $1 AND user_id = $2 AND expires_at > now()",
    );
    let tenant = tx.tenant_id().as_uuid();
    Ok(ids(tx.all(query.bind(tenant).bind(user.as_uuid())).await?))
}

fn ids(rows: Vec<(Uuid,)>) -> Vec<SessionId> {
    rows.into_iter().map(|(session,)| session.into()).collect()
}

/// A session in its user's list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromRow)]
pub struct SessionSummary {
    session_id: Uuid,
    /// When it was opened.
    pub created_at: DateTime<Utc>,
    /// When it ends by itself.
    pub expires_at: DateTime<Utc>,
}

impl SessionSummary {
    /// Names the session.
    #[must_use]
    pub fn id(&self) -> SessionId {
        self.session_id.into()
    }
}

/// The user's live sessions, the newest first, from `after` on.
///
/// # Errors
/// As [`StoreError`] says.
pub async fn list(
    tx: &mut TenantTx,
    user: UserId,
    after: PageKey,
    limit: u32,
) -> Result<Page<SessionSummary>, StoreError> {
    let query = sqlx::query_as(
        "SELECT session_id, created_at, expires_at FROM app.sessions
         WHERE tenant_id = $1 AND user_id = $2 AND revoked_at IS NULL AND expires_at > now()
           AND (created_at, session_id) < ($3, $4)
         ORDER BY created_at DESC, session_id DESC LIMIT $5",
    );
    let tenant = tx.tenant_id().as_uuid();
    let query = query.bind(tenant).bind(user.as_uuid()).bind(after.at).bind(after.id).bind(i64::from(limit) + 1);
    let rows: Vec<SessionSummary> = tx.all(query).await?;
    Ok(Page::of(rows, limit, |row| PageKey { at: row.created_at, id: row.session_id }))
}

/// What became of a refresh token that was presented. Committed already, where it does not say otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refreshed {
    /// It was good: this is the one that follows it.
    Successor {
        /// The family's tenant.
        tenant_id: TenantId,
        /// Whose session it is.
        user_id: UserId,
        /// The family's session.
        session_id: SessionId,
        /// The family's only live token.
        secret: RefreshSecret,
    },
    /// Nobody's, or expired.
    Refused,
    /// Of a session that is over. Whoever ended it may not have made that known yet, or ever.
    FamilyOver {
        /// The family's tenant.
        tenant_id: TenantId,
        /// The session.
        session_id: SessionId,
    },
    /// It had been exchanged longer ago than the grace: somebody else has it. The session is revoked.
    FamilyEnded {
        /// The family's tenant.
        tenant_id: TenantId,
        /// The session that has just been revoked.
        session_id: SessionId,
    },
    /// The same, but the answer to the commit was lost: whether the session is revoked is not known.
    FamilyEndUnknown {
        /// The family's tenant.
        tenant_id: TenantId,
        /// The session that may have been revoked.
        session_id: SessionId,
    },
}

/// How refresh tokens follow each other.
#[derive(Clone, Copy)]
pub struct Rotation<'a> {
    /// What may follow a token: what does follow it from now on, then what followed it under keys that are
    /// being retired. Never empty; unpredictable without the caller's keys.
    pub successors: &'a (dyn Fn(&RefreshSecret) -> Vec<RefreshSecret> + Sync),
    /// How long an exchanged token still answers with its line.
    pub grace: Duration,
    /// Lifetime of a new token.
    pub ttl: Duration,
}

#[derive(FromRow)]
struct Family {
    user_id: Uuid,
    is_over: bool,
}

#[derive(FromRow)]
struct Token {
    is_exchanged: bool,
    is_past_grace: bool,
    is_expired: bool,
}

/// Exchanges a refresh token in one transaction under the session's row lock.
///
/// # Errors
/// As [`StoreError`] says; nothing is known about the token then.
pub async fn refresh(db: &Db, presented: &RefreshSecret, rotation: Rotation<'_>) -> Result<Refreshed, StoreError> {
    let statement = "SELECT tenant_id, session_id FROM app.auth_refresh_token($1)";
    let hash = presented.hash();
    let found: Vec<(Uuid, Uuid)> = db.read_all(|| sqlx::query_as(statement).bind(hash.to_vec())).await?;
    let Some((tenant, session)) = found.into_iter().next() else { return Ok(Refreshed::Refused) };
    let (tenant_id, session_id) = (TenantId::from_uuid(tenant), SessionId::from_uuid(session));

    let mut tx = db.tenant(tenant_id).begin().await?;
    let family = lock_family(&mut tx, session_id).await?;
    let Some(token) = read_token(&mut tx, presented, rotation.grace).await? else { return Ok(Refreshed::Refused) };
    if family.is_over {
        return Ok(Refreshed::FamilyOver { tenant_id, session_id });
    }
    if token.is_past_grace {
        revoke(&mut tx, session_id).await?;
        // Whoever presented it, it was not surely the session's own user.
        audit::record(&mut tx, AuditEvent::of_session(AuditAction::RefreshReused, session_id)).await?;
        return match tx.commit().await {
            Ok(()) => Ok(Refreshed::FamilyEnded { tenant_id, session_id }),
            Err(StoreError::CommitUnknown) => Ok(Refreshed::FamilyEndUnknown { tenant_id, session_id }),
            Err(error) => Err(error),
        };
    }
    if token.is_expired {
        return Ok(Refreshed::Refused);
    }
    let secret = if token.is_exchanged {
        let Some(newest) = newest_of_line(&mut tx, presented, rotation).await? else {
            return Ok(Refreshed::Refused);
        };
        newest
    } else {
        exchange(&mut tx, session_id, presented, rotation).await?
    };
    tx.commit().await?;
    Ok(Refreshed::Successor { tenant_id, user_id: family.user_id.into(), session_id, secret })
}

/// Everybody who refreshes in this family waits here for their turn.
async fn lock_family(tx: &mut TenantTx, session: SessionId) -> Result<Family, StoreError> {
    let query = sqlx::query_as(
        "SELECT user_id, (revoked_at IS NOT NULL OR expires_at <= clock_timestamp()) AS is_over
         FROM app.sessions WHERE tenant_id = $1 AND session_id = $2 FOR NO KEY UPDATE",
    );
    let tenant = tx.tenant_id().as_uuid();
    tx.one(query.bind(tenant).bind(session.as_uuid())).await
}

async fn read_token(tx: &mut TenantTx, secret: &RefreshSecret, grace: Duration) -> Result<Option<Token>, StoreError> {
    let query = sqlx::query_as(
        "SELECT rotated_at IS NOT NULL AS is_exchanged,
                coalesce(rotated_at + $3 * interval '1 millisecond' < clock_timestamp(), false) AS is_past_grace,
                expires_at <= clock_timestamp() AS is_expired
         FROM app.refresh_tokens WHERE tenant_id = $1 AND token_hash = $2",
    );
    let (tenant, hash) = (tx.tenant_id().as_uuid(), secret.hash());
    tx.optional(query.bind(tenant).bind(hash.as_slice()).bind(milliseconds(grace))).await
}

async fn exchange(
    tx: &mut TenantTx,
    session: SessionId,
    parent: &RefreshSecret,
    rotation: Rotation<'_>,
) -> Result<RefreshSecret, StoreError> {
    let corrupt = |what| StoreError::Corrupt { what };
    let child = (rotation.successors)(parent).into_iter().next().ok_or(corrupt("no successor"))?;
    let query = sqlx::query(
        "UPDATE app.refresh_tokens SET rotated_at = clock_timestamp()
         WHERE tenant_id = $1 AND token_hash = $2 AND rotated_at IS NULL",
    );
    let (tenant, hash) = (tx.tenant_id().as_uuid(), parent.hash());
    if tx.execute(query.bind(tenant).bind(hash.as_slice())).await? != 1 {
        return Err(corrupt("refresh_tokens.rotated_at"));
    }
    insert_token(tx, session, &child, Some(parent), rotation.ttl).await?;
    Ok(child)
}

/// Follows the line from an exchanged token to the one that is live. `None` if its successor was made under a
/// key that is gone, since one more child would leave the family with two live tokens; or if the line is
/// longer than any honest client makes one within the grace.
async fn newest_of_line(
    tx: &mut TenantTx,
    presented: &RefreshSecret,
    rotation: Rotation<'_>,
) -> Result<Option<RefreshSecret>, StoreError> {
    let mut newest = *presented;
    'line: for _ in 0..LINE_LENGTH_MAX {
        for child in (rotation.successors)(&newest) {
            match read_token(tx, &child, rotation.grace).await? {
                Some(token) if token.is_exchanged => {
                    newest = child;
                    continue 'line;
                }
                Some(_) => return Ok(Some(child)),
                None => {}
            }
        }
        return Ok(None);
    }
    Ok(None)
}

async fn insert_token(
    tx: &mut TenantTx,
    session: SessionId,
    secret: &RefreshSecret,
    parent: Option<&RefreshSecret>,
    ttl: Duration,
) -> Result<(), StoreError> {
    let query = sqlx::query(
        "INSERT INTO app.refresh_tokens (tenant_id, token_hash, session_id, parent_hash, issued_at, expires_at)
         VALUES ($1, $2, $3, $4, clock_timestamp(), clock_timestamp() + $5 * interval '1 millisecond')",
    );
    let (tenant, hash) = (tx.tenant_id().as_uuid(), secret.hash());
    let parent = parent.map(|parent| parent.hash().to_vec());
    tx.execute(query.bind(tenant).bind(hash.as_slice()).bind(session.as_uuid()).bind(parent).bind(milliseconds(ttl)))
        .await?;
    Ok(())
}

fn milliseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
