//! The fingerprint that ties a result to its input and engine.

use serde_json::Value;
use sha2::{Digest, Sha256};

/// Lower-case hex SHA-256 of the canonical JSON (RFC 8785) of `{engine_version, input, result}`.
///
/// `input` is the JSON value as it was stored: absent optional fields stay absent, and `"1.50"` and
/// `"1.5"` hash apart.
pub(crate) fn result_hash(engine_version: &str, input: &Value, result: &Value) -> String {
    let document = serde_json::json!({ "engine_version": engine_version, "input": input, "result": result });
    let canonical = serde_json_canonicalizer::to_vec(&document);
    hex::encode(Sha256::digest(canonical.expect("a JSON value with finite numbers has a canonical form")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_hash_covers_canonical_bytes() {
        let canonical = br#"{"engine_version":"1","input":{"a":"x","b":2},"result":null}"#;
        let expected = hex::encode(Sha256::digest(canonical));
        assert_eq!(result_hash("1", &json!({ "b": 2, "a": "x" }), &Value::Null), expected);
    }

    #[test]
    fn each_part_counts() {
        let base = result_hash("1", &json!({ "a": "1.5" }), &json!(1));
        assert_ne!(base, result_hash("2", &json!({ "a": "1.5" }), &json!(1)));
        assert_ne!(base, result_hash("1", &json!({ "a": "1.50" }), &json!(1)));
        assert_ne!(base, result_hash("1", &json!({ "a": "1.5" }), &json!(2)));
    }
}
