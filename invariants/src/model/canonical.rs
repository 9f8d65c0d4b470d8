//! Canonical JSON (RFC 8785) for values whose numbers are whole, and the hash over it.
//!
//! Fractions travel as strings in this product, so a number that is not whole is refused
//! instead of guessing at a shortest float form; so is one that a double cannot hold exactly.
//!
//! Re-derived from the specification on purpose: do not deduplicate against the system.

use std::fmt::Write as _;

use serde_json::{Map, Number, Value};
use sha2::{Digest, Sha256};
use thiserror::Error;

/// Largest magnitude that a double holds exactly together with its neighbours: 2^53 - 1.
const WHOLE_MAX: u64 = (1 << 53) - 1;

/// Deepest nesting that is written.
const DEPTH_MAX: usize = 128;

/// Why a value has no canonical form here.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CanonicalError {
    /// The number has a fraction, an exponent or is beyond +-(2^53 - 1).
    #[error("number {0} is not a whole number that a double holds exactly")]
    Number(String),
    /// Nested deeper than 128 levels.
    #[error("nested deeper than {DEPTH_MAX} levels")]
    Depth,
}

/// The RFC 8785 text of `value`: no white space, keys ordered by UTF-16 code units.
pub fn canonical_json(value: &Value) -> Result<String, CanonicalError> {
    let mut out = String::new();
    write_value(&mut out, value, 0)?;
    Ok(out)
}

/// Lower-case hex SHA-256 of the canonical JSON of `{engine_version, input, result}`.
pub fn result_hash(engine_version: &str, input: &Value, result: &Value) -> Result<String, CanonicalError> {
    // The three keys are already in canonical order.
    let mut out = String::from("{\"engine_version\":");
    write_string(&mut out, engine_version);
    out.push_str(",\"input\":");
    write_value(&mut out, input, 1)?;
    out.push_str(",\"result\":");
    write_value(&mut out, result, 1)?;
    out.push('}');
    Ok(hex::encode(Sha256::digest(out.as_bytes())))
}

fn write_value(out: &mut String, value: &Value, depth: usize) -> Result<(), CanonicalError> {
    if depth > DEPTH_MAX {
        return Err(CanonicalError::Depth);
    }
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(true) => out.push_str("true"),
        Value::Bool(false) => out.push_str("false"),
        Value::Number(number) => write_number(out, number)?,
        Value::String(text) => write_string(out, text),
        Value::Array(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                write_value(out, item, depth + 1)?;
            }
            out.push(']');
        }
        Value::Object(map) => write_object(out, map, depth)?,
    }
    Ok(())
}

fn write_object(out: &mut String, map: &Map<String, Value>, depth: usize) -> Result<(), CanonicalError> {
    let mut members: Vec<(&String, &Value)> = map.iter().collect();
    members.sort_by(|(a, _), (b, _)| a.encode_utf16().cmp(b.encode_utf16()));
    out.push('{');
    for (index, (key, value)) in members.into_iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        write_string(out, key);
        out.push(':');
        write_value(out, value, depth + 1)?;
    }
    out.push('}');
    Ok(())
}

fn write_number(out: &mut String, number: &Number) -> Result<(), CanonicalError> {
    let refused = || CanonicalError::Number(number.to_string());
    let magnitude = match (number.as_u64(), number.as_i64()) {
        (Some(positive), _) => positive,
        (None, Some(negative)) => negative.unsigned_abs(),
        (None, None) => return Err(refused()),
    };
    if magnitude > WHOLE_MAX {
        return Err(refused());
    }
    out.push_str(&number.to_string());
    Ok(())
}

fn write_string(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{8}' => out.push_str("\\b"),
            '\t' => out.push_str("\\t"),
            '\n' => out.push_str("\\n"),
            '\u{c}' => out.push_str("\\f"),
            '\r' => out.push_str("\\r"),
            c if c < ' ' => {
                // Writing into a String cannot fail.
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn keys_are_ordered_by_utf16_code_units_not_by_code_points() {
        // U+1F600 is D83D DE00 in UTF-16 and so sorts before U+FB33, though its code point is larger.
        let value = json!({"\u{fb33}": 1, "\u{1f600}": 2, "\u{20ac}": 3, "\r": 4, "1": 5, "\u{80}": 6, "\u{f6}": 7});
        assert_eq!(
            canonical_json(&value).expect("canonical"),
            "{\"\\r\":4,\"1\":5,\"\u{80}\":6,\"\u{f6}\":7,\"\u{20ac}\":3,\"\u{1f600}\":2,\"\u{fb33}\":1}"
        );
    }

    #[test]
    fn only_the_control_characters_quote_and_backslash_are_escaped() {
        let value = json!("\u{20ac}$\u{f}\nA'B\"\\/\u{7f}<\u{2028}");
        assert_eq!(canonical_json(&value).expect("canonical"), "\"\u{20ac}$\\u000f\\nA'B\\\"\\\\/\u{7f}<\u{2028}\"");
    }

    #[test]
    fn numbers_that_are_not_whole_or_not_exact_in_a_double_are_refused() {
        for bad in ["1.5", "1.0", "1e3", "-0.0", "9007199254740992", "-9007199254740992"] {
            let value: Value = serde_json::from_str(bad).expect("json");
            assert!(canonical_json(&value).is_err(), "{bad}");
        }
        let fine: Value = serde_json::from_str("[9007199254740991,-9007199254740991,0]").expect("json");
        assert_eq!(canonical_json(&fine).expect("canonical"), "[9007199254740991,-9007199254740991,0]");
    }

    #[test]
    fn the_hash_is_that_of_the_text_written_by_hand() {
        // printf '{"engine_version":"1","input":{"a":1,"b":"x"},"result":null}' | sha256sum
        let hash = result_hash("1", &json!({"b": "x", "a": 1}), &Value::Null).expect("hash");
        assert_eq!(hash, "8f479f651107b464a17b820c3464f7a3db7568d86348a2d44e10f050d55203cd");
    }

    #[test]
    fn any_changed_part_changes_the_hash() {
        let base = result_hash("1", &json!({"a": 1}), &json!({"cash": "1.00"})).expect("hash");
        for other in [
            result_hash("2", &json!({"a": 1}), &json!({"cash": "1.00"})),
            result_hash("1", &json!({"a": 2}), &json!({"cash": "1.00"})),
            result_hash("1", &json!({"a": 1}), &json!({"cash": "1.01"})),
        ] {
            assert_ne!(base, other.expect("hash"));
        }
    }

    #[test]
    fn nesting_without_end_is_refused() {
        let mut value = json!(1);
        for _ in 0..200 {
            value = json!([value]);
        }
        assert_eq!(canonical_json(&value), Err(CanonicalError::Depth));
    }
}
