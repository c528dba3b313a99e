//! Our extension of the contract: an endpoint confirms every order and reports what became of it.
//! It is spoken only after both sides have declared it: the agent by a member in its handshake's JSON, the manager by
//! a message that no other agent ever gets. The contract has no acknowledgement at all, so without the extension the
//! manager can only guess from log lines.
//! Invariant: peers of other makes never see a byte of it beyond that one member, which they ignore.

use serde::{Deserialize, Serialize};
use tld_model::{ExecMessage, OrderId, OrderOptions, Outcome, Timestamp};

use crate::counter::Counter;

/// The revision of the extension that is spoken here.
pub const PROTOCOL: u32 = 1;

/// Declares the extension.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Highest revision understood.
    pub protocol: u32,
}

impl Default for Hello {
    fn default() -> Self {
        Self { protocol: PROTOCOL }
    }
}

impl Hello {
    /// The revision that both sides speak, if there is one.
    pub fn agreed(self, other: Self) -> Option<u32> {
        Some(self.protocol.min(other.protocol)).filter(|protocol| *protocol >= 1)
    }
}

/// What our agents say.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FromAgent {
    /// The order is journaled; it need not be sent again.
    Received {
        /// The order.
        order: OrderId,
    },
    /// What became of it. Repeated until the manager confirms it.
    Outcome(Box<Outcome>),
}

/// What our managers say.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FromManager {
    /// The manager speaks the extension too.
    Hello(Hello),
    /// An outcome is stored; it need not be reported again.
    Confirmed {
        /// The order.
        order: OrderId,
        /// The state of it that was stored.
        kind: tld_model::OutcomeKind,
    },
    /// Withdraws an order: what was not applied yet never is, and what is in force is undone. The outcome tells which.
    Cancel {
        /// The order.
        order: OrderId,
    },
    /// Every message of the agent up to this pair of its counter is taken: events among them need not be sent again.
    /// Said right behind `Hello`, about earlier connections, and from time to time; so a restart of the manager
    /// neither loses nor repeats an event.
    Taken(Counter),
}

/// What an order to one of our agents tells besides the contract's message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ticket {
    /// Key of the order: delivered twice, it acts once.
    pub order: OrderId,
    /// Wall-clock nanoseconds after which it must not be applied any more; `None` = no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_ns: Option<i64>,
    /// Wall-clock nanoseconds at which the effect ends at the latest, for an order that reached its agent late: it lasts
    /// as long as is left of it, not as long as its response lasts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ends_ns: Option<i64>,
    /// What the response's configuration says beyond the contract.
    #[serde(default, skip_serializing_if = "is_plain")]
    pub options: OrderOptions,
}

fn is_plain(options: &OrderOptions) -> bool {
    *options == OrderOptions::default()
}

impl Ticket {
    /// A ticket without limits.
    pub fn new(order: OrderId) -> Self {
        Self { order, deadline_ns: None, ends_ns: None, options: OrderOptions::default() }
    }

    /// Whether the order came too late.
    pub fn is_expired(&self, now: Timestamp) -> bool {
        self.deadline_ns.is_some_and(|deadline| now.nanos() > deadline)
    }
}

/// The contract's message with a ticket as its last member.
///
/// # Errors
/// When the message does not encode.
pub fn with_ticket(message: &ExecMessage, ticket: &Ticket) -> Result<String, serde_json::Error> {
    let mut line = message.to_line()?;
    line.pop();
    line.push_str(",\"threatlockdown\":");
    line.push_str(&serde_json::to_string(ticket)?);
    line.push('}');
    Ok(line)
}

/// The ticket in a message, if it has one.
pub fn ticket(message: &[u8]) -> Option<Ticket> {
    #[derive(Deserialize)]
    struct Ticketed {
        threatlockdown: Ticket,
    }
    crate::control::leading_json::<Ticketed>(message).map(|found| found.threatlockdown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_rides_at_the_end_of_the_contracts_message() {
        let json = r#"{"version":1,"origin":{"name":"n","module":"m"},"command":"c0","parameters":{"extra_args":[],"alert":{"a":1}}}"#;
        let message: ExecMessage = serde_json::from_str(json).unwrap();
        let sent = Ticket { deadline_ns: Some(5), ..Ticket::new(OrderId("o-1".into())) };
        let line = with_ticket(&message, &sent).unwrap();
        assert!(line.starts_with(&json[..json.len() - 1]));
        assert_eq!(ticket(format!("{line} rubbish").as_bytes()), Some(sent.clone()));
        assert_eq!(serde_json::from_str::<ExecMessage>(&line).unwrap().to_line().unwrap(), json);
        assert_eq!(ticket(json.as_bytes()), None);
        assert!(sent.is_expired(Timestamp::from_nanos(6)) && !sent.is_expired(Timestamp::from_nanos(5)));
    }

    #[test]
    fn the_lower_revision_is_spoken() {
        let hello = |protocol| Hello { protocol };
        assert_eq!(hello(1).agreed(hello(7)), Some(1));
        assert_eq!(hello(1).agreed(hello(0)), None);
    }
}
