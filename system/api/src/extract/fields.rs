//! A JSON object read field by field, so that an answer can name every wrong one.
//!
//! Law: nothing unknown is ignored, and nothing that was sent is repeated in a message.

use std::ops::RangeInclusive;
use std::str::FromStr;

use serde_json::{Map, Value};
use uuid::Uuid;

use crate::error::{ApiError, FieldProblem};

/// An object whose fields are taken out one by one. Readers give a placeholder for a wrong field and
/// note it; [`Fields::finish`] decides.
pub(crate) struct Fields {
    object: Map<String, Value>,
    problems: Vec<FieldProblem>,
}

impl Fields {
    /// # Errors
    /// 400 if the text is not JSON; 422 if it is not an object.
    pub(crate) fn parse(body: &[u8]) -> Result<Self, ApiError> {
        match super::parse(body)? {
            Value::Object(object) => Ok(Self { object, problems: Vec::new() }),
            _ => Err(ApiError::invalid(vec![FieldProblem::new("", "wrong_type", "must be an object")])),
        }
    }

    /// Notes a problem of one field.
    pub(crate) fn problem(&mut self, problem: FieldProblem) {
        self.problems.push(problem);
    }

    /// Whether a field is there, whatever it holds.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.object.contains_key(name)
    }

    /// A string of so many characters, none of them a control character.
    pub(crate) fn line(&mut self, name: &'static str, length: RangeInclusive<usize>) -> String {
        let text = self.required_string(name);
        self.check_length(name, &text, &length);
        if text.chars().any(char::is_control) {
            self.note(name, "malformed", "must not contain control characters");
        }
        text
    }

    /// A string or null or nothing; line breaks are welcome, NUL is not.
    pub(crate) fn optional_text(&mut self, name: &'static str, length_max: usize) -> Option<String> {
        match self.object.shift_remove(name) {
            None | Some(Value::Null) => None,
            Some(Value::String(text)) => {
                self.check_length(name, &text, &(0..=length_max));
                if text.contains('\0') {
                    self.note(name, "malformed", "must not contain NUL");
                }
                Some(text)
            }
            Some(_) => {
                self.note(name, "wrong_type", "must be a string or null");
                None
            }
        }
    }

    /// A string that parses; `None` if it was wrong and noted.
    pub(crate) fn word<T: FromStr>(&mut self, name: &'static str, message: &'static str) -> Option<T> {
        let text = self.string(name)?;
        let parsed = text.parse().ok();
        if parsed.is_none() {
            self.note(name, "not_allowed", message);
        }
        parsed
    }

    /// As [`Fields::word`], with a value where the field is absent.
    pub(crate) fn word_or<T: FromStr>(&mut self, name: &'static str, default: T, message: &'static str) -> Option<T> {
        if self.object.contains_key(name) { self.word(name, message) } else { Some(default) }
    }

    /// A whole number within bounds, with a value where the field is absent.
    pub(crate) fn integer_or(&mut self, name: &'static str, default: i64, bounds: RangeInclusive<i64>) -> i64 {
        match self.object.shift_remove(name) {
            None => default,
            Some(value) => match value.as_i64() {
                Some(number) if bounds.contains(&number) => number,
                Some(_) => {
                    self.note(name, "out_of_range", "is out of range");
                    default
                }
                None => {
                    self.note(name, "wrong_type", "must be a whole number");
                    default
                }
            },
        }
    }

    /// A UUID.
    pub(crate) fn uuid(&mut self, name: &'static str) -> Option<Uuid> {
        self.word(name, "must be a UUID")
    }

    /// Any string; `None` if it was absent or no string, and noted.
    pub(crate) fn string(&mut self, name: &'static str) -> Option<String> {
        let noted = self.problems.len();
        let text = self.required_string(name);
        (self.problems.len() == noted).then_some(text)
    }

    /// Any string, not trimmed, not judged; empty if it was absent or no string, and noted.
    pub(crate) fn required_string(&mut self, name: &'static str) -> String {
        match self.object.shift_remove(name) {
            Some(Value::String(text)) => return text,
            Some(_) => self.note(name, "wrong_type", "must be a string"),
            None => self.note(name, "required", "is required"),
        }
        String::new()
    }

    /// Any JSON value whose strings hold no NUL, which the database cannot store.
    pub(crate) fn value(&mut self, name: &'static str) -> Option<Value> {
        let Some(value) = self.object.shift_remove(name) else {
            self.note(name, "required", "is required");
            return None;
        };
        if contains_nul(&value) {
            self.note(name, "malformed", "must not contain NUL");
            return None;
        }
        Some(value)
    }

    /// # Errors
    /// 422 with every problem noted, and every field that nobody asked for.
    pub(crate) fn finish(mut self) -> Result<(), ApiError> {
        let unknown: Vec<_> = self.object.keys().map(|name| pointer(name)).collect();
        let unknown = unknown.into_iter().map(|at| FieldProblem::new(at, "unknown_field", "is not a known field"));
        self.problems.extend(unknown);
        if self.problems.is_empty() { Ok(()) } else { Err(ApiError::invalid(self.problems)) }
    }

    fn check_length(&mut self, name: &'static str, text: &str, length: &RangeInclusive<usize>) {
        let noted = self.problems.iter().any(|problem| problem.pointer == pointer(name));
        let characters = text.chars().count();
        if noted || length.contains(&characters) {
            return;
        }
        if characters < *length.start() {
            self.note(name, "too_short", "is too short");
        } else {
            self.note(name, "too_long", "is too long");
        }
    }

    fn note(&mut self, name: &str, code: &'static str, message: &'static str) {
        self.problems.push(FieldProblem::new(pointer(name), code, message));
    }
}

