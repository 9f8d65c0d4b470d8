//! JSON read so that no two readers can understand it differently, and in bounded memory.
//!
//! An object that names a member twice is refused: which of the two counts is anybody's guess, and whoever
//! checked the other one (a proxy, a log) checked for nothing. Depth is bounded by the parser (128), the
//! number of values here, since a value takes up to eighty times the bytes it was written with.

use std::cell::Cell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use crate::error::ApiError;

/// Most values of a document, members' names not counted; the largest that a route takes has about 10,000.
const VALUES_MAX: usize = 50_000;

const MALFORMED: &str = "The body is not valid JSON.";
const TWICE: &str = "An object of the body names a member twice.";
const TOO_MANY: &str = "The body holds too many values.";

/// Reads a whole document.
///
/// # Errors
/// 400 `malformed_json`; what the text says is never repeated.
pub(crate) fn parse(body: &[u8]) -> Result<Value, ApiError> {
    let reading = Reading { left: Cell::new(VALUES_MAX), fault: Cell::new(MALFORMED) };
    let mut text = serde_json::Deserializer::from_slice(body);
    let value = reading.deserialize(&mut text).and_then(|value| text.end().map(|()| value));
    value.map_err(|_| ApiError::malformed_json(reading.fault.get()))
}

struct Reading {
    left: Cell<usize>,
    fault: Cell<&'static str>,
}

impl Reading {
    fn fails<E: serde::de::Error>(&self, fault: &'static str) -> E {
        self.fault.set(fault);
        E::custom(fault)
    }
}

impl<'de> DeserializeSeed<'de> for &Reading {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        let Some(left) = self.left.get().checked_sub(1) else { return Err(self.fails(TOO_MANY)) };
        self.left.set(left);
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for &Reading {
    type Value = Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom(MALFORMED))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::String(text.to_owned()))
    }

    fn visit_string<E>(self, text: String) -> Result<Value, E> {
        Ok(Value::String(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut array = Vec::new();
        while let Some(item) = items.next_element_seed(self)? {
            array.push(item);
        }
        Ok(Value::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            let value = members.next_value_seed(self)?;
            if object.insert(name, value).is_some() {
                return Err(self.fails(TWICE));
            }
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &[u8]) -> String {
        let error = parse(text).unwrap_err();
        assert_eq!(error.code(), "malformed_json");
        serde_json::from_str::<Value>(&error.body()).unwrap()["detail"].as_str().unwrap().to_owned()
    }

    #[test]
    fn a_document_is_read_as_it_stands() {
        let text = r#"{"b":[1,-2,18446744073709551615,0.5,1e30,"ü\u0041\n",true,false,null,{}],"a":{"b":{"a":[]}}}"#;
        let expected: Value = serde_json::from_str(text).unwrap();
        assert_eq!(parse(text.as_bytes()).unwrap().to_string(), expected.to_string());
    }

    #[test]
    fn a_member_named_twice_is_refused_wherever_it_stands() {
        for text in [r#"{"a":1,"a":1}"#, r#"[{"x":{"a":1,"b":2,"a":null}}]"#, r#"{"a":1,"\u0061":2}"#] {
            assert_eq!(refused(text.as_bytes()), TWICE, "{text}");
        }
    }

    #[test]
    fn depth_number_of_values_and_size_of_numbers_are_bounded() {
        assert_eq!(refused(&b"[".repeat(100_000)), MALFORMED);
        assert_eq!(refused(&br#"{"a":"#.repeat(100_000)), MALFORMED);
        let closed = [b"[".repeat(100_000), b"]".repeat(100_000)].concat();
        assert_eq!(refused(&closed), MALFORMED);
        assert_eq!(refused(b"1e400"), MALFORMED);
        assert!(parse(&b"9".repeat(300)).unwrap().is_f64());
        let many = |count: usize| format!("[{}1]", "1,".repeat(count - 2)).into_bytes();
        assert!(parse(&many(VALUES_MAX)).is_ok());
        assert_eq!(refused(&many(VALUES_MAX + 1)), TOO_MANY);
    }

    #[test]
    fn bytes_that_are_no_text_are_refused() {
        for text in [&b"\xff"[..], b"\"\xc3\x28\"", b"{\"\xed\xa0\x80\":1}", b"\"\\ud800\"", b"{} x", b"", b"NaN"] {
            assert_eq!(refused(text), MALFORMED, "{text:?}");
        }
    }
}
