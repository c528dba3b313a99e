//! Remembered events indexed by what rules compare, so that a search meets only events it may count: one attacker's
//! events are never walked for another's.
//!
//! Rules that search the same events by the same values share an index: its events in buckets by agent and by the values
//! that must be the same. A bucket may hold more than belongs to it (keys are hashes, the search looks again), never less than
//! the search can reach: a rule without `different_*` never looks beyond its first `frequency` events of a key, so
//! the bucket keeps no more.
//! Invariant: equal to [`super::reference`] as long as state time does not run back.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::Arc;

use super::reference::{Found, Search, is_static_name, list_of};
use super::remembered::{Remembered, Values};
use crate::Decoded;
use crate::hash::Quick;
use crate::rule::correlation::{Correlation, Shared, Target};
use crate::rule::{Index, Rule, Rules};

/// Bytes that an event costs in each bucket it stands in.
const PLACE_WEIGHT: usize = 64;
/// Seconds between two sweeps over indexes that no event came to.
const SWEEP: i64 = 60;

/// The events of rules that search alike.
#[derive(Debug)]
struct Buckets {
    /// The first of these rules.
    rule: Index,
    timeframe: i64,
    /// Most events of a key that a search can reach; none where some rule may have to skip some.
    most: Option<usize>,
    by_key: HashMap<u64, VecDeque<Arc<Remembered>>, Quick>,
    /// When which bucket got an event, oldest first.
    order: VecDeque<(i64, u64)>,
}

/// All indexes.
#[derive(Debug, Default)]
pub(crate) struct Indexed {
    indexes: Vec<Buckets>,
    /// Index of a searching rule.
    of_rule: HashMap<Index, usize, Quick>,
    /// Hashes the values of keys.
    quick: Quick,
    /// Indexes that a list's events enter.
    of_list: Vec<Vec<usize>>,
    /// Indexes of rules that search all events.
    of_all: Vec<usize>,
    bytes: usize,
    events: usize,
    numbers: u64,
    swept: i64,
    /// Events that left although a timeframe could still reach them.
    pub(crate) lost: u64,
}

impl Indexed {
    pub(crate) fn new(rules: &Rules) -> Self {
        let mut indexed = Self { of_list: vec![Vec::new(); rules.lists], ..Self::default() };
        for (index, rule) in rules.all.iter().enumerate().filter(|(_, rule)| rule.searches()) {
            let correlation = &rule.correlation;
            let skips = !correlation.different.is_empty() || !correlation.different_fields.is_empty();
            let timeframe = i64::from(correlation.timeframe);
            let most = (!skips).then_some(correlation.frequency as usize + 1);
            let alike =
                |buckets: &Buckets| buckets.most.is_some() != skips && alike(&rules.all[buckets.rule], rule);
            if let Some(place) = indexed.indexes.iter().position(alike) {
                let buckets = &mut indexed.indexes[place];
                buckets.timeframe = buckets.timeframe.max(timeframe);
                buckets.most = buckets.most.max(most);
                indexed.of_rule.insert(index, place);
                continue;
            }
            let place = indexed.indexes.len();
            match list_of(rule) {
                Some(list) => indexed.of_list[list].push(place),
                None if rule.searches_everything() => indexed.of_all.push(place),
                None => continue,
            }
            indexed.of_rule.insert(index, place);
            indexed.indexes.push(Buckets {
                rule: index,
                timeframe,
                most,
                by_key: HashMap::default(),
                order: VecDeque::new(),
            });
        }
        indexed
    }

    pub(crate) fn search(&self, index: Index, rule: &Rule, event: &Decoded<'_>, now: i64) -> Found {
        let Some(buckets) = self.of_rule.get(&index).and_then(|place| self.indexes.get(*place)) else {
            return Found::Nothing(0);
        };
        let everything = rule.searches_everything();
        let bucket =
            key(&self.quick, &rule.correlation, everything, event).and_then(|key| buckets.by_key.get(&key));
        let Some(bucket) = bucket else { return Found::Nothing(0) };
        Search::of(rule, now).run(event, bucket.iter().rev())
    }

    /// Remembers an event that `winner` won.
    pub(crate) fn remember(
        &mut self,
        event: &Decoded<'_>,
        at: i64,
        mark: u8,
        winner: Index,
        rules: &Rules,
        most_bytes: usize,
    ) {
        if self.of_all.is_empty() && rules.feeds(winner).is_empty() {
            return;
        }
        self.numbers += 1;
        self.append(Arc::new(Remembered::new(event, at, mark, winner, self.numbers)), rules);
        if at - self.swept >= SWEEP {
            self.swept = at;
            for place in 0..self.indexes.len() {
                self.expire(place, at);
            }
        }
        if self.bytes > most_bytes {
            self.shed(most_bytes);
        }
    }

    fn append(&mut self, event: Arc<Remembered>, rules: &Rules) {
        self.bytes += event.weight();
        self.events += 1;
        let feeds = rules.feeds(event.winner);
        for &(list, times) in feeds {
            for at in 0..self.of_list.get(list).map_or(0, Vec::len) {
                let place = self.of_list[list][at];
                self.enter(place, &event, times as usize, rules);
            }
        }
        for at in 0..self.of_all.len() {
            self.enter(self.of_all[at], &event, 1, rules);
        }
        self.release(event);
    }

