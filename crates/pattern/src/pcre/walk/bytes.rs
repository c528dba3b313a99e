//! Sets of bytes that know how to be looked for.

use crate::beginning::ByteSet;

/// A set, how its members are found and how what is not in it is found.
#[derive(Debug, Clone)]
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
