//! Sets of bytes that know how to be looked for.
//!
//! Most patterns ask for the same few sets. These stand in one table for all patterns, so that walks of many kinds meet
//! them in the caches. Invariant: a set that stands in the table is never another pattern's own.

use crate::beginning::ByteSet;

/// A set, how its members are found and how what is not in it is found.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bytes {
    pub(super) members: ByteSet,
    inside: Few,
    outside: Few,
}

/// Bytes, if they are few.
#[derive(Debug, Clone, Copy)]
enum Few {
    None,
    One(u8),
    Two(u8, u8),
    Three(u8, u8, u8),
    Many,
}

/// Each byte alone, all bytes but each, each letter in both cases, and what escapes stand for.
pub(super) static COMMON: [Bytes; LETTERS + 26 + CLASSES.len()] = common();

const LETTERS: usize = 512;
const CLASSES: [(&[u8], bool); 6] = [
    (b"0123456789", true),
    (b"0123456789", false),
    (b"\t\n\x0b\x0c\r ", true),
    (b"\t\n\x0b\x0c\r ", false),
    (b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz", true),
    (b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz", false),
];

const fn common() -> [Bytes; LETTERS + 26 + CLASSES.len()] {
    let mut sets = [Bytes::told(ByteSet::EMPTY, Few::None, Few::Many); LETTERS + 26 + CLASSES.len()];
    sets[256] = Bytes::told(ByteSet::EMPTY.inverted(), Few::Many, Few::None);
    let mut byte = 1;
    while byte < 256 {
        let own = byte as u8;
        let set = ByteSet::EMPTY.with(own);
        sets[byte] = Bytes::told(set, Few::One(own), Few::Many);
        sets[256 + byte] = Bytes::told(set.inverted(), Few::Many, Few::One(own));
        byte += 1;
    }
    let mut letter = 0;
    while letter < 26 {
        let (upper, lower) = (b'A' + letter, b'a' + letter);
        let set = ByteSet::EMPTY.with(upper).with(lower);
        sets[LETTERS + letter as usize] = Bytes::told(set, Few::Two(upper, lower), Few::Many);
        letter += 1;
    }
    let mut class = 0;
    while class < CLASSES.len() {
        let (members, holds) = CLASSES[class];
        let (mut set, mut member) = (ByteSet::EMPTY, 0);
        while member < members.len() {
            set = set.with(members[member]);
            member += 1;
        }
        let set = if holds { set } else { set.inverted() };
        sets[LETTERS + 26 + class] = Bytes::told(set, Few::Many, Few::Many);
        class += 1;
    }
    sets
}

impl Few {
    fn of(holds: impl Fn(u8) -> bool) -> Self {
        let mut members = (1..=u8::MAX).filter(|byte| holds(*byte));
        match (members.next(), members.next(), members.next(), members.next()) {
            (None, ..) => Self::None,
            (Some(one), None, ..) => Self::One(one),
            (Some(one), Some(two), None, _) => Self::Two(one, two),
            (Some(one), Some(two), Some(three), None) => Self::Three(one, two, three),
            _ => Self::Many,
        }
    }

    /// The first of them in a text; `slow` looks for many.
    fn first(self, text: &[u8], slow: impl FnOnce() -> Option<usize>) -> Option<usize> {
        match self {
            Self::None => None,
            Self::One(one) => memchr::memchr(one, text),
            Self::Two(one, two) => memchr::memchr2(one, two, text),
            Self::Three(one, two, three) => memchr::memchr3(one, two, three, text),
            Self::Many => slow(),
        }
    }
}

impl Bytes {
    /// Subjects hold no NUL.
    pub(super) fn new(members: ByteSet) -> Self {
        let inside = Few::of(|byte| members.contains(byte));
        let outside = Few::of(|byte| !members.contains(byte));
        Self { members, inside, outside }
    }

    const fn told(members: ByteSet, inside: Few, outside: Few) -> Self {
        Self { members, inside, outside }
    }

    pub(super) fn contains(&self, byte: u8) -> bool {
        self.members.contains(byte)
    }

    /// How many members a text begins with.
    pub(super) fn passed(&self, text: &[u8]) -> usize {
        let slow = || text.iter().position(|byte| !self.contains(*byte));
        self.outside.first(text, slow).unwrap_or(text.len())
    }

    /// How many members a text ends with.
    pub(super) fn ending(&self, text: &[u8]) -> usize {
        text.iter().rev().take_while(|byte| self.contains(**byte)).count()
    }

    /// The first place of a member.
    pub(super) fn first_in(&self, text: &[u8]) -> Option<usize> {
        self.inside.first(text, || text.iter().position(|byte| self.contains(*byte)))
    }

    /// The last place of a member.
    pub(super) fn last_in(&self, text: &[u8]) -> Option<usize> {
        match self.inside {
            Few::None => None,
            Few::One(one) => memchr::memrchr(one, text),
            Few::Two(one, two) => memchr::memrchr2(one, two, text),
            Few::Three(one, two, three) => memchr::memrchr3(one, two, three, text),
            Few::Many => text.iter().rposition(|byte| self.contains(*byte)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn common_sets_are_what_their_members_make_them() {
        for set in &COMMON {
            let anew = Bytes::new(set.members);
            assert_eq!(format!("{set:?}"), format!("{anew:?}"));
        }
    }
}
