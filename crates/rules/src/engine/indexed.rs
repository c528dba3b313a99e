//! Remembered events indexed by what rules compare, so that a search meets only events it may count: one attacker's
//! events are never walked for another's.
//!
//! Rules that search the same events by the same values share an index, and its events are found by agent and by the
//! values that must be the same, as one keyed hash of 64 bits. Equal hashes are taken for equal values: among a million
//! remembered events a search meets a stranger once in 10^13 times. A rule without `different_*` never looks beyond its
//! first `frequency` events of a key, so its index keeps no more ([`Chains`]); the others keep all ([`Wide`]).
//! What an alert shows of events, and what a reload may ask of them, is in the [`Store`].
//! Invariant: equal to [`super::reference`] as long as state time does not run back.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, Hasher};

use super::chains::{Arrival, Chains};
use super::record::Recalled;
use super::reference::{Found, LAST_EVENTS, is_static_name, list_of};
use super::remembered::Values;
use super::store::{Number, Store};
use super::wide::Wide;
use crate::hash::{FACTOR, Quick, fold};
use crate::rule::correlation::{Correlation, Shared, Target};
use crate::rule::{Index, Rule, Rules};
use crate::{Decoded, Texts};

/// Seconds between two sweeps over indexes that no event came to.
const SWEEP: i64 = 60;
/// Bytes of a text, to ask for memory once.
const USUAL: usize = 128;
/// Events that are remembered before memory is counted again.
const COUNTED: u32 = 32;
/// Arrivals that are given up before memory is counted again.
const STEP: usize = 64;

/// The events of rules that search alike.
#[derive(Debug)]
struct Place {
    /// The first of these rules.
    rule: Index,
    /// What its key is made of, by number.
    shape: usize,
    /// What tells its keys from those of other indexes.
    salt: u64,
    /// It takes in only what an expression of the rule fits.
    filtered: bool,
    timeframe: i64,
    /// Most events of a key that a search can reach.
    most: usize,
    holder: Holder,
}

/// Where the arrivals of an index are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Holder {
    /// Those of this number, shared with other indexes of as long a timeframe.
    Chains(usize),
    /// Some rule may have to pass over events.
    Wide(usize),
}

/// What keys are made of; several indexes may agree in it.
#[derive(Debug, PartialEq, Eq)]
struct Shape {
    any_agent: bool,
    everything: bool,
    same: Vec<Shared>,
    same_fields: Vec<Box<str>>,
}

/// What is known of the event in hand by shape: the event's number and the hash, if it has all values.
type Known = (u64, Option<u64>);

/// No index.
const NONE: u32 = u32::MAX;

/// All indexes.
#[derive(Debug)]
pub(crate) struct Indexed {
    places: Vec<Place>,
    /// For each of them the second from which on no arrival is in reach: most indexes are empty, and need no key.
    until: Vec<i64>,
    shapes: Vec<Shape>,
    /// Index of a searching rule.
    of_rule: Vec<u32>,
    /// Hashes the values of keys.
    quick: Quick,
    /// Indexes that a list's events enter.
    of_list: Vec<Vec<usize>>,
    /// Indexes of rules that search all events.
    of_all: Vec<usize>,
    chains: Vec<Chains>,
    wides: Vec<Wide>,
    store: Store,
    /// Times are kept as seconds since this one.
    epoch: Option<i64>,
    swept: i64,
    most_bytes: usize,
    /// Events until memory is counted again.
    uncounted: u32,
    /// One event has one key in many indexes, but for the index.
    known: Vec<Known>,
    /// The event in hand.
    event: u64,
    /// Events that left although a timeframe could still reach them.
    pub(crate) lost: u64,
}

impl Indexed {
    pub(crate) fn new(rules: &Rules, most_bytes: usize) -> Self {
        let mut indexed = Self {
            places: Vec::new(),
            until: Vec::new(),
            shapes: Vec::new(),
            of_rule: vec![NONE; rules.all.len()],
            quick: Quick::default(),
            of_list: vec![Vec::new(); rules.lists],
            of_all: Vec::new(),
            chains: Vec::new(),
            wides: Vec::new(),
            store: Store::new(most_bytes),
            epoch: None,
            swept: 0,
            most_bytes,
            uncounted: 0,
            known: Vec::new(),
            event: 1,
            lost: 0,
        };
        for (index, rule) in rules.all.iter().enumerate().filter(|(_, rule)| rule.searches()) {
            indexed.place(index, rule, rules);
        }
        indexed.until = vec![0; indexed.places.len()];
        for place in &mut indexed.places {
            if let Holder::Chains(number) = &mut place.holder {
                let known = indexed.chains.iter().position(|chains| chains.timeframe == place.timeframe);
                *number = known.unwrap_or_else(|| {
                    indexed.chains.push(Chains::new(place.timeframe));
                    indexed.chains.len() - 1
                });
            }
        }
        indexed
    }

