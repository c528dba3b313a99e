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

/// Whether `needle` occurs in `haystack`.
///
/// The rarest byte of the needle is looked for, then its surroundings are compared.
pub(crate) fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    let Some((pivot, &byte)) = needle.iter().enumerate().min_by_key(|&(_, &byte)| commonness(byte)) else {
        return true;
    };
    if haystack.len() < needle.len() {
        return false;
    }
    // Only starts that leave room for the whole needle are candidates.
    let last = haystack.len() - (needle.len() - pivot - 1);
    let window = &haystack[pivot..last];
    memchr::memchr2_iter(byte, byte.to_ascii_uppercase(), window)
        .any(|start| haystack[start..start + needle.len()].eq_ignore_ascii_case(needle))
}

/// A coarse order of how often bytes occur in logs; only speed depends on it.
fn commonness(byte: u8) -> u8 {
    match byte {
        b' ' | b'e' | b'a' | b'i' | b'o' | b'n' | b'r' | b's' | b't' => 3,
        b'0'..=b'9' | b'.' | b':' | b'd' | b'l' | b'c' | b'u' => 2,
        b'a'..=b'z' | b'-' | b'/' | b'=' | b'"' => 1,
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
