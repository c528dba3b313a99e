//! Comparing text with ASCII case folded, without copying the subject.
//!
//! Invariant: `needle` is already in lower case.

use wide::u8x16;

use crate::block::{self, BLOCK};

/// Whether `haystack` begins with `needle`.
pub(crate) fn starts_with(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.len() >= needle.len() && haystack[..needle.len()].eq_ignore_ascii_case(needle)
}

/// Whether `haystack` ends with `needle`.
pub(crate) fn ends_with(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.len() >= needle.len() && haystack[haystack.len() - needle.len()..].eq_ignore_ascii_case(needle)
}

/// A lower-case text to look for, ASCII case folded, with the place of its rarest byte.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Needle {
    text: Box<[u8]>,
    pivot: usize,
}

impl Needle {
    /// Of a text in lower case.
    pub fn new(text: &[u8]) -> Self {
        Self { text: text.into(), pivot: rarest(text) }
    }

    pub(crate) fn text(&self) -> &[u8] {
        &self.text
    }

    /// Whether it occurs in `haystack`.
    pub fn is_in(&self, haystack: &[u8]) -> bool {
        occurs(haystack, &self.text, self.pivot)
    }
}

/// Long literals before short ones, and among equals those of rare bytes.
pub(crate) fn worth(needle: &[u8]) -> (usize, u8) {
    let rarest = needle.iter().map(|&byte| commonness(byte)).min().unwrap_or(u8::MAX);
    (needle.len(), u8::MAX - rarest)
}

/// The place of its rarest byte.
pub(crate) fn rarest(needle: &[u8]) -> usize {
    let places = needle.iter().enumerate();
    places.min_by_key(|&(_, &byte)| commonness(byte)).map_or(0, |(place, _)| place)
}

/// Whether `needle` occurs in `haystack`.
pub(crate) fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    occurs(haystack, needle, rarest(needle))
}

fn occurs(haystack: &[u8], needle: &[u8], pivot: usize) -> bool {
    first(haystack, needle, pivot).is_some()
}

/// Where `needle` begins first. Two bytes of it, a rare one and its neighbour, are looked for, then all of it is compared.
pub(crate) fn first(haystack: &[u8], needle: &[u8], pivot: usize) -> Option<usize> {
    let Some(&byte) = needle.get(pivot) else { return Some(0) };
    if haystack.len() < needle.len() {
        return None;
    }
    let beside = if pivot > 0 { pivot - 1 } else { usize::from(needle.len() > 1) };
    let (byte, neighbour) = (Folded::new(byte), Folded::new(needle[beside]));
    let (front, near) = (&haystack[pivot..], &haystack[beside..]);
    let mut from = 0;
    for (block, beside) in front.as_chunks().0.iter().zip(near.as_chunks().0) {
        let starts = (byte.is(u8x16::new(*block)) & neighbour.is(u8x16::new(*beside))).to_bitmask();
        if starts != 0
            && let Some(start) = begins(haystack, needle, from, starts)
        {
            return Some(start);
        }
        from += BLOCK;
    }
    // For the rest the last sixteen bytes serve.
    let back = haystack.len().saturating_sub(BLOCK);
    let places = |byte: &Folded, place: usize| {
        let start = place.min(back);
        byte.is(block::at(haystack, start)).to_bitmask().unbounded_shr((place - start) as u32)
    };
    let starts = places(&byte, from + pivot) & places(&neighbour, from + beside);
    if starts == 0 { None } else { begins(haystack, needle, from, starts) }
}

/// Where `needle` begins, of some starts, a bit for each from some place on.
#[inline(never)]
fn begins(haystack: &[u8], needle: &[u8], from: usize, mut starts: u32) -> Option<usize> {
    while starts != 0 {
        let start = from + starts.trailing_zeros() as usize;
        let text = haystack.get(start..).and_then(|text| text.get(..needle.len()))?;
        if needle.len() <= 2 || block::same(text, needle) {
            return Some(start);
        }
        starts &= starts - 1;
    }
    None
}

/// A byte in both cases.
struct Folded {
    /// The bit that tells the cases apart.
    case: u8x16,
    lower: u8x16,
}

impl Folded {
    #[inline]
    fn new(byte: u8) -> Self {
        let case = byte ^ byte.to_ascii_uppercase();
        Self { case: u8x16::splat(case), lower: u8x16::splat(byte) }
    }

    #[inline]
    fn is(&self, block: u8x16) -> u8x16 {
        (block | self.case).simd_eq(self.lower)
    }
}

/// Of a thousand bytes of logs, letters in one case, about four times as many; only speed depends on it.
pub(crate) fn commonness(byte: u8) -> u8 {
    match byte {
        b' ' => 20,
        b'e' => 15,
        b'"' => 12,
        b't' | b'a' | b's' | b'o' | b'i' | b'0' => 10,
        b'n' | b'r' | b'2' | b'=' => 9,
        b':' | b'd' => 8,
        b'c' | b'1' | b'.' => 7,
        b'u' | b'/' => 6,
        b'p' | b'l' | b'm' | b'4' => 5,
        b'3' | b'5' | b'6' | b',' | b'\\' => 4,
        b'f' | b'g' | b'h' | b'b' | b'w' | b'7'..=b'9' | b'-' => 3,
        b'y' | b'x' | b'v' | b'k' | b'_' | b'(' | b')' => 2,
        b'z' | b'j' | b'q' | b'[' | b']' | b'{' | b'}' | b';' | b'\'' => 1,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The plain definition.
    fn plain(haystack: &[u8], needle: &[u8]) -> Option<usize> {
        let folded = haystack.to_ascii_lowercase();
        if needle.is_empty() {
            Some(0)
        } else {
            folded.windows(needle.len()).position(|window| window == needle)
        }
    }

    proptest! {
        #[test]
        fn the_first_place_agrees_with_the_plain_definition(
            haystack in proptest::collection::vec(prop_oneof![Just(b'a'), Just(b'B'), Just(b'b'), any::<u8>()], 0..24),
            needle in proptest::collection::vec(prop_oneof![Just(b'a'), Just(b'b'), any::<u8>()], 0..4),
        ) {
            let needle = needle.to_ascii_lowercase();
            prop_assert_eq!(contains(&haystack, &needle), plain(&haystack, &needle).is_some());
            for pivot in 0..needle.len() {
                prop_assert_eq!(first(&haystack, &needle, pivot), plain(&haystack, &needle));
            }
        }

        #[test]
        fn a_part_of_a_long_text_is_found_where_it_stands_first(
            haystack in proptest::collection::vec("[abAB@`\\[{ ]".prop_map(|byte| byte.as_bytes()[0]), 0..150),
            from in any::<prop::sample::Index>(),
            length in prop_oneof![0_usize..8, 0_usize..60],
            change in proptest::option::weighted(0.3, any::<(prop::sample::Index, u8)>()),
        ) {
            let from = from.index(haystack.len() + 1);
            let mut needle = haystack[from..haystack.len().min(from + length)].to_ascii_lowercase();
            if let Some((place, byte)) = change && !needle.is_empty() {
                let place = place.index(needle.len());
                needle[place] = byte.to_ascii_lowercase();
            }
            for pivot in 0..needle.len().max(1) {
                prop_assert_eq!(first(&haystack, &needle, pivot), plain(&haystack, &needle));
            }
        }
    }
}
