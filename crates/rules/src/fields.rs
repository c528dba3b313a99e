//! An event while it is judged: what pre-decoding cut off, what decoders took out. Values are slices of the event
//! wherever they stand in it; only text that had to be rewritten (JSON escapes, Windows events) is owned.

use std::borrow::Cow;

use tld_model::Event;

use crate::decoder::DecoderId;

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
    /// Host as rules see it: header's host for `000`, the agent's name otherwise.
    pub hostname: Option<Value<'e>>,
    /// Program.
    pub program_name: Option<Value<'e>>,
    /// The event's decoder.
    pub decoder: Option<DecoderId>,
    /// Type, normally the decoder's; a plugin may change it.
    pub category: Category,
    statics: [Option<Value<'e>>; 14],
    dynamic: Vec<(Cow<'e, str>, Value<'e>)>,
}

impl<'e> Decoded<'e> {
    /// An event of which nothing is known yet.
    pub fn new(event: &'e Event) -> Self {
        Self {
            event,
            full_log: Cow::Borrowed(&event.text),
            log: Cow::Borrowed(&event.text),
            location: Cow::Borrowed(&event.location),
            timestamp: None,
            hostname: None,
            program_name: None,
            decoder: None,
            category: Category::default(),
            statics: Default::default(),
            dynamic: Vec::new(),
        }
    }

    /// A static field's value.
    pub fn field(&self, field: StaticField) -> Option<&[u8]> {
        self.statics.get(field as usize).and_then(Option::as_deref)
    }

    /// Sets a static field; a later value replaces an earlier one.
    pub fn set(&mut self, field: StaticField, value: Value<'e>) {
        if let Some(slot) = self.statics.get_mut(field as usize) {
            *slot = Some(value);
        }
    }

    /// Dynamic fields in order of extraction, duplicates included.
    pub fn dynamic(&self) -> &[(Cow<'e, str>, Value<'e>)] {
        &self.dynamic
    }

    /// The first dynamic field of that name, ASCII case ignored.
    pub fn dynamic_field(&self, name: &str) -> Option<&[u8]> {
        self.dynamic.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| &**value)
    }

    /// The same fields for somebody who outlives the decoders that named them: names become owned, values are
    /// borrowed from the event again where they stand in it.
    pub fn detached<'n>(self, event: &'n Event) -> Decoded<'n> {
        let value = |value: Value<'_>| detached_value(value, event);
        Decoded {
            event,
            full_log: value(self.full_log),
            log: value(self.log),
            location: value(self.location),
            timestamp: self.timestamp.map(value),
            hostname: self.hostname.map(value),
            program_name: self.program_name.map(value),
            decoder: self.decoder,
            category: self.category,
            statics: self.statics.map(|field| field.map(value)),
            dynamic: self
                .dynamic
                .into_iter()
                .map(|(name, text)| (Cow::Owned(name.into_owned()), value(text)))
                .collect(),
        }
    }

    /// Appends a dynamic field unless `most` are there already.
    pub fn push_dynamic(&mut self, name: Cow<'e, str>, value: Value<'e>, most: usize) -> bool {
        let room = self.dynamic.len() < most;
        if room {
            self.dynamic.push((name, value));
        }
        room
    }
}

fn detached_value<'n>(value: Value<'_>, event: &'n Event) -> Value<'n> {
    let borrowed = match value {
        Cow::Owned(owned) => return Cow::Owned(owned),
        Cow::Borrowed(borrowed) => borrowed,
    };
    for source in [&*event.text, &*event.location] {
        let offset = (borrowed.as_ptr() as usize).wrapping_sub(source.as_ptr() as usize);
        if let Some(again) = offset.checked_add(borrowed.len()).and_then(|end| source.get(offset..end)) {
            return Cow::Borrowed(again);
        }
    }
    Cow::Owned(borrowed.to_vec())
}
