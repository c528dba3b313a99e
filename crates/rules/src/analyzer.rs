//! The one door of this room: events in, verdicts out. One analyzer per thread; all share a [`Ruleset`].
//!
//! Invariant: the same ruleset and the same events with the same times give the same verdicts. Nothing is read or
//! written here: what must survive the process is handed out as [`Effect`]s and taken back by the `restore_*` calls.

use std::sync::Arc;

use tld_model::{Alert, AlertRule, Event, Frame, LocalTime, RuleId, Timestamp, Zone};

use crate::alert::{self, Chosen, Picture, Shape, previous_output};
use crate::decoder::{Accumulator, DecoderStep, Origins, Scratch};
use crate::engine::{self, Engine, Pass, Plans, RuleStep, State, Suppressed, WindowMode, Won};
use crate::predecode::{HostNames, predecode};
use crate::rule::Index;
use crate::rule::condition::Moment;
use crate::ruleset::Ruleset;
use crate::{Category, Decoded, StaticField};

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
#[derive(Debug, Clone)]
pub struct Winner {
    /// Number.
    pub id: RuleId,
    /// 0–16.
    pub level: u8,
    /// Expanded; shared with the rule where nothing had to be.
    pub description: Arc<[u8]>,
    /// Raw group string.
    pub groups: Arc<str>,
    /// How often it won since the last full hour.
    pub fired: u32,
    /// File of the rule.
    pub file: Arc<str>,
    /// Line of the rule.
    pub line: u32,
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
    pub last_events: Vec<Vec<u8>>,
    /// Text that `check_diff` compared with.
    pub previous_log: Option<Vec<u8>>,
    /// What is to be written down.
    pub effects: Vec<Effect>,
    ruleset: Arc<Ruleset>,
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
    ruleset: Arc<Ruleset>,
    settings: Settings,
    hosts: Arc<HostNames>,
    scratch: Scratch,
    accumulator: Accumulator,
    state: State,
    plans: Plans,
    /// State time: never runs back by less than [`SET_BACK`].
    clock: i64,
    hour: Hour,
    /// Local time of the last second that was asked for.
    second: Option<(i64, LocalTime)>,
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
            hosts: Arc::new(HostNames {
                full: settings.manager_name.clone(),
                short: settings.short_host.clone(),
            }),
            state: State::new(engine, &ruleset),
            plans: Plans::default(),
            scratch: Scratch::new(),
            accumulator: Accumulator::default(),
            clock: i64::MIN,
            hour: Hour::default(),
            second: None,
            ruleset,
            settings,
        }
    }

    /// Judges one event.
    pub fn analyze<'e>(&mut self, event: &'e Event) -> Verdict<'e> {
        self.judge(event, None)
    }

    /// Judges one event and tells every step.
    pub fn analyze_traced<'e>(&mut self, event: &'e Event) -> (Verdict<'e>, Trace) {
        let mut trace = Trace::default();
        let verdict = self.judge(event, Some(&mut trace));
        (verdict, trace)
    }

    /// Goes on with other rules. Remembered events, windows and counters survive where a rule's text is the same.
    pub fn swap(&mut self, ruleset: Arc<Ruleset>) {
        let empty = State::new(Engine::default(), &ruleset);
        self.state = std::mem::replace(&mut self.state, empty).carried(&self.ruleset, &ruleset);
        self.plans = Plans::default();
        self.ruleset = ruleset;
    }

    /// The rules in force.
    pub fn ruleset(&self) -> &Arc<Ruleset> {
        &self.ruleset
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
        let shape = match self.settings.mode {
            Mode::Daemon => Shape::Archive,
            Mode::Logtest => Shape::Logtest,
        };
        let chosen = verdict.rule.as_ref().map(|winner| Chosen {
            rule: &verdict.ruleset.rules.all[winner.index],
            description: &winner.description,
            fired: winner.fired,
        });
        let decoder = verdict.decoded.decoder.map(|id| verdict.ruleset.decoders.info(id));
        let picture = Picture {
            settings: &self.settings,
            event: &verdict.decoded,
            decoder,
            rule: chosen,
            last_events: &verdict.last_events,
            previous_log: verdict.previous_log.as_deref(),
            local: self.settings.zone.local(verdict.decoded.event.received),
        };
        picture.json(shape, &mut Vec::with_capacity(2048))
    }

    fn judge<'e>(&mut self, event: &'e Event, mut trace: Option<&mut Trace>) -> Verdict<'e> {
        let ruleset = Arc::clone(&self.ruleset);
        let now = self.advance(event);
        let hosts = Arc::clone(&self.hosts);
        let mut decoded = predecode(event, &hosts);
        let steps = trace.as_mut().map(|trace| &mut trace.decoders);
        let result = ruleset.decoders.decode(&mut decoded, &mut self.scratch, steps);
        self.accumulator.apply(&ruleset.decoders, &mut decoded, Timestamp::from_secs(now));
        let decoder = decoded.decoder.map(|id| ruleset.decoders.info(id));
        let origins = result.origins;
        let reference = self.state.memory.engine() == Engine::Reference;
        let mut pass = Pass {
            ruleset: &ruleset,
            state: &mut self.state,
            decoder,
            now,
            moment: Moment::after(event.received, &self.settings.zone, self.second),
            host: decoded.hostname.as_deref().unwrap_or_default(),
            event: &decoded,
            mark: 0,
            last_events: Vec::new(),
            previous_log: None,
            effects: Vec::new(),
            trace: trace.is_some().then(Vec::new),
        };
        let dropped = self.settings.mode == Mode::Daemon && ruleset.options.log_fw && incomplete(&decoded);
        let won = match result.forced_rule.and_then(|id| ruleset.index(id)) {
            Some(rule) => {
                pass.state.fired[rule] = pass.state.fired[rule].saturating_add(1);
                Some(Won { rule, parent: None })
            }
            None if dropped => None,
            None if pass.trace.is_some() || reference => pass.winner(),
            None => pass.winner_in(self.plans.view(&ruleset, &decoded, decoder)),
        };
        let conclusion = won.map(|won| conclude(&mut pass, won, &self.settings, &origins));
        if let Some(trace) = trace {
            trace.rules = pass.trace.take().unwrap_or_default();
            trace.dropped = dropped;
            trace.ignored = won
                .filter(|_| conclusion.as_ref().is_some_and(|conclusion| conclusion.ignored))
                .map(|won| ruleset.rules.all[won.rule].info.id);
        }
        self.second = pass.moment.known().or(self.second);
        let Pass { last_events, previous_log, effects, .. } = pass;
        let (rule, alert) = conclusion.map_or((None, None), |c| (Some(c.winner), c.alert));
        let level = ruleset.options.log_alert_level;
        Verdict {
            alert_flag: alert.as_ref().is_some_and(|alert| alert.rule.level >= level),
            decoded: decoded.detached(event),
            rule,
            alert,
            last_events,
            previous_log,
            effects,
            ruleset,
        }
    }

    /// Moves state time on; at a full hour of local time all counters start again.
    fn advance(&mut self, event: &Event) -> i64 {
        let now = event.received.secs();
        if now >= self.clock {
            self.clock = now;
        } else if self.clock - now > SET_BACK {
            self.state.memory.shift(self.clock - now);
            self.clock = now;
            self.state.windows.clear();
        }
        if self.settings.mode == Mode::Daemon && self.hour.passed(self.clock, &self.settings.zone) {
            self.state.fired.fill(0);
        }
        self.clock
    }
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

