//! Which of many literals occur in a text, told by one pass over it: the base of every pre-filter here.
//!
//! Three neighbouring bytes of each literal, the rarest ones, are hashed into a small table of bits. The pass hashes
//! every three bytes of the text and compares a literal only where its bit is set. Nothing in the pass waits for the
//! byte before, and the table stays close to the processor also where many sets take turns.
//! Invariant: exactly the literals that occur are reported, ASCII case folded, each at least once.

use std::collections::BTreeMap;

/// A set of numbers that starts empty and keeps its memory.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct Bits(pub(crate) Vec<u64>);

impl Bits {
    /// Adds all members of `other`.
    pub(crate) fn copy_from(&mut self, other: &Self) {
        self.0.clone_from(&other.0);
    }

    /// Empties the set and makes room for the numbers below `count`.
    pub(crate) fn reset(&mut self, count: usize) {
        self.0.clear();
        self.0.resize(count.div_ceil(64), 0);
    }

    pub(crate) fn insert(&mut self, number: usize) {
        if let Some(word) = self.0.get_mut(number / 64) {
            *word |= 1 << (number % 64);
        }
    }

    /// Keeps only what is also a member of `other`.
    pub(crate) fn keep(&mut self, other: &[u64]) {
        self.0.iter_mut().zip(other).for_each(|(word, other)| *word &= other);
    }

    pub(crate) fn contains(&self, number: usize) -> bool {
        self.0.get(number / 64).is_some_and(|word| word >> (number % 64) & 1 == 1)
    }

    /// The first member that is not below `from`.
    pub(crate) fn next(&self, from: usize) -> Option<usize> {
        let words = self.0.iter().enumerate().skip(from / 64);
        words.into_iter().find_map(|(word, bits)| {
            let below = if word == from / 64 { (1_u64 << (from % 64)) - 1 } else { 0 };
            let bits = bits & !below;
            (bits != 0).then(|| word * 64 + bits.trailing_zeros() as usize)
        })
    }
}

/// Bytes that are hashed.
const GRAM: usize = 3;
/// The table of a large set has this power of two of bits, and a quarter as many buckets.
const TABLE: u32 = 14;
const WORDS: usize = 1 << (TABLE - 6);

/// Lower-case literals, ready to be looked for all at once.
#[derive(Debug, Default)]
pub(crate) struct LiteralSet {
    table: Box<[u64]>,
    /// Where the entries of a bucket begin; one more than there are buckets.
    starts: Box<[u32]>,
    entries: Box<[Entry]>,
    /// Literals of one or two bytes, looked for one by one.
    short: Box<[Short]>,
    /// What is left of 32 bits above the table's power.
    shift: u32,
}

#[derive(Debug)]
struct Short {
    literal: Box<[u8]>,
    numbers: Box<[u32]>,
}

#[derive(Debug)]
struct Entry {
    /// The hashed bytes, letters in one case.
    gram: u32,
    literal: Box<[u8]>,
    /// Where in the literal the hashed bytes stand.
    offset: usize,
    /// The numbers to report.
    numbers: Box<[u32]>,
}

impl LiteralSet {
    /// The set of these literals, each with the number to report, which several may share.
    pub(crate) fn new(literals: &[(Vec<u8>, u32)]) -> Self {
        let mut by_text: BTreeMap<&[u8], Vec<u32>> = BTreeMap::new();
        for (literal, number) in literals {
            by_text.entry(literal).or_default().push(*number);
        }
        let (mut short, mut entries) = (Vec::new(), Vec::new());
        for (literal, numbers) in by_text {
            if literal.len() < GRAM {
                short.push(Short { literal: literal.into(), numbers: numbers.into() });
                continue;
            }
            let offset = rarest(literal);
            let gram = literal.get(offset..).map_or(0, gram_of);
            entries.push((gram, Entry { gram, literal: literal.into(), offset, numbers: numbers.into() }));
        }
        let power = (entries.len() * 16).next_power_of_two().trailing_zeros().clamp(6, TABLE);
        let shift = 32 - power;
        entries.sort_by_key(|(gram, _)| hash(*gram, shift));
        let mut table = vec![0_u64; if entries.is_empty() { 0 } else { 1 << (power - 6) }];
        let mut starts = vec![0_u32; if entries.is_empty() { 0 } else { (1 << (power - 2)) + 1 }];
        for (gram, _) in &entries {
            let hash = hash(*gram, shift);
            table[(hash >> 6) as usize] |= 1 << (hash & 63);
            starts[(hash >> 2) as usize + 1] += 1;
        }
        for bucket in 1..starts.len() {
            starts[bucket] += starts[bucket - 1];
        }
        let entries = entries.into_iter().map(|(_, entry)| entry).collect();
        Self { table: table.into(), starts: starts.into(), entries, short: short.into(), shift }
    }

    /// Memory that it takes, roughly.
    pub(crate) fn bytes(&self) -> usize {
        8 * self.table.len() + 4 * self.starts.len() + 96 * self.entries.len()
    }

