//! The vocabulary of nf_tables and the messages we send in it.
//!
//! Invariant: whatever is built here names our table; no message can reach another one.

use std::net::IpAddr;
use std::time::Duration;

use super::{Element, Net, Spot};
use crate::netlink::{
    NLM_F_ACK, NLM_F_APPEND, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST, Writer, attribute, attributes, text,
};

pub(super) const NEWTABLE: u16 = 0;
pub(super) const GETTABLE: u16 = 1;
pub(super) const DELTABLE: u16 = 2;
const NEWCHAIN: u16 = 3;
pub(super) const DELCHAIN: u16 = 5;
const NEWRULE: u16 = 6;
pub(super) const DELRULE: u16 = 8;
const NEWSET: u16 = 9;
pub(super) const DELSET: u16 = 11;
pub(super) const NEWSETELEM: u16 = 12;
pub(super) const GETSETELEM: u16 = 13;
pub(super) const DELSETELEM: u16 = 14;
pub(super) const NEWGEN: u16 = 15;
pub(super) const GETGEN: u16 = 16;

const SUBSYSTEM: u16 = 10;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const FAMILY_INET: u8 = 1;
const FAMILY_IPV4: u8 = 2;
const FAMILY_IPV6: u8 = 10;

/// Attributes are numbered per message; these names say which message they belong to.
pub(super) const TABLE_NAME: u16 = 1;
pub(super) const SET_TABLE: u16 = 1;
pub(super) const SET_NAME: u16 = 2;
pub(super) const RULE_TABLE: u16 = 1;
pub(super) const CHAIN_TABLE: u16 = 1;
pub(super) const LIST_TABLE: u16 = 1;
pub(super) const LIST_SET: u16 = 2;
const LIST_ELEMENTS: u16 = 3;
const LIST_ELEMENT: u16 = 1;
const ELEMENT_KEY: u16 = 1;
const ELEMENT_FLAGS: u16 = 3;
const ELEMENT_TIMEOUT: u16 = 4;
const ELEMENT_EXPIRATION: u16 = 5;
const DATA_VALUE: u16 = 1;
pub(super) const GEN_PROCESS: u16 = 2;
pub(super) const GEN_PROCESS_NAME: u16 = 3;

/// Before connection tracking (-200) and everything usually hooked at raw (-300): the cheapest place to drop.
const PRIORITY: i32 = -310;
const CHAIN: &str = "prerouting";
/// Keys of the expression `meta`.
const NFPROTO: u32 = 15;
const L4PROTO: u32 = 16;
const TCP: u8 = 6;
const UDP: u8 = 17;
const SET_INTERVAL: u32 = 0x4;
const SET_TIMEOUT: u32 = 0x10;
const END_OF_INTERVAL: u32 = 1;

/// One message may not hold a list of 64 KiB or more.
const MESSAGE_LIMIT: usize = 60_000;
/// A lease below one tick of the kernel's clock would round to none, that is for ever.
const SHORTEST: Duration = Duration::from_millis(100);
/// Longer than any machine runs; far below where the kernel's arithmetic overflows.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 86_400);

/// The sets of our table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Set {
    Blocked4,
    Blocked6,
    Nets4,
    Nets6,
    Ports4,
    Ports6,
}

impl Set {
    pub(super) const ALL: [Self; 6] =
        [Self::Blocked4, Self::Blocked6, Self::Nets4, Self::Nets6, Self::Ports4, Self::Ports6];
    /// Those whose elements are spots.
    pub(super) const SPOTS: [Self; 4] = [Self::Blocked4, Self::Blocked6, Self::Ports4, Self::Ports6];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Blocked4 => "blocked4",
            Self::Blocked6 => "blocked6",
            Self::Nets4 => "nets4",
            Self::Nets6 => "nets6",
            Self::Ports4 => "ports4",
            Self::Ports6 => "ports6",
        }
    }

    pub(super) fn of(spot: Spot) -> Self {
        match (spot.address.is_ipv4(), spot.port.is_some()) {
            (true, false) => Self::Blocked4,
            (false, false) => Self::Blocked6,
            (true, true) => Self::Ports4,
            (false, true) => Self::Ports6,
        }
    }

    pub(super) fn of_net(net: Net) -> Self {
        if net.address.is_ipv4() { Self::Nets4 } else { Self::Nets6 }
    }

    fn is_ipv4(self) -> bool {
        matches!(self, Self::Blocked4 | Self::Nets4 | Self::Ports4)
    }

    fn has_ports(self) -> bool {
        matches!(self, Self::Ports4 | Self::Ports6)
    }

    fn is_interval(self) -> bool {
        matches!(self, Self::Nets4 | Self::Nets6)
    }
}

