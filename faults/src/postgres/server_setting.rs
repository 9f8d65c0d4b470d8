//! A setting of the whole server changed and put back, each seen by a session that began afterwards.

use super::session::Admin;

/// One setting of one server.
pub(super) struct ServerSetting {
    admin: Admin,
    name: &'static str,
}

impl ServerSetting {
    pub(super) fn new(admin: Admin, name: &'static str) -> Self {
        Self { admin, name }
    }

    /// Changes it for all sessions that do not set it themselves. `value` is a word or number.
    pub(super) async fn set(&self, value: &str) -> Result<(), String> {
        let statement = format!("ALTER SYSTEM SET {} = '{value}'", self.name);
        self.admin.tell(&[&statement, "SELECT pg_reload_conf()"]).await
    }

    /// Puts back what holds without us. Once more changes nothing.
    pub(super) async fn reset(&self) -> Result<(), String> {
        let statement = format!("ALTER SYSTEM RESET {}", self.name);
        self.admin.tell(&[&statement, "SELECT pg_reload_conf()"]).await
    }

    /// What a new session gets now, and whether it comes from a change like ours.
    pub(super) async fn read(&self) -> Result<Reading, String> {
        self.admin
            .ask(&format!(
                "SELECT setting AS value, coalesce(sourcefile LIKE '%postgresql.auto.conf', false) AS is_changed \
                   FROM pg_settings WHERE name = '{}'",
                self.name
            ))
            .await
    }
}

/// A setting as a new session sees it.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub(super) struct Reading {
    pub value: String,
    pub is_changed: bool,
}
