//! Why a response that is bound to the rule does not run for this alert.

use std::fmt;

/// The one guard or circumstance that stopped it; shown to operators, so it says what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// The address is covered by `<white_list>`.
    AllowListed {
        /// The entry.
        entry: String,
    },
    /// The line holds another value that the decoder would also have taken.
    Contested {
        /// `srcip` or `dstuser`.
        field: &'static str,
        /// The other values.
        rivals: Vec<String>,
    },
    /// The response acts on an address and the alert names none.
    NoAddress {
        /// What stands in `data.srcip` instead: a host name, `UNKNOWN`.
        source: Option<String>,
    },
    /// The alert comes from the responses' own log and the response was bound by level only.
    OwnLog,
    /// `defined-agent` without an agent.
    NoAgent,
    /// The agent is not known here.
    UnknownAgent(tld_model::AgentId),
    /// The queue of the responder is full.
    QueueFull,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AllowListed { entry } => write!(f, "allow-listed by <white_list>{entry}</white_list>"),
            Self::Contested { field, rivals } => write!(
                f,
                "contested {field}: the line also offers {}; set <contested>first</contested> or last to act anyway",
                rivals.join(", ")
            ),
            Self::NoAddress { source: Some(text) } => {
                write!(f, "srcip `{text}` is no address, and the response needs one")
            }
            Self::NoAddress { source: None } => {
                f.write_str("the alert names no source address, and the response needs one")
            }
            Self::OwnLog => f.write_str(
                "the alert comes from the responses' own log; name the rule in <rules_id> or <rules_group> to answer it",
            ),
            Self::NoAgent => f.write_str("location defined-agent names no agent"),
            Self::UnknownAgent(id) => write!(f, "agent {id} is not connected to this installation"),
            Self::QueueFull => f.write_str("the responder's queue is full"),
        }
    }
}
