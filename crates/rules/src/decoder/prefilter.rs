//! Which decoders are worth asking: those whose expression no log can begin like this one for, and those that need one of
//! some literals when none of them stands in the log.
//!
//! The first bytes answer for all decoders at once, and so does one pass over the log, for the rules too. Invariant: the answer may hold decoders too many,
//! never one too few.

use tld_pattern::{Beginning, Expression, Text};

use super::{Action, Decoders, Literals, Prematch, Top, Work};
use crate::lexicon::{Concerns, Found, Lexicon, Needed};
use crate::literals::Bits;

/// From so many expressions below one decoder on, one pass over the log is cheaper than asking each.
const WORTH_A_PASS: usize = 4;

/// So many bytes at the beginning of a log are looked at.
const PLACES: usize = Beginning::PLACES;
/// From so many decoders on that search for a literal each, one pass over the log is cheaper.
const WORTH_SEARCHING: u32 = 2;

/// Which top-level decoders of a list are worth asking.
#[derive(Debug, Default)]
pub(super) struct Prefilter {
    concerns: Concerns,
    /// Decoders of which no literal is known.
    always: Bits,
    /// Decoders that would search the whole log for theirs.
    searching: Bits,
    /// Decoders that are bound to the beginning of a log.
    bound: Bits,
    /// For each place at the beginning of a log and each byte there the decoders that can begin so.
    beginnings: Box<[u64]>,
}

impl Prefilter {
    fn new(list: &[Top], prematches: &[Prematch], lexicon: &Lexicon) -> Self {
        let mut pairs = Vec::new();
        let [mut always, mut searching, mut bound] = std::array::from_fn(|_| {
            let mut none = Bits::default();
            none.reset(list.len());
            none
        });
        let words = list.len().div_ceil(64);
        let mut beginnings = vec![0; PLACES * 256 * words];
        for (number, top) in (0_u32..).zip(list) {
            let prematch = top.work.prematch.and_then(|number| prematches.get(usize::from(number)));
            let prematch = prematch.map(|prematch| &prematch.expression);
            let needed = needed(lexicon, prematch);
            let beginning = prematch.map(Expression::beginning).unwrap_or_default();
            let (word, bit) = (number as usize / 64, number % 64);
            for (place, byte) in (0..PLACES).flat_map(|place| (0..=u8::MAX).map(move |byte| (place, byte))) {
                let allowed = u64::from(beginning.allows(place, byte));
                beginnings[(place * 256 + usize::from(byte)) * words + word] |= allowed << bit;
            }
            if !beginning.is_empty() {
                bound.insert(number as usize);
            }
            if needed == Needed::Unknown {
                always.insert(number as usize);
            } else if beginning.is_empty() {
                searching.insert(number as usize);
            }
            pairs.extend(needed.literals().iter().map(|literal| (*literal, number)));
        }
        Self { concerns: Concerns::new(pairs), always, searching, bound, beginnings: beginnings.into() }
    }

    /// Puts all decoders of the list into `out`.
    pub(super) fn all(&self, out: &mut Bits) {
        out.copy_from(&self.always);
        out.0.fill(u64::MAX);
    }

    /// Leaves out those that no log begins like this one for.
    pub(super) fn begin(&self, log: Text<'_>, out: &mut Bits) {
        let words = out.0.len();
        for (place, byte) in log.bytes().iter().take(PLACES).enumerate() {
            let start = (place * 256 + usize::from(*byte)) * words;
            out.keep(self.beginnings.get(start..start + words).unwrap_or_default());
        }
    }

    /// Whether several of these would search the whole log.
    pub(super) fn is_search(&self, candidates: &Bits) -> bool {
        let words = candidates.0.iter().zip(&self.searching.0);
        words.map(|(word, searching)| (word & searching).count_ones()).sum::<u32>() >= WORTH_SEARCHING
    }

    /// Whether one of these that stand before `end` in the list is known by its beginning.
    pub(super) fn is_begun(&self, candidates: &Bits, end: usize) -> bool {
        let mut next = 0;
        while let Some(place) = candidates.next(next).filter(|place| *place < end) {
            if self.bound.contains(place) {
                return true;
            }
            next = place + 1;
        }
        false
    }

    /// Leaves out those whose literals were not found in the log.
    pub(super) fn find(&self, found: &Found, spare: &mut Bits, out: &mut Bits) {
        spare.copy_from(&self.always);
        self.concerns.collect(found, spare);
        out.keep(&spare.0);
    }
}

/// Makes the lexicon of these decoders and of other literals, and tells every expression its part of it.
pub(super) fn prepare(decoders: &mut Decoders, mut literals: Vec<Vec<u8>>) {
    let Decoders { prematches, regexes, .. } = decoders;
    let expressions = prematches.iter().map(|prematch| &prematch.expression);
    let expressions = expressions.chain(regexes.iter().map(|regex| &regex.expression));
    literals.extend(expressions.flat_map(Expression::required_literals));
    let lexicon = Lexicon::new(literals);
    let literals = |expression: &Expression| {
        Literals::new(expression.by_alternative().into_iter().map(|literal| lexicon.number(literal)))
    };
    for prematch in prematches.iter_mut() {
        prematch.literals = literals(&prematch.expression);
    }
    for regex in regexes.iter_mut() {
        regex.literals = literals(&regex.expression);
    }
    let prematch = |work: Work| {
        let number = usize::from(work.prematch?);
        prematches.get(number).map(|prematch| &prematch.expression)
    };
    let regex = |work: Work| match work.action {
        Action::Regex(number) => regexes.get(usize::from(number)).map(|regex| &regex.expression),
        _ => None,
    };
    for top in decoders.with_program.iter_mut().chain(&mut decoders.without_program) {
        let mut expressions = 0;
        for child in &mut top.children {
            expressions += prematch(child.work).into_iter().chain(regex(child.work)).count();
            child.prematch = needed(&lexicon, prematch(child.work));
            child.regex = needed(&lexicon, regex(child.work));
        }
        top.read = expressions >= WORTH_A_PASS;
    }
    decoders.named = Prefilter::new(&decoders.with_program, &decoders.prematches, &lexicon);
    decoders.prefilter = Prefilter::new(&decoders.without_program, &decoders.prematches, &lexicon);
    decoders.lexicon = lexicon;
}

fn needed(lexicon: &Lexicon, expression: Option<&Expression>) -> Needed {
    expression.map_or(Needed::Unknown, |expression| lexicon.needed(&expression.required_literals()))
}
