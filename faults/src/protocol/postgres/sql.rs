//! SQL to words: comments and white space out, literals and parameters made equal.
//!
//! Not a parser: it knows where a token ends, and nothing of grammar.

/// A piece of a statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Token {
    /// A keyword or plain identifier in lower case, or a quoted identifier as it stands.
    Word(String),
    /// A literal, a number or a parameter.
    Literal,
    /// One character of punctuation or of an operator.
    Symbol(char),
}

/// What stands before the bracket that closes a second list of literals.
const TWO_LISTS: [Token; 6] =
    [Token::Symbol('('), Token::Literal, Token::Symbol(')'), Token::Symbol(','), Token::Symbol('('), Token::Literal];

/// Splits a query string at its top-level semicolons into the tokens of each statement; empty
/// statements are left out.
pub(super) fn statements(sql: &str) -> Vec<Vec<Token>> {
    let mut lexer = Lexer { rest: sql };
    let mut statements = vec![Vec::new()];
    while let Some(token) = lexer.next_token() {
        if token == Token::Symbol(';') {
            statements.push(Vec::new());
        } else if let Some(statement) = statements.last_mut() {
            push_folded(statement, token);
        }
    }
    statements.retain(|statement| !statement.is_empty());
    statements
}

/// Appends a token; lists of literals, and lists of such lists, fold to one element, so that a
/// statement keeps its name whatever the number of rows.
fn push_folded(tokens: &mut Vec<Token>, token: Token) {
    match token {
        Token::Literal if tokens.ends_with(&[Token::Literal, Token::Symbol(',')]) => {
            tokens.pop();
        }
        Token::Symbol(')') if tokens.ends_with(&TWO_LISTS) => tokens.truncate(tokens.len() - 3),
        other => tokens.push(other),
    }
}

/// One canonical spelling of a statement.
pub(super) fn render(tokens: &[Token]) -> String {
    let mut text = String::new();
    let mut before: Option<&Token> = None;
    for token in tokens {
        if before.is_some_and(|before| is_spaced(before, token)) {
            text.push(' ');
        }
        match token {
            Token::Word(word) => text.push_str(word),
            Token::Literal => text.push('?'),
            Token::Symbol(symbol) => text.push(*symbol),
        }
        before = Some(token);
    }
    text
}

/// Whether a space goes between two tokens.
fn is_spaced(before: &Token, token: &Token) -> bool {
    match (before, token) {
        (Token::Symbol('(' | '.' | ':' | '['), _) | (_, Token::Symbol(')' | ',' | '.' | ':' | '[' | ']')) => false,
        (Token::Word(_), Token::Symbol('(')) => false,
        (Token::Symbol(one), Token::Symbol(other)) => !(is_operator(*one) && is_operator(*other)),
        _ => true,
    }
}

fn is_operator(symbol: char) -> bool {
    "+-*/<>=~!@#%^&|".contains(symbol)
}

struct Lexer<'a> {
    rest: &'a str,
}

impl Lexer<'_> {
    fn next_token(&mut self) -> Option<Token> {
        self.skip_blank();
        let first = self.rest.chars().next()?;
        let second = self.rest[first.len_utf8()..].chars().next();
        let token = match first {
            '\'' => {
                self.skip_quoted(1, '\'', false);
                Token::Literal
            }
            'e' | 'E' if second == Some('\'') => {
                self.skip_quoted(2, '\'', true);
                Token::Literal
            }
            'b' | 'B' | 'x' | 'X' | 'n' | 'N' if second == Some('\'') => {
                self.skip_quoted(2, '\'', false);
                Token::Literal
            }
            'u' | 'U' if self.rest[1..].starts_with("&'") => {
                self.skip_quoted(3, '\'', false);
                Token::Literal
            }
            '"' => {
                let text = self.rest;
                self.skip_quoted(1, '"', false);
                Token::Word(text[..text.len() - self.rest.len()].to_owned())
            }
            '$' => self.dollar(),
            // So a normal form is its own normal form.
            '?' => {
                self.advance(1);
                Token::Literal
            }
            '0'..='9' => self.number(),
            '.' if second.is_some_and(|next| next.is_ascii_digit()) => self.number(),
            _ if is_word_start(first) => self.word(),
            _ => {
                self.advance(first.len_utf8());
                Token::Symbol(first)
            }
        };
        Some(token)
    }

    fn advance(&mut self, bytes: usize) {
        self.rest = &self.rest[bytes..];
    }

    fn skip_blank(&mut self) {
        loop {
            self.rest = self.rest.trim_start();
            if self.rest.starts_with("--") {
                self.advance(self.rest.find('\n').unwrap_or(self.rest.len()));
            } else if self.rest.starts_with("/*") {
                self.skip_block_comment();
            } else {
                return;
            }
        }
    }

    /// Block comments nest.
    fn skip_block_comment(&mut self) {
        let mut depth = 0_u32;
        let mut at = 0;
        let bytes = self.rest.as_bytes();
        while at < bytes.len() {
            match bytes.get(at..at + 2) {
                Some(b"/*") => {
                    depth += 1;
                    at += 2;
                }
                Some(b"*/") => {
                    depth -= 1;
                    at += 2;
                    if depth == 0 {
                        break;
                    }
                }
                _ => at += 1,
            }
        }
        self.advance(at);
    }

    /// Skips `opening` bytes and all up to the closing quote; a doubled quote does not close.
    fn skip_quoted(&mut self, opening: usize, quote: char, backslash: bool) {
        let mut characters = self.rest.char_indices().skip(opening).peekable();
        while let Some((at, character)) = characters.next() {
            if character == quote {
                if characters.peek().is_some_and(|(_, next)| *next == quote) {
                    characters.next();
                    continue;
                }
                return self.advance(at + 1);
            }
            if backslash && character == '\\' {
                characters.next();
            }
        }
        self.rest = "";
    }

    /// A parameter, a dollar-quoted literal, or the sign alone.
    fn dollar(&mut self) -> Token {
        let after = &self.rest[1..];
        let digits = after.bytes().take_while(u8::is_ascii_digit).count();
        if digits > 0 {
            self.advance(1 + digits);
            return Token::Literal;
        }
        let tag = after.bytes().take_while(|byte| byte.is_ascii_alphanumeric() || *byte == b'_' || *byte > 127).count();
        if after.as_bytes().get(tag) == Some(&b'$') {
            let (delimiter, body) = self.rest.split_at(tag + 2);
            let end = body.find(delimiter).map_or(self.rest.len(), |at| at + 2 * delimiter.len());
            self.advance(end);
            return Token::Literal;
        }
        self.advance(1);
        Token::Symbol('$')
    }

    fn number(&mut self) -> Token {
        let bytes = self.rest.as_bytes();
        let mut at = 0;
        while let Some(&byte) = bytes.get(at) {
            let exponent_sign = matches!(byte, b'+' | b'-') && at > 0 && matches!(bytes[at - 1], b'e' | b'E');
            if byte.is_ascii_alphanumeric() || byte == b'.' || byte == b'_' || exponent_sign {
                at += 1;
            } else {
                break;
            }
        }
        self.advance(at);
        Token::Literal
    }

    fn word(&mut self) -> Token {
        let end = self
            .rest
            .find(|character: char| !(is_word_start(character) || character.is_ascii_digit() || character == '$'))
            .unwrap_or(self.rest.len());
        let word = self.rest[..end].to_lowercase();
        self.advance(end);
        Token::Word(word)
    }
}

