//! A statement's name: a hash of its normal form and a readable head.

use sha2::{Digest, Sha256};

use super::{
    sql::{Token, render, statements},
    writing_functions::WritingFunctions,
};

/// Hexadecimal digits of a hash.
const HASH_DIGITS: usize = 12;
/// Longest head, bytes.
const HEAD_BYTES_MAX: usize = 160;

/// What names a statement in every run, whatever its values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fingerprint {
    /// 12 hexadecimal digits of the SHA-256 of the normal form.
    pub hash: String,
    /// The normal form's first 160 bytes.
    pub head: String,
    pub kind: Kind,
}

/// What a statement does to a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Begin,
    /// COMMIT and END; `chain`: another transaction begins at once.
    Commit {
        chain: bool,
    },
    Rollback {
        chain: bool,
    },
    /// PREPARE TRANSACTION: ends the transaction without deciding it.
    Prepare,
    /// COMMIT PREPARED: commits, but not the transaction of this connection.
    CommitPrepared,
    /// Changes rows or objects.
    Write,
    /// Changes nothing, as far as its words show.
    Read,
}

impl Fingerprint {
    /// The names of all statements in a query string, in order. `truncated`: the text goes on; `functions`: those that
    /// write although a SELECT calls them.
    pub fn of_query(sql: &[u8], truncated: bool, functions: &WritingFunctions) -> Vec<Self> {
        let text = String::from_utf8_lossy(sql);
        let all = statements(&text);
        let last = all.len().saturating_sub(1);
        let name = |(at, tokens): (usize, &Vec<Token>)| Self::of_tokens(tokens, truncated && at == last, functions);
        all.iter().enumerate().map(name).collect()
    }

    /// A name for what is no statement, such as a login.
    pub fn of_act(name: &str) -> Self {
        Self { hash: hash(name), head: name.into(), kind: Kind::Read }
    }

    fn of_tokens(tokens: &[Token], truncated: bool, functions: &WritingFunctions) -> Self {
        let normal = render(tokens);
        let head = cut(&normal, HEAD_BYTES_MAX).to_owned();
        let mut hash = hash(&normal);
        if truncated {
            // The rest is unknown; equal beginnings must not pass for equal statements.
            hash.replace_range(..1, "~");
        }
        let kind = match Kind::of(tokens) {
            Kind::Read if functions.are_called_in(tokens) => Kind::Write,
            kind => kind,
        };
        Self { hash, head, kind }
    }
}

impl Kind {
    fn of(tokens: &[Token]) -> Self {
        let words: Vec<&str> = tokens
            .iter()
            .filter_map(|token| match token {
                Token::Word(word) => Some(word.as_str()),
                Token::Literal | Token::Symbol(_) => None,
            })
            .collect();
        let has = |word: &str| words.contains(&word);
        let chain = words.windows(2).any(|pair| pair == ["and", "chain"]);
        match words.as_slice() {
            ["begin", ..] | ["start", "transaction", ..] => Self::Begin,
            ["commit", "prepared", ..] => Self::CommitPrepared,
            ["commit" | "end", ..] => Self::Commit { chain },
            ["rollback", "prepared", ..] => Self::Write,
            ["rollback", "to", ..] | ["rollback", "work" | "transaction", "to", ..] => Self::Read,
            ["rollback" | "abort", ..] => Self::Rollback { chain },
            ["prepare", "transaction", ..] => Self::Prepare,
            ["copy", ..] if has("from") => Self::Write,
            ["with" | "explain" | "prepare", ..]
                if ["insert", "update", "delete", "merge"].iter().any(|word| has_outside_lock(&words, word)) =>
            {
                Self::Write
            }
            ["select", ..] if has("into") => Self::Write,
            [
                "select" | "with" | "explain" | "values" | "table" | "show" | "set" | "reset" | "savepoint" | "release"
                | "listen" | "unlisten" | "declare" | "fetch" | "move" | "close" | "lock" | "prepare" | "deallocate"
                | "discard" | "copy" | "checkpoint" | "load",
                ..,
            ]
            | [] => Self::Read,
            _ => Self::Write,
        }
    }
}

/// Whether the word occurs other than in `for update` and `for no key update`.
pub(super) fn has_outside_lock(words: &[&str], word: &str) -> bool {
    words.iter().enumerate().any(|(at, found)| {
        let before = at.checked_sub(1).map(|before| words[before]);
        *found == word && !(word == "update" && matches!(before, Some("for" | "key")))
    })
}

/// A statement as a rule names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StatementPattern {
    /// By the hash of a statement or of a transaction.
    Hash(String),
    /// By the beginning of its normal form.
    Head(String),
}

impl StatementPattern {
    /// `text` must have passed [`normalised_head`].
    pub fn new(text: &str) -> Self {
        if is_hash(text) {
            return Self::Hash(text.into());
        }
        Self::Head(normalised_head(text).unwrap_or_default())
    }

    pub fn matches(&self, statement: &Fingerprint) -> bool {
        match self {
            Self::Hash(hash) => statement.hash == *hash,
            Self::Head(head) => statement.head.starts_with(head.as_str()),
        }
    }

    pub fn is_hash(&self, of_transaction: &str) -> bool {
        matches!(self, Self::Hash(hash) if hash == of_transaction)
    }
}

