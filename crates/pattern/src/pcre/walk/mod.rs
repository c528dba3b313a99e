//! Patterns without look-around, walked along their nodes, the way that is preferred first.
//!
//! The engine behind it has tables of many kilobytes for each pattern, which lines of many kinds push out of the caches again
//! and again; nodes are a few bytes each. Ways back are few, because what can follow a run is known. A walk that takes too
//! many steps all the same is given up, and the engine behind answers. Invariant: a walk that ends has the answer that the
//! engine behind would have given, captures included.

mod bytes;
mod packed;
mod program;
#[cfg(test)]
mod tests;

use std::num::NonZeroU8;

use bytes::Bytes;
use packed::{ANY, Packed, Place, Run, Step, WITHOUT_END};
use program::{Compiler, ENDLESS, First, Node, Op, Order};
use regex_syntax::hir::{Hir, Look};

use crate::beginning::ByteSet;
use crate::literal::{self, commonness};
use crate::pcre::required;

/// So many ways back are remembered.
const FRAMES: usize = 64;
/// Steps that are always allowed, for each of the first bytes of a subject, and for each of the others.
const STEPS: (usize, usize, usize) = (512, 8, 1);
/// So many bytes are the first ones.
const SHORT: usize = 2048;

/// A pattern in nodes.
#[derive(Debug)]
pub(super) struct Walker {
    nodes: Packed,
    root: u16,
    starts: Starts,
    /// The place of the rarest byte in the text that starts are looked for by.
    pivot: u8,
    /// The run that the pattern begins with, if it begins with one: where a start fails, so do all others in the same run.
    run: u8,
    /// A rare byte that every match holds, where starts are not looked for by a text.
    rare: Option<NonZeroU8>,
}

/// How common a byte may be that is looked for before anything else.
const RARE: u8 = 4;

/// Where a match can begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Starts {
    Beginning,
    /// With the text that is sought, in some case.
    Text,
    /// With one of these bytes.
    Bytes(u8),
    /// With a run of at least so many bytes in front of the text that is sought, and perhaps one byte of a set in front of
    /// it: none of the three can stand for another.
    Run {
        lead: u8,
        run: u8,
        least: u8,
    },
    Anywhere,
}

/// A walk that took too long.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct GivenUp;

/// A way back.
#[derive(Debug, Clone, Copy)]
enum Frame {
    /// To this node at this place.
    Fork(u16, u32),
    /// A run that ended here to an end before, down to the lowest.
    Shorter(u16, u32, u32),
    /// A run that ended here to an end behind, up to the highest.
    Longer(u16, u32, u32),
    /// What a mark was.
    Mark(u16, u32),
}

/// A mark that is not set.
const UNSET: u32 = u32::MAX;

impl Walker {
    /// Of a pattern's tree; none if it cannot be walked.
    pub(super) fn new(tree: &Hir) -> Option<Self> {
        let mut compiler = Compiler::default();
        let nothing = First { set: ByteSet::of(|_| false), open: true };
        let end = compiler.add(Op::Match, 0, nothing)?;
        let root = compiler.part(tree, end)?;
        let first = compiler.firsts[root as usize];
        let mut front = compiler.nodes[root as usize];
        while let Op::Mark(_) = front.op {
            front = compiler.nodes[front.next as usize];
        }
        let text = |start: u32, length: u16| {
            compiler.texts[start as usize..][..usize::from(length)].to_ascii_lowercase()
        };
        let few = |set: u16| u8::try_from(set).ok().filter(|set| *set != ANY);
        let mut sought = Vec::new();
        let starts = match front.op {
            _ if anchored(&compiler.nodes, root) => Starts::Beginning,
            Op::Text { start, length } => {
                sought = text(start, length);
                Starts::Text
            }
            _ => match compiler.before_text(root) {
                Some((lead, run, least, text)) => {
                    sought = text.to_ascii_lowercase();
                    let lead = lead.map_or(Some(ANY), few)?;
                    Starts::Run { lead, run: few(run)?, least: u8::try_from(least).ok()? }
                }
                None if first.open => Starts::Anywhere,
                None => {
                    compiler.sets.push(Bytes::new(first.set));
                    Starts::Bytes(few(compiler.sets.len() as u16 - 1)?)
                }
            },
        };
        let bytes = required::bytes(tree);
        let common = |byte: &u8| commonness(byte.to_ascii_lowercase());
        let rare = (1..=u8::MAX).filter(|byte| bytes.contains(*byte)).min_by_key(common);
        let rare = rare.filter(|byte| common(byte) <= RARE && starts != Starts::Text);
        let run = match front.op {
            Op::Run { set, most: ENDLESS, .. } => few(set)?,
            _ => ANY,
        };
        Some(Self {
            nodes: Packed::new(&compiler, &sought)?,
            root: u16::try_from(root).ok()?,
            starts,
            pivot: literal::rarest(&sought[..sought.len().min(1 << 8)]) as u8,
            run,
            rare: rare.and_then(NonZeroU8::new),
        })
    }

