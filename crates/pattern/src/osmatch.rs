//! OSMatch: alternatives of plain text, anchored or not, the whole optionally inverted.
//!
//! Invariant: alternatives are in lower case; a substring with a byte from 128 on never matches,
//! because the contract's platform compares such bytes as signed.

use crate::beginning::Beginning;
use crate::literal::Needle;
use crate::{CompileError, PATTERN_LIMIT, Text, literal, text};

/// A compiled OSMatch.
#[derive(Debug, Clone)]
pub struct OsMatch {
    pattern: Box<[u8]>,
    inverted: bool,
    alternatives: Vec<Alternative>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Alternative {
    Always,
    Never,
    Equal(Box<[u8]>),
    Prefix(Box<[u8]>),
    Suffix(Box<[u8]>),
    Within(Needle),
}

impl OsMatch {
    /// Compiles `pattern`; only its length can be wrong.
    pub fn compile(pattern: &[u8]) -> Result<Self, CompileError> {
        let read = text(pattern);
        if read.len() > PATTERN_LIMIT {
            return Err(CompileError::too_long(read.len()));
        }
        let (inverted, body) = match read.strip_prefix(b"!") {
            Some(rest) => (true, rest),
            None => (false, read),
        };
        let alternatives = body.split(|&byte| byte == b'|').map(Alternative::new).collect();
        Ok(Self { pattern: pattern.into(), inverted, alternatives })
    }

    /// Whether `subject` satisfies an alternative, or none of them when inverted.
    pub fn is_match(&self, subject: &[u8]) -> bool {
        self.matches(Text::new(subject))
    }

    /// [`OsMatch::is_match`] for a subject that was cut before.
    pub fn matches(&self, subject: Text<'_>) -> bool {
        let subject = subject.bytes();
        self.alternatives.iter().any(|alternative| alternative.holds(subject)) != self.inverted
    }

    /// The pattern as it was written.
    pub fn pattern(&self) -> &[u8] {
        &self.pattern
    }

    /// The alternatives, if each of them only asks whether it occurs, and whether the answer is inverted.
    pub(crate) fn occurrences(&self) -> Option<(Vec<Vec<u8>>, bool)> {
        let within = self.alternatives.iter().filter(|alternative| **alternative != Alternative::Never);
        let literals: Option<Vec<_>> = within
            .map(|alternative| match alternative {
                Alternative::Within(word) => Some(word.text().to_vec()),
                _ => None,
            })
            .collect();
        literals.filter(|literals| !literals.is_empty()).map(|literals| (literals, self.inverted))
    }

    /// The texts, if each alternative asks for the whole subject.
    pub(crate) fn wholes(&self) -> Option<Vec<Vec<u8>>> {
        let whole = |alternative: &Alternative| match alternative {
            Alternative::Equal(word) => Some(word.to_vec()),
            _ => None,
        };
        self.alternatives.iter().map(whole).collect::<Option<_>>().filter(|_| !self.inverted)
    }

    /// What a subject that matches may begin with.
    pub(crate) fn beginning(&self) -> Beginning {
        let texts = self.alternatives.iter().filter(|alternative| **alternative != Alternative::Never);
        let beginning = |alternative: &Alternative| match alternative {
            Alternative::Equal(word) | Alternative::Prefix(word) => Beginning::of_text(word),
            _ => Beginning::default(),
        };
        if self.inverted { Beginning::default() } else { Beginning::any(texts.map(beginning)) }
    }

    pub(crate) fn required_literals(&self) -> Vec<Vec<u8>> {
        if self.inverted {
            return Vec::new();
        }
        let mut literals = Vec::new();
        for alternative in &self.alternatives {
            match alternative {
                Alternative::Never => {}
                Alternative::Equal(word) | Alternative::Prefix(word) | Alternative::Suffix(word)
                    if !word.is_empty() =>
                {
                    literals.push(word.to_vec());
                }
                Alternative::Within(word) => literals.push(word.text().to_vec()),
                _ => return Vec::new(),
            }
        }
        literals
    }
}

impl Alternative {
    fn new(part: &[u8]) -> Self {
        let part = part.to_ascii_lowercase();
        let (begins, rest) = match part.strip_prefix(b"^") {
            Some(rest) => (true, rest),
            None => (false, &part[..]),
        };
        let (ends, rest) = match rest.strip_suffix(b"$") {
            Some(rest) => (true, rest),
            None => (false, rest),
        };
        match (begins, ends) {
            (true, true) => Self::Equal(rest.into()),
            _ if rest.is_empty() => Self::Always,
            (true, false) => Self::Prefix(rest.into()),
            (false, true) => Self::Suffix(rest.into()),
            (false, false) if rest.is_ascii() => Self::Within(Needle::new(rest)),
            (false, false) => Self::Never,
        }
    }

