//! A subject as expressions see it, cut once for all that are asked about it.
//!
//! Invariant: no NUL is in it.

/// The part of a subject before its first NUL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Text<'s>(&'s [u8]);

impl<'s> Text<'s> {
    /// Cuts `bytes` at the first NUL.
    pub fn new(bytes: &'s [u8]) -> Self {
        Self(&bytes[..memchr::memchr(0, bytes).unwrap_or(bytes.len())])
    }

    /// For a caller who knows how many bytes of `bytes` stand before the first NUL.
    pub fn measured(bytes: &'s [u8], length: usize) -> Self {
        let text = Self(bytes.get(..length).unwrap_or(bytes));
        debug_assert_eq!(text, Self::new(bytes));
        text
    }

    /// What stands from `place` on; nothing behind the end.
    #[must_use]
    pub fn from(self, place: usize) -> Self {
        Self(self.0.get(place..).unwrap_or_default())
    }

    /// The bytes.
    pub fn bytes(self) -> &'s [u8] {
        self.0
    }
}
