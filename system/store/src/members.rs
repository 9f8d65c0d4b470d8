//! A tenant's users as its owners manage them: add, rename, re-role, remove.
//!
//! Law: a tenant never has more users than its plan allows and never none who owns it. Whatever counts or
//! changes them does so behind the tenant's row lock, so two owners at once are as safe as one after the
//! other, and looks again there whether the one who asks is still an owner.

use chrono::{DateTime, Utc};
use forecastle_domain::{AuditAction, Email, Plan, Right, Role, SessionId, UserId};
use sqlx::FromRow;
use uuid::Uuid;

use crate::audit::{self, AuditEvent};
use crate::error::StoreError;
use crate::paging::{Page, PageKey};
use crate::scope::TenantTx;
use crate::{identity, sessions};

/// A user who has not been removed.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct Member {
    user_id: Uuid,
    /// Its address.
    pub email: String,
    /// Its name.
    pub name: String,
    /// Its role, as stored.
    pub role: String,
    /// When it joined.
    pub created_at: DateTime<Utc>,
}

impl Member {
    /// Names the user.
    #[must_use]
    pub fn id(&self) -> UserId {
        self.user_id.into()
    }

    fn role(&self) -> Result<Role, StoreError> {
        self.role.parse().map_err(|_| StoreError::Corrupt { what: "users.role" })
    }
}

/// The tenant's users, the newest first, from `after` on.
///
/// # Errors
/// As [`StoreError`] says.
pub async fn list(tx: &mut TenantTx, after: PageKey, limit: u32) -> Result<Page<Member>, StoreError> {
    let query = sqlx::query_as(
        "SELECT user_id, email, name, role, created_at FROM app.users
         WHERE tenant_id = $1 AND removed_at IS NULL AND (created_at, user_id) < ($2, $3)
         ORDER BY created_at DESC, user_id DESC LIMIT $4",
    );
    let tenant = tx.tenant_id().as_uuid();
    let query = query.bind(tenant).bind(after.at).bind(after.id).bind(i64::from(limit) + 1);
    let rows: Vec<Member> = tx.all(query).await?;
    Ok(Page::of(rows, limit, |row| PageKey { at: row.created_at, id: row.user_id }))
}

/// A user of this tenant; `None` if there is none of that id, or no longer.
///
/// # Errors
/// As [`StoreError`] says.
pub async fn read(tx: &mut TenantTx, user: UserId) -> Result<Option<Member>, StoreError> {
    let query = sqlx::query_as(
        "SELECT user_id, email, name, role, created_at FROM app.users
         WHERE tenant_id = $1 AND user_id = $2 AND removed_at IS NULL",
    );
    let tenant = tx.tenant_id().as_uuid();
    tx.optional(query.bind(tenant).bind(user.as_uuid())).await
}

/// A user to be.
pub struct NewMember {
    /// Its id, made by the caller.
    pub user_id: UserId,
    /// Its address.
    pub email: Email,
    /// Its name.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// PHC string of its first password.
    pub password_hash: String,
}

/// What became of an addition.
#[derive(Debug)]
pub enum Added {
    /// The user is there.
    Member(Member),
    /// The plan has no room.
    LimitReached {
        /// The plan in force.
        plan: Plan,
        /// How many users it has room for.
        limit: u32,
    },
    /// Whoever asked is no owner any more.
    NotAllowed,
}

/// Adds a user, within the plan's limit.
///
/// # Errors
/// `Conflict` on [`identity::EMAIL_CONSTRAINT`] if the address is taken, in whichever tenant.
pub async fn add(tx: &mut TenantTx, actor: UserId, new: &NewMember) -> Result<Added, StoreError> {
    let plan = identity::terms_locked(tx).await?.plan;
    if !may_manage(tx, actor).await? {
        return Ok(Added::NotAllowed);
    }
    let tenant = tx.tenant_id().as_uuid();
    // A statement of its own: its snapshot must be younger than the lock.
    let query = sqlx::query_scalar("SELECT count(*) FROM app.users WHERE tenant_id = $1 AND removed_at IS NULL");
    let count: i64 = tx.scalar(query.bind(tenant)).await?.unwrap_or(0);
    let limit = plan.user_limit();
    if count >= i64::from(limit) {
        return Ok(Added::LimitReached { plan, limit });
    }
    let query = sqlx::query_as(
        "INSERT INTO app.users (tenant_id, user_id, email, name, password_hash, role, created_at)
         VALUES ($1, $2, $3, $4, $5, $6, now())
         RETURNING user_id, email, name, role, created_at",
    );
    let query = query
        .bind(tenant)
        .bind(new.user_id.as_uuid())
        .bind(new.email.as_str())
        .bind(&new.name)
        .bind(&new.password_hash)
        .bind(new.role.as_str());
    let member = tx.one(query).await?;
    let event = AuditEvent::of_user(AuditAction::MemberAdded, new.user_id).by(actor).now(new.role.as_str());
    audit::record(tx, event).await?;
    Ok(Added::Member(member))
}

/// What became of a change.
#[derive(Debug)]
pub enum Changed {
    /// The user is as wanted.
    Member {
        /// As it is now.
        member: Member,
        /// Its live sessions, where a role was wanted: what is known of them elsewhere may be out of date.
        /// Also where the role stood already: whoever set it may not have made that known yet, or ever.
        out_of_date: Vec<SessionId>,
    },
    /// It is the only owner and would be none.
    LastOwner,
    /// There is no such user.
    NotFound,
    /// Whoever asked is no owner any more.
    NotAllowed,
}

