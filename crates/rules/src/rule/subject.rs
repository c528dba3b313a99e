//! Which value of an event a condition, a list or a correlation looks at. Invariant: a value that the event lacks
//! is `None`, never an empty text, because absence rejects even negated conditions (analysis-rules 1.2).

use crate::fields::FieldId;
use crate::{Decoded, StaticField};

/// A value of an event.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Subject {
    /// The log without its header.
    Log,
    /// One of the fourteen static fields.
    Static(StaticField),
    /// Program name of the header.
    Program,
    /// Agent's name or header's host.
    Hostname,
    /// Location as rules see it.
    Location,
    /// The user as conditions mean it: destination first.
    DstOrSrcUser,
    /// The user as lists mean it: source first.
    SrcOrDstUser,
    /// Geographic names, which no event has here.
    Geo,
    /// A dynamic field, by name without case, and the number that events know it by where that was told.
    Dynamic(Box<str>, Option<FieldId>),
}

impl Subject {
    /// The event's value.
    pub(crate) fn value<'a>(&self, event: &'a Decoded<'_>) -> Option<&'a [u8]> {
        match self {
            Self::Log => Some(&event.log),
            Self::Static(field) => event.field(*field),
            Self::Program => event.program_name.as_deref(),
            Self::Hostname => event.hostname(),
            Self::Location => Some(&event.location),
            Self::DstOrSrcUser => {
                event.field(StaticField::DstUser).or_else(|| event.field(StaticField::SrcUser))
            }
            Self::SrcOrDstUser => {
                event.field(StaticField::SrcUser).or_else(|| event.field(StaticField::DstUser))
            }
            Self::Geo => None,
            Self::Dynamic(_, Some(known)) => event.known_field(*known),
            Self::Dynamic(name, None) => event.dynamic_field(name),
        }
    }

    /// What a `list` element's `field` names; unknown names are dynamic fields.
    pub(crate) fn of_list(name: &str) -> Self {
        const NAMED: [(&str, StaticField); 12] = [
            ("srcip", StaticField::SrcIp),
            ("srcport", StaticField::SrcPort),
            ("dstip", StaticField::DstIp),
            ("dstport", StaticField::DstPort),
            ("url", StaticField::Url),
            ("id", StaticField::Id),
            ("status", StaticField::Status),
            ("action", StaticField::Action),
            ("protocol", StaticField::Protocol),
            ("system_name", StaticField::SystemName),
            ("data", StaticField::Data),
            ("extra_data", StaticField::ExtraData),
        ];
        let name = name.trim_matches(' ');
        if let Some((_, field)) = NAMED.iter().find(|(known, _)| name.eq_ignore_ascii_case(known)) {
            return Self::Static(*field);
        }
        match name.to_ascii_lowercase().as_str() {
            "user" => Self::SrcOrDstUser,
            "hostname" => Self::Hostname,
            "program_name" => Self::Program,
            _ => Self::Dynamic(name.into(), None),
        }
    }

    /// What one name of `ignore_by` means.
    pub(crate) fn of_window(name: &str) -> Self {
        if let Some(field) = StaticField::from_name(name) {
            return Self::Static(field);
        }
        match name {
            "user" => Self::DstOrSrcUser,
            "location" => Self::Location,
            "hostname" => Self::Hostname,
            "program_name" => Self::Program,
            _ => Self::Dynamic(name.into(), None),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tld_model::{Event, Timestamp};

    use super::*;
    use crate::fields::FieldNames;

    proptest! {
        #[test]
        fn a_field_has_the_same_value_by_number_and_by_name(
            asked in proptest::collection::vec("[ab.]{1,3}", 0..6),
            carried in proptest::collection::vec(("[aAbB.]{1,3}", "[xy]{0,2}"), 0..8),
        ) {
            let names = FieldNames::new(asked.iter().map(String::as_str));
            let event = Event::local("/var/log/probe", "text", Timestamp::EPOCH);
            let mut decoded = Decoded::new(&event);
            for (name, value) in &carried {
                decoded.push_known(name.as_bytes(), names.find(name.as_bytes()), value.as_bytes(), 8);
            }
            for name in &asked {
                let known = names.find(name.as_bytes());
                prop_assert!(known.is_some());
                let by_name = Subject::Dynamic(name.as_str().into(), None).value(&decoded);
                prop_assert_eq!(Subject::Dynamic(name.as_str().into(), known).value(&decoded), by_name);
            }
        }
    }
}
