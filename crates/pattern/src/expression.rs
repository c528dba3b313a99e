//! One type over all engines, for the places where a rule file chooses the engine.
//!
//! Invariant: `find` clears the captures first, also when nothing matches.

use crate::{Beginning, Captures, CompileError, Known, OsMatch, OsRegex, Pcre, Text, text};

/// Which engine reads a pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The small regular expressions of the contract.
    OsRegex,
    /// Alternatives of plain text with anchors.
    OsMatch,
    /// Perl-compatible expressions.
    Pcre2,
    /// Equality byte for byte.
    Exact,
}

impl Kind {
    /// The engine of a `type` attribute, in any case; `None` for an unknown name.
    pub fn from_name(name: &str) -> Option<Self> {
        [("osregex", Self::OsRegex), ("osmatch", Self::OsMatch), ("pcre2", Self::Pcre2)]
            .into_iter()
            .find_map(|(known, kind)| name.eq_ignore_ascii_case(known).then_some(kind))
    }
}

/// A compiled pattern of any engine.
#[derive(Debug)]
pub enum Expression {
    /// An OSRegex.
    OsRegex(OsRegex),
    /// An OSMatch.
    OsMatch(OsMatch),
    /// A PCRE2 expression.
    Pcre(Pcre),
    /// A text that must be equal.
    Exact(Box<[u8]>),
}

impl Expression {
    /// Compiles `pattern` for the engine `kind`.
    pub fn compile(kind: Kind, pattern: &[u8]) -> Result<Self, CompileError> {
        Ok(match kind {
            Kind::OsRegex => Self::OsRegex(OsRegex::compile(pattern)?),
            Kind::OsMatch => Self::OsMatch(OsMatch::compile(pattern)?),
            Kind::Pcre2 => Self::Pcre(Pcre::compile(pattern)?),
            Kind::Exact => Self::Exact(text(pattern).into()),
        })
    }

    /// Whether `subject` matches, compiled without captures: the question of rules.
    pub fn is_match(&self, subject: &[u8]) -> bool {
        let subject = Text::new(subject);
        match self {
            Self::OsRegex(regex) => regex.place(subject, |_| Known::Nothing).is_some(),
            Self::OsMatch(matcher) => matcher.matches(subject),
            Self::Pcre(pcre) => pcre.is_match(subject),
            Self::Exact(wanted) => **wanted == *subject.bytes(),
        }
    }

    /// The place where a caller goes on behind the match, with `captures` filled: the question of
    /// a decoder's `regex`.
    ///
    /// An OSRegex goes on behind its reported place, which is not always the last byte it took.
    /// An OSMatch knows no place, so the caller goes on at the beginning.
    pub fn find(&self, subject: &[u8], captures: &mut Captures) -> Option<usize> {
        self.find_knowing(Text::new(subject), captures, |_| Known::Nothing)
    }

    /// [`Expression::find`] for a caller who knows where the literals of [`Expression::by_alternative`] stand.
    pub fn find_knowing(
        &self,
        subject: Text<'_>,
        captures: &mut Captures,
        known: impl Fn(usize) -> Known,
    ) -> Option<usize> {
        captures.clear();
        match self {
            Self::OsRegex(regex) => {
                regex.find(subject, captures, known).map(|place| following(place, subject))
            }
            Self::Pcre(pcre) => pcre.find(subject, captures, known(0)),
            Self::OsMatch(_) | Self::Exact(_) => self.place_knowing(subject, known),
        }
    }

    /// For each alternative of an OSRegex, and for a PCRE2 expression as a whole, a lower-case literal that must occur (ASCII
    /// case folded) where it matches; empty where none is known.
    pub fn by_alternative(&self) -> Vec<&[u8]> {
        match self {
            Self::OsRegex(regex) => regex.by_alternative().collect(),
            Self::Pcre(pcre) => vec![pcre.single()],
            _ => Vec::new(),
        }
    }

