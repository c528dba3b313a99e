//! A few bytes of a text looked at in one go, however many they are.
//!
//! Texts of logs are of all lengths, so a loop over bytes ends where no processor foresees it. Invariant: behind the end of a
//! text stand zeros.

use wide::u8x16;

/// Bytes of one block.
pub const BLOCK: usize = 16;

/// At most fifteen bytes, and zeros behind them.
#[inline]
pub fn few(text: &[u8]) -> [u8; BLOCK] {
    let number = match (text.first_chunk(), text.last_chunk()) {
        // Both hold the bytes in the middle.
        (Some(front), Some(back)) => {
            let behind = text.len().min(BLOCK) - 8;
            u128::from(u64::from_le_bytes(*front)) | u128::from(u64::from_le_bytes(*back)) << (8 * behind)
        }
        _ => u128::from(less_than_eight(text)),
    };
    number.to_le_bytes()
}

/// A text's first eight bytes as a number, the first one lowest.
#[inline]
pub(crate) fn eight(text: &[u8]) -> u64 {
    text.first_chunk().map_or_else(|| less_than_eight(text), |front| u64::from_le_bytes(*front))
}

#[inline]
fn less_than_eight(text: &[u8]) -> u64 {
    if let (Some(front), Some(back)) = (text.first_chunk(), text.last_chunk()) {
        let (front, back) = (u32::from_le_bytes(*front), u32::from_le_bytes(*back));
        return u64::from(front) | u64::from(back) << (8 * (text.len() - 4));
    }
    match *text {
        [] => 0,
        [one] => u64::from(one),
        [one, two] => u64::from(one) | u64::from(two) << 8,
        [one, two, three, ..] => u64::from(one) | u64::from(two) << 8 | u64::from(three) << 16,
    }
}

/// The sixteen bytes from some place on, or those at the beginning of what is shorter.
#[inline]
pub(crate) fn at(text: &[u8], place: usize) -> u8x16 {
    let rest = text.get(place..).unwrap_or_default();
    u8x16::new(rest.first_chunk().copied().unwrap_or_else(|| few(rest)))
}

/// With letters in lower case.
#[inline]
pub(crate) fn lower(block: u8x16) -> u8x16 {
    let letter = block - u8x16::splat(b'A');
    let capital = letter.min(u8x16::splat(25)).simd_eq(letter);
    block | (capital & u8x16::splat(0x20))
}

/// Whether two texts of one length are the same, letters of the first one taken for those in lower case.
pub(crate) fn same(text: &[u8], lowered: &[u8]) -> bool {
    let same = |text: u8x16, lowered: u8x16| lower(text).simd_eq(lowered).to_bitmask() == 0xffff;
    if text.len() < BLOCK {
        return same(u8x16::new(few(text)), u8x16::new(few(lowered)));
    }
    let (blocks, _) = text.as_chunks();
    let (others, _) = lowered.as_chunks();
    let pairs = blocks.iter().zip(others);
    let back = || text.last_chunk().zip(lowered.last_chunk());
    let mut all = pairs.chain(back());
    all.all(|(text, lowered)| same(u8x16::new(*text), u8x16::new(*lowered)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn few_bytes_are_followed_by_zeros(text in proptest::collection::vec(any::<u8>(), 0..40)) {
            let plain = |count: usize| {
                (0..count).map(|place| text.get(place).copied().unwrap_or(0)).collect::<Vec<_>>()
            };
            if text.len() < BLOCK {
                prop_assert_eq!(few(&text).to_vec(), plain(16));
            }
            prop_assert_eq!(eight(&text).to_le_bytes().to_vec(), plain(8));
            prop_assert_eq!(at(&text, 0).to_array().to_vec(), plain(16));
        }

        #[test]
        fn texts_are_the_same_as_byte_by_byte(
            text in "[aAbB@`\\[{zZ\u{e9}]{0,40}",
            other in "[aAbB@`\\[{zZ\u{e9}]{0,40}",
            change in proptest::option::of((any::<prop::sample::Index>(), any::<u8>())),
        ) {
            let lowered = text.to_ascii_lowercase();
            prop_assert!(same(text.as_bytes(), lowered.as_bytes()));
            let mut changed = lowered.clone().into_bytes();
            if let Some((place, byte)) = change && !changed.is_empty() {
                let place = place.index(changed.len());
                changed[place] = byte;
                prop_assert_eq!(same(text.as_bytes(), &changed), changed == lowered.as_bytes());
            }
            let other = other.to_ascii_lowercase();
            let short = text.len().min(other.len());
            let (text, other) = (&text.as_bytes()[..short], &other.as_bytes()[..short]);
            prop_assert_eq!(same(text, other), text.to_ascii_lowercase() == other);
        }

        #[test]
        fn a_block_is_lowered_like_its_bytes(bytes: [u8; BLOCK]) {
            prop_assert_eq!(lower(u8x16::new(bytes)).to_array(), bytes.map(|byte| byte.to_ascii_lowercase()));
        }
    }
}
