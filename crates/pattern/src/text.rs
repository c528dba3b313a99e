//! A subject as expressions see it, cut once for all that are asked about it.
//!
//! Invariant: no NUL is in it.

use wide::u8x16;

use crate::block::{self, BLOCK};

/// The part of a subject before its first NUL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Text<'s>(&'s [u8]);

impl<'s> Text<'s> {
    /// Cuts `bytes` at the first NUL.
    pub fn new(bytes: &'s [u8]) -> Self {
        Self(&bytes[..length(bytes)])
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

/// How many bytes stand before the first NUL.
fn length(bytes: &[u8]) -> usize {
    let nuls = |block: [u8; BLOCK]| u8x16::new(block).simd_eq(u8x16::ZERO).to_bitmask();
    if bytes.len() < BLOCK {
        return nuls(block::few(bytes)).trailing_zeros() as usize;
    }
    // Most values have at most two blocks.
    if let (..=32, Some(front), Some(back)) = (bytes.len(), bytes.first_chunk(), bytes.last_chunk())
        && nuls(*front) | nuls(*back) == 0
    {
        return bytes.len();
    }
    memchr::memchr(0, bytes).unwrap_or(bytes.len())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_text_ends_at_the_first_nul(bytes in proptest::collection::vec(prop_oneof![30 => 1_u8.., 1 => Just(0)], 0..80)) {
            let plain: Vec<u8> = bytes.iter().copied().take_while(|byte| *byte != 0).collect();
            prop_assert_eq!(Text::new(&bytes).bytes(), plain);
        }
    }
}
