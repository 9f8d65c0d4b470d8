//! What the API is asked for, read as leniently as the official server reads it: whatever the
//! content type, unknown fields and what follows the first value are ignored, null is left out.

use serde::{Deserialize, Deserializer, de::DeserializeOwned};
use serde_json::{Map, Value};

use super::api_error::ApiError;

/// A proxy; what is left out stays or takes its default.
#[derive(Debug, Default, Deserialize)]
pub(super) struct ProxyRequest {
    #[serde(default, deserialize_with = "null_is_default")]
    pub name: String,
    #[serde(default, deserialize_with = "null_is_default")]
    pub listen: String,
    #[serde(default, deserialize_with = "null_is_default")]
    pub upstream: String,
    pub enabled: Option<bool>,
}

/// A toxic; an update looks at attributes and toxicity only.
#[derive(Debug, Default, Deserialize)]
pub(super) struct ToxicRequest {
    #[serde(default, deserialize_with = "null_is_default")]
    pub name: String,
    #[serde(default, rename = "type", deserialize_with = "null_is_default")]
    pub kind: String,
    #[serde(default, deserialize_with = "null_is_default")]
    pub stream: String,
    pub toxicity: Option<f32>,
    pub attributes: Option<Map<String, Value>>,
}

/// Reads the first value of a body.
pub(super) fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    let mut reader = serde_json::Deserializer::from_slice(body);
    T::deserialize(&mut reader).map_err(|error| ApiError::BadBody(error.to_string()))
}

fn null_is_default<'de, D: Deserializer<'de>>(reader: D) -> Result<String, D::Error> {
    Ok(Option::deserialize(reader)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn null_is_left_out_and_what_follows_is_ignored() {
        let request: ProxyRequest = read(br#"{"name": "a", "listen": null, "color": 1} trailing"#).expect("read");
        assert_eq!((request.name.as_str(), request.listen.as_str(), request.enabled), ("a", "", None));
        let request: ToxicRequest = read(br#"{"type": "noop", "attributes": null, "toxicity": 0.2}"#).expect("read");
        assert_eq!((request.kind.as_str(), request.attributes, request.toxicity), ("noop", None, Some(0.2)));
    }

    #[test]
    fn what_is_not_json_or_of_another_type_is_refused() {
        for body in ["", "{", "[]x", "\"name\"", "{\"name\": 3}"] {
            assert!(matches!(read::<ProxyRequest>(body.as_bytes()), Err(ApiError::BadBody(_))), "{body}");
        }
    }
}
