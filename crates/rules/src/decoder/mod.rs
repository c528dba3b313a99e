//! Decoders: which one an event belongs to, and the fields they take out of it (analysis-decoders).
//!
//! Everything is compiled when the files are loaded and only read afterwards, so one `Decoders` serves all
//! workers; what one worker needs in between lives in its own [`Scratch`].
//! Invariant: decoding never changes the order of anything — same files, same event, same fields.

mod accumulate;
mod contested;
mod eventchannel;
mod json;
mod load;
mod name;
mod plugin;
mod prefilter;
mod select;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use tld_model::RuleId;
use tld_pattern::{Captures, Expression};
use tld_xml::{Diagnostic, Source};

use crate::fields::{FieldId, FieldNames};
use crate::hash::Quick;
use crate::lexicon::{Found, Lexicon, Needed};
use crate::literals::Bits;
use crate::{Category, Decoded, StaticField};
use name::Name;

pub use accumulate::Accumulator;
pub(crate) use select::Origins;
pub use select::{DecoderStep, DecoderTest};

/// A decoder's number; built-in decoders come first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DecoderId(pub u16);

/// What can be set about decoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DecoderOptions {
    /// Most names in one `order`, and most dynamic fields of one event (`decoder_order_size`).
    pub order_size: usize,
}

impl Default for DecoderOptions {
    fn default() -> Self {
        Self { order_size: 256 }
    }
}

/// A part of the "first time seen" key that a decoder asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FtsField {
    /// One of `id`, `dstuser`, `srcuser`, `srcip`, `dstip`, `data`, `system_name`.
    Static(StaticField),
    /// `location`
    Location,
    /// `name`; the decoder's name always opens the key.
    Name,
    /// A dynamic field of the same decoder.
    Dynamic(Box<str>),
}

/// What others may know about a decoder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecoderInfo {
    /// Name in alerts and for `decoded_as`: a child without `use_own_name` has its parent's.
    pub name: String,
    /// Name in the file.
    pub own_name: String,
    /// Text of `parent`.
    pub parent: Option<String>,
    /// Type.
    pub category: Category,
    /// Parts of the "first time seen" key.
    pub fts: Vec<FtsField>,
    /// Comment shown in alerts.
    pub ftscomment: Option<String>,
    /// Its events pass the [`Accumulator`].
    pub accumulate: bool,
    /// File, as named by its source; empty for built-in decoders.
    pub file: Arc<str>,
    /// Line of the opening tag; 0 for built-in decoders.
    pub line: u32,
}

/// What decoding says beyond the fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DecodeResult {
    /// A forwarded alert names the rule that it is to become; the rule tree is not walked.
    pub forced_rule: Option<RuleId>,
    /// Which expressions took the fields that responses act on.
    pub(crate) origins: Origins,
}

/// All decoders, in the order of the files.
#[derive(Debug)]
pub struct Decoders {
    entries: Vec<Decoder>,
    /// What every event asks of its decoder.
    marks: Vec<Marks>,
    /// Of the entries, in their order: siblings follow each other in memory, too.
    prematches: Vec<Prematch>,
    regexes: Vec<Regex>,
    /// What the groups of the regexes go to, one regex behind the other.
    orders: Vec<Field>,
    /// Top-level decoders with `program_name`.
    with_program: Vec<Top>,
    /// Top-level decoders without.
    without_program: Vec<Top>,
    /// Of the list with program.
    named: prefilter::Prefilter,
    /// Of the list without program.
    prefilter: prefilter::Prefilter,
    /// What decoders and rules look for in logs.
    lexicon: Lexicon,
    /// So many decoders at the start of the list without program are asked before that.
    quick: usize,
    names: HashSet<String>,
    rules: HashSet<RuleId>,
    fields: FieldNames,
    order_size: usize,
    /// Tells a [`Scratch`] whether what it remembers belongs to these decoders.
    identity: Arc<()>,
}

/// Buffers of one worker, used again for every event.
#[derive(Debug, Default)]
pub struct Scratch {
    captures: Captures,
    programs: Programs,
    places: Bits,
    spare: Bits,
    /// What the lexicon finds in the event's log, as far as anybody asked.
    pub(crate) found: Found,
    json: plugin::json::Buffers,
}

impl Scratch {
    /// Empty buffers.
    pub fn new() -> Self {
        Self::default()
    }
}

impl Decoders {
    /// Loads decoders from files that are already in order. All problems of all files are reported; if one
    /// of them is an error the result must not be used to replace what runs.
    pub fn load(sources: &[Source], options: &DecoderOptions, diagnostics: &mut Vec<Diagnostic>) -> Self {
        load::load(sources, options, diagnostics)
    }

    /// Whether a decoder of that name exists, built-in ones included.
    pub fn known(&self, name: &str) -> bool {
        self.names.contains(name)
    }

    /// Facts about one decoder; an id of other decoders gives the first built-in one.
    pub fn info(&self, id: DecoderId) -> &DecoderInfo {
        &self.entry(id.0).info
    }

