//! The first step of analysis: everything that can be said of an event without knowing any other.
//!
//! A preparer keeps buffers and caches, none of which changes an answer: any number of preparers on any threads give
//! the same [`Prepared`] for the same event. Invariant: what is prepared holds on to the rules that it was prepared
//! under.

use std::sync::Arc;

use tld_model::{Event, LocalTime};
use tld_pattern::budget;

use super::finish::Finding;
use super::held::{Copies, Held};
use super::{Mode, Settings, Verdict};
use crate::ahead;
use crate::alert::Renderer;
use crate::decoder::{DecoderStep, Origins, Scratch};
use crate::engine::{Outline, Plans, Question};
use crate::fields::FieldMemory;
use crate::predecode::{HostNames, predecode_into};
use crate::rule::Index;
use crate::rule::condition::Moment;
use crate::ruleset::Ruleset;
use crate::{Category, Decoded, StaticField, Texts};

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

/// An event on its way to its verdict: with its fields and the rules that may match it, then judged, then finished, each in
/// this place.
#[derive(Debug)]
pub struct Prepared<'e>(pub(super) Verdict<'e>);

impl<'e> Prepared<'e> {
    /// What was made of the event until now; all of it once it is finished.
    pub fn verdict(&mut self) -> &mut Verdict<'e> {
        &mut self.0
    }

    /// The same, to be kept.
    pub fn into_verdict(self) -> Verdict<'e> {
        self.0
    }
}

/// What the steps of one event tell each other.
#[derive(Debug)]
pub(super) struct Course {
    pub(super) origins: Origins,
    /// The rule that a forwarded alert names.
    pub(super) forced_rule: Option<Index>,
    /// A firewall event that no rule sees.
    pub(super) dropped: bool,
    /// The rules that may match.
    pub(super) outline: Outline,
    pub(super) second: Option<(i64, LocalTime)>,
    /// What judging found.
    pub(super) finding: Option<Finding>,
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
        let mut prepared = Prepared(self.blank(event));
        self.begin(&mut prepared.0);
        prepared
    }

    /// The first step.
    pub(super) fn begin(&mut self, verdict: &mut Verdict<'_>) {
        self.decode(verdict, None);
        // What an earlier event said may still be filled in: nothing is decided before that.
        let accumulates = verdict.decoded.decoder.is_some_and(|id| self.ruleset.decoders.accumulates(id));
        if !accumulates {
            self.decide(verdict);
        }
        verdict.ended_searches = budget::ended();
    }

    /// The same, telling every step; the whole tree is walked later.
    pub(super) fn begin_traced(&mut self, verdict: &mut Verdict<'_>, steps: &mut Vec<DecoderStep>) {
        self.decode(verdict, Some(steps));
        verdict.ended_searches = budget::ended();
    }

    /// Takes back the memory of an event that is done, so that the next one needs none. Optional.
    pub fn recycle(&mut self, mut verdict: Verdict<'_>) {
        if let Some(alert) = &mut verdict.alert {
            self.renderer.recycle(std::mem::take(&mut alert.json));
            self.renderer.recycle(std::mem::take(&mut alert.plain));
        }
        if self.spare.len() < MOST_SPARE {
            let mut outline = std::mem::take(&mut verdict.course.outline);
            outline.clear();
            self.spare.push(Memory { fields: FieldMemory::of(&mut verdict.decoded), outline });
        }
    }

    /// What is to become the verdict of an event.
    pub(super) fn blank<'e>(&mut self, event: &'e Event) -> Verdict<'e> {
        let memory = self.spare.pop().unwrap_or_default();
        Verdict {
            decoded: Decoded::within(event, memory.fields),
            rule: None,
            alert: None,
            alert_flag: false,
            last_events: Texts::default(),
            previous_log: None,
            effects: Vec::new(),
            ended_searches: 0,
            ruleset: self.ruleset.clone(),
            course: Course {
                origins: Origins::default(),
                forced_rule: None,
                dropped: false,
                outline: memory.outline,
                second: None,
                finding: None,
            },
        }
    }

    fn decode(&mut self, verdict: &mut Verdict<'_>, steps: Option<&mut Vec<DecoderStep>>) {
        let Verdict { decoded, course, .. } = verdict;
        predecode_into(decoded, &self.hosts);
        let result = self.ruleset.decoders.decode(decoded, &mut self.scratch, steps);
        course.origins = result.origins;
        course.forced_rule = result.forced_rule.and_then(|id| self.ruleset.index(id));
        course.dropped = self.drops(decoded);
    }

    /// Whether an event is one of a firewall that no rule sees.
    pub(super) fn drops(&self, event: &Decoded<'_>) -> bool {
        self.settings.mode == Mode::Daemon && self.ruleset.options.log_fw && incomplete(event)
    }

    /// [`Preparer::decide`] for an event that is not the last one decoded here.
    pub(super) fn decide_later(&mut self, verdict: &mut Verdict<'_>) {
        self.scratch.found.clear();
        self.decide(verdict);
    }

    /// Works out which rules may match.
    fn decide(&mut self, verdict: &mut Verdict<'_>) {
        let Verdict { decoded: event, course, .. } = verdict;
        if course.forced_rule.is_some() || course.dropped {
            return;
        }
        if let Some(shown) = event.decoder.and_then(|id| self.ruleset.shown.get(usize::from(id.0))) {
            ahead::fetch_text(shown);
        }
        let moment = Moment::after(event.event.received, &self.settings.zone, self.second);
        let question = Question { ruleset: &self.ruleset, event, moment: &moment };
        self.plans.draw(&question, &mut self.scratch.found, &mut course.outline);
        course.second = moment.known();
        self.second = course.second.or(self.second);
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
