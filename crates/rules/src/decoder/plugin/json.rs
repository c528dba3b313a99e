//! JSON logs: every scalar becomes a field under its dotted path (analysis-decoders 5).
//!
//! Fields are taken while the text is read. Invariant: a text with a mistake anywhere leaves the event as it was.

use std::borrow::Cow;

use crate::decoder::json::{DEPTH, Json, Parser, field_number};
use crate::decoder::{Decoders, JsonOptions};
use crate::fields::{Fixed, Member, Scope, Span};
use crate::{Decoded, StaticField};

/// Comma-joined arrays of this length are dropped.
const CSV_LENGTH: usize = 65_536;

/// Memory that stays between events.
#[derive(Debug, Default)]
pub(in crate::decoder) struct Buffers {
    path: Vec<u8>,
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
    if parser.byte(b'{').is_none() {
        return false;
    }
    let before = decoded.mark();
    buffers.path.clear();
    let mut walk = Walk { decoded, options, decoders, path: &mut buffers.path };
    let read = walk.read_members(&mut parser, Scope::TOP, 1);
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
        Walk { decoded, options, decoders, path: &mut Vec::new() }.members(members, Scope::TOP);
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
    /// Reads the members of an object from behind its brace on; none where the text is no JSON.
    fn read_members(&mut self, parser: &mut Parser<'_>, scope: Scope, depth: usize) -> Option<()> {
        parser.skip_blanks();
        if parser.byte(b'}').is_some() {
            return Some(());
        }
        loop {
            parser.skip_blanks();
            let key = parser.string()?;
            parser.colon()?;
            let key = lossy(&key);
            let member = self.member(scope, &key);
            self.read_member(parser, &key, member, depth)?;
            parser.skip_blanks();
            if parser.byte(b',').is_none() {
                return parser.byte(b'}');
            }
        }
    }

    fn read_member(
        &mut self,
        parser: &mut Parser<'_>,
        key: &[u8],
        member: Member,
        depth: usize,
    ) -> Option<()> {
        let start = self.decoded.own().len();
        let written = match parser.peek()? {
            b'{' if depth < DEPTH => {
                parser.byte(b'{')?;
                let length = self.enter(key);
                let read = self.read_members(parser, member.within, depth + 1);
                self.path.truncate(length);
                return read;
            }
            b'"' => parser.text(self.decoded.own())?,
            b'[' if !self.options.csv_arrays => {
                parser.pretty(depth, self.decoded.own())?;
                None
            }
            b't' => Some(parser.take(b"true")?),
            b'f' => Some(parser.take(b"false")?),
            b'n' if self.options.discard_null => return parser.take(b"null").map(|_| ()),
            b'n' => Some(parser.take(b"null")?),
            _ => match parser.integer() {
                Some((text, false)) => Some(text),
                Some((text, true)) => {
                    let own = self.decoded.own();
                    own.extend_from_slice(text);
                    own.extend_from_slice(b".000000");
                    None
                }
                None => {
                    let value = parser.value(depth)?;
                    self.fill_member(key, member, value);
                    return Some(());
                }
            },
        };
        let value = match written {
            Some(text) => self.decoded.span(text),
            None => self.decoded.own_from(start),
        };
        self.store(key, member, value);
        Some(())
    }

    fn members(&mut self, members: Vec<(Cow<'_, [u8]>, Json<'_>)>, scope: Scope) {
        for (key, value) in members {
            let key = lossy(&key);
            let member = self.member(scope, &key);
            self.fill_member(&key, member, value);
        }
    }

    fn fill_member(&mut self, key: &[u8], member: Member, value: Json<'_>) {
        let value = match value {
            Json::Object(inner) => {
                let length = self.enter(key);
                self.members(inner, member.within);
                self.path.truncate(length);
                return;
            }
            Json::Null if self.options.discard_null => return,
            Json::String(text) => self.decoded.span(&text),
            Json::Bool(true) => self.decoded.span(b"true"),
            Json::Bool(false) => self.decoded.span(b"false"),
            Json::Null => self.decoded.span(b"null"),
            Json::Number(number) => self.decoded.span(field_number(number).as_bytes()),
            Json::Array(elements) if self.options.csv_arrays => match csv(&elements) {
                Some(text) => self.decoded.span(&text),
                None => return,
            },
            array @ Json::Array(_) => self.decoded.span(&array.pretty()),
        };
        self.store(key, member, value);
    }

    /// What is known of a member by that name.
    fn member(&mut self, scope: Scope, key: &[u8]) -> Member {
        let Self { decoders, path, .. } = self;
        decoders.fields.member(scope, key, || {
            let length = path.len();
            path.extend_from_slice(key);
            let known = decoders.fields.find(path);
            path.truncate(length);
            known
        })
    }

    /// Goes into the object of that name; the length of the path before.
    fn enter(&mut self, key: &[u8]) -> usize {
        let length = self.path.len();
        self.path.extend_from_slice(key);
        self.path.push(b'.');
        length
    }

    fn store(&mut self, key: &[u8], member: Member, value: Span) {
        match member.fixed {
            Some(Fixed::Static(field)) => self.decoded.set_at(field, value),
            Some(Fixed::User) if self.decoded.field(StaticField::DstUser).is_none() => {
                self.decoded.set_at(StaticField::DstUser, value);
            }
            _ => self.decoded.push_member([self.path, key], member.field, value, self.decoders.order_size),
        }
    }
}

/// A name with a sign in place of bytes that are no text.
fn lossy(key: &[u8]) -> Cow<'_, [u8]> {
    if key.is_ascii() {
        return Cow::Borrowed(key);
    }
    match String::from_utf8_lossy(key) {
        Cow::Borrowed(key) => Cow::Borrowed(key.as_bytes()),
        Cow::Owned(key) => Cow::Owned(key.into_bytes()),
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
