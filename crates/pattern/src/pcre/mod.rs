//! PCRE2 expressions on a linear engine, with a bounded backtracking engine behind it.
//!
//! Patterns are rewritten first ([`translate`]), then `regex` takes all it can; look-around,
//! back-references, atomic groups, and `$` in front of a last newline go to `fancy-regex`. What `regex` takes is first
//! tried by a small engine of our own ([`walk`]).
//! Invariant: all engines answer the same wherever they can serve a pattern.

mod class;
mod required;
#[cfg(test)]
mod tests;
mod translate;
mod walk;

use std::borrow::Cow;
use std::sync::OnceLock;

use regex::bytes::{Regex, RegexBuilder};
use translate::{Target, translate};
use walk::Walker;

use crate::beginning::Beginning;
use crate::{Captures, CompileError, Known, PATTERN_LIMIT, Text, budget, text};

/// The texts of a pattern that is nothing but alternatives of plain text, each between both anchors: in lower case, each
/// also with the newline that `$` lets stand behind it.
pub(crate) fn wholes(pattern: &[u8]) -> Option<Vec<Vec<u8>>> {
    let body = pattern.strip_prefix(b"^").and_then(|rest| rest.strip_suffix(b"$"));
    let group = body.and_then(|body| body.strip_prefix(b"(").and_then(|rest| rest.strip_suffix(b")")));
    let alternatives: Vec<&[u8]> = match group {
        Some(group) => group.strip_prefix(b"?:").unwrap_or(group).split(|byte| *byte == b'|').collect(),
        None => {
            let anchored = |text| <[u8]>::strip_prefix(text, b"^").and_then(|rest| rest.strip_suffix(b"$"));
            pattern.split(|byte| *byte == b'|').map(anchored).collect::<Option<_>>()?
        }
    };
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_:/,%@=~&;'\"<>! ".contains(byte);
    let good = alternatives.iter().all(|text| !text.is_empty() && text.iter().all(plain));
    let both = |text: &[u8]| [text.to_ascii_lowercase(), [&text.to_ascii_lowercase(), &b"\n"[..]].concat()];
    good.then(|| alternatives.into_iter().flat_map(both).collect())
}

/// A compiled PCRE2 expression: what most questions are answered with, and the rest.
#[derive(Debug)]
pub struct Pcre {
    /// In front of the linear engine.
    walker: Option<Walker>,
    rest: Box<Rest>,
    /// A pattern is far shorter than groups can be counted.
    groups: u16,
    utf: bool,
    /// The literal that a caller may know the place of begins the match.
    leads: bool,
    serves: Serves,
}

/// Which subjects the linear engine serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Serves {
    All,
    /// Those without a last newline.
    WithoutNewline,
    None,
}

/// The engines, and what others ask of a pattern when rules are loaded.
#[derive(Debug)]
struct Rest {
    linear: Option<Linear>,
    backtracking: Option<Backtracking>,
    pattern: Box<[u8]>,
    required: Vec<Vec<u8>>,
    beginning: Beginning,
}

impl Pcre {
    /// The bytes a compiled pattern may take.
    const SIZE_LIMIT: usize = 2 << 20;
    /// The backtracks one search may take; beyond it the answer is "no match", as in PCRE2.
    const BACKTRACK_LIMIT: usize = 1_000_000;
    /// A backtrack may cost a look at all of the subject: beyond this length fewer are allowed.
    const LONG: usize = 4096;
    /// The backtracks that a search of a long subject may take.
    const LONG_LIMIT: usize = 4096;

    /// Compiles `pattern`; the error tells the offset.
    pub fn compile(pattern: &[u8]) -> Result<Self, CompileError> {
        let read = text(pattern);
        if read.len() > PATTERN_LIMIT {
            return Err(CompileError::too_long(read.len()));
        }
        let forward = translate(read, Target::Linear)?;
        let regex =
            if forward.needs_backtracking { None } else { Some(build_linear(&forward.source, forward.utf)?) };
        let backtracking = if forward.needs_backtracking || forward.newline_sensitive {
            Some(Backtracking::new(translate(read, Target::Backtracking)?.source)?)
        } else {
            None
        };
        // The two forms differ in assertions only, which hold no literal.
        let tree = if regex.is_some() { required::tree(&forward.source, forward.utf) } else { None };
        let required = tree.as_ref().map(required::of).unwrap_or_default();
        let beginning = tree.as_ref().map(required::beginning).unwrap_or_default();
        let walker = tree.as_ref().filter(|_| !forward.utf).and_then(Walker::new);
        let leading = walker.as_ref().and_then(Walker::leading);
        let leads = matches!(&required[..], [one] if leading.is_some_and(|text| text == one));
        let linear = regex.map(|regex| Linear {
            // What is walked seldom needs the other engine: it was made to see that it can be, and is made again then.
            regex: if walker.is_some() { OnceLock::new() } else { regex.into() },
            source: forward.source.into(),
        });
        let serves = match (&linear, &backtracking) {
            (Some(_), None) => Serves::All,
            (Some(_), Some(_)) => Serves::WithoutNewline,
            (None, _) => Serves::None,
        };
        Ok(Self {
            walker,
            groups: forward.groups as u16,
            utf: forward.utf,
            leads,
            serves,
            rest: Box::new(Rest { linear, backtracking, pattern: pattern.into(), required, beginning }),
        })
    }

