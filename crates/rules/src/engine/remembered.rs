//! An event that later ones may be compared with: one compact, owned copy, shared by all places that search it.
//! Invariant: only its mark and, when the clock is set back, its time ever change.

use std::sync::atomic::{AtomicI64, AtomicU8, Ordering};

use tld_model::AgentId;

use crate::rule::Index;
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
    /// Place in the order of all remembered events.
    pub(crate) number: u64,
    pub(crate) winner: Index,
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
    pub(crate) fn new(event: &Decoded<'_>, at: i64, mark: u8, winner: Index, number: u64) -> Self {
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
        let dynamic = event.dynamic().map(|(name, value)| (packer.run(&name), packer.run(value)));
        let dynamic = dynamic.collect();
        Self {
            at: AtomicI64::new(at),
            mark: AtomicU8::new(mark),
            number,
            winner,
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

    /// A copy under other rules.
    pub(crate) fn won_by(&self, winner: Index) -> Self {
        Self {
            at: AtomicI64::new(self.at()),
            mark: AtomicU8::new(self.mark()),
            winner,
            number: self.number,
            bytes: self.bytes.clone(),
            dynamic: self.dynamic.clone(),
            ..*self
        }
    }

    /// The clock was set back by so many seconds: the event stays as old as it was.
    pub(crate) fn shift(&self, back: i64) {
        self.at.fetch_sub(back, Ordering::Relaxed);
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

/// What a search compares, of an event that is judged or of one that is remembered.
pub(crate) trait Values {
    fn agent(&self) -> AgentId;
    fn category(&self) -> Category;
    fn location(&self) -> &[u8];
    fn field(&self, field: StaticField) -> Option<&[u8]>;
    fn dynamic_field(&self, name: &str) -> Option<&[u8]>;
    fn has_dynamic(&self) -> bool;
}

impl Values for Remembered {
    fn agent(&self) -> AgentId {
        self.agent
    }

    fn category(&self) -> Category {
        self.category
    }

    fn location(&self) -> &[u8] {
        self.slice(self.location).unwrap_or_default()
    }

    fn field(&self, field: StaticField) -> Option<&[u8]> {
        self.statics.get(field as usize).and_then(|run| self.slice(*run))
    }

    fn dynamic_field(&self, name: &str) -> Option<&[u8]> {
        let named = |(key, _): &&(Run, Run)| {
            self.slice(*key).is_some_and(|key| key.eq_ignore_ascii_case(name.as_bytes()))
        };
        self.dynamic.iter().find(named).and_then(|(_, value)| self.slice(*value))
    }

    fn has_dynamic(&self) -> bool {
        !self.dynamic.is_empty()
    }
}

impl Values for Decoded<'_> {
    fn agent(&self) -> AgentId {
        self.event.agent.id
    }

    fn category(&self) -> Category {
        self.category
    }

    fn location(&self) -> &[u8] {
        &self.location
    }

    fn field(&self, field: StaticField) -> Option<&[u8]> {
        Decoded::field(self, field)
    }

    fn dynamic_field(&self, name: &str) -> Option<&[u8]> {
        Decoded::dynamic_field(self, name)
    }

    fn has_dynamic(&self) -> bool {
        Decoded::has_dynamic(self)
    }
}
