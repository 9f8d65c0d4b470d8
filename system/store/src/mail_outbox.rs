//! The outbox: a mail is written by the transaction that causes it, and sent later by whoever claims it.
//!
//! Law: one mail for each tenant and deduplication key, however often its cause is driven again. `sent`
//! means that the mail server took it. The one moment that cannot be closed is between that server's
//! answer and the commit that notes it: a sender that dies there sends again, with the same Message-ID.
//!
//! Order of a mail's life: queued, sending, then sent or dead; or queued again for a later try.

use std::time::Duration;

use chrono::{DateTime, Utc};
use forecastle_domain::{Mail, TenantId, UserId};
use sqlx::FromRow;
use uuid::Uuid;

use crate::error::StoreError;
use crate::pool::Db;
use crate::scope::TenantTx;

/// Writes a mail to one of the tenant's users; whether it is new: false if one with this key is there
/// already, whatever became of it, or if the tenant has no such user.
///
/// `dedup_key`: 1 to 200 characters, names the cause, e.g. `dunning <invoice> <try>`.
///
/// # Errors
/// As [`StoreError`] says.
pub async fn enqueue(tx: &mut TenantTx, user: UserId, mail: &Mail, dedup_key: &str) -> Result<bool, StoreError> {
    insert(tx, Recipients::User(user), mail, dedup_key, None).await.map(|written| written > 0)
}

/// Writes a mail to each of the tenant's owners, one for each under the key; how many are new.
///
/// # Errors
/// As [`StoreError`] says.
pub async fn enqueue_to_owners(tx: &mut TenantTx, mail: &Mail, dedup_key: &str) -> Result<u64, StoreError> {
    insert(tx, Recipients::Owners, mail, dedup_key, None).await
}

pub(crate) enum Recipients {
    User(UserId),
    Owners,
}

pub(crate) async fn insert(
    tx: &mut TenantTx,
    recipients: Recipients,
    mail: &Mail,
    dedup_key: &str,
    token_id: Option<Uuid>,
) -> Result<u64, StoreError> {
    let parameters = serde_json::to_value(mail)
        .ok()
        .and_then(|mut value| value.get_mut("parameters").map(serde_json::Value::take))
        .unwrap_or_else(|| serde_json::json!({}));
    let query = sqlx::query(
        "INSERT INTO app.mail_outbox
             (tenant_id, mail_id, dedup_key, template, parameters, recipient, token_id, state, next_at, created_at)
         SELECT u.tenant_id, gen_random_uuid(), CASE WHEN $2::uuid IS NULL THEN $3 || ' ' || u.user_id ELSE $3 END,
                $4, $5, u.email, $6, 'queued', now(), now()
         FROM app.users u
         WHERE u.tenant_id = $1 AND u.removed_at IS NULL AND CASE WHEN $2::uuid IS NULL THEN u.role = 'owner' ELSE u.user_id = $2 END
         ON CONFLICT (tenant_id, dedup_key) DO NOTHING",
    );
    let user = match recipients {
        Recipients::User(user) => Some(user.as_uuid()),
        Recipients::Owners => None,
    };
    let tenant = tx.tenant_id().as_uuid();
    let query = query.bind(tenant).bind(user).bind(dedup_key).bind(mail.template()).bind(parameters).bind(token_id);
    tx.execute(query).await
}

/// How a sender claims.
#[derive(Debug, Clone, Copy)]
pub struct MailTerms {
    /// How long a claim holds; longer than one mail may take to be sent.
    pub lease: Duration,
}

/// A mail under a claim. Has no `Debug`: it holds an address.
pub struct ClaimedMail {
    /// Whose it is.
    pub tenant_id: TenantId,
    /// The mail; the first part of its Message-ID.
    pub mail_id: Uuid,
    /// What to write; `None` if this build does not know the template.
    pub mail: Option<Mail>,
    /// To whom.
    pub recipient: String,
    /// 1 for the first claim; also the claim's fence.
    pub attempt: u32,
    /// When its cause committed; the mail's own date.
    pub created_at: DateTime<Utc>,
    /// The token to derive and the hash it must have, where the mail carries one.
    pub token: Option<(Uuid, Vec<u8>)>,
}

