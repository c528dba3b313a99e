//! What a rule asks of an event (analysis-rules 1.2, 3 and 7.2). A condition that looks only at the event is decided
//! here; first-time, difference and correlation conditions have memory and are decided by the engine.
//! Invariant: conditions stand in the contract's order of evaluation, because the last ones have side effects.

use std::cell::OnceCell;
use std::sync::Arc;

use tld_model::{LocalTime, Timestamp, Zone};
use tld_pattern::{Expression, IpList, OsMatch};

use super::subject::Subject;
use super::time::{DayTime, Weekdays};
use crate::decoder::Decoders;
use crate::fields::FieldNames;
use crate::list::TextList;
use crate::{Decoded, StaticField};

/// One condition of one rule as it is read.
#[derive(Debug)]
pub(crate) struct Condition {
    pub(crate) label: Label,
    /// Place in the order of evaluation.
    pub(crate) rank: u8,
    pub(crate) test: Test,
}

/// Where a condition stands in its file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Label {
    /// Element's or attribute's name.
    pub(crate) name: &'static str,
    /// Line of the element.
    pub(crate) line: u32,
}

/// The question itself.
#[derive(Debug)]
pub(crate) enum Test {
    /// The event's decoder has this name.
    DecodedAs(Box<str>),
    /// A value is present, and matching it differs from `negate`.
    Expression {
        subject: Subject,
        expression: Expression,
        negate: bool,
    },
    /// A value is present, and being in one of the networks differs from `negate`.
    Network {
        field: StaticField,
        networks: IpList,
        negate: bool,
    },
    Builtin(Builtin),
    /// The log has at least so many bytes.
    MaxSize(usize),
    Time(DayTime),
    Weekday(Weekdays),
    List(ListTest),
    /// The log differs from the last one of this host and rule.
    Difference,
    /// The event's key is new.
    FirstTime,
}

/// Predicates that rules name instead of describing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Builtin {
    SameUsers,
    LongId,
    DifferentWindowsUsers,
    SimpleRequest,
    Crawler,
}

const CRAWLERS: [&[u8]; 8] =
    [b"66.249.", b"72.14.", b"209.85.", b"65.55.", b"207.46.", b"74.6.", b"72.30.", b"67.195."];

impl Builtin {
    /// The predicate of that name.
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "comp_srcuser_dstuser" => Self::SameUsers,
            "check_id_size" => Self::LongId,
            "comp_mswin_targetuser_calleruser_diff" => Self::DifferentWindowsUsers,
            "is_simple_http_request" => Self::SimpleRequest,
            "is_valid_crawler" => Self::Crawler,
            _ => return None,
        })
    }

    fn holds(self, event: &Decoded<'_>) -> bool {
        match self {
            Self::SameUsers => match (event.field(StaticField::SrcUser), event.field(StaticField::DstUser)) {
                (Some(source), Some(destination)) => source == destination,
                _ => true,
            },
            Self::LongId => event.field(StaticField::Id).is_some_and(|id| id.len() >= 10),
            Self::DifferentWindowsUsers => {
                let target = labelled(&event.log, b"Target Account Name");
                let caller = labelled(&event.log, b"Caller User Name");
                matches!((target, caller), (Some(target), Some(caller)) if target != caller)
            }
            Self::SimpleRequest => event.field(StaticField::Url).is_some_and(|url| !url.contains(&b'?')),
            Self::Crawler => CRAWLERS.iter().any(|prefix| event.log.starts_with(prefix)),
        }
    }
}

/// The text behind a label's colon, up to a tab or two blanks.
fn labelled<'a>(log: &'a [u8], label: &[u8]) -> Option<&'a [u8]> {
    let rest = &log[memchr::memmem::find(log, label)? + label.len()..];
    let rest = &rest[memchr::memchr(b':', rest)? + 1..];
    let tab = memchr::memchr(b'\t', rest).unwrap_or(rest.len());
    let gap = memchr::memmem::find(rest, b"  ").unwrap_or(rest.len());
    Some(&rest[..tab.min(gap)])
}