    /// The text that every match begins with, in lower case.
    pub(super) fn leading(&self) -> Option<&[u8]> {
        (self.starts == Starts::Text).then(|| self.sought())
    }

    /// The text that starts are looked for by.
    fn sought(&self) -> &[u8] {
        self.nodes.sought.of_bytes(&self.nodes.bytes)
    }

    /// A set, if the number is one.
    fn set(&self, number: u8) -> Option<&Bytes> {
        (number != ANY).then(|| self.nodes.set(number))
    }

    /// The end of the first match that begins at `from` or behind it, with its marks if wanted. Subjects hold no NUL.
    pub(super) fn find(
        &self,
        subject: &[u8],
        from: usize,
        marks: Option<&mut [u32]>,
    ) -> Result<Option<usize>, GivenUp> {
        if subject.len() >= UNSET as usize {
            return Err(GivenUp);
        }
        // Most subjects are refused here, before anything is made ready.
        if let Some(rare) = self.rare
            && memchr::memchr(rare.get(), subject.get(from..).unwrap_or_default()).is_none()
        {
            return Ok(None);
        }
        let Some(mut next) = self.next_start(subject, from) else { return Ok(None) };
        let mut walk = Walk {
            walker: self,
            subject,
            marks,
            steps: STEPS.0
                + STEPS.1 * subject.len().min(SHORT)
                + STEPS.2 * subject.len().saturating_sub(SHORT),
            frames: [Frame::Fork(0, 0); FRAMES],
            filled: 0,
        };
        loop {
            if let Some(end) = walk.from(next)? {
                return Ok(Some(end));
            }
            let start = next + 1 + self.set(self.run).map_or(0, |set| set.passed(&subject[next..]));
            if start > subject.len() {
                return Ok(None);
            }
            let Some(another) = self.next_start(subject, start) else { return Ok(None) };
            next = another;
        }
    }

    fn next_start(&self, subject: &[u8], from: usize) -> Option<usize> {
        let rest = subject.get(from..)?;
        let sought_in = |text: &[u8]| literal::first(text, self.sought(), usize::from(self.pivot));
        match self.starts {
            Starts::Beginning => (from == 0).then_some(0),
            Starts::Text => sought_in(rest).map(|place| from + place),
            Starts::Bytes(set) => self.nodes.set(set).first_in(rest).map(|place| from + place),
            Starts::Run { lead, run, least } => {
                let (lead, run) = (self.set(lead), self.nodes.set(run));
                // The start of what stands directly in front of a place.
                let before = |place: usize| {
                    let before = &rest[..place];
                    let length = run.ending(before);
                    let start = before.len() - length;
                    let leads = |lead: &Bytes| start > 0 && lead.contains(before[start - 1]);
                    let fits = length >= usize::from(least) && lead.is_none_or(leads);
                    fits.then(|| from + start - usize::from(lead.is_some()))
                };
                if let [byte] = *self.sought()
                    && !byte.is_ascii_alphabetic()
                {
                    return memchr::memchr_iter(byte, rest).find_map(before);
                }
                let mut behind = 0;
                while let Some(place) = sought_in(&rest[behind..]) {
                    if let Some(start) = before(behind + place) {
                        return Some(start);
                    }
                    behind += place + 1;
                }
                None
            }
            Starts::Anywhere => Some(from),
        }
    }
}

