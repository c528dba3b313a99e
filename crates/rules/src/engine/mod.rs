//! From a decoded event to the rule that wins it (analysis-rules 3 to 5), with everything that the rules remember.
//!
//! [`Pass`] walks the tree for one event and changes [`State`] as the contract does: in the order of the conditions,
//! which is why conditions with side effects come last. Invariant: time is the event's own, never a clock's.

mod chains;
mod draft;
mod first_time;
mod hints;
mod indexed;
mod outline;
mod pack;
mod plan;
mod record;
mod reference;
mod remembered;
mod store;
mod view;
mod wholes;
mod wide;
mod window;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use tld_model::RuleId;

use crate::analyzer::Effect;
use crate::decoder::{DecoderInfo, FtsField};
use crate::rule::condition::{Label, Moment, Test};
use crate::rule::correlation::Shared;
use crate::rule::{Index, Rule};
use crate::ruleset::Ruleset;
use crate::{Decoded, StaticField, Texts};
use first_time::{FirstTime, KEY_LIMIT, Limits};
pub(crate) use hints::Hints;
use indexed::Indexed;
use outline::Left;
pub(crate) use outline::{Outline, Question};
pub(crate) use plan::Plans;
use reference::{Found, Lists};
pub(crate) use window::{Window, WindowMode, key as window_key};

/// Longest text that `check_diff` compares.
const DIFF_LIMIT: usize = 65_536;
/// Texts that `check_diff` keeps; the oldest goes first.
const MOST_DIFFS: usize = 512;

/// How often a rule stayed silent, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Suppressed {
    /// Won inside its `ignore` window.
    pub ignored: u64,
    /// Matched, but `noalert` passed the event on and no child took it.
    pub noalert: u64,
    /// Won with level 0.
    pub level0: u64,
    /// Its search met an event that another alert had used up.
    pub marks: u64,
}

/// Which of two engines of one meaning searches earlier events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Engine {
    /// The one that serves.
    #[default]
    Indexed,
    /// Plain lists, walked as the specification says; for comparison.
    Reference,
}

/// Events that later ones may be compared with.
#[derive(Debug)]
pub(crate) enum Memory {
    Indexed(Box<Indexed>),
    Reference(Lists),
}

impl Memory {
    fn new(engine: Engine, ruleset: &Ruleset) -> Self {
        match engine {
            Engine::Indexed => {
                Self::Indexed(Box::new(Indexed::new(&ruleset.rules, ruleset.options.max_memory_bytes)))
            }
            Engine::Reference => Self::Reference(Lists::new(&ruleset.rules)),
        }
    }

    /// Begins with another event.
    pub(crate) fn begin(&mut self) {
        if let Self::Indexed(memory) = self {
            memory.begin();
        }
    }

    /// Which of the two it belongs to.
    pub(crate) fn engine(&self) -> Engine {
        match self {
            Self::Indexed(_) => Engine::Indexed,
            Self::Reference(_) => Engine::Reference,
        }
    }

    /// Whether a search of that rule may find anything.
    fn reaches(&self, rule: Index, now: i64) -> bool {
        match self {
            Self::Indexed(memory) => memory.reaches(rule, now),
            Self::Reference(_) => true,
        }
    }

    pub(crate) fn shift(&mut self, back: i64) {
        match self {
            Self::Indexed(memory) => memory.shift(back),
            Self::Reference(memory) => memory.shift(back),
        }
    }

    /// Events, bytes, and how many left too early for want of room. The reference counts only events.
    pub(crate) fn size(&self) -> (usize, usize, u64) {
        match self {
            Self::Indexed(memory) => (memory.len(), memory.bytes(), memory.lost),
            Self::Reference(memory) => (memory.len(), 0, 0),
        }
    }
}

/// Everything that rules remember between events.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) memory: Memory,
    pub(crate) fired: Vec<u32>,
    pub(crate) windows: HashMap<Index, Window>,
    pub(crate) seen: FirstTime,
    pub(crate) diffs: Differences,
    pub(crate) suppressed: Vec<Suppressed>,
}

impl State {
    pub(crate) fn new(engine: Engine, ruleset: &Ruleset) -> Self {
        let rules = ruleset.rules.all.len();
        Self {
            memory: Memory::new(engine, ruleset),
            fired: vec![0; rules],
            windows: HashMap::new(),
            seen: FirstTime::default(),
            diffs: Differences::default(),
            suppressed: vec![Suppressed::default(); rules],
        }
    }