/// The normal form of a rule's statement.
///
/// # Errors
/// Why the text cannot be the beginning of a statement.
pub fn normalised_head(text: &str) -> Result<String, &'static str> {
    if is_hash(text) {
        return Ok(text.into());
    }
    if text.starts_with('<') {
        return Ok(text.into());
    }
    let statements = statements(text);
    let [tokens] = statements.as_slice() else {
        return Err("is not the beginning of one statement");
    };
    let head = render(tokens);
    if head.len() > HEAD_BYTES_MAX { Err("is longer than a head: use the statement's hash") } else { Ok(head) }
}

/// The hash of several, in order; repetitions in a row count once, so that a loop's length does
/// not name a transaction.
pub fn hash_of_all<'a>(hashes: impl Iterator<Item = &'a str>) -> String {
    let mut all: Vec<&str> = hashes.collect();
    all.dedup();
    hash(&all.join(" "))
}

fn hash(text: &str) -> String {
    let digest = Sha256::digest(text.as_bytes());
    digest.iter().take(HASH_DIGITS / 2).map(|byte| format!("{byte:02x}")).collect()
}

fn is_hash(text: &str) -> bool {
    text.len() == HASH_DIGITS && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn cut(text: &str, bytes_max: usize) -> &str {
    let mut end = bytes_max.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(sql: &str) -> Fingerprint {
        let all = Fingerprint::of_query(sql.as_bytes(), false, &WritingFunctions::default());
        assert_eq!(all.len(), 1, "{all:?}");
        all.into_iter().next().expect("one")
    }

    #[test]
    fn values_do_not_change_the_name_and_words_do() {
        let first = one("INSERT INTO jobs (id, state) VALUES (1, 'queued')");
        let second = one("insert into jobs (id, state)  values ($1, $2)");
        assert_eq!(first, second);
        assert_eq!(first.hash.len(), 12);
        assert_ne!(first.hash, one("insert into jobs (id, stat) values ($1, $2)").hash);
    }

    #[test]
    fn kinds_follow_the_leading_words() {
        for (sql, kind) in [
            ("BEGIN ISOLATION LEVEL SERIALIZABLE", Kind::Begin),
            ("start transaction read only", Kind::Begin),
            ("COMMIT", Kind::Commit { chain: false }),
            ("end work and chain", Kind::Commit { chain: true }),
            ("commit and no chain", Kind::Commit { chain: false }),
            ("commit prepared 'x'", Kind::CommitPrepared),
            ("ROLLBACK", Kind::Rollback { chain: false }),
            ("rollback to savepoint s", Kind::Read),
            ("rollback work to s", Kind::Read),
            ("prepare transaction 'x'", Kind::Prepare),
            ("select 1", Kind::Read),
            ("select id from jobs for update skip locked", Kind::Read),
            ("with j as (select id from jobs for no key update) select * from j", Kind::Read),
            ("with j as (select 1) update t set a = 1", Kind::Write),
            ("insert into t values (1)", Kind::Write),
            ("copy t from stdin", Kind::Write),
            ("copy t to stdout", Kind::Read),
            ("set local role x", Kind::Read),
            ("create table t (a int)", Kind::Write),
            ("call p()", Kind::Write),
            ("notify c", Kind::Write),
        ] {
            assert_eq!(one(sql).kind, kind, "{sql}");
        }
    }

    #[test]
    fn a_select_that_calls_a_writing_function_writes_under_the_same_name() {
        let functions = WritingFunctions::default();
        let sql = b"SELECT app.complete($1)";
        let before = Fingerprint::of_query(sql, false, &functions).remove(0);
        functions.learn(["complete".to_owned()]);
        let after = Fingerprint::of_query(sql, false, &functions).remove(0);
        assert_eq!((before.kind, after.kind), (Kind::Read, Kind::Write));
        assert_eq!(before.hash, after.hash);
    }

    #[test]
    fn a_pattern_is_a_hash_or_a_beginning_in_any_spelling() {
        let statement = one("UPDATE jobs SET state = $1 WHERE id = $2");
        assert!(StatementPattern::new("update  JOBS").matches(&statement));
        assert!(StatementPattern::new("UPDATE jobs SET state = 'done'").matches(&statement));
        assert!(StatementPattern::new(&statement.hash).matches(&statement));
        assert!(!StatementPattern::new("update jobs set id").matches(&statement));
        assert!(normalised_head("").is_err());
        assert!(normalised_head("select 1; select 2").is_err());
        assert!(normalised_head(&"a ".repeat(200)).is_err());
    }

    #[test]
    fn a_statement_that_was_cut_off_has_no_hash_a_rule_could_name() {
        let cut = &Fingerprint::of_query(b"select 1 from t where", true, &WritingFunctions::default())[0];
        assert!(cut.hash.starts_with('~'));
        assert!(StatementPattern::new("select 1").matches(cut));
    }

    #[test]
    fn a_loop_within_a_transaction_does_not_change_its_hash() {
        assert_eq!(hash_of_all(["a", "b", "b", "c"].into_iter()), hash_of_all(["a", "b", "c"].into_iter()));
        assert_ne!(hash_of_all(["a", "b"].into_iter()), hash_of_all(["b", "a"].into_iter()));
    }
}
