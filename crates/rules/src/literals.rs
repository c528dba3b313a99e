//! Which of many literals occur in a text, told by one pass over it: the base of every pre-filter here.
//!
//! A few neighbouring bytes of each literal, the rarest ones, are hashed into a small table of bits. The pass hashes as
//! many bytes at places of the text and compares a literal only where its bit is set. Nothing in the pass waits for the
//! byte before, and the table stays close to the processor also where many sets take turns. Where all literals have five
//! bytes, four from each of two neighbouring places are in the table, and every other place of a text need not be looked
//! at.
//! Invariant: exactly the literals that occur are reported, ASCII case folded, each at least once.

use std::collections::BTreeMap;

use tld_pattern::Needle;

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

    /// Adds the members of a small set, numbered from `start` on.
    pub(crate) fn insert_all(&mut self, start: usize, members: u16) {
        let (word, shift) = (start / 64, start % 64);
        let members = u128::from(members) << shift;
        for (word, part) in self.0.iter_mut().skip(word).zip([members as u64, (members >> 64) as u64]) {
            *word |= part;
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

/// Words of the two sizes of tables.
const SMALL: usize = 16;
const LARGE: usize = 256;
/// So many entries at most are in a small one.
const FIT: usize = 48;
const FACTOR: u32 = 0x9e37_79b1;
/// Longer literals are looked for one by one.
const LONGEST: usize = 1024;
/// A set with at most so many literals of three or four bytes looks for these one by one.
const FEW: usize = 2;

/// Lower-case literals, ready to be looked for all at once.
#[derive(Debug, Default)]
pub(crate) struct LiteralSet {
    /// Words as many as one of the two sizes, or none.
    table: Box<[u64]>,
    /// How many bits stand before a word of the table.
    ranks: Box<[u16]>,
    /// Where the entries of a bit begin; one more than there are bits.
    starts: Box<[u16]>,
    entries: Box<[Entry]>,
    /// The literals, and behind each for each of its bytes what makes a capital letter small: only a letter matches in both cases.
    texts: Box<[u8]>,
    numbers: Numbers,
    alone: Box<[Alone]>,
    /// No text below this length holds any of the literals.
    shortest: usize,
    /// All literals in the table have five bytes or more, so that a look at every other place meets them.
    sparse: bool,
}

/// A literal that is looked for by itself.
#[derive(Debug)]
struct Alone {
    needle: Needle,
    /// What to report, see [`Numbers`].
    number: u32,
}

/// Hashed bytes of a literal, in half a line of a cache, which decides most questions.
#[derive(Debug, Clone, Copy)]
struct Entry {
    /// The literal's first eight bytes, and what makes a capital letter small in each.
    head: Head,
    /// Where the literal stands among the texts.
    start: u32,
    /// What to report, see [`Numbers`].
    number: u32,
    length: u16,
    /// Where in the literal the hashed bytes stand.
    offset: u16,
}

/// The mark of several numbers, which no number reaches.
const SEVERAL: u32 = 1 << 31;

/// What to report for what has several numbers: how many, then these. Most things have one, which stands with them; the others
/// have the place here, with a mark.
#[derive(Debug, Default)]
pub(crate) struct Numbers(Vec<u32>);

impl Numbers {
    /// The word that stands for some numbers.
    pub(crate) fn keep(&mut self, numbers: &[u32]) -> u32 {
        match numbers {
            [number] if *number < SEVERAL => *number,
            _ => {
                let place = self.0.len() as u32;
                self.0.push(numbers.len() as u32);
                self.0.extend(numbers);
                SEVERAL | place
            }
        }
    }

    /// Adds the numbers that a word stands for.
    #[inline]
    pub(crate) fn report(&self, word: u32, found: &mut Bits) {
        match word {
            number @ ..SEVERAL => found.insert(number as usize),
            several => self.report_all(several ^ SEVERAL, found),
        }
    }

    #[inline(never)]
    fn report_all(&self, place: u32, found: &mut Bits) {
        if let Some((count, numbers)) = self.0.get(place as usize..).and_then(<[u32]>::split_first) {
            numbers.iter().take(*count as usize).for_each(|number| found.insert(*number as usize));
        }
    }

    /// Memory that it takes.
    pub(crate) fn bytes(&self) -> usize {
        4 * self.0.capacity()
    }

    /// Gives up memory beyond that.
    pub(crate) fn shrink(&mut self) {
        self.0.shrink_to_fit();
    }
}

/// The first eight bytes of a literal.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Head {
    word: u64,
    cases: u64,
}

impl Head {
    pub(crate) fn new(literal: &[u8]) -> Self {
        let word = |byte: &dyn Fn(u8) -> u8| {
            let mut bytes = [0; 8];
            bytes.iter_mut().zip(literal).for_each(|(to, from)| *to = byte(*from));
            u64::from_le_bytes(bytes)
        };
        Self { word: word(&|byte| byte), cases: word(&|byte| case(&byte)) }
    }

    /// Whether a literal of this length begins at a place of a text that does not end before it.
    #[inline]
    pub(crate) fn stands(self, length: usize, text: &[u8], start: usize) -> bool {
        let word = match text.get(start..).and_then(|rest| rest.first_chunk()) {
            Some(first) => u64::from_le_bytes(*first),
            None => end_from(text, start),
        };
        // Of a shorter one only so many bytes count.
        let mask = u64::MAX >> (64 - 8 * length.min(8));
        (word | self.cases) & mask == self.word
    }
}

/// The last bytes of a text, fewer than eight, and zeros.
#[inline]
pub(crate) fn end_from(text: &[u8], start: usize) -> u64 {
    match text.last_chunk() {
        Some(last) => u64::from_le_bytes(*last) >> (8 * (start + 8 - text.len())),
        None => text[start..].iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte)),
    }
}

