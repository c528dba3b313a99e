//! Events that a later event may be compared with (analysis-rules 4.4). Each is one compact, owned copy that stands
//! in one queue of all and in the lists of the rules that search it.
//!
//! Invariant: a list is a subsequence of the queue of all (an event may repeat), so that whoever leaves the queue at
//! the old end leaves its lists at their old ends. Events leave when no timeframe can reach them, or, counted, when
//! the byte budget is spent.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU8, Ordering};

use tld_model::AgentId;

use crate::rule::{Index, ListId, Rules};
use crate::{Category, Decoded, StaticField};

/// A run of bytes of a remembered event's buffer.
type Run = (u32, u32);

/// Marks a value that the event lacks.
const ABSENT: Run = (u32::MAX, 0);

/// An event as it is remembered.
#[derive(Debug)]
pub(crate) struct Remembered {
    at: AtomicI64,
    mark: AtomicU8,
    pub(crate) agent: AgentId,
    pub(crate) category: Category,
    /// The whole text, then whatever is not part of it.
    bytes: Box<[u8]>,
    full_log: Run,
    log: Run,
    location: Run,
    statics: [Run; 14],
    dynamic: Box<[(Run, Run)]>,
}

impl Remembered {
    fn new(event: &Decoded<'_>, at: i64, mark: u8) -> Self {
        let mut packer = Packer { bytes: event.full_log.to_vec(), text: &event.full_log };
        let full_log = packer.run(&event.full_log);
        let log = packer.run(&event.log);
        let location = packer.run(&event.location);
        let mut statics = [ABSENT; 14];
        for field in StaticField::ALL {
            if let Some(value) = event.field(field) {
                statics[field as usize] = packer.run(value);
            }
        }
        let dynamic =
            event.dynamic().iter().map(|(name, value)| (packer.run(name.as_bytes()), packer.run(value)));
        let dynamic = dynamic.collect();
        Self {
            at: AtomicI64::new(at),
            mark: AtomicU8::new(mark),
            agent: event.event.agent.id,
            category: event.category,
            bytes: packer.bytes.into(),
            full_log,
            log,
            location,
            statics,
            dynamic,
        }
    }

    fn slice(&self, run: Run) -> Option<&[u8]> {
        self.bytes.get(run.0 as usize..run.1 as usize)
    }

    pub(crate) fn at(&self) -> i64 {
        self.at.load(Ordering::Relaxed)
    }

    pub(crate) fn mark(&self) -> u8 {
        self.mark.load(Ordering::Relaxed)
    }

    pub(crate) fn set_mark(&self, level: u8) {
        self.mark.store(level, Ordering::Relaxed);
    }

    pub(crate) fn full_log(&self) -> &[u8] {
        self.slice(self.full_log).unwrap_or_default()
    }

    pub(crate) fn log(&self) -> &[u8] {
        self.slice(self.log).unwrap_or_default()
    }

    pub(crate) fn location(&self) -> &[u8] {
        self.slice(self.location).unwrap_or_default()
    }

    pub(crate) fn field(&self, field: StaticField) -> Option<&[u8]> {
        self.statics.get(field as usize).and_then(|run| self.slice(*run))
    }

    pub(crate) fn has_dynamic(&self) -> bool {
        !self.dynamic.is_empty()
    }

    pub(crate) fn dynamic_field(&self, name: &str) -> Option<&[u8]> {
        let named = |(key, _): &&(Run, Run)| {
            self.slice(*key).is_some_and(|key| key.eq_ignore_ascii_case(name.as_bytes()))
        };
        self.dynamic.iter().find(named).and_then(|(_, value)| self.slice(*value))
    }

    fn weight(&self) -> usize {
        size_of::<Self>() + self.bytes.len() + self.dynamic.len() * size_of::<(Run, Run)>()
    }
}

/// Most values are slices of the text: those are kept as places in it.
struct Packer<'a> {
    bytes: Vec<u8>,
    text: &'a [u8],
}

