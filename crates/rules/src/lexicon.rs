//! Every literal that some decoder or rule looks for in logs, found by one pass over a log for all of them.
//!
//! Four neighbouring bytes of each literal are hashed into a table of bits that all logs share, so it is always close to
//! the processor, whatever program a line is of. A literal is compared only where its bit is set. The four are those that
//! the fewest other literals hold: what many of them hold stands in most logs.
//! Invariant: exactly the literals that occur are found, ASCII case folded.

use std::collections::HashMap;

use tld_pattern::Known;

use crate::ahead;
use crate::literals::{Bits, Numbers, case, commonness, end_from, same};

/// Bytes that are hashed. Shorter literals are not in a lexicon.
const GRAM: usize = 4;
/// The table has this power of two of bits.
const POWER: u32 = 17;
const WORDS: usize = 1 << (POWER - 6);
/// Longer literals are not in a lexicon either.
const LONGEST: usize = 1024;

/// Lower-case literals by number.
#[derive(Debug)]
pub(crate) struct Lexicon {
    table: Box<[u64; WORDS]>,
    /// How many bits stand before a word of the table.
    ranks: Box<[u32; WORDS]>,
    /// For each bit of the table one, in their order; then those that share a bit with another one.
    entries: Box<[Entry]>,
    /// The literals, and behind each for each of its bytes what makes a capital letter small: only a letter matches in both cases.
    texts: Box<[u8]>,
    /// The entries in the order of their texts.
    sorted: Box<[u32]>,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    /// The literal's first eight bytes, and what makes a capital letter small in each.
    word: u64,
    cases: u64,
    /// Where the literal stands among the texts.
    start: u32,
    /// Where in the literal the hashed bytes stand.
    offset: u16,
    length: u16,
    /// Another entry of the same bit.
    next: u32,
    /// How many bits of the first eight bytes are not the literal's.
    vacant: u8,
}

/// No entry.
const NONE: u32 = u32::MAX;

/// Places of a text at which literals may stand, each with the hash there, later with an entry.
#[derive(Debug, Default)]
struct Candidates {
    list: [(u32, u32); ROOM],
    count: usize,
}

/// Room for places, and how many there are at least when literals are compared, so that there is room for twelve more.
const ROOM: usize = 32;
const MANY: usize = 16;

impl Candidates {
    /// Puts one down in any case and keeps it only if it is one: nobody could foresee it, so nothing is to wait for it.
    #[inline(always)]
    fn put(&mut self, place: u32, other: u32, is_one: bool) {
        self.list[self.count % ROOM] = (place, other);
        self.count += usize::from(is_one);
    }

    /// All of them.
    fn all(&mut self) -> &mut [(u32, u32)] {
        &mut self.list[..self.count.min(ROOM)]
    }
}

/// What must occur in a log before an expression is worth asking.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum Needed {
    /// Nothing is known.
    #[default]
    Unknown,
    /// This literal.
    One(u32),
    /// One of these.
    Any(Box<[u32]>),
}

impl Needed {
    /// The literals.
    pub(crate) fn literals(&self) -> &[u32] {
        match self {
            Self::Unknown => &[],
            Self::One(literal) => std::slice::from_ref(literal),
            Self::Any(literals) => literals,
        }
    }
}

/// Which literals occur in one log.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// By literal the place behind the byte at which it begins first; 0 where it does not occur.
    places: Vec<u32>,
    list: Vec<u32>,
    /// None between two passes.
    candidates: Candidates,
    /// Where literals begin of which the first bytes stand, for a moment.
    standing: [(u32, u32); ROOM],
    /// The log was looked through.
    read: bool,
    /// It is known to hold no NUL.
    whole: bool,
}

impl Found {
    /// Forgets the log.
    pub(crate) fn clear(&mut self) {
        self.list.drain(..).for_each(|number| self.places[number as usize] = 0);
        self.read = false;
        self.whole = false;
    }

    /// Notes whether the log is known to hold no NUL.
    pub(crate) fn tell_whole(&mut self, whole: bool) {
        self.whole = whole;
    }

    /// Whether the log is known to hold no NUL.
    pub(crate) fn is_whole(&self) -> bool {
        self.whole
    }