    /// The state under new rules. What belongs to a rule survives if the rule's text is the same.
    pub(crate) fn carried(self, old: &Ruleset, new: &Ruleset) -> Self {
        let same = new.unchanged(old);
        let mut state = Self::new(self.memory.engine(), new);
        for (&from, &to) in &same {
            state.fired[to] = self.fired[from];
            state.suppressed[to] = self.suppressed[from];
        }
        state.windows = self
            .windows
            .into_iter()
            .filter_map(|(rule, window)| same.get(&rule).map(|rule| (*rule, window)))
            .collect();
        state.memory = match self.memory {
            Memory::Indexed(memory) => {
                let most = new.options.max_memory_bytes;
                Memory::Indexed(Box::new(memory.carried(&new.rules, most, &same)))
            }
            Memory::Reference(memory) => Memory::Reference(memory.carried(&new.rules, &same)),
        };
        state.seen = self.seen;
        state.diffs = self.diffs;
        state
    }
}

/// Last texts by host and rule.
#[derive(Debug, Default)]
pub(crate) struct Differences {
    texts: HashMap<(Box<[u8]>, RuleId), Vec<u8>>,
    order: VecDeque<(Box<[u8]>, RuleId)>,
}

impl Differences {
    /// Stores a text; the one that stood there.
    pub(crate) fn store(&mut self, host: &[u8], rule: RuleId, text: &[u8]) -> Option<Vec<u8>> {
        let key = (Box::from(host), rule);
        let old = self.texts.insert(key.clone(), text.to_vec());
        if old.is_none() {
            self.order.push_back(key);
            while self.order.len() > MOST_DIFFS {
                if let Some(oldest) = self.order.pop_front() {
                    self.texts.remove(&oldest);
                }
            }
        }
        old
    }

    fn same(&self, host: &[u8], rule: RuleId, text: &[u8]) -> bool {
        self.texts.get(&(Box::from(host), rule)).is_some_and(|known| known == text)
    }
}

/// Why a rule did not match.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Element or attribute; `frequency` stands for the search of earlier events.
    pub condition: &'static str,
    /// Its line.
    pub line: u32,
    /// How far the search for earlier events came.
    pub searched: Option<Searched>,
}

/// The search of a composite rule, when it found too little.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Searched {
    /// Events that the rule needs, this one included.
    pub needed: u32,
    /// Events counted, this one included.
    pub found: u32,
    /// The search ended at an event that an alert of this or a higher level has used up.
    pub hidden: bool,
    /// Values that the events must share.
    pub same: Vec<String>,
    /// Values that they must not share.
    pub different: Vec<String>,
}

impl Searched {
    fn new(rule: &Rule, earlier: u32, hidden: bool) -> Self {
        let correlation = &rule.correlation;
        let names = |shared: &[Shared], fields: &[Box<str>]| {
            let shared = shared.iter().map(|shared| shared.name().to_owned());
            shared.chain(fields.iter().map(ToString::to_string)).collect()
        };
        Self {
            needed: correlation.frequency.saturating_add(2),
            found: earlier.saturating_add(1),
            hidden,
            same: names(&correlation.same, &correlation.same_fields),
            different: names(&correlation.different, &correlation.different_fields),
        }
    }
}

/// One rule that was tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleStep {
    /// The rule.
    pub rule: RuleId,
    /// How many rules stand above it.
    pub depth: usize,
    /// Why it failed; none when it matched.
    pub failed: Option<Failure>,
    /// It has children, which were tried if it matched.
    pub has_children: bool,
    /// File of the rule.
    pub file: Arc<str>,
    /// Line of the rule.
    pub line: u32,
}

/// The rule that won, and the one directly above it on the way there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Won {
    pub(crate) rule: Index,
    pub(crate) parent: Option<Index>,
}

/// The walk of one event through the tree.
#[derive(Debug)]
pub(crate) struct Pass<'a, 'e> {
    pub(crate) ruleset: &'a Ruleset,
    pub(crate) state: &'a mut State,
    pub(crate) event: &'a Decoded<'e>,
    pub(crate) now: i64,
    pub(crate) moment: Moment<'a>,
    /// Level of the rule whose search this event completed.
    pub(crate) mark: u8,
    pub(crate) last_events: Texts,
    pub(crate) previous_log: Option<Vec<u8>>,
    pub(crate) effects: Vec<Effect>,
    pub(crate) trace: Option<Vec<RuleStep>>,
}