/// A look-up of a value in a list.
#[derive(Debug)]
pub(crate) struct ListTest {
    pub(crate) subject: Subject,
    pub(crate) lookup: Lookup,
    pub(crate) list: Arc<TextList>,
}

/// How a list decides.
#[derive(Debug)]
pub(crate) enum Lookup {
    Key,
    NotKey,
    KeyValue(OsMatch),
    Address,
    NotAddress,
    /// Kept inverted: true when nothing is found or the value found does not match.
    AddressValue(OsMatch),
}

impl ListTest {
    fn holds(&self, event: &Decoded<'_>) -> bool {
        let Some(value) = self.subject.value(event) else { return false };
        match &self.lookup {
            Lookup::Key => self.list.value(value).is_some(),
            Lookup::NotKey => self.list.value(value).is_none(),
            Lookup::KeyValue(wanted) => self.list.value(value).is_some_and(|found| wanted.is_match(found)),
            Lookup::Address => self.list.address_value(value).is_some(),
            Lookup::NotAddress => self.list.address_value(value).is_none(),
            Lookup::AddressValue(wanted) => {
                !self.list.address_value(value).is_some_and(|found| wanted.is_match(found))
            }
        }
    }
}

/// The event's moment in local time, worked out only if some condition asks.
#[derive(Debug)]
pub(crate) struct Moment<'a> {
    at: Timestamp,
    zone: &'a Zone,
    local: OnceCell<LocalTime>,
}

impl<'a> Moment<'a> {
    pub(crate) fn new(at: Timestamp, zone: &'a Zone) -> Self {
        Self { at, zone, local: OnceCell::new() }
    }

    /// The same where the fields of some moment in this second may be known.
    pub(crate) fn after(at: Timestamp, zone: &'a Zone, known: Option<(i64, LocalTime)>) -> Self {
        let moment = Self::new(at, zone);
        if let Some((_, local)) = known.filter(|(second, _)| *second == at.secs()) {
            let _ = moment.local.set(LocalTime { millis: at.millis(), ..local });
        }
        moment
    }

    pub(crate) fn at(&self) -> Timestamp {
        self.at
    }

    /// The second and its fields, if they were asked for.
    pub(crate) fn known(&self) -> Option<(i64, LocalTime)> {
        self.local.get().map(|local| (self.at.secs(), *local))
    }

    pub(crate) fn local(&self) -> &LocalTime {
        self.local.get_or_init(|| self.zone.local(self.at))
    }
}

impl Test {
    /// The dynamic field that it looks at, without which it never holds.
    pub(crate) fn dynamic_field(&self) -> Option<&str> {
        match self {
            Self::Expression { subject: Subject::Dynamic(name, _), .. } => Some(name),
            Self::List(ListTest { subject: Subject::Dynamic(name, _), .. }) => Some(name),
            _ => None,
        }
    }

    /// Learns the number of that field.
    pub(crate) fn look_up(&mut self, fields: &FieldNames) {
        if let Self::Expression { subject: Subject::Dynamic(name, known), .. }
        | Self::List(ListTest { subject: Subject::Dynamic(name, known), .. }) = self
        {
            *known = fields.find(name.as_bytes());
        }
    }

    /// Decides a condition without memory; `None` for those that have one.
    pub(crate) fn holds(
        &self,
        event: &Decoded<'_>,
        decoders: &Decoders,
        moment: &Moment<'_>,
    ) -> Option<bool> {
        Some(match self {
            Self::DecodedAs(name) => event.decoder.is_some_and(|id| decoders.info(id).name == **name),
            Self::Expression { subject, expression, negate } => {
                subject.value(event).is_some_and(|value| expression.is_match(value) != *negate)
            }
            Self::Network { field, networks, negate } => {
                event.field(*field).is_some_and(|value| networks.any_text(value) != *negate)
            }
            Self::Builtin(builtin) => builtin.holds(event),
            Self::MaxSize(least) => event.log.len() >= *least,
            Self::Time(span) => span.holds(moment.local()),
            Self::Weekday(days) => days.holds(moment.local()),
            Self::List(list) => list.holds(event),
            Self::Difference | Self::FirstTime => return None,
        })
    }
}
