//! The search for earlier events, line by line as the specification has it (analysis-rules 4), over plain lists.
//! Slow where many events are remembered, and the measure of whatever is faster.
//!
//! Invariant: a list is a subsequence of the queue of all (an event may repeat), so that whoever leaves the queue at
//! the old end leaves its lists at their old ends.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use tld_pattern::OsRegex;

use super::remembered::{Remembered, Values};
use crate::rule::correlation::{Correlation, Shared, Target};
use crate::rule::{Index, ListId, Rule, Rules};
use crate::{Decoded, StaticField, Texts};

/// What a search found.
#[derive(Debug)]
pub(crate) enum Found {
    /// Too few: so many.
    Nothing(u32),
    /// An event that an alert of this or a higher level has used up hides the rest, behind so many.
    Hidden(u32),
    /// Enough; the texts of the events in the order of the walk.
    Enough(Texts),
}

/// Entries of the last-events list.
pub(super) const LAST_EVENTS: usize = 11;

/// One search.
#[derive(Debug)]
pub(crate) struct Search<'a> {
    correlation: &'a Correlation,
    level: u8,
    now: i64,
    /// The walk goes over all events: types must be equal, and the log must match the expression, if there is one.
    everything: bool,
    regex: Option<&'a OsRegex>,
}

impl<'a> Search<'a> {
    /// The search of a composite rule.
    pub(crate) fn of(rule: &'a Rule, now: i64) -> Self {
        let (everything, regex) = match &rule.place.target {
            Some(Target::Everything(regex)) => (true, regex.as_ref()),
            _ => (false, None),
        };
        Self { correlation: &rule.correlation, level: rule.info.level, now, everything, regex }
    }

    /// Walks the events, newest first. Marks the newest counted one when enough are found; the caller marks the
    /// event that completes them.
    pub(crate) fn run<'m>(
        &self,
        event: &Decoded<'_>,
        events: impl Iterator<Item = &'m Arc<Remembered>>,
    ) -> Found {
        let mut last_events: Vec<&Arc<Remembered>> = Vec::new();
        let mut counted = 0;
        let mut newest: Option<&Arc<Remembered>> = None;
        for old in events {
            if self.now - old.at() > i64::from(self.correlation.timeframe) {
                return Found::Nothing(counted);
            }
            if !self.alike(event, old) {
                continue;
            }
            if old.mark() >= self.level {
                return Found::Hidden(counted);
            }
            let count = counted < self.correlation.frequency;
            if last_events.len() < LAST_EVENTS && (count || !self.everything) {
                last_events.push(old);
            }
            if count {
                newest.get_or_insert(old);
                counted += 1;
                continue;
            }
            if let Some(newest) = newest {
                newest.set_mark(self.level);
            }
            return Found::Enough(last_events.iter().map(|event| event.full_log()).collect());
        }
        Found::Nothing(counted)
    }

    fn alike(&self, event: &Decoded<'_>, old: &Remembered) -> bool {
        if self.everything {
            if old.category != event.category {
                return false;
            }
            if self.regex.is_some_and(|regex| !regex.is_match(old.log())) {
                return false;
            }
        }
        let correlation = self.correlation;
        (correlation.any_agent || event.agent() == old.agent)
            && correlation.same.iter().all(|shared| equal(*shared, event, old))
            && !correlation.different.iter().any(|shared| equal(*shared, event, old))
            && correlation.same_fields.iter().all(|name| equal_dynamic(name, event, old))
            && different_fields(&correlation.different_fields, event, old)
    }
}

/// Whether a name in `same_field` or `different_field` is one of a static field: those are never found, also when a
/// decoder made a dynamic field of such a name.
pub(crate) fn is_static_name(name: &str) -> bool {
    name == "user" || StaticField::from_name(name).is_some()
}

/// Present in both and equal.
fn equal(shared: Shared, event: &Decoded<'_>, old: &Remembered) -> bool {
    match shared {
        Shared::Static(field) => event.field(field).is_some_and(|value| old.field(field) == Some(value)),
        Shared::Location => *event.location == *old.location(),
        Shared::Geo => false,
    }
}

fn different_fields(names: &[Box<str>], event: &Decoded<'_>, old: &Remembered) -> bool {
    if names.is_empty() {
        return true;
    }
    let none_at_all = !event.has_dynamic() && !old.has_dynamic();
    !none_at_all && !names.iter().any(|name| equal_dynamic(name, event, old))
}

fn equal_dynamic(name: &str, event: &Decoded<'_>, old: &Remembered) -> bool {
    !is_static_name(name)
        && event.dynamic_field(name).is_some_and(|value| old.dynamic_field(name) == Some(value))
}

/// All remembered events.
#[derive(Debug, Default)]
pub(crate) struct Lists {
    all: VecDeque<Arc<Remembered>>,
    lists: Vec<VecDeque<Arc<Remembered>>>,
    numbers: u64,
}

impl Lists {
    pub(crate) fn new(rules: &Rules) -> Self {
        let lists = std::iter::repeat_with(VecDeque::new).take(rules.lists).collect();
        Self { lists, ..Self::default() }
    }

    pub(crate) fn search(&self, rule: &Rule, event: &Decoded<'_>, now: i64) -> Found {
        let search = Search::of(rule, now);
        match &rule.place.target {
            Some(Target::Everything(_)) => search.run(event, self.all.iter().rev()),
            Some(Target::List(Some(list))) => {
                search.run(event, self.lists.get(*list).into_iter().flat_map(|list| list.iter().rev()))
            }
            Some(Target::List(None)) | None => Found::Nothing(0),
        }
    }

    /// Remembers an event that `winner` won.
    pub(crate) fn remember(
        &mut self,
        event: &Decoded<'_>,
        at: i64,
        mark: u8,
        winner: Index,
        rules: &Rules,
        horizon: i64,
    ) {
        while self.all.front().is_some_and(|oldest| oldest.at() < at - horizon) {
            self.forget_oldest(rules);
        }
        self.numbers += 1;
        self.append(Arc::new(Remembered::new(event, at, mark, winner, self.numbers)), rules);
    }

    fn append(&mut self, event: Arc<Remembered>, rules: &Rules) {
        for &(list, times) in rules.feeds(event.winner) {
            if let Some(list) = self.lists.get_mut(list) {
                list.extend(std::iter::repeat_n(Arc::clone(&event), times as usize));
            }
        }
        self.all.push_back(event);
    }

    fn forget_oldest(&mut self, rules: &Rules) {
        let Some(event) = self.all.pop_front() else { return };
        for &(list, times) in rules.feeds(event.winner) {
            if let Some(list) = self.lists.get_mut(list) {
                list.drain(..(times as usize).min(list.len()));
            }
        }
    }

    pub(crate) fn shift(&self, back: i64) {
        self.all.iter().for_each(|event| event.shift(back));
    }

    /// The same events under new rules; those whose winner is gone or changed are forgotten.
    pub(crate) fn carried(self, rules: &Rules, winners: &HashMap<Index, Index>) -> Self {
        let mut lists = Self { numbers: self.numbers, ..Self::new(rules) };
        for event in self.all {
            if let Some(winner) = winners.get(&event.winner) {
                lists.append(Arc::new(event.won_by(*winner)), rules);
            }
        }
        lists
    }

    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }
}

/// A list's place, so that the indexed engine speaks of the same lists.
pub(crate) fn list_of(rule: &Rule) -> Option<ListId> {
    match rule.place.target {
        Some(Target::List(list)) => list,
        _ => None,
    }
}