impl<'a> Pass<'a, '_> {
    /// The event's decoder.
    pub(crate) fn decoder(&self) -> Option<&'a DecoderInfo> {
        self.event.decoder.map(|id| self.ruleset.decoders.info(id))
    }

    /// The first root of the event's type that yields a winner ends the search.
    pub(crate) fn winner(&mut self) -> Option<Won> {
        let ruleset = self.ruleset;
        ruleset.rules.roots.iter().find_map(|root| {
            let fits = ruleset.rules.all[*root].category == self.event.category;
            if fits { self.evaluate(*root, None, 0) } else { None }
        })
    }

    fn evaluate(&mut self, index: Index, parent: Option<Index>, depth: usize) -> Option<Won> {
        let ruleset = self.ruleset;
        let rule = &ruleset.rules.all[index];
        let failed = self.failure(index, rule);
        let matched = failed.is_none();
        if let Some(trace) = &mut self.trace {
            trace.push(RuleStep {
                rule: rule.info.id,
                depth,
                failed,
                has_children: !rule.place.children.is_empty(),
                file: Arc::clone(&rule.info.file),
                line: rule.info.line,
            });
        }
        if !matched {
            return None;
        }
        for child in &rule.place.children {
            if let Some(won) = self.evaluate(*child, Some(index), depth + 1) {
                return Some(won);
            }
        }
        self.childless(index, rule.info.noalert, parent)
    }

    /// [`Pass::winner`] where only the rules of an outline can match.
    pub(crate) fn winner_in(&mut self, outline: &Outline) -> Option<Won> {
        self.winner_between(outline, 0, outline.rules.len(), None)
    }

    fn winner_between(
        &mut self,
        outline: &Outline,
        start: usize,
        end: usize,
        parent: Option<Index>,
    ) -> Option<Won> {
        let mut at = start;
        while at < end {
            let open = outline.rules[at];
            let (rule, end) = (open.rule as Index, open.end as usize);
            if self.fits(rule, open.left) {
                let children = at + 1 < end;
                let won = children.then(|| self.winner_between(outline, at + 1, end, Some(rule)));
                if let Some(won) = won.flatten().or_else(|| self.childless(rule, open.noalert, parent)) {
                    return Some(won);
                }
            }
            at = end;
        }
        None
    }

    /// Whether a rule of an outline matches.
    fn fits(&mut self, index: Index, left: Left) -> bool {
        let asked = match left {
            Left::Nothing => return true,
            Left::Search if !self.state.memory.reaches(index, self.now) => {
                self.last_events.clear();
                return false;
            }
            Left::Search => None,
            Left::Conditions(asked) => Some(asked as usize),
        };
        let rules = &self.ruleset.rules;
        let rule = &rules.all[index];
        let open = asked.map_or(&[][..], |asked| &rules.tests[asked..rules.conditions(index).end]);
        let holds = open.iter().all(|test| self.holds(test, rule));
        holds && matches!(self.search(index, rule), Found::Enough(_))
    }

    /// A rule matched and none of its children took the event.
    fn childless(&mut self, rule: Index, noalert: bool, parent: Option<Index>) -> Option<Won> {
        if noalert {
            self.state.suppressed[rule].noalert += 1;
            return None;
        }
        self.state.fired[rule] = self.state.fired[rule].saturating_add(1);
        Some(Won { rule, parent })
    }

    fn holds(&mut self, test: &Test, rule: &Rule) -> bool {
        match test.holds(self.event, &self.ruleset.decoders, &self.moment) {
            Some(holds) => holds,
            None if matches!(test, Test::Difference) => self.differs(rule),
            None => self.first_time(),
        }
    }

    fn failure(&mut self, index: Index, rule: &Rule) -> Option<Failure> {
        let rules = &self.ruleset.rules;
        for condition in rules.conditions(index) {
            if !self.holds(&rules.tests[condition], rule) {
                let Label { name, line } = rules.labels[condition];
                return Some(Failure { condition: name, line, searched: None });
            }
        }
        let (earlier, hidden) = match self.search(index, rule) {
            Found::Enough(_) => return None,
            Found::Nothing(earlier) => (earlier, false),
            Found::Hidden(earlier) => (earlier, true),
        };
        let searched = self.trace.is_some().then(|| Searched::new(rule, earlier, hidden));
        Some(Failure { condition: "frequency", line: rule.info.line, searched })
    }

    /// Remembers the event as one that `winner` won.
    pub(crate) fn remember(&mut self, winner: Index) {
        let Ruleset { rules, horizon, .. } = self.ruleset;
        let (event, now, mark) = (self.event, self.now, self.mark);
        match &mut self.state.memory {
            Memory::Indexed(memory) => memory.remember(event, now, mark, winner, rules),
            Memory::Reference(memory) => memory.remember(event, now, mark, winner, rules, *horizon),
        }
    }

    fn differs(&mut self, rule: &Rule) -> bool {
        let log = &*self.event.log;
        let host = self.event.hostname().unwrap_or_default();
        let id = rule.info.id;
        if log.len() >= DIFF_LIMIT || self.state.diffs.same(host, id, log) {
            return false;
        }
        let old = self.state.diffs.store(host, id, log);
        self.effects.push(Effect::Diff { host: host.to_vec(), rule: id, text: log.to_vec() });
        let Some(old) = old else { return false };
        self.last_events = [&b"Previous output:"[..], &old].into_iter().collect();
        self.previous_log = Some(old);
        true
    }

    fn first_time(&mut self) -> bool {
        let Some(decoder) = self.decoder().filter(|decoder| !decoder.fts.is_empty()) else { return false };
        let key = first_time_key(decoder, self.event);
        let ids = self.event.category == crate::Category::Ids;
        let options = &self.ruleset.options;
        let limits = Limits {
            most: options.fts_most_keys,
            recent: options.fts_list_size,
            cut: options.fts_min_size_for_str,
        };
        let stored = self.state.seen.store(key, ids, limits);
        if let Some(key) = &stored {
            self.effects.push(Effect::Fts(key.to_vec()));
        }
        stored.is_some()
    }

    fn search(&mut self, index: Index, rule: &Rule) -> Found {
        if !rule.searches() {
            return Found::Enough(Texts::default());
        }
        let mut found = match &mut self.state.memory {
            Memory::Indexed(memory) => memory.search(index, rule, self.event, self.now),
            Memory::Reference(memory) => memory.search(rule, self.event, self.now),
        };
        match &mut found {
            Found::Enough(texts) => {
                self.mark = rule.info.level;
                self.last_events = std::mem::take(texts);
            }
            Found::Hidden(_) => {
                self.state.suppressed[index].marks += 1;
                self.last_events.clear();
            }
            Found::Nothing(_) => self.last_events.clear(),
        }
        found
    }
}

