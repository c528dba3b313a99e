//! From the pattern text to items: classes, marks and literals, by alternative.
//!
//! Invariant: a quantifier exists only as part of a class; a `+` or `*` anywhere else is a literal.

use crate::{CompileError, PATTERN_LIMIT};

/// One alternative of a pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Alternative {
    pub(super) items: Vec<Item>,
    pub(super) begin_anchored: bool,
    pub(super) end_anchored: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Item {
    /// A byte, upper case folded.
    Literal(u8),
    /// A group opens or closes; both are the same afterwards.
    Mark,
    /// `\x`, where `name` is the letter `x`.
    Class { name: u8, quantifier: Quantifier },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Quantifier {
    None,
    Plus,
    Star,
}

/// Splits a pattern that is already cut at its first NUL.
pub(super) fn parse(pattern: &[u8]) -> Result<Vec<Alternative>, CompileError> {
    if pattern.len() > PATTERN_LIMIT {
        return Err(CompileError::too_long(pattern.len()));
    }
    let mut alternatives = Vec::new();
    let mut items = Vec::new();
    let mut start = 0;
    let mut in_group = false;
    let mut bytes = pattern.iter().copied().enumerate().peekable();
    while let Some((offset, byte)) = bytes.next() {
        match byte {
            b'\\' => {
                let name = bytes.next().map(|(_, name)| name).filter(|&name| is_class(name));
                let Some(name) = name else { return Err(CompileError::bad_escape(offset)) };
                let quantifier = match bytes.peek() {
                    Some((_, b'+')) => Quantifier::Plus,
                    Some((_, b'*')) => Quantifier::Star,
                    _ => Quantifier::None,
                };
                if quantifier != Quantifier::None {
                    bytes.next();
                }
                items.push(Item::Class { name, quantifier });
            }
            b'(' | b')' if (byte == b'(') == in_group => return Err(CompileError::bad_parentheses(offset)),
            b'(' | b')' => {
                in_group = !in_group;
                items.push(Item::Mark);
            }
            b'|' if in_group => return Err(CompileError::bad_parentheses(offset)),
            b'|' => {
                alternatives.push(Alternative::new(std::mem::take(&mut items)));
                start = offset + 1;
            }
            // Only the very first byte of an alternative anchors; it stays an item until then.
            _ => items.push(Item::Literal(byte.to_ascii_lowercase())),
        }
    }
    if in_group {
        return Err(CompileError::bad_parentheses(start));
    }
    alternatives.push(Alternative::new(items));
    Ok(alternatives)
}

impl Alternative {
    fn new(mut items: Vec<Item>) -> Self {
        let begin_anchored = items.first() == Some(&Item::Literal(b'^'));
        if begin_anchored {
            items.remove(0);
        }
        let end_anchored = items.last() == Some(&Item::Literal(b'$'));
        if end_anchored {
            items.pop();
        }
        Self { items, begin_anchored, end_anchored }
    }
}

/// The letters of all classes.
const CLASSES: &[u8; 15] = b"dwsp()\\DWS.t$|<";

/// Whether `\name` is an item at all.
fn is_class(name: u8) -> bool {
    CLASSES.contains(&name)
}

/// For each byte the classes that contain it, a bit for each. Subjects never hold NUL.
static MEMBERSHIP: [u16; 256] = {
    let mut membership = [0; 256];
    let mut byte = 1_usize;
    while byte < 256 {
        let mut class = 0;
        while class < CLASSES.len() {
            if class_contains(CLASSES[class], byte as u8) {
                membership[byte] |= 1 << class;
            }
            class += 1;
        }
        byte += 1;
    }
    membership
};

/// The bytes of a class, or of none: its number, which stands for a table that all programs share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Members(u8);

impl Members {
    /// Behind all classes.
    pub(super) const NONE: Self = Self(CLASSES.len() as u8);

    pub(super) fn of_class(name: u8) -> Self {
        let class = CLASSES.iter().position(|known| *known == name);
        Self(class.map_or(Self::NONE.0, |class| class as u8))
    }

    /// As a number of four bits, and back again.
    pub(super) fn number(self) -> u8 {
        self.0
    }

    pub(super) fn of_number(number: u8) -> Self {
        Self(number & 15)
    }

    /// The byte of a class that has one only.
    pub(super) fn single(self) -> Option<u8> {
        let mut members = (1..=u8::MAX).filter(|byte| self.contains(*byte));
        let first = members.next();
        first.filter(|_| members.next().is_none())
    }

    pub(super) fn contains(self, byte: u8) -> bool {
        MEMBERSHIP[usize::from(byte)] >> self.0 & 1 == 1
    }
}

/// Whether class `name` contains `byte`; a subject never holds NUL.
pub(super) const fn class_contains(name: u8, byte: u8) -> bool {
    let word = byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'@' | b'_');
    match name {
        b'd' => byte.is_ascii_digit(),
        b'D' => !byte.is_ascii_digit(),
        b'w' => word,
        b'W' => !word,
        b's' => byte == b' ',
        b'S' => byte != b' ',
        b't' => byte == b'\t',
        b'p' => matches!(byte, 33..=46 | 58..=63 | 91 | 93 | 123..=125),
        b'.' => true,
        itself => byte == itself,
    }
}
