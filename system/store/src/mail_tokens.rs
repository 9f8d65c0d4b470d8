//! Tokens that go out by mail: to verify an address, to reset a password. Single use, and they expire.
//!
//! Law: the token itself is stored nowhere. It is derived from its row's id under a key that only the
//! API and the sender of mails hold, and the database keeps its hash, so whoever reads every table and
//! every backup still cannot follow a link.

use std::time::Duration;

use forecastle_domain::{AuditAction, Mail, SessionId, TenantId, TokenPurpose, UserId};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::audit::{self, AuditEvent};
use crate::error::StoreError;
use crate::mail_outbox::{self, Recipients};
use crate::pool::Db;
use crate::scope::TenantTx;
use crate::sessions;

/// The key tokens are derived under. Never shown.
#[derive(Clone)]
pub struct MailTokenKey([u8; 32]);

impl MailTokenKey {
    /// From 32 random bytes.
    #[must_use]
    pub const fn new(key: [u8; 32]) -> Self {
        Self(key)
    }

    /// The token of a row.
    #[must_use]
    pub fn token(&self, token_id: Uuid) -> MailToken {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes a key of any length");
        mac.update(b"forecastle mail token");
        mac.update(token_id.as_bytes());
        MailToken(mac.finalize().into_bytes().into())
    }
}

impl std::fmt::Debug for MailTokenKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MailTokenKey(hidden)")
    }
}

/// The 32 bytes a mail's link holds. Neither shown nor stored.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct MailToken(pub [u8; 32]);

impl MailToken {
    /// What is stored in its place.
    #[must_use]
    pub fn hash(&self) -> [u8; 32] {
        Sha256::digest(self.0).into()
    }
}

impl std::fmt::Debug for MailToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MailToken(hidden)")
    }
}

/// Makes a token for a user and writes the mail that carries it; false, and nothing is left behind, if a
/// mail with this key is there already.
///
/// # Errors
/// As [`StoreError`] says.
pub async fn issue(
    tx: &mut TenantTx,
    key: &MailTokenKey,
    user: UserId,
    purpose: TokenPurpose,
    ttl: Duration,
    dedup_key: &str,
) -> Result<bool, StoreError> {
    let tenant = tx.tenant_id().as_uuid();
    let known = sqlx::query_scalar("SELECT true FROM app.mail_outbox WHERE tenant_id = $1 AND dedup_key = $2");
    if tx.scalar::<bool>(known.bind(tenant).bind(dedup_key)).await?.is_some() {
        return Ok(false);
    }
    let token_id = Uuid::new_v4();
    let query = sqlx::query(
        "INSERT INTO app.mail_tokens (tenant_id, token_id, user_id, purpose, token_hash, created_at, expires_at)
         VALUES ($1, $2, $3, $4, $5, now(), now() + $6 * interval '1 millisecond')",
    );
    let query = query
        .bind(tenant)
        .bind(token_id)
        .bind(user.as_uuid())
        .bind(purpose.as_str())
        .bind(key.token(token_id).hash().to_vec())
        .bind(i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX));
    tx.execute(query).await?;
    let mail = match purpose {
        TokenPurpose::EmailVerification => Mail::EmailVerification,
        TokenPurpose::PasswordReset => Mail::PasswordReset,
    };
    // Another transaction may have written the mail since: its token is the one that goes out.
    Ok(mail_outbox::insert(tx, Recipients::User(user), &mail, dedup_key, Some(token_id)).await? > 0)
}

/// Whose a live token is; `None` if it is nobody's, used, over, or meant for something else.
///
/// # Errors
/// As [`StoreError`] says.
pub async fn owner(db: &Db, token: &MailToken, purpose: TokenPurpose) -> Result<Option<TenantId>, StoreError> {
    let statement = "SELECT tenant_id, purpose FROM app.auth_mail_token($1)";
    let found: Vec<(Uuid, String)> = db.read_all(|| sqlx::query_as(statement).bind(token.hash().to_vec())).await?;
    Ok(found.into_iter().find(|(_, of)| of == purpose.as_str()).map(|(tenant, _)| tenant.into()))
}

