//! Remembered events in the order of their arrival: how many places still hold each, its mark, and its record.
//!
//! Events stand in segments. The newest one is written to; one that nothing holds any more goes, one that is mostly
//! dead is copied without its dead, and when the store as a whole has grown, all but the newest segments are packed.
//! Invariant: an event keeps its number for as long as it lives.

use std::collections::VecDeque;

use super::pack::{Packer, Patterns};
use super::record::{self, Recalled, Writer};
use crate::rule::Index;
use crate::{Decoded, Texts};

/// Numbers that one segment spans, as a power of two.
const SPAN: u32 = 9;
/// Bytes of records that a segment takes.
const SEGMENT_BYTES: usize = 64 << 10;
/// The newest segments stay as they were written.
const FRESH: usize = 48;
/// Packed events that are packed anew when most of their segment has left.
const FEW: usize = 32;
/// Bytes from which on the others are packed.
const PACK_FROM: usize = 24 << 20;
/// Segments are numbered modulo this.
const NUMBERS: u32 = 1 << 22;
/// Segments that the store spans at most.
const MOST_SEGMENTS: usize = 1 << 20;
/// Empty segments that are kept for their memory.
const MOST_SPARE: usize = 4;

/// A remembered event.
pub(super) type Number = u32;

/// A bit for each number of a segment.
type Marked = [u64; 1 << (SPAN - 6)];

/// Some events that came one after the other.
#[derive(Debug, Default)]
struct Segment {
    /// Which of its numbers are here; none: the first ones.
    here: Option<Box<Marked>>,
    /// How many places hold the event, above eight bits of its mark.
    status: Vec<u32>,
    ends: Vec<u32>,
    records: Vec<u8>,
    patterns: Option<Patterns>,
    live: usize,
}

impl Segment {
    fn rank(&self, number: Number) -> usize {
        let at = number as usize & ((1 << SPAN) - 1);
        let Some(here) = &self.here else { return at };
        let below = here[at / 64] & ((1 << (at % 64)) - 1);
        let words = here[..at / 64].iter().map(|word| word.count_ones()).sum::<u32>();
        (words + below.count_ones()) as usize
    }

    fn record(&self, rank: usize) -> &[u8] {
        let start = rank.checked_sub(1).map_or(0, |before| self.ends[before] as usize);
        &self.records[start..self.ends[rank] as usize]
    }

    /// Places of the events that are here.
    fn places(&self) -> impl Iterator<Item = usize> {
        let here = |at: &usize| match &self.here {
            Some(here) => here[at / 64] >> (at % 64) & 1 == 1,
            None => *at < self.status.len(),
        };
        (0..1 << SPAN).filter(here)
    }

    fn bytes(&self) -> usize {
        let patterns = self.patterns.as_ref().map_or(0, Patterns::bytes);
        let counts = self.status.capacity() + self.ends.capacity();
        size_of::<Self>() + self.records.capacity() + size_of::<u32>() * counts + patterns + 64
    }

    fn clear(&mut self) {
        self.here = None;
        self.patterns = None;
        self.status.clear();
        self.ends.clear();
        self.records.clear();
        self.live = 0;
    }
}

/// All remembered events.
#[derive(Debug)]
pub(super) struct Store {
    segments: VecDeque<Option<Box<Segment>>>,
    /// For each of them which of its events have a mark: few have, and most searches want to know no more.
    marked: VecDeque<Marked>,
    /// Number of the first segment.
    first: u32,
    /// What the first event of the newest segment is numbered.
    base: Number,
    live: usize,
    /// Bytes of all segments but the newest.
    bytes: usize,
    segment_bytes: usize,
    pack_from: usize,
    /// So many segments have been looked at for packing.
    packed: usize,
    spare: Vec<Segment>,
    writer: Writer,
    packer: Packer,
    /// A record on its way from one form to the other.
    buffer: Vec<u8>,
}

impl Store {
    /// A store that is part of so large a memory.
    pub(super) fn new(most_bytes: usize) -> Self {
        Self {
            segments: VecDeque::new(),
            marked: VecDeque::new(),
            first: 0,
            base: 0,
            live: 0,
            bytes: 0,
            segment_bytes: SEGMENT_BYTES.min(most_bytes / 256).max(1024),
            pack_from: PACK_FROM.min(most_bytes / 4),
            packed: 0,
            spare: Vec::new(),
            writer: Writer::default(),
            packer: Packer::default(),
            buffer: Vec::new(),
        }
    }

    /// Events that something holds.
    pub(super) fn len(&self) -> usize {
        self.live
    }

