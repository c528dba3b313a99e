//! JSON logs: every scalar becomes a field under its dotted path (analysis-decoders 5).
//!
//! Fields are taken while the text is read. Invariant: a text with a mistake anywhere leaves the event as it was.

use std::borrow::Cow;

use crate::decoder::json::{DEPTH, Json, Parser, field_number};
use crate::decoder::{Decoders, JsonOptions};
use crate::{Decoded, StaticField};

/// Comma-joined arrays of this length are dropped.
const CSV_LENGTH: usize = 65_536;

/// Memory that stays between events.
#[derive(Debug, Default)]
pub(in crate::decoder) struct Buffers {
    path: Vec<u8>,
    unescaped: Vec<u8>,
}

/// Fills fields from the JSON object that `subject` begins with; false when there is none.
pub(in crate::decoder) fn decode(
    decoded: &mut Decoded<'_>,
    subject: &[u8],
    options: JsonOptions,
    decoders: &Decoders,
    buffers: &mut Buffers,
) -> bool {
    let mut parser = Parser::new(subject);
    parser.skip_blanks();
    if parser.peek() != Some(b'{') {
        return false;
    }
    let before = decoded.mark();
    buffers.path.clear();
    let mut walk = Walk { decoded, options, decoders, path: &mut buffers.path };
    let read = walk.read_members(&mut parser, &mut buffers.unescaped, 1);
    if read.is_none() {
        decoded.back_to(before);
    }
    read.is_some()
}

/// Fills fields from a value that was read already.
pub(in crate::decoder) fn fill(
    decoded: &mut Decoded<'_>,
    object: Json<'_>,
    options: JsonOptions,
    decoders: &Decoders,
) {
    if let Json::Object(members) = object {
        Walk { decoded, options, decoders, path: &mut Vec::new() }.members(members);
    }
}

struct Walk<'d, 'e> {
    decoded: &'d mut Decoded<'e>,
    options: JsonOptions,
    decoders: &'d Decoders,
    /// Names of the objects around, each with its dot.
    path: &'d mut Vec<u8>,
}

impl Walk<'_, '_> {
    /// Reads the members of an object; none where the text is no JSON.
    fn read_members(&mut self, parser: &mut Parser<'_>, unescaped: &mut Vec<u8>, depth: usize) -> Option<()> {
        parser.members(unescaped, |parser, key, unescaped| match parser.peek()? {
            b'{' if depth < DEPTH => {
                let length = self.enter(key);
                let read = self.read_members(parser, unescaped, depth + 1);
                self.path.truncate(length);
                read
            }
            b'"' => {
                let text = parser.text(unescaped)?;
                self.store(key, text.unwrap_or(unescaped));
                Some(())
            }
            _ => {
                if let Some(number) = parser.plain_integer() {
                    self.store(key, number);
                    return Some(());
                }
                let value = parser.value(depth)?;
                self.member(key, value);
                Some(())
            }
        })
    }

    fn members(&mut self, members: Vec<(Cow<'_, [u8]>, Json<'_>)>) {
        for (key, value) in members {
            self.member(&key, value);
        }
    }

    fn member(&mut self, key: &[u8], value: Json<'_>) {
        match value {
            Json::Object(inner) => {
                let length = self.enter(key);
                self.members(inner);
                self.path.truncate(length);
            }
            Json::String(text) => self.store(key, &text),
            Json::Bool(true) => self.store(key, b"true"),
            Json::Bool(false) => self.store(key, b"false"),
            Json::Null if self.options.discard_null => {}
            Json::Null => self.store(key, b"null"),
            Json::Number(number) => self.store(key, field_number(number).as_bytes()),
            Json::Array(elements) if self.options.csv_arrays => {
                if let Some(text) = csv(&elements) {
                    self.store(key, &text);
                }
            }
            array @ Json::Array(_) => self.store(key, &array.pretty()),
        }
    }

    /// Goes into the object of that name; the length of the path before.
    fn enter(&mut self, key: &[u8]) -> usize {
        let length = self.path.len();
        self.name(key);
        self.path.push(b'.');
        length
    }

    /// Puts a name behind the path, with a sign in place of bytes that are no text.
    fn name(&mut self, key: &[u8]) {
        self.path.extend_from_slice(String::from_utf8_lossy(key).as_bytes());
    }

    fn store(&mut self, key: &[u8], value: &[u8]) {
        let top = self.path.is_empty();
        if let Some(field) = static_field(key).filter(|_| top) {
            self.decoded.set(field, value);
            return;
        }
        if top && key == b"user" && self.decoded.field(StaticField::DstUser).is_none() {
            self.decoded.set(StaticField::DstUser, value);
            return;
        }
        let length = self.path.len();
        self.name(key);
        let known = self.decoders.fields.find(self.path);
        self.decoded.push_known(self.path, known, value, self.decoders.order_size);
        self.path.truncate(length);
    }
}

/// Unlike in `order`, the system's name is one word here.
fn static_field(name: &[u8]) -> Option<StaticField> {
    match name {
        b"systemname" => Some(StaticField::SystemName),
        b"system_name" => None,
        name => StaticField::ALL.into_iter().find(|field| field.name().as_bytes() == name),
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