/// Gives a user another name, another role, or both.
///
/// # Errors
/// As [`StoreError`] says.
pub async fn change(
    tx: &mut TenantTx,
    actor: UserId,
    user: UserId,
    name: Option<&str>,
    role: Option<Role>,
) -> Result<Changed, StoreError> {
    lock_tenant(tx).await?;
    if !may_manage(tx, actor).await? {
        return Ok(Changed::NotAllowed);
    }
    let Some(before) = read(tx, user).await? else { return Ok(Changed::NotFound) };
    let role_before = before.role()?;
    let names_role = role.is_some();
    let role = role.unwrap_or(role_before);
    if role_before == Role::Owner && role != Role::Owner && owners(tx).await? <= 1 {
        return Ok(Changed::LastOwner);
    }
    let query = sqlx::query_as(
        "UPDATE app.users SET name = $3, role = $4 WHERE tenant_id = $1 AND user_id = $2
         RETURNING user_id, email, name, role, created_at",
    );
    let tenant = tx.tenant_id().as_uuid();
    let query = query.bind(tenant).bind(user.as_uuid()).bind(name.unwrap_or(&before.name)).bind(role.as_str());
    let member: Member = tx.one(query).await?;
    if member.name != before.name {
        audit::record(tx, AuditEvent::of_user(AuditAction::MemberRenamed, user).by(actor)).await?;
    }
    if role != role_before {
        let event = AuditEvent::of_user(AuditAction::MemberRoleChanged, user).by(actor);
        audit::record(tx, event.changed(role_before.as_str(), role.as_str())).await?;
    }
    // After the update: whoever opens a session from here on waits for it, and reads the new role.
    let out_of_date = if names_role { sessions::live_of_user(tx, user).await? } else { Vec::new() };
    Ok(Changed::Member { member, out_of_date })
}

/// What became of a removal.
#[derive(Debug)]
pub enum Removed {
    /// The user is gone, and these sessions with it.
    Member {
        /// Every session that was live.
        ended: Vec<SessionId>,
    },
    /// It had been removed before; these sessions may still be known elsewhere.
    Before {
        /// Every session of its that has not run out yet.
        ended: Vec<SessionId>,
    },
    /// It is the only owner.
    LastOwner,
    /// There never was such a user.
    NotFound,
    /// Whoever asked is no owner any more.
    NotAllowed,
}

/// Removes a user: its sessions end, its password and the links in its mails are worth nothing, its
/// address is free. What refers to it stays.
///
/// # Errors
/// As [`StoreError`] says.
pub async fn remove(tx: &mut TenantTx, actor: UserId, user: UserId) -> Result<Removed, StoreError> {
    lock_tenant(tx).await?;
    if !may_manage(tx, actor).await? {
        return Ok(Removed::NotAllowed);
    }
    let tenant = tx.tenant_id().as_uuid();
    let Some(member) = read(tx, user).await? else {
        let query = sqlx::query_scalar("SELECT true FROM app.users WHERE tenant_id = $1 AND user_id = $2");
        let was_here: Option<bool> = tx.scalar(query.bind(tenant).bind(user.as_uuid())).await?;
        return Ok(match was_here {
            Some(_) => Removed::Before { ended: sessions::unexpired_of_user(tx, user).await? },
            None => Removed::NotFound,
        });
    };
    if member.role()? == Role::Owner && owners(tx).await? <= 1 {
        return Ok(Removed::LastOwner);
    }
    // The address in its place is drawn, not made of what a colleague knows: one who had taken it before
    // could not be removed, nor could whoever it was made for.
    let query = sqlx::query(
        "UPDATE app.users SET removed_at = clock_timestamp(), password_hash = 'removed',
                              email = 'removed-' || gen_random_uuid() || '@removed.invalid'
         WHERE tenant_id = $1 AND user_id = $2",
    );
    tx.execute(query.bind(tenant).bind(user.as_uuid())).await?;
    let ended = sessions::revoke_of_user(tx, user, None).await?;
    let query = sqlx::query(
        "UPDATE app.mail_tokens SET used_at = clock_timestamp()
         WHERE tenant_id = $1 AND user_id = $2 AND used_at IS NULL",
    );
    tx.execute(query.bind(tenant).bind(user.as_uuid())).await?;
    let event = AuditEvent::of_user(AuditAction::MemberRemoved, user).by(actor);
    audit::record(tx, event.changed(member.role()?.as_str(), "removed")).await?;
    Ok(Removed::Member { ended })
}

/// Whoever adds, changes or removes users of this tenant waits here for their turn.
async fn lock_tenant(tx: &mut TenantTx) -> Result<(), StoreError> {
    let query = sqlx::query_scalar("SELECT true FROM app.tenants WHERE tenant_id = $1 FOR NO KEY UPDATE");
    let tenant = tx.tenant_id().as_uuid();
    tx.scalar::<bool>(query.bind(tenant)).await?.map(drop).ok_or(StoreError::NotFound)
}

async fn may_manage(tx: &mut TenantTx, actor: UserId) -> Result<bool, StoreError> {
    match read(tx, actor).await? {
        Some(member) => Ok(member.role()?.may(Right::ManageUsers)),
        None => Ok(false),
    }
}

async fn owners(tx: &mut TenantTx) -> Result<i64, StoreError> {
    let query = sqlx::query_scalar(
        "SELECT count(*) FROM app.users WHERE tenant_id = $1 AND role = 'owner' AND removed_at IS NULL",
    );
    let tenant = tx.tenant_id().as_uuid();
    Ok(tx.scalar(query.bind(tenant)).await?.unwrap_or(0))
}
