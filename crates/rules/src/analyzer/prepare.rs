//! The first step of analysis: everything that can be said of an event without knowing any other.
//!
//! A preparer keeps buffers and caches, none of which changes an answer: any number of preparers on any threads give
//! the same [`Prepared`] for the same event. Invariant: what is prepared holds on to the rules that it was prepared
//! under.

use std::sync::Arc;

use tld_model::{Event, LocalTime};
use tld_pattern::budget;

use super::held::{Copies, Held};
use super::{Mode, Settings, Verdict};
use crate::alert::Renderer;
use crate::decoder::{DecoderStep, Origins, Scratch};
use crate::engine::{Outline, Plans, Question};
use crate::fields::FieldMemory;
use crate::predecode::{HostNames, predecode_into};
use crate::rule::Index;
use crate::rule::condition::Moment;
use crate::ruleset::Ruleset;
use crate::{Category, Decoded, StaticField};

/// Prepares and finishes events; one per thread.
#[derive(Debug)]
pub struct Preparer {
    pub(super) ruleset: Held,
    pub(super) settings: Settings,
    hosts: HostNames,
    pub(super) scratch: Scratch,
    plans: Plans,
    /// Local time of the last second that was asked for.
    pub(super) second: Option<(i64, LocalTime)>,
    /// Renders alerts.
    pub(super) renderer: Renderer,
    /// Memory of events that are done.
    spare: Vec<Memory>,
    /// Texts of rules that alerted.
    pub(super) copies: Copies,
}

/// What preparing an event takes besides the event.
#[derive(Debug, Default)]
struct Memory {
    fields: FieldMemory,
    outline: Outline,
}

/// So many events' memory is kept.
const MOST_SPARE: usize = 256;

/// An event with its fields, and the rules that may match it.
#[derive(Debug)]
pub struct Prepared<'e> {
    pub(super) decoded: Decoded<'e>,
    pub(super) origins: Origins,
    /// The rule that a forwarded alert names.
    pub(super) forced_rule: Option<Index>,
    /// A firewall event that no rule sees.
    pub(super) dropped: bool,
    pub(super) outline: Outline,
    /// Searches that ended before their answer was certain.
    pub(super) ended: u32,
    pub(super) second: Option<(i64, LocalTime)>,
    pub(super) ruleset: Held,
}

impl Preparer {
    /// A preparer for these rules.
    pub fn new(ruleset: Arc<Ruleset>, settings: Settings) -> Self {
        let hosts = HostNames { full: settings.manager_name.clone(), short: settings.short_host.clone() };
        Self {
            hosts,
            scratch: Scratch::new(),
            plans: Plans::default(),
            second: None,
            renderer: Renderer::new(&settings),
            spare: Vec::new(),
            copies: Copies::default(),
            ruleset: Held::new(ruleset),
            settings,
        }
    }

    /// Decodes an event and decides whatever needs no memory.
    pub fn prepare<'e>(&mut self, event: &'e Event) -> Prepared<'e> {
        let mut prepared = self.decode(event, None);
        // What an earlier event said may still be filled in: nothing is decided before that.
        let accumulates =
            prepared.decoded.decoder.is_some_and(|id| self.ruleset.decoders.info(id).accumulate);
        if !accumulates {
            self.decide(&mut prepared);
        }
        prepared.ended = budget::ended();
        prepared
    }

    /// Decodes an event and tells every step; the whole tree is walked later.
    pub(super) fn prepare_traced<'e>(
        &mut self,
        event: &'e Event,
        steps: &mut Vec<DecoderStep>,
    ) -> Prepared<'e> {
        let mut prepared = self.decode(event, Some(steps));
        prepared.ended = budget::ended();
        prepared
    }

    /// Takes back the memory of an event that is done, so that the next one needs none. Optional.
    pub fn recycle(&mut self, verdict: Verdict<'_>) {
        let mut verdict = verdict;
        if let Some(alert) = &mut verdict.alert {
            self.renderer.recycle(std::mem::take(&mut alert.json));
            self.renderer.recycle(std::mem::take(&mut alert.plain));
        }
        if self.spare.len() < MOST_SPARE {
            let mut outline = std::mem::take(&mut verdict.outline);
            outline.clear();
            self.spare.push(Memory { fields: FieldMemory::of(&mut verdict.decoded), outline });
        }
    }

    fn decode<'e>(&mut self, event: &'e Event, steps: Option<&mut Vec<DecoderStep>>) -> Prepared<'e> {
        let ruleset = self.ruleset.clone();
        let memory = self.spare.pop().unwrap_or_default();
        let mut decoded = Decoded::within(event, memory.fields);
        predecode_into(&mut decoded, &self.hosts);
        let result = ruleset.decoders.decode(&mut decoded, &mut self.scratch, steps);
        let dropped = self.drops(&decoded);
        Prepared {
            decoded,
            origins: result.origins,
            forced_rule: result.forced_rule.and_then(|id| ruleset.index(id)),
            dropped,
            outline: memory.outline,
            ended: 0,
            second: None,
            ruleset,
        }
    }

    /// Whether an event is one of a firewall that no rule sees.
    pub(super) fn drops(&self, event: &Decoded<'_>) -> bool {
        self.settings.mode == Mode::Daemon && self.ruleset.options.log_fw && incomplete(event)
    }

    /// [`Preparer::decide`] for an event that is not the last one decoded here.
    pub(super) fn decide_later(&mut self, prepared: &mut Prepared<'_>) {
        self.scratch.found.clear();
        self.decide(prepared);
    }

    /// Works out which rules may match.
    fn decide(&mut self, prepared: &mut Prepared<'_>) {
        if prepared.forced_rule.is_some() || prepared.dropped {
            return;
        }
        let event = &prepared.decoded;
        let decoder = event.decoder.map(|id| self.ruleset.decoders.info(id));
        let moment = Moment::after(event.event.received, &self.settings.zone, self.second);
        let question = Question { rules: &self.ruleset.rules, event, decoder, moment: &moment };
        self.plans.draw(&self.ruleset, &question, &mut self.scratch.found, &mut prepared.outline);
        prepared.second = moment.known();
        self.second = prepared.second.or(self.second);
    }
}

/// A firewall event without one of the fields that the firewall log needs.
fn incomplete(event: &Decoded<'_>) -> bool {
    use StaticField as F;
    event.category == Category::Firewall
        && [F::Action, F::SrcIp, F::DstIp, F::SrcPort, F::DstPort, F::Protocol]
            .into_iter()
            .any(|field| event.field(field).is_none())
}
