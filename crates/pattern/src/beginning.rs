//! What the first bytes of a subject tell of an expression that is bound to its beginning.
//!
//! Invariant: a subject that matches is never refused; where nothing is known, everything is allowed.

use crate::block;

/// A set of byte values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ByteSet([u64; 4]);

impl ByteSet {
    pub(crate) const EMPTY: Self = Self([0; 4]);

    /// With a byte that is not NUL.
    pub(crate) const fn with(mut self, byte: u8) -> Self {
        self.0[(byte >> 6) as usize] |= 1 << (byte & 63);
        self
    }

    /// All other bytes; subjects hold no NUL.
    pub(crate) const fn inverted(self) -> Self {
        Self([!self.0[0] & !1, !self.0[1], !self.0[2], !self.0[3]])
    }

    /// Subjects hold no NUL.
    pub(crate) fn of(holds: impl Fn(u8) -> bool) -> Self {
        let mut words = [0; 4];
        for byte in (1..=u8::MAX).filter(|&byte| holds(byte)) {
            words[usize::from(byte >> 6)] |= 1 << (byte & 63);
        }
        Self(words)
    }

    pub(crate) fn contains(&self, byte: u8) -> bool {
        self.0[usize::from(byte >> 6)] >> (byte & 63) & 1 == 1
    }

    /// Whether both have a member.
    pub(crate) fn meets(&self, other: &Self) -> bool {
        self.0.iter().zip(&other.0).any(|(one, other)| one & other != 0)
    }

    /// The members of both.
    pub(crate) fn and(self, other: &Self) -> Self {
        let mut words = self.0;
        words.iter_mut().zip(&other.0).for_each(|(word, other)| *word &= other);
        Self(words)
    }

    pub(crate) fn or(self, other: &Self) -> Self {
        let mut words = self.0;
        words.iter_mut().zip(&other.0).for_each(|(word, other)| *word |= other);
        Self(words)
    }
}

/// The bytes that may stand at the first places of a subject that matches, as far as it reaches.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Beginning {
    sets: Box<[ByteSet]>,
}

/// The places at which only one byte may stand, or a letter in either case: most of those that are known, in one number. A
/// byte of it is 0 where it tells nothing; its highest bit tells that a small letter may also be a capital one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Single(u64);

impl Single {
    const EACH: u64 = u64::from_ne_bytes([1; 8]);

    fn of(sets: &[ByteSet]) -> Self {
        let mut single = 0;
        for (place, set) in sets.iter().enumerate() {
            let mut members = (1..=u8::MAX).filter(|byte| set.contains(*byte));
            let own = match (members.next(), members.next(), members.next()) {
                (Some(one), None, None) if one.is_ascii() => one,
                // Small letters stand behind the capital ones.
                (Some(one), Some(other), None) if one | 0x20 == other && other.is_ascii() => other | 0x80,
                _ => continue,
            };
            single |= u64::from(own) << (8 * place);
        }
        Self(single)
    }

    /// Whether a subject may match.
    #[inline]
    pub(crate) fn allows(self, text: &[u8]) -> bool {
        if self.0 == 0 {
            return true;
        }
        let there = if text.len() < Beginning::PLACES { !(u64::MAX << (8 * text.len())) } else { u64::MAX };
        self.differs(block::eight(text)) & there == 0
    }

    /// Bits that are not as they must be.
    #[inline]
    fn differs(self, first: u64) -> u64 {
        let (low, high) = (self.0 & (0x7f * Self::EACH), self.0 & (0x80 * Self::EACH));
        let told = (low + 0x7f * Self::EACH) & (0x80 * Self::EACH);
        let mask = (told << 1).wrapping_sub(told >> 7);
        ((first | high >> 2) ^ low) & mask
    }
}

impl Beginning {
    /// So many bytes are looked at.
    pub const PLACES: usize = 8;

    /// Of what may stand at each place; what is behind the last of them may be anything.
    pub(crate) fn new(mut places: Vec<ByteSet>) -> Self {
        places.truncate(Self::PLACES);
        Self { sets: places.into() }
    }

    /// Of a subject that one of several allows; nothing is known of no expression at all.
    pub(crate) fn any(all: impl IntoIterator<Item = Self>) -> Self {
        let either = |one: Self, other: Self| {
            Self::new(one.sets.iter().zip(&other.sets).map(|(a, b)| a.or(b)).collect())
        };
        all.into_iter().reduce(either).unwrap_or_default()
    }

    /// Of a lower-case text that stands there in any case.
    pub(crate) fn of_text(text: &[u8]) -> Self {
        let text = text.iter().take(Self::PLACES);
        Self::new(text.map(|own| ByteSet::of(|byte| byte.to_ascii_lowercase() == *own)).collect())
    }

    /// Whether this byte at this place leaves a match possible.
    pub fn allows(&self, place: usize, byte: u8) -> bool {
        self.sets.get(place).is_none_or(|set| set.contains(byte))
    }

    /// How many places are known.
    pub fn len(&self) -> usize {
        self.sets.len()
    }

    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        self.sets.is_empty()
    }

    /// What one number tells of it.
    pub(crate) fn single(&self) -> Single {
        Single::of(&self.sets)
    }

    /// Whether a subject may match.
    pub fn allows_text(&self, text: &[u8]) -> bool {
        self.sets.iter().zip(text).all(|(set, byte)| set.contains(*byte))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Sets of no byte, one, two, a few and most.
    fn set() -> impl Strategy<Value = ByteSet> {
        prop_oneof![
            "[aAbB1@`!]".prop_map(|one| ByteSet::of(|byte| byte == one.as_bytes()[0])),
            "[a-c]".prop_map(|one| ByteSet::of(|byte| byte.to_ascii_lowercase() == one.as_bytes()[0])),
            "[aAbB@`]{0,3}".prop_map(|few| ByteSet::of(|byte| few.as_bytes().contains(&byte))),
            Just(ByteSet::of(|byte| byte != b'a')),
            Just(ByteSet::of(|byte| byte == 0xc3)),
        ]
    }

    proptest! {
        #[test]
        fn one_number_tells_of_the_places_with_a_single_byte(
            sets in proptest::collection::vec(set(), 0..10),
            text in "[aAbB1@`! é]{0,10}",
        ) {
            let beginning = Beginning::new(sets);
            let plain = beginning.sets.iter().zip(text.as_bytes()).all(|(set, byte)| {
                let members: Vec<u8> = (1..=u8::MAX).filter(|byte| set.contains(*byte)).collect();
                let told = match members[..] {
                    [one] => one.is_ascii(),
                    [one, other] => one | 0x20 == other && other.is_ascii(),
                    _ => false,
                };
                !told || set.contains(*byte)
            });
            prop_assert_eq!(beginning.single().allows(text.as_bytes()), plain);
        }
    }
}
