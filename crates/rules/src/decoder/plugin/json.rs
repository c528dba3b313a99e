//! JSON logs: every scalar becomes a field under its dotted path (analysis-decoders 5).
//!
//! Fields are taken while the text is read. Invariant: a text with a mistake anywhere leaves the event as it was.

use std::borrow::Cow;

use crate::decoder::json::{DEPTH, Json, Parser, field_number};
use crate::decoder::{Decoders, JsonOptions};
use crate::fields::{Digest, Fixed, Member, Origin, Path, Scope, Span};
use crate::{Decoded, StaticField};

/// Comma-joined arrays of this length are dropped.
const CSV_LENGTH: usize = 65_536;

/// Memory that stays between events.
#[derive(Debug, Default)]
pub(in crate::decoder) struct Buffers {
    path: Path,
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
    buffers.path.back_to(0);
    let base = decoded.base(parser.whole());
    let document = Object { scope: Scope::TOP, depth: 1, number: decoded.number_object() };
    let mut walk = Walk { decoded, options, decoders, path: &mut buffers.path, base };
    let read = walk.read_members(&mut parser, document);
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
        let path = &mut Path::default();
        Walk { decoded, options, decoders, path, base: None }.members(members, Scope::TOP);
    }
}

struct Walk<'d, 'e> {
    decoded: &'d mut Decoded<'e>,
    options: JsonOptions,
    decoders: &'d Decoders,
    /// Names of the objects around.
    path: &'d mut Path,
    /// Where the document begins in the event's text.
    base: Option<u32>,
}

/// An object whose members are read.
#[derive(Debug, Clone, Copy)]
struct Object {
    scope: Scope,
    depth: usize,
    number: u16,
}

/// What alerts may copy of a member if its value stands as they write it.
#[derive(Debug, Clone, Copy)]
struct Shown {
    start: usize,
    /// Its name, too.
    whole: bool,
}

impl Shown {
    /// Of a member that began there and whose name was read now.
    #[inline]
    fn of(parser: &mut Parser<'_>, start: usize) -> Self {
        let whole = parser.exact_end().is_some();
        let value = parser.start();
        Self { start: if whole { start } else { value }, whole }
    }
}

impl Walk<'_, '_> {
    /// Reads the members of an object from behind its brace on; none where the text is no JSON.
    fn read_members(&mut self, parser: &mut Parser<'_>, object: Object) -> Option<()> {
        parser.skip_blanks();
        if parser.byte(b'}').is_some() {
            return Some(());
        }
        let mut rewritten = Vec::new();
        loop {
            parser.skip_blanks();
            let start = parser.start();
            rewritten.clear();
            let mut key = parser.text(&mut rewritten)?.unwrap_or(&rewritten);
            parser.colon()?;
            let shown = Shown::of(parser, start);
            let mut digest = Digest::of(key);
            let text;
            if digest.odd {
                text = lossy(key);
                key = &text;
                digest = Digest::of(key);
            }
            let member = self.member(object.scope, key, digest);
            let origin = Origin::new(object.number, digest);
            if parser.peek() == Some(b'"') {
                let array = parser.is_next(b'[');
                let own = self.decoded.own().len();
                let value = match parser.text(self.decoded.own())? {
                    Some(text) => self.decoded.span(text),
                    None => self.decoded.own_from(own),
                };
                // What looks like an array is shown as one.
                let origin = if array { origin } else { self.shown(parser, origin, shown) };
                self.store(key, member, value, origin);
            } else {
                self.read_other(parser, (key, member), object, (shown, origin))?;
            }
            if parser.byte(b',').is_none() {
                parser.skip_blanks();
                if parser.byte(b',').is_none() {
                    return parser.byte(b'}');
                }
            }
        }
    }

    /// Reads the value of a member that is no string.
    #[inline(never)]
    fn read_other(
        &mut self,
        parser: &mut Parser<'_>,
        (key, member): (&[u8], Member),
        object: Object,
        (shown, mut origin): (Shown, Origin),
    ) -> Option<()> {
        let own = self.decoded.own().len();
        let written = match parser.peek()? {
            b'{' if object.depth < DEPTH => {
                parser.byte(b'{')?;
                let length = self.enter(key);
                let number = self.decoded.number_object();
                let inner = Object { scope: member.within, depth: object.depth + 1, number };
                let read = self.read_members(parser, inner);
                self.path.back_to(length);
                return read;
            }
            b'[' if !self.options.csv_arrays => {
                parser.pretty(object.depth, self.decoded.own())?;
                origin = self.shown(parser, origin, shown);
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
                    let value = parser.value(object.depth)?;
                    self.fill_member(key, member, value);
                    return Some(());
                }
            },
        };
        let value = match written {
            Some(text) => self.decoded.span(text),
            None => self.decoded.own_from(own),
        };
        self.store(key, member, value, origin);
        Some(())
    }

    /// Where a member comes from whose value was read now.
    #[inline]
    fn shown(&self, parser: &Parser<'_>, origin: Origin, shown: Shown) -> Origin {
        match (self.base, parser.exact_end()) {
            (Some(base), Some(end)) => {
                origin.shown(base + shown.start as u32, base + end as u32, shown.whole)
            }
            _ => origin,
        }
    }

    fn members(&mut self, members: Vec<(Cow<'_, [u8]>, Json<'_>)>, scope: Scope) {
        for (key, value) in members {
            let key = lossy(&key);
            let member = self.member(scope, &key, Digest::of(&key));
            self.fill_member(&key, member, value);
        }
    }

    fn fill_member(&mut self, key: &[u8], member: Member, value: Json<'_>) {
        let value = match value {
            Json::Object(inner) => {
                let length = self.enter(key);
                self.members(inner, member.within);
                self.path.back_to(length);
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
        self.store(key, member, value, Origin::NONE);
    }

    /// What is known of a member by that name.
    #[inline]
    fn member(&mut self, scope: Scope, key: &[u8], digest: Digest) -> Member {
        let fields = &self.decoders.fields;
        fields.member(scope, key, digest, || fields.find(self.path.join(key)))
    }

    /// Goes into the object of that name; the length of the path before.
    fn enter(&mut self, key: &[u8]) -> usize {
        let length = self.path.len();
        self.path.push(key);
        length
    }

    #[inline]
    fn store(&mut self, key: &[u8], member: Member, value: Span, origin: Origin) {
        match member.fixed {
            Some(Fixed::Static(field)) => self.decoded.set_at(field, value),
            Some(Fixed::User) if self.decoded.field(StaticField::DstUser).is_none() => {
                self.decoded.set_at(StaticField::DstUser, value);
            }
            _ => {
                let field = (member.field, value, origin);
                self.decoded.push_member(self.path, key, field, self.decoders.order_size);
            }
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