/// Whether all ways from a node hold at the beginning of a subject only.
fn anchored(nodes: &[Node], root: u32) -> bool {
    let mut seen = vec![false; nodes.len()];
    let mut open = vec![root];
    while let Some(node) = open.pop() {
        if std::mem::replace(&mut seen[node as usize], true) {
            continue;
        }
        let Node { op, next } = nodes[node as usize];
        match op {
            Op::Assert(Look::Start) => {}
            Op::Mark(_) | Op::Assert(_) => open.push(next),
            Op::Fork { other, .. } => open.extend([next, other]),
            _ => return false,
        }
    }
    true
}

struct Walk<'a, 'm> {
    walker: &'a Walker,
    subject: &'a [u8],
    marks: Option<&'m mut [u32]>,
    steps: usize,
    frames: [Frame; FRAMES],
    filled: usize,
}

impl Walk<'_, '_> {
    fn from(&mut self, start: usize) -> Result<Option<usize>, GivenUp> {
        if let Some(marks) = &mut self.marks {
            marks.fill(UNSET);
        }
        let (mut node, mut at) = (self.walker.root, start);
        loop {
            self.spend(1)?;
            let word = self.walker.nodes.word(node);
            let next = word.next();
            let gone = match word.step() {
                Step::Match => return Ok(Some(at)),
                Step::Short(text, length) => {
                    let mask = !(u64::MAX << (8 * u32::from(length)));
                    let same = (crate::block::eight(&self.subject[at..]) ^ text) & mask == 0;
                    same.then_some((next, at + usize::from(length)))
                }
                Step::Text(own) => {
                    let there = self.subject.get(at..at + own.len());
                    let same = there == Some(own.of_bytes(&self.walker.nodes.bytes));
                    same.then_some((next, at + own.len()))
                }
                Step::Folded(own) => {
                    let there = self.subject.get(at..at + own.len());
                    there.filter(|there| self.same(there, own)).map(|_| (next, at + own.len()))
                }
                Step::One(set) => {
                    let there = self.subject.get(at).filter(|byte| self.set(set).contains(**byte));
                    there.map(|_| (next, at + 1))
                }
                Step::Run(run) => self.run(node, run, at)?.map(|end| (next, end)),
                Step::Fork { other, first, second } => {
                    match (self.opens(first, at), self.opens(second, at)) {
                        (true, true) => {
                            self.push(Frame::Fork(other, at as u32))?;
                            Some((next, at))
                        }
                        (true, false) => Some((next, at)),
                        (false, true) => Some((other, at)),
                        (false, false) => None,
                    }
                }
                Step::Mark(slot) => {
                    self.mark(slot, at as u32)?;
                    Some((next, at))
                }
                Step::Assert(look) => self.holds(look, at).then_some((next, at)),
            };
            match gone {
                Some(place) => (node, at) = place,
                None => match self.back()? {
                    Some(place) => (node, at) = place,
                    None => return Ok(None),
                },
            }
        }
    }

    fn spend(&mut self, steps: usize) -> Result<(), GivenUp> {
        self.steps = self.steps.checked_sub(steps).ok_or(GivenUp)?;
        Ok(())
    }

    fn set(&self, number: u8) -> &Bytes {
        self.walker.nodes.set(number)
    }

    /// Whether what begins with one of these bytes may begin here.
    fn opens(&self, set: u8, at: usize) -> bool {
        set == ANY || self.subject.get(at).is_some_and(|byte| self.set(set).contains(*byte))
    }

    fn same(&self, there: &[u8], own: Place) -> bool {
        let bytes = &self.walker.nodes.bytes;
        let own = own.of_bytes(bytes).iter().zip(own.behind(bytes));
        there.iter().zip(own).all(|(there, (own, case))| there | case == *own)
    }

    fn push(&mut self, frame: Frame) -> Result<(), GivenUp> {
        *self.frames.get_mut(self.filled).ok_or(GivenUp)? = frame;
        self.filled += 1;
        Ok(())
    }

    fn mark(&mut self, slot: u16, at: u32) -> Result<(), GivenUp> {
        let Some(mark) = self.marks.as_mut().and_then(|marks| marks.get_mut(usize::from(slot))) else {
            return Ok(());
        };
        let before = std::mem::replace(mark, at);
        // Without a way back nobody asks what it was.
        if self.filled > 0 { self.push(Frame::Mark(slot, before)) } else { Ok(()) }
    }