struct Conclusion {
    winner: Winner,
    alert: Option<Alert>,
    ignored: bool,
}

/// Everything between winning and being remembered, in the contract's order (analysis-rules 3).
fn conclude(pass: &mut Pass<'_, '_>, won: Won, settings: &Settings, origins: &Origins) -> Conclusion {
    let ruleset = pass.ruleset;
    let mut index = won.rule;
    let mut silent = ruleset.rules.all[index].info.level == 0;
    let mut ignored = false;
    if silent {
        pass.state.suppressed[index].level0 += 1;
    } else if inside_window(pass, index, settings.mode) {
        ignored = true;
        pass.state.suppressed[index].ignored += 1;
        match (settings.mode, won.parent) {
            (Mode::Daemon, Some(parent)) => {
                index = parent;
                pass.last_events.clear();
            }
            _ => silent = true,
        }
    }
    let rule = &ruleset.rules.all[index];
    // `check_if_ignored` compares with lines that end in a newline and so never hits (analysis-rules 5): nothing to do.
    if let Some(ignore) = rule.ignore_line.as_ref().filter(|_| !silent) {
        let line = engine::ignore_line(&ignore.names, pass.decoder, pass.event);
        pass.effects.push(Effect::Ignore(line));
    }
    let winner = Winner {
        id: rule.info.id,
        level: rule.info.level,
        description: match &rule.constant.description {
            Some(description) => Arc::clone(description),
            None => alert::expand(&rule.info.description, pass.event).into(),
        },
        groups: Arc::clone(&rule.info.groups),
        fired: pass.state.fired[index],
        file: Arc::clone(&rule.info.file),
        line: rule.info.line,
        index,
    };
    if silent {
        return Conclusion { winner, alert: None, ignored };
    }
    let mut buffer = std::mem::take(&mut pass.state.buffer);
    let alert = alert_of(pass, &winner, settings, origins, &mut buffer);
    pass.state.buffer = buffer;
    pass.remember(index);
    Conclusion { winner, alert: Some(alert), ignored }
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

fn alert_of(
    pass: &Pass<'_, '_>,
    winner: &Winner,
    settings: &Settings,
    origins: &Origins,
    buffer: &mut Vec<u8>,
) -> Alert {
    let event = pass.event;
    let rule = &pass.ruleset.rules.all[winner.index];
    let picture = Picture {
        settings,
        event,
        decoder: pass.decoder,
        rule: Some(Chosen { rule, description: &winner.description, fired: winner.fired }),
        last_events: &pass.last_events,
        previous_log: pass.previous_log.as_deref(),
        local: *pass.moment.local(),
    };
    let target = |field| event.field(field).map(<[u8]>::to_vec);
    let (srcip, dstuser) = (target(StaticField::SrcIp), target(StaticField::DstUser));
    let contested = if rule.info.no_ar || (srcip.is_none() && dstuser.is_none()) {
        Vec::new()
    } else {
        let contested = pass.ruleset.decoders.contested_from(event, origins).into_iter();
        contested.flat_map(|(field, values)| values.into_iter().map(move |v| (field.name(), v))).collect()
    };
    Alert {
        at: event.event.received,
        rule: AlertRule {
            id: winner.id,
            level: winner.level,
            description: winner.description.to_vec(),
            groups: Arc::clone(&winner.groups),
        },
        agent: Arc::clone(&event.event.agent),
        json: picture.json(Shape::Alert, buffer),
        plain: if settings.with_plain { picture.plain(buffer) } else { Frame::default() },
        srcip,
        dstuser,
        logged: rule.info.log,
        mail: rule.info.mail,
        no_response: rule.info.no_ar,
        contested,
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

#[cfg(test)]
mod tests;
