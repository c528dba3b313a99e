//! A remembered event as a run of bytes: whatever a later event may be compared with and whatever an alert may show of it.
//!
//! A record is a head of numbers, then a body: the full text, the location, and values that stand in neither. Numbers
//! say where values stand in the body. Invariant: reading what was written gives every value back, byte for byte.

use super::remembered::Values;
use crate::fields::Span;
use crate::rule::Index;
use crate::{Category, Decoded, StaticField};
use tld_model::AgentId;

/// Numbers of a head that are not places in the body: winner, agent, category, static fields, count of dynamic ones.
pub(super) const PLAIN: std::ops::Range<usize> = 4..9;
/// In front of them: ends of text and location, then where the log begins and ends.
const FULL_END: usize = 0;
const LOCATION_END: usize = 1;
const LOG: usize = 2;
const WINNER: usize = 4;
const AGENT: usize = 5;
const CATEGORY: usize = 6;
const MASK: usize = 7;
const DYNAMIC: usize = 8;
/// Behind them: where each static field begins and ends, then name and value of each dynamic one.
const FIELDS: usize = 9;

/// By number, which is the number of the variant.
const CATEGORIES: [Category; 8] = [
    Category::Syslog,
    Category::Firewall,
    Category::Ids,
    Category::WebLog,
    Category::Squid,
    Category::Windows,
    Category::HostInformation,
    Category::Ossec,
];

/// Writes records; keeps its buffers.
#[derive(Debug, Default)]
pub(super) struct Writer {
    extra: Vec<u8>,
}

impl Writer {
    /// Appends the record of an event.
    pub(super) fn write(&mut self, event: &Decoded<'_>, winner: Index, out: &mut Vec<u8>) {
        let (text, location) = (&*event.full_log, &*event.location);
        let before = text.len() + location.len();
        // Most values stand in the event's text, which is the full text unless a decoder put another in its place, or among
        // the bytes that the event owns: with both in the body, nothing has to be looked for.
        let whole = std::ptr::eq(text, event.event.text.as_slice());
        let extra = &mut self.extra;
        extra.clear();
        if whole {
            extra.extend_from_slice(event.owned());
        }
        let log = place(text, &event.log, before, extra);
        let at = |span: Span, extra: &mut Vec<u8>| match whole {
            true => span.place(number(before)),
            false => place(text, event.slice(span).unwrap_or_default(), before, extra),
        };
        out.reserve(64 + before);
        let start = begin(out);
        let mut head = Head { bytes: [0; 256], length: 0 };
        head.put(number(text.len()));
        head.put(number(before));
        head.put_place(log);
        head.put(number(winner));
        head.put(event.event.agent.id.0);
        head.put(event.category as u32);
        head.put(u32::from(event.present()));
        head.put(number(event.dynamic().len()));
        event.static_spans().for_each(|span| head.put_place(at(span, extra)));
        for (object, key, value) in event.dynamic_spans() {
            let name = match object {
                None => at(key, extra),
                Some(object) => {
                    let start = before + extra.len();
                    extra.extend_from_slice(event.slice(object).unwrap_or_default());
                    extra.extend_from_slice(event.slice(key).unwrap_or_default());
                    (number(start), number(before + extra.len()))
                }
            };
            head.put_place(name);
            head.put_place(at(value, extra));
            if head.length >= Head::FULL {
                out.extend_from_slice(head.written());
                head.length = 0;
            }
        }
        out.extend_from_slice(head.written());
        end(start, out);
        out.extend_from_slice(text);
        out.extend_from_slice(location);
        if !extra.is_empty() {
            out.extend_from_slice(extra);
        }
    }
}

/// Numbers on their way into a head: without dynamic fields at most thirty-seven of five bytes.
struct Head {
    bytes: [u8; 256],
    length: u8,
}

impl Head {
    /// Behind this there may be no room for the places of one more name and value.
    const FULL: u8 = 255 - 20;

    #[inline]
    fn push(&mut self, byte: u8) {
        self.bytes[usize::from(self.length)] = byte;
        self.length = self.length.wrapping_add(1);
    }

    #[inline]
    fn put(&mut self, number: u32) {
        if number < 0x80 { self.push(number as u8) } else { self.put_long(number) }
    }

    #[inline]
    fn put_place(&mut self, (start, end): (u32, u32)) {
        self.put(start);
        self.put(end);
    }

    #[inline]
    fn put_long(&mut self, mut number: u32) {
        while number >= 0x80 {
            self.push(number as u8 | 0x80);
            number >>= 7;
        }
        self.push(number as u8);
    }

