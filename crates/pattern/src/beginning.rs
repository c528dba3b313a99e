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

    pub(crate) fn or(self, other: &Self) -> Self {
        let mut words = self.0;
        words.iter_mut().zip(&other.0).for_each(|(word, other)| *word |= other);
        Self(words)
    }
}

/// The bytes that may stand at the first places of a subject that matches, as far as it reaches.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Beginning(Vec<ByteSet>);

impl Beginning {
    /// So many bytes are looked at.
    pub const PLACES: usize = 8;

    /// Of what may stand at each place; what is behind the last of them may be anything.
    pub(crate) fn new(mut places: Vec<ByteSet>) -> Self {
        places.truncate(Self::PLACES);
        Self(places)
    }

    /// Of a subject that one of several allows; nothing is known of no expression at all.
    pub(crate) fn any(all: impl IntoIterator<Item = Self>) -> Self {
        let either =
            |one: Self, other: Self| Self(one.0.iter().zip(&other.0).map(|(a, b)| a.or(b)).collect());
        all.into_iter().reduce(either).unwrap_or_default()
    }

    /// Of a lower-case text that stands there in any case.
    pub(crate) fn of_text(text: &[u8]) -> Self {
        Self::new(text.iter().map(|own| ByteSet::of(|byte| byte.to_ascii_lowercase() == *own)).collect())
    }

    /// Whether this byte at this place leaves a match possible.
    pub fn allows(&self, place: usize, byte: u8) -> bool {
        self.0.get(place).is_none_or(|set| set.contains(byte))
    }

    /// How many places are known.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a subject may match.
    pub fn allows_text(&self, text: &[u8]) -> bool {
        self.0.iter().zip(text).all(|(set, byte)| set.contains(*byte))
    }
}