    /// Looks through the log unless that was done.
    pub(crate) fn read(&mut self, lexicon: &Lexicon, log: &[u8]) {
        if !self.read {
            self.read = true;
            lexicon.find(log, self);
        }
    }

    /// Whether the log was looked through.
    pub(crate) fn is_read(&self) -> bool {
        self.read
    }

    /// Whether what is needed occurs.
    pub(crate) fn satisfies(&self, needed: &Needed) -> bool {
        match needed {
            Needed::Unknown => true,
            Needed::One(literal) => self.holds(*literal),
            Needed::Any(literals) => literals.iter().any(|literal| self.holds(*literal)),
        }
    }

    fn holds(&self, number: u32) -> bool {
        self.places.get(number as usize).is_some_and(|place| *place > 0)
    }

    /// Where a literal stands in the log from some place on, as far as that is known.
    pub(crate) fn known(&self, literal: Option<u32>, from: usize) -> Known {
        let Some(place) = literal.and_then(|literal| self.places.get(literal as usize)) else {
            return Known::Nothing;
        };
        match (*place as usize).checked_sub(1) {
            None => Known::Absent,
            // It may stand again behind that place.
            Some(place) => place.checked_sub(from).map_or(Known::Nothing, Known::First),
        }
    }
}

impl Entry {
    /// Of a literal that stands at `start` among the texts and is hashed at `offset`.
    fn new(literal: &[u8], start: u32, offset: usize) -> Self {
        let word = |byte: &dyn Fn(u8) -> u8| {
            let mut bytes = [0; 8];
            bytes.iter_mut().zip(literal).for_each(|(to, from)| *to = byte(*from));
            u64::from_le_bytes(bytes)
        };
        Self {
            word: word(&|byte| byte),
            cases: word(&|byte| case(&byte)),
            start,
            // Both at most `LONGEST`.
            offset: offset as u16,
            length: literal.len() as u16,
            next: NONE,
            vacant: 64 - 8 * literal.len().min(8) as u8,
        }
    }

    /// Whether the literal's first eight bytes, or all of it, stand at a place of a text.
    #[inline(always)]
    fn begins(&self, text: &[u8], start: usize) -> bool {
        match text.get(start..start + 8).and_then(<[u8]>::first_chunk) {
            Some(there) => self.is_like(u64::from_le_bytes(*there)),
            // The text ends less than eight bytes behind the place, or before it.
            None => {
                core::hint::cold_path();
                start + usize::from(self.length) <= text.len() && self.is_like(end_from(text, start))
            }
        }
    }

    #[inline(always)]
    fn is_like(&self, there: u64) -> bool {
        ((there | self.cases) ^ self.word) << (self.vacant & 63) == 0
    }
}

impl Lexicon {
    /// Of these literals; those that are too short or too long are left out.
    pub(crate) fn new(mut literals: Vec<Vec<u8>>) -> Self {
        literals.retain(|literal| (GRAM..=LONGEST).contains(&literal.len()));
        literals.sort_unstable();
        literals.dedup();
        let mut holders: HashMap<u32, u32> = HashMap::new();
        for gram in literals.iter().flat_map(|literal| grams(literal)) {
            *holders.entry(gram).or_default() += 1;
        }
        let mut texts = Vec::new();
        let mut hashed: Vec<(u32, Entry)> = Vec::with_capacity(literals.len());
        for literal in &literals {
            let weighed = grams(literal).enumerate().map(|(at, gram)| {
                let common: u32 = gram.to_le_bytes().into_iter().map(commonness).sum();
                (holders.get(&gram).copied(), common, at)
            });
            let offset = weighed.min().map_or(0, |(_, _, at)| at);
            let gram = grams(literal).nth(offset).unwrap_or_default();
            let start = u32::try_from(texts.len()).unwrap_or(u32::MAX);
            hashed.push((hash(gram), Entry::new(literal, start, offset)));
            texts.extend_from_slice(literal);
            texts.extend(literal.iter().map(case));
        }
        hashed.sort_by_key(|(hash, _)| *hash);
        let mut table = Box::new([0_u64; WORDS]);
        let (mut entries, mut others): (Vec<Entry>, Vec<Entry>) = (Vec::new(), Vec::new());
        let firsts = hashed.chunk_by(|(one, _), (other, _)| one == other).count() as u32;
        for bucket in hashed.chunk_by(|(one, _), (other, _)| one == other) {
            let hash = bucket[0].0;
            table[(hash >> 6) as usize] |= 1 << (hash & 63);
            let count = bucket.len();
            for (at, (_, entry)) in bucket.iter().enumerate() {
                let behind = firsts + others.len() as u32 + u32::from(at > 0);
                let entry = Entry { next: if at + 1 < count { behind } else { NONE }, ..*entry };
                if at == 0 { entries.push(entry) } else { others.push(entry) }
            }
        }
        entries.append(&mut others);
        let (mut ranks, mut before) = (Box::new([0; WORDS]), 0);
        for (rank, word) in ranks.iter_mut().zip(table.iter()) {
            *rank = before;
            before += word.count_ones();
        }
        // Where a literal stands among the texts is its place in their order.
        let mut sorted: Box<[u32]> = (0..entries.len() as u32).collect();
        sorted.sort_by_key(|number| entries[*number as usize].start);
        Self { table, ranks, entries: entries.into(), texts: texts.into(), sorted }
    }

