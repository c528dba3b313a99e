//! An event while it is judged: what pre-decoding cut off, what decoders took out. Values are slices of the event
//! wherever they stand in it; only text that had to be rewritten (JSON escapes, Windows events) is owned.

mod names;
mod origin;
mod path;

use std::borrow::Cow;

use tld_model::Event;

use crate::decoder::DecoderId;
pub(crate) use names::{Digest, FieldId, FieldNames, Fixed, Known, Member, Scope};
pub(crate) use origin::{Copied, Field, Origin};
pub(crate) use path::{Path, append_part};

/// A decoded value.
pub type Value<'e> = Cow<'e, [u8]>;

/// The fourteen fields that every event has room for (analysis-decoders 1), in the order of `data` in alerts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum StaticField {
    /// `protocol`
    Protocol,
    /// `action`
    Action,
    /// `srcip`
    SrcIp,
    /// `srcport`
    SrcPort,
    /// `srcuser`
    SrcUser,
    /// `dstip`
    DstIp,
    /// `dstport`
    DstPort,
    /// `dstuser`, also written `user`
    DstUser,
    /// `id`
    Id,
    /// `status`
    Status,
    /// `url`
    Url,
    /// `data`
    Data,
    /// `extra_data`
    ExtraData,
    /// `system_name`
    SystemName,
}

impl StaticField {
    /// All, in the order of `data` in alerts (analysis-output 1).
    pub const ALL: [Self; 14] = [
        Self::Protocol,
        Self::Action,
        Self::SrcIp,
        Self::SrcPort,
        Self::SrcUser,
        Self::DstIp,
        Self::DstPort,
        Self::DstUser,
        Self::Id,
        Self::Status,
        Self::Url,
        Self::Data,
        Self::ExtraData,
        Self::SystemName,
    ];

    /// The name in alerts and in `order`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Protocol => "protocol",
            Self::Action => "action",
            Self::SrcIp => "srcip",
            Self::SrcPort => "srcport",
            Self::SrcUser => "srcuser",
            Self::DstIp => "dstip",
            Self::DstPort => "dstport",
            Self::DstUser => "dstuser",
            Self::Id => "id",
            Self::Status => "status",
            Self::Url => "url",
            Self::Data => "data",
            Self::ExtraData => "extra_data",
            Self::SystemName => "system_name",
        }
    }

    /// The field of that exact name; `user` is not one.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|field| field.name() == name)
    }
}

/// The type of a decoder, and the category of a root rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Category {
    /// `syslog`, also for events without a decoder.
    #[default]
    Syslog,
    /// `firewall`
    Firewall,
    /// `ids`
    Ids,
    /// `web-log`
    WebLog,
    /// `squid`
    Squid,
    /// `windows`
    Windows,
    /// `host-information` (decoders only)
    HostInformation,
    /// `ossec`
    Ossec,
}

/// An event with everything known about it so far.
#[derive(Debug, Clone)]
pub struct Decoded<'e> {
    /// The event itself.
    pub event: &'e Event,
    /// The text as received, or what a built-in decoder put in its place.
    pub full_log: Value<'e>,
    /// What decoders and rules see: `full_log` without its header.
    pub log: Value<'e>,
    /// Location as rules and alerts see it (`(name) ip->path` for agents).
    pub location: Value<'e>,
    /// Header's time text.
    pub timestamp: Option<Value<'e>>,
    /// Program.
    pub program_name: Option<Value<'e>>,
    /// The event's decoder.
    pub decoder: Option<DecoderId>,
    /// Type, normally the decoder's; a plugin may change it.
    pub category: Category,
    hostname: Span,
    statics: [Span; 14],
    /// Which of them are there, a bit for each.
    present: u16,
    dynamic: Vec<Dynamic>,
    /// For each object of its JSON documents that has a field: the names of the objects around the field, each with its dot.
    objects: Vec<Span>,
    /// What fields hold that does not stand in the event's text, and names.
    own: Vec<u8>,
}

/// Where a value stands: in the event's text or, from [`Span::OWN`] on, in the bytes that the event owns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    start: u32,
    length: u32,
}