    fn enter(&mut self, place: usize, event: &Arc<Remembered>, times: usize, rules: &Rules) {
        let now = event.at();
        self.expire(place, now);
        let buckets = &mut self.indexes[place];
        let rule = &rules.all[buckets.rule];
        if let Some(Target::Everything(Some(regex))) = &rule.place.target
            && !regex.is_match(event.log())
        {
            return;
        }
        let Some(key) = key(&self.quick, &rule.correlation, rule.searches_everything(), &**event) else {
            return;
        };
        let times = buckets.most.map_or(times, |most| times.min(most));
        let bucket = buckets.by_key.entry(key).or_default();
        bucket.extend(std::iter::repeat_n(Arc::clone(event), times));
        let surplus = buckets.most.map_or(0, |most| bucket.len().saturating_sub(most));
        let gone: Vec<_> = bucket.drain(..surplus).collect();
        buckets.order.push_back((now, key));
        self.bytes += PLACE_WEIGHT;
        gone.into_iter().for_each(|event| self.release(event));
    }

    /// Takes out what lies before the rule's timeframe.
    fn expire(&mut self, place: usize, now: i64) {
        let buckets = &self.indexes[place];
        let oldest = now - buckets.timeframe;
        while self.indexes[place].order.front().is_some_and(|(at, _)| *at < oldest) {
            self.drop_oldest(place);
        }
    }

    /// Takes the oldest arrival of an index out, if its bucket still has it.
    fn drop_oldest(&mut self, place: usize) {
        let buckets = &mut self.indexes[place];
        let Some((at, key)) = buckets.order.pop_front() else { return };
        self.bytes = self.bytes.saturating_sub(PLACE_WEIGHT);
        let mut gone = Vec::new();
        if let Some(bucket) = buckets.by_key.get_mut(&key) {
            // Arrivals of the same second leave with the first of them, one number at a time.
            let number = bucket.front().filter(|event| event.at() <= at).map(|event| event.number);
            while bucket.front().is_some_and(|event| Some(event.number) == number) {
                gone.extend(bucket.pop_front());
            }
            if bucket.is_empty() {
                buckets.by_key.remove(&key);
            }
        }
        gone.into_iter().for_each(|event| self.release(event));
    }

    /// Gives up one reference; the event's bytes are free when it was the last.
    fn release(&mut self, event: Arc<Remembered>) {
        if let Some(event) = Arc::into_inner(event) {
            self.bytes = self.bytes.saturating_sub(event.weight());
            self.events = self.events.saturating_sub(1);
        }
    }

    /// Frees a sixteenth of the budget, oldest events first.
    fn shed(&mut self, most_bytes: usize) {
        let aim = most_bytes - most_bytes / 16;
        while self.bytes > aim {
            let oldest = self.indexes.iter().enumerate();
            let oldest = oldest.filter_map(|(place, buckets)| Some((buckets.order.front()?.0, place))).min();
            let Some((at, place)) = oldest else { return };
            let before = self.events;
            while self.bytes > aim && self.indexes[place].order.front().is_some_and(|(next, _)| *next <= at) {
                self.drop_oldest(place);
            }
            self.lost += (before - self.events) as u64;
        }
    }

    /// The clock was set back by so many seconds: everything stays as old as it was.
    pub(crate) fn shift(&mut self, back: i64) {
        self.swept -= back;
        let mut last = None;
        let mut events: Vec<&Arc<Remembered>> = Vec::with_capacity(self.events);
        for buckets in &mut self.indexes {
            buckets.order.iter_mut().for_each(|(at, _)| *at -= back);
            events.extend(buckets.by_key.values().flatten());
        }
        // An event stands in many buckets and must be moved once.
        events.sort_by_key(|event| event.number);
        for event in events {
            if last.replace(event.number) != Some(event.number) {
                event.shift(back);
            }
        }
    }

    /// The same events under new rules; those whose winner is gone or changed are forgotten.
    pub(crate) fn carried(self, rules: &Rules, winners: &HashMap<Index, Index>) -> Self {
        let buckets = self.indexes.into_iter().flat_map(|buckets| buckets.by_key.into_values());
        let mut events: Vec<Arc<Remembered>> = buckets.flatten().collect();
        events.sort_by_key(|event| event.number);
        events.dedup_by_key(|event| event.number);
        let mut indexed =
            Self { numbers: self.numbers, swept: self.swept, lost: self.lost, ..Self::new(rules) };
        for event in events {
            if let Some(winner) = winners.get(&event.winner) {
                indexed.append(Arc::new(event.won_by(*winner)), rules);
            }
        }
        indexed
    }

    pub(crate) fn len(&self) -> usize {
        self.events
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
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

/// The bucket of an event; none when it lacks a value that must be the same, so that no search can ever count it.
fn key(quick: &Quick, correlation: &Correlation, everything: bool, event: &impl Values) -> Option<u64> {
    let mut hasher = quick.build_hasher();
    if !correlation.any_agent {
        event.agent().hash(&mut hasher);
    }
    if everything {
        event.category().hash(&mut hasher);
    }
    for shared in &correlation.same {
        match shared {
            Shared::Static(field) => event.field(*field)?.hash(&mut hasher),
            Shared::Location => event.location().hash(&mut hasher),
            Shared::Geo => return None,
        }
    }
    for name in &correlation.same_fields {
        let value = if is_static_name(name) { None } else { event.dynamic_field(name) };
        value?.hash(&mut hasher);
    }
    Some(hasher.finish())
}
