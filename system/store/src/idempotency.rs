//! Keys under which a request that creates something has one effect, however often it is sent.
//!
//! Law: the key's row commits together with the effect. While one transaction works under a key no
//! other one can: an advisory lock says so at once, and the row's primary key says so again.

use std::time::Duration;

use forecastle_domain::UserId;
use sqlx::FromRow;

use crate::error::StoreError;
use crate::scope::TenantTx;

/// A key, its owner, and what was sent under it.
#[derive(Debug, Clone)]
pub struct IdempotentRequest {
    /// Who sent it; another user's equal key is another key.
    pub user_id: UserId,
    /// As sent; 1 to 255 characters.
    pub key: String,
    /// Digest of method, path and body.
    pub fingerprint: [u8; 32],
}

/// An answer as it was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredAnswer {
    /// HTTP status.
    pub status: u16,
    /// Whatever the caller stored.
    pub response: String,
}

/// What a key says about a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claim {
    /// Nobody has used it: go on, and store the answer in this transaction.
    Fresh,
    /// The same request was answered before.
    Replay(StoredAnswer),
    /// Another request was answered under it.
    FingerprintDiffers,
    /// Another transaction works under it now.
    InFlight,
}

#[derive(FromRow)]
struct Row {
    is_free: bool,
    fingerprint: Option<Vec<u8>>,
    status: Option<i32>,
    response: Option<String>,
}

/// Takes a key for this transaction.
///
/// # Errors
/// As [`StoreError`] says.
pub async fn claim(tx: &mut TenantTx, request: &IdempotentRequest) -> Result<Claim, StoreError> {
    let query = sqlx::query_as("SELECT is_free, fingerprint, status, response FROM app.claim_key($1, $2, $3)");
    let query = query.bind(tx.tenant_id().as_uuid()).bind(request.user_id.as_uuid()).bind(&request.key);
    let row: Row = tx.one(query).await?;
    if !row.is_free {
        return Ok(Claim::InFlight);
    }
    let Some(fingerprint) = row.fingerprint else { return Ok(Claim::Fresh) };
    if fingerprint != request.fingerprint {
        return Ok(Claim::FingerprintDiffers);
    }
    let corrupt = StoreError::Corrupt { what: "idempotency_keys.response" };
    let (Some(status), Some(response)) = (row.status, row.response) else { return Ok(Claim::InFlight) };
    let status = u16::try_from(status).map_err(|_| corrupt)?;
    Ok(Claim::Replay(StoredAnswer { status, response }))
}

/// Stores the answer under a key that [`claim`] found fresh in this transaction, and forgets a few of
/// the tenant's keys whose time is over: more than one for each that is stored, so they do not pile up.
///
/// # Errors
/// `Conflict` if somebody else stored one meanwhile: the transaction must not commit.
pub async fn store(
    tx: &mut TenantTx,
    request: &IdempotentRequest,
    answer: &StoredAnswer,
    ttl: Duration,
) -> Result<(), StoreError> {
    // By the transaction's own time: a volatile one is no bound for an index, and every key that holds would be read.
    let query = sqlx::query(
        "WITH spent AS (
             DELETE FROM app.idempotency_keys old
             USING (SELECT user_id, key FROM app.idempotency_keys
                    WHERE tenant_id = $1 AND expires_at <= now() AND (user_id, key) <> ($2, $3)
                    ORDER BY expires_at LIMIT 4 FOR UPDATE SKIP LOCKED) AS over
             WHERE old.tenant_id = $1 AND old.user_id = over.user_id AND old.key = over.key)
         INSERT INTO app.idempotency_keys AS k
             (tenant_id, user_id, key, fingerprint, state, status, response, created_at, expires_at)
         VALUES ($1, $2, $3, $4, 'done', $5, $6, now(), now() + $7 * interval '1 millisecond')
         ON CONFLICT (tenant_id, user_id, key) DO UPDATE
         SET fingerprint = excluded.fingerprint, state = 'done', status = excluded.status,
             response = excluded.response, created_at = excluded.created_at, expires_at = excluded.expires_at
         WHERE k.expires_at <= clock_timestamp()",
    );
    let tenant = tx.tenant_id().as_uuid();
    let query = query
        .bind(tenant)
        .bind(request.user_id.as_uuid())
        .bind(&request.key)
        .bind(request.fingerprint.as_slice())
        .bind(i32::from(answer.status))
        .bind(&answer.response)
        .bind(i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX));
    if tx.execute(query).await? == 1 {
        return Ok(());
    }
    Err(StoreError::Conflict { constraint: "idempotency_keys_pkey".to_owned() })
}
