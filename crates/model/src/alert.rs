//! An alert: what a rule says about one event, ready to be written once its id is known.

use crate::{Agent, RuleId, Timestamp};
use std::sync::Arc;

/// The rule part of an alert.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AlertRule {
    /// Rule number.
    pub id: RuleId,
    /// 0–16.
    pub level: u8,
    /// Expanded description.
    pub description: Vec<u8>,
    /// Raw group string (comma list), the text that `rules_group` is matched with.
    pub groups: Arc<str>,
}

/// The two byte runs around an alert's `id` value, so that the id is the only thing formatted late.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Frame {
    /// Everything before the id.
    pub head: Vec<u8>,
    /// Everything behind the id.
    pub tail: Vec<u8>,
}

impl Frame {
    /// Writes the whole text with this id.
    pub fn write(&self, id: &str, out: &mut Vec<u8>) {
        out.reserve(self.len(id));
        out.extend_from_slice(&self.head);
        out.extend_from_slice(id.as_bytes());
        out.extend_from_slice(&self.tail);
    }

    /// Rendered length in bytes with this id.
    pub fn len(&self, id: &str) -> usize {
        self.head.len() + id.len() + self.tail.len()
    }

    /// Bytes of memory behind it.
    pub fn weight(&self) -> usize {
        self.head.capacity() + self.tail.capacity()
    }

    /// True when nothing was rendered.
    pub fn is_empty(&self) -> bool {
        self.head.is_empty() && self.tail.is_empty()
    }
}

/// An alert as the rules made it. The id `<epoch seconds>.<offset>` is given by the one sequencer behind the
/// analysis (architecture, "Alert id"), therefore the renderings have a gap in its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alert {
    /// Moment of the event that completed it.
    pub at: Timestamp,
    /// The rule.
    pub rule: AlertRule,
    /// The agent of the event.
    pub agent: Arc<Agent>,
    /// One compact JSON object without newline: a line of alerts.json, and `parameters.alert` of an order.
    pub json: Frame,
    /// One record of alerts.log, including its closing empty line; empty when that output is off.
    pub plain: Frame,
    /// Decoded source address, as the decoder gave it.
    pub srcip: Option<Vec<u8>>,
    /// Decoded user.
    pub dstuser: Option<Vec<u8>>,
    /// Level reaches `log_alert_level` (or the rule insists): the outputs write it. Responses run regardless.
    pub logged: bool,
    /// The rule asks for e-mail.
    pub mail: bool,
    /// The rule forbids responses (`no_ar`).
    pub no_response: bool,
    /// For each of `srcip`, `dstuser`: other values that the decoder's expression would also have captured
    /// from the same line. Not empty = the target is contested.
    pub contested: Vec<(&'static str, Vec<u8>)>,
}

impl Alert {
    /// Bytes it takes up while it waits; what alerts share is not counted.
    pub fn weight(&self) -> usize {
        let optional = |value: &Option<Vec<u8>>| value.as_ref().map_or(0, Vec::capacity);
        let contested: usize = self.contested.iter().map(|(_, value)| value.capacity()).sum();
        size_of::<Self>()
            + self.json.weight()
            + self.plain.weight()
            + self.rule.description.capacity()
            + optional(&self.srcip)
            + optional(&self.dstuser)
            + contested
    }
}