    /// Like [`Expression::find`], compiled without captures: the question of a decoder's `prematch`.
    ///
    /// This is more than a shorter way: an OSRegex with groups accepts a little more when it
    /// captures, because stars at the end of the subject are then skipped.
    pub fn place(&self, subject: &[u8]) -> Option<usize> {
        self.place_knowing(Text::new(subject), |_| Known::Nothing)
    }

    /// [`Expression::place`] for a caller who knows where the literals of [`Expression::by_alternative`] stand.
    pub fn place_knowing(&self, subject: Text<'_>, known: impl Fn(usize) -> Known) -> Option<usize> {
        match self {
            Self::OsRegex(regex) => regex.place(subject, known).map(|place| following(place, subject)),
            Self::OsMatch(matcher) => matcher.matches(subject).then_some(0),
            Self::Pcre(pcre) => pcre.end(subject, known(0)),
            Self::Exact(wanted) => (**wanted == *subject.bytes()).then_some(wanted.len()),
        }
    }

    /// What a subject that matches may begin with, where the expression is bound to its beginning.
    pub fn beginning(&self) -> Beginning {
        match self {
            Self::OsRegex(regex) => regex.beginning(),
            Self::OsMatch(matcher) => matcher.beginning(),
            Self::Pcre(pcre) => pcre.beginning().clone(),
            Self::Exact(wanted) => Beginning::of_text(&wanted.to_ascii_lowercase()),
        }
    }

    /// Whether the pattern has a capturing group.
    pub fn has_groups(&self) -> bool {
        match self {
            Self::OsRegex(regex) => regex.has_groups(),
            Self::Pcre(pcre) => pcre.has_groups(),
            Self::OsMatch(_) | Self::Exact(_) => false,
        }
    }

    /// The pattern as it was written.
    pub fn pattern(&self) -> &[u8] {
        match self {
            Self::OsRegex(regex) => regex.pattern(),
            Self::OsMatch(matcher) => matcher.pattern(),
            Self::Pcre(pcre) => pcre.pattern(),
            Self::Exact(wanted) => wanted,
        }
    }

    /// The engine.
    pub fn kind(&self) -> Kind {
        match self {
            Self::OsRegex(_) => Kind::OsRegex,
            Self::OsMatch(_) => Kind::OsMatch,
            Self::Pcre(_) => Kind::Pcre2,
            Self::Exact(_) => Kind::Exact,
        }
    }

    /// Whether most subjects are refused by a look at their first byte or a search for one literal.
    pub fn refuses_quickly(&self) -> bool {
        match self {
            Self::OsRegex(regex) => regex.refuses_quickly(),
            Self::OsMatch(_) | Self::Pcre(_) => false,
            Self::Exact(_) => true,
        }
    }

    /// For an expression that asks no more than whether one of some lower-case literals occurs (ASCII case folded):
    /// these, and whether the answer is inverted.
    pub fn occurrences(&self) -> Option<(Vec<Vec<u8>>, bool)> {
        match self {
            Self::OsMatch(matcher) => matcher.occurrences(),
            _ => None,
        }
    }

    /// For an expression that asks no more than whether the subject is one of some texts: these in lower case, and
    /// whether equality with ASCII case folded decides it. If not, it is only necessary.
    pub fn wholes(&self) -> Option<(Vec<Vec<u8>>, bool)> {
        let caseless = |texts: &[Vec<u8>]| !texts.iter().flatten().any(u8::is_ascii_alphabetic);
        let (texts, decides) = match self {
            Self::OsRegex(regex) => (regex.wholes()?, true),
            Self::OsMatch(matcher) => (matcher.wholes()?, true),
            Self::Pcre(pcre) => {
                let texts = crate::pcre::wholes(pcre.pattern())?;
                let decides = caseless(&texts);
                (texts, decides)
            }
            Self::Exact(wanted) => {
                let texts = vec![wanted.to_ascii_lowercase()];
                let decides = caseless(&texts);
                (texts, decides)
            }
        };
        (!texts.is_empty()).then_some((texts, decides))
    }