impl LiteralSet {
    /// The set of these literals, each with the number to report, which several may share.
    pub(crate) fn new(literals: &[(impl AsRef<[u8]>, u32)]) -> Self {
        let mut by_text: BTreeMap<&[u8], Vec<u32>> = BTreeMap::new();
        for (literal, number) in literals {
            by_text.entry(literal.as_ref()).or_default().push(*number);
        }
        let sparse = by_text.keys().filter(|literal| (3..=4).contains(&literal.len())).count() <= FEW;
        let least = if sparse { 5 } else { 3 };
        let (mut alone, mut entries) = (Vec::new(), Vec::new());
        let (mut texts, mut several) = (Vec::new(), Numbers::default());
        let shortest = by_text.keys().map(|literal| literal.len()).min().unwrap_or(0);
        for (literal, numbers) in by_text {
            let number = several.keep(&numbers);
            if !(least..=LONGEST).contains(&literal.len()) || entries.len() > usize::from(u16::MAX) - 2 {
                alone.push(Alone { needle: Needle::new(literal), number });
                continue;
            }
            let start = texts.len() as u32;
            texts.extend_from_slice(literal);
            texts.extend(literal.iter().map(case));
            // At most `LONGEST`.
            let length = literal.len() as u16;
            let head = Head::new(literal);
            let entry = |(gram, offset)| (gram, Entry { head, start, number, length, offset });
            entries.extend(grams(literal, sparse).map(entry));
        }
        let words = match entries.len() {
            0 => 0,
            1..=FIT => SMALL,
            _ => LARGE,
        };
        let mut table = vec![0_u64; words];
        let place = |(gram, _): &(u32, Entry)| place_of(hash(*gram, sparse), table.len());
        entries.sort_by_key(place);
        let places: Vec<_> = entries.iter().map(place).collect();
        let mut starts = Vec::new();
        for (number, (word, bit)) in (0_u16..).zip(&places) {
            if table[*word] >> bit & 1 == 0 {
                table[*word] |= 1 << bit;
                starts.push(number);
            }
        }
        starts.push(entries.len() as u16);
        several.shrink();
        let ranks = table.iter().scan(0, |before, word| {
            let rank = *before;
            *before += word.count_ones() as u16;
            Some(rank)
        });
        Self {
            ranks: ranks.collect(),
            table: table.into(),
            starts: starts.into(),
            entries: entries.into_iter().map(|(_, entry)| entry).collect(),
            texts: texts.into(),
            numbers: several,
            alone: alone.into(),
            shortest,
            sparse,
        }
    }

    /// Memory that it takes, roughly.
    pub(crate) fn bytes(&self) -> usize {
        10 * self.table.len()
            + (2 + size_of::<Entry>()) * self.entries.len()
            + self.texts.len()
            + self.numbers.bytes()
            + 96 * self.alone.len()
    }

