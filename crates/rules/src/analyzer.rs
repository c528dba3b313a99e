//! The one door of this room: events in, verdicts out. All analyzers and preparers share a [`Ruleset`].
//!
//! [`Analyzer::analyze`] does three steps at once that may also be taken apart: [`Preparer::prepare`] decodes and asks
//! whatever needs no memory, [`Analyzer::judge`] compares with earlier events, [`Preparer::finish`] makes the alert. The
//! middle one is short and wants the events in order; the others may run on any thread for any event. The verdict is
//! written in one place from the first step on: it is some hundred bytes, and moving it costs as much as a search.
//! Invariant: the same ruleset and the same events with the same times give the same verdicts. Nothing is read or
//! written here: what must survive the process is handed out as [`Effect`]s and taken back by the `restore_*` calls.

use std::sync::Arc;

use tld_model::{Alert, Event, Frame, RuleId, Timestamp, Zone};
use tld_pattern::budget;

use crate::alert::{PlainForm, previous_output};
use crate::decoder::{Accumulator, DecoderStep};
use crate::engine::{self, Engine, Pass, RuleStep, State, Suppressed, WindowMode, Won};
use crate::rule::Index;
use crate::rule::condition::Moment;
use crate::ruleset::Ruleset;
use crate::{Decoded, Texts};
mod finish;
mod held;
mod own;
mod prepare;
#[cfg(test)]
mod tests;

use finish::Finding;
use held::Held;
pub use own::OwnRule;
use prepare::Course;
pub use prepare::{Prepared, Preparer};

/// Where the small differences between the service and the test tool matter (analysis-output 6.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// The service.
    #[default]
    Daemon,
    /// The test tool: fresh memory, no firewall drop, other `ignore` windows.
    Logtest,
}

/// What an analyzer knows about its host.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Service or test tool.
    pub mode: Mode,
    /// Full host name, `manager.name` in alerts.
    pub manager_name: String,
    /// Host name of local events without one of their own.
    pub short_host: String,
    /// Local time.
    pub zone: Zone,
    /// Name and node, when alerts show them.
    pub cluster: Option<(String, String)>,
    /// Render the record of alerts.log too.
    pub with_plain: bool,
    /// The operator's form of that record.
    pub plain_form: Option<Arc<PlainForm>>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            mode: Mode::default(),
            manager_name: "localhost".into(),
            short_host: "localhost".into(),
            zone: Zone::utc(),
            cluster: None,
            with_plain: true,
            plain_form: None,
        }
    }
}

/// State that the caller keeps on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// A first-time key: one more line of `queue/fts/fts-queue`.
    Fts(Vec<u8>),
    /// The new text of `queue/diff/<host>/<rule>/last-entry`. The host is the sender's word: not a safe file name.
    Diff {
        /// Host of the event.
        host: Vec<u8>,
        /// The rule.
        rule: RuleId,
        /// The text.
        text: Vec<u8>,
    },
    /// One more line of `queue/fts/ig-queue`.
    Ignore(Vec<u8>),
}

/// The rule that an event is reported under.
#[derive(Debug, Clone, Copy)]
pub struct Winner {
    /// Number.
    pub id: RuleId,
    /// 0–16.
    pub level: u8,
    /// How often it won since the last full hour.
    pub fired: u32,
    index: Index,
}

/// What was made of one event.
#[derive(Debug)]
pub struct Verdict<'e> {
    /// The event with its fields.
    pub decoded: Decoded<'e>,
    /// The rule, also of level 0.
    pub rule: Option<Winner>,
    /// The alert; none for level 0 and inside an `ignore` window.
    pub alert: Option<Alert>,
    /// Logtest's `alert`: the level reaches `log_alert_level` and the event counts for later ones.
    pub alert_flag: bool,
    /// Logs of the events that a composite rule counted.
    pub last_events: Texts,
    /// Text that `check_diff` compared with.
    pub previous_log: Option<Vec<u8>>,
    /// What is to be written down.
    pub effects: Vec<Effect>,
    /// Searches of PCRE2 expressions that would have cost too much and were ended: what they look for was taken as absent.
    pub ended_searches: u32,
    ruleset: Held,
    course: Course,
}

impl Verdict<'_> {
    /// Name of the event's decoder.
    pub fn decoder(&self) -> Option<&str> {
        self.decoded.decoder.map(|id| self.ruleset.decoders.info(id).name.as_str())
    }

    /// `previous_output` of the alert.
    pub fn previous_output(&self) -> Option<Vec<u8>> {
        previous_output(&self.last_events)
    }
}

/// How a verdict came about.
#[derive(Debug, Default)]
pub struct Trace {
    /// Decoders in the order in which they were tried.
    pub decoders: Vec<DecoderStep>,
    /// Rules in the order in which they were tried.
    pub rules: Vec<RuleStep>,
    /// The rule that won but is inside its `ignore` window.
    pub ignored: Option<RuleId>,
    /// A firewall event that lacks a field no rule saw.
    pub dropped: bool,
}

