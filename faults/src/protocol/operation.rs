//! What a request asks for, as far as rules and listings tell requests apart, and how it went.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{
    http::HttpOperation,
    postgres::PostgresOperation,
    redis::RedisOperation,
    rule::{CommitPattern, HttpPattern, Pattern, PostgresPattern, RedisPattern},
};

/// A language that a connection can be followed in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// PostgreSQL's frontend/backend protocol, version 3.
    Postgres,
    /// Redis, RESP2 and RESP3.
    Redis,
    /// HTTP/1.0 and 1.1.
    Http,
}

/// What one request asks for.
#[derive(Debug, Clone)]
pub(super) enum Operation {
    Postgres(PostgresOperation),
    Redis(RedisOperation),
    Http(HttpOperation),
}

impl Operation {
    /// A line for people: the statement's head, the command with its key, or method and path.
    pub(super) fn label(&self) -> String {
        match self {
            Self::Postgres(operation) => operation.label(),
            Self::Redis(operation) => operation.label(),
            Self::Http(operation) => operation.label(),
        }
    }

    /// Whether something lasting may change here: a commit, a write to Redis, a call over HTTP.
    pub(super) fn is_point(&self) -> bool {
        match self {
            Self::Postgres(operation) => operation.commit.as_ref().is_some_and(|commit| commit.wrote),
            Self::Redis(operation) => operation.writes(),
            Self::Http(_) => true,
        }
    }

    /// Whether rules may look at it; a command that only waits for its EXEC has no effect to lose.
    pub(super) fn may_match(&self) -> bool {
        match self {
            Self::Redis(operation) => !operation.queued,
            Self::Postgres(_) | Self::Http(_) => true,
        }
    }

    /// The pattern that matches this operation and its equals in another run, not its values.
    pub(super) fn pattern(&self) -> Pattern {
        match self {
            Self::Postgres(operation) => Pattern::Postgres(match &operation.commit {
                Some(commit) => {
                    PostgresPattern { statement: Some(commit.transaction.clone()), commit: Some(CommitPattern::Every) }
                }
                None => PostgresPattern {
                    statement: operation.statements.first().map(|statement| statement.hash.clone()),
                    commit: None,
                },
            }),
            Self::Redis(operation) => Pattern::Redis(RedisPattern {
                command: Some(operation.command.clone()),
                key_prefix: operation.keys.first().map(|key| key_family(key).to_owned()),
                script: operation.script.clone(),
                writes: false,
            }),
            Self::Http(operation) => Pattern::Http(HttpPattern {
                method: Some(operation.method.clone()),
                path: Some(operation.path.clone()),
            }),
        }
    }
}

/// The key up to and with its first colon: what names the kind of key and not the one key.
pub(super) fn key_family(key: &str) -> &str {
    key.find(':').map_or(key, |colon| &key[..=colon])
}

/// How a request went, read from the server's own answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The server said that it did it.
    Done,
    /// The server refused, with its own code: a SQLSTATE, a Redis error word, an HTTP status.
    Refused {
        /// The code, or `unknown`.
        code: String,
    },
    /// A COMMIT that the server answered with ROLLBACK, or an EXEC it answered with nothing.
    RolledBack,
    /// Skipped by the server after an earlier error, or answered in its place by a rule.
    NotRun,
    /// The connection ended before the answer did.
    Unanswered,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done => f.write_str("done"),
            Self::Refused { code } => write!(f, "refused {code}"),
            Self::RolledBack => f.write_str("rolled back"),
            Self::NotRun => f.write_str("not run"),
            Self::Unanswered => f.write_str("unanswered"),
        }
    }
}