    /// Gives a searching rule its index.
    fn place(&mut self, index: Index, rule: &Rule, rules: &Rules) {
        let correlation = &rule.correlation;
        let skips = !correlation.different.is_empty() || !correlation.different_fields.is_empty();
        let alike = |place: &Place| {
            matches!(place.holder, Holder::Wide(_)) == skips && alike(&rules.all[place.rule], rule)
        };
        let number = match self.places.iter().position(alike) {
            Some(number) => number,
            None => {
                let number = self.places.len();
                match list_of(rule) {
                    Some(list) => self.of_list[list].push(number),
                    None if rule.searches_everything() => self.of_all.push(number),
                    None => return,
                }
                // Chains are shared out when all timeframes are known.
                let holder = if skips { Holder::Wide(self.wides.len()) } else { Holder::Chains(0) };
                if skips {
                    self.wides.push(Wide::new());
                }
                let shape = self.shape(rule);
                let filtered = matches!(rule.place.target, Some(Target::Everything(Some(_))));
                // Of a secret of its own: numbers of agents are hashed by the other.
                let salt = Quick::default().hash_one(number);
                self.places.push(Place { rule: index, shape, salt, filtered, timeframe: 0, most: 0, holder });
                number
            }
        };
        let place = &mut self.places[number];
        place.timeframe = place.timeframe.max(i64::from(correlation.timeframe));
        place.most = place.most.max(correlation.frequency as usize + 1);
        if let Holder::Wide(wide) = place.holder {
            self.wides[wide].serve(index, correlation);
        }
        self.of_rule[index] = number as u32;
    }

    fn shape(&mut self, rule: &Rule) -> usize {
        let Correlation { any_agent, same, same_fields, .. } = &rule.correlation;
        let shape = Shape {
            any_agent: *any_agent,
            everything: rule.searches_everything(),
            same: same.clone(),
            same_fields: same_fields.clone(),
        };
        self.shapes.iter().position(|known| *known == shape).unwrap_or_else(|| {
            self.shapes.push(shape);
            self.known.push((0, None));
            self.shapes.len() - 1
        })
    }

    /// Begins with another event.
    pub(crate) fn begin(&mut self) {
        self.event += 1;
    }

    /// Whether a search of that rule may find anything: there are arrivals of some key in its timeframe.
    pub(crate) fn reaches(&self, index: Index, now: i64) -> bool {
        let until = self.of_rule.get(index).and_then(|number| self.until.get(*number as usize));
        match (until, self.epoch) {
            (Some(until), Some(epoch)) => now - epoch < *until,
            _ => false,
        }
    }

    /// Looks for the earlier events of a rule, and marks the newest counted one when there are enough.
    pub(crate) fn search(&mut self, index: Index, rule: &Rule, event: &Decoded<'_>, now: i64) -> Found {
        let (Some(&number), Some(epoch)) = (self.of_rule.get(index), self.epoch) else {
            return Found::Nothing(0);
        };
        let number = number as usize;
        let Some(key) = self.key(number, event) else { return Found::Nothing(0) };
        let Self { places, shapes, chains, wides, store, quick, .. } = self;
        let Some(place) = places.get(number) else { return Found::Nothing(0) };
        let search = Search { rule, everything: shapes[place.shape].everything, now: now - epoch };
        match place.holder {
            Holder::Chains(at) => search.run(store, chains[at].of(key).map(|arrival| (arrival, true))),
            Holder::Wide(at) => {
                search.run(store, wides[at].of(key, (index, &rule.correlation), event, quick))
            }
        }
    }

    /// Remembers an event that `winner` won.
    pub(crate) fn remember(&mut self, event: &Decoded<'_>, at: i64, mark: u8, winner: Index, rules: &Rules) {
        if self.of_all.is_empty() && rules.feeds(winner).is_empty() {
            return;
        }
        let at_once = self.time(at, rules);
        let number = self.store.push(event, winner, mark);
        self.enter_all(Arrival { at: at_once, event: number }, winner, event, &event.log, rules);
        if at - self.swept >= SWEEP {
            self.swept = at;
            self.sweep(at_once);
        }
        self.uncounted += 1;
        if self.uncounted >= COUNTED || self.store.is_long() {
            self.uncounted = 0;
            if self.bytes() > self.most_bytes || self.store.is_long() {
                self.shed();
            }
        }
    }

