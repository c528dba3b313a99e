//! Reading JSON that an attacker shaped: members that are nested deeper than anybody looks are skipped, not refused.
//! Invariant: no depth of nesting makes the reader fail, recurse further, or lose the members above it.

use std::fmt;

use serde::de::{DeserializeSeed, Error, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Map, Number, Value};

/// The value that `bytes` begin with, with `null` in place of arrays and objects below `depth` levels. Bytes behind it
/// are not looked at; `None` if it is no JSON.
///
/// A common reader refuses a text that is nested deeper than it can follow, and whoever can have JSON of theirs logged
/// could then hide an alert's address behind some hundred brackets.
pub fn read_shallow(bytes: &[u8], depth: usize) -> Option<Value> {
    Level(depth.clamp(1, DEEPEST)).deserialize(&mut serde_json::Deserializer::from_slice(bytes)).ok()
}

/// Levels that may still be entered.
#[derive(Clone, Copy)]
struct Level(usize);

impl<'de> DeserializeSeed<'de> for Level {
    type Value = Value;

    fn deserialize<D: serde::Deserializer<'de>>(self, input: D) -> Result<Value, D::Error> {
        input.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Level {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut read = Vec::new();
        while let Some(item) = items.next_element_seed(Inner(self.0 - 1))? {
            read.push(item);
        }
        Ok(Value::Array(read))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut read = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            read.insert(name, members.next_value_seed(Inner(self.0 - 1))?);
        }
        Ok(Value::Object(read))
    }
}

/// What stands in an array or object: texts and numbers on the last level are still read.
struct Inner(usize);

impl<'de> DeserializeSeed<'de> for Inner {
    type Value = Value;

    fn deserialize<D: serde::Deserializer<'de>>(self, input: D) -> Result<Value, D::Error> {
        if self.0 > 0 {
            return input.deserialize_any(Level(self.0));
        }
        // Whether it is a scalar only shows from its text; that text is skipped as a whole, however deep it is.
        let raw: Box<RawValue> = serde::Deserialize::deserialize(input)?;
        match raw.get().as_bytes().first() {
            Some(b'{' | b'[') => Ok(Value::Null),
            _ => serde_json::from_str(raw.get()).map_err(D::Error::custom),
        }
    }
}

/// Below the depth at which the JSON library itself gives up.
const DEEPEST: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;

    fn nested(levels: usize, open: &str, close: &str) -> String {
        format!("{}1{}", open.repeat(levels), close.repeat(levels))
    }

    #[test]
    fn members_beside_ten_thousand_levels_are_read() {
        for (open, close) in [("[", "]"), (r#"{"a":"#, "}")] {
            let deep = nested(10_000, open, close);
            let text = format!(
                r#"{{"x":{deep},"data":{{"y":{deep},"srcip":"203.0.113.7","n":-7,"z":{deep}}}}} rest"#
            );
            let value = read_shallow(text.as_bytes(), 8).unwrap();
            assert_eq!(value["data"]["srcip"], "203.0.113.7");
            assert_eq!(value["data"]["n"], -7);
        }
    }

    #[test]
    fn what_is_nested_below_the_given_levels_is_null() {
        let value = read_shallow(br#"{"a":{"b":[1],"c":2}}"#, 2).unwrap();
        assert_eq!(value, serde_json::json!({"a": {"b": null, "c": 2}}));
    }

    #[test]
    fn what_is_no_json_is_none() {
        for text in ["", "{", r#"{"a":[1,}"#, "tru"] {
            assert_eq!(read_shallow(text.as_bytes(), 8), None, "{text}");
        }
    }
}
