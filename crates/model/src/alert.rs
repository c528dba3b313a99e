//! An alert: what a rule says about one event, ready to be written once its id is known.

use crate::{Agent, RuleId, Timestamp};
use std::sync::Arc;

/// What the alerts of one rule say alike. Shared between all of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleTexts {
    /// Description, before expansion.
    pub description: Vec<u8>,
    /// Raw group string (comma list), the text that `rules_group` is matched with.
    pub groups: String,
}

/// The rule part of an alert.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AlertRule {
    /// Rule number.
    pub id: RuleId,
    /// 0–16.
    pub level: u8,
    /// The rule's texts.
    pub texts: Arc<RuleTexts>,
    /// The description with the event's values; none where no value stands in it.
    pub expanded: Option<Vec<u8>>,
}

impl AlertRule {
    /// A rule that shares nothing, with a description that needs no values.
    pub fn new(id: RuleId, level: u8, description: &[u8], groups: &str) -> Self {
        let texts = RuleTexts { description: description.to_vec(), groups: groups.to_owned() };
        Self { id, level, texts: Arc::new(texts), expanded: None }
    }

    /// The description that the alert shows.
    pub fn description(&self) -> &[u8] {
        self.expanded.as_deref().unwrap_or(&self.texts.description)
    }

    /// Raw group string (comma list).
    pub fn groups(&self) -> &str {
        &self.texts.groups
    }
}

/// A rendered alert with a gap in the place of its id, so that the id is the only thing formatted late.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Frame {
    text: Vec<u8>,
    gap: usize,
}

impl Frame {
    /// A text whose gap lies before the byte of that number, or at its end.
    pub fn new(text: Vec<u8>, gap: usize) -> Self {
        let gap = gap.min(text.len());
        Self { text, gap }
    }

    /// The two byte runs around the gap.
    pub fn around(head: &[u8], tail: &[u8]) -> Self {
        Self { text: [head, tail].concat(), gap: head.len() }
    }

    /// Everything before the id.
    pub fn head(&self) -> &[u8] {
        &self.text[..self.gap]
    }

    /// Everything behind the id.
    pub fn tail(&self) -> &[u8] {
        &self.text[self.gap..]
    }

    /// Writes the whole text with this id.
    pub fn write(&self, id: &str, out: &mut Vec<u8>) {
        out.reserve(self.len(id));
        out.extend_from_slice(self.head());
        out.extend_from_slice(id.as_bytes());
        out.extend_from_slice(self.tail());
    }

    /// Rendered length in bytes with this id.
    pub fn len(&self, id: &str) -> usize {
        self.text.len() + id.len()
    }

    /// Bytes of memory behind it.
    pub fn weight(&self) -> usize {
        self.text.capacity()
    }

    /// True when nothing was rendered.
    pub fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// The memory of a frame that is done, for another one.
    pub fn into_memory(self) -> Vec<u8> {
        self.text
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
            + self.rule.expanded.as_ref().map_or(0, Vec::capacity)
            + optional(&self.srcip)
            + optional(&self.dstuser)
            + contested
    }
}