    /// The number of a literal, if it is in here.
    pub(crate) fn number(&self, literal: &[u8]) -> Option<u32> {
        let place = self.sorted.binary_search_by(|number| self.text(*number).cmp(literal));
        place.ok().map(|place| self.sorted[place])
    }

    /// What is needed where one of some literals must occur; unknown if some of them are not in here. What holds another
    /// one of them need not be asked for.
    pub(crate) fn needed(&self, literals: &[Vec<u8>]) -> Needed {
        let mut numbers = Vec::new();
        for literal in literals {
            let holds = |other: &Vec<u8>| other != literal && memchr::memmem::find(literal, other).is_some();
            if !literals.iter().any(holds) {
                let Some(number) = self.number(literal) else { return Needed::Unknown };
                numbers.push(number);
            }
        }
        numbers.sort_unstable();
        numbers.dedup();
        match numbers[..] {
            [] => Needed::Unknown,
            [one] => Needed::One(one),
            _ => Needed::Any(numbers.into()),
        }
    }

    /// Adds what occurs in a text.
    pub(crate) fn find(&self, text: &[u8], found: &mut Found) {
        found.places.resize(self.entries.len(), 0);
        let ask = |gram: u64, at: usize, candidates: &mut Candidates| {
            let hash = hash(gram as u32);
            let there = self.table[(hash >> 6) as usize] >> (hash & 63) & 1;
            // Logs are far shorter than places can be counted.
            candidates.put(at as u32, hash, there == 1);
        };
        // Eight places for one load.
        let word = |bytes: &[u8; 8]| u64::from_le_bytes(*bytes) | u64::from_le_bytes([0x20; 8]);
        let mut at = 0;
        for pair in text.as_chunks::<8>().0.windows(2) {
            let low = word(&pair[0]);
            let high = low >> 32 | word(&pair[1]) << 32;
            for (gram, places) in [(low, at), (high, at + 4)] {
                ask(gram, places, &mut found.candidates);
                ask(gram >> 8, places + 1, &mut found.candidates);
                ask(gram >> 16, places + 2, &mut found.candidates);
                ask(gram >> 24, places + 3, &mut found.candidates);
            }
            at += 8;
            if found.candidates.count >= MANY {
                self.compare(text, found);
            }
        }
        // Twelve places at most.
        grams(&text[at..]).zip(at..).for_each(|(gram, at)| ask(gram.into(), at, &mut found.candidates));
        self.compare(text, found);
    }

    /// The literals whose hashed bytes may stand at some places. Those of all places are fetched before the first is looked at:
    /// most are in memory only.
    #[inline(never)]
    fn compare(&self, text: &[u8], found: &mut Found) {
        for (_, hash) in found.candidates.all() {
            *hash = self.first(*hash);
            if let Some(entry) = self.entries.get(*hash as usize) {
                ahead::fetch(entry);
            }
        }
        let mut done = 0;
        loop {
            let count = self.sift(text, &mut found.candidates, &mut done, &mut found.standing);
            for (start, number) in &found.standing[..count.min(ROOM)] {
                let (entry, place) = (&self.entries[*number as usize], &mut found.places[*number as usize]);
                if *place == 0 && (entry.length <= 8 || self.goes_on(entry, text, *start as usize)) {
                    *place = start + 1;
                    found.list.push(*number);
                }
            }
            if count < ROOM {
                break;
            }
        }
        found.candidates.count = 0;
    }