/// Judges events one after the other and remembers what rules need.
#[derive(Debug)]
pub struct Analyzer {
    ruleset: Held,
    preparer: Preparer,
    accumulator: Accumulator,
    state: State,
    /// State time: never runs back by less than [`SET_BACK`].
    clock: i64,
    hour: Hour,
}

/// Events may arrive out of order by so many seconds; a longer step back means that the clock was set.
const SET_BACK: i64 = 60;

impl Analyzer {
    /// An analyzer that remembers nothing yet.
    pub fn new(ruleset: Arc<Ruleset>, settings: Settings) -> Self {
        Self::with_engine(Engine::default(), ruleset, settings)
    }

    /// The same with one of the two engines.
    pub fn with_engine(engine: Engine, ruleset: Arc<Ruleset>, settings: Settings) -> Self {
        Self {
            state: State::new(engine, &ruleset),
            preparer: Preparer::new(Arc::clone(&ruleset), settings),
            accumulator: Accumulator::default(),
            clock: i64::MIN,
            hour: Hour::default(),
            ruleset: Held::new(ruleset),
        }
    }

    /// One more preparer for another thread.
    pub fn preparer(&self) -> Preparer {
        Preparer::new(Arc::clone(self.ruleset.shared()), self.preparer.settings.clone())
    }

    /// Whether a preparer prepares by the rules in force. Events of another one are prepared twice.
    pub fn owns(&self, preparer: &Preparer) -> bool {
        self.ruleset.is(&preparer.ruleset)
    }

    /// Analyses one event.
    pub fn analyze<'e>(&mut self, event: &'e Event) -> Verdict<'e> {
        let mut verdict = self.preparer.blank(event);
        self.preparer.begin(&mut verdict);
        self.compare(&mut verdict, None);
        self.preparer.conclude(&mut verdict);
        verdict
    }

    /// Analyses one event and tells every step.
    pub fn analyze_traced<'e>(&mut self, event: &'e Event) -> (Verdict<'e>, Trace) {
        let mut trace = Trace::default();
        let mut verdict = self.preparer.blank(event);
        self.preparer.begin_traced(&mut verdict, &mut trace.decoders);
        self.compare(&mut verdict, Some(&mut trace));
        self.preparer.conclude(&mut verdict);
        (verdict, trace)
    }

    /// Compares a prepared event with earlier ones and remembers it. The order of the calls is the order of the events.
    /// An event that was prepared under other rules is prepared anew.
    pub fn judge(&mut self, prepared: &mut Prepared<'_>) {
        self.compare(&mut prepared.0, None);
    }

    /// Takes back the memory of an event that is done, so that the next one needs none. Optional.
    pub fn recycle(&mut self, verdict: Verdict<'_>) {
        self.preparer.recycle(verdict);
    }

    /// Goes on with other rules. Remembered events, windows and counters survive where a rule's text is the same.
    pub fn swap(&mut self, ruleset: Arc<Ruleset>) {
        let empty = State::new(Engine::default(), &ruleset);
        self.state = std::mem::replace(&mut self.state, empty).carried(&self.ruleset, &ruleset);
        self.preparer = Preparer::new(Arc::clone(&ruleset), self.preparer.settings.clone());
        self.ruleset = Held::new(ruleset);
    }

    /// The rules in force.
    pub fn ruleset(&self) -> &Arc<Ruleset> {
        self.ruleset.shared()
    }

    /// Takes in first-time keys that an earlier process wrote down.
    pub fn restore_fts<'l>(&mut self, lines: impl IntoIterator<Item = &'l [u8]>) {
        for line in lines {
            self.state.seen.restore(line, self.ruleset.options.fts_most_keys);
        }
    }

    /// Takes in a text that `check_diff` wrote down.
    pub fn restore_diff(&mut self, host: &[u8], rule: RuleId, text: &[u8]) {
        self.state.diffs.store(host, rule, text);
    }

    /// Rules that stayed silent, and why.
    pub fn suppressed(&self) -> impl Iterator<Item = (RuleId, Suppressed)> {
        let rules = self.ruleset.rules().zip(&self.state.suppressed);
        rules.filter(|(_, counts)| **counts != Suppressed::default()).map(|(rule, counts)| (rule.id, *counts))
    }

    /// Remembered events, their bytes, and how many left too early for want of room.
    pub fn memory(&self) -> (usize, usize, u64) {
        self.state.memory.size()
    }

    /// The object of archives.json, or what logtest shows (with level 0, and without `full_log` where the rule
    /// says so).
    pub fn event_json(&self, verdict: &Verdict<'_>) -> Frame {
        self.preparer.event_json(verdict)
    }

    fn compare(&mut self, verdict: &mut Verdict<'_>, trace: Option<&mut Trace>) {
        if !self.ruleset.is(&verdict.ruleset) {
            *verdict = self.preparer.blank(verdict.decoded.event);
            self.preparer.begin(verdict);
        }
        budget::begin();
        let ruleset: &Ruleset = &self.ruleset;
        let event = verdict.decoded.event;
        let now = advance(&mut self.clock, &mut self.hour, &mut self.state, &self.preparer.settings, event);
        if verdict.decoded.decoder.is_some_and(|id| ruleset.decoders.accumulates(id)) {
            self.accumulator.apply(&ruleset.decoders, &mut verdict.decoded, Timestamp::from_secs(now));
            verdict.course.dropped = self.preparer.drops(&verdict.decoded);
            if trace.is_none() {
                self.preparer.decide_later(verdict);
            }
        }
        let walk_all = trace.is_some() || self.state.memory.engine() == Engine::Reference;
        self.state.memory.begin();
        let course = &mut verdict.course;
        let decoded = &verdict.decoded;
        let mut pass = Pass {
            ruleset,
            state: &mut self.state,
            now,
            moment: Moment::after(event.received, &self.preparer.settings.zone, course.second),
            event: decoded,
            mark: 0,
            last_events: Texts::default(),
            previous_log: None,
            effects: Vec::new(),
            trace: trace.is_some().then(Vec::new),
        };
        let won = match course.forced_rule {
            Some(rule) => {
                pass.state.fired[rule] = pass.state.fired[rule].saturating_add(1);
                Some(Won { rule, parent: None })
            }
            None if course.dropped => None,
            None if walk_all => pass.winner(),
            None => pass.winner_in(&course.outline),
        };
        course.finding = won.map(|won| conclude(&mut pass, won, self.preparer.settings.mode));
        if let Some(trace) = trace {
            trace.rules = pass.trace.take().unwrap_or_default();
            trace.dropped = course.dropped;
            trace.ignored = won
                .filter(|_| course.finding.as_ref().is_some_and(|finding| finding.ignored))
                .map(|won| ruleset.rules.all[won.rule].info.id);
        }
        let Pass { last_events, previous_log, effects, .. } = pass;
        verdict.last_events = last_events;
        verdict.previous_log = previous_log;
        verdict.effects = effects;
        verdict.ended_searches = verdict.ended_searches.saturating_add(budget::ended());
    }
}

