//! A rule as data: who, which request, the k-th of them, before whom, and what happens to it.
//!
//! ```toml
//! name = "lost-receipt"
//! role = "worker"
//! match.postgres = { commit = "every", statement = "UPDATE jobs" }
//! k = 3
//! where = "before_client"
//! action = "cut"
//! ```

use serde::{Deserialize, Serialize};

use super::{operation::Protocol, postgres::normalised_head};

/// Longest name of a rule, bytes.
const NAME_BYTES_MAX: usize = 128;
/// Longest delay or hold, milliseconds: ten minutes, longer than any run waits for one request.
const MS_MAX: u64 = 600_000;

/// What happens to which request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Unique within a book, 1 to 128 bytes.
    pub name: String,
    /// The process (`worker-1`) or the role (`worker`) whose requests count; everybody's if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// Which requests count.
    #[serde(rename = "match")]
    pub pattern: Pattern,
    /// Which of them, counted over all connections.
    pub k: Occurrence,
    /// On which side of the server's work.
    #[serde(rename = "where")]
    pub place: Place,
    /// What happens.
    pub action: Action,
}

/// Which requests a rule counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pattern {
    /// Requests to PostgreSQL.
    Postgres(PostgresPattern),
    /// Requests to Redis.
    Redis(RedisPattern),
    /// Requests over HTTP.
    Http(HttpPattern),
}

impl Pattern {
    /// The protocol of the connections it looks at.
    pub fn protocol(&self) -> Protocol {
        match self {
            Self::Postgres(_) => Protocol::Postgres,
            Self::Redis(_) => Protocol::Redis,
            Self::Http(_) => Protocol::Http,
        }
    }
}

/// Requests to PostgreSQL. Empty: every query, login and cancel request.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PostgresPattern {
    /// A statement's hash (12 hexadecimal digits) or the beginning of its text, in any case and
    /// spacing, literals standing for any literal. Together with `commit`: a statement of the
    /// transaction that is committed, or the transaction's own hash.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub statement: Option<String>,
    /// Only what commits: a COMMIT in any form, or a writing statement outside a transaction.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub commit: Option<CommitPattern>,
}

/// Which commits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CommitPattern {
    /// Each one.
    Every,
    /// Those of transactions that ran a writing statement. A function that writes within a SELECT
    /// is not known as such.
    Writing,
}

/// Requests to Redis. Empty: every command outside MULTI, and every EXEC.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RedisPattern {
    /// The command's name in any case. An EXEC also counts as each command it carries out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// How one of its keys begins.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_prefix: Option<String>,
    /// A script's SHA-1, or its name where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub script: Option<String>,
    /// Only commands that may write; every script counts as one that may.
    #[serde(skip_serializing_if = "is_false")]
    pub writes: bool,
}

fn is_false(flag: &bool) -> bool {
    !flag
}

/// Requests over HTTP. Empty: every one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HttpPattern {
    /// The method in capitals.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// The path without its query; one that ends in `*` counts for all that begin like it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
}

/// Which of the matching requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Occurrence {
    /// The k-th, from 1, and none after it.
    Kth(u64),
    /// All of them: the word `every`.
    Every(Every),
}

impl Occurrence {
    /// All of them.
    pub const EVERY: Self = Self::Every(Every::Every);

    pub(super) fn is_met_by(self, match_number: u64) -> bool {
        match self {
            Self::Kth(k) => k == match_number,
            Self::Every(_) => true,
        }
    }
}

/// The word `every`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Every {
    /// Not one of them, but all.
    Every,
}

/// On which side of the server's work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// The request has not reached the server.
    BeforeServer,
    /// The server has answered, the client does not know.
    BeforeClient,
}

/// What happens to the request or to its answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Action {
    /// A half-open link: both directions fall silent with open sockets, and neither side hears of
    /// the other's end. Goes on after `ms`, or when it is released.
    Hold {
        /// How long, milliseconds; without end if left out.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ms: Option<u64>,
    },
    /// It comes later, and whatever is behind it in its direction. The other direction flows.
    Late {
        /// How much later, milliseconds, at least 1.
        ms: u64,
    },
    /// It is lost, and whatever comes after it in its direction. The sockets stay open, and each
    /// side still hears of the other's end.
    Drop,
    /// It is lost and the connection is closed on both sides.
    Cut,
    /// It is lost and the connection is reset on both sides.
    Reset,
    /// Another answer in place of the server's. PostgreSQL: a FATAL error with this SQLSTATE, then
    /// the connection ends. Redis: an error reply. HTTP: an answer with this status.
    Error {
        /// SQLSTATE (`57P01`), Redis error word (`OOM`) or HTTP status (`503`).
        code: String,
        /// What the error says; a fitting text if left out.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        text: Option<String>,
        /// HTTP only: the header Retry-After, seconds.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        retry_after_s: Option<u64>,
    },
    /// HTTP only, before the server: the server gets it twice, one right behind the other, and its second answer is
    /// lost. A request of over 256 KiB is left alone.
    Twice,
    /// HTTP only, before the server: a digit of its body is another one, as if somebody had changed it who cannot sign
    /// it. A body that is sent in chunks or has no digit is left alone.
    Forge,
    /// HTTP only: the request, or the answer's body, trickles.
    Slow {
        /// Bytes sent at a time, at least 1.
        bytes: usize,
        /// Pause before each, milliseconds, at least 1.
        every_ms: u64,
    },
}

