//! The transaction of a connection as its client sees it: what ran in it, and what commits it.

use super::fingerprint::{Fingerprint, Kind, hash_of_all};

/// Statements remembered of one transaction.
const STATEMENTS_MAX: usize = 64;
/// Statements shown in a label.
const LABEL_STATEMENTS_MAX: usize = 3;
/// Bytes shown of each.
const LABEL_HEAD_BYTES: usize = 48;

/// What one query, execution, login or cancel request asks for.
#[derive(Debug, Clone)]
pub struct PostgresOperation {
    /// The statements of this request, in order.
    pub statements: Vec<Fingerprint>,
    /// Set if a transaction is committed by it.
    pub commit: Option<Commit>,
}

/// The committing of a transaction.
#[derive(Debug, Clone)]
pub struct Commit {
    /// By a COMMIT; else by the end of a statement outside a transaction.
    pub explicit: bool,
    /// Hash over the transaction's statements.
    pub transaction: String,
    /// What ran in it, without BEGIN and COMMIT.
    pub statements: Vec<Fingerprint>,
    /// Whether a writing statement ran in it.
    pub wrote: bool,
}

impl PostgresOperation {
    pub fn label(&self) -> String {
        let heads = |statements: &[Fingerprint]| {
            let mut parts: Vec<&str> = statements.iter().map(|statement| short(&statement.head)).collect();
            parts.dedup();
            let left_out = parts.len().saturating_sub(LABEL_STATEMENTS_MAX);
            let mut text = parts[..parts.len() - left_out].join("; ");
            if left_out > 0 {
                text.push_str(&format!("; and {left_out} more"));
            }
            text
        };
        match &self.commit {
            Some(commit) => {
                let writing: Vec<Fingerprint> =
                    commit.statements.iter().filter(|statement| statement.kind == Kind::Write).cloned().collect();
                let shown = if writing.is_empty() { &commit.statements } else { &writing };
                let form = if commit.explicit { "COMMIT" } else { "implicit COMMIT" };
                format!("{form} {} of {}", commit.transaction, heads(shown))
            }
            None => {
                let hash = self.statements.first().map_or("-", |statement| statement.hash.as_str());
                format!("{hash} {}", heads(&self.statements))
            }
        }
    }
}

fn short(head: &str) -> &str {
    let mut end = LABEL_HEAD_BYTES.min(head.len());
    while !head.is_char_boundary(end) {
        end -= 1;
    }
    &head[..end]
}

/// What the client has sent of its transaction so far.
#[derive(Debug, Default)]
pub struct Transaction {
    open: bool,
    statements: Vec<Fingerprint>,
    wrote: bool,
}

impl Transaction {
    /// Takes a request's statements in order and says what it asks for.
    pub fn take(&mut self, statements: Vec<Fingerprint>) -> PostgresOperation {
        let mut commit = None;
        for statement in &statements {
            match statement.kind {
                Kind::Begin => {
                    if !self.open {
                        self.restart(true);
                    }
                }
                Kind::Commit { chain } => {
                    commit = Some(self.commit(true));
                    self.restart(chain);
                }
                Kind::Rollback { chain } => self.restart(chain),
                Kind::Prepare => self.restart(false),
                Kind::CommitPrepared => {
                    commit = Some(Commit {
                        explicit: true,
                        transaction: statement.hash.clone(),
                        statements: vec![statement.clone()],
                        wrote: true,
                    });
                }
                Kind::Write | Kind::Read => self.remember(statement),
            }
        }
        if !self.open {
            if commit.is_none() && self.wrote {
                commit = Some(self.commit(false));
            }
            self.restart(false);
        }
        PostgresOperation { statements, commit }
    }

    /// The server's own word on whether a transaction is open, when nothing is under way.
    pub fn correct(&mut self, open: bool) {
        if self.open != open {
            self.restart(open);
        }
    }

    fn remember(&mut self, statement: &Fingerprint) {
        self.wrote |= statement.kind == Kind::Write;
        let again = self.statements.last().is_some_and(|last| last.hash == statement.hash);
        if !again && self.statements.len() < STATEMENTS_MAX {
            self.statements.push(statement.clone());
        }
    }

    fn restart(&mut self, open: bool) {
        *self = Self { open, statements: Vec::new(), wrote: false };
    }

    fn commit(&self, explicit: bool) -> Commit {
        Commit {
            explicit,
            transaction: hash_of_all(self.statements.iter().map(|statement| statement.hash.as_str())),
            statements: self.statements.clone(),
            wrote: self.wrote,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::writing_functions::WritingFunctions;
    use super::*;

    fn take(transaction: &mut Transaction, sql: &str) -> PostgresOperation {
        transaction.take(Fingerprint::of_query(sql.as_bytes(), false, &WritingFunctions::default()))
    }

    #[test]
    fn a_commit_names_what_ran_since_begin() {
        let mut transaction = Transaction::default();
        for sql in ["BEGIN", "SET LOCAL a = 1", "INSERT INTO t VALUES (1)", "INSERT INTO t VALUES (2)"] {
            assert!(take(&mut transaction, sql).commit.is_none(), "{sql}");
        }
        let commit = take(&mut transaction, "COMMIT").commit.expect("a commit");
        assert!(commit.explicit && commit.wrote);
        assert_eq!(commit.statements.len(), 2);
        let operation = take(&mut transaction, "COMMIT");
        let commit = operation.commit.as_ref().expect("a commit of nothing");
        assert!(!commit.wrote && commit.statements.is_empty());
    }

    #[test]
    fn a_writing_statement_outside_a_transaction_commits_itself() {
        let mut transaction = Transaction::default();
        let commit = take(&mut transaction, "INSERT INTO t VALUES (1)").commit.expect("implicit");
        assert!(!commit.explicit && commit.wrote);
        assert!(take(&mut transaction, "SELECT 1").commit.is_none());
    }

    #[test]
    fn one_query_string_can_hold_a_whole_transaction() {
        let mut transaction = Transaction::default();
        let operation = take(&mut transaction, "BEGIN; INSERT INTO t VALUES (1); COMMIT");
        let commit = operation.commit.as_ref().expect("a commit");
        assert!(commit.explicit && commit.wrote);
        assert!(operation.label().starts_with("COMMIT "), "{}", operation.label());
        assert!(operation.label().ends_with("of insert into t values(?)"), "{}", operation.label());
    }

    #[test]
    fn a_rollback_forgets_and_the_server_corrects() {
        let mut transaction = Transaction::default();
        take(&mut transaction, "BEGIN");
        take(&mut transaction, "DELETE FROM t");
        take(&mut transaction, "ROLLBACK");
        assert!(!take(&mut transaction, "COMMIT").commit.expect("a commit").wrote);
        transaction.correct(true);
        assert!(take(&mut transaction, "DELETE FROM t").commit.is_none(), "within the transaction that the server has");
        transaction.correct(false);
        assert!(take(&mut transaction, "DELETE FROM t").commit.is_some());
    }
}
