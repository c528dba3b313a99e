//! From the tree of a pattern to nodes, built from its end to its beginning, so that each node knows what follows it.
//!
//! Invariant: what cannot be said in nodes exactly is refused; a set of bytes that may follow is never too small.

use regex_syntax::hir::{Class, ClassBytes, Hir, HirKind, Look, Repetition};

use super::bytes::Bytes;
use crate::beginning::ByteSet;

/// More nodes than this are not made of a pattern.
const MOST: usize = 600;
/// A run without an upper bound.
pub(super) const ENDLESS: u16 = u16::MAX;
/// No set: any byte may follow, or none.
pub(super) const OPEN: u16 = u16::MAX;

#[derive(Debug, Clone, Copy)]
pub(super) struct Node {
    pub(super) op: Op,
    pub(super) next: u32,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Op {
    Match,
    /// So many of the texts' bytes from here on.
    Text {
        start: u32,
        length: u16,
    },
    /// One byte.
    One(u16),
    /// Bytes of one set.
    Run {
        set: u16,
        least: u16,
        most: u16,
        order: Order,
        /// What a match can go on with behind the run.
        follow: u16,
    },
    /// First `next`, then the other; what each of them can begin with.
    Fork {
        other: u32,
        first: u16,
        second: u16,
    },
    Mark(u16),
    Assert(Look),
}

/// In which order the lengths of a run are tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    Longest,
    Shortest,
    /// No byte of the run can follow it, so one length is all there is.
    Only,
}

/// How a node can begin.
#[derive(Debug, Clone, Copy)]
pub(super) struct First {
    pub(super) set: ByteSet,
    /// It may also match without a byte.
    pub(super) open: bool,
}

impl First {
    fn or(self, other: Self) -> Self {
        Self { set: self.set.or(&other.set), open: self.open || other.open }
    }
}

/// A byte and what makes a capital letter small where both match.
type Letter = (u8, u8);

#[derive(Debug, Default)]
pub(super) struct Compiler {
    pub(super) nodes: Vec<Node>,
    pub(super) firsts: Vec<First>,
    pub(super) sets: Vec<Bytes>,
    pub(super) texts: Vec<u8>,
    pub(super) cases: Vec<u8>,
}

impl Compiler {
    pub(super) fn add(&mut self, op: Op, next: u32, first: First) -> Option<u32> {
        let number = u32::try_from(self.nodes.len()).ok().filter(|_| self.nodes.len() < MOST)?;
        self.nodes.push(Node { op, next });
        self.firsts.push(first);
        Some(number)
    }

    fn first(&self, node: u32) -> First {
        self.firsts[node as usize]
    }

    fn set(&mut self, bytes: ByteSet) -> u16 {
        let number = self.sets.iter().position(|set| set.members == bytes).unwrap_or_else(|| {
            self.sets.push(Bytes::new(bytes));
            self.sets.len() - 1
        });
        // At most two for each node.
        number as u16
    }

    /// The set of what a node can begin with.
    fn opening(&mut self, node: u32) -> u16 {
        let First { set, open } = self.first(node);
        if open { OPEN } else { self.set(set) }
    }

    /// The nodes of a part in front of `next`.
    pub(super) fn part(&mut self, part: &Hir, next: u32) -> Option<u32> {
        match part.kind() {
            HirKind::Empty => Some(next),
            HirKind::Literal(_) | HirKind::Class(_) => match letters(part) {
                Some(letters) => self.text(&letters, next),
                None => {
                    let bytes = members(part)?;
                    let set = self.set(bytes);
                    self.add(Op::One(set), next, First { set: bytes, open: false })
                }
            },
            HirKind::Look(look) => {
                let known = [
                    Look::Start,
                    Look::End,
                    Look::StartLF,
                    Look::EndLF,
                    Look::WordAscii,
                    Look::WordAsciiNegate,
                ];
                let first = self.first(next);
                known.contains(look).then(|| self.add(Op::Assert(*look), next, first))?
            }
            HirKind::Capture(group) => {
                let slot = u16::try_from(group.index).ok()?.checked_sub(1)?.checked_mul(2)?;
                let first = self.first(next);
                let close = self.add(Op::Mark(slot + 1), next, first)?;
                let body = self.part(&group.sub, close)?;
                let first = self.first(body);
                self.add(Op::Mark(slot), body, first)
            }
            HirKind::Concat(parts) => self.sequence(parts, next),
            HirKind::Alternation(branches) => {
                let mut branches = branches.iter().rev();
                let last = self.part(branches.next()?, next)?;
                branches.try_fold(last, |other, branch| {
                    let own = self.part(branch, next)?;
                    self.fork(own, other)
                })
            }
            HirKind::Repetition(repetition) => self.repetition(repetition, next),
        }
    }

    fn sequence(&mut self, parts: &[Hir], mut next: u32) -> Option<u32> {
        let mut text: Vec<Letter> = Vec::new();
        for part in parts.iter().rev() {
            match letters(part) {
                Some(mut letters) => {
                    letters.append(&mut text);
                    text = letters;
                }
                None => {
                    next = self.text(&std::mem::take(&mut text), next)?;
                    next = self.part(part, next)?;
                }
            }
        }
        self.text(&text, next)
    }

    fn text(&mut self, text: &[Letter], next: u32) -> Option<u32> {
        let Some((byte, case)) = text.first().copied() else { return Some(next) };
        let start = u32::try_from(self.texts.len()).ok()?;
        let length = u16::try_from(text.len()).ok()?;
        self.texts.extend(text.iter().map(|(byte, _)| byte));
        self.cases.extend(text.iter().map(|(_, case)| case));
        let set = ByteSet::of(|own| own | case == byte);
        // A subject holds no NUL, so this one is never found.
        self.add(Op::Text { start, length }, next, First { set, open: false })
    }