/// JSON pointer to a member of the document.
fn pointer(name: &str) -> String {
    format!("/{}", name.replace('~', "~0").replace('/', "~1"))
}

/// Depth is bounded by the parser's own limit.
fn contains_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(items) => items.iter().any(contains_nul),
        Value::Object(members) => members.iter().any(|(name, value)| name.contains('\0') || contains_nul(value)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(body: &str, read: impl FnOnce(&mut Fields)) -> Vec<String> {
        let mut fields = Fields::parse(body.as_bytes()).unwrap();
        read(&mut fields);
        let body = fields.finish().err().map(|error| error.body()).unwrap_or_default();
        let body: Value = serde_json::from_str(&body).unwrap_or_default();
        let items = body["errors"].as_array().cloned().unwrap_or_default();
        items.iter().map(|e| format!("{} {}", e["pointer"].as_str().unwrap(), e["code"].as_str().unwrap())).collect()
    }

    #[test]
    fn every_wrong_field_is_named_once() {
        let body = r#"{"name": "", "notes": 3, "rate": 1.5, "extra/field": 1}"#;
        let found = problems(body, |f| {
            f.line("name", 1..=10);
            f.optional_text("notes", 10);
            f.integer_or("rate", 0, 0..=9);
            f.uuid("id");
        });
        assert_eq!(
            found,
            ["/name too_short", "/notes wrong_type", "/rate wrong_type", "/id required", "/extra~1field unknown_field"]
        );
    }

    #[test]
    fn good_fields_come_out_as_sent() {
        let mut fields = Fields::parse(r#"{"name": "Ünit", "notes": null, "rate": 9}"#.as_bytes()).unwrap();
        assert_eq!(fields.line("name", 1..=4), "Ünit");
        assert_eq!(fields.optional_text("notes", 3), None);
        assert_eq!(fields.integer_or("rate", 0, 0..=9), 9);
        fields.finish().unwrap();
    }

    #[test]
    fn what_the_database_cannot_store_is_refused() {
        let body = r#"{"input": {"a": ["x\u0000"]}, "name": "a\u0000b", "notes": "\u0000"}"#;
        let found = problems(body, |f| {
            f.value("input");
            f.line("name", 1..=10);
            f.optional_text("notes", 10);
        });
        assert_eq!(found, ["/input malformed", "/name malformed", "/notes malformed"]);
    }

    #[test]
    fn text_that_is_no_json_object_is_refused() {
        assert_eq!(Fields::parse(b"{").err().unwrap().code(), "malformed_json");
        assert_eq!(Fields::parse(b"[]").err().unwrap().code(), "invalid");
    }
}
