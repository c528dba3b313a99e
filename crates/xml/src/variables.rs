//! `<var>` definitions and their replacement in later texts.
//!
//! A file that defines nothing is never searched, so `$` at the end of an expression stays what it is.
//! Replacement has one budget per file: definitions that multiply each other end in an error.

/// Bytes that replacement may add to one file.
const BUDGET: usize = 8 * 1024 * 1024;
/// Longest name that is looked up.
const MAX_NAME: usize = 255;

/// Definitions in the order of the file.
#[derive(Debug)]
pub(crate) struct Variables {
    defined: Vec<(Vec<u8>, Vec<u8>)>,
    budget: usize,
}

/// Why a text could not be completed; offsets count from the start of the text given.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// No variable of this name was defined before.
    Unknown { name: Vec<u8>, at: usize },
    /// Too much text came out of variables.
    TooLarge { at: usize },
}

impl Variables {
    pub(crate) fn new() -> Self {
        Self { defined: Vec::new(), budget: BUDGET }
    }

    pub(crate) fn count(&self) -> usize {
        self.defined.len()
    }

    pub(crate) fn define(&mut self, name: &[u8], value: Vec<u8>) {
        self.defined.push((name.to_vec(), value));
    }

    /// Replaces the names in `text` by the first `visible` definitions; of two with one name the later counts.
    pub(crate) fn apply(&mut self, text: Vec<u8>, visible: usize) -> Result<Vec<u8>, Failure> {
        let visible = visible.min(self.defined.len());
        if visible == 0 || text.len() <= 2 || memchr::memchr(b'$', &text).is_none() {
            return Ok(text);
        }
        let mut out = Vec::with_capacity(text.len());
        let mut rest = 0;
        while let Some(found) = memchr::memchr(b'$', &text[rest..]) {
            let at = rest + found;
            out.extend_from_slice(&text[rest..at]);
            let name = name_at(&text[at + 1..]);
            if name.is_empty() || name[0] == b'(' {
                out.push(b'$');
                rest = at + 1;
                continue;
            }
            let known = self.defined[..visible]
                .iter()
                .rev()
                .find(|(n, _)| name.len() <= MAX_NAME && n.eq_ignore_ascii_case(name));
            let Some((_, value)) = known else {
                let name = name[..name.len().min(MAX_NAME)].to_vec();
                return Err(Failure::Unknown { name, at });
            };
            let Some(left) = self.budget.checked_sub(value.len()) else {
                return Err(Failure::TooLarge { at });
            };
            self.budget = left;
            out.extend_from_slice(value);
            rest = at + 1 + name.len();
        }
        out.extend_from_slice(&text[rest..]);
        Ok(out)
    }
}

fn name_at(text: &[u8]) -> &[u8] {
    let ends = |b: &u8| matches!(b, b'$' | b'.' | b'|' | b',' | b' ' | b'\t' | b'\n' | b'\r');
    let end = text.iter().position(ends).unwrap_or(text.len());
    &text[..end]
}