    /// Adds the numbers of the literals that occur in `text`.
    pub(crate) fn find(&self, text: &[u8], found: &mut Bits) {
        for Short { literal, numbers } in &self.short {
            if short_occurs(text, literal) {
                numbers.iter().for_each(|number| found.insert(*number as usize));
            }
        }
        if self.entries.is_empty() {
            return;
        }
        match <&[u64; WORDS]>::try_from(&*self.table) {
            Ok(table) => {
                self.scan(text, found, |gram| {
                    let hash = hash(gram, 32 - TABLE);
                    table[(hash >> 6) as usize] >> (hash & 63) & 1 == 1
                });
            }
            Err(_) => self.scan(text, found, |gram| {
                let hash = hash(gram, self.shift);
                self.table[(hash >> 6) as usize] >> (hash & 63) & 1 == 1
            }),
        }
    }

    fn scan(&self, text: &[u8], found: &mut Bits, may_stand: impl Fn(u32) -> bool) {
        for (at, window) in text.windows(GRAM + 1).enumerate() {
            let gram = folded(window.try_into().map_or(0, u32::from_le_bytes));
            if may_stand(gram) {
                self.compare(text, at, gram, found);
            }
        }
        if let Some(at) = text.len().checked_sub(GRAM) {
            self.compare(text, at, gram_of(&text[at..]), found);
        }
    }

    /// The literals whose hashed bytes may stand at a place.
    #[inline(never)]
    fn compare(&self, text: &[u8], at: usize, gram: u32, found: &mut Bits) {
        let bucket = (hash(gram, self.shift) >> 2) as usize;
        let range = self.starts[bucket] as usize..self.starts[bucket + 1] as usize;
        for entry in self.entries[range].iter().filter(|entry| entry.gram == gram) {
            let Some(start) = at.checked_sub(entry.offset) else { continue };
            let there = text.get(start..start + entry.literal.len());
            if there.is_some_and(|there| there.eq_ignore_ascii_case(&entry.literal)) {
                entry.numbers.iter().for_each(|number| found.insert(*number as usize));
            }
        }
    }
}

/// The first three bytes of a word, letters in one case.
fn folded(word: u32) -> u32 {
    (word | 0x0020_2020) & 0x00ff_ffff
}

fn hash(gram: u32, shift: u32) -> u32 {
    gram.wrapping_mul(0x9e37_79b1) >> shift
}

fn gram_of(text: &[u8]) -> u32 {
    text.first_chunk::<GRAM>()
        .map_or(0, |[one, two, three]| folded(u32::from_le_bytes([*one, *two, *three, 0])))
}

/// Where the three rarest bytes in a row stand.
fn rarest(literal: &[u8]) -> usize {
    let windows = literal.windows(GRAM).enumerate();
    let weighed = windows.map(|(at, gram)| (gram.iter().map(|byte| commonness(*byte)).sum::<u32>(), at));
    weighed.min().map_or(0, |(_, at)| at)
}

/// A coarse order of how often bytes occur in logs; only speed depends on it.
pub(crate) fn commonness(byte: u8) -> u32 {
    match byte {
        b' ' | b'e' | b'a' | b'i' | b'o' | b'n' | b'r' | b's' | b't' | b'0'..=b'9' => 4,
        b'.' | b':' | b'd' | b'l' | b'c' | b'u' | b'p' | b'm' | b'=' | b'/' => 3,
        b'f' | b'g' | b'h' | b'b' | b'w' | b'y' | b'v' | b'k' | b'-' | b'"' => 2,
        _ => 1,
    }
}

fn short_occurs(text: &[u8], literal: &[u8]) -> bool {
    let Some(&first) = literal.first() else { return true };
    memchr::memchr2_iter(first, first.to_ascii_uppercase(), text)
        .any(|at| text.get(at..at + literal.len()).is_some_and(|there| there.eq_ignore_ascii_case(literal)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn found(set: &LiteralSet, text: &[u8]) -> Vec<usize> {
        let mut bits = Bits::default();
        bits.reset(20_000);
        set.find(text, &mut bits);
        (0..20_000).filter(|number| bits.contains(*number)).collect()
    }

    proptest! {
        #[test]
        fn exactly_the_literals_that_occur_are_found(
            literals in proptest::collection::vec("[ab!@]{1,6}", 0..12),
            text in "[abAB!@`x]{0,40}",
        ) {
            let bytes: Vec<_> = literals.iter().map(|literal| literal.clone().into_bytes()).zip(0..).collect();
            let lower = text.to_ascii_lowercase();
            let wanted: Vec<usize> = literals
                .iter()
                .enumerate()
                .filter(|(_, literal)| lower.contains(literal.as_str()))
                .map(|(number, _)| number)
                .collect();
            prop_assert_eq!(found(&LiteralSet::new(&bytes), text.as_bytes()), wanted);
        }
    }

    #[test]
    fn thousands_of_literals_are_told_apart() {
        let literals: Vec<_> =
            (0..20_000_u32).map(|number| (format!("<{number}>").into_bytes(), number)).collect();
        assert_eq!(found(&LiteralSet::new(&literals), b"a <17> b <19999>"), [17, 19_999]);
    }

    #[test]
    fn members_are_found_in_order() {
        let mut bits = Bits::default();
        bits.reset(200);
        [3, 64, 130].into_iter().for_each(|number| bits.insert(number));
        let next = [0, 4, 65, 131].map(|from| bits.next(from));
        assert_eq!(next, [Some(3), Some(64), Some(130), None]);
    }
}