#[derive(FromRow)]
struct ClaimRow {
    tenant_id: Uuid,
    mail_id: Uuid,
    template: String,
    parameters: serde_json::Value,
    recipient: String,
    attempt: i32,
    created_at: DateTime<Utc>,
    token_id: Option<Uuid>,
    token_hash: Option<Vec<u8>>,
}

/// Takes up to `limit` due mails of whatever tenant, the longest due first.
///
/// # Errors
/// As [`StoreError`] says. After `Timeout` mails may have been claimed unheard: their leases run out.
pub async fn claim(db: &Db, limit: u32, terms: MailTerms) -> Result<Vec<ClaimedMail>, StoreError> {
    let query = sqlx::query_as("SELECT * FROM app.mail_claim($1, $2, $3)")
        .bind(i32::try_from(limit).unwrap_or(i32::MAX))
        .bind(millis(terms.lease))
        // How long a mail is tried is the sender's to say, by its age.
        .bind(i32::MAX);
    let rows: Vec<ClaimRow> = db.across_tenants().await?.all(query).await?;
    Ok(rows.into_iter().map(claimed).collect())
}

fn claimed(row: ClaimRow) -> ClaimedMail {
    // A kind without parameters is stored with an empty object, and read without one.
    let with = serde_json::json!({ "template": row.template, "parameters": row.parameters });
    let without = serde_json::json!({ "template": row.template });
    let mail = serde_json::from_value(with).or_else(|_| serde_json::from_value(without)).ok();
    ClaimedMail {
        tenant_id: row.tenant_id.into(),
        mail_id: row.mail_id,
        mail,
        recipient: row.recipient,
        attempt: u32::try_from(row.attempt).unwrap_or(u32::MAX),
        created_at: row.created_at,
        token: row.token_id.zip(row.token_hash),
    }
}

/// What became of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MailOutcome<'a> {
    /// The mail server took it.
    Sent,
    /// Not now: try again after the wait.
    Later {
        /// Back-off.
        wait: Duration,
        /// Stable word, never an answer's text: that may hold the address.
        code: &'a str,
    },
    /// Never.
    Dead {
        /// Stable word.
        code: &'a str,
    },
}

/// Notes the outcome; false if the claim no longer holds and nothing was written.
///
/// # Errors
/// As [`StoreError`] says; call again after `CommitUnknown`.
pub async fn settle(db: &Db, mail: &ClaimedMail, outcome: MailOutcome<'_>) -> Result<bool, StoreError> {
    let (state, wait, code) = match outcome {
        MailOutcome::Sent => ("sent", Duration::ZERO, None),
        MailOutcome::Later { wait, code } => ("queued", wait, Some(code)),
        MailOutcome::Dead { code } => ("dead", Duration::ZERO, Some(code)),
    };
    let query = sqlx::query(
        "UPDATE app.mail_outbox
         SET state = $4, lease_until = NULL, last_error_code = $6,
             next_at = CASE $4 WHEN 'queued' THEN clock_timestamp() + $5 * interval '1 millisecond' ELSE next_at END,
             finished_at = CASE $4 WHEN 'queued' THEN NULL ELSE clock_timestamp() END
         WHERE tenant_id = $1 AND mail_id = $2 AND attempts = $3 AND state = 'sending'",
    );
    let query = query
        .bind(mail.tenant_id.as_uuid())
        .bind(mail.mail_id)
        .bind(i32::try_from(mail.attempt).unwrap_or(i32::MAX))
        .bind(state)
        .bind(millis(wait))
        .bind(code);
    let mut tx = db.tenant(mail.tenant_id).begin().await?;
    let touched = tx.execute(query).await?;
    tx.commit().await?;
    Ok(touched > 0)
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
