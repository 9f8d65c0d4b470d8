//! Tenants and the people in them: sign-up, sign-in look-up, profile, the terms a tenant is on.
//!
//! Not for sessions, and not for hashing passwords: hashes come in and go out as PHC strings.

use chrono::{DateTime, NaiveDate, Utc};
use chrono_tz::Tz;
use forecastle_domain::{
    AuditAction, BillingCalendar, BillingState, Currency, Email, Period, Plan, Role, SessionId, TenantId, UserId,
};
use sqlx::FromRow;
use uuid::Uuid;

use crate::audit::{self, AuditEvent};
use crate::error::StoreError;
use crate::pool::Db;
use crate::scope::{TenantScope, TenantTx};
use crate::sessions;

/// The constraint that a second account with one e-mail address breaks.
pub const EMAIL_CONSTRAINT: &str = "users_email_key";

/// A tenant to be, with its owner.
pub struct NewTenant {
    /// Its owner's id, made by the caller.
    pub user_id: UserId,
    /// The customer's name.
    pub organization: String,
    /// The plan it starts on.
    pub plan: Plan,
    /// What it is billed in, for ever.
    pub currency: Currency,
    /// Where its billing periods begin.
    pub zone: Tz,
    /// Parts per million, 0 to 1,000,000.
    pub tax_rate_ppm: i64,
    /// The provider's token for its payment method; required on a paid plan.
    pub payment_token: Option<String>,
    /// The owner's address.
    pub email: Email,
    /// The owner's name.
    pub name: String,
    /// PHC string of the owner's password.
    pub password_hash: String,
}

/// Creates the tenant whose transaction this is, with its owner; its anchor is today in its own zone.
///
/// # Errors
/// `Conflict` on [`EMAIL_CONSTRAINT`] if the address is taken, in whichever tenant.
pub async fn sign_up(tx: &mut TenantTx, new: &NewTenant) -> Result<(), StoreError> {
    let tenant = tx.tenant_id().as_uuid();
    let (now,): (DateTime<Utc>,) = tx.one(sqlx::query_as("SELECT now()")).await?;
    let anchor = BillingCalendar::from_sign_up(new.zone, now).anchor_date;
    tx.execute(
        sqlx::query(
            "INSERT INTO app.tenants (tenant_id, organization, plan, currency, time_zone, tax_rate_ppm, anchor_date,
                                      signed_up_at, payment_token)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        )
        .bind(tenant)
        .bind(&new.organization)
        .bind(new.plan.as_str())
        .bind(new.currency.as_str())
        .bind(new.zone.name())
        .bind(new.tax_rate_ppm)
        .bind(anchor)
        .bind(now)
        .bind(&new.payment_token),
    )
    .await?;
    tx.execute(
        sqlx::query(
            "INSERT INTO app.users (tenant_id, user_id, email, name, password_hash, role, created_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7)",
        )
        .bind(tenant)
        .bind(new.user_id.as_uuid())
        .bind(new.email.as_str())
        .bind(&new.name)
        .bind(&new.password_hash)
        .bind(Role::Owner.as_str())
        .bind(now),
    )
    .await?;
    audit::record(tx, AuditEvent::of_tenant(AuditAction::SignedUp).by(new.user_id).now(new.plan.as_str())).await
}

/// What signing in needs to know about an address.
#[derive(FromRow)]
pub struct Credentials {
    tenant_id: Uuid,
    user_id: Uuid,
    /// PHC string.
    pub password_hash: String,
}

impl Credentials {
    /// The user's tenant.
    #[must_use]
    pub fn tenant_id(&self) -> TenantId {
        self.tenant_id.into()
    }

    /// The user.
    #[must_use]
    pub fn user_id(&self) -> UserId {
        self.user_id.into()
    }
}

/// Finds the account of an address, in whichever tenant; `None` if there is none.
///
/// # Errors
/// As [`StoreError`] says.
pub async fn credentials_by_email(db: &Db, email: &Email) -> Result<Option<Credentials>, StoreError> {
    let statement = "SELECT tenant_id, user_id, password_hash FROM app.auth_user_by_email($1)";
    let rows = db.read_all(|| sqlx::query_as(statement).bind(email.as_str().to_owned())).await?;
    Ok(rows.into_iter().next())
}

