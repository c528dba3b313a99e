//! Arrivals of rules that ask for different values (`different_*`): a search may have to pass over any number of events of
//! a key, so all of them are kept, and with each a hash of the values that must not be the same.
//! Invariant: times of arrivals never run back.

use std::collections::{HashMap, VecDeque};
use std::hash::BuildHasher;

use super::chains::Arrival;
use super::reference::is_static_name;
use super::remembered::Values;
use crate::hash::Quick;
use crate::rule::Index;
use crate::rule::correlation::{Correlation, Shared};

/// What a rule asks two events to differ in.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Asked {
    Value(Shared),
    Field(Box<str>),
}

/// Events of one key.
#[derive(Debug, Default)]
struct Bucket {
    arrivals: VecDeque<(Arrival, bool)>,
    /// As many for each as are asked for; 0 where the event lacks the value.
    values: VecDeque<u64>,
}

/// Arrivals of rules that search alike.
#[derive(Debug)]
pub(super) struct Wide {
    /// Seconds after which an arrival leaves.
    pub(super) timeframe: i64,
    asked: Vec<Asked>,
    /// Which of them each rule asks for.
    of_rule: HashMap<Index, Vec<usize>, Quick>,
    buckets: HashMap<u64, Bucket, Quick>,
    /// When which bucket got an event, oldest first.
    order: VecDeque<(u32, u64)>,
    arrivals: usize,
    /// Values of the event in hand.
    values: Vec<u64>,
}

impl Wide {
    pub(super) fn new() -> Self {
        Self {
            timeframe: 0,
            asked: Vec::new(),
            of_rule: HashMap::default(),
            buckets: HashMap::default(),
            order: VecDeque::new(),
            arrivals: 0,
            values: Vec::new(),
        }
    }

    /// Serves one more rule; only before the first arrival.
    pub(super) fn serve(&mut self, rule: Index, correlation: &Correlation) {
        self.timeframe = self.timeframe.max(i64::from(correlation.timeframe));
        let mut place = |asked| {
            self.asked.iter().position(|known| *known == asked).unwrap_or_else(|| {
                self.asked.push(asked);
                self.asked.len() - 1
            })
        };
        let places = wanted(correlation).map(&mut place).collect();
        self.of_rule.insert(rule, places);
    }

    /// Memory that it holds, roughly.
    pub(super) fn bytes(&self) -> usize {
        let arrival = size_of::<(Arrival, bool)>() + 8 * self.asked.len() + size_of::<(u32, u64)>();
        3 * arrival * self.arrivals / 2 + 2 * size_of::<(u64, Bucket)>() * self.buckets.len()
    }

    /// When the oldest arrival came.
    pub(super) fn oldest(&self) -> Option<u32> {
        self.order.front().map(|(at, _)| *at)
    }

    /// All arrivals.
    pub(super) fn all(&self) -> impl Iterator<Item = Arrival> {
        self.buckets.values().flat_map(|bucket| bucket.arrivals.iter().map(|(arrival, _)| *arrival))
    }

    /// Arrivals of a key, newest first, and whether each differs from the event as the rule asks.
    pub(super) fn of(
        &mut self,
        key: u64,
        rule: (Index, &Correlation),
        event: &impl Values,
        quick: &Quick,
    ) -> impl Iterator<Item = (Arrival, bool)> {
        self.values.clear();
        self.values.extend(self.asked.iter().map(|asked| value(asked, event, quick)));
        let Self { asked, of_rule, buckets, values, .. } = self;
        let (values, stride) = (&*values, asked.len());
        let places = of_rule.get(&rule.0).map_or(&[][..], Vec::as_slice);
        let mixed = !rule.1.different_fields.is_empty() && !event.has_dynamic();
        let bucket = buckets.get(&key);
        bucket.into_iter().flat_map(move |bucket| {
            let arrivals = bucket.arrivals.iter().enumerate().rev();
            arrivals.map(move |(number, (arrival, dynamic))| {
                let equal = |place: &usize| {
                    values[*place] != 0 && bucket.values.get(number * stride + place) == Some(&values[*place])
                };
                let differs = !places.iter().any(equal) && (!mixed || *dynamic);
                (*arrival, differs)
            })
        })
    }

    /// Appends an arrival that counts so many times.
    pub(super) fn push(
        &mut self,
        key: u64,
        arrival: Arrival,
        times: usize,
        event: &impl Values,
        quick: &Quick,
    ) {
        self.values.clear();
        self.values.extend(self.asked.iter().map(|asked| value(asked, event, quick)));
        let bucket = self.buckets.entry(key).or_default();
        for _ in 0..times {
            bucket.arrivals.push_back((arrival, event.has_dynamic()));
            bucket.values.extend(&self.values);
        }
        self.arrivals += times;
        self.order.push_back((arrival.at, key));
    }

    /// Takes out what came before `oldest`.
    pub(super) fn expire(&mut self, oldest: i64, mut gone: impl FnMut(u32)) {
        while self.order.front().is_some_and(|(at, _)| i64::from(*at) < oldest) {
            self.pop(&mut gone);
        }
    }

    /// Takes out the oldest arrival.
    pub(super) fn pop(&mut self, gone: &mut impl FnMut(u32)) {
        let Some((_, key)) = self.order.pop_front() else { return };
        let Some(bucket) = self.buckets.get_mut(&key) else { return };
        let event = bucket.arrivals.front().map(|(arrival, _)| arrival.event);
        while bucket.arrivals.front().is_some_and(|(next, _)| Some(next.event) == event) {
            let Some((arrival, _)) = bucket.arrivals.pop_front() else { break };
            bucket.values.drain(..self.asked.len());
            self.arrivals -= 1;
            gone(arrival.event);
        }
        if bucket.arrivals.is_empty() {
            self.buckets.remove(&key);
        }
    }

    /// Gives up memory that nothing is in.
    pub(super) fn tidy(&mut self) {
        if self.order.capacity() > 1024 && self.order.len() < self.order.capacity() / 4 {
            self.order.shrink_to_fit();
            self.buckets.shrink_to_fit();
        }
    }
}

fn wanted(correlation: &Correlation) -> impl Iterator<Item = Asked> {
    let values = correlation.different.iter().map(|shared| Asked::Value(*shared));
    values.chain(correlation.different_fields.iter().map(|name| Asked::Field(name.clone())))
}

/// A hash that is never 0; 0 for what the event lacks, which is equal to nothing.
fn value(asked: &Asked, event: &impl Values, quick: &Quick) -> u64 {
    let value = match asked {
        Asked::Value(Shared::Static(field)) => event.field(*field),
        Asked::Value(Shared::Location) => Some(event.location()),
        Asked::Value(Shared::Geo) => None,
        Asked::Field(name) if is_static_name(name) => None,
        Asked::Field(name) => event.dynamic_field(name),
    };
    value.map_or(0, |value| quick.hash_one(value).max(1))
}
