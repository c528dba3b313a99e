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
    let Some(base) = decoded.base(parser.whole()) else {
        // What stands elsewhere is copied anyway.
        let object = Json::parse(subject);
        let there = object.is_some();
        object.into_iter().for_each(|object| fill(decoded, object, options, decoders));
        return there;
    };
    let before = decoded.mark();
    buffers.path.back_to(0);
    let document = Object::within(decoders.fields.top(), 0);
    let path = &mut buffers.path;
    let mut walk = Walk { decoded, options, decoders, most: most(decoders), path, base };
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
        Walk { decoded, options, decoders, most: most(decoders), path, base: 0 }
            .members(members, decoders.fields.top());
    }
}

/// Every object with a number has a field, and numbers have sixteen bits.
fn most(decoders: &Decoders) -> usize {
    decoders.order_size.min(usize::from(u16::MAX))
}

struct Walk<'d, 'e> {
    decoded: &'d mut Decoded<'e>,
    options: JsonOptions,
    decoders: &'d Decoders,
    /// So many dynamic fields at most.
    most: usize,
    /// Names of the objects around.
    path: &'d mut Path,
    /// Where the document that is read begins in the event's text.
    base: u32,
}

/// An object whose members are read.
#[derive(Debug, Clone, Copy)]
struct Object {
    scope: Scope,
    depth: usize,
    /// Its number in the event; 0 until it has a field.
    number: u16,
}

impl Object {
    fn within(scope: Scope, depth: usize) -> Self {
        Self { scope, depth: depth + 1, number: 0 }
    }
}

/// The name of a member.
#[derive(Debug, Clone, Copy)]
struct Name<'n> {
    text: &'n [u8],
    /// Where it stands in the event.
    key: Span,
    digest: Digest,
}

impl Walk<'_, '_> {
    /// Reads the members of an object from behind its brace on; none where the text is no JSON.
    fn read_members(&mut self, parser: &mut Parser<'_>, mut object: Object) -> Option<()> {
        parser.skip_blanks();
        if parser.byte(b'}').is_some() {
            return Some(());
        }
        parser.skip_blanks();
        loop {
            let at = parser.at();
            if let Some((start, end)) = parser.plain()
                && let text = parser.whole().get(start..end)?
                && let Some(block) = parser.whole().get(start..).and_then(<[u8]>::first_chunk)
                && let digest = Digest::with_start(text, block)
                && !digest.odd
            {
                let member = match self.decoders.fields.member(object.scope, text, digest) {
                    Some(member) => member,
                    None => self.member_by(text),
                };
                let key = self.part(start, end);
                if let Some((quote, last)) = parser.plain_value() {
                    // Alerts may copy name and value if nothing but the colon stands between them, else the value alone.
                    let from = if quote == end + 2 { start - 1 } else { quote };
                    let origin = Origin::new(digest).shown(self.part(from, last + 1));
                    let value = self.part(quote + 1, last);
                    self.store(&mut object, (key, member), value, origin);
                } else if object.depth < DEPTH && parser.opens_object() {
                    self.read_inner(parser, text, Object::within(member.within, object.depth))?;
                } else {
                    self.read_value(parser, (Name { text, key, digest }, member), &mut object)?;
                }
            } else {
                parser.back_to(at);
                self.read_odd_member(parser, &mut object)?;
            }
            if !parser.comma() && !parser.comma_by_bytes()? {
                return Some(());
            }
        }
    }

    /// Reads the members of an object of that name from behind its brace on.
    fn read_inner(&mut self, parser: &mut Parser<'_>, name: &[u8], inner: Object) -> Option<()> {
        let length = self.enter(name);
        let read = self.read_members(parser, inner);
        self.path.back_to(length);
        read
    }

    /// Reads a member whose name is of another kind than most.
    #[cold]
    #[inline(never)]
    fn read_odd_member(&mut self, parser: &mut Parser<'_>, object: &mut Object) -> Option<()> {
        let mut rewritten = Vec::new();
        let text = lossy(parser.text(&mut rewritten)?.unwrap_or(&rewritten));
        let name = Name { text: &text, key: self.decoded.span(&text), digest: Digest::of(&text) };
        let member = self.member(object.scope, &text, name.digest);
        self.read_value(parser, (name, member), object)
    }

