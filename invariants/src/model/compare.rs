//! Holds a forecast that the system reported against the expected one, amount by amount.
//!
//! The value of `engine_version` is not judged (it must be a text that says something);
//! everything else must be there, be equal, and nothing may be added. An uncertainty block
//! is judged by its own laws.
//!
//! Re-derived from the specification on purpose: do not deduplicate against the system.

use serde::Serialize;
use serde_json::{Map, Value};

use super::error::OracleError;
use super::forecast::{AMOUNT_OUT_OF_RANGE, Expected, forecast};
use super::scenario::Scenario;
use super::uncertainty;

/// Mismatches that are kept as witnesses; all are counted.
pub const MISMATCHES_KEPT_MAX: usize = 20;

/// Characters of a value that a witness keeps.
const WITNESS_CHARS_MAX: usize = 120;

/// One place where the answer differs from the expectation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Mismatch {
    /// JSON pointer into the result.
    pub pointer: String,
    /// JSON text or, in words, the law that must hold there.
    pub expected: String,
    /// JSON text, or `(absent)`.
    pub actual: String,
}

/// What a comparison found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Comparison {
    /// Amounts and units that were present and held against the expectation, right or wrong.
    pub amounts_compared: u64,
    /// All mismatches, kept or not.
    pub mismatches_total: u64,
    /// The first 20 of them.
    pub mismatches: Vec<Mismatch>,
}

impl Comparison {
    /// Whether nothing differed and at least one amount was compared.
    pub fn holds(&self) -> bool {
        self.mismatches_total == 0 && self.amounts_compared > 0
    }

    pub(super) fn differs(
        &mut self,
        pointer: impl Into<String>,
        expected: impl Into<String>,
        actual: impl Into<String>,
    ) {
        self.mismatches_total += 1;
        if self.mismatches.len() < MISMATCHES_KEPT_MAX {
            self.mismatches.push(Mismatch {
                pointer: pointer.into(),
                expected: expected.into(),
                actual: actual.into(),
            });
        }
    }
}

/// Holds the `actual` result of a forecast that succeeded against `input`.
///
/// Where the forecast ought to have failed, the whole answer is one mismatch. Errors: the
/// input cannot be read, so nothing is known.
pub fn compare(input: &Value, actual: &Value) -> Result<Comparison, OracleError> {
    let mut found = Comparison::default();
    let expected = match forecast(input)? {
        Expected::Result(expected) => expected,
        Expected::Failed { code } => {
            found.differs("", format!("failed with {code}"), "succeeded");
            return Ok(found);
        }
    };
    let (Value::Object(expected), Value::Object(actual)) = (&expected, actual) else {
        found.differs("", "an object", text_of(Some(actual)));
        return Ok(found);
    };
    let mut walk = Walk { found: &mut found, path: Vec::new() };
    walk.objects(expected, actual, &["engine_version", "uncertainty"]);
    match actual.get("engine_version") {
        Some(Value::String(version)) if !version.is_empty() => {}
        other => found.differs("/engine_version", "a version", text_of(other)),
    }
    let scenario = Scenario::read(input)?;
    uncertainty::judge(&scenario, expected, actual.get("uncertainty"), &mut found);
    Ok(found)
}

/// Holds a forecast that ended as failed, with the stable `code`, against `input`.
///
/// Right only where an amount is out of range and the code says so. Where paths are drawn, a
/// single path may pass the limit although the plain forecast stays inside, which is
/// [`OracleError::Undecided`]. `amounts_compared` is 0: a failure shows none.
pub fn compare_failure(input: &Value, code: &str) -> Result<Comparison, OracleError> {
    let mut found = Comparison::default();
    match forecast(input)? {
        Expected::Failed { code: expected } if expected == code => {}
        Expected::Failed { code: expected } => {
            found.differs("", format!("failed with {expected}"), code);
        }
        Expected::Result(_) => {
            let draws = Scenario::read(input)?.uncertainty.is_some_and(|block| !block.is_bypassed());
            if draws && code == AMOUNT_OUT_OF_RANGE {
                let reason = "a path may have passed the limit".to_owned();
                return Err(OracleError::Undecided(reason));
            }
            found.differs("", "succeeded", format!("failed with {code}"));
        }
    }
    Ok(found)
}

/// The JSON text of a value, shortened.
pub(super) fn text_of(value: Option<&Value>) -> String {
    match value {
        None => "(absent)".to_owned(),
        Some(value) => value.to_string().chars().take(WITNESS_CHARS_MAX).collect(),
    }
}

/// One step of a pointer; made into text only where something differs.
#[derive(Clone, Copy)]
enum Step<'a> {
    Key(&'a str),
    Index(usize),
}

struct Walk<'a, 'f> {
    found: &'f mut Comparison,
    path: Vec<Step<'a>>,
}

impl<'a> Walk<'a, '_> {
    fn objects(&mut self, expected: &'a Map<String, Value>, actual: &'a Map<String, Value>, apart: &[&str]) {
        for (key, value) in expected {
            if !apart.contains(&key.as_str()) {
                self.path.push(Step::Key(key));
                self.values(Some(value), actual.get(key));
                self.path.pop();
            }
        }
        for (key, value) in actual {
            if !apart.contains(&key.as_str()) && !expected.contains_key(key) {
                self.path.push(Step::Key(key));
                self.values(None, Some(value));
                self.path.pop();
            }
        }
    }

    fn values(&mut self, expected: Option<&'a Value>, actual: Option<&'a Value>) {
        match (expected, actual) {
            (Some(Value::Object(expected)), Some(Value::Object(actual))) => {
                self.objects(expected, actual, &[]);
            }
            (Some(Value::Array(expected)), Some(Value::Array(actual))) => {
                for index in 0..expected.len().max(actual.len()) {
                    self.path.push(Step::Index(index));
                    self.values(expected.get(index), actual.get(index));
                    self.path.pop();
                }
            }
            (expected, actual) => {
                if actual.is_some() && self.is_amount(expected) {
                    self.found.amounts_compared += 1;
                }
                if expected != actual {
                    let pointer = self.pointer();
                    self.found.differs(pointer, text_of(expected), text_of(actual));
                }
            }
        }
    }

    /// Every text of a result is an amount or units, but for three kinds of label.
    fn is_amount(&self, expected: Option<&Value>) -> bool {
        let labelled = matches!(self.path.last(), Some(Step::Key("name" | "month" | "currency")));
        matches!(expected, Some(Value::String(_))) && !labelled
    }

    fn pointer(&self) -> String {
        self.path
            .iter()
            .map(|step| match step {
                Step::Key(key) => format!("/{}", key.replace('~', "~0").replace('/', "~1")),
                Step::Index(index) => format!("/{index}"),
            })
            .collect()
    }
}