    /// Memory that it holds.
    pub(super) fn bytes(&self) -> usize {
        let newest = self.segments.back().and_then(Option::as_deref).map_or(0, Segment::bytes);
        let spare = self.spare.len() * self.segment_bytes;
        let lists = self.segments.capacity() * size_of::<usize>();
        self.bytes + newest + spare + lists + self.marked.capacity() * size_of::<Marked>()
    }

    /// How many numbers came before this one: numbers begin anew, this does not.
    pub(super) fn age(&self, number: Number) -> usize {
        place(self.first, number) << SPAN | number as usize & ((1 << SPAN) - 1)
    }

    /// Whether numbers are about to run out.
    pub(super) fn is_long(&self) -> bool {
        self.segments.len() >= MOST_SEGMENTS
    }

    /// Takes in an event, which nothing holds yet.
    pub(super) fn push(&mut self, event: &Decoded<'_>, winner: Index, mark: u8) -> Number {
        let needed = event.full_log.len() + event.location.len() + 64;
        self.open(needed);
        let Self { segments, writer, base, .. } = self;
        let mut number = *base;
        if let Some(Some(segment)) = segments.back_mut() {
            number += segment.status.len() as u32;
            writer.write(event, winner, &mut segment.records);
            segment.ends.push(segment.records.len() as u32);
            segment.status.push(u32::from(mark));
        }
        if mark > 0 {
            self.note_mark(number, mark);
        }
        number
    }

    /// Takes in an event of an older memory.
    pub(super) fn push_recalled(&mut self, event: &mut Recalled, winner: Index, mark: u8) -> Number {
        self.open(event.log().len());
        let mut number = self.base;
        if let Some(Some(segment)) = self.segments.back_mut() {
            number += segment.status.len() as u32;
            event.won_by(winner, &mut segment.records);
            segment.ends.push(segment.records.len() as u32);
            segment.status.push(u32::from(mark));
        }
        if mark > 0 {
            self.note_mark(number, mark);
        }
        number
    }

    /// So many places hold the event that came last; without any it is taken back.
    pub(super) fn settle(&mut self, holders: u32) {
        let Some(Some(segment)) = self.segments.back_mut() else { return };
        let Some(status) = segment.status.last_mut() else { return };
        if holders > 0 {
            *status += holders << 8;
            segment.live += 1;
            self.live += 1;
            return;
        }
        segment.status.pop();
        segment.ends.pop();
        segment.records.truncate(segment.ends.last().map_or(0, |end| *end as usize));
        let number = self.base + segment.status.len() as u32;
        self.note_mark(number, 0);
    }

    /// A place gives the event up; whether it was the last one.
    pub(super) fn release(&mut self, number: Number) -> bool {
        let Some((place, segment)) = self.segment(number) else { return false };
        let rank = segment.rank(number);
        let status = &mut segment.status[rank];
        *status -= 1 << 8;
        if *status >> 8 > 0 {
            return false;
        }
        segment.live -= 1;
        let (live, all, packed) = (segment.live, segment.status.len(), segment.patterns.is_some());
        self.live -= 1;
        let share = if packed { 2 } else { 4 };
        if place + 1 < self.segments.len() {
            match live {
                0 => self.free(place),
                _ if live * share < all => self.rebuild(place, false),
                _ => {}
            }
        }
        true
    }

    /// The level of the alert that used the event up.
    pub(super) fn mark(&self, number: Number) -> u8 {
        let place = place(self.first, number);
        let at = number as usize & ((1 << SPAN) - 1);
        if self.marked.get(place).is_none_or(|marked| marked[at / 64] >> (at % 64) & 1 == 0) {
            return 0;
        }
        let segment = self.segments.get(place).and_then(Option::as_deref);
        segment.map_or(0, |segment| segment.status[segment.rank(number)] as u8)
    }

    /// Keeps in mind whether an event has a mark at all.
    fn note_mark(&mut self, number: Number, mark: u8) {
        let at = number as usize & ((1 << SPAN) - 1);
        if let Some(marked) = self.marked.get_mut(place(self.first, number)) {
            let bit = 1 << (at % 64);
            marked[at / 64] = if mark > 0 { marked[at / 64] | bit } else { marked[at / 64] & !bit };
        }
    }

    pub(super) fn set_mark(&mut self, number: Number, level: u8) {
        self.note_mark(number, level);
        if let Some((_, segment)) = self.segment(number) {
            let rank = segment.rank(number);
            segment.status[rank] = segment.status[rank] & !0xff | u32::from(level);
        }
    }