impl Span {
    const OWN: u32 = 1 << 31;
    /// Nothing else starts there.
    const ABSENT: Self = Self { start: u32::MAX, length: 0 };

    /// A part of the event's text: where it begins and ends.
    #[inline]
    pub(crate) fn of_text(start: u32, end: u32) -> Self {
        Self { start, length: end - start }
    }

    /// The same from an earlier place on.
    pub(crate) fn from(self, start: u32) -> Self {
        Self { start, length: self.start + self.length - start }
    }

    /// Where it begins in the event's text, if it is a part of that.
    pub(crate) fn in_text(self) -> Option<u32> {
        (self.start < Self::OWN).then_some(self.start)
    }

    /// Where it begins and ends in a copy of the event's text with the bytes that the event owns from `own` on.
    pub(crate) fn place(self, own: u32) -> (u32, u32) {
        let start = self.start.checked_sub(Self::OWN).map_or(self.start, |start| start.saturating_add(own));
        (start, start.saturating_add(self.length))
    }
}

/// See [`Decoded::mark`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct FieldsMark {
    statics: [Span; 14],
    present: u16,
    dynamic: usize,
    objects: usize,
    own: usize,
}

/// A dynamic field: half a line of memory. Names of members are not put together, since hardly anybody asks for them.
#[derive(Debug, Clone, Copy)]
struct Dynamic {
    /// Its name within its object.
    key: Span,
    value: Span,
    origin: Origin,
    /// The object's number, counted from one; 0 for a field that is no member of any.
    object: u16,
    /// The number that rules know it by.
    known: Known,
}

/// Memory of fields that outlives its event.
#[derive(Debug, Default)]
pub(crate) struct FieldMemory {
    dynamic: Vec<Dynamic>,
    objects: Vec<Span>,
    own: Vec<u8>,
}

impl FieldMemory {
    /// More than this is not kept for the next event.
    const MOST: usize = 64 << 10;

    /// The memory of an event that is done.
    pub(crate) fn of(event: &mut Decoded<'_>) -> Self {
        let mut dynamic = std::mem::take(&mut event.dynamic);
        let mut objects = std::mem::take(&mut event.objects);
        let mut own = std::mem::take(&mut event.own);
        dynamic.clear();
        objects.clear();
        own.clear();
        own.shrink_to(Self::MOST);
        Self { dynamic, objects, own }
    }
}

impl<'e> Decoded<'e> {
    /// An event of which nothing is known yet.
    pub fn new(event: &'e Event) -> Self {
        Self::within(event, FieldMemory::default())
    }

    /// The same in memory that is there already.
    pub(crate) fn within(event: &'e Event, memory: FieldMemory) -> Self {
        Self {
            event,
            full_log: Cow::Borrowed(&event.text),
            log: Cow::Borrowed(&event.text),
            location: Cow::Borrowed(&event.location),
            timestamp: None,
            hostname: Span::ABSENT,
            program_name: None,
            decoder: None,
            category: Category::default(),
            statics: [Span::ABSENT; 14],
            present: 0,
            dynamic: memory.dynamic,
            objects: memory.objects,
            own: memory.own,
        }
    }

    /// Host as rules see it: header's host for `000`, the agent's name otherwise.
    pub fn hostname(&self) -> Option<&[u8]> {
        self.slice(self.hostname)
    }

    /// Sets the host.
    pub fn set_hostname(&mut self, host: &[u8]) {
        self.hostname = self.span(host);
    }

    /// A static field's value.
    pub fn field(&self, field: StaticField) -> Option<&[u8]> {
        self.statics.get(field as usize).and_then(|span| self.slice(*span))
    }

    /// Sets a static field; a later value replaces an earlier one.
    #[inline]
    pub fn set(&mut self, field: StaticField, value: &[u8]) {
        let span = self.span(value);
        self.set_at(field, span);
    }

    /// The same for a value that is here already.
    pub(crate) fn set_at(&mut self, field: StaticField, span: Span) {
        if let Some(slot) = self.statics.get_mut(field as usize) {
            *slot = span;
            let bit = 1 << field as u16;
            self.present = if span == Span::ABSENT { self.present & !bit } else { self.present | bit };
        }
    }

