//! The audit log: who did what to which object, and when. Written in the transaction of the act itself,
//! so an act that did not happen leaves no event and one that did cannot be without.
//!
//! Law: only ever added to, and no event holds an address, a name, an amount or a secret. What changed is
//! told in words of fixed lists (a role, a plan); the database refuses anything longer.

use chrono::{DateTime, Utc};
use forecastle_domain::{AuditAction, AuditObject, SessionId, UserId};
use sqlx::FromRow;
use uuid::Uuid;

use crate::error::StoreError;
use crate::paging::{Page, PageKey};
use crate::scope::TenantTx;

/// An act to be remembered.
#[derive(Debug, Clone, Copy)]
pub struct AuditEvent {
    action: AuditAction,
    actor: Option<UserId>,
    object: (AuditObject, Option<Uuid>),
    before: Option<&'static str>,
    after: Option<&'static str>,
}

impl AuditEvent {
    /// Something done to the tenant itself: its plan, its payment method.
    #[must_use]
    pub const fn of_tenant(action: AuditAction) -> Self {
        Self { action, actor: None, object: (AuditObject::Tenant, None), before: None, after: None }
    }

    /// Something done to a user.
    #[must_use]
    pub fn of_user(action: AuditAction, user: UserId) -> Self {
        let object = (AuditObject::User, Some(user.as_uuid()));
        Self { action, actor: None, object, before: None, after: None }
    }

    /// Something done to a session.
    #[must_use]
    pub fn of_session(action: AuditAction, session: SessionId) -> Self {
        let object = (AuditObject::Session, Some(session.as_uuid()));
        Self { action, actor: None, object, before: None, after: None }
    }

    /// Who did it; without one, the system or somebody unknown.
    #[must_use]
    pub const fn by(mut self, actor: UserId) -> Self {
        self.actor = Some(actor);
        self
    }

    /// What it was before and after: words such as a role's or a plan's.
    #[must_use]
    pub const fn changed(mut self, before: &'static str, after: &'static str) -> Self {
        self.before = Some(before);
        self.after = Some(after);
        self
    }

    /// What it is now.
    #[must_use]
    pub const fn now(mut self, after: &'static str) -> Self {
        self.after = Some(after);
        self
    }
}

/// Adds an event to the transaction of the act that it tells of.
///
/// # Errors
/// As [`StoreError`] says.
pub async fn record(tx: &mut TenantTx, event: AuditEvent) -> Result<(), StoreError> {
    let tenant = tx.tenant_id().as_uuid();
    let (kind, object) = event.object;
    let query = sqlx::query(
        "INSERT INTO app.audit_events
             (tenant_id, event_id, occurred_at, actor_id, action, object_kind, object_id, before, after)
         VALUES ($1, $2, clock_timestamp(), $3, $4, $5, $6, $7, $8)",
    );
    let query = query
        .bind(tenant)
        .bind(Uuid::now_v7())
        .bind(event.actor.map(UserId::as_uuid))
        .bind(event.action.as_str())
        .bind(kind.as_str())
        .bind(object.unwrap_or(tenant))
        .bind(event.before)
        .bind(event.after);
    tx.execute(query).await.map(drop)
}

/// An event as it stands in the log.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct AuditRow {
    event_id: Uuid,
    /// When it happened.
    pub occurred_at: DateTime<Utc>,
    /// Who did it, if that is known.
    pub actor_id: Option<Uuid>,
    /// The act, as stored.
    pub action: String,
    /// What kind of thing it was done to.
    pub object_kind: String,
    /// Which one.
    pub object_id: Uuid,
    /// What it was.
    pub before: Option<String>,
    /// What it is now.
    pub after: Option<String>,
}

impl AuditRow {
    /// Names the event.
    #[must_use]
    pub const fn id(&self) -> Uuid {
        self.event_id
    }
}

/// The tenant's events, the newest first, from `after` on.
///
/// # Errors
/// As [`StoreError`] says.
pub async fn list(tx: &mut TenantTx, after: PageKey, limit: u32) -> Result<Page<AuditRow>, StoreError> {
    let query = sqlx::query_as(
        "SELECT event_id, occurred_at, actor_id, action, object_kind, object_id, before, after FROM app.audit_events
         WHERE tenant_id = $1 AND (occurred_at, event_id) < ($2, $3)
         ORDER BY occurred_at DESC, event_id DESC LIMIT $4",
    );
    let tenant = tx.tenant_id().as_uuid();
    let query = query.bind(tenant).bind(after.at).bind(after.id).bind(i64::from(limit) + 1);
    let rows: Vec<AuditRow> = tx.all(query).await?;
    Ok(Page::of(rows, limit, |row| PageKey { at: row.occurred_at, id: row.event_id }))
}
