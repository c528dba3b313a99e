//! Comparing text with ASCII case folded, without copying the subject.
//!
//! Invariant: `needle` is already in lower case.

/// Whether `haystack` begins with `needle`.
pub(crate) fn starts_with(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.len() >= needle.len() && haystack[..needle.len()].eq_ignore_ascii_case(needle)
}

/// Whether `haystack` ends with `needle`.
pub(crate) fn ends_with(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.len() >= needle.len() && haystack[haystack.len() - needle.len()..].eq_ignore_ascii_case(needle)
}

/// A text's first eight bytes as a number, the first one lowest, and zeros behind its end.
#[inline]
pub(crate) fn eight(text: &[u8]) -> u64 {
    let eight = text.first_chunk().copied().unwrap_or_else(|| {
        let mut eight = [0; 8];
        eight.iter_mut().zip(text).for_each(|(own, byte)| *own = *byte);
        eight
    });
    u64::from_le_bytes(eight)
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

/// Where `needle` begins first. Its byte at `pivot`, a rare one, is looked for, then its surroundings are compared.
pub(crate) fn first(haystack: &[u8], needle: &[u8], pivot: usize) -> Option<usize> {
    let Some(&byte) = needle.get(pivot) else { return Some(0) };
    if haystack.len() < needle.len() {
        return None;
    }
    // Only starts that leave room for the whole needle are candidates.
    let last = haystack.len() - (needle.len() - pivot - 1);
    let window = &haystack[pivot..last];
    // Most places that have the one byte lack the next one, too.
    let beside = if pivot > 0 { pivot - 1 } else { usize::from(needle.len() > 1) };
    let wanted = needle[beside];
    let here = |start: &usize| {
        haystack[*start + beside].eq_ignore_ascii_case(&wanted)
            && haystack[*start..*start + needle.len()].eq_ignore_ascii_case(needle)
    };
    let upper = byte.to_ascii_uppercase();
    if upper == byte {
        memchr::memchr_iter(byte, window).find(here)
    } else {
        memchr::memchr2_iter(byte, upper, window).find(here)
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

    proptest! {
        #[test]
        fn containing_agrees_with_the_plain_definition(
            haystack in proptest::collection::vec(prop_oneof![Just(b'a'), Just(b'B'), Just(b'b'), any::<u8>()], 0..24),
            needle in proptest::collection::vec(prop_oneof![Just(b'a'), Just(b'b'), any::<u8>()], 0..4),
        ) {
            let needle = needle.to_ascii_lowercase();
            let folded = haystack.to_ascii_lowercase();
            let plain = needle.is_empty() || folded.windows(needle.len()).any(|window| window == needle);
            prop_assert_eq!(contains(&haystack, &needle), plain);
        }
    }
}