/// Moves state time on; at a full hour of local time all counters start again.
fn advance(clock: &mut i64, hour: &mut Hour, state: &mut State, settings: &Settings, event: &Event) -> i64 {
    let now = event.received.secs();
    if now >= *clock {
        *clock = now;
    } else if *clock - now > SET_BACK {
        state.memory.shift(*clock - now);
        *clock = now;
        state.windows.clear();
    }
    if settings.mode == Mode::Daemon && hour.passed(*clock, &settings.zone) {
        state.fired.fill(0);
    }
    *clock
}

/// Notices full hours of local time without asking the zone for every event.
#[derive(Debug, Default)]
struct Hour {
    quarter: Option<i64>,
    hour: u8,
}

impl Hour {
    fn passed(&mut self, now: i64, zone: &Zone) -> bool {
        // Offsets of zones are whole quarters of an hour.
        let quarter = now.div_euclid(900);
        if self.quarter == Some(quarter) {
            return false;
        }
        let hour = zone.local(Timestamp::from_secs(now)).hour;
        let passed = self.quarter.is_some() && self.hour != hour;
        *self = Self { quarter: Some(quarter), hour };
        passed
    }
}

/// Everything between winning and being remembered, in the contract's order (analysis-rules 3).
fn conclude(pass: &mut Pass<'_, '_>, won: Won, mode: Mode) -> Finding {
    let ruleset = pass.ruleset;
    let mut index = won.rule;
    let mut silent = ruleset.rules.all[index].info.level == 0;
    let mut ignored = false;
    if silent {
        pass.state.suppressed[index].level0 += 1;
    } else if inside_window(pass, index, mode) {
        ignored = true;
        pass.state.suppressed[index].ignored += 1;
        match (mode, won.parent) {
            (Mode::Daemon, Some(parent)) => {
                index = parent;
                pass.last_events.clear();
            }
            _ => silent = true,
        }
    }
    let rule = &ruleset.rules.all[index];
    if !silent {
        rule.constant.fetch();
    }
    // `check_if_ignored` compares with lines that end in a newline and so never hits (analysis-rules 5): nothing to do.
    if let Some(ignore) = rule.ignore_line.as_ref().filter(|_| !silent) {
        let line = engine::ignore_line(&ignore.names, pass.decoder(), pass.event);
        pass.effects.push(Effect::Ignore(line));
    }
    let fired = pass.state.fired[index];
    if !silent {
        pass.remember(index);
    }
    Finding { rule: index, fired, silent, ignored }
}

fn inside_window(pass: &mut Pass<'_, '_>, index: Index, mode: Mode) -> bool {
    let rule = &pass.ruleset.rules.all[index];
    let Some(length) = rule.info.ignore else { return false };
    let key = engine::window_key(&rule.ignore_by, pass.event);
    let mode = match mode {
        Mode::Daemon => WindowMode::Reopens,
        Mode::Logtest => WindowMode::Rests,
    };
    let window = pass.state.windows.entry(index).or_default();
    window.covers(key, pass.now, i64::from(length), mode)
}
