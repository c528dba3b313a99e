//! Events that arrive in pieces: what one line of an id said is filled into the next (analysis-decoders 8).
//!
//! Records are kept in two generations; when the younger is full it becomes the older, and the older goes. So
//! memory is bounded, and a crowd of new ids pushes out the oldest records without any search.

use std::collections::HashMap;
use std::time::Duration;

use tld_model::Timestamp;

use crate::decoder::Decoders;
use crate::{Decoded, StaticField};

/// Fields that are carried over.
const FIELDS: [StaticField; 7] = [
    StaticField::DstUser,
    StaticField::SrcUser,
    StaticField::DstIp,
    StaticField::SrcIp,
    StaticField::DstPort,
    StaticField::SrcPort,
    StaticField::Data,
];
const LIFE: Duration = Duration::from_secs(120);
const KEY_LENGTH: usize = 255;
const VALUE_LENGTH: usize = 80;
/// Look-ups between two purges of old records.
const PURGE_EVERY: u32 = 200;
/// Records of one generation.
const GENERATION: usize = 16_384;

#[derive(Debug, Clone)]
struct Record {
    at: Timestamp,
    values: [Option<Box<[u8]>>; FIELDS.len()],
}

/// What earlier lines said, by host, decoder and id.
#[derive(Debug, Default)]
pub struct Accumulator {
    young: HashMap<Box<[u8]>, Record>,
    old: HashMap<Box<[u8]>, Record>,
    look_ups: u32,
}

impl Accumulator {
    /// Nothing remembered.
    pub fn new() -> Self {
        Self::default()
    }

    /// Fills fields that the event lacks and remembers those it has, if its decoder asks for it.
    pub fn apply(&mut self, decoders: &Decoders, decoded: &mut Decoded<'_>, now: Timestamp) {
        let Some(decoder) = decoded.decoder.map(|id| decoders.info(id)).filter(|info| info.accumulate) else {
            return;
        };
        let Some(id) = decoded.field(StaticField::Id) else { return };
        let hostname = decoded.hostname().unwrap_or_default();
        let mut key = [hostname, decoder.name.as_bytes(), id].join(&b' ');
        key.truncate(KEY_LENGTH);
        self.purge(now);
        let known = self.young.remove(&*key).or_else(|| self.old.remove(&*key));
        let mut record = known
            .filter(|record| now.since(record.at) < LIFE)
            .unwrap_or_else(|| Record { at: now, values: Default::default() });
        record.at = now;
        for (field, slot) in FIELDS.into_iter().zip(&mut record.values) {
            match (decoded.field(field), &slot) {
                (None, Some(value)) => decoded.set(field, value),
                (Some(value), None) if value.len() <= VALUE_LENGTH => *slot = Some(value.into()),
                _ => {}
            }
        }
        if self.young.len() >= GENERATION {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key.into(), record);
    }

    /// Records held, at most twice the size of a generation.
    pub fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }

    /// True when nothing is remembered.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn purge(&mut self, now: Timestamp) {
        self.look_ups += 1;
        if self.look_ups >= PURGE_EVERY {
            self.look_ups = 0;
            let lives = |record: &Record| now.since(record.at) < LIFE;
            self.young.retain(|_, record| lives(record));
            self.old.retain(|_, record| lives(record));
        }
    }
}