    fn fork(&mut self, one: u32, other: u32) -> Option<u32> {
        let (first, second) = (self.opening(one), self.opening(other));
        let both = self.first(one).or(self.first(other));
        self.add(Op::Fork { other, first, second }, one, both)
    }

    /// Either the part in front of `next` or nothing, in this or the other order.
    fn option(&mut self, greedy: bool, taken: u32, next: u32) -> Option<u32> {
        if greedy { self.fork(taken, next) } else { self.fork(next, taken) }
    }

    fn repetition(&mut self, repetition: &Repetition, next: u32) -> Option<u32> {
        let Repetition { min, max, greedy, sub } = repetition;
        if let Some(set) = members(sub) {
            return self.run(set, *min, *max, *greedy, next);
        }
        let mut next = next;
        match max {
            None => {
                // A body without bytes would be repeated for ever.
                sub.properties().minimum_len().filter(|length| *length > 0)?;
                let unknown = First { set: ByteSet::of(|_| true), open: true };
                let again = self.add(Op::Fork { other: next, first: OPEN, second: OPEN }, next, unknown)?;
                let body = self.part(sub, again)?;
                let (first, second) = (self.opening(body), self.opening(next));
                let both = self.first(body).or(self.first(next));
                let fork = match greedy {
                    true => Node { op: Op::Fork { other: next, first, second }, next: body },
                    false => Node { op: Op::Fork { other: body, first: second, second: first }, next },
                };
                self.nodes[again as usize] = fork;
                self.firsts[again as usize] = both;
                next = again;
            }
            Some(max) => {
                let behind = next;
                for _ in *min..*max {
                    let taken = self.part(sub, next)?;
                    next = self.option(*greedy, taken, behind)?;
                }
            }
        }
        for _ in 0..*min {
            next = self.part(sub, next)?;
        }
        Some(next)
    }

    /// For a pattern that begins with a run in front of a text, and perhaps one byte before: the set of that byte and of the
    /// run, the run's least length, and the text. No byte may be of two of them, so that each text ends one run.
    pub(super) fn before_text(&self, root: u32) -> Option<(Option<u16>, u16, usize, &[u8])> {
        let behind = |mut node: u32| {
            while let Node { op: Op::Mark(_), next } = self.nodes[node as usize] {
                node = next;
            }
            self.nodes[node as usize]
        };
        let members = |set: u16| self.sets[usize::from(set)].members;
        let (lead, front) = match behind(root) {
            Node { op: Op::One(set), next } => (Some(set), behind(next)),
            front => (None, front),
        };
        let Op::Run { set: run, least, most: ENDLESS, .. } = front.op else { return None };
        let Op::Text { start, length } = behind(front.next).op else { return None };
        let text = &self.texts[start as usize..start as usize + usize::from(length)];
        // The text is looked for in any case.
        let own = text.first()?.to_ascii_lowercase();
        let first = ByteSet::of(|byte| byte.to_ascii_lowercase() == own);
        let apart = !members(run).meets(&first)
            && lead.is_none_or(|lead| !members(lead).meets(&first) && !members(lead).meets(&members(run)));
        (apart && least > 0).then_some((lead, run, usize::from(least), text))
    }

    fn run(&mut self, bytes: ByteSet, min: u32, max: Option<u32>, greedy: bool, next: u32) -> Option<u32> {
        let least = u16::try_from(min).ok().filter(|min| *min < ENDLESS)?;
        let most = match max {
            None => ENDLESS,
            Some(max) => u16::try_from(max).ok().filter(|max| *max < ENDLESS)?,
        };
        let behind = self.first(next);
        let order = match greedy {
            _ if !behind.open && !bytes.meets(&behind.set) => Order::Only,
            true => Order::Longest,
            false => Order::Shortest,
        };
        let (set, follow) = (self.set(bytes), self.opening(next));
        let own = First { set: bytes, open: false };
        let first = if least > 0 { own } else { own.or(behind) };
        let first = First { open: least == 0 && behind.open, ..first };
        self.add(Op::Run { set, least, most, order, follow }, next, first)
    }
}

/// A class of bytes; the tree tells some of them as characters.
fn bytes(class: &Class) -> Option<ClassBytes> {
    match class {
        Class::Bytes(class) => Some(class.clone()),
        Class::Unicode(class) => class.to_byte_class(),
    }
}

/// The bytes of a part that takes exactly one.
fn members(part: &Hir) -> Option<ByteSet> {
    match part.kind() {
        HirKind::Literal(literal) => match *literal.0 {
            [own] => Some(ByteSet::of(|byte| byte == own)),
            _ => None,
        },
        HirKind::Class(class) => {
            let class = bytes(class)?;
            let holds = |byte: u8| class.iter().any(|range| (range.start()..=range.end()).contains(&byte));
            Some(ByteSet::of(holds))
        }
        _ => None,
    }
}

/// The text of a part that is nothing else, a letter perhaps in both cases.
fn letters(part: &Hir) -> Option<Vec<Letter>> {
    match part.kind() {
        HirKind::Literal(literal) => Some(literal.0.iter().map(|byte| (*byte, 0)).collect()),
        HirKind::Class(class) => match bytes(class)?.ranges() {
            [upper, lower] => {
                let (upper, lower) = ((upper.start(), upper.end()), (lower.start(), lower.end()));
                let both = upper.0 == upper.1 && lower.0 == lower.1 && upper.0.is_ascii_uppercase();
                (both && upper.0.to_ascii_lowercase() == lower.0).then(|| vec![(lower.0, 0x20)])
            }
            _ => None,
        },
        _ => None,
    }
}