    /// Seconds since the epoch. What came before the longest time that these can tell is out of reach anyway.
    fn time(&mut self, at: i64, rules: &Rules) -> u32 {
        let epoch = *self.epoch.get_or_insert(at);
        u32::try_from(at - epoch).unwrap_or_else(|_| {
            *self = Self { swept: self.swept, lost: self.lost, ..Self::new(rules, self.most_bytes) };
            self.epoch = Some(at);
            0
        })
    }

    fn enter_all(&mut self, arrival: Arrival, winner: Index, event: &impl Values, log: &[u8], rules: &Rules) {
        let mut holders = 0;
        for &(list, times) in rules.feeds(winner) {
            for at in 0..self.of_list.get(list).map_or(0, Vec::len) {
                holders += self.enter(self.of_list[list][at], arrival, times as usize, event, log, rules);
            }
        }
        for at in 0..self.of_all.len() {
            holders += self.enter(self.of_all[at], arrival, 1, event, log, rules);
        }
        self.store.settle(holders as u32);
    }

    /// Adds an arrival to an index; how many times it is held there.
    fn enter(
        &mut self,
        number: usize,
        arrival: Arrival,
        times: usize,
        event: &impl Values,
        log: &[u8],
        rules: &Rules,
    ) -> usize {
        let place = &self.places[number];
        if place.filtered
            && let Some(Target::Everything(Some(regex))) = &rules.all[place.rule].place.target
            && !regex.is_match(log)
        {
            return 0;
        }
        let Some(key) = self.key(number, event) else { return 0 };
        let Self { places, until, chains, wides, store, quick, .. } = self;
        let place = &places[number];
        until[number] = i64::from(arrival.at) + place.timeframe + 1;
        // No search gets beyond so many of one event.
        let times = times.min(place.most);
        match place.holder {
            Holder::Chains(at) => {
                let chains = &mut chains[at];
                chains.expire(i64::from(arrival.at) - chains.timeframe, |event| _ = store.release(event));
                let mut earlier = false;
                for _ in 0..times {
                    earlier |= chains.push(key, arrival);
                }
                if earlier {
                    chains.trim(key, place.most, times, |event| _ = store.release(event));
                }
            }
            Holder::Wide(at) => {
                let wide = &mut wides[at];
                wide.expire(i64::from(arrival.at) - wide.timeframe, |event| _ = store.release(event));
                wide.push(key, arrival, times, event, quick);
            }
        }
        times
    }

    /// Takes out what lies before all timeframes, and gives up memory that stands empty.
    fn sweep(&mut self, now: u32) {
        let Self { chains, wides, store, .. } = self;
        for chains in chains {
            chains.expire(i64::from(now) - chains.timeframe, |event| _ = store.release(event));
            chains.tidy();
        }
        for wide in wides {
            wide.expire(i64::from(now) - wide.timeframe, |event| _ = store.release(event));
            wide.tidy();
        }
        store.tidy();
    }

    /// Frees a sixteenth of the budget, oldest arrivals first.
    fn shed(&mut self) {
        let aim = self.most_bytes - self.most_bytes / 16;
        while self.bytes() > aim || self.store.is_long() {
            let Self { chains, wides, store, lost, .. } = self;
            let mut gone = |event| *lost += u64::from(store.release(event));
            let chained = chains.iter().enumerate();
            let chained = chained.filter_map(|(at, chains)| Some((chains.oldest()?, Holder::Chains(at))));
            let wide = wides.iter().enumerate();
            let wide = wide.filter_map(|(at, wide)| Some((wide.oldest()?, Holder::Wide(at))));
            match chained.chain(wide).min_by_key(|(at, _)| *at) {
                None => break,
                Some((_, Holder::Chains(at))) => (0..STEP).for_each(|_| chains[at].pop(&mut gone)),
                Some((_, Holder::Wide(at))) => (0..STEP).for_each(|_| wides[at].pop(&mut gone)),
            }
        }
        self.chains.iter_mut().for_each(Chains::tidy);
    }

    /// The clock was set back by so many seconds: everything stays as old as it was.
    pub(crate) fn shift(&mut self, back: i64) {
        self.swept -= back;
        self.epoch = self.epoch.map(|epoch| epoch - back);
    }