/// What happens to an element.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// Refused if it is there already.
    Create,
    Add,
    Delete,
}

/// A transaction: the kernel does all of it or nothing. Every message in it is acknowledged.
#[derive(Debug)]
pub(super) struct Batch {
    writer: Writer,
    first: u32,
    steps: Vec<String>,
}

/// A transaction ready to be sent.
#[derive(Debug)]
pub(super) struct Finished {
    pub(super) bytes: Vec<u8>,
    /// The sequence number of the opening message; step `i` has the number `first + 1 + i`.
    pub(super) first: u32,
    /// What each step is about, for error reports.
    pub(super) steps: Vec<String>,
}

impl Batch {
    pub(super) fn new(first: u32) -> Self {
        let mut writer = Writer::default();
        writer.begin(BATCH_BEGIN, NLM_F_REQUEST, first, &header(0, SUBSYSTEM));
        writer.end();
        Self { writer, first, steps: Vec::new() }
    }

    pub(super) fn finish(mut self) -> Finished {
        let sequence = self.next();
        self.writer.begin(BATCH_END, NLM_F_REQUEST, sequence, &header(0, SUBSYSTEM));
        self.writer.end();
        Finished { bytes: self.writer.into_bytes(), first: self.first, steps: self.steps }
    }

    fn next(&self) -> u32 {
        let steps = u32::try_from(self.steps.len()).unwrap_or(u32::MAX);
        self.first.wrapping_add(1).wrapping_add(steps)
    }

    fn begin(&mut self, kind: u16, flags: u16, what: &str) {
        let flags = NLM_F_REQUEST | NLM_F_ACK | flags;
        self.writer.begin(SUBSYSTEM << 8 | kind, flags, self.next(), &header(FAMILY_INET, 0));
        self.steps.push(what.to_owned());
    }

    /// The whole table as it should be. What exists stays, but the rules are written anew, in one go with
    /// removing the old ones, so that foreign or missing rules are healed without a gap.
    pub(super) fn ensure(&mut self, table: &str) {
        self.begin(NEWTABLE, NLM_F_CREATE, "create the table");
        self.writer.text(TABLE_NAME, table);
        self.writer.end();
        for (id, set) in (1..).zip(Set::ALL) {
            self.create_set(table, set, id);
        }
        self.begin(NEWCHAIN, NLM_F_CREATE, "create the chain");
        self.writer.text(CHAIN_TABLE, table);
        self.writer.text(3, CHAIN);
        let hook = self.writer.open(4);
        self.writer.u32(1, 0); // hook: prerouting
        self.writer.attribute(2, &PRIORITY.to_be_bytes());
        self.writer.close(hook);
        self.writer.u32(5, 1); // policy: accept
        self.writer.text(7, "filter");
        self.writer.end();
        self.begin(DELRULE, 0, "remove the old rules");
        self.writer.text(RULE_TABLE, table);
        self.writer.text(2, CHAIN);
        self.writer.end();
        for set in Set::ALL {
            if set.has_ports() {
                for protocol in [TCP, UDP] {
                    self.create_rule(table, set, Some(protocol));
                }
            } else {
                self.create_rule(table, set, None);
            }
        }
    }

    fn create_set(&mut self, table: &str, set: Set, id: u32) {
        self.begin(NEWSET, NLM_F_CREATE, &format!("create the set `{}`", set.name()));
        self.writer.text(SET_TABLE, table);
        self.writer.text(SET_NAME, set.name());
        self.writer.u32(3, SET_TIMEOUT | if set.is_interval() { SET_INTERVAL } else { 0 });
        // The key's type is a number of the `nft` program's, which shows it; the kernel looks at the length.
        let (kind, length) = if set.is_ipv4() { (7, 4) } else { (8, 16) };
        // A joined key: each part padded to words, their types side by side in six bits each.
        let (kind, length) = if set.has_ports() { (kind << 6 | 13, length + 4) } else { (kind, length) };
        self.writer.u32(4, kind);
        self.writer.u32(5, length);
        self.writer.u32(10, id);
        self.writer.end();
    }

