//! Sets of characters, and how they are written for the engines.
//!
//! Invariant: ranges are written as numbers only, so that nothing in a class can be taken for the
//! set operations that PCRE2 does not have.

use std::fmt::Write as _;

/// Inclusive ranges of byte values, or of code points under `(*UTF)`.
pub(super) type Ranges = Vec<(u32, u32)>;

/// The ranges of `\d`, `\w`, `\s`, `\h`, `\v`; an upper-case letter is the complement up to `most`.
pub(super) fn of_escape(name: char, most: u32) -> Option<Ranges> {
    let wide = most > 0xff;
    let ranges: Ranges = match name.to_ascii_lowercase() {
        'd' => vec![(0x30, 0x39)],
        'w' => vec![(0x30, 0x39), (0x41, 0x5a), (0x5f, 0x5f), (0x61, 0x7a)],
        's' => vec![(0x09, 0x0d), (0x20, 0x20)],
        'h' if wide => vec![
            (0x09, 0x09),
            (0x20, 0x20),
            (0xa0, 0xa0),
            (0x1680, 0x1680),
            (0x180e, 0x180e),
            (0x2000, 0x200a),
            (0x202f, 0x202f),
            (0x205f, 0x205f),
            (0x3000, 0x3000),
        ],
        'h' => vec![(0x09, 0x09), (0x20, 0x20), (0xa0, 0xa0)],
        'v' if wide => vec![(0x0a, 0x0d), (0x85, 0x85), (0x2028, 0x2029)],
        'v' => vec![(0x0a, 0x0d), (0x85, 0x85)],
        'n' if name == 'N' => vec![(0x0a, 0x0a)],
        _ => return None,
    };
    Some(if name.is_ascii_uppercase() { complement(ranges, most) } else { ranges })
}

/// The ranges of a POSIX class name.
pub(super) fn of_posix(name: &str) -> Option<Ranges> {
    Some(match name {
        "alpha" => vec![(0x41, 0x5a), (0x61, 0x7a)],
        "lower" => vec![(0x61, 0x7a)],
        "upper" => vec![(0x41, 0x5a)],
        "alnum" => vec![(0x30, 0x39), (0x41, 0x5a), (0x61, 0x7a)],
        "ascii" => vec![(0x00, 0x7f)],
        "blank" => vec![(0x09, 0x09), (0x20, 0x20)],
        "cntrl" => vec![(0x00, 0x1f), (0x7f, 0x7f)],
        "digit" => vec![(0x30, 0x39)],
        "graph" => vec![(0x21, 0x7e)],
        "print" => vec![(0x20, 0x7e)],
        "punct" => vec![(0x21, 0x2f), (0x3a, 0x40), (0x5b, 0x60), (0x7b, 0x7e)],
        "space" => vec![(0x09, 0x0d), (0x20, 0x20)],
        "word" => vec![(0x30, 0x39), (0x41, 0x5a), (0x5f, 0x5f), (0x61, 0x7a)],
        "xdigit" => vec![(0x30, 0x39), (0x41, 0x46), (0x61, 0x66)],
        _ => return None,
    })
}

/// Everything up to `most` that is not in `ranges`.
pub(super) fn complement(mut ranges: Ranges, most: u32) -> Ranges {
    ranges.sort_unstable();
    let mut rest = Ranges::new();
    let mut next = 0;
    for (low, high) in ranges {
        if low > next {
            rest.push((next, low - 1));
        }
        next = next.max(high + 1);
    }
    if next <= most {
        rest.push((next, most));
    }
    rest
}

/// Adds the other case of every ASCII letter.
pub(super) fn fold(ranges: &mut Ranges) {
    for index in 0..ranges.len() {
        let (low, high) = ranges[index];
        for (from, to, other) in [(0x41, 0x5a, 0x61), (0x61, 0x7a, 0x41)] {
            let (low, high) = (low.max(from), high.min(to));
            if low <= high {
                ranges.push((low - from + other, high - from + other));
            }
        }
    }
}

/// Writes a class; surrogates are left out, for no text holds them.
pub(super) fn write(out: &mut String, ranges: &[(u32, u32)], negated: bool, most: u32) {
    if ranges.is_empty() {
        return write(out, &[(0, most)], !negated, most);
    }
    out.push_str(if negated { "[^" } else { "[" });
    for &(low, high) in ranges {
        for (low, high) in [(low, high.min(0xd7ff)), (low.max(0xe000), high)] {
            if low <= high {
                write_one(out, low);
                out.push('-');
                write_one(out, high);
            }
        }
    }
    out.push(']');
}

/// Writes one character as a number.
pub(super) fn write_one(out: &mut String, value: u32) {
    // Writing into a `String` cannot fail.
    let _ = if value <= 0xff { write!(out, "\\x{value:02X}") } else { write!(out, "\\x{{{value:X}}}") };
}
