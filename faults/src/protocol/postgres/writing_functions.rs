//! Functions that write although a SELECT calls them, which the words of the statement do not show.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, PoisonError, RwLock},
};

use super::{
    fingerprint::has_outside_lock,
    sql::{Token, statements},
};

/// Names of functions, in lower case and without their schema; clones share them.
#[derive(Debug, Clone, Default)]
pub struct WritingFunctions(Arc<RwLock<BTreeSet<String>>>);

impl WritingFunctions {
    /// Adds names.
    pub fn learn(&self, names: impl IntoIterator<Item = String>) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).extend(names);
    }

    /// Whether one of them is called.
    pub(super) fn are_called_in(&self, tokens: &[Token]) -> bool {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        !known.is_empty() && calls(tokens).any(|name| known.contains(name))
    }
}

/// Which of these functions write: those with a writing word in their body, and those that call one of them.
/// `bodies`: name (lower case, without schema) and source text, as `pg_proc` has them. Where two functions share a
/// name, one that writes stands for both.
pub fn functions_that_write(bodies: &[(String, String)]) -> BTreeSet<String> {
    let mut called_by: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    let mut writing = BTreeSet::new();
    for (name, body) in bodies {
        let tokens: Vec<Token> = statements(body).into_iter().flatten().collect();
        if has_writing_word(&tokens) {
            writing.insert(name.clone());
        }
        called_by.entry(name).or_default().extend(calls(&tokens).map(str::to_owned));
    }
    loop {
        let callers =
            called_by.iter().filter(|(name, calls)| !writing.contains(**name) && !calls.is_disjoint(&writing));
        let more: Vec<String> = callers.map(|(name, _)| (*name).to_owned()).collect();
        if more.is_empty() {
            return writing;
        }
        writing.extend(more);
    }
}

fn has_writing_word(tokens: &[Token]) -> bool {
    let words: Vec<&str> = tokens
        .iter()
        .filter_map(|token| match token {
            Token::Word(word) => Some(word.as_str()),
            Token::Literal | Token::Symbol(_) => None,
        })
        .collect();
    words.windows(2).any(|pair| matches!(pair, ["insert" | "merge", "into"] | ["delete", "from"]))
        || has_outside_lock(&words, "update")
}

/// Names in front of a bracket.
fn calls(tokens: &[Token]) -> impl Iterator<Item = &str> {
    tokens.windows(2).filter_map(|pair| match pair {
        [Token::Word(name), Token::Symbol('(')] => Some(name.as_str()),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(sql: &str) -> Vec<Token> {
        statements(sql).into_iter().flatten().collect()
    }

    #[test]
    fn a_function_writes_by_its_own_words_or_by_whom_it_calls() {
        let bodies = [
            ("take", "BEGIN RETURN QUERY WITH t AS (UPDATE q SET s = 1 RETURNING 1) SELECT * FROM t; END"),
            ("look", "BEGIN PERFORM set_config('a', 'b', true); RETURN QUERY SELECT 1 FROM q FOR UPDATE; END"),
            ("forget", "WITH spent AS (DELETE FROM e RETURNING 1) SELECT count(*) FROM spent"),
            ("note", "-- delete from nothing\n BEGIN INSERT INTO e VALUES ('update'); END"),
            ("outer", "SELECT app.middle(1)"),
            ("middle", "BEGIN PERFORM app.note(); END"),
            ("told", "SELECT 'insert into e', app.look()"),
        ]
        .map(|(name, body)| (name.to_owned(), body.to_owned()));
        let found = functions_that_write(&bodies);
        let found: Vec<&str> = found.iter().map(String::as_str).collect();
        assert_eq!(found, ["forget", "middle", "note", "outer", "take"]);
    }

    #[test]
    fn a_call_is_seen_with_its_schema_and_in_any_case_and_only_as_a_call() {
        let known = WritingFunctions::default();
        assert!(!known.are_called_in(&tokens("SELECT app.take(1)")), "nothing is known yet");
        known.learn(["take".to_owned()]);
        assert!(known.are_called_in(&tokens("SELECT * FROM App.Take($1) t")));
        assert!(!known.are_called_in(&tokens("SELECT take FROM t WHERE a = 'take('")));
    }
}