/// Why a rule cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// A name is empty or too long.
    #[error("a rule's name has 1 to {NAME_BYTES_MAX} bytes, not {0}")]
    Name(usize),
    /// Another rule has this name.
    #[error("there is a rule named {0} already")]
    Duplicate(String),
    /// There are as many rules as a book holds.
    #[error("rule {name}: a book holds {rules_max} rules at most")]
    TooMany {
        /// Name of the rule too many.
        name: String,
        /// How many a book holds.
        rules_max: usize,
    },
    /// No rule has this name.
    #[error("there is no rule named {0}")]
    Unknown(String),
    /// A field has a value that says nothing.
    #[error("rule {name}: {field} {reason}")]
    Field {
        /// Name of the rule.
        name: String,
        /// The field at fault.
        field: &'static str,
        /// What is wrong with it.
        reason: String,
    },
}

impl Rule {
    /// Checks what the types cannot say.
    ///
    /// # Errors
    /// [`RuleError::Name`] or [`RuleError::Field`], for the first fault found.
    pub fn validate(&self) -> Result<(), RuleError> {
        if self.name.is_empty() || self.name.len() > NAME_BYTES_MAX {
            return Err(RuleError::Name(self.name.len()));
        }
        if self.k == Occurrence::Kth(0) {
            return Err(self.fault("k", "counts from 1"));
        }
        if self.role.as_deref() == Some("") {
            return Err(self.fault("role", "is empty: leave it out for everybody"));
        }
        self.validate_pattern()?;
        self.validate_action()
    }

    fn validate_pattern(&self) -> Result<(), RuleError> {
        match &self.pattern {
            Pattern::Postgres(PostgresPattern { statement: Some(statement), .. }) => {
                normalised_head(statement).map(drop).map_err(|reason| self.fault("match.postgres.statement", reason))
            }
            Pattern::Redis(RedisPattern { command: Some(word), .. })
                if word.is_empty() || word.contains(char::is_whitespace) =>
            {
                Err(self.fault("match.redis.command", "is one word"))
            }
            Pattern::Http(HttpPattern { method: Some(method), .. })
                if method.is_empty() || !method.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'-') =>
            {
                Err(self.fault("match.http.method", "is one word in capitals"))
            }
            Pattern::Http(HttpPattern { path: Some(path), .. })
                if path != "*" && (!path.starts_with('/') || path.contains('?')) =>
            {
                Err(self.fault("match.http.path", "begins with a slash and has no query"))
            }
            Pattern::Postgres(_) | Pattern::Redis(_) | Pattern::Http(_) => Ok(()),
        }
    }

    fn validate_action(&self) -> Result<(), RuleError> {
        let protocol = self.pattern.protocol();
        match &self.action {
            Action::Hold { ms: Some(ms) } | Action::Late { ms } if *ms == 0 || *ms > MS_MAX => {
                Err(self.fault("action.ms", &format!("is 1 to {MS_MAX}")))
            }
            Action::Error { code, text, retry_after_s } => {
                if retry_after_s.is_some() && protocol != Protocol::Http {
                    return Err(self.fault("action.error.retry_after_s", "is for HTTP only"));
                }
                if text.as_deref().is_some_and(|text| text.contains(['\0', '\r', '\n']) || text.len() > 1_000) {
                    return Err(self.fault("action.error.text", "is one line of 1000 bytes at most"));
                }
                match protocol {
                    Protocol::Postgres if code.len() != 5 || !is_upper_or_digit(code) => {
                        Err(self.fault("action.error.code", "is a SQLSTATE of five capitals or digits"))
                    }
                    Protocol::Redis if code.is_empty() || code.len() > 32 || !is_upper_or_digit(code) => {
                        Err(self.fault("action.error.code", "is an error word in capitals, such as OOM"))
                    }
                    Protocol::Http if !code.parse().is_ok_and(|status: u16| (400..=599).contains(&status)) => {
                        Err(self.fault("action.error.code", "is a status of 400 to 599"))
                    }
                    Protocol::Postgres | Protocol::Redis | Protocol::Http => Ok(()),
                }
            }
            Action::Slow { .. } if protocol != Protocol::Http => Err(self.fault("action.slow", "is for HTTP only")),
            Action::Twice | Action::Forge if protocol != Protocol::Http || self.place != Place::BeforeServer => {
                Err(self.fault("action", "is for requests over HTTP, before the server"))
            }
            Action::Slow { bytes, every_ms } if *bytes == 0 || *every_ms == 0 || *every_ms > MS_MAX => {
                Err(self.fault("action.slow", "needs at least 1 byte and a pause of at least 1 ms"))
            }
            Action::Hold { .. }
            | Action::Late { .. }
            | Action::Drop
            | Action::Cut
            | Action::Reset
            | Action::Twice
            | Action::Forge
            | Action::Slow { .. } => Ok(()),
        }
    }

    fn fault(&self, field: &'static str, reason: &str) -> RuleError {
        RuleError::Field { name: self.name.clone(), field, reason: reason.into() }
    }
}