/// Uses a token up; its user, or `None` if somebody used it meanwhile or it is over. Every other token
/// of that user and purpose ends with it.
///
/// # Errors
/// As [`StoreError`] says.
async fn spend(tx: &mut TenantTx, token: &MailToken, purpose: TokenPurpose) -> Result<Option<UserId>, StoreError> {
    let tenant = tx.tenant_id().as_uuid();
    let query = sqlx::query_scalar(
        "UPDATE app.mail_tokens SET used_at = clock_timestamp()
         WHERE tenant_id = $1 AND token_hash = $2 AND purpose = $3 AND used_at IS NULL
           AND expires_at > clock_timestamp()
         RETURNING user_id",
    );
    let user: Option<Uuid> = tx.scalar(query.bind(tenant).bind(token.hash().to_vec()).bind(purpose.as_str())).await?;
    let Some(user) = user else { return Ok(None) };
    let others = sqlx::query(
        "UPDATE app.mail_tokens SET used_at = clock_timestamp()
         WHERE tenant_id = $1 AND user_id = $2 AND purpose = $3 AND used_at IS NULL",
    );
    tx.execute(others.bind(tenant).bind(user).bind(purpose.as_str())).await?;
    Ok(Some(user.into()))
}

/// Notes that the token's user has the address; false if the token does not hold.
///
/// # Errors
/// As [`StoreError`] says.
pub async fn verify_email(tx: &mut TenantTx, token: &MailToken) -> Result<bool, StoreError> {
    let Some(user) = spend(tx, token, TokenPurpose::EmailVerification).await? else { return Ok(false) };
    let query = sqlx::query(
        "UPDATE app.users SET email_verified_at = now()
         WHERE tenant_id = $1 AND user_id = $2 AND email_verified_at IS NULL",
    );
    // Proved a second time, it is no news.
    if tx.execute(query.bind(tx.tenant_id().as_uuid()).bind(user.as_uuid())).await? > 0 {
        audit::record(tx, AuditEvent::of_user(AuditAction::EmailVerified, user).by(user)).await?;
    }
    Ok(true)
}

/// Gives the token's user another password and revokes all its sessions; those sessions, or `None` if
/// the token does not hold.
///
/// # Errors
/// As [`StoreError`] says.
pub async fn reset_password(
    tx: &mut TenantTx,
    token: &MailToken,
    password_hash: &str,
) -> Result<Option<Vec<SessionId>>, StoreError> {
    let Some(user) = spend(tx, token, TokenPurpose::PasswordReset).await? else { return Ok(None) };
    let tenant = tx.tenant_id().as_uuid();
    // First, because it locks the user's row: no session opens by the old password behind this.
    let query = sqlx::query(
        "UPDATE app.users SET password_hash = $3 WHERE tenant_id = $1 AND user_id = $2 AND removed_at IS NULL",
    );
    if tx.execute(query.bind(tenant).bind(user.as_uuid()).bind(password_hash)).await? == 0 {
        return Ok(None);
    }
    audit::record(tx, AuditEvent::of_user(AuditAction::PasswordReset, user).by(user)).await?;
    sessions::revoke_of_user(tx, user, None).await.map(Some)
}

/// Whether the user's address is verified.
///
/// # Errors
/// `NotFound` if the tenant has no such user.
pub async fn is_verified(tx: &mut TenantTx, user: UserId) -> Result<bool, StoreError> {
    let query =
        sqlx::query_scalar("SELECT email_verified_at IS NOT NULL FROM app.users WHERE tenant_id = $1 AND user_id = $2");
    tx.scalar(query.bind(tx.tenant_id().as_uuid()).bind(user.as_uuid())).await?.ok_or(StoreError::NotFound)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_depends_on_its_key_and_its_row_and_shows_neither() {
        let (one, other) = (MailTokenKey::new([1; 32]), MailTokenKey::new([2; 32]));
        let id = Uuid::from_u128(1);
        assert_eq!(one.token(id), one.token(id));
        assert_ne!(one.token(id), other.token(id));
        assert_ne!(one.token(id), one.token(Uuid::from_u128(2)));
        assert_eq!(format!("{one:?} {:?}", one.token(id)), "MailTokenKey(hidden) MailToken(hidden)");
    }
}