    /// Lower-case literals of which at least one must occur (ASCII case folded) in every subject
    /// that matches. Empty means unknown: the expression must be tried.
    pub fn required_literals(&self) -> Vec<Vec<u8>> {
        match self {
            Self::OsRegex(regex) => regex.required_literals(),
            Self::OsMatch(matcher) => matcher.required_literals(),
            Self::Pcre(pcre) => pcre.required_literals(),
            Self::Exact(wanted) if wanted.is_empty() => Vec::new(),
            Self::Exact(wanted) => vec![wanted.to_ascii_lowercase()],
        }
    }
}

/// Callers go on one behind the reported place, but never behind the end.
fn following(place: isize, subject: Text<'_>) -> usize {
    usize::try_from(place + 1).unwrap_or(0).min(subject.bytes().len())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_expression_is_no_longer_than_an_osregex() {
        assert_eq!((size_of::<Expression>(), size_of::<OsRegex>()), (96, 96));
    }

    #[test]
    fn expressions_of_whole_texts_are_told_from_others() {
        let wholes = |kind, pattern: &str| {
            let expression = Expression::compile(kind, pattern.as_bytes()).expect("a good pattern");
            let texts = expression.wholes();
            texts.map(|(texts, decides)| (texts.join(&b' '), decides))
        };
        let some = |texts: &str, decides| Some((texts.as_bytes().to_vec(), decides));
        assert_eq!(wholes(Kind::OsRegex, "^4624$|^4625$"), some("4624 4625", true));
        assert_eq!(
            wholes(Kind::OsRegex, "^Microsoft-Windows-Sysmon$"),
            some("microsoft-windows-sysmon", true)
        );
        assert_eq!(wholes(Kind::OsRegex, "^4624$|^46"), None);
        assert_eq!(wholes(Kind::OsRegex, "^\\d$"), None);
        assert_eq!(wholes(Kind::Pcre2, "^(?:1|2)$"), some("1 1\n 2 2\n", true));
        assert_eq!(wholes(Kind::Pcre2, "^ab$"), some("ab ab\n", false));
        for pattern in ["^1|2$", "^1.$", "^1", "(?i)^1$", "^(1)|(2)$", "^$", "^1\\d$"] {
            assert_eq!(wholes(Kind::Pcre2, pattern), None, "{pattern}");
        }
    }

    proptest! {
        #[test]
        fn a_whole_text_decides_the_match(
            kind in prop_oneof![Just(Kind::OsRegex), Just(Kind::Pcre2), Just(Kind::OsMatch), Just(Kind::Exact)],
            pattern in "\\^?[(]?[aB1]{0,2}\\$?([|]\\^?[aB1]{1,2}[)]?\\$?){0,2}",
            subject in "[aAbB1]{0,3}\n?",
        ) {
            let Ok(expression) = Expression::compile(kind, pattern.as_bytes()) else { return Ok(()) };
            if let Some((texts, decides)) = expression.wholes() {
                let equal = texts.contains(&subject.to_ascii_lowercase().into_bytes());
                let matches = expression.is_match(subject.as_bytes());
                prop_assert!(!matches || equal);
                prop_assert!(!decides || matches == equal);
            }
        }

        #[test]
        fn nothing_behind_the_first_nul_is_seen(
            kind in prop_oneof![Just(Kind::OsRegex), Just(Kind::Pcre2), Just(Kind::OsMatch), Just(Kind::Exact)],
            subject in proptest::collection::vec(prop_oneof![Just(0_u8), Just(b'a'), Just(b'b')], 0..12),
            pattern in "\\^?(a|\\w\\+|\\.\\*|b|\\s\\*){1,4}",
        ) {
            let Ok(expression) = Expression::compile(kind, pattern.as_bytes()) else { return Ok(()) };
            let seen = text(&subject);
            prop_assert_eq!(expression.is_match(&subject), expression.is_match(seen));
            let place = expression.place(&subject);
            prop_assert_eq!(place, expression.place(seen));
            prop_assert!(place.is_none_or(|place| place <= seen.len()));
            let mut captures = (Captures::new(), Captures::new());
            prop_assert_eq!(expression.find(&subject, &mut captures.0), expression.find(seen, &mut captures.1));
            prop_assert_eq!(captures.0, captures.1);
        }
    }
}