impl Packer<'_> {
    fn run(&mut self, value: &[u8]) -> Run {
        let offset = (value.as_ptr() as usize).wrapping_sub(self.text.as_ptr() as usize);
        let inside = offset.checked_add(value.len()).is_some_and(|end| end <= self.text.len());
        let start = if inside {
            offset
        } else {
            self.bytes.extend_from_slice(value);
            self.bytes.len() - value.len()
        };
        // A text beyond 4 GiB cannot arrive; its values would count as absent.
        match (u32::try_from(start), u32::try_from(start + value.len())) {
            (Ok(start), Ok(end)) => (start, end),
            _ => ABSENT,
        }
    }
}

#[derive(Debug)]
struct Entry {
    event: Arc<Remembered>,
    winner: Index,
    weight: usize,
}

/// All remembered events.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    all: VecDeque<Entry>,
    lists: Vec<VecDeque<Arc<Remembered>>>,
    bytes: usize,
    /// Events that left although a timeframe could still reach them.
    pub(crate) lost: u64,
}

impl Memory {
    pub(crate) fn new(lists: usize) -> Self {
        Self { lists: std::iter::repeat_with(VecDeque::new).take(lists).collect(), ..Self::default() }
    }

    /// Events of one list, newest first.
    pub(crate) fn list(&self, list: ListId) -> impl Iterator<Item = &Arc<Remembered>> {
        self.lists.get(list).into_iter().flat_map(|list| list.iter().rev())
    }

    /// All events, newest first.
    pub(crate) fn everything(&self) -> impl Iterator<Item = &Arc<Remembered>> {
        self.all.iter().rev().map(|entry| &entry.event)
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
        let event = Arc::new(Remembered::new(event, at, mark));
        self.append(event, winner, rules);
        while self.bytes > most_bytes && self.all.len() > 1 {
            self.forget_oldest(rules);
            self.lost += 1;
        }
    }

    fn append(&mut self, event: Arc<Remembered>, winner: Index, rules: &Rules) {
        let mut weight = event.weight();
        for &(list, times) in rules.feeds(winner) {
            if let Some(list) = self.lists.get_mut(list) {
                list.extend(std::iter::repeat_n(Arc::clone(&event), times as usize));
                weight += times as usize * size_of::<Arc<Remembered>>();
            }
        }
        self.bytes += weight;
        self.all.push_back(Entry { event, winner, weight });
    }

    /// Forgets what lies before `oldest`.
    pub(crate) fn expire(&mut self, oldest: i64, rules: &Rules) {
        while self.all.front().is_some_and(|entry| entry.event.at() < oldest) {
            self.forget_oldest(rules);
        }
    }

    fn forget_oldest(&mut self, rules: &Rules) {
        let Some(entry) = self.all.pop_front() else { return };
        self.bytes = self.bytes.saturating_sub(entry.weight);
        for &(list, times) in rules.feeds(entry.winner) {
            if let Some(list) = self.lists.get_mut(list) {
                list.drain(..(times as usize).min(list.len()));
            }
        }
    }

    /// The clock was set back to `now`: whatever is remembered happened before.
    pub(crate) fn clamp(&self, now: i64) {
        for entry in &self.all {
            if entry.event.at() > now {
                entry.event.at.store(now, Ordering::Relaxed);
            }
        }
    }

    /// The same events under new rules; those whose winner is gone or changed are forgotten.
    pub(crate) fn carried(
        self,
        lists: usize,
        winners: &std::collections::HashMap<Index, Index>,
        rules: &Rules,
    ) -> Self {
        let mut memory = Self { lost: self.lost, ..Self::new(lists) };
        for entry in self.all {
            if let Some(winner) = winners.get(&entry.winner) {
                memory.append(entry.event, *winner, rules);
            }
        }
        memory
    }

    /// How many events there are.
    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }

    /// About how many bytes they take.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}