    /// Matches and tells the end of the match. Groups are counted up to the last one that took
    /// part; those before it that did not are empty. `known` is what is known of the literal of [`Pcre::single`].
    pub fn find(&self, subject: Text<'_>, captures: &mut Captures, known: Known) -> Option<usize> {
        captures.clear();
        if self.groups == 0 {
            return self.end(subject, known);
        }
        match self.engine(subject.bytes())? {
            Engine::Linear => {
                let subject = subject.bytes();
                let mut marks = captures.take_slots(usize::from(self.groups));
                let walked = self.walk(subject, Some(&mut marks), known);
                let found = matches!(walked, Some(Some(_)));
                captures.give_slots(marks, found);
                if let Some(answer) = walked {
                    return answer;
                }
                let regex = self.linear()?;
                let end = regex.captures_read(captures.places(regex), subject)?.end();
                captures.take_places(regex);
                Some(end)
            }
            Engine::Backtracking(regex, view) => {
                let found = budget::search(view.text().len(), || regex.captures(view.text()))?;
                let places = (1..found.len()).map(|index| found.get(index));
                fill(
                    captures,
                    places.map(|group| {
                        group.map(|group| (view.offset(group.start()), view.offset(group.end())))
                    }),
                );
                found.get(0).map(|whole| view.offset(whole.end()))
            }
        }
    }

    /// Matches without captures and tells the end of the match.
    pub fn end(&self, subject: Text<'_>, known: Known) -> Option<usize> {
        match self.engine(subject.bytes())? {
            Engine::Linear => {
                let linear = || self.linear()?.find(subject.bytes()).map(|found| found.end());
                self.walk(subject.bytes(), None, known).unwrap_or_else(linear)
            }
            Engine::Backtracking(regex, view) => {
                let found = budget::search(view.text().len(), || regex.find(view.text()))?;
                Some(view.offset(found.end()))
            }
        }
    }

    /// Whether `subject` matches.
    pub fn is_match(&self, subject: Text<'_>) -> bool {
        match self.engine(subject.bytes()) {
            None => false,
            Some(Engine::Linear) => {
                let walked = self.walk(subject.bytes(), None, Known::Nothing);
                let linear = || self.linear().is_some_and(|regex| regex.is_match(subject.bytes()));
                walked.map_or_else(linear, |end| end.is_some())
            }
            Some(Engine::Backtracking(regex, view)) => {
                let matched = || regex.is_match(view.text()).map(|matched| matched.then_some(()));
                budget::search(view.text().len(), matched).is_some()
            }
        }
    }

    /// The answer of our own engine, if it has one.
    fn walk(&self, subject: &[u8], marks: Option<&mut [u32]>, known: Known) -> Option<Option<usize>> {
        let from = match known {
            Known::Absent => return Some(None),
            Known::First(place) if self.leads => place,
            _ => 0,
        };
        self.walker.as_ref()?.find(subject, from, marks).ok()
    }

    /// The one lower-case literal that must occur (ASCII case folded) where this matches; empty where none is known.
    pub(crate) fn single(&self) -> &[u8] {
        match &self.rest.required[..] {
            [one] => one,
            _ => &[],
        }
    }

    /// Whether the pattern has a capturing group.
    pub fn has_groups(&self) -> bool {
        self.groups > 0
    }

    /// The pattern as it was written.
    pub fn pattern(&self) -> &[u8] {
        &self.rest.pattern
    }

    pub(crate) fn required_literals(&self) -> Vec<Vec<u8>> {
        self.rest.required.clone()
    }

    /// What a subject that matches may begin with.
    pub(crate) fn beginning(&self) -> &Beginning {
        &self.rest.beginning
    }

