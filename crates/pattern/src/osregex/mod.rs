//! OSRegex: the contract's own small expression language, with its own idea of a match.
//!
//! A run (`\w+`) ends where the next item accepts the byte, backtracking is four deep, and the
//! reported place is not always the end. Rules depend on all of it, so the procedure is reproduced
//! step by step: [`matcher`] serves, `reference` says the same more plainly, tests hold them equal.

mod compile;
mod matcher;
mod op;
mod program;
#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;

use matcher::{Program, UNSET};
use memchr::memmem;

use crate::beginning::Beginning;
use crate::literal::Needle;
use crate::{Captures, CompileError, Text, text};

/// What a caller knows of the place of a literal in a subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    /// Nothing.
    Nothing,
    /// It does not occur.
    Absent,
    /// It stands here, and nowhere before.
    First(usize),
}

/// A compiled OSRegex.
#[derive(Debug, Clone)]
#[repr(C)]
pub struct OsRegex {
    /// The first alternative, most often the only one: it stands here, so that no other memory leads to it.
    first: Program,
    rest: Box<Rest>,
}

/// What is seldom asked.
#[derive(Debug, Clone)]
struct Rest {
    others: Box<[Program]>,
    /// What every alternative requires at least, where there are several.
    common: Option<Needle>,
    pattern: Box<[u8]>,
}

impl OsRegex {
    /// The steps one search may take. Beyond it the answer is "no match".
    ///
    /// Restarts make the procedure quadratic on unkind subjects, with a run more than that. A line
    /// of 64 KiB takes about as many steps as it has bytes in the ordinary case; running into the
    /// limit takes some 50 ms, measured unoptimised.
    pub const STEP_LIMIT: usize = 1 << 24;

    /// Compiles `pattern`. Errors: 3 too long, 6 bad escape, 7 bad parentheses.
    pub fn compile(pattern: &[u8]) -> Result<Self, CompileError> {
        let alternatives: Vec<_> = program::parse(text(pattern))?.iter().map(Program::new).collect();
        let grouped = alternatives.iter().any(Program::has_marks);
        let required = || alternatives.iter().filter(|program| program.can_match()).map(Program::required);
        let shared = required().min_by_key(|literal| literal.len()).filter(|shared| {
            alternatives.len() > 1
                && !shared.is_empty()
                && required().all(|all| memmem::find(all, shared).is_some())
        });
        let common = shared.map(Needle::new);
        let mut alternatives = alternatives.into_iter();
        let mut first = alternatives.next().expect("even the empty pattern has one alternative");
        let others: Box<[_]> = alternatives.collect();
        (first.alone, first.grouped) = (others.is_empty(), grouped);
        Ok(Self { first, rest: Box::new(Rest { others, common, pattern: pattern.into() }) })
    }

    fn alternatives(&self) -> impl Iterator<Item = &Program> {
        std::iter::once(&self.first).chain(&self.rest.others)
    }

    /// Matches with captures. The answer is the reported place, which may be -1.
    ///
    /// `known` tells where the literals of [`OsRegex::by_alternative`] stand.
    pub fn find(
        &self,
        subject: Text<'_>,
        captures: &mut Captures,
        known: impl Fn(usize) -> Known,
    ) -> Option<isize> {
        captures.clear();
        if !self.first.grouped {
            return self.place(subject, known);
        }
        let mut marks = captures.take_marks();
        let place = self.search(subject.bytes(), Some(&mut marks), known);
        let place = place.filter(|_| collect(&marks, captures));
        captures.give_marks(marks);
        place
    }

    /// Matches without captures and tells the reported place.
    pub fn place(&self, subject: Text<'_>, known: impl Fn(usize) -> Known) -> Option<isize> {
        self.search(subject.bytes(), None, known)
    }

    /// The place of the first alternative that matches. `known` tells of the literals of each.
    fn search(
        &self,
        subject: &[u8],
        mut marks: Option<&mut Vec<usize>>,
        known: impl Fn(usize) -> Known,
    ) -> Option<isize> {
        let mut steps = Self::STEP_LIMIT;
        if self.first.alone {
            return self.first.run(subject, marks, &mut steps, known(0));
        }
        // Looked for when the first alternative comes of whose literal nothing is known.
        let mut open = None;
        let mut run = |number: usize, program: &Program| {
            let known = known(number);
            let mut open = || {
                *open.get_or_insert_with(|| self.rest.common.as_ref().is_none_or(|all| all.is_in(subject)))
            };
            let asked = known != Known::Nothing || open();
            if asked { program.run(subject, marks.as_deref_mut(), &mut steps, known) } else { None }
        };
        let first = run(0, &self.first);
        first.or_else(|| self.rest.others.iter().zip(1..).find_map(|(program, number)| run(number, program)))
    }

    /// Whether `subject` matches, without captures.
    pub fn is_match(&self, subject: &[u8]) -> bool {
        self.place(Text::new(subject), |_| Known::Nothing).is_some()
    }

    /// What a subject that matches may begin with; rules are loaded then, so it is worked out anew.
    pub(crate) fn beginning(&self) -> Beginning {
        let alternatives = program::parse(text(&self.rest.pattern)).unwrap_or_default();
        Beginning::any(alternatives.iter().filter_map(compile::beginning))
    }

    /// For each alternative a lower-case literal that must occur (ASCII case folded) where it matches; empty where none is
    /// known.
    pub fn by_alternative(&self) -> impl Iterator<Item = &[u8]> {
        self.alternatives().map(Program::required)
    }

    /// Whether the pattern has a group.
    pub fn has_groups(&self) -> bool {
        self.first.grouped
    }

    /// The pattern as it was written.
    pub fn pattern(&self) -> &[u8] {
        &self.rest.pattern
    }

    pub(crate) fn refuses_quickly(&self) -> bool {
        self.first.alone && (self.first.plain || !self.beginning().is_empty())
    }

    /// The texts, if each alternative asks for the whole subject.
    pub(crate) fn wholes(&self) -> Option<Vec<Vec<u8>>> {
        let possible = self.alternatives().filter(|program| program.can_match());
        possible.map(|program| program.whole().map(<[u8]>::to_vec)).collect()
    }

    pub(crate) fn required_literals(&self) -> Vec<Vec<u8>> {
        let mut literals = Vec::new();
        for program in self.alternatives().filter(|program| program.can_match()) {
            if program.required().is_empty() {
                return Vec::new();
            }
            literals.push(program.required().to_vec());
        }
        literals
    }
}

/// Pairs the marks into groups; false where a group would close before it opens.
///
/// The original reads memory that is not its own in that case, so the whole match is refused.
fn collect(marks: &[usize], captures: &mut Captures) -> bool {
    for pair in marks.chunks_exact(2) {
        let (open, close) = (pair[0], pair[1]);
        if open == UNSET || close == UNSET {
            break;
        }
        if close < open {
            captures.clear();
            return false;
        }
        captures.push(open..close);
    }
    true
}