    /// `meta nfproto F; ip|ip6 saddr @set; drop`, or with a protocol
    /// `meta nfproto F; meta l4proto P; ip|ip6 saddr . th dport @set; drop`
    fn create_rule(&mut self, table: &str, set: Set, protocol: Option<u8>) {
        self.begin(NEWRULE, NLM_F_CREATE | NLM_F_APPEND, &format!("add the rule for `{}`", set.name()));
        self.writer.text(RULE_TABLE, table);
        self.writer.text(2, CHAIN);
        let list = self.writer.open(4);
        let (family, offset, length) =
            if set.is_ipv4() { (FAMILY_IPV4, 12, 4) } else { (FAMILY_IPV6, 8, 16) };
        self.meta_is(NFPROTO, family);
        if let Some(protocol) = protocol {
            self.meta_is(L4PROTO, protocol);
        }
        self.expression("payload", |w| {
            w.u32(1, 1);
            w.u32(2, 1); // counted from the network header
            w.u32(3, offset);
            w.u32(4, length);
        });
        if protocol.is_some() {
            self.expression("payload", |w| {
                // The word behind the address: registers of a word begin at 8, those of four words at 1.
                w.u32(1, 8 + length / 4);
                w.u32(2, 2); // counted from the transport header
                w.u32(3, 2); // destination port
                w.u32(4, 2);
            });
        }
        self.expression("lookup", |w| {
            w.text(1, set.name());
            w.u32(2, 1);
        });
        self.expression("immediate", |w| {
            w.u32(1, 0); // the verdict's register
            let data = w.open(2);
            let verdict = w.open(2);
            w.u32(1, 0); // drop
            w.close(verdict);
            w.close(data);
        });
        self.writer.close(list);
        self.writer.end();
    }

    /// Goes on only for packets whose `key` is `value`.
    fn meta_is(&mut self, key: u32, value: u8) {
        self.expression("meta", |w| {
            w.u32(2, key);
            w.u32(1, 1); // into register 1
        });
        self.expression("cmp", |w| {
            w.u32(1, 1);
            w.u32(2, 0); // equal
            let data = w.open(3);
            w.attribute(DATA_VALUE, &[value]);
            w.close(data);
        });
    }

    fn expression(&mut self, name: &str, fill: impl FnOnce(&mut Writer)) {
        let element = self.writer.open(1);
        self.writer.text(1, name);
        let data = self.writer.open(2);
        fill(&mut self.writer);
        self.writer.close(data);
        self.writer.close(element);
    }

    pub(super) fn delete_table(&mut self, table: &str) {
        self.begin(DELTABLE, 0, "delete the table");
        self.writer.text(TABLE_NAME, table);
        self.writer.end();
    }

    /// Adds or deletes many elements, in as many messages as their size asks for.
    pub(super) fn elements<T: Key>(
        &mut self,
        table: &str,
        set: Set,
        change: Change,
        elements: &[(T, Option<Duration>)],
    ) {
        let mut left = elements;
        while !left.is_empty() {
            let (kind, flags, verb) = match change {
                Change::Create => (NEWSETELEM, NLM_F_CREATE | NLM_F_EXCL, "create in"),
                Change::Add => (NEWSETELEM, NLM_F_CREATE, "add to"),
                Change::Delete => (DELSETELEM, 0, "delete from"),
            };
            self.begin(kind, flags, &format!("{verb} the set `{}`", set.name()));
            self.writer.text(LIST_TABLE, table);
            self.writer.text(LIST_SET, set.name());
            let list = self.writer.open(LIST_ELEMENTS);
            while let Some(((key, timeout), rest)) = left.split_first() {
                key.write(&mut self.writer, timeout.filter(|_| change != Change::Delete));
                left = rest;
                if self.writer.message_length() > MESSAGE_LIMIT {
                    break;
                }
            }
            self.writer.close(list);
            self.writer.end();
        }
    }
}

/// What a set can hold.
pub(super) trait Key: Copy {
    fn write(self, writer: &mut Writer, timeout: Option<Duration>);
}

impl Key for Spot {
    fn write(self, writer: &mut Writer, timeout: Option<Duration>) {
        write_element(writer, self, timeout, false);
    }
}

impl Key for Net {
    fn write(self, writer: &mut Writer, timeout: Option<Duration>) {
        write_element(writer, self.first().into(), timeout, false);
        // The end is the first address behind; the last net of all has none.
        if let Some(end) = self.after_last() {
            write_element(writer, end.into(), None, true);
        }
    }
}

