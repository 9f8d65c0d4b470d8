//! A rule's pattern made ready to be asked for every request.

use super::{
    http::HttpOperation,
    observer::Origin,
    operation::Operation,
    postgres::{Commit, PostgresOperation, StatementPattern},
    redis::RedisOperation,
    rule::{CommitPattern, HttpPattern, Pattern, PostgresPattern, RedisPattern},
};

/// See the module.
#[derive(Debug)]
pub(super) struct CompiledPattern {
    role: Option<String>,
    pattern: Pattern,
    statement: Option<StatementPattern>,
}

impl CompiledPattern {
    pub(super) fn new(role: Option<&str>, pattern: &Pattern) -> Self {
        let statement = match pattern {
            Pattern::Postgres(postgres) => postgres.statement.as_deref().map(StatementPattern::new),
            Pattern::Redis(_) | Pattern::Http(_) => None,
        };
        Self { role: role.map(str::to_owned), pattern: pattern.clone(), statement }
    }

    pub(super) fn matches(&self, origin: &Origin, operation: &Operation) -> bool {
        let is_theirs = self.role.as_ref().is_none_or(|role| *role == origin.role || *role == origin.process);
        is_theirs
            && match (&self.pattern, operation) {
                (Pattern::Postgres(pattern), Operation::Postgres(operation)) => self.postgres(pattern, operation),
                (Pattern::Redis(pattern), Operation::Redis(operation)) => redis(pattern, operation),
                (Pattern::Http(pattern), Operation::Http(operation)) => http(pattern, operation),
                _ => false,
            }
    }

    fn postgres(&self, pattern: &PostgresPattern, operation: &PostgresOperation) -> bool {
        let Some(wanted) = pattern.commit else {
            return self.statement.as_ref().is_none_or(|statement| runs(statement, operation));
        };
        operation.commit.as_ref().is_some_and(|commit| {
            (wanted == CommitPattern::Every || commit.wrote)
                && self.statement.as_ref().is_none_or(|statement| commits(statement, commit))
        })
    }
}

fn runs(pattern: &StatementPattern, operation: &PostgresOperation) -> bool {
    operation.statements.iter().any(|statement| pattern.matches(statement))
}

fn commits(pattern: &StatementPattern, commit: &Commit) -> bool {
    pattern.is_hash(&commit.transaction) || commit.statements.iter().any(|statement| pattern.matches(statement))
}

fn redis(pattern: &RedisPattern, operation: &RedisOperation) -> bool {
    let is_it = |one: &RedisOperation| {
        pattern.command.as_ref().is_none_or(|command| command.eq_ignore_ascii_case(&one.command))
            && pattern.key_prefix.as_ref().is_none_or(|prefix| one.keys.iter().any(|key| key.starts_with(prefix)))
            && pattern.script.as_ref().is_none_or(|script| {
                one.script.as_ref() == Some(script)
                    || one.script_sha.as_ref().is_some_and(|sha| sha.eq_ignore_ascii_case(script))
            })
            && (!pattern.writes || one.writes())
    };
    is_it(operation) || operation.carries_out.iter().any(is_it)
}

fn http(pattern: &HttpPattern, operation: &HttpOperation) -> bool {
    pattern.method.as_ref().is_none_or(|method| *method == operation.method)
        && pattern.path.as_ref().is_none_or(|path| match path.strip_suffix('*') {
            Some(beginning) => operation.path.starts_with(beginning),
            None => operation.path == *path,
        })
}
