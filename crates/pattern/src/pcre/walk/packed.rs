//! Nodes as they are kept: a word for each, and behind them in the same piece of memory the texts and sets they ask for.
//!
//! Lines of many kinds walk along other patterns each time and wait for each line of memory of theirs. Invariant: what is
//! unpacked is what was packed; what does not fit is refused.

use regex_syntax::hir::Look;

use super::bytes::{Bytes, COMMON};
use super::program::{Compiler, ENDLESS, Node, OPEN, Op, Order};

/// No set.
pub(super) const ANY: u8 = u8::MAX;
/// A run without an upper bound.
pub(super) const WITHOUT_END: u8 = u8::MAX;
/// Texts of so many bytes stand in the node itself.
const SHORT: usize = 5;

const LOOKS: [Look; 6] =
    [Look::Start, Look::End, Look::StartLF, Look::EndLF, Look::WordAscii, Look::WordAsciiNegate];

/// A node as a walk meets it: four bits of what it is and four that tell more, five bytes, and what follows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Word(u64);

/// What a word asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Match,
    /// A text of up to five bytes, none of them NUL.
    Short(u64, u8),
    Text(Place),
    /// A text and behind it for each byte what makes a capital letter small, where both match.
    Folded(Place),
    /// One byte of a set.
    One(u8),
    Run(Run),
    /// First what follows, then the other; the sets of what each of them can begin with.
    Fork {
        other: u16,
        first: u8,
        second: u8,
    },
    Mark(u16),
    Assert(Look),
}

/// Bytes of one set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) set: u8,
    pub(super) least: u8,
    pub(super) most: u8,
    pub(super) order: Order,
    /// What a match can go on with behind the run.
    pub(super) follow: u8,
}

/// A part of the bytes of a pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Place {
    start: u16,
    length: u16,
}

impl Place {
    fn new(start: usize, length: usize) -> Option<Self> {
        Some(Self { start: u16::try_from(start).ok()?, length: u16::try_from(length).ok()? })
    }

    /// Where a text stands behind the words of some bytes, where it is put if it stands nowhere.
    fn of(text: &[u8], words: usize, bytes: &mut Vec<u8>) -> Option<Self> {
        let start = memchr::memmem::find(&bytes[words..], text).map(|start| words + start);
        let start = start.unwrap_or_else(|| {
            bytes.extend(text);
            bytes.len() - text.len()
        });
        Self::new(start, text.len())
    }

    pub(super) fn len(self) -> usize {
        usize::from(self.length)
    }

    /// The part itself.
    pub(super) fn of_bytes(self, bytes: &[u8]) -> &[u8] {
        &bytes[usize::from(self.start)..][..self.len()]
    }

    /// As many bytes behind it.
    pub(super) fn behind(self, bytes: &[u8]) -> &[u8] {
        &bytes[usize::from(self.start) + self.len()..][..self.len()]
    }
}

impl Word {
    const MATCH: u64 = 0;
    const SHORT: u64 = 1;
    const TEXT: u64 = 2;
    const FOLDED: u64 = 3;
    const ONE: u64 = 4;
    const RUN: u64 = 5;
    const FORK: u64 = 6;
    const MARK: u64 = 7;
    const ASSERT: u64 = 8;

    fn new(step: Step, next: u16) -> Self {
        let word = match step {
            Step::Match => Self::MATCH,
            Step::Short(text, length) => Self::SHORT | u64::from(length) << 4 | text << 8,
            Step::Text(place) => Self::TEXT | place.word(),
            Step::Folded(place) => Self::FOLDED | place.word(),
            Step::One(set) => Self::ONE | u64::from(set) << 8,
            Step::Run(Run { set, least, most, order, follow }) => {
                let order = match order {
                    Order::Longest => 0,
                    Order::Shortest => 1,
                    Order::Only => 2,
                };
                Self::RUN | order << 4 | u64::from(u32::from_le_bytes([set, follow, least, most])) << 8
            }
            Step::Fork { other, first, second } => {
                Self::FORK | u64::from(first) << 8 | u64::from(second) << 16 | u64::from(other) << 24
            }
            Step::Mark(slot) => Self::MARK | u64::from(slot) << 8,
            Step::Assert(look) => {
                let number = LOOKS.iter().position(|known| *known == look);
                Self::ASSERT | (number.unwrap_or_default() as u64) << 8
            }
        };
        Self(word | u64::from(next) << 48)
    }

    pub(super) fn next(self) -> u16 {
        (self.0 >> 48) as u16
    }

    #[inline]
    pub(super) fn step(self) -> Step {
        let [head, one, two, three, four, ..] = self.0.to_le_bytes();
        match self.0 & 15 {
            Self::MATCH => Step::Match,
            Self::SHORT => Step::Short(self.0 << 16 >> 24, head >> 4),
            Self::TEXT => Step::Text(self.place()),
            Self::FOLDED => Step::Folded(self.place()),
            Self::ONE => Step::One(one),
            Self::RUN => Step::Run(self.run()),
            Self::FORK => Step::Fork { other: u16::from_le_bytes([three, four]), first: one, second: two },
            Self::MARK => Step::Mark(u16::from_le_bytes([one, two])),
            _ => Step::Assert(LOOKS[usize::from(one) % LOOKS.len()]),
        }
    }

    /// Of a word that is a run.
    #[inline]
    pub(super) fn run(self) -> Run {
        let [head, set, follow, least, most, ..] = self.0.to_le_bytes();
        let order = match head >> 4 {
            0 => Order::Longest,
            1 => Order::Shortest,
            _ => Order::Only,
        };
        Run { set, least, most, order, follow }
    }

