//! The groups of one match, in a buffer that is used again for the next.

use std::collections::HashMap;
use std::ops::Range;

use regex::bytes::{CaptureLocations, Regex};

/// The captured groups of the last match as byte ranges of the subject, counted from zero.
#[derive(Debug, Clone, Default)]
pub struct Captures {
    groups: Vec<Range<usize>>,
    /// A buffer of the OSRegex matcher, empty between matches.
    marks: Vec<usize>,
    /// A buffer of the walks along PCRE2 patterns.
    slots: Vec<u32>,
    /// Buffers of linear expressions, by the expression's address and its number of groups.
    places: HashMap<(usize, usize), CaptureLocations>,
}

/// Buffers do not count: two are equal when their groups are.
impl PartialEq for Captures {
    fn eq(&self, other: &Self) -> bool {
        self.groups == other.groups
    }
}

impl Eq for Captures {}

/// So many expressions' buffers are kept.
const MOST_PLACES: usize = 1024;

impl Captures {
    /// An empty buffer.
    pub fn new() -> Self {
        Self::default()
    }

    /// The number of groups captured.
    pub fn len(&self) -> usize {
        self.groups.len()
    }

    /// Whether nothing was captured.
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// The range of group `index`; a group that took no part before one that did is empty.
    pub fn get(&self, index: usize) -> Option<Range<usize>> {
        self.groups.get(index).cloned()
    }

    /// The ranges in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Range<usize>> + '_ {
        self.groups.iter().cloned()
    }

    /// Forgets all groups and keeps the memory.
    pub fn clear(&mut self) {
        self.groups.clear();
    }

    /// The buffer for marks, to be given back.
    pub(crate) fn take_marks(&mut self) -> Vec<usize> {
        std::mem::take(&mut self.marks)
    }

    pub(crate) fn give_marks(&mut self, mut marks: Vec<usize>) {
        marks.clear();
        self.marks = marks;
    }

    /// The buffer for the marks of so many groups, to be given back.
    pub(crate) fn take_slots(&mut self, groups: usize) -> Vec<u32> {
        let mut slots = std::mem::take(&mut self.slots);
        slots.clear();
        slots.resize(2 * groups, u32::MAX);
        slots
    }

    /// Takes the buffer back, and the groups from it if they were `found`.
    pub(crate) fn give_slots(&mut self, slots: Vec<u32>, found: bool) {
        let set = |pair: &[u32]| pair[0] != u32::MAX && pair[1] != u32::MAX;
        let taken = slots.chunks_exact(2).rposition(set).filter(|_| found).map_or(0, |last| last + 1);
        self.groups.extend(slots.chunks_exact(2).take(taken).map(|pair| match set(pair) {
            true => pair[0] as usize..pair[1] as usize,
            false => 0..0,
        }));
        self.slots = slots;
    }

    /// The buffer of an expression.
    pub(crate) fn places(&mut self, regex: &Regex) -> &mut CaptureLocations {
        if self.places.len() >= MOST_PLACES {
            self.places.clear();
        }
        // An expression that stands where another one stood before has its own buffer unless both have as many groups,
        // and then one serves both.
        let key = (std::ptr::from_ref(regex) as usize, regex.captures_len());
        self.places.entry(key).or_insert_with(|| regex.capture_locations())
    }

    /// Stores the groups of that buffer.
    pub(crate) fn take_places(&mut self, regex: &Regex) {
        let key = (std::ptr::from_ref(regex) as usize, regex.captures_len());
        let Some(places) = self.places.get(&key) else { return };
        let mut taken = 0;
        for index in 1..places.len() {
            let group = places.get(index);
            if group.is_some() {
                taken = index;
            }
            let (start, end) = group.unwrap_or((0, 0));
            self.groups.push(start..end);
        }
        self.groups.truncate(taken);
    }

    pub(crate) fn push(&mut self, group: Range<usize>) {
        self.groups.push(group);
    }

    pub(crate) fn truncate(&mut self, length: usize) {
        self.groups.truncate(length);
    }
}