    /// Adds the numbers of the literals that occur in `text`.
    pub(crate) fn find(&self, text: &[u8], found: &mut Bits) {
        if text.len() < self.shortest {
            return;
        }
        for Alone { needle, number } in &self.alone {
            if needle.is_in(text) {
                self.numbers.report(*number, found);
            }
        }
        let mut search = Search { set: self, text, found };
        match (<&[u64; SMALL]>::try_from(&*self.table), <&[u64; LARGE]>::try_from(&*self.table)) {
            (Ok(table), _) if self.sparse => search.run::<true, SMALL>(table),
            (Ok(table), _) => search.run::<false, SMALL>(table),
            (_, Ok(table)) if self.sparse => search.run::<true, LARGE>(table),
            (_, Ok(table)) => search.run::<false, LARGE>(table),
            // No literal stands in a table.
            _ => {}
        }
    }
}

impl LiteralSet {
    /// Whether all of a literal stands there.
    #[inline(never)]
    fn stands(&self, entry: &Entry, there: &[u8]) -> bool {
        let length = there.len();
        let (literal, cases) = self.texts[entry.start as usize..][..2 * length].split_at(length);
        same(there, cases, literal)
    }
}

/// One pass over a text.
struct Search<'a> {
    set: &'a LiteralSet,
    text: &'a [u8],
    found: &'a mut Bits,
}

impl Search<'_> {
    fn run<const SPARSE: bool, const WORDS: usize>(&mut self, table: &[u64; WORDS]) {
        let word = |bytes: &[u8; 8]| u64::from_le_bytes(*bytes) | u64::from_le_bytes([0x20; 8]);
        let (blocks, _) = self.text.as_chunks::<8>();
        let mut at = 0;
        for pair in blocks.windows(2) {
            self.look::<SPARSE, WORDS>(table, at, word(&pair[0]), word(&pair[1]));
            at += 8;
        }
        // What is left are fifteen bytes at most. Where bytes are made up behind the end, no literal stands.
        let mut rest = [[0; 8]; 3];
        let left = self.text.get(at..).unwrap_or_default();
        if let Some(rest) = rest.as_flattened_mut().get_mut(..left.len()) {
            rest.copy_from_slice(left);
        }
        for (place, pair) in (0..left.len()).step_by(8).zip(rest.windows(2)) {
            self.look::<SPARSE, WORDS>(table, at + place, word(&pair[0]), word(&pair[1]));
        }
    }

    /// Asks at eight places, or at every other of them.
    #[inline(always)]
    fn look<const SPARSE: bool, const WORDS: usize>(
        &mut self,
        table: &[u64; WORDS],
        at: usize,
        low: u64,
        next: u64,
    ) {
        let mut ask = |gram: u64, place: usize| {
            let (word, bit) = place_of(hash(gram as u32, SPARSE), WORDS);
            if table[word] >> bit & 1 == 1 {
                self.compare(at + place, word, bit);
            }
        };
        let high = low >> 32 | next << 32;
        ask(low, 0);
        ask(low >> 16, 2);
        ask(low >> 32, 4);
        ask(high >> 16, 6);
        if !SPARSE {
            ask(low >> 8, 1);
            ask(low >> 24, 3);
            ask(high >> 8, 5);
            ask(high >> 24, 7);
        }
    }

    /// The literals whose hashed bytes may stand at a place.
    #[inline(never)]
    fn compare(&mut self, at: usize, word: usize, bit: u32) {
        let set = self.set;
        let before = (set.table[word] & ((1 << bit) - 1)).count_ones() as usize;
        let rank = usize::from(set.ranks[word]) + before;
        let range = usize::from(set.starts[rank])..usize::from(set.starts[rank + 1]);
        for entry in &set.entries[range] {
            let length = usize::from(entry.length);
            let Some(start) = at.checked_sub(usize::from(entry.offset)) else { continue };
            let Some(there) = self.text.get(start..start + length) else { continue };
            if entry.head.stands(length, self.text, start) && (length <= 8 || set.stands(entry, there)) {
                set.numbers.report(entry.number, self.found);
            }
        }
    }
}

/// The bytes of a word of three.
const THREE: u32 = 0x00ff_ffff;

/// The hash of four bytes, or of the first three of them.
fn hash(gram: u32, four: bool) -> u32 {
    gram.wrapping_mul(if four { FACTOR } else { FACTOR << 8 })
}