    /// Appends the event's full text.
    pub(super) fn tell(&mut self, number: Number, texts: &mut Texts) {
        self.with_record(number, |record| texts.push(record::full_log(record)));
    }

    /// The event with all its values.
    pub(super) fn recall(&mut self, number: Number) -> Option<Recalled> {
        self.with_record(number, Recalled::new)
    }

    /// Gives up memory that nothing is in.
    pub(super) fn tidy(&mut self) {
        self.spare.clear();
        if self.segments.capacity() > 1024 && self.segments.len() < self.segments.capacity() / 4 {
            self.segments.shrink_to_fit();
            self.marked.shrink_to_fit();
        }
    }

    fn with_record<T>(&mut self, number: Number, read: impl FnOnce(&[u8]) -> T) -> Option<T> {
        let Self { segments, first, packer, buffer, .. } = self;
        let segment = segments.get(place(*first, number))?.as_deref()?;
        let record = segment.record(segment.rank(number));
        let Some(patterns) = &segment.patterns else { return Some(read(record)) };
        buffer.clear();
        packer.unpack(record, patterns, buffer);
        Some(read(buffer))
    }

    fn segment(&mut self, number: Number) -> Option<(usize, &mut Segment)> {
        let place = place(self.first, number);
        Some((place, self.segments.get_mut(place)?.as_deref_mut()?))
    }

    /// Makes room in the newest segment.
    fn open(&mut self, needed: usize) {
        let limit = self.segment_bytes;
        let full = |segment: &Segment| {
            let count = segment.status.len();
            count == 1 << SPAN || (count > 0 && segment.records.len() + needed > limit)
        };
        let newest = self.segments.back().and_then(Option::as_deref);
        if newest.is_none_or(full) {
            self.close();
            let mut segment = self.spare.pop().unwrap_or_default();
            segment.records.reserve(limit);
            self.segments.push_back(Some(Box::new(segment)));
            self.marked.push_back([0; 1 << (SPAN - 6)]);
            self.base = ((self.first + self.segments.len() as u32 - 1) % NUMBERS) << SPAN;
        }
    }

    /// The newest segment takes no more.
    fn close(&mut self) {
        let Some(place) = self.segments.len().checked_sub(1) else { return };
        if let Some(segment) = &self.segments[place] {
            self.bytes += segment.bytes();
            match segment.live {
                0 => self.free(place),
                live if live * 4 < segment.status.len() => self.rebuild(place, false),
                _ => {}
            }
        }
        let mut steps = 2;
        while steps > 0 && self.bytes > self.pack_from && self.packed + FRESH < self.segments.len() {
            if self.segments[self.packed].as_ref().is_some_and(|segment| segment.patterns.is_none()) {
                self.rebuild(self.packed, true);
                steps -= 1;
            }
            self.packed += 1;
        }
    }

    /// Gives a segment up in which nothing lives.
    fn free(&mut self, place: usize) {
        if let Some(mut segment) = self.segments[place].take() {
            self.bytes -= segment.bytes();
            if self.spare.len() < MOST_SPARE && segment.records.capacity() == self.segment_bytes {
                segment.clear();
                self.spare.push(*segment);
            }
        }
        while self.segments.len() > 1 && self.segments.front().is_some_and(Option::is_none) {
            self.segments.pop_front();
            self.marked.pop_front();
            self.first = (self.first + 1) % NUMBERS;
            self.packed = self.packed.saturating_sub(1);
        }
    }

    /// Copies a segment without its dead, packed if it is or shall be.
    fn rebuild(&mut self, place: usize, pack: bool) {
        let Self { segments, packer, buffer, bytes, .. } = self;
        let Some(Some(old)) = segments.get_mut(place) else { return };
        *bytes -= old.bytes();
        let mut here = Box::new([0; 1 << (SPAN - 6)]);
        let mut new = Segment {
            status: Vec::with_capacity(old.live),
            ends: Vec::with_capacity(old.live),
            live: old.live,
            ..Segment::default()
        };
        // Few records are not worth the patterns of many.
        let copy = !pack && (old.patterns.is_none() || old.live >= FEW);
        if !copy {
            new.patterns = Some(Patterns::default());
        }
        packer.begin();
        for (rank, at) in old.places().enumerate().filter(|(rank, _)| old.status[*rank] >> 8 > 0) {
            let mut record = old.record(rank);
            if let Some(patterns) = &mut new.patterns {
                if let Some(patterns) = &old.patterns {
                    buffer.clear();
                    packer.unpack(record, patterns, buffer);
                    record = buffer.as_slice();
                }
                packer.pack(record, patterns, &mut new.records);
            } else {
                new.records.extend_from_slice(record);
            }
            here[at / 64] |= 1 << (at % 64);
            new.status.push(old.status[rank]);
            new.ends.push(new.records.len() as u32);
        }
        if new.live < 1 << SPAN {
            new.here = Some(here);
        }
        new.records.shrink_to_fit();
        match &mut new.patterns {
            Some(patterns) => patterns.shrink(),
            None => new.patterns = old.patterns.take(),
        }
        *bytes += new.bytes();
        let mut old = std::mem::replace(&mut **old, new);
        if self.spare.len() < MOST_SPARE && old.records.capacity() == self.segment_bytes {
            old.clear();
            self.spare.push(old);
        }
    }
}