    /// The static fields that are there, a bit for each by its number.
    pub(crate) fn present(&self) -> u16 {
        self.present
    }

    /// The static fields that are there, in their order.
    pub(crate) fn statics(&self) -> impl Iterator<Item = (StaticField, &[u8])> {
        let mut left = self.present;
        std::iter::from_fn(move || {
            let field = *StaticField::ALL.get(left.trailing_zeros() as usize)?;
            left &= left - 1;
            Some((field, self.field(field)?))
        })
    }

    /// Where those fields stand, in their order.
    pub(crate) fn static_spans(&self) -> impl Iterator<Item = Span> {
        let mut left = self.present;
        std::iter::from_fn(move || {
            let span = self.statics.get(left.trailing_zeros() as usize)?;
            left &= left - 1;
            Some(*span)
        })
    }

    /// Where dynamic fields stand, in their order: what their names begin with if they are members of an inner object, the
    /// rest of their names, and their values.
    pub(crate) fn dynamic_spans(&self) -> impl Iterator<Item = (Option<Span>, Span, Span)> {
        let within = |object: &Span| object.length > 0;
        self.dynamic.iter().map(move |field| (self.object(field).filter(within), field.key, field.value))
    }

    /// The bytes that the event owns.
    pub(crate) fn owned(&self) -> &[u8] {
        &self.own
    }

    /// Names and values of dynamic fields in order of extraction, duplicates included.
    pub fn dynamic(&self) -> impl ExactSizeIterator<Item = (Value<'_>, &[u8])> {
        self.fields().map(|field| (field.name(), field.value()))
    }

