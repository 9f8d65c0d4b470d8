//! What can go wrong between Forecastle and its database, in the words a caller decides by.
//!
//! No sqlx or redis type leaves this crate, and no error text carries a value from a row.

use sqlx::error::DatabaseError;

/// Why the database could not be asked. All of them mean "later": the API answers 503.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnavailableReason {
    /// Every connection of this process's pool is in use and none came free in time.
    PoolExhausted,
    /// No connection, or it broke.
    Unreachable,
    /// The server refused work for now: too many connections, starting, stopping, out of space.
    ServerBusy,
    /// Chosen as the victim of a deadlock or a serialisation conflict; nothing was written.
    Contention,
    /// The server only reads at the moment.
    ReadOnly,
}

impl UnavailableReason {
    /// A stable word for logs and metric labels.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::PoolExhausted => "pool_exhausted",
            Self::Unreachable => "unreachable",
            Self::ServerBusy => "server_busy",
            Self::Contention => "contention",
            Self::ReadOnly => "read_only",
        }
    }
}

/// Any failure of a store operation.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The database cannot be asked now. Nothing of this transaction was committed.
    #[error("database unavailable: {}", reason.as_str())]
    Unavailable {
        /// What stood in the way.
        reason: UnavailableReason,
    },
    /// A statement or a lock took longer than its limit. Nothing of this transaction was committed.
    #[error("database time-out")]
    Timeout,
    /// COMMIT was sent and its answer did not come: the transaction may or may not have happened.
    #[error("commit outcome unknown")]
    CommitUnknown,
    /// A unique key is taken already.
    #[error("conflict on {constraint}")]
    Conflict {
        /// Name of the constraint as the migrations give it, e.g. `users_email_key`.
        constraint: String,
    },
    /// No such row for this tenant.
    #[error("not found")]
    NotFound,
    /// A stored value is not what the code wrote: a bug or tampering.
    #[error("corrupt row: {what}")]
    Corrupt {
        /// Table and column, never the value.
        what: &'static str,
    },
    /// The login given to this process is one that row-level security does not bind: tenants would be kept
    /// apart by the queries alone.
    #[error("the database login {why}; give the address of forecastle_app")]
    UnboundRole {
        /// What is wrong with it.
        why: &'static str,
    },
    /// The database refused a statement that should never be refused: a bug.
    #[error("statement refused ({code})")]
    Refused {
        /// SQLSTATE, or the constraint's name for a violated check.
        code: String,
    },
}

impl StoreError {
    /// Whether the same call may succeed later without anybody changing anything (API: 503).
    #[must_use]
    pub const fn is_unavailable(&self) -> bool {
        matches!(self, Self::Unavailable { .. } | Self::Timeout | Self::CommitUnknown)
    }

    /// Whether a unique key of this name was already taken.
    #[must_use]
    pub fn is_conflict_on(&self, name: &str) -> bool {
        matches!(self, Self::Conflict { constraint } if constraint == name)
    }

    pub(crate) const fn unavailable(reason: UnavailableReason) -> Self {
        Self::Unavailable { reason }
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        match error {
            sqlx::Error::Database(database) => from_database(database.as_ref()),
            sqlx::Error::RowNotFound => Self::NotFound,
            sqlx::Error::ColumnDecode { .. }
            | sqlx::Error::Decode(_)
            | sqlx::Error::ColumnNotFound(_)
            | sqlx::Error::ColumnIndexOutOfBounds { .. }
            | sqlx::Error::TypeNotFound { .. } => Self::Corrupt { what: "column does not decode" },
            sqlx::Error::PoolTimedOut => Self::unavailable(UnavailableReason::PoolExhausted),
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::Protocol(_)
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed
            | sqlx::Error::BeginFailed => Self::unavailable(UnavailableReason::Unreachable),
            _ => Self::Refused { code: "client".to_owned() },
        }
    }
}

fn from_database(error: &dyn DatabaseError) -> StoreError {
    let code = error.code().unwrap_or_default();
    let reason = match code.as_ref() {
        "23505" => {
            return StoreError::Conflict { constraint: error.constraint().unwrap_or_default().to_owned() };
        }
        "57014" | "55P03" => return StoreError::Timeout,
        "40001" | "40P01" => UnavailableReason::Contention,
        "25006" => UnavailableReason::ReadOnly,
        "25P03" | "57P01" | "57P02" | "57P03" | "57P05" => UnavailableReason::Unreachable,
        _ if code.starts_with("53") || code.starts_with("58") => UnavailableReason::ServerBusy,
        _ if code.starts_with("08") || code.starts_with("28") => UnavailableReason::Unreachable,
        _ => {
            return StoreError::Refused { code: error.constraint().map_or_else(|| code.into_owned(), str::to_owned) };
        }
    };
    StoreError::unavailable(reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_connection_is_worth_another_try_and_a_refused_statement_is_not() {
        let broken = StoreError::from(sqlx::Error::Io(std::io::ErrorKind::BrokenPipe.into()));
        assert_eq!(broken, StoreError::unavailable(UnavailableReason::Unreachable));
        assert!(broken.is_unavailable());
        assert!(!StoreError::from(sqlx::Error::RowNotFound).is_unavailable());
    }
}
