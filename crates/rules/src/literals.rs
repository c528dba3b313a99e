//! Which of many literals occur in a text, told by one pass over it: the base of every pre-filter here.
//!
//! A dense automaton in the manner of Aho and Corasick, ASCII case folded, with few bytes per state so that the
//! states in use stay close to the processor. Too many literals for it go to the library's compact automaton.
//! Invariant: exactly the literals that occur are reported, each at least once.

use std::collections::VecDeque;

use aho_corasick::{AhoCorasick, MatchKind};

/// States that a dense automaton has at most: the upper bit of a transition tells that something ends there.
const MOST_STATES: usize = 1 << 15;
/// Transitions of a dense automaton, two bytes each.
const MOST_TRANSITIONS: usize = 1 << 20;
const ENDS: u16 = 1 << 15;

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

/// Lower-case literals, ready to be looked for all at once.
#[derive(Debug)]
pub(crate) struct LiteralSet {
    machine: Machine,
    /// The number of each literal, for the automata that count themselves.
    numbers: Box<[u32]>,
    /// One more than the highest number.
    count: usize,
}

#[derive(Debug)]
enum Machine {
    Nothing,
    Dense(Dense),
    Compact(AhoCorasick),
    /// Not even that could be built: everything is reported.
    Everything,
}

#[derive(Debug)]
struct Dense {
    classes: Box<[u8; 256]>,
    shift: u32,
    transitions: Box<[u16]>,
    /// Where the literals that end in a state stand in `ends`, by state.
    outputs: Box<[(u32, u32)]>,
    ends: Box<[u32]>,
}

impl LiteralSet {
    /// The set of these literals, each with the number to report, which several may share.
    pub(crate) fn new(literals: &[(Vec<u8>, u32)]) -> Self {
        let count = literals.iter().map(|(_, number)| *number as usize + 1).max().unwrap_or(0);
        let machine = if literals.is_empty() {
            Machine::Nothing
        } else if let Some(dense) = Dense::new(literals) {
            Machine::Dense(dense)
        } else {
            let automaton = AhoCorasick::builder()
                .ascii_case_insensitive(true)
                .match_kind(MatchKind::Standard)
                .build(literals.iter().map(|(literal, _)| literal));
            automaton.map_or(Machine::Everything, Machine::Compact)
        };
        Self { machine, numbers: literals.iter().map(|(_, number)| *number).collect(), count }
    }

    /// One more than the highest number.
    pub(crate) fn len(&self) -> usize {
        self.count
    }

    /// Memory that it takes, roughly.
    pub(crate) fn bytes(&self) -> usize {
        match &self.machine {
            Machine::Dense(dense) => 2 * dense.transitions.len() + 8 * dense.outputs.len(),
            Machine::Compact(compact) => compact.memory_usage(),
            Machine::Nothing | Machine::Everything => 0,
        }
    }

    /// Adds the numbers of the literals that occur in `text`.
    pub(crate) fn find(&self, text: &[u8], found: &mut Bits) {
        match &self.machine {
            Machine::Nothing => {}
            Machine::Dense(dense) => dense.find(text, found),
            Machine::Compact(compact) => {
                for occurrence in compact.find_overlapping_iter(text) {
                    let number = self.numbers.get(occurrence.pattern().as_usize());
                    number.into_iter().for_each(|number| found.insert(*number as usize));
                }
            }
            Machine::Everything => self.numbers.iter().for_each(|number| found.insert(*number as usize)),
        }
    }
}

impl Dense {
    fn new(literals: &[(Vec<u8>, u32)]) -> Option<Self> {
        let (classes, kinds) = classes(literals);
        let shift = kinds.next_power_of_two().trailing_zeros();
        let width = 1 << shift;
        // The trie first; 0 is the root and, as a child, none.
        let mut next: Vec<u16> = vec![0; width];
        let mut own: Vec<Vec<u32>> = vec![Vec::new()];
        for (literal, number) in literals {
            let mut state = 0;
            for byte in literal {
                let slot = (state << shift) + usize::from(classes[usize::from(*byte)]);
                if next[slot] == 0 {
                    let fresh = own.len();
                    if fresh >= MOST_STATES || next.len() + width > MOST_TRANSITIONS {
                        return None;
                    }
                    next[slot] = u16::try_from(fresh).ok()?;
                    next.resize(next.len() + width, 0);
                    own.push(Vec::new());
                }
                state = usize::from(next[slot]);
            }
            own[state].push(*number);
        }
        // What is always there needs no search, and 0 must stay a state without an end.
        if !own[0].is_empty() {
            return None;
        }
        complete(&mut next, &mut own, shift);
        let mut ends = Vec::new();
        let outputs: Box<[(u32, u32)]> = own
            .iter()
            .map(|numbers| {
                let start = ends.len() as u32;
                ends.extend_from_slice(numbers);
                (start, ends.len() as u32)
            })
            .collect();
        for target in &mut next {
            if !own[usize::from(*target)].is_empty() {
                *target |= ENDS;
            }
        }
        Some(Self { classes, shift, transitions: next.into(), outputs, ends: ends.into() })
    }