    /// Reads what stands behind a name.
    #[inline(never)]
    fn read_value(
        &mut self,
        parser: &mut Parser<'_>,
        (name, member): (Name<'_>, Member),
        object: &mut Object,
    ) -> Option<()> {
        let own = self.decoded.own().len();
        let blanks = parser.colon()?;
        let start = parser.at();
        let mut copied = false;
        parser.start();
        let written = match parser.peek()? {
            b'"' => {
                // What looks like an array is shown as one.
                let array = parser.is_next(b'[');
                let text = parser.text(self.decoded.own())?;
                copied = !array && parser.is_exact();
                text
            }
            b'{' if object.depth < DEPTH => {
                parser.byte(b'{')?;
                return self.read_inner(parser, name.text, Object::within(member.within, object.depth));
            }
            b'[' if !self.options.csv_arrays => {
                parser.pretty(object.depth, self.decoded.own())?;
                copied = parser.is_exact();
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
                    self.fill_member(object, (name, member), value);
                    return Some(());
                }
            },
        };
        let value = match written {
            Some(text) => self.decoded.span(text),
            None => self.decoded.own_from(own),
        };
        let mut origin = Origin::new(name.digest);
        if copied && let Some(key) = name.key.in_text() {
            let part = self.part(start, parser.at());
            origin = origin.shown(if blanks { part } else { part.from(key - 1) });
        }
        self.store(object, (name.key, member), value, origin);
        Some(())
    }

    /// Where a part of the document stands in the event.
    #[inline]
    fn part(&self, start: usize, end: usize) -> Span {
        Span::of_text(self.base + start as u32, self.base + end as u32)
    }

    fn members(&mut self, members: Vec<(Cow<'_, [u8]>, Json<'_>)>, scope: Scope) {
        let mut object = Object { scope, depth: 0, number: 0 };
        for (key, value) in members {
            let key = lossy(&key);
            let name = Name { text: &key, key: self.decoded.span(&key), digest: Digest::of(&key) };
            let member = self.member(scope, &key, name.digest);
            self.fill_member(&mut object, (name, member), value);
        }
    }

    fn fill_member(&mut self, object: &mut Object, (name, member): (Name<'_>, Member), value: Json<'_>) {
        let value = match value {
            Json::Object(inner) => {
                let length = self.enter(name.text);
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
        self.store(object, (name.key, member), value, Origin::new(name.digest));
    }

    /// What is known of a member by that name.
    fn member(&mut self, scope: Scope, name: &[u8], digest: Digest) -> Member {
        let member = self.decoders.fields.member(scope, name, digest);
        member.unwrap_or_else(|| self.member_by(name))
    }

    /// The same by its whole name.
    #[cold]
    #[inline(never)]
    fn member_by(&mut self, name: &[u8]) -> Member {
        self.decoders.fields.member_by(self.path.join(name), name)
    }

    /// Goes into the object of that name; the length of the path before.
    fn enter(&mut self, key: &[u8]) -> usize {
        let length = self.path.len();
        self.path.push(key);
        length
    }

    #[inline]
    fn store(&mut self, object: &mut Object, (key, member): (Span, Member), value: Span, origin: Origin) {
        if let Some(fixed) = member.fixed
            && self.fix(fixed, value)
        {
            return;
        }
        if !self.decoded.is_full(self.most) {
            let field = (key, value, origin);
            self.decoded.push_member((&mut object.number, self.path), field, member.field);
        }
    }

    /// Fills a field that every event has room for; false if it does not go there.
    #[inline(never)]
    fn fix(&mut self, fixed: Fixed, value: Span) -> bool {
        let field = match fixed {
            Fixed::Static(field) => field,
            Fixed::User if self.decoded.field(StaticField::DstUser).is_none() => StaticField::DstUser,
            Fixed::User => return false,
        };
        self.decoded.set_at(field, value);
        true
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
