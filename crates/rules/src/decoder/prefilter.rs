//! Which decoders of a list are worth asking: those whose prematch needs one of some literals are left out when
//! none of them stands in the log.
//!
//! One pass over the log answers for all of them. Invariant: the answer may hold decoders too many, never one
//! too few.

use super::{Decoder, Prematch};
use crate::literals::{Bits, LiteralSet};

/// The literals of a list.
#[derive(Debug)]
pub(super) struct Prefilter {
    literals: LiteralSet,
    /// Decoders of which nothing is known.
    always: Bits,
}

impl Prefilter {
    /// Of the decoders with these numbers, in this order.
    pub(super) fn new(list: impl ExactSizeIterator<Item = u16>, entries: &[Decoder]) -> Self {
        let mut literals = Vec::new();
        let mut always = Bits::default();
        always.reset(list.len());
        for (place, decoder) in (0_u32..).zip(list) {
            let prematch = entries.get(usize::from(decoder)).and_then(|entry| entry.prematch.as_ref());
            let needed = prematch.map_or_else(Vec::new, needed);
            if needed.is_empty() {
                always.insert(place as usize);
            }
            literals.extend(needed.into_iter().map(|literal| (literal, place)));
        }
        Self { literals: LiteralSet::new(&literals), always }
    }

    /// The decoders to ask about this log, put into `out`.
    pub(super) fn candidates(&self, log: &[u8], out: &mut Bits) {
        out.copy_from(&self.always);
        self.literals.find(log, out);
    }
}

fn needed(prematch: &Prematch) -> Vec<Vec<u8>> {
    let needed = prematch.expression.required_literals();
    if needed.iter().any(Vec::is_empty) { Vec::new() } else { needed }
}
