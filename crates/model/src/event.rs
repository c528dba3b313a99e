//! One log line on its way in.

use std::sync::Arc;

use crate::{AgentId, Timestamp};

/// Queue id of a line from a file, the journal or a command (wire contract 4.1).
pub const QUEUE_LOCAL: u8 = b'1';
/// Queue id of remote syslog.
pub const QUEUE_SYSLOG: u8 = b'2';
/// Queue id of Windows event channel records.
pub const QUEUE_WINDOWS: u8 = b'f';

/// Who sent an event. Shared between all events of one agent.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Agent {
    /// `000` for the manager itself.
    pub id: AgentId,
    /// Registered name; empty for `000` (the manager's name stands in alerts instead).
    pub name: String,
    /// Registered address as text (`any`, an address or a CIDR); what rules see in the location.
    pub registered_ip: String,
    /// Address shown in alerts, if known.
    pub ip: Option<String>,
    /// Visible labels, dots in keys nest.
    pub labels: Vec<(String, String)>,
}

/// A log line as received: never changed, never lossy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Queue id; chooses the decoder family.
    pub queue: u8,
    /// Where the line came from, without the agent's wrapping: a path, `journald`, an address, a command's alias.
    pub location: Arc<[u8]>,
    /// The agent that sent it.
    pub agent: Arc<Agent>,
    /// The line without its newline.
    pub text: Vec<u8>,
    /// Arrival at the first room (the collector, or the manager's socket).
    pub received: Timestamp,
}

impl Event {
    /// A line that this host itself produced (agent `000`).
    pub fn local(location: &str, text: impl Into<Vec<u8>>, received: Timestamp) -> Self {
        Self {
            queue: QUEUE_LOCAL,
            location: location.as_bytes().into(),
            agent: Arc::default(),
            text: text.into(),
            received,
        }
    }

    /// Bytes it takes up while it waits; what events share is not counted.
    pub fn weight(&self) -> usize {
        size_of::<Self>() + self.text.capacity()
    }
}