    fn written(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }
}

/// Appends a record made of its numbers and its body.
pub(super) fn compose(numbers: &[u32], body: &[u8], out: &mut Vec<u8>) {
    let start = begin(out);
    numbers.iter().for_each(|number| put(*number, out));
    end(start, out);
    out.extend_from_slice(body);
}

/// Begins a head: one byte is left for its length. Returns where its numbers begin.
fn begin(out: &mut Vec<u8>) -> usize {
    out.push(0);
    out.len()
}

/// Ends the head that began at `start`.
fn end(start: usize, out: &mut Vec<u8>) {
    let length = number(out.len() - start);
    if let (Ok(length @ ..0x80), Some(byte)) = (u8::try_from(length), out.get_mut(start - 1)) {
        *byte = length;
        return;
    }
    let mut bytes = Vec::new();
    put(length, &mut bytes);
    out.splice(start - 1..start, bytes);
}

/// Where a value stands in the body: most are parts of the text.
fn place(text: &[u8], value: &[u8], before: usize, extra: &mut Vec<u8>) -> (u32, u32) {
    let offset = (value.as_ptr() as usize).wrapping_sub(text.as_ptr() as usize);
    let inside = offset.checked_add(value.len()).is_some_and(|end| end <= text.len());
    let start = if inside {
        offset
    } else {
        extra.extend_from_slice(value);
        before + extra.len() - value.len()
    };
    (number(start), number(start + value.len()))
}

/// No event reaches 4 GiB; what stood beyond would be absent.
fn number(size: usize) -> u32 {
    u32::try_from(size).unwrap_or(u32::MAX)
}

/// Appends a number, seven bits a byte.
#[inline]
pub(super) fn put(number: u32, out: &mut Vec<u8>) {
    if number < 0x80 { out.push(number as u8) } else { put_long(number, out) }
}

fn put_long(mut number: u32, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Takes a number off the front.
pub(super) fn take(bytes: &mut &[u8]) -> u32 {
    let mut number = 0;
    for shift in (0..35).step_by(7) {
        let Some((byte, rest)) = bytes.split_first() else { break };
        *bytes = rest;
        number |= u32::from(byte & 0x7f) << shift;
        if *byte < 0x80 {
            break;
        }
    }
    number
}

/// Numbers and body of a record.
pub(super) fn split<'r>(mut record: &'r [u8], numbers: &mut Vec<u32>) -> &'r [u8] {
    numbers.clear();
    let length = take(&mut record) as usize;
    let (mut head, body) = record.split_at(length.min(record.len()));
    while !head.is_empty() {
        numbers.push(take(&mut head));
    }
    body
}

/// The full text of a record.
pub(super) fn full_log(mut record: &[u8]) -> &[u8] {
    let length = take(&mut record) as usize;
    let (mut head, body) = record.split_at(length.min(record.len()));
    let end = take(&mut head) as usize;
    body.get(..end).unwrap_or_default()
}

/// A record taken apart.
#[derive(Debug, Default)]
pub(super) struct Recalled {
    numbers: Vec<u32>,
    body: Vec<u8>,
}

impl Recalled {
    /// Takes a record apart.
    pub(super) fn new(record: &[u8]) -> Self {
        let mut numbers = Vec::new();
        let body = split(record, &mut numbers).to_vec();
        Self { numbers, body }
    }

    /// The rule that won it.
    pub(super) fn winner(&self) -> Index {
        self.number(WINNER) as Index
    }

    /// Appends the record as one that another rule won.
    pub(super) fn won_by(&mut self, winner: Index, out: &mut Vec<u8>) {
        if let Some(place) = self.numbers.get_mut(WINNER) {
            *place = number(winner);
        }
        compose(&self.numbers, &self.body, out);
    }

    /// Its log.
    pub(super) fn log(&self) -> &[u8] {
        self.slice(LOG).unwrap_or_default()
    }

    fn number(&self, place: usize) -> u32 {
        self.numbers.get(place).copied().unwrap_or(0)
    }

    /// What stands between the places that two neighbouring numbers tell.
    fn slice(&self, number: usize) -> Option<&[u8]> {
        let (start, end) = (*self.numbers.get(number)?, *self.numbers.get(number + 1)?);
        self.body.get(start as usize..end as usize)
    }

    /// Where the numbers of dynamic fields begin.
    fn dynamic(&self) -> usize {
        FIELDS + 2 * self.number(MASK).count_ones() as usize
    }
}