/// The key line of `if_fts`: a place for each value in fixed order, empty unless the decoder lists it.
fn first_time_key(decoder: &DecoderInfo, event: &Decoded<'_>) -> Vec<u8> {
    const ORDER: [StaticField; 7] = [
        StaticField::Id,
        StaticField::DstUser,
        StaticField::SrcUser,
        StaticField::SrcIp,
        StaticField::DstIp,
        StaticField::Data,
        StaticField::SystemName,
    ];
    let mut key = decoder.name.clone().into_bytes();
    let mut part = |value: Option<&[u8]>| {
        key.push(b' ');
        key.extend_from_slice(value.unwrap_or_default());
    };
    for field in ORDER {
        part(event.field(field).filter(|_| decoder.fts.contains(&FtsField::Static(field))));
    }
    part(decoder.fts.contains(&FtsField::Location).then_some(&*event.location));
    for field in &decoder.fts {
        if let FtsField::Dynamic(name) = field
            && let Some(value) = event.dynamic_field(name)
        {
            part(Some(value));
        }
    }
    key.truncate(KEY_LIMIT);
    key
}

/// The line that the `ignore` element writes (analysis-rules 5).
pub(crate) fn ignore_line(names: &[Box<str>], decoder: Option<&DecoderInfo>, event: &Decoded<'_>) -> Vec<u8> {
    let listed = |name: &str| names.iter().any(|known| **known == *name);
    let mut line = Vec::new();
    if listed("name") {
        line.extend_from_slice(decoder.map_or("", |decoder| &decoder.name).as_bytes());
    }
    let parts = [
        ("id", event.field(StaticField::Id)),
        ("user", event.field(StaticField::DstUser)),
        ("srcip", event.field(StaticField::SrcIp)),
        ("dstip", event.field(StaticField::DstIp)),
        ("data", event.field(StaticField::Data)),
        ("system_name", event.field(StaticField::SystemName)),
        ("location", Some(&*event.location)),
    ];
    for (name, value) in parts {
        line.push(b' ');
        line.extend_from_slice(value.filter(|_| listed(name)).unwrap_or_default());
    }
    for name in
        names.iter().filter(|name| ***name != *"name" && !parts.iter().any(|(known, _)| ***name == **known))
    {
        if let Some(value) = event.dynamic_field(name) {
            line.push(b' ');
            line.extend_from_slice(value);
        }
    }
    line
}

#[cfg(test)]
mod tests;
