//! Choosing an event's decoder (analysis-decoders 3): the first top-level decoder that fits is final, and one
//! chain of its children is run.
//!
//! Offsets are places in the log: `a` behind the parent's prematch, `b` behind the child's, `r` behind the last
//! regex. Invariant: each of them is at most the log's length.

use std::borrow::Cow;
use std::ops::{ControlFlow, Range};

use tld_pattern::{Known, Text};

use crate::ahead;
use crate::decoder::plugin::{self, Plugin};
use crate::decoder::{
    Action, Child, DecodeResult, Decoder, DecoderId, Decoders, Field, JsonOptions, Literals, Offset,
    Prematch, Scratch, Top, Work, built_in, eventchannel,
};
use crate::lexicon::{Found, Needed};
use crate::{Category, Decoded, StaticField, Value};

/// What was tested.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DecoderTest {
    /// `program_name` of a top-level decoder.
    ProgramName,
    /// `prematch`
    Prematch,
    /// `regex`
    Regex,
    /// The plugin ran; matched if it could read the log.
    Plugin,
    /// The decoder became the event's decoder.
    Selected,
}

/// One test on the way to the fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DecoderStep {
    /// Whose test.
    pub decoder: DecoderId,
    /// Which test.
    pub what: DecoderTest,
    /// Its result.
    pub matched: bool,
}

/// Where a static field came from: a group of this decoder's regex.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Origin {
    pub(super) decoder: u16,
    pub(super) group: usize,
    /// The value's place in the log.
    pub(super) start: usize,
    pub(super) end: usize,
    /// Where the search went on behind the whole match.
    pub(super) after: usize,
}

/// The last regex that set the source address and the user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Origins {
    pub(super) srcip: Option<Origin>,
    pub(super) dstuser: Option<Origin>,
}

pub(super) fn decode<'e>(
    decoders: &Decoders,
    decoded: &mut Decoded<'e>,
    scratch: &mut Scratch,
    trace: Option<&mut Vec<DecoderStep>>,
) -> DecodeResult {
    scratch.found.clear();
    if let Some(id) = built_in(decoded.event.queue) {
        decoded.decoder = Some(id);
        decoded.category = Category::Ossec;
        if decoded.event.queue == tld_model::QUEUE_WINDOWS {
            eventchannel::decode(decoded, decoders);
        }
        return DecodeResult::default();
    }
    let mut run = Run::new(decoders, decoded, scratch);
    run.trace = trace;
    run.select(decoded);
    run.finish(decoded)
}

/// One event on its way through the decoders. The log is taken out of the event meanwhile, so that its slices
/// can be put into the event's fields.
struct Run<'e, 's> {
    decoders: &'s Decoders,
    scratch: &'s mut Scratch,
    trace: Option<&'s mut Vec<DecoderStep>>,
    log: Value<'e>,
    /// So many bytes of the log are seen by expressions.
    seen: usize,
    after_parent: usize,
    after_prematch: Option<usize>,
    after_regex: Option<usize>,
    result: DecodeResult,
}

impl<'e, 's> Run<'e, 's> {
    fn new(decoders: &'s Decoders, decoded: &mut Decoded<'e>, scratch: &'s mut Scratch) -> Self {
        let log = std::mem::take(&mut decoded.log);
        let seen = Text::new(&log).bytes().len();
        scratch.found.tell_whole(seen == log.len());
        Self {
            decoders,
            scratch,
            trace: None,
            log,
            seen,
            after_parent: 0,
            after_prematch: None,
            after_regex: None,
            result: DecodeResult::default(),
        }
    }

    fn finish(self, decoded: &mut Decoded<'e>) -> DecodeResult {
        decoded.log = self.log;
        self.result
    }

    fn note(&mut self, decoder: u16, what: DecoderTest, matched: bool) {
        if let Some(trace) = self.trace.as_deref_mut() {
            trace.push(DecoderStep { decoder: DecoderId(decoder), what, matched });
        }
    }