    fn place(self) -> Place {
        Place { start: (self.0 >> 8) as u16, length: (self.0 >> 24) as u16 }
    }
}

impl Place {
    fn word(self) -> u64 {
        u64::from(self.start) << 8 | u64::from(self.length) << 24
    }
}

/// All nodes of a pattern in one piece of memory.
#[derive(Debug)]
pub(super) struct Packed {
    /// A word for each node, a text that starts are looked for by, two bytes for each set, and the texts of nodes.
    pub(super) bytes: Box<[u8]>,
    /// Where the numbers of the sets begin.
    pub(super) sets: u16,
    pub(super) sought: Place,
    /// The sets that are not common.
    pub(super) own: Box<[Bytes]>,
}

impl Packed {
    /// Of what a compiler made and a text that starts are looked for by; none if something does not fit.
    pub(super) fn new(compiler: &Compiler, sought: &[u8]) -> Option<Self> {
        let mut own = Vec::new();
        let mut number = |set: &Bytes| {
            let common = COMMON.iter().position(|known| known.members == set.members);
            common.unwrap_or_else(|| {
                own.push(*set);
                COMMON.len() + own.len() - 1
            })
        };
        // At most two sets for each node.
        let numbers: Vec<u8> =
            compiler.sets.iter().flat_map(|set| (number(set) as u16).to_le_bytes()).collect();
        let mut bytes = vec![0; 8 * compiler.nodes.len()];
        let sought = Place::of(sought, bytes.len(), &mut bytes)?;
        let sets = u16::try_from(bytes.len()).ok()?;
        bytes.extend(numbers);
        for (number, node) in compiler.nodes.iter().enumerate() {
            let word = word(compiler, *node, &mut bytes)?;
            bytes[8 * number..][..8].copy_from_slice(&word.0.to_le_bytes());
        }
        Some(Self { bytes: bytes.into(), sets, sought, own: own.into() })
    }

    /// A node.
    #[inline]
    pub(super) fn word(&self, node: u16) -> Word {
        let word = self.bytes.get(8 * usize::from(node)..).and_then(<[u8]>::first_chunk);
        Word(u64::from_le_bytes(word.copied().unwrap_or_default()))
    }

    /// A set of its own or of all patterns.
    #[inline]
    pub(super) fn set(&self, number: u8) -> &Bytes {
        let at = usize::from(self.sets) + 2 * usize::from(number);
        let number = self.bytes.get(at..).and_then(<[u8]>::first_chunk);
        let number = usize::from(u16::from_le_bytes(number.copied().unwrap_or_default()));
        COMMON.get(number).unwrap_or_else(|| &self.own[number - COMMON.len()])
    }
}

fn word(compiler: &Compiler, node: Node, bytes: &mut Vec<u8>) -> Option<Word> {
    let words = 8 * compiler.nodes.len();
    let set = |number: u16| match number {
        OPEN => Some(ANY),
        number => u8::try_from(number).ok().filter(|number| *number != ANY),
    };
    let bound = |most: u16| u8::try_from(most).ok().filter(|most| *most != WITHOUT_END);
    let step = match node.op {
        Op::Match => Step::Match,
        Op::Text { start, length } => {
            let part = start as usize..start as usize + usize::from(length);
            let (own, cases) = (&compiler.texts[part.clone()], &compiler.cases[part]);
            if cases.iter().any(|case| *case != 0) {
                let place = Place::of(&[own, cases].concat(), words, bytes)?;
                Step::Folded(Place { length, ..place })
            } else if own.len() <= SHORT && !own.contains(&0) {
                let mut word = [0; 8];
                word[..own.len()].copy_from_slice(own);
                Step::Short(u64::from_le_bytes(word), own.len() as u8)
            } else {
                Step::Text(Place::of(own, words, bytes)?)
            }
        }
        Op::One(number) => Step::One(set(number)?),
        Op::Run { set: number, least, most, order, follow } => Step::Run(Run {
            set: set(number)?,
            least: bound(least)?,
            most: if most == ENDLESS { WITHOUT_END } else { bound(most)? },
            order,
            follow: set(follow)?,
        }),
        Op::Fork { other, first, second } => {
            Step::Fork { other: u16::try_from(other).ok()?, first: set(first)?, second: set(second)? }
        }
        Op::Mark(slot) => Step::Mark(slot),
        Op::Assert(look) => Step::Assert(look),
    };
    Some(Word::new(step, u16::try_from(node.next).ok()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn step() -> impl Strategy<Value = Step> {
        let place = || any::<(u16, u16)>().prop_map(|(start, length)| Place { start, length });
        let order = prop_oneof![Just(Order::Longest), Just(Order::Shortest), Just(Order::Only)];
        prop_oneof![
            Just(Step::Match),
            (0..1_u64 << 40, 1..=5_u8).prop_map(|(text, length)| Step::Short(text, length)),
            place().prop_map(Step::Text),
            place().prop_map(Step::Folded),
            any::<u8>().prop_map(Step::One),
            (any::<(u8, u8, u8, u8)>(), order).prop_map(|((set, least, most, follow), order)| {
                Step::Run(Run { set, least, most, order, follow })
            }),
            any::<(u16, u8, u8)>().prop_map(|(other, first, second)| Step::Fork { other, first, second }),
            any::<u16>().prop_map(Step::Mark),
            prop::sample::select(&LOOKS[..]).prop_map(Step::Assert),
        ]
    }

    proptest! {
        #[test]
        fn a_word_is_unpacked_as_it_was_packed(step in step(), next: u16) {
            let word = Word::new(step, next);
            prop_assert_eq!((word.step(), word.next()), (step, next));
        }
    }
}