    /// Those of which the first eight bytes stand, and how many these are. Nobody could foresee it, so there is no branch that
    /// depends on it.
    #[inline(never)]
    fn sift(
        &self,
        text: &[u8],
        candidates: &mut Candidates,
        done: &mut usize,
        standing: &mut [(u32, u32); ROOM],
    ) -> usize {
        let (mut first, mut end, mut count) = (*done, candidates.count, 0);
        while first < end && count < ROOM {
            let (at, number) = candidates.list[first % ROOM];
            let Some(entry) = self.entries.get(number as usize) else { break };
            let start = at.wrapping_sub(entry.offset.into());
            standing[count] = (start, number);
            count += usize::from(entry.begins(text, start as usize));
            // Where one leaves at most one more comes.
            candidates.list[end % ROOM] = (at, entry.next);
            end += usize::from(entry.next != NONE);
            first += 1;
        }
        (*done, candidates.count) = (first, end);
        count
    }

    /// The first entry of a bit that is set.
    fn first(&self, hash: u32) -> u32 {
        let (word, bit) = ((hash >> 6) as usize % WORDS, hash & 63);
        self.ranks[word] + (self.table[word] & ((1 << bit) - 1)).count_ones()
    }

    /// Whether a literal of more than eight bytes stands at a place where its first eight do.
    #[inline(never)]
    fn goes_on(&self, entry: &Entry, text: &[u8], start: usize) -> bool {
        let length = usize::from(entry.length);
        let (literal, cases) = self.texts[entry.start as usize..][..2 * length].split_at(length);
        text.get(start..start + length).is_some_and(|there| same(there, cases, literal))
    }

    fn text(&self, number: u32) -> &[u8] {
        let Entry { start, length, .. } = self.entries[number as usize];
        &self.texts[start as usize..start as usize + usize::from(length)]
    }
}

/// Four bytes, letters in one case.
fn folded(word: u32) -> u32 {
    word | 0x2020_2020
}

fn hash(gram: u32) -> u32 {
    gram.wrapping_mul(0x9e37_79b1) >> (32 - POWER)
}

fn grams(text: &[u8]) -> impl Iterator<Item = u32> {
    text.windows(GRAM).map(|window| folded(window.try_into().map_or(0, u32::from_le_bytes)))
}

/// Whom it concerns that a literal occurs: numbers by literal.
#[derive(Debug, Default)]
pub(crate) struct Concerns {
    /// For 64 literals each: which of them concern anybody, and how many do before.
    words: Box<[(u64, u32)]>,
    /// For each such literal whom it concerns, see [`Numbers`].
    concerned: Box<[u32]>,
    numbers: Numbers,
}

impl Concerns {
    /// Of pairs of a literal and a number.
    pub(crate) fn new(mut pairs: Vec<(u32, u32)>) -> Self {
        pairs.sort_unstable();
        pairs.dedup();
        let most = pairs.last().map_or(0, |(literal, _)| *literal as usize + 1);
        let mut words = vec![(0_u64, 0_u32); most.div_ceil(64)];
        let (mut all, mut numbers) = (Vec::new(), Numbers::default());
        for concerned in pairs.chunk_by(|(one, _), (other, _)| one == other) {
            let literal = concerned[0].0;
            words[literal as usize / 64].0 |= 1 << (literal % 64);
            let own: Vec<u32> = concerned.iter().map(|(_, number)| *number).collect();
            all.push(numbers.keep(&own));
        }
        let mut before = 0;
        for (word, rank) in &mut words {
            *rank = before;
            before += word.count_ones();
        }
        numbers.shrink();
        Self { words: words.into(), concerned: all.into(), numbers }
    }

    /// Memory that it takes.
    pub(crate) fn bytes(&self) -> usize {
        16 * self.words.len() + 4 * self.concerned.len() + self.numbers.bytes()
    }

    /// Has fetched what is to be asked for what was found.
    pub(crate) fn fetch(&self, found: &Found) {
        found
            .list
            .iter()
            .filter_map(|literal| self.words.get((literal / 64) as usize))
            .for_each(ahead::fetch);
    }