    fn become_decoder(&mut self, decoded: &mut Decoded<'e>, number: u16, work: Work) {
        decoded.decoder = Some(DecoderId(number));
        decoded.category = work.category;
        self.note(number, DecoderTest::Selected, true);
    }

    fn select(&mut self, decoded: &mut Decoded<'e>) {
        let chosen = match decoded.program_name.as_deref() {
            _ if self.trace.is_some() => self.choose_among_all(decoded.program_name.as_deref()),
            None => self.choose_without_program(),
            Some(program) => self.choose_by_program(program),
        };
        if let Some(top) = chosen {
            self.run_top(decoded, top);
        }
    }

    /// The contract's words, without any shortcut: this is what a trace shows and what the others are held to.
    fn choose_among_all(&mut self, program: Option<&[u8]>) -> Option<&'s Top> {
        let decoders = self.decoders;
        let Some(program) = program else {
            return decoders.without_program.iter().find(|top| self.top_fits(top));
        };
        decoders.with_program.iter().find(|top| {
            let expression = &decoders.entry(top.decoder).program;
            let fits = expression.as_ref().is_none_or(|expression| expression.is_match(program));
            self.note(top.decoder, DecoderTest::ProgramName, fits);
            fits && self.top_fits(top)
        })
    }

    fn choose_by_program(&mut self, program: &[u8]) -> Option<&'s Top> {
        let decoders = self.decoders;
        let Scratch { programs, places, spare, found, .. } = &mut *self.scratch;
        programs.candidates(decoders, program, places);
        decoders.named.begin(Text::measured(&self.log, self.seen), places);
        if decoders.named.is_search(places) {
            found.read(&decoders.lexicon, &self.log);
            decoders.named.find(found, spare, places);
        }
        self.first_that_fits(&decoders.with_program, 0..usize::MAX)
    }

    fn choose_without_program(&mut self) -> Option<&'s Top> {
        let decoders = self.decoders;
        let log = Text::measured(&self.log, self.seen);
        decoders.prefilter.all(&mut self.scratch.places);
        decoders.prefilter.begin(log, &mut self.scratch.places);
        // The first decoders of the list take most events that are JSON: a look at their first bytes spares the pass.
        let begun = decoders.prefilter.is_begun(&self.scratch.places, decoders.quick);
        let quick = if begun { decoders.quick } else { 0 };
        let top = self.first_that_fits(&decoders.without_program, 0..quick);
        if top.is_some() {
            return top;
        }
        let Scratch { places, spare, found, .. } = &mut *self.scratch;
        found.read(&decoders.lexicon, &self.log);
        decoders.prefilter.find(found, spare, places);
        self.first_that_fits(&decoders.without_program, quick..usize::MAX)
    }

    /// Of the candidates in some part of a list.
    fn first_that_fits(&mut self, list: &'s [Top], part: Range<usize>) -> Option<&'s Top> {
        let mut from = part.start;
        while let Some(place) = self.scratch.places.next(from).filter(|place| *place < part.end) {
            let top = list.get(place)?;
            if self.top_fits(top) {
                return Some(top);
            }
            from = place + 1;
        }
        None
    }

    /// The parent's prematch; sets the place behind it.
    fn top_fits(&mut self, top: &Top) -> bool {
        let Some(prematch) = self.decoders.prematch(top.work) else {
            self.after_parent = 0;
            return true;
        };
        let place = self.place(prematch, 0);
        self.note(top.decoder, DecoderTest::Prematch, place.is_some());
        self.after_parent = place.unwrap_or(0);
        place.is_some()
    }

    /// Where the search for a prematch from some place on ends.
    fn place(&self, prematch: &Prematch, from: usize) -> Option<usize> {
        let subject = Text::measured(&self.log, self.seen).from(from);
        let known = known(&self.scratch.found, self.trace.is_some(), &prematch.literals, from);
        let place = prematch.expression.place_knowing(subject, known);
        place.map(|place| (from + place).min(self.log.len()))
    }

    fn run_top(&mut self, decoded: &mut Decoded<'e>, top: &'s Top) {
        self.become_decoder(decoded, top.decoder, top.work);
        if top.read && self.trace.is_none() {
            self.scratch.found.read(&self.decoders.lexicon, &self.log);
        }
        if top.children.is_empty() {
            // A decoder that stands alone has no prematch of a child: the place behind its own is "after parent".
            let _ = self.act(decoded, (top.decoder, top.work), &Needed::Unknown);
            return;
        }
        if let Some(first) = self.active_child(decoded, top) {
            let children = top.children.get(first..).unwrap_or_default();
            self.fetch(children);
            for child in children {
                let decoder = (child.decoder, child.work);
                if self.act(decoded, decoder, &child.regex).is_break() || !child.go_on {
                    break;
                }
            }
        }
    }

    /// Has the expressions fetched that one child after the other may ask.
    fn fetch(&self, children: &'s [Child]) {
        for child in children.iter().take(children.iter().take_while(|child| child.go_on).count() + 1) {
            if self.may_match(&child.regex)
                && let Some(regex) = self.decoders.regex(child.work)
            {
                ahead::fetch(regex);
            }
        }
    }

    /// The first child whose prematch fits, or that has none.
    fn active_child(&mut self, decoded: &mut Decoded<'e>, top: &'s Top) -> Option<usize> {
        let children: &'s [Child] = &top.children;
        let mut at = 0;
        while let Some(child) = children.get(at) {
            if !self.may_match(&child.prematch) {
                at = next_group(children, at);
                continue;
            }
            let Some(prematch) = self.decoders.prematch(child.work) else {
                self.after_prematch = Some(self.after_parent);
                return Some(at);
            };
            if self.child_fits(child.decoder, prematch) {
                self.become_decoder(decoded, child.decoder, child.work);
                return Some(at);
            }
            at = next_group(children, at);
        }
        None
    }

    /// Whether the literals that an expression needs allow it to match. A trace shows all that is asked.
    fn may_match(&self, needed: &Needed) -> bool {
        self.trace.is_some() || !self.scratch.found.is_read() || self.scratch.found.satisfies(needed)
    }

    fn child_fits(&mut self, number: u16, prematch: &Prematch) -> bool {
        let from = if prematch.offset == Offset::AfterParent { self.after_parent } else { 0 };
        let place = self.place(prematch, from);
        self.note(number, DecoderTest::Prematch, place.is_some());
        if place.is_some() {
            self.after_prematch = place;
        }
        place.is_some()
    }

    /// Runs a decoder's regex or plugin; breaks off when a regex matched and the event has no room for fields.
    fn act(
        &mut self,
        decoded: &mut Decoded<'e>,
        (number, work): (u16, Work),
        needed: &Needed,
    ) -> ControlFlow<()> {
        if !self.may_match(needed) {
            return ControlFlow::Continue(());
        }
        let decoders = self.decoders;
        match work.action {
            Action::None => {}
            Action::Plugin { plugin, .. } => {
                let matched = self.plug_in(decoded, plugin);
                self.note(number, DecoderTest::Plugin, matched);
            }
            Action::Regex(_) => {
                let Some(regex) = decoders.regex(work) else { return ControlFlow::Continue(()) };
                let after_prematch = self.after_prematch.unwrap_or(self.after_parent);
                let from = match regex.offset {
                    Offset::Start => 0,
                    Offset::AfterParent => self.after_parent,
                    Offset::AfterPrematch => after_prematch,
                    Offset::AfterRegex => self.after_regex.unwrap_or(after_prematch),
                };
                let subject = Text::measured(&self.log, self.seen).from(from);
                let Scratch { captures, found, .. } = &mut *self.scratch;
                let known = known(found, self.trace.is_some(), &regex.literals, from);
                let place = regex.expression.find_knowing(subject, captures, known);
                self.note(number, DecoderTest::Regex, place.is_some());
                if let Some(place) = place {
                    if decoded.dynamic().len() >= self.decoders.order_size {
                        return ControlFlow::Break(());
                    }
                    self.after_regex = Some((from + place).min(self.log.len()));
                    self.assign(decoded, number, decoders.order(regex), from);
                }
            }
        }
        ControlFlow::Continue(())
    }

    fn assign(&mut self, decoded: &mut Decoded<'e>, number: u16, order: &'s [Field], from: usize) {
        for (group, (range, field)) in self.scratch.captures.iter().zip(order).enumerate() {
            let value = slice(&self.log, from + range.start, from + range.end);
            match field {
                Field::Static(field) => {
                    decoded.set(*field, &value);
                    let origin = Some(Origin {
                        decoder: number,
                        group,
                        start: from + range.start,
                        end: from + range.end,
                        after: self.after_regex.unwrap_or(0),
                    });
                    match field {
                        StaticField::SrcIp => self.result.origins.srcip = origin,
                        StaticField::DstUser => self.result.origins.dstuser = origin,
                        _ => {}
                    }
                }
                Field::Dynamic(name, known) => {
                    let most = self.decoders.order_size;
                    decoded.push_known(name.bytes(), *known, &value, most);
                }
            }
        }
    }

    fn plug_in(&mut self, decoded: &mut Decoded<'e>, plugin: Plugin) -> bool {
        match plugin {
            Plugin::Json => {
                let Some((subject, options)) = self.json_subject(decoded) else { return false };
                plugin::json::decode(decoded, &subject, options, self.decoders, &mut self.scratch.json)
            }
            Plugin::Pf => plugin::pf::decode(decoded, &self.log),
            Plugin::SymantecWs => plugin::symantec::decode(decoded, &self.log),
            Plugin::SonicWall => plugin::sonicwall::decode(decoded, &self.log),
            Plugin::OssecAlert => {
                let rules = &self.decoders.rules;
                let Some(rule) = plugin::ossec_alert::decode(decoded, &mut self.log, rules) else {
                    return false;
                };
                self.scratch.found.clear();
                self.seen = Text::new(&self.log).bytes().len();
                self.result.forced_rule = Some(rule);
                // The log is another text now, and the fields are what the other manager said.
                self.result.origins = Origins::default();
                true
            }
        }
    }

    /// What the JSON plugin parses, and how: both are a matter of the event's decoder, not of the active child.
    fn json_subject(&self, decoded: &Decoded<'e>) -> Option<(Value<'e>, JsonOptions)> {
        let chosen: &Decoder = self.decoders.entry(decoded.decoder?.0);
        let is_child = chosen.is_child;
        let from = match chosen.work.action {
            Action::Plugin { offset: Offset::AfterParent, .. } if is_child => self.after_parent,
            Action::Plugin { offset: Offset::AfterPrematch, .. } if is_child => self.after_prematch?,
            Action::Plugin { offset: Offset::AfterPrematch, .. } => self.after_parent,
            Action::Plugin { offset: Offset::AfterParent | Offset::AfterRegex, .. } => return None,
            _ => 0,
        };
        Some((slice(&self.log, from, self.log.len()), chosen.json))
    }
}

/// The place behind a child and those that go on from it.
fn next_group(children: &[Child], mut at: usize) -> usize {
    while children.get(at).is_some_and(|child| child.go_on) {
        at += 1;
    }
    at + 1
}

/// What is known of the places of an expression's literals. A trace is made as if nothing were.
fn known(found: &Found, traced: bool, literals: &Literals, from: usize) -> impl Fn(usize) -> Known {
    let known = found.is_read() && !traced;
    move |number| if known { found.known(literals.of(number), from) } else { Known::Nothing }
}

/// A part of the log that lives as long as the log does: borrowed where the log is.
pub(super) fn slice<'e>(log: &Value<'e>, start: usize, end: usize) -> Value<'e> {
    match log {
        Cow::Borrowed(log) => Cow::Borrowed(log.get(start..end).unwrap_or_default()),
        Cow::Owned(log) => Cow::Owned(log.get(start..end).unwrap_or_default().to_vec()),
    }
}
