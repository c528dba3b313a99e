//! What the first bytes of a subject tell of an expression that is bound to its beginning.
//!
//! Invariant: a subject that matches is never refused; where nothing is known, everything is allowed.

/// A set of byte values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ByteSet([u64; 4]);

impl ByteSet {
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
    single: Single,
}

/// The places at which only one byte may stand, or a letter in either case: most of them, and all in three numbers, so that
/// the sets need not be fetched.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Single {
    word: u64,
    /// What makes a letter small that may stand in either case.
    fold: u64,
    /// The places that are told of.
    mask: u64,
}

impl Single {
    fn of(sets: &[ByteSet]) -> Self {
        let mut single = Self::default();
        for (place, set) in sets.iter().enumerate() {
            let mut members = (1..=u8::MAX).filter(|byte| set.contains(*byte));
            let fold = match (members.next(), members.next(), members.next()) {
                (Some(_), None, None) => 0,
                // Small letters stand behind the capital ones.
                (Some(one), Some(other), None) if one | 0x20 == other => 0x20,
                _ => continue,
            };
            let last = (1..=u8::MAX).rev().find(|byte| set.contains(*byte)).unwrap_or_default();
            let at = 8 * place;
            single.word |= u64::from(last) << at;
            single.fold |= fold << at;
            single.mask |= 0xff << at;
        }
        single
    }

    fn allows(&self, first: [u8; Beginning::PLACES]) -> bool {
        ((u64::from_le_bytes(first) | self.fold) ^ self.word) & self.mask == 0
    }

    /// Whether all of so many places are told of.
    fn tells(&self, places: usize) -> bool {
        self.mask.count_ones() as usize == 8 * places
    }
}

impl Beginning {
    /// So many bytes are looked at.
    pub const PLACES: usize = 8;

    /// Of what may stand at each place; what is behind the last of them may be anything.
    pub(crate) fn new(mut places: Vec<ByteSet>) -> Self {
        places.truncate(Self::PLACES);
        Self { single: Single::of(&places), sets: places.into() }
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

    /// Whether a subject may match.
    #[inline]
    pub fn allows_text(&self, text: &[u8]) -> bool {
        match text.first_chunk() {
            Some(first) if !self.single.allows(*first) => false,
            Some(_) if self.single.tells(self.sets.len()) => true,
            _ => self.allows_each(text),
        }
    }

    /// [`Beginning::allows_text`], place by place.
    fn allows_each(&self, text: &[u8]) -> bool {
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
        ]
    }

    proptest! {
        #[test]
        fn eight_bytes_at_once_are_allowed_as_one_by_one(
            sets in proptest::collection::vec(set(), 0..10),
            text in "[aAbB1@`! ]{0,10}",
        ) {
            let beginning = Beginning::new(sets);
            prop_assert_eq!(beginning.allows_text(text.as_bytes()), beginning.allows_each(text.as_bytes()));
        }
    }
}
