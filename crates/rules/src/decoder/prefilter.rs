//! Which decoders are worth asking: those whose expression needs one of some literals are left out when none of them
//! stands in the log.
//!
//! One pass over the log answers for all of them, and for the rules too. Invariant: the answer may hold decoders too many,
//! never one too few.

use tld_pattern::Expression;

use super::{Action, Decoder, Decoders, Top};
use crate::lexicon::{Concerns, Found, Lexicon, Needed};
use crate::literals::Bits;

/// From so many expressions below one decoder on, one pass over the log is cheaper than asking each.
const WORTH_A_PASS: usize = 4;

/// Which top-level decoders of a list are worth asking.
#[derive(Debug, Default)]
pub(super) struct Prefilter {
    concerns: Concerns,
    /// Decoders of which nothing is known.
    always: Bits,
}

impl Prefilter {
    fn new(list: &[Top], entries: &[Decoder], lexicon: &Lexicon) -> Self {
        let mut pairs = Vec::new();
        let mut always = Bits::default();
        always.reset(list.len());
        for (place, top) in (0_u32..).zip(list) {
            let prematch = entries.get(usize::from(top.decoder)).and_then(prematch);
            let needed = needed(lexicon, prematch);
            if needed == Needed::Unknown {
                always.insert(place as usize);
            }
            pairs.extend(needed.literals().iter().map(|literal| (*literal, place)));
        }
        Self { concerns: Concerns::new(pairs), always }
    }

    /// The decoders to ask about a log in which this was found, put into `out`.
    pub(super) fn candidates(&self, found: &Found, out: &mut Bits) {
        out.copy_from(&self.always);
        self.concerns.collect(found, out);
    }
}

/// Makes the lexicon of these decoders and of other literals, and tells every expression its part of it.
pub(super) fn prepare(decoders: &mut Decoders, mut literals: Vec<Vec<u8>>) {
    for decoder in &decoders.entries {
        let expressions = prematch(decoder).into_iter().chain(regex(decoder));
        literals.extend(expressions.flat_map(Expression::required_literals));
    }
    let lexicon = Lexicon::new(literals);
    for decoder in &mut decoders.entries {
        if let Action::Regex(regex) = &mut decoder.action {
            let literals = regex.expression.by_alternative().into_iter();
            regex.literals = literals.map(|literal| lexicon.number(literal)).collect();
        }
    }
    let entries = &decoders.entries;
    for top in decoders.with_program.iter_mut().chain(&mut decoders.without_program) {
        let mut expressions = 0;
        for child in &mut top.children {
            let Some(decoder) = entries.get(usize::from(child.decoder)) else { continue };
            expressions += prematch(decoder).into_iter().chain(regex(decoder)).count();
            child.prematch = needed(&lexicon, prematch(decoder));
            child.regex = needed(&lexicon, regex(decoder));
        }
        top.read = expressions >= WORTH_A_PASS;
    }
    decoders.prefilter = Prefilter::new(&decoders.without_program, entries, &lexicon);
    decoders.lexicon = lexicon;
}

fn needed(lexicon: &Lexicon, expression: Option<&Expression>) -> Needed {
    expression.map_or(Needed::Unknown, |expression| lexicon.needed(&expression.required_literals()))
}

fn prematch(decoder: &Decoder) -> Option<&Expression> {
    decoder.prematch.as_ref().map(|prematch| &prematch.expression)
}

fn regex(decoder: &Decoder) -> Option<&Expression> {
    match &decoder.action {
        Action::Regex(regex) => Some(&regex.expression),
        _ => None,
    }
}