fn write_element(writer: &mut Writer, spot: Spot, timeout: Option<Duration>, end: bool) {
    let element = writer.open(LIST_ELEMENT);
    let key = writer.open(ELEMENT_KEY);
    let mut bytes = [0; 20];
    let length = match spot.address {
        IpAddr::V4(address) => {
            bytes[..4].copy_from_slice(&address.octets());
            4
        }
        IpAddr::V6(address) => {
            bytes[..16].copy_from_slice(&address.octets());
            16
        }
    };
    let length = spot.port.map_or(length, |port| {
        bytes[length..length + 2].copy_from_slice(&port.to_be_bytes());
        length + 4
    });
    writer.attribute(DATA_VALUE, &bytes[..length]);
    writer.close(key);
    if end {
        writer.u32(ELEMENT_FLAGS, END_OF_INTERVAL);
    }
    if let Some(timeout) = timeout {
        let millis = timeout.clamp(SHORTEST, LONGEST).as_millis();
        writer.attribute(ELEMENT_TIMEOUT, &u64::try_from(millis).unwrap_or(u64::MAX).to_be_bytes());
    }
    writer.close(element);
}

/// A question outside any transaction: the table, the generation, one element or (`flags` says so) all.
pub(super) fn question(kind: u16, flags: u16, sequence: u32, fill: impl FnOnce(&mut Writer)) -> Vec<u8> {
    let mut writer = Writer::default();
    ask(&mut writer, kind, flags, sequence, fill);
    writer.into_bytes()
}

/// One of several questions that are sent together.
pub(super) fn ask(writer: &mut Writer, kind: u16, flags: u16, sequence: u32, fill: impl FnOnce(&mut Writer)) {
    writer.begin(SUBSYSTEM << 8 | kind, NLM_F_REQUEST | flags, sequence, &header(FAMILY_INET, 0));
    fill(writer);
    writer.end();
}

/// Fills a question about a set's elements: about one of them, or about all.
pub(super) fn about_elements(writer: &mut Writer, table: &str, set: Set, one: Option<Spot>) {
    writer.text(LIST_TABLE, table);
    writer.text(LIST_SET, set.name());
    if let Some(spot) = one {
        let list = writer.open(LIST_ELEMENTS);
        spot.write(writer, None);
        writer.close(list);
    }
}

/// The kind of an nf_tables message, `None` for other subsystems.
pub(super) fn kind(raw: u16) -> Option<u16> {
    (raw >> 8 == SUBSYSTEM).then_some(raw & 0xff)
}

/// The attributes of a message, behind netfilter's own header of family, version and resource.
pub(super) fn payload(body: &[u8]) -> &[u8] {
    body.get(4..).unwrap_or_default()
}

/// The table a message is about, if it is in the family we work in.
pub(super) fn table_of(body: &[u8], kind: u16) -> Option<String> {
    (body.first() == Some(&FAMILY_INET)).then(|| attribute(payload(body), kind).map(text)).flatten()
}

/// The elements of an answer or notification; the ends of intervals are left out.
pub(super) fn elements(body: &[u8]) -> impl Iterator<Item = (Spot, Element)> {
    let list = attribute(payload(body), LIST_ELEMENTS).unwrap_or_default();
    attributes(list).filter(|(kind, _)| *kind == LIST_ELEMENT).filter_map(|(_, element)| {
        let flags =
            attribute(element, ELEMENT_FLAGS).and_then(|f| Some(u32::from_be_bytes(f.try_into().ok()?)));
        if flags.unwrap_or(0) & END_OF_INTERVAL != 0 {
            return None;
        }
        let key = attribute(attribute(element, ELEMENT_KEY)?, DATA_VALUE)?;
        let (address, port) = key.split_at(if key.len() < 16 { 4.min(key.len()) } else { 16 });
        let address = match address.len() {
            4 => IpAddr::from(<[u8; 4]>::try_from(address).ok()?),
            16 => IpAddr::from(<[u8; 16]>::try_from(address).ok()?),
            _ => return None,
        };
        let port = match port {
            [] => None,
            [high, low, ..] => Some(u16::from_be_bytes([*high, *low])),
            [_] => return None,
        };
        let remaining = attribute(element, ELEMENT_EXPIRATION)
            .and_then(|millis| Some(Duration::from_millis(u64::from_be_bytes(millis.try_into().ok()?))));
        Some((Spot { address, port }, Element { remaining }))
    })
}

fn header(family: u8, resource: u16) -> [u8; 4] {
    let [high, low] = resource.to_be_bytes();
    [family, 0, high, low]
}