    /// The same one by one.
    pub(crate) fn fields(&self) -> impl ExactSizeIterator<Item = Field<'_>> {
        self.dynamic.iter().map(|field| Field::new(self, field))
    }

    /// What the name of a member begins with.
    fn object(&self, field: &Dynamic) -> Option<Span> {
        self.objects.get(usize::from(field.object.checked_sub(1)?)).copied()
    }

    /// Whether there is any dynamic field.
    pub fn has_dynamic(&self) -> bool {
        !self.dynamic.is_empty()
    }

    /// The first dynamic field of that name, ASCII case ignored.
    pub fn dynamic_field(&self, name: &str) -> Option<&[u8]> {
        let name = name.as_bytes();
        let last = |name: &[u8]| name.last().map(|byte| byte | 0x20);
        // Most others of this length end otherwise.
        let same = |own: &[u8], name: &[u8]| {
            last(own) == last(name) && (own == name || own.eq_ignore_ascii_case(name))
        };
        let named = |field: &&Dynamic| {
            let object = self.object(field);
            let before = object.map_or(0, |object| object.length as usize);
            before + field.key.length as usize == name.len()
                && self.slice(field.key).is_some_and(|key| same(key, &name[before..]))
                && object.is_none_or(|object| {
                    self.slice(object).is_some_and(|object| object.eq_ignore_ascii_case(&name[..before]))
                })
        };
        self.dynamic.iter().find(named).and_then(|field| self.slice(field.value))
    }

    /// The first dynamic field of the name that rules know by this number.
    pub(crate) fn known_field(&self, known: FieldId) -> Option<&[u8]> {
        let known = Known::from(Some(known));
        let field = self.dynamic.iter().find(|field| field.known == known);
        field.and_then(|field| self.slice(field.value))
    }

    /// Dynamic fields that some rule asks for.
    pub(crate) fn known(&self) -> impl Iterator<Item = (FieldId, &[u8])> {
        self.dynamic.iter().filter_map(|field| Some((field.known.field()?, self.slice(field.value)?)))
    }

    /// [`Decoded::push_known`] for tests that ask no rule.
    #[cfg(test)]
    pub(crate) fn push_dynamic(&mut self, name: &str, value: &[u8], most: usize) -> bool {
        self.push_known(name.as_bytes(), None, value, most)
    }

    /// Appends a dynamic field unless `most` are there already, with the number that rules know the name by: they find it by
    /// nothing else.
    #[inline]
    pub(crate) fn push_known(
        &mut self,
        name: &[u8],
        known: Option<FieldId>,
        value: &[u8],
        most: usize,
    ) -> bool {
        let room = self.dynamic.len() < most;
        if room {
            let (key, value) = (self.span(name), self.span(value));
            self.dynamic.push(Dynamic { key, value, origin: Origin::NONE, object: 0, known: known.into() });
        }
        room
    }

    /// Whether there are so many dynamic fields.
    #[inline]
    pub(crate) fn is_full(&self, most: usize) -> bool {
        self.dynamic.len() >= most
    }

    /// Appends a dynamic field that is a member of an object. `object` is the object's number, 0 as long as it has none because
    /// it has no field.
    #[inline]
    pub(crate) fn push_member(
        &mut self,
        (object, path): (&mut u16, &Path),
        (key, value, origin): (Span, Span, Origin),
        known: Known,
    ) {
        if *object == 0 {
            *object = self.number_object(path);
        }
        self.dynamic.push(Dynamic { key, value, origin, object: *object, known });
    }

    /// A number for one more object.
    #[inline(never)]
    fn number_object(&mut self, path: &Path) -> u16 {
        let start = self.own.len();
        self.own.extend_from_slice(path.names());
        self.objects.push(self.own_from(start));
        self.objects.len() as u16
    }

    /// Bytes that the event owns, to append a value to.
    pub(crate) fn own(&mut self) -> &mut Vec<u8> {
        &mut self.own
    }

    /// What was appended to those since they had this length.
    pub(crate) fn own_from(&self, start: usize) -> Span {
        let length = u32::try_from(self.own.len() - start);
        let start = u32::try_from(start).ok().and_then(|start| start.checked_add(Span::OWN));
        match (start, length) {
            (Some(start), Ok(length)) if start != Span::ABSENT.start => Span { start, length },
            _ => Span::ABSENT,
        }
    }

    /// How far decoding came, to go back to.
    pub(crate) fn mark(&self) -> FieldsMark {
        FieldsMark {
            statics: self.statics,
            present: self.present,
            dynamic: self.dynamic.len(),
            objects: self.objects.len(),
            own: self.own.len(),
        }
    }

    /// Forgets the fields since then.
    pub(crate) fn back_to(&mut self, mark: FieldsMark) {
        self.statics = mark.statics;
        self.present = mark.present;
        self.dynamic.truncate(mark.dynamic);
        self.objects.truncate(mark.objects);
        self.own.truncate(mark.own);
    }

    /// What stands there.
    pub(crate) fn slice(&self, span: Span) -> Option<&[u8]> {
        if span.start == Span::ABSENT.start {
            return None;
        }
        let (bytes, start) = match span.start.checked_sub(Span::OWN) {
            Some(start) => (&self.own, start),
            None => (&self.event.text, span.start),
        };
        bytes.get(start as usize..).and_then(|rest| rest.get(..span.length as usize))
    }

    /// Where a text stands; a copy if it is not a part of the event's.
    #[inline]
    pub(crate) fn span(&mut self, value: &[u8]) -> Span {
        let Some(offset) = self.offset(value) else {
            let start = self.own.len();
            self.own.extend_from_slice(value);
            return self.own_from(start);
        };
        let start = u32::try_from(offset).ok().filter(|start| *start < Span::OWN);
        // No event reaches 2 GiB; a value beyond that would count as absent.
        match (start, u32::try_from(value.len())) {
            (Some(start), Ok(length)) => Span { start, length },
            _ => Span::ABSENT,
        }
    }

    /// Where a part of the event's text begins.
    pub(crate) fn offset(&self, part: &[u8]) -> Option<usize> {
        let text = &self.event.text;
        let offset = (part.as_ptr() as usize).wrapping_sub(text.as_ptr() as usize);
        offset.checked_add(part.len()).filter(|end| *end <= text.len()).map(|_| offset)
    }

    /// The same as a number that every place in the part can be added to.
    pub(crate) fn base(&self, part: &[u8]) -> Option<u32> {
        let base = self.offset(part)?;
        u32::try_from(base + part.len()).is_ok_and(|end| end < Span::OWN).then_some(base as u32)
    }
}