    /// The same events under new rules; those whose winner is gone or changed are forgotten.
    pub(crate) fn carried(
        mut self,
        rules: &Rules,
        most_bytes: usize,
        winners: &HashMap<Index, Index>,
    ) -> Self {
        let chained = self.chains.iter().flat_map(Chains::all);
        let mut arrivals: Vec<Arrival> = chained.chain(self.wides.iter().flat_map(Wide::all)).collect();
        arrivals.sort_unstable_by_key(|arrival| self.store.age(arrival.event));
        arrivals.dedup_by_key(|arrival| arrival.event);
        self.chains.clear();
        self.wides.clear();
        let mut indexed =
            Self { epoch: self.epoch, swept: self.swept, lost: self.lost, ..Self::new(rules, most_bytes) };
        for Arrival { at, event } in arrivals {
            let mark = self.store.mark(event);
            if let Some(mut recalled) = self.store.recall(event)
                && let Some(winner) = winners.get(&recalled.winner())
            {
                indexed.take_over(&mut recalled, at, mark, *winner, rules);
            }
        }
        indexed
    }

    fn take_over(&mut self, event: &mut Recalled, at: u32, mark: u8, winner: Index, rules: &Rules) {
        self.begin();
        let number = self.store.push_recalled(event, winner, mark);
        self.enter_all(Arrival { at, event: number }, winner, event, event.log(), rules);
    }

    /// The key of the event in hand in an index; none when it lacks a value that must be the same, so that no search can
    /// ever count it.
    fn key(&mut self, number: usize, event: &impl Values) -> Option<u64> {
        let Place { shape, salt, .. } = *self.places.get(number)?;
        if self.known[shape].0 != self.event {
            self.known[shape] = (self.event, values(&self.quick, &self.shapes[shape], event));
        }
        // Hashes of one secret apart by another: no two indexes have keys that somebody could foresee to meet.
        Some(fold(self.known[shape].1? ^ salt, FACTOR))
    }

    pub(crate) fn len(&self) -> usize {
        self.store.len()
    }

    /// Memory that it holds.
    pub(crate) fn bytes(&self) -> usize {
        let chains: usize = self.chains.iter().map(Chains::bytes).sum();
        chains + self.wides.iter().map(Wide::bytes).sum::<usize>() + self.store.bytes()
    }
}

/// One search.
struct Search<'a> {
    rule: &'a Rule,
    everything: bool,
    now: i64,
}

impl Search<'_> {
    /// Walks the arrivals, newest first; those that are told to differ do not count (analysis-rules 4).
    fn run(&self, store: &mut Store, arrivals: impl Iterator<Item = (Arrival, bool)>) -> Found {
        let Rule { info, correlation, .. } = self.rule;
        let mut shown = [0; LAST_EVENTS];
        let mut last = 0;
        let mut counted = 0;
        let mut newest: Option<Number> = None;
        for (arrival, fits) in arrivals {
            if self.now - i64::from(arrival.at) > i64::from(correlation.timeframe) {
                return Found::Nothing(counted);
            }
            if !fits {
                continue;
            }
            if store.mark(arrival.event) >= info.level {
                return Found::Hidden(counted);
            }
            let count = counted < correlation.frequency;
            if last < LAST_EVENTS && (count || !self.everything) {
                shown[last] = arrival.event;
                last += 1;
            }
            if count {
                newest.get_or_insert(arrival.event);
                counted += 1;
                continue;
            }
            if let Some(newest) = newest {
                store.set_mark(newest, info.level);
            }
            let mut texts = Texts::with_capacity(last, last * USUAL);
            shown[..last].iter().for_each(|event| store.tell(*event, &mut texts));
            return Found::Enough(texts);
        }
        Found::Nothing(counted)
    }
}

/// Whether two rules find their events in the same places by the same keys.
fn alike(one: &Rule, other: &Rule) -> bool {
    let keys = |rule: &Rule| {
        let Correlation { any_agent, same, same_fields, .. } = &rule.correlation;
        (*any_agent, same.clone(), same_fields.clone())
    };
    let source = match (&one.place.target, &other.place.target) {
        (Some(Target::List(Some(one))), Some(Target::List(Some(other)))) => one == other,
        (Some(Target::Everything(None)), Some(Target::Everything(None))) => true,
        _ => false,
    };
    source && keys(one) == keys(other)
}

/// A hash of all values of a shape; none when the event lacks one of them.
fn values(quick: &Quick, shape: &Shape, event: &impl Values) -> Option<u64> {
    let mut hasher = quick.build_hasher();
    if !shape.any_agent {
        event.agent().hash(&mut hasher);
    }
    if shape.everything {
        event.category().hash(&mut hasher);
    }
    for shared in &shape.same {
        match shared {
            Shared::Static(field) => event.field(*field)?.hash(&mut hasher),
            Shared::Location => event.location().hash(&mut hasher),
            Shared::Geo => return None,
        }
    }
    for name in &shape.same_fields {
        let value = if is_static_name(name) { None } else { event.dynamic_field(name) };
        value?.hash(&mut hasher);
    }
    Some(hasher.finish())
}