    /// Adds the numbers that are concerned by what was found.
    pub(crate) fn collect(&self, found: &Found, out: &mut Bits) {
        let concerned = found.list.iter().filter_map(|literal| self.concerned(*literal));
        concerned.for_each(|word| self.numbers.report(word, out));
    }

    /// Whom a literal concerns, if it concerns anybody.
    fn concerned(&self, literal: u32) -> Option<u32> {
        let (word, before) = self.words.get((literal / 64) as usize)?;
        let bit = literal % 64;
        let rank = before + (word & ((1 << bit) - 1)).count_ones();
        (word >> bit & 1 == 1).then(|| self.concerned[rank as usize])
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn exactly_the_literals_that_occur_are_found(
            text in "[aAbB@` ]{0,70}",
            literals in proptest::collection::vec("[ab@` ]{1,19}", 0..12),
        ) {
            let literals: Vec<Vec<u8>> = literals.into_iter().map(String::into_bytes).collect();
            let lexicon = Lexicon::new(literals.clone());
            let mut found = Found::default();
            found.read(&lexicon, text.as_bytes());
            let folded = text.to_ascii_lowercase().into_bytes();
            for literal in &literals {
                let there = folded.windows(literal.len()).any(|window| window == literal);
                match lexicon.number(literal) {
                    Some(number) => {
                        prop_assert_eq!(found.holds(number), there);
                        let first = memchr::memmem::find(&folded, literal);
                        let known = first.map_or(Known::Absent, Known::First);
                        prop_assert_eq!(found.known(Some(number), 0), known);
                    }
                    None => prop_assert!(literal.len() < GRAM),
                }
            }
            let needed = lexicon.needed(&literals);
            if needed != Needed::Unknown {
                let any = literals.iter().any(|literal| folded.windows(literal.len()).any(|window| window == literal));
                prop_assert_eq!(found.satisfies(&needed), any);
            }
            found.clear();
            prop_assert!(found.list.is_empty() && found.places.iter().all(|place| *place == 0));
        }

        #[test]
        fn everybody_concerned_is_told_once(pairs in proptest::collection::vec((0_u32..300, 0_u32..100), 0..40)) {
            let literals: Vec<Vec<u8>> = (100..400).map(|number| format!("<{number}>").into_bytes()).collect();
            let lexicon = Lexicon::new(literals);
            let concerns = Concerns::new(pairs.clone());
            let mut found = Found::default();
            found.read(&lexicon, b"<100> <163> <164><399>");
            let mut told = Bits::default();
            told.reset(100);
            concerns.collect(&found, &mut told);
            for number in 0..100 {
                let wanted = pairs.iter().any(|(literal, own)| *own == number && found.holds(*literal));
                prop_assert_eq!(told.contains(number as usize), wanted);
            }
        }
    }

    #[test]
    fn literals_of_the_same_bytes_are_all_found() {
        let literals: Vec<Vec<u8>> = (4..=80).map(|length| vec![b'a'; length]).collect();
        let lexicon = Lexicon::new(literals.clone());
        for length in 0..=80 {
            let mut found = Found::default();
            found.read(&lexicon, &vec![b'A'; length]);
            let there = literals.iter().filter(|literal| {
                lexicon.number(literal).is_some_and(|number| found.known(Some(number), 0) == Known::First(0))
            });
            assert!(there.eq(literals.iter().filter(|literal| literal.len() <= length)));
            assert_eq!(found.list.len(), length.saturating_sub(3));
        }
    }

    #[test]
    fn thousands_of_literals_are_told_apart() {
        let literals: Vec<Vec<u8>> =
            (0..20_000_u32).map(|number| format!("<{number}>").into_bytes()).collect();
        let lexicon = Lexicon::new(literals.clone());
        let mut found = Found::default();
        found.read(&lexicon, b"a <17> b <19999>");
        let there = |literal: &Vec<u8>| lexicon.number(literal).is_some_and(|number| found.holds(number));
        let there: Vec<&Vec<u8>> = literals.iter().filter(|literal| there(literal)).collect();
        assert_eq!(there, [b"<17>" as &[u8], b"<19999>"]);
        assert_eq!(lexicon.entries.len(), 19_990);
    }
}