/// Word and bit of a hash in a table of so many words.
fn place_of(hash: u32, words: usize) -> (usize, u32) {
    ((hash >> 24) as usize & (words - 1), hash >> 18 & 63)
}

/// The rarest bytes in a row of a literal, letters in one case, and where they stand: four bytes from each of two
/// neighbouring places, or three from one.
fn grams(literal: &[u8], sparse: bool) -> impl Iterator<Item = (u32, u16)> {
    let (length, mask, count) = if sparse { (5, u32::MAX, 2) } else { (3, THREE, 1) };
    let windows = literal.windows(length).enumerate();
    let weighed = windows.map(|(at, gram)| (gram.iter().map(|byte| commonness(*byte)).sum::<u32>(), at));
    let at = weighed.min().map_or(0, |(_, at)| at);
    (at..at + count).map(move |at| {
        let bytes = literal.get(at..).unwrap_or_default().iter().take(4).rev();
        let gram = bytes.fold(0, |gram, byte| gram << 8 | u32::from(byte | 0x20));
        (gram & mask, at as u16)
    })
}

/// What makes a capital letter small where a literal has this byte.
pub(crate) fn case(byte: &u8) -> u8 {
    if byte.is_ascii_lowercase() { 0x20 } else { 0 }
}

/// Whether a text and a literal of one length, at least three, are the same but for the case of letters.
#[inline]
pub(crate) fn same(text: &[u8], cases: &[u8], literal: &[u8]) -> bool {
    fn word<const N: usize>(bytes: &[u8], at: usize) -> u64 {
        let bytes = bytes.get(at..).and_then(|rest| rest.first_chunk::<N>());
        bytes.map_or(0, |bytes| bytes.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte)))
    }
    fn differ<const N: usize>(text: &[u8], cases: &[u8], literal: &[u8], at: usize) -> bool {
        word::<N>(text, at) | word::<N>(cases, at) != word::<N>(literal, at)
    }
    let length = literal.len();
    if length < 4 {
        return !differ::<3>(text, cases, literal, 0);
    }
    if length < 8 {
        return !differ::<4>(text, cases, literal, 0) && !differ::<4>(text, cases, literal, length - 4);
    }
    // The last eight bytes may have been compared in part.
    let starts = (0..length - 8).step_by(8);
    starts.chain([length - 8]).all(|at| !differ::<8>(text, cases, literal, at))
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

    fn numbered(literals: &[String]) -> LiteralSet {
        let bytes: Vec<_> = literals.iter().map(|literal| literal.clone().into_bytes()).zip(0..).collect();
        LiteralSet::new(&bytes)
    }

    fn occurring(literals: &[String], text: &str) -> Vec<usize> {
        let lower = text.to_ascii_lowercase();
        let numbered = literals.iter().enumerate();
        numbered.filter(|(_, literal)| lower.contains(literal.as_str())).map(|(number, _)| number).collect()
    }

    proptest! {
        #[test]
        fn a_small_set_is_added_as_its_members_one_by_one(
            size in 0_usize..200,
            start in 0_usize..200,
            members in any::<u16>(),
        ) {
            let [mut whole, mut single] = [(); 2].map(|()| {
                let mut bits = Bits::default();
                bits.reset(size);
                bits
            });
            // Both leave out what is behind the last word.
            whole.insert_all(start, members);
            (0..16).filter(|bit| members >> bit & 1 == 1).for_each(|bit| single.insert(start + bit));
            prop_assert_eq!(whole, single);
        }

        #[test]
        fn exactly_the_literals_that_occur_are_found(
            literals in proptest::collection::vec("[ab!@]{1,6}|[ab]{5,20}", 0..12),
            text in "[abAB!@`x]{0,60}",
        ) {
            let set = numbered(&literals);
            prop_assert_eq!(found(&set, text.as_bytes()), occurring(&literals, &text));
        }

        #[test]
        fn every_other_place_is_enough_for_literals_of_five_bytes(
            literals in proptest::collection::vec("[ab@]{5,9}", 1..8),
            few in proptest::collection::vec("[ab@]{1,2}|[ab]{3,4}", 0..2),
            text in "[abAB@`]{0,80}",
        ) {
            let literals = [literals, few].concat();
            let set = numbered(&literals);
            prop_assert!(set.sparse);
            prop_assert_eq!(found(&set, text.as_bytes()), occurring(&literals, &text));
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