    fn holds(&self, subject: &[u8]) -> bool {
        match self {
            Self::Always => true,
            Self::Never => false,
            Self::Equal(word) => subject.eq_ignore_ascii_case(word),
            Self::Prefix(word) => literal::starts_with(subject, word),
            Self::Suffix(word) => literal::ends_with(subject, word),
            Self::Within(word) => word.is_in(subject),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn matches(pattern: &str, subject: &str) -> bool {
        OsMatch::compile(pattern.as_bytes()).expect("a pattern of legal length").is_match(subject.as_bytes())
    }

    #[test]
    fn anchors_choose_between_equal_prefix_suffix_and_substring() {
        assert!(matches("^root$", "ROOT"));
        assert!(!matches("^root$", "roots"));
        assert!(matches("^su", "sudo"));
        assert!(matches("do$", "sudo"));
        assert!(matches("ud", "sudo"));
        assert!(!matches("^ud", "sudo"));
    }

    #[test]
    fn a_lone_anchor_always_matches_and_both_match_the_empty_text() {
        assert!(matches("^", "x") && matches("$", "x") && matches("", "x"));
        assert!(matches("^$", ""));
        assert!(!matches("^$", "x"));
    }

    #[test]
    fn a_leading_exclamation_mark_inverts_all_alternatives() {
        assert!(!matches("!cron|at", "atd"));
        assert!(matches("!cron|at", "sshd"));
        assert!(matches("cron|!at", "x!atx"));
    }

    #[test]
    fn bytes_beyond_ascii_match_only_where_anchored() {
        assert!(!matches("ß", "aßb"));
        assert!(matches("^ß", "ßb"));
        assert!(matches("ß$", "aß"));
    }

    #[test]
    fn a_subject_ends_at_its_first_nul() {
        assert!(matches("^ab$", "ab\0cd"));
        assert!(!matches("cd", "ab\0cd"));
    }

    #[test]
    fn a_pattern_beyond_the_limit_is_error_three() {
        assert_eq!(OsMatch::compile(&vec![b'a'; PATTERN_LIMIT + 1]).expect_err("too long").code, 3);
    }

    proptest! {
        #[test]
        fn any_bytes_compile_and_match_without_panic(pattern: Vec<u8>, subject: Vec<u8>) {
            let _ = OsMatch::compile(&pattern).map(|matcher| matcher.is_match(&subject));
        }

        #[test]
        fn alternatives_that_only_occur_decide_the_match(pattern in "[!^$|ab]{0,6}", subject in "[abAB]{0,6}") {
            let matcher = OsMatch::compile(pattern.as_bytes()).expect("short");
            if let Some((literals, inverted)) = matcher.occurrences() {
                let occurs = literals.iter().any(|word| literal::contains(subject.as_bytes(), word));
                prop_assert_eq!(matcher.is_match(subject.as_bytes()), occurs != inverted);
            }
        }

        #[test]
        fn alternatives_that_are_whole_decide_the_match(pattern in "!?(\\^[ab]{0,2}\\$?[|]){0,2}\\^a\\$", subject in "[abAB]{0,3}") {
            let matcher = OsMatch::compile(pattern.as_bytes()).expect("short");
            if let Some(wholes) = matcher.wholes() {
                let equal = wholes.contains(&subject.to_ascii_lowercase().into_bytes());
                prop_assert_eq!(matcher.is_match(subject.as_bytes()), equal);
            }
        }

        #[test]
        fn a_match_contains_a_required_literal(pattern in "[!^$|ab]{0,6}", subject in "[abAB]{0,6}") {
            let matcher = OsMatch::compile(pattern.as_bytes()).expect("short");
            let literals = matcher.required_literals();
            prop_assert!(!matcher.is_match(subject.as_bytes()) || matcher.beginning().allows_text(subject.as_bytes()));
            if !literals.is_empty() && matcher.is_match(subject.as_bytes()) {
                prop_assert!(literals.iter().any(|word| literal::contains(subject.as_bytes(), word)));
            }
        }
    }
}
