//! What a PostgreSQL server shows about its connections and locks, read as administrator.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use sqlx::{PgConnection, Row};

/// One reading of `pg_stat_activity` and `pg_locks`.
#[derive(Debug, Clone)]
pub(super) struct Activity {
    /// Client connections, of all roles.
    pub total: i64,
    /// Client connections by role.
    pub by_role: BTreeMap<String, i64>,
    /// Connections ordinary roles may fill: `max_connections` less the reserved ones.
    pub ordinary_limit: i64,
    /// Connections of this fault, without those that read the proofs.
    pub ours: i64,
    /// Table and row locks this fault holds.
    pub locks_held: i64,
    /// Connections that wait for a lock.
    pub waiting: i64,
}

impl Activity {
    pub(super) fn to_json(&self) -> Value {
        json!({
            "connections": self.total,
            "connections_by_role": self.by_role,
            "ordinary_limit": self.ordinary_limit,
            "held_by_fault": self.ours,
            "locks_held_by_fault": self.locks_held,
            "connections_waiting_for_lock": self.waiting,
        })
    }
}

/// Ours are those whose name is `name` or `name` with `-lock` behind.
pub(super) async fn read(admin: &mut PgConnection, name: &str) -> Result<Activity, String> {
    let lock_name = format!("{name}-lock");
    let row = sqlx::query(
        "SELECT count(*) AS total, \
                count(*) FILTER (WHERE application_name IN ($1, $2)) AS ours, \
                count(*) FILTER (WHERE wait_event_type = 'Lock') AS waiting, \
                (SELECT count(*) FROM pg_locks l JOIN pg_stat_activity a USING (pid) \
                  WHERE a.application_name = $2 AND l.granted \
                    AND l.locktype IN ('relation', 'tuple', 'advisory')) AS locks_held \
           FROM pg_stat_activity WHERE backend_type = 'client backend'",
    )
    .bind(name)
    .bind(&lock_name)
    .fetch_one(&mut *admin)
    .await
    .map_err(|error| error.to_string())?;
    let by_role = sqlx::query(
        "SELECT coalesce(usename::text, '') AS role, count(*) AS connections FROM pg_stat_activity \
          WHERE backend_type = 'client backend' GROUP BY 1 ORDER BY 1",
    )
    .fetch_all(&mut *admin)
    .await
    .map_err(|error| error.to_string())?
    .into_iter()
    .map(|row| (row.get::<String, _>("role"), row.get::<i64, _>("connections")))
    .collect();
    Ok(Activity {
        total: row.get("total"),
        by_role,
        ordinary_limit: ordinary_limit(admin).await?,
        ours: row.get("ours"),
        locks_held: row.get("locks_held"),
        waiting: row.get("waiting"),
    })
}

/// How many connections may be opened until only `leave_free` are left to ordinary roles.
pub(super) async fn room(admin: &mut PgConnection, leave_free: u32) -> Result<i64, String> {
    let total: i64 = sqlx::query_scalar("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'")
        .fetch_one(&mut *admin)
        .await
        .map_err(|error| error.to_string())?;
    Ok(ordinary_limit(admin).await? - i64::from(leave_free) - total)
}

async fn ordinary_limit(admin: &mut PgConnection) -> Result<i64, String> {
    // reserved_connections exists from PostgreSQL 16 on.
    sqlx::query_scalar(
        "SELECT current_setting('max_connections')::bigint \
              - current_setting('superuser_reserved_connections')::bigint \
              - coalesce(current_setting('reserved_connections', true), '0')::bigint",
    )
    .fetch_one(admin)
    .await
    .map_err(|error| error.to_string())
}

/// Ends the idle connections of these roles, those of the fault `name` excepted; returns how many.
pub(super) async fn evict_idle(admin: &mut PgConnection, roles: &[String], name: &str) -> Result<i64, String> {
    sqlx::query_scalar(
        "SELECT count(*) FILTER (WHERE pg_terminate_backend(pid)) FROM pg_stat_activity \
          WHERE usename::text = ANY($1) AND state = 'idle' AND pid <> pg_backend_pid() \
            AND application_name NOT IN ($2, $2 || '-lock', $2 || '-admin')",
    )
    .bind(roles)
    .bind(name)
    .fetch_one(admin)
    .await
    .map_err(|error| error.to_string())
}

/// Ends whatever connections of this fault are left.
pub(super) async fn evict_ours(admin: &mut PgConnection, name: &str) -> Result<i64, String> {
    sqlx::query_scalar(
        "SELECT count(*) FILTER (WHERE pg_terminate_backend(pid)) FROM pg_stat_activity \
          WHERE application_name IN ($1, $1 || '-lock') AND pid <> pg_backend_pid()",
    )
    .bind(name)
    .fetch_one(admin)
    .await
    .map_err(|error| error.to_string())
}