    fn find(&self, text: &[u8], found: &mut Bits) {
        let mut state = 0_u16;
        for byte in text {
            let class = usize::from(self.classes[usize::from(*byte)]);
            state = self.transitions[(usize::from(state & !ENDS) << self.shift) + class];
            if state & ENDS != 0 {
                let (start, end) = self.outputs[usize::from(state & !ENDS)];
                self.ends[start as usize..end as usize]
                    .iter()
                    .for_each(|number| found.insert(*number as usize));
            }
        }
    }
}

/// A number for every byte that occurs in some literal, cases folded; 0 for all others.
fn classes(literals: &[(Vec<u8>, u32)]) -> (Box<[u8; 256]>, usize) {
    let mut used = [false; 256];
    literals.iter().flat_map(|(literal, _)| literal).for_each(|byte| used[usize::from(*byte)] = true);
    let mut classes = Box::new([0; 256]);
    let mut kinds = 1_usize;
    for byte in 0..=u8::MAX {
        // Bytes beyond the last class would need a ninth bit; all 256 bytes never stand in literals.
        if used[usize::from(byte)] && !byte.is_ascii_uppercase() && kinds < 256 {
            classes[usize::from(byte)] = kinds as u8;
            kinds += 1;
        }
    }
    for upper in b'A'..=b'Z' {
        classes[usize::from(upper)] = classes[usize::from(upper.to_ascii_lowercase())];
    }
    (classes, kinds)
}

/// Turns the trie into an automaton: where a literal does not go on, the longest other one that may does.
fn complete(next: &mut [u16], own: &mut [Vec<u32>], shift: u32) {
    let width = 1 << shift;
    let mut fall = vec![0_u16; own.len()];
    let mut queue: VecDeque<u16> = next[..width].iter().copied().filter(|child| *child != 0).collect();
    while let Some(state) = queue.pop_front() {
        let back = fall[usize::from(state)];
        let inherited = own[usize::from(back)].clone();
        own[usize::from(state)].extend(inherited);
        for class in 0..width {
            let slot = (usize::from(state) << shift) + class;
            let other = next[(usize::from(back) << shift) + class];
            if next[slot] == 0 {
                next[slot] = other;
            } else {
                fall[usize::from(next[slot])] = other;
                queue.push_back(next[slot]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn found(set: &LiteralSet, text: &[u8]) -> Vec<usize> {
        let mut bits = Bits::default();
        bits.reset(set.len());
        set.find(text, &mut bits);
        (0..set.len()).filter(|number| bits.contains(*number)).collect()
    }

    proptest! {
        #[test]
        fn exactly_the_literals_that_occur_are_found(
            literals in proptest::collection::vec("[ab!]{1,4}", 0..12),
            text in "[abAB!x]{0,40}",
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
    fn more_literals_than_a_dense_automaton_takes_are_found_too() {
        let literals: Vec<_> =
            (0..20_000_u32).map(|number| (format!("<{number}>").into_bytes(), number)).collect();
        let set = LiteralSet::new(&literals);
        assert!(matches!(set.machine, Machine::Compact(_)));
        assert_eq!(found(&set, b"a <17> b <19999>"), [17, 19_999]);
    }

    #[test]
    fn members_are_found_in_order() {
        let mut bits = Bits::default();
        bits.reset(200);
        [3, 64, 130].into_iter().for_each(|number| bits.insert(number));
        assert_eq!(
            [bits.next(0), bits.next(4), bits.next(65), bits.next(131)],
            [Some(3), Some(64), Some(130), None]
        );
    }
}