    /// The engine that serves `subject`; none if a UTF pattern meets bytes that are no UTF-8.
    fn engine<'s>(&self, subject: &'s [u8]) -> Option<Engine<'_, 's>> {
        if self.utf && std::str::from_utf8(subject).is_err() {
            return None;
        }
        match self.serves {
            Serves::All => return Some(Engine::Linear),
            Serves::WithoutNewline if !subject.ends_with(b"\n") => return Some(Engine::Linear),
            _ => {}
        }
        let regex = self.rest.backtracking.as_ref()?.regex(subject.len())?;
        Some(Engine::Backtracking(regex, View::new(subject, self.utf)))
    }

    fn linear(&self) -> Option<&Regex> {
        self.rest.linear.as_ref()?.regex(self.utf)
    }
}

enum Engine<'r, 's> {
    Linear,
    Backtracking(&'r fancy_regex::Regex, View<'s>),
}

/// A subject as text: itself, or each byte as the code point of its number.
struct View<'s> {
    text: Cow<'s, str>,
    identical: bool,
}

impl<'s> View<'s> {
    fn new(subject: &'s [u8], utf: bool) -> Self {
        match std::str::from_utf8(subject) {
            Ok(text) if utf || text.is_ascii() => Self { text: text.into(), identical: true },
            _ => {
                let text: String = subject.iter().copied().map(char::from).collect();
                Self { text: text.into(), identical: false }
            }
        }
    }

    fn text(&self) -> &str {
        &self.text
    }

    /// The offset in the subject of an offset in the text.
    fn offset(&self, place: usize) -> usize {
        if self.identical { place } else { self.text[..place].chars().count() }
    }
}

fn fill(captures: &mut Captures, groups: impl Iterator<Item = Option<(usize, usize)>>) {
    let mut taken = 0;
    for (index, group) in groups.enumerate() {
        if group.is_some() {
            taken = index + 1;
        }
        let (start, end) = group.unwrap_or((0, 0));
        captures.push(start..end);
    }
    captures.truncate(taken);
}

/// A pattern of the linear engine, which is made when it is first asked.
#[derive(Debug)]
struct Linear {
    source: Box<str>,
    regex: OnceLock<Regex>,
}

impl Linear {
    /// The engine; one that could be made once can be made again.
    fn regex(&self, utf: bool) -> Option<&Regex> {
        if self.regex.get().is_none() {
            let _ = self.regex.set(build_linear(&self.source, utf).ok()?);
        }
        self.regex.get()
    }
}

fn build_linear(source: &str, utf: bool) -> Result<Regex, CompileError> {
    RegexBuilder::new(source)
        .unicode(utf)
        .size_limit(Pcre::SIZE_LIMIT)
        .dfa_size_limit(Pcre::SIZE_LIMIT)
        .nest_limit(2_000)
        .build()
        .map_err(|error| refused(&error))
}

/// One pattern with two limits; the second form is made when the first long subject comes.
#[derive(Debug)]
struct Backtracking {
    source: Box<str>,
    usual: fancy_regex::Regex,
    long: OnceLock<Option<fancy_regex::Regex>>,
}

impl Backtracking {
    fn new(source: String) -> Result<Self, CompileError> {
        let usual = build_backtracking(&source, Pcre::BACKTRACK_LIMIT)?;
        Ok(Self { source: source.into(), usual, long: OnceLock::new() })
    }

    fn regex(&self, length: usize) -> Option<&fancy_regex::Regex> {
        if length <= Pcre::LONG {
            return Some(&self.usual);
        }
        self.long.get_or_init(|| build_backtracking(&self.source, Pcre::LONG_LIMIT).ok()).as_ref()
    }
}

/// The engine looks first for places where a match is possible at all, by a linear form without look-around (`seek`).
fn build_backtracking(source: &str, limit: usize) -> Result<fancy_regex::Regex, CompileError> {
    fancy_regex::RegexBuilder::new(source)
        .backtrack_limit(limit)
        .seek(true)
        .delegate_size_limit(Pcre::SIZE_LIMIT)
        .delegate_dfa_size_limit(Pcre::SIZE_LIMIT)
        .build()
        .map_err(|error| refused(&error))
}

/// The engine's words speak of the rewritten pattern; their last line says what is wrong.
fn refused(error: &dyn std::error::Error) -> CompileError {
    let message = error.to_string();
    CompileError::pcre(message.lines().last().unwrap_or("pattern refused").trim())
}