    /// Whether events of a decoder pass the [`Accumulator`].
    pub(crate) fn accumulates(&self, id: DecoderId) -> bool {
        self.marks.get(usize::from(id.0)).is_some_and(|marks| marks.accumulate)
    }

    /// Whether a decoder is named as the one of configuration assessments.
    pub(crate) fn assesses(&self, id: DecoderId) -> bool {
        self.marks.get(usize::from(id.0)).is_some_and(|marks| marks.assesses)
    }

    /// Number of all decoders, built-in ones included; they have the ids from 0 on.
    pub(crate) fn count(&self) -> usize {
        self.entries.len()
    }

    /// Number of decoders loaded from files.
    pub fn len(&self) -> usize {
        self.entries.len() - BUILT_IN.len()
    }

    /// True when no file gave a decoder.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Decoders loaded from files, in order.
    pub fn iter(&self) -> impl Iterator<Item = (DecoderId, &DecoderInfo)> {
        let numbers = (0..=u16::MAX).map(DecoderId);
        numbers.zip(&self.entries).skip(BUILT_IN.len()).map(|(id, entry)| (id, &*entry.info))
    }

    /// Most dynamic fields of one event.
    pub fn order_size(&self) -> usize {
        self.order_size
    }

    /// Names the rules that forwarded alerts may become; without this call they are ordinary events.
    pub fn set_rules(&mut self, rules: impl IntoIterator<Item = RuleId>) {
        self.rules = rules.into_iter().collect();
    }

    /// Finds the event's decoder and takes its fields out. `trace`, if given, receives every test made.
    pub fn decode<'e>(
        &self,
        decoded: &mut Decoded<'e>,
        scratch: &mut Scratch,
        trace: Option<&mut Vec<DecoderStep>>,
    ) -> DecodeResult {
        select::decode(self, decoded, scratch, trace)
    }

    /// For `srcip` and `dstuser`: other values that the expression which set the field would also have taken
    /// from the same line. Costs a second decoding, so ask only for alerts.
    pub fn contested(&self, decoded: &Decoded<'_>) -> Vec<(StaticField, Vec<Vec<u8>>)> {
        contested::contested(self, decoded)
    }

    /// [`Decoders::contested`] without decoding again, for the event that was just decoded.
    pub(crate) fn contested_from(
        &self,
        decoded: &Decoded<'_>,
        origins: &Origins,
        scratch: &mut Scratch,
    ) -> Vec<(&'static str, Vec<u8>)> {
        let mut all = Vec::new();
        contested::from_origins(self, decoded, origins, &mut scratch.captures, |field, others| {
            all.extend(others.into_iter().map(|other| (field.name(), other)));
        });
        all
    }

    /// Tells which dynamic fields rules ask for.
    pub(crate) fn set_fields(&mut self, fields: FieldNames) {
        for field in &mut self.orders {
            if let Field::Dynamic(name, known) = field {
                *known = fields.find(name.bytes());
            }
        }
        self.fields = fields;
    }

    /// Looks for these literals, too, in the one pass over each log.
    pub(crate) fn set_literals(&mut self, others: Vec<Vec<u8>>) {
        prefilter::prepare(self, others);
    }

    /// What is looked for in logs.
    pub(crate) fn lexicon(&self) -> &Lexicon {
        &self.lexicon
    }

    /// The dynamic fields that rules ask for.
    pub(crate) fn fields(&self) -> &FieldNames {
        &self.fields
    }

    fn entry(&self, number: u16) -> &Decoder {
        &self.entries[usize::from(number).min(self.entries.len() - 1)]
    }

    fn prematch(&self, work: Work) -> Option<&Prematch> {
        self.prematches.get(usize::from(work.prematch?))
    }

    fn regex(&self, work: Work) -> Option<&Regex> {
        match work.action {
            Action::Regex(number) => self.regexes.get(usize::from(number)),
            _ => None,
        }
    }

    /// The fields of a regex.
    fn order(&self, regex: &Regex) -> &[Field] {
        self.orders.get(regex.order.0 as usize..regex.order.1 as usize).unwrap_or_default()
    }
}

/// Names of decoders that no file defines (analysis 1.1); all are of type `ossec`.
const BUILT_IN: [&str; 16] = [
    "windows_eventchannel",
    "hostinfo_new",
    "hostinfo_modified",
    "syscheck_integrity_changed",
    "syscheck_new_entry",
    "syscheck_deleted",
    "syscheck_registry_key_modified",
    "syscheck_registry_key_added",
    "syscheck_registry_key_deleted",
    "syscheck_registry_value_modified",
    "syscheck_registry_value_added",
    "syscheck_registry_value_deleted",
    "rootcheck",
    "syscollector",
    "ciscat",
    "sca",
];