/// Place of the segment that a number stands in.
fn place(first: u32, number: Number) -> usize {
    ((number >> SPAN) + NUMBERS - first) as usize % NUMBERS as usize
}

#[cfg(test)]
mod tests {
    use tld_model::{Event, Timestamp};

    use super::super::remembered::Values;
    use super::*;
    use crate::StaticField;

    fn remembered(store: &mut Store, number: usize) -> Number {
        let text =
            format!("Jan  1 00:00:00 h probe: a line of number {number} from 192.0.2.{}", number % 256);
        let event = Event::local("/var/log/probe", text, Timestamp::from_secs(0));
        let mut decoded = Decoded::new(&event);
        decoded.set(StaticField::SrcIp, format!("192.0.2.{}", number % 256).as_bytes());
        let id = event.text.len() - 4..event.text.len();
        decoded.set(StaticField::Id, &event.text[id]);
        decoded.push_dynamic("shop.number", number.to_string().as_bytes(), 8);
        let number = store.push(&decoded, number, (number % 17) as u8);
        store.settle(1);
        number
    }

    fn assert_there(store: &mut Store, number: Number, which: usize) {
        let recalled = store.recall(number).unwrap();
        let text = format!("Jan  1 00:00:00 h probe: a line of number {which} from 192.0.2.{}", which % 256);
        let mut told = Texts::default();
        store.tell(number, &mut told);
        assert_eq!(told.get(0), Some(text.as_bytes()));
        assert_eq!(recalled.winner(), which);
        assert_eq!(recalled.location(), b"/var/log/probe");
        assert_eq!(recalled.field(StaticField::SrcIp), Some(format!("192.0.2.{}", which % 256).as_bytes()));
        assert_eq!(recalled.field(StaticField::Id), Some(&text.as_bytes()[text.len() - 4..]));
        assert_eq!(recalled.field(StaticField::DstIp), None);
        assert_eq!(recalled.dynamic_field("SHOP.number"), Some(which.to_string().as_bytes()));
        assert_eq!(store.mark(number), (which % 17) as u8);
    }

    #[test]
    fn events_come_back_unchanged_however_many_leave_and_however_they_are_kept() {
        let mut store = Store::new(4 << 20);
        let mut held: Vec<(Number, usize)> =
            (0..40_000).map(|which| (remembered(&mut store, which), which)).collect();
        assert!(store.segments.iter().flatten().any(|segment| segment.patterns.is_some()));
        for share in [2, 3, 5, 7] {
            let (gone, stay) = held.into_iter().partition::<Vec<_>, _>(|(_, which)| which % share == 0);
            for (number, _) in gone {
                assert!(store.release(number));
            }
            held = stay;
            assert_eq!(store.len(), held.len());
            for (number, which) in held.iter().step_by(97) {
                assert_there(&mut store, *number, *which);
            }
        }
        for (number, which) in held.drain(..).filter(|(_, which)| which % 1000 != 1).collect::<Vec<_>>() {
            assert_there(&mut store, number, which);
            store.release(number);
        }
        assert!(store.len() < 40 && store.bytes() < 500_000, "{} events, {}", store.len(), store.bytes());
    }

    #[test]
    fn numbers_go_on_behind_the_last_one() {
        let mut store = Store::new(1 << 20);
        store.first = NUMBERS - 3;
        let numbers: Vec<Number> = (0..5_000).map(|which| remembered(&mut store, which)).collect();
        let ages: Vec<usize> = numbers.iter().map(|number| store.age(*number)).collect();
        assert!(ages.is_sorted());
        for (which, number) in numbers.iter().enumerate() {
            assert_there(&mut store, *number, which);
        }
    }
}
