//! The parts of alerts that are the same for every event of a rule or a decoder, made at load.
//! Invariant: each begins with the comma that separates it from what stands before it.

use super::groups;
use super::json::Object;
use crate::Texts;
use crate::ahead;
use crate::decoder::{DecoderId, DecoderInfo, Decoders};
use crate::rule::Rule;

/// The member `rule` of one rule's alerts.
#[derive(Debug, Default)]
pub(crate) struct Constant {
    /// All of it but the description where values stand in it, the counter's number, and the last brace.
    text: Box<[u8]>,
    /// The description goes here, unless it stands in the text.
    description: Option<u32>,
    /// The counter's number goes here.
    counter: Option<u32>,
    /// Texts of events may name more arrays.
    pub(super) rootcheck: bool,
}

impl Constant {
    /// Of a rule that has got its place.
    pub(crate) fn new(rule: &Rule) -> Self {
        let Rule { info, shown, .. } = rule;
        let mut text = b",\"rule\":".to_vec();
        let mut object = Object::open(&mut text);
        if info.level > 0 {
            object.raw("level", &info.level.to_string());
        }
        let fixed = memchr::memmem::find(&info.description, b"$(").is_none();
        object.text("description", if fixed { &info.description } else { b"" });
        let description = (!fixed).then_some(object.out.len() - 1);
        object.text("id", info.id.to_string().as_bytes());
        if !shown.mitre.tactic.is_empty() {
            let mut mitre = Object::open(object.named("mitre"));
            for (name, values) in [
                ("id", &shown.mitre.id),
                ("tactic", &shown.mitre.tactic),
                ("technique", &shown.mitre.technique),
            ] {
                mitre.texts(name.as_bytes(), values.iter().map(String::as_bytes));
            }
            mitre.close();
        }
        for (name, text) in [("cve", &shown.cve), ("info", &shown.info)] {
            if !text.is_empty() {
                object.text(name, text);
            }
        }
        if let Some(frequency) = info.frequency {
            object.raw("frequency", &frequency.to_string());
        }
        let counter = (!rule.no_counter).then(|| object.named("firedtimes").len());
        object.raw("mail", if info.mail { "true" } else { "false" });
        for (name, values) in groups::arrays(&info.groups) {
            object.texts(name.as_bytes(), values);
        }
        let place = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
        Self {
            description: description.map(place),
            counter: counter.map(place),
            rootcheck: info.groups.split(',').any(|group| group == "rootcheck"),
            text: text.into(),
        }
    }

    /// Whether no value of the event stands in the description.
    pub(crate) fn is_fixed(&self) -> bool {
        self.description.is_none()
    }

    /// Has it fetched.
    pub(crate) fn fetch(&self) {
        ahead::fetch_text(&self.text);
    }

    /// Up to the description, from there to the counter, and the rest.
    pub(super) fn pieces(&self) -> [&[u8]; 3] {
        let place = |at: Option<u32>| at.map(|at| (at as usize).min(self.text.len()));
        let (before, rest) = self.text.split_at(place(self.description).unwrap_or(0));
        let (middle, end) = rest.split_at(place(self.counter).unwrap_or(self.text.len()) - before.len());
        [before, middle, end]
    }
}

/// The member `decoder` for each decoder.
pub(crate) fn decoders(decoders: &Decoders) -> Texts {
    let numbers = (0..u16::MAX).take(decoders.count());
    let mut all = Texts::default();
    let mut text = Vec::new();
    for number in numbers {
        text.clear();
        write_decoder(Some(decoders.info(DecoderId(number))), &mut text);
        all.push(&text);
    }
    all.shrink();
    all
}

/// The member `decoder`.
pub(super) fn write_decoder(info: Option<&DecoderInfo>, out: &mut Vec<u8>) {
    out.extend_from_slice(b",\"decoder\":");
    let mut decoder = Object::open(out);
    if let Some(info) = info {
        if info.accumulate {
            decoder.raw("accumulate", "1");
        }
        if let Some(parent) = &info.parent {
            decoder.text("parent", parent.as_bytes());
        }
        decoder.text("name", info.name.as_bytes());
        if let Some(comment) = &info.ftscomment {
            decoder.text("ftscomment", comment.as_bytes());
        }
    }
    decoder.close();
}