/// The number of the built-in decoder that receives a queue's events; none for queues of the decoder tree.
fn built_in(queue: u8) -> Option<DecoderId> {
    let name = match queue {
        b'f' => "windows_eventchannel",
        b'3' => "hostinfo_new",
        b'8' => "syscheck_integrity_changed",
        b'9' => "rootcheck",
        b'd' => "syscollector",
        b'e' => "ciscat",
        b'p' => "sca",
        _ => return None,
    };
    let number = BUILT_IN.iter().position(|built_in| *built_in == name)?;
    u16::try_from(number).ok().map(DecoderId)
}

/// A top-level decoder in one of the two lists.
#[derive(Debug)]
struct Top {
    decoder: u16,
    work: Work,
    children: Vec<Child>,
    /// From so many expressions on, one pass over the log is cheaper than asking each.
    read: bool,
}

/// A child in one child list. The flag belongs to the place in the list: the same decoder may stand in several.
#[derive(Debug)]
struct Child {
    decoder: u16,
    work: Work,
    /// A later sibling has the same name: go on with the next entry whatever happens.
    go_on: bool,
    /// What its prematch and its regex need; it stands here, so that most children need not be looked at.
    prematch: Needed,
    regex: Needed,
}

/// Where an expression starts in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Offset {
    #[default]
    Start,
    AfterParent,
    AfterPrematch,
    AfterRegex,
}

/// A field that a group goes to.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Field {
    Static(StaticField),
    /// Its number is known as soon as the rules are.
    Dynamic(Name, Option<FieldId>),
}

#[derive(Debug)]
struct Prematch {
    expression: Expression,
    literals: Literals,
    offset: Offset,
}

/// For each alternative of an OSRegex the literal of the lexicon that it needs, if one is known. The first one stands here:
/// most expressions have no other.
#[derive(Debug, Default)]
struct Literals {
    first: Option<u32>,
    others: Box<[Option<u32>]>,
}

impl Literals {
    fn new(mut literals: impl Iterator<Item = Option<u32>>) -> Self {
        Self { first: literals.next().flatten(), others: literals.collect() }
    }

    /// Of an alternative.
    fn of(&self, number: usize) -> Option<u32> {
        match number.checked_sub(1) {
            None => self.first,
            Some(other) => self.others.get(other).copied().flatten(),
        }
    }
}

/// An expression and the fields of its groups. It begins with a line of the caches, and what each run asks stands in front,
/// as each run waits for a few of them.
#[derive(Debug)]
#[repr(C, align(64))]
struct Regex {
    offset: Offset,
    /// Which of all orders' fields are its own.
    order: (u32, u32),
    literals: Literals,
    expression: Expression,
    rivals: Box<contested::Rivals>,
}

#[derive(Debug, Clone, Copy)]
enum Action {
    None,
    /// The regex of that number.
    Regex(u16),
    Plugin {
        plugin: plugin::Plugin,
        offset: Offset,
    },
}

/// What becomes of `null` and of arrays in JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct JsonOptions {
    discard_null: bool,
    csv_arrays: bool,
}

/// What a decoder does. It stands wherever one is chosen, so that most of them need not be looked at themselves.
#[derive(Debug, Clone, Copy)]
struct Work {
    /// The prematch of that number.
    prematch: Option<u16>,
    action: Action,
    category: Category,
}

/// What every event asks of its decoder, so that most others need not be looked at.
#[derive(Debug, Clone, Copy)]
struct Marks {
    accumulate: bool,
    /// It is named `sca`.
    assesses: bool,
}

/// One decoder.
#[derive(Debug)]
struct Decoder {
    work: Work,
    json: JsonOptions,
    /// It has a parent.
    is_child: bool,
    program: Option<Box<Expression>>,
    info: Box<DecoderInfo>,
}

/// For program names seen lately, the decoders whose `program_name` matches: a program's lines come in crowds,
/// and a hundred expressions per line would be asked the same question again.
#[derive(Debug, Default)]
struct Programs {
    identity: Option<Arc<()>>,
    known: HashMap<Box<[u8]>, Bits, Quick>,
}

impl Programs {
    const MOST: usize = 512;
    const LONGEST: usize = 64;

    /// Puts into `out` the places in the list of decoders with `program_name` that match this program.
    fn candidates(&mut self, decoders: &Decoders, program: &[u8], out: &mut Bits) {
        if !self.identity.as_ref().is_some_and(|known| Arc::ptr_eq(known, &decoders.identity)) {
            self.known.clear();
            self.identity = Some(Arc::clone(&decoders.identity));
        }
        if let Some(found) = self.known.get(program) {
            out.copy_from(found);
            return;
        }
        out.reset(decoders.with_program.len());
        for (place, top) in decoders.with_program.iter().enumerate() {
            let expression = &decoders.entry(top.decoder).program;
            if expression.as_ref().is_none_or(|expression| expression.is_match(program)) {
                out.insert(place);
            }
        }
        if program.len() <= Self::LONGEST {
            if self.known.len() >= Self::MOST {
                self.known.clear();
            }
            self.known.insert(program.into(), out.clone());
        }
    }
}
