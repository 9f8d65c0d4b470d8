//! Connections to a PostgreSQL server: opened, asked and closed, each within a limit.

use std::{
    net::{SocketAddr, ToSocketAddrs},
    str::FromStr,
    time::Duration,
};

use sqlx::{AssertSqlSafe, Connection, PgConnection, postgres::PgConnectOptions};

use crate::fault::InstallError;

pub(super) const CONNECT_MS_MAX: u64 = 5_000;
/// One statement of a proof.
const ANSWER_MS_MAX: u64 = 5_000;

/// The options a DSN gives.
///
/// # Errors
/// [`InstallError::Parameter`] for a DSN that cannot be read.
pub(super) fn options(parameter: &'static str, dsn: &str) -> Result<PgConnectOptions, InstallError> {
    PgConnectOptions::from_str(dsn).map_err(|_| InstallError::Parameter {
        parameter,
        // The parser's own words could repeat the password.
        reason: "not a PostgreSQL URL".into(),
    })
}

pub(super) fn address_of(parameter: &'static str, options: &PgConnectOptions) -> Result<SocketAddr, InstallError> {
    let host = options.get_host();
    (host, options.get_port())
        .to_socket_addrs()
        .ok()
        .and_then(|mut found| found.find(SocketAddr::is_ipv4).or_else(|| found.next()))
        .ok_or_else(|| InstallError::Parameter { parameter, reason: format!("host {host} has no address") })
}

pub(super) async fn connect(options: &PgConnectOptions) -> Result<PgConnection, String> {
    let limit = Duration::from_millis(CONNECT_MS_MAX);
    match tokio::time::timeout(limit, PgConnection::connect_with(options)).await {
        Ok(Ok(connection)) => Ok(connection),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no answer within {CONNECT_MS_MAX} ms")),
    }
}

/// Closes politely; a connection that cannot be told any more is dropped, which also ends it.
pub(super) async fn close(connection: PgConnection) {
    let limit = Duration::from_millis(CONNECT_MS_MAX);
    if let Ok(Err(error)) = tokio::time::timeout(limit, connection.close()).await {
        tracing::debug!(%error, "connection was gone before it was closed");
    }
}

/// Runs statements that give no rows, on the simple protocol.
pub(super) async fn run(connection: &mut PgConnection, statements: &str) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(AssertSqlSafe(statements.to_owned())).execute(connection).await.map(drop)
}

/// The SQLSTATE with the server's words, or what else went wrong.
pub(super) fn in_words(error: &sqlx::Error) -> String {
    match error {
        sqlx::Error::Database(refusal) => {
            format!("{}: {}", refusal.code().unwrap_or_default(), refusal.message())
        }
        other => other.to_string(),
    }
}

/// Whether the server refused with this SQLSTATE.
pub(super) fn refused_with(error: &sqlx::Error, sqlstate: &str) -> bool {
    matches!(error, sqlx::Error::Database(refusal) if refusal.code().as_deref() == Some(sqlstate))
}

/// The administrator of one server: a name for the sessions, and questions on connections of their own.
#[derive(Clone)]
pub(super) struct Admin {
    pub options: PgConnectOptions,
    pub address: SocketAddr,
    /// `nogo-fault-<id>`; further parts come behind it.
    pub name: String,
}

impl Admin {
    /// # Errors
    /// [`InstallError::Parameter`] for an id or DSN that cannot be used.
    pub(super) fn new(id: &str, dsn: &str) -> Result<Self, InstallError> {
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
        if id.is_empty() || id.len() > 32 || !id.chars().all(plain) {
            return Err(InstallError::Parameter {
                parameter: "id",
                reason: "not 1 to 32 letters, digits and dashes".into(),
            });
        }
        let options = options("admin_dsn", dsn)?;
        let address = address_of("admin_dsn", &options)?;
        Ok(Self { options, address, name: format!("nogo-fault-{id}") })
    }

    /// A session that does harm; its name tells it from those that only look.
    pub(super) async fn session(&self, part: &str) -> Result<PgConnection, String> {
        let name = format!("{}-{part}", self.name);
        let mut connection = connect(&self.options.clone().application_name(&name)).await?;
        run(&mut connection, "SET idle_in_transaction_session_timeout = 0; SET statement_timeout = 0")
            .await
            .map_err(|error| in_words(&error))?;
        Ok(connection)
    }

    /// How many sessions of one of the fault's parts the server still has.
    pub(super) async fn sessions(&self, part: &str) -> Result<i64, String> {
        let theirs = format!("application_name = '{}-{part}'", self.name);
        let (sessions,) = self.ask(&format!("SELECT count(*) FROM pg_stat_activity WHERE {theirs}")).await?;
        Ok(sessions)
    }

    /// One row for one question, on a connection of its own.
    pub(super) async fn ask<T>(&self, question: &str) -> Result<T, String>
    where
        T: Send + Unpin + for<'r> sqlx::FromRow<'r, sqlx::postgres::PgRow>,
    {
        let mut connection = connect(&self.options.clone().application_name(&format!("{}-look", self.name))).await?;
        let answer = sqlx::query_as(AssertSqlSafe(question.to_owned())).fetch_one(&mut connection);
        let answer = tokio::time::timeout(Duration::from_millis(ANSWER_MS_MAX), answer).await;
        close(connection).await;
        match answer {
            Ok(answer) => answer.map_err(|error| in_words(&error)),
            Err(_) => Err(format!("no answer within {ANSWER_MS_MAX} ms")),
        }
    }

    /// Runs statements on a connection of its own.
    pub(super) async fn tell(&self, statements: &[&str]) -> Result<(), String> {
        let mut connection = connect(&self.options.clone().application_name(&format!("{}-tell", self.name))).await?;
        let mut outcome = Ok(());
        for statement in statements {
            outcome = run(&mut connection, statement).await.map_err(|error| in_words(&error));
            if outcome.is_err() {
                break;
            }
        }
        close(connection).await;
        outcome
    }

    /// Ends whatever session of that part is left, from the server's side; how many were left.
    pub(super) async fn end_sessions(&self, part: &str) -> Result<i64, String> {
        let (ended,): (i64,) = self
            .ask(&format!(
                "SELECT count(*) FILTER (WHERE pg_terminate_backend(pid)) FROM pg_stat_activity \
                  WHERE application_name = '{}-{part}'",
                self.name
            ))
            .await?;
        Ok(ended)
    }
}