/// How many tenants there are, for the cap of the launch phase.
///
/// # Errors
/// As [`StoreError`] says.
pub async fn tenants_count(db: &Db) -> Result<u64, StoreError> {
    let rows: Vec<(i64,)> = db.read_all(|| sqlx::query_as("SELECT app.tenants_count()")).await?;
    rows.first().and_then(|(count,)| u64::try_from(*count).ok()).ok_or(StoreError::Corrupt { what: "tenants_count" })
}

/// Counts the tenants with this transaction's own, and makes every other transaction that asks so wait
/// until this one ends: sign-ups under a cap go one after the other, and none passes it.
///
/// # Errors
/// As [`StoreError`] says.
pub async fn tenants_count_locked(tx: &mut TenantTx) -> Result<u64, StoreError> {
    tx.execute(sqlx::query("SELECT pg_advisory_xact_lock(hashtextextended('app.customer_cap', 0))")).await?;
    // A statement of its own: its snapshot must be younger than the lock.
    let count: Option<i64> = tx.scalar(sqlx::query_scalar("SELECT app.tenants_count()")).await?;
    count.and_then(|count| u64::try_from(count).ok()).ok_or(StoreError::Corrupt { what: "tenants_count" })
}

/// Notes that a known user's address was tried with a wrong password.
///
/// # Errors
/// As [`StoreError`] says.
pub async fn note_failed_login(db: &Db, tenant: TenantId, user: UserId) -> Result<(), StoreError> {
    let mut tx = db.tenant(tenant).begin().await?;
    audit::record(&mut tx, AuditEvent::of_user(AuditAction::LoginFailed, user)).await?;
    tx.commit().await
}

/// The PHC string of a user's password; `None` if there is no such user, or no longer.
///
/// # Errors
/// As [`StoreError`] says.
pub async fn password_hash(tx: &mut TenantTx, user: UserId) -> Result<Option<String>, StoreError> {
    let query = sqlx::query_scalar(
        "SELECT password_hash FROM app.users WHERE tenant_id = $1 AND user_id = $2 AND removed_at IS NULL",
    );
    let tenant = tx.tenant_id().as_uuid();
    tx.scalar(query.bind(tenant).bind(user.as_uuid())).await
}

/// Gives a user another password and revokes its other sessions, which are returned; `None`, and nothing is
/// done, if its password is no longer the one that was checked.
///
/// # Errors
/// As [`StoreError`] says.
pub async fn change_password(
    tx: &mut TenantTx,
    user: UserId,
    session: SessionId,
    verified_hash: &str,
    new_hash: &str,
) -> Result<Option<Vec<SessionId>>, StoreError> {
    let query = sqlx::query(
        "UPDATE app.users SET password_hash = $4
         WHERE tenant_id = $1 AND user_id = $2 AND password_hash = $3 AND removed_at IS NULL",
    );
    let tenant = tx.tenant_id().as_uuid();
    if tx.execute(query.bind(tenant).bind(user.as_uuid()).bind(verified_hash).bind(new_hash)).await? != 1 {
        return Ok(None);
    }
    let ended = sessions::revoke_of_user(tx, user, Some(session)).await?;
    audit::record(tx, AuditEvent::of_user(AuditAction::PasswordChanged, user).by(user)).await?;
    Ok(Some(ended))
}

/// A user as it sees itself.
#[derive(Debug, FromRow)]
pub struct Profile {
    /// Its address.
    pub email: String,
    /// Its name.
    pub name: String,
    /// Its role, as stored.
    pub role: String,
    /// Its tenant's name.
    pub organization: String,
}

/// A user of this tenant; `None` if there is none of that id.
///
/// # Errors
/// As [`StoreError`] says.
pub async fn profile(tx: &mut TenantTx, user: UserId) -> Result<Option<Profile>, StoreError> {
    let query = sqlx::query_as(
        "SELECT u.email, u.name, u.role, t.organization
         FROM app.users u JOIN app.tenants t USING (tenant_id) WHERE u.tenant_id = $1 AND u.user_id = $2",
    );
    let tenant = tx.tenant_id().as_uuid();
    tx.optional(query.bind(tenant).bind(user.as_uuid())).await
}