    /// The next way that was not gone yet.
    fn back(&mut self) -> Result<Option<(u16, usize)>, GivenUp> {
        while self.filled > 0 {
            self.filled -= 1;
            let gone = match self.frames[self.filled] {
                Frame::Fork(node, at) => Some((node, at as usize)),
                Frame::Shorter(node, end, lowest) => {
                    let word = self.walker.nodes.word(node);
                    let end = self.shorter(node, word.run(), lowest as usize, end as usize - 1)?;
                    end.map(|end| (word.next(), end))
                }
                Frame::Longer(node, end, highest) => {
                    let word = self.walker.nodes.word(node);
                    let end = self.longer(node, word.run(), (end as usize, highest as usize), true)?;
                    end.map(|end| (word.next(), end))
                }
                Frame::Mark(slot, before) => {
                    if let Some(mark) = self.marks.as_mut().and_then(|marks| marks.get_mut(usize::from(slot)))
                    {
                        *mark = before;
                    }
                    None
                }
            };
            if gone.is_some() {
                return Ok(gone);
            }
        }
        Ok(None)
    }

    /// The end of a run that begins here.
    fn run(&mut self, node: u16, run: Run, at: usize) -> Result<Option<usize>, GivenUp> {
        let Run { set, least, most, order, .. } = run;
        let rest = &self.subject[at..];
        let highest = if most == WITHOUT_END { rest.len() } else { rest.len().min(usize::from(most)) };
        let least = usize::from(least);
        if order == Order::Shortest {
            let there = rest.get(..least).is_some_and(|there| self.set(set).passed(there) == least);
            return if there { self.longer(node, run, (at + least, at + highest), false) } else { Ok(None) };
        }
        let passed = self.set(set).passed(&rest[..highest]);
        self.spend(passed / 16)?;
        if passed < least {
            return Ok(None);
        }
        match order {
            Order::Only => Ok(Some(at + passed)),
            _ => self.shorter(node, run, at + least, at + passed),
        }
    }

    /// The last end of a run, not behind `end`, that something can follow.
    fn shorter(&mut self, node: u16, run: Run, lowest: usize, end: usize) -> Result<Option<usize>, GivenUp> {
        let found = if run.follow == ANY {
            end
        } else {
            let behind = (end + 1).min(self.subject.len());
            let ends = self.subject.get(lowest..behind).unwrap_or_default();
            let found = self.set(run.follow).last_in(ends);
            self.spend((ends.len() - found.unwrap_or(0)) / 16)?;
            let Some(found) = found else { return Ok(None) };
            lowest + found
        };
        if found > lowest {
            self.push(Frame::Shorter(node, found as u32, lowest as u32))?;
        }
        Ok(Some(found))
    }

    /// The first end of a run, not before `end`, that something can follow; or only behind it.
    fn longer(
        &mut self,
        node: u16,
        run: Run,
        (end, highest): (usize, usize),
        behind: bool,
    ) -> Result<Option<usize>, GivenUp> {
        let walker = self.walker;
        let (set, follow) = (walker.nodes.set(run.set), walker.set(run.follow));
        let from = end + usize::from(behind);
        if from > highest || (behind && !set.contains(self.subject[end])) {
            return Ok(None);
        }
        let found = match follow {
            None => from,
            Some(follow) => {
                let reach = (highest + 1).min(self.subject.len());
                let ends = self.subject.get(from..reach).unwrap_or_default();
                let first = follow.first_in(ends);
                let passed = first.map(|first| set.passed(&ends[..first]));
                self.spend(first.unwrap_or(ends.len()) / 8)?;
                let Some(found) = first.filter(|first| passed == Some(*first)) else { return Ok(None) };
                from + found
            }
        };
        if found < highest {
            self.push(Frame::Longer(node, found as u32, highest as u32))?;
        }
        Ok(Some(found))
    }

    fn holds(&self, look: Look, at: usize) -> bool {
        let word = |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_');
        let before = at.checked_sub(1).and_then(|place| self.subject.get(place));
        let behind = self.subject.get(at);
        match look {
            Look::Start => at == 0,
            Look::End => behind.is_none(),
            Look::StartLF => before.is_none_or(|byte| *byte == b'\n'),
            Look::EndLF => behind.is_none_or(|byte| *byte == b'\n'),
            Look::WordAscii => word(before) != word(behind),
            // Nothing else becomes a node.
            _ => word(before) == word(behind),
        }
    }
}