fn is_upper_or_digit(code: &str) -> bool {
    code.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn rule(value: serde_json::Value) -> Rule {
        let mut whole = json!({
            "name": "r", "match": { "postgres": {} }, "k": 1, "where": "before_server", "action": "cut"
        });
        for (key, value) in value.as_object().expect("object") {
            whole[key] = value.clone();
        }
        serde_json::from_value(whole).expect("a rule")
    }

    #[test]
    fn a_rule_reads_as_it_is_written() {
        let text = json!({
            "name": "lost-receipt", "role": "worker",
            "match": { "postgres": { "statement": "UPDATE jobs", "commit": "every" } },
            "k": 3, "where": "before_client", "action": { "late": { "ms": 250 } },
        });
        let rule: Rule = serde_json::from_value(text.clone()).expect("a rule");
        assert_eq!(rule.k, Occurrence::Kth(3));
        assert_eq!(rule.action, Action::Late { ms: 250 });
        rule.validate().expect("valid");
        assert_eq!(serde_json::to_value(&rule).expect("write"), text);
    }

    #[test]
    fn every_is_a_word_and_anything_else_is_refused() {
        assert_eq!(rule(json!({ "k": "every" })).k, Occurrence::EVERY);
        assert_eq!(serde_json::to_value(Occurrence::EVERY).expect("write"), json!("every"));
        for odd in [json!("all"), json!(-1), json!(1.5)] {
            serde_json::from_value::<Occurrence>(odd.clone()).expect_err(&odd.to_string());
        }
    }

    #[test]
    fn unknown_fields_are_refused_at_every_depth() {
        for odd in [
            json!({ "name": "r", "match": { "postgres": {} }, "k": 1, "where": "before_server", "action": "cut", "x": 1 }),
            json!({ "name": "r", "match": { "postgres": { "x": 1 } }, "k": 1, "where": "before_server", "action": "cut" }),
            json!({ "name": "r", "match": { "redis": { "key": "" } }, "k": 1, "where": "before_server", "action": "cut" }),
            json!({ "name": "r", "match": { "smtp": {} }, "k": 1, "where": "before_server", "action": "cut" }),
            json!({ "name": "r", "match": { "http": {} }, "k": 1, "where": "before", "action": "cut" }),
            json!({ "name": "r", "match": { "http": {} }, "k": 1, "where": "before_server", "action": { "late": { "s": 1 } } }),
        ] {
            serde_json::from_value::<Rule>(odd.clone()).expect_err(&odd.to_string());
        }
    }

    #[test]
    fn what_says_nothing_is_refused_with_its_field() {
        for (value, field) in [
            (json!({ "k": 0 }), "k"),
            (json!({ "role": "" }), "role"),
            (json!({ "match": { "postgres": { "statement": " " } } }), "match.postgres.statement"),
            (json!({ "match": { "redis": { "command": "SET x" } } }), "match.redis.command"),
            (json!({ "match": { "http": { "method": "post" } } }), "match.http.method"),
            (json!({ "match": { "http": { "path": "v1" } } }), "match.http.path"),
            (json!({ "action": { "late": { "ms": 0 } } }), "action.ms"),
            (json!({ "action": { "hold": { "ms": 0 } } }), "action.ms"),
            (json!({ "action": { "error": { "code": "OOM" } } }), "action.error.code"),
            (json!({ "match": { "redis": {} }, "action": { "error": { "code": "oom" } } }), "action.error.code"),
            (json!({ "match": { "http": {} }, "action": { "error": { "code": "200" } } }), "action.error.code"),
            (json!({ "action": { "slow": { "bytes": 1, "every_ms": 1 } } }), "action.slow"),
            (json!({ "action": "twice" }), "action"),
            (json!({ "match": { "http": {} }, "where": "before_client", "action": "forge" }), "action"),
            (
                json!({ "match": { "redis": {} }, "action": { "error": { "code": "OOM", "retry_after_s": 1 } } }),
                "action.error.retry_after_s",
            ),
        ] {
            match rule(value.clone()).validate() {
                Err(RuleError::Field { field: found, .. }) => assert_eq!(found, field, "{value}"),
                other => panic!("{value}: {other:?}"),
            }
        }
        rule(json!({ "action": { "hold": {} } })).validate().expect("a hold without end");
    }
}