/// What a tenant has agreed to, and the billing period it is in.
#[derive(Debug, Clone)]
pub struct Terms {
    /// The customer's name.
    pub organization: String,
    /// The plan whose limits hold: the subscribed one, or FREE while the tenant is past due.
    pub plan: Plan,
    /// The plan it is billed for.
    pub subscribed_plan: Plan,
    /// How it stands with what it owes.
    pub billing_state: BillingState,
    /// What it is billed in.
    pub currency: Currency,
    /// The billing period that the transaction's time lies in.
    pub period: Period,
}

#[derive(FromRow)]
pub(crate) struct TermsRow {
    pub(crate) organization: String,
    pub(crate) plan: String,
    pub(crate) billing_state: String,
    pub(crate) currency: String,
    pub(crate) time_zone: String,
    pub(crate) anchor_date: NaiveDate,
    pub(crate) now: DateTime<Utc>,
}

/// The tenant's terms now, in one trip. A downgrade whose time has come counts, whether or not the billing
/// run has applied it yet.
///
/// # Errors
/// `NotFound` if the tenant does not exist; `Corrupt` if its row does not read.
pub async fn terms(scope: &TenantScope) -> Result<Terms, StoreError> {
    let statement = "SELECT (tenant).organization, coalesce((due).to_plan, (tenant).plan) AS plan,
                (tenant).billing_state, (tenant).currency, (tenant).time_zone, (tenant).anchor_date, now() AS now
         FROM app.read_tenant($1)";
    terms_of(scope.read_one(statement, |query| query).await?)
}

/// The same at the transaction's time.
///
/// # Errors
/// As [`terms`].
pub async fn terms_in(tx: &mut TenantTx) -> Result<Terms, StoreError> {
    let query = sqlx::query_as(
        "SELECT t.organization, coalesce(due.to_plan, t.plan) AS plan, t.billing_state, t.currency, t.time_zone,
                t.anchor_date, now() AS now
         FROM app.tenants t
         LEFT JOIN app.plan_changes due
           ON due.tenant_id = t.tenant_id AND due.state = 'pending' AND due.effective_at <= now()
         WHERE t.tenant_id = $1",
    );
    let tenant = tx.tenant_id().as_uuid();
    let row: TermsRow = tx.one(query.bind(tenant)).await?;
    terms_of(row)
}

/// The same, and nobody else changes the tenant's row or takes it so until this transaction ends:
/// what is counted afterwards stays true.
///
/// # Errors
/// As [`terms`].
pub async fn terms_locked(tx: &mut TenantTx) -> Result<Terms, StoreError> {
    let query = sqlx::query_as(
        "SELECT t.organization, coalesce(due.to_plan, t.plan) AS plan, t.billing_state, t.currency, t.time_zone,
                t.anchor_date, now() AS now
         FROM app.tenants t
         LEFT JOIN app.plan_changes due
           ON due.tenant_id = t.tenant_id AND due.state = 'pending' AND due.effective_at <= now()
         WHERE t.tenant_id = $1 FOR NO KEY UPDATE OF t",
    );
    let tenant = tx.tenant_id().as_uuid();
    let row: TermsRow = tx.one(query.bind(tenant)).await?;
    terms_of(row)
}

pub(crate) fn terms_of(row: TermsRow) -> Result<Terms, StoreError> {
    let corrupt = |what| StoreError::Corrupt { what };
    let zone = forecastle_domain::parse_zone(&row.time_zone).map_err(|_| corrupt("tenants.time_zone"))?;
    let period = BillingCalendar::new(zone, row.anchor_date).period_containing(row.now);
    let subscribed_plan = row.plan.parse().map_err(|_| corrupt("tenants.plan"))?;
    let billing_state: BillingState = row.billing_state.parse().map_err(|_| corrupt("tenants.billing_state"))?;
    Ok(Terms {
        organization: row.organization,
        plan: billing_state.effective_plan(subscribed_plan),
        subscribed_plan,
        billing_state,
        currency: row.currency.parse().map_err(|_| corrupt("tenants.currency"))?,
        period: period.ok_or_else(|| corrupt("tenants.anchor_date"))?,
    })
}