impl Values for Recalled {
    fn agent(&self) -> AgentId {
        AgentId(self.number(AGENT))
    }

    fn category(&self) -> Category {
        CATEGORIES.get(self.number(CATEGORY) as usize).copied().unwrap_or_default()
    }

    fn location(&self) -> &[u8] {
        let (start, end) = (self.number(FULL_END), self.number(LOCATION_END));
        self.body.get(start as usize..end as usize).unwrap_or_default()
    }

    fn field(&self, field: StaticField) -> Option<&[u8]> {
        let mask = self.number(MASK);
        // Written in the order of `ALL`, which is the order of the numbers.
        let earlier = StaticField::ALL.iter().take_while(|known| **known != field);
        let earlier = earlier.filter(|known| mask >> (**known as u32) & 1 == 1).count();
        (mask >> (field as u32) & 1 == 1).then(|| self.slice(FIELDS + 2 * earlier)).flatten()
    }

    fn dynamic_field(&self, name: &str) -> Option<&[u8]> {
        let fields = (self.dynamic()..self.numbers.len()).step_by(4);
        let named =
            |at: &usize| self.slice(*at).is_some_and(|known| known.eq_ignore_ascii_case(name.as_bytes()));
        fields.into_iter().find(named).and_then(|at| self.slice(at + 2))
    }

    fn has_dynamic(&self) -> bool {
        self.number(DYNAMIC) > 0
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;
    use std::sync::Arc;

    use proptest::prelude::*;
    use tld_model::{Agent, Event, Timestamp};

    use super::*;

    /// A value: a part of the text, or bytes of its own.
    fn value() -> impl Strategy<Value = Result<(usize, usize), Vec<u8>>> {
        prop_oneof![
            (0..300_usize, 0..40_usize).prop_map(Ok),
            proptest::collection::vec(any::<u8>(), 0..200).prop_map(Err),
        ]
    }

    proptest! {
        #[test]
        fn a_record_gives_every_value_back_wherever_it_stood(
            text in proptest::collection::vec(any::<u8>(), 0..300),
            other in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..200)),
            (from, winner, agent) in (0..300_usize, any::<u32>(), any::<u32>()),
            category in 0..CATEGORIES.len(),
            statics in proptest::collection::vec((0..14_usize, value()), 0..20),
            dynamic in proptest::collection::vec(("[a-z.]{1,300}", value()), 0..40),
        ) {
            let mut event = Event::local("/var/log/probe", text, Timestamp::EPOCH);
            event.agent = Arc::new(Agent { id: AgentId(agent), ..Agent::default() });
            let mut decoded = Decoded::new(&event);
            let text = &event.text;
            fn pick<'v>(value: &'v Result<(usize, usize), Vec<u8>>, text: &'v [u8]) -> &'v [u8] {
                match value {
                    Ok((start, length)) => {
                        let start = (*start).min(text.len());
                        &text[start..(start + length).min(text.len())]
                    }
                    Err(own) => own,
                }
            }
            decoded.category = CATEGORIES[category];
            decoded.log = Cow::Borrowed(&text[from.min(text.len())..]);
            for (field, value) in &statics {
                decoded.set(StaticField::ALL[*field], pick(value, text));
            }
            for (name, value) in &dynamic {
                decoded.push_dynamic(name, pick(value, text), 256);
            }
            if let Some(other) = other {
                decoded.full_log = Cow::Owned(other);
            }
            let mut out = b"another record".to_vec();
            let before = out.len();
            Writer::default().write(&decoded, winner as Index, &mut out);
            let record = &out[before..];
            prop_assert_eq!(full_log(record), &*decoded.full_log);
            let recalled = Recalled::new(record);
            prop_assert_eq!(recalled.winner(), winner as Index);
            prop_assert_eq!(recalled.log(), &*decoded.log);
            prop_assert_eq!(Values::agent(&recalled), AgentId(agent));
            prop_assert_eq!(Values::category(&recalled), decoded.category);
            prop_assert_eq!(Values::location(&recalled), &*decoded.location);
            prop_assert_eq!(Values::has_dynamic(&recalled), !dynamic.is_empty());
            for field in StaticField::ALL {
                prop_assert_eq!(Values::field(&recalled, field), decoded.field(field));
            }
            for (name, _) in &dynamic {
                prop_assert_eq!(Values::dynamic_field(&recalled, name), decoded.dynamic_field(name));
            }
        }
    }
}
