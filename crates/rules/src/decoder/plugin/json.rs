//! JSON logs: every scalar becomes a field under its dotted path (analysis-decoders 5).

use std::borrow::Cow;

use crate::decoder::JsonOptions;
use crate::decoder::json::{Json, field_number};
use crate::{Decoded, StaticField, Value};

/// Comma-joined arrays of this length are dropped.
const CSV_LENGTH: usize = 65_536;

/// Fills fields from the JSON object that `subject` begins with; false when there is none.
pub(in crate::decoder) fn decode<'e>(
    decoded: &mut Decoded<'e>,
    subject: Value<'e>,
    options: JsonOptions,
    most: usize,
) -> bool {
    match subject {
        Cow::Borrowed(text) => match Json::parse(text) {
            Some(Json::Object(members)) => {
                walk(decoded, members, options, most);
                true
            }
            _ => false,
        },
        Cow::Owned(text) => match Json::parse(&text) {
            Some(object @ Json::Object(_)) => {
                fill(decoded, &object, options, most);
                true
            }
            _ => false,
        },
    }
}

/// Fills fields from a value that does not live as long as the event.
pub(in crate::decoder) fn fill(
    decoded: &mut Decoded<'_>,
    object: &Json<'_>,
    options: JsonOptions,
    most: usize,
) {
    if let Json::Object(members) = into_owned(object) {
        walk(decoded, members, options, most);
    }
}

fn into_owned(value: &Json<'_>) -> Json<'static> {
    match value {
        Json::Null => Json::Null,
        Json::Bool(value) => Json::Bool(*value),
        Json::Number(value) => Json::Number(*value),
        Json::String(text) => Json::String(Cow::Owned(text.to_vec())),
        Json::Array(elements) => Json::Array(elements.iter().map(into_owned).collect()),
        Json::Object(members) => Json::Object(
            members.iter().map(|(key, value)| (Cow::Owned(key.to_vec()), into_owned(value))).collect(),
        ),
    }
}

fn walk<'e>(
    decoded: &mut Decoded<'e>,
    members: Vec<(Value<'e>, Json<'e>)>,
    options: JsonOptions,
    most: usize,
) {
    let mut walk = Walk { decoded, options, most, path: Vec::new() };
    walk.members(members);
}

struct Walk<'d, 'e> {
    decoded: &'d mut Decoded<'e>,
    options: JsonOptions,
    most: usize,
    /// Names of the objects around, each with its dot.
    path: Vec<u8>,
}

impl<'e> Walk<'_, 'e> {
    fn members(&mut self, members: Vec<(Value<'e>, Json<'e>)>) {
        for (key, value) in members {
            let text: Value<'e> = match value {
                Json::Object(inner) => {
                    let length = self.path.len();
                    self.path.extend_from_slice(&key);
                    self.path.push(b'.');
                    self.members(inner);
                    self.path.truncate(length);
                    continue;
                }
                Json::String(text) => text,
                Json::Bool(true) => Cow::Borrowed(b"true"),
                Json::Bool(false) => Cow::Borrowed(b"false"),
                Json::Null if self.options.discard_null => continue,
                Json::Null => Cow::Borrowed(b"null"),
                Json::Number(number) => Cow::Owned(field_number(number).into_bytes()),
                Json::Array(elements) if self.options.csv_arrays => match csv(&elements) {
                    Some(text) => Cow::Owned(text),
                    None => continue,
                },
                array @ Json::Array(_) => Cow::Owned(array.pretty()),
            };
            self.store(key, text);
        }
    }

    fn store(&mut self, key: Value<'e>, value: Value<'e>) {
        let name: Cow<'e, str> = match key {
            Cow::Borrowed(key) if self.path.is_empty() => String::from_utf8_lossy(key),
            key => Cow::Owned(String::from_utf8_lossy(&[&self.path, &*key].concat()).into_owned()),
        };
        match static_field(&name) {
            Some(field) => self.decoded.set(field, value),
            None if name == "user" && self.decoded.field(StaticField::DstUser).is_none() => {
                self.decoded.set(StaticField::DstUser, value);
            }
            None => {
                self.decoded.push_dynamic(name, value, self.most);
            }
        }
    }
}

/// Unlike in `order`, the system's name is one word here.
fn static_field(name: &str) -> Option<StaticField> {
    match name {
        "systemname" => Some(StaticField::SystemName),
        "system_name" => None,
        name => StaticField::from_name(name),
    }
}

/// Scalars joined with commas. The comma belongs to the element before it, so a skipped last element leaves one.
fn csv(elements: &[Json<'_>]) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    for (index, element) in elements.iter().enumerate() {
        match element {
            Json::String(text) => out.extend_from_slice(text),
            Json::Number(number) => out.extend_from_slice(field_number(*number).as_bytes()),
            Json::Bool(value) => out.extend_from_slice(if *value { b"true" } else { b"false" }),
            Json::Null => out.extend_from_slice(b"null"),
            Json::Array(_) | Json::Object(_) => continue,
        }
        if index + 1 < elements.len() {
            out.push(b',');
        }
    }
    (!out.is_empty() && out.len() < CSV_LENGTH).then_some(out)
}