fn is_word_start(character: char) -> bool {
    character.is_alphabetic() || character == '_' || !character.is_ascii()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn normal(sql: &str) -> Vec<String> {
        statements(sql).iter().map(|statement| render(statement)).collect()
    }

    fn one(sql: &str) -> String {
        let all = normal(sql);
        assert_eq!(all.len(), 1, "{all:?}");
        all.into_iter().next().expect("one")
    }

    #[test]
    fn literals_numbers_and_parameters_are_made_equal() {
        let named = "update jobs set state = ?, tries = ? where id = ?";
        for sql in [
            "UPDATE jobs SET state = 'it''s', tries = 12 WHERE id = $1",
            "update\n jobs\tset state=E'a\\'b',tries=1.5e-3 where id=$12",
            "update jobs set state = $tag$ ; -- ' $x$ $tag$, tries = 0x1F where /* a /* b */ ; */ id = -- '\n U&'d'",
            "update jobs set state = B'01', tries = .5 where id = 'x'",
        ] {
            assert_eq!(one(sql), named, "{sql}");
        }
    }

    #[test]
    fn lists_of_literals_fold_whatever_their_length() {
        let one_row = one("INSERT INTO t (a, b) VALUES ($1, $2)");
        assert_eq!(one_row, "insert into t(a, b) values(?)");
        assert_eq!(one("insert into t (a, b) values (1, 'x'), (2, 'y'), (3, 'z')"), one_row);
        assert_eq!(one("select 1 from t where id in (1,2,3)"), one("select 2 from t where id in ($1)"));
    }

    #[test]
    fn quoted_identifiers_keep_their_spelling() {
        assert_eq!(one(r#"SELECT "Ab ""c" FROM "T;x""#), r#"select "Ab ""c" from "T;x""#);
        assert_ne!(one(r#"select "A""#), one("select A"));
    }

    #[test]
    fn semicolons_split_outside_of_literals_only() {
        assert_eq!(
            normal("BEGIN; INSERT INTO t VALUES (';'); ;COMMIT;"),
            ["begin", "insert into t values(?)", "commit"]
        );
        assert_eq!(normal(" ; -- nothing\n"), Vec::<String>::new());
    }

    #[test]
    fn casts_functions_and_arrays_have_one_spelling() {
        assert_eq!(one("insert into t(a)values(1)"), one("INSERT INTO t (a) VALUES (2)"));
        assert_eq!(one("SELECT count(*), a.b::uuid[] , x [ 1 ]"), "select count(*), a.b::uuid[], x[?]");
        assert_eq!(one("select * from t where a->>'k' = any($1)"), "select * from t where a ->> ? = any(?)");
    }

    #[test]
    fn unfinished_tokens_end_with_the_text() {
        for sql in ["select 'abc", "select $$abc", "select \"abc", "/* /* */", "select E'\\", "$", "$a", "select 1e"] {
            let _ = normal(sql);
        }
    }

    proptest! {
        #[test]
        fn any_text_is_taken(text in ".{0,200}") {
            for statement in statements(&text) {
                prop_assert!(!render(&statement).is_empty());
            }
        }

        #[test]
        fn text_made_of_what_matters_is_taken(text in "[a-z0-9'\"$\\\\;/*.,() \n-]{0,80}") {
            for statement in statements(&text) {
                prop_assert!(!render(&statement).is_empty());
            }
        }
    }
}
