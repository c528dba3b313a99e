//! The groups of one match, in a buffer that is used again for the next.

use std::ops::Range;

/// The captured groups of the last match as byte ranges of the subject, counted from zero.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Captures {
    groups: Vec<Range<usize>>,
    /// A buffer of the OSRegex matcher, empty between matches.
    marks: Vec<Option<usize>>,
}

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
    pub(crate) fn take_marks(&mut self) -> Vec<Option<usize>> {
        std::mem::take(&mut self.marks)
    }

    pub(crate) fn give_marks(&mut self, mut marks: Vec<Option<usize>>) {
        marks.clear();
        self.marks = marks;
    }

    pub(crate) fn push(&mut self, group: Range<usize>) {
        self.groups.push(group);
    }

    pub(crate) fn truncate(&mut self, length: usize) {
        self.groups.truncate(length);
    }
}
