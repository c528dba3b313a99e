//! What a composite rule compares between the event and earlier ones (analysis-rules 4).

use tld_pattern::OsRegex;

use super::ListId;
use crate::StaticField;

/// Where the earlier events come from.
#[derive(Debug)]
pub(crate) enum Target {
    /// One list: the history of a rule, or the events of a group. `None`: the rule named does not exist.
    List(Option<ListId>),
    /// Every remembered event whose log matches.
    Everything(Option<OsRegex>),
}

/// A value that two events may share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shared {
    Static(StaticField),
    Location,
    /// No event has one here.
    Geo,
}

impl Shared {
    /// Its name in alerts.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Static(field) => field.name(),
            Self::Location => "location",
            Self::Geo => "geographic place",
        }
    }
}

/// The settings of a search.
#[derive(Debug, Default)]
pub(crate) struct Correlation {
    /// Events to count before the one that completes it: `frequency` less two.
    pub(crate) frequency: u32,
    pub(crate) timeframe: u32,
    /// Events of other agents count.
    pub(crate) any_agent: bool,
    pub(crate) same: Vec<Shared>,
    pub(crate) different: Vec<Shared>,
    pub(crate) same_fields: Vec<Box<str>>,
    pub(crate) different_fields: Vec<Box<str>>,
}

/// What an element of the `same_*` and `different_*` family asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Element {
    Same(Shared),
    Different(Shared),
    SameField,
    DifferentField,
    AnyAgent,
    /// Accepted, without effect.
    Inert,
}

impl Element {
    /// The element of that lower-case name.
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "same_field" => Self::SameField,
            "different_field" | "not_same_field" => Self::DifferentField,
            "global_frequency" => Self::AnyAgent,
            "same_agent" | "not_same_agent" => Self::Inert,
            "same_source_ip" => Self::Same(Shared::Static(StaticField::SrcIp)),
            "not_same_source_ip" => Self::Different(Shared::Static(StaticField::SrcIp)),
            "not_same_user" => Self::Different(Shared::Static(StaticField::DstUser)),
            "not_same_id" => Self::Different(Shared::Static(StaticField::Id)),
            _ => match name.strip_prefix("same_") {
                Some(what) => Self::Same(shared(what)?),
                None => Self::Different(shared(name.strip_prefix("different_")?)?),
            },
        })
    }
}

fn shared(name: &str) -> Option<Shared> {
    use StaticField as F;
    Some(Shared::Static(match name {
        "srcip" => F::SrcIp,
        "dstip" => F::DstIp,
        "srcport" | "src_port" => F::SrcPort,
        "dstport" | "dst_port" => F::DstPort,
        "protocol" => F::Protocol,
        "action" => F::Action,
        "id" => F::Id,
        "url" => F::Url,
        "data" => F::Data,
        "extra_data" => F::ExtraData,
        "status" => F::Status,
        "system_name" => F::SystemName,
        "srcuser" => F::SrcUser,
        "user" => F::DstUser,
        "location" => return Some(Shared::Location),
        "srcgeoip" | "dstgeoip" => return Some(Shared::Geo),
        _ => return None,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn older_names_mean_the_same_as_newer_ones() {
        for (old, new) in [
            ("same_source_ip", "same_srcip"),
            ("same_src_port", "same_srcport"),
            ("not_same_source_ip", "different_srcip"),
            ("not_same_user", "different_user"),
            ("not_same_id", "different_id"),
            ("not_same_field", "different_field"),
        ] {
            assert_eq!(Element::from_name(old), Element::from_name(new), "{old}");
        }
        assert_eq!(Element::from_name("same_color"), None);
    }
}
