//! Which top-level decoders are worth asking, for events without a program: those whose prematch needs one of
//! some literals are left out when none of them stands in the log.
//!
//! One pass over the log answers for all of them. Invariant: the answer may hold decoders too many, never one
//! too few.

use aho_corasick::{AhoCorasick, MatchKind};

use super::{Decoder, Top};

/// A set of places in a list of decoders.
#[derive(Debug, Clone, Default)]
pub(super) struct Places(Vec<u64>);

impl Places {
    fn insert(&mut self, place: usize) {
        let word = place / 64;
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        if let Some(bits) = self.0.get_mut(word) {
            *bits |= 1 << (place % 64);
        }
    }

    /// The first member that is not below `from`.
    pub(super) fn next(&self, from: usize) -> Option<usize> {
        let words = self.0.iter().enumerate().skip(from / 64);
        words.into_iter().find_map(|(word, bits)| {
            let below = if word == from / 64 { (1_u64 << (from % 64)) - 1 } else { 0 };
            let bits = bits & !below;
            (bits != 0).then(|| word * 64 + bits.trailing_zeros() as usize)
        })
    }
}

/// The literals of a list.
#[derive(Debug, Default)]
pub(super) struct Prefilter {
    literals: Option<AhoCorasick>,
    /// For each literal, the decoder that needs it.
    owners: Vec<usize>,
    /// Decoders of which nothing is known.
    always: Places,
}

impl Prefilter {
    pub(super) fn new(list: &[Top], entries: &[Decoder]) -> Self {
        let mut literals: Vec<Vec<u8>> = Vec::new();
        let mut owners = Vec::new();
        let mut always = Places::default();
        for (place, top) in list.iter().enumerate() {
            let prematch = entries.get(usize::from(top.decoder)).and_then(|entry| entry.prematch.as_ref());
            let needed = prematch.map_or_else(Vec::new, |prematch| prematch.expression.required_literals());
            if needed.is_empty() || needed.iter().any(Vec::is_empty) {
                always.insert(place);
                continue;
            }
            owners.extend(needed.iter().map(|_| place));
            literals.extend(needed);
        }
        let automaton = AhoCorasick::builder()
            .ascii_case_insensitive(true)
            .match_kind(MatchKind::Standard)
            .build(&literals);
        match automaton {
            Ok(automaton) => Self { literals: Some(automaton), owners, always },
            // Too many literals for an automaton: everything is asked.
            Err(_) => {
                (0..list.len()).for_each(|place| always.insert(place));
                Self { literals: None, owners: Vec::new(), always }
            }
        }
    }

    /// The decoders to ask about this log, put into `out`.
    pub(super) fn candidates(&self, log: &[u8], out: &mut Places) {
        out.0.clone_from(&self.always.0);
        let Some(literals) = &self.literals else { return };
        for found in literals.find_overlapping_iter(log) {
            if let Some(owner) = self.owners.get(found.pattern().as_usize()) {
                out.insert(*owner);
            }
        }
    }
}
