//! The serving matcher: items with their classes as bit sets, and two shortcuts.
//!
//! The shortcuts are provably without effect on the answer: a subject without a literal that every
//! success must pass is refused at once, and starts at which the first item cannot hold are passed
//! over. Invariant: a place in the program is always the index of an item.

use super::Known;
use super::op::{Class, Packed, View};
use super::program::Members;
use crate::beginning::Single;
use crate::literal;
use crate::piece::Piece;

/// One alternative, ready to run: what every run asks, and behind it in the same piece of memory the items and texts, if
/// they are few.
#[derive(Debug, Clone)]
#[repr(C)]
pub(super) struct Program {
    /// What an anchored program can begin with.
    pub(super) begin: Single,
    /// Of the whole expression: it is the only alternative.
    pub(super) alone: bool,
    /// Of the whole expression: some alternative has marks.
    pub(super) grouped: bool,
    /// Nothing but literals, found by searching them.
    pub(super) plain: bool,
    /// What is required stands at the beginning, and the program may start anywhere.
    pub(super) leads: bool,
    pub(super) begin_anchored: bool,
    pub(super) end_anchored: bool,
    pub(super) first: First,
    /// The longest run of literals, all of which must be matched one behind the other.
    pub(super) required: Place,
    pub(super) items: u16,
    /// Behind the items and texts of `bytes` four bytes for each item that is told of.
    pub(super) told: u16,
    /// Several literals that starts are looked for by.
    pub(super) sought: Place,
    pub(super) marks: u16,
    /// The places of the rarest bytes in these two texts.
    pub(super) pivots: [u8; 2],
    pub(super) bytes: Piece,
}

/// A part of a program's bytes. Patterns are far shorter than that.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Place {
    pub(super) start: u16,
    pub(super) length: u16,
}

impl Place {
    fn in_bytes(self, bytes: &[u8]) -> &[u8] {
        bytes.get(usize::from(self.start)..).and_then(|from| from.get(..self.len())).unwrap_or_default()
    }

    fn len(self) -> usize {
        usize::from(self.length)
    }
}

/// What the first item of the program takes, if starts can be skipped by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum First {
    /// Nothing at all: an item that no success gets around takes no byte.
    Never,
    Unknown,
    Literal(u8),
    /// The required literals.
    Required,
    /// The literals that are sought.
    Run,
    /// One byte.
    Class(Members),
    /// One byte, and the literals that are sought directly behind it.
    Before(Members),
}

impl Program {
    pub(super) fn has_marks(&self) -> bool {
        self.marks > 0
    }

    pub(super) fn required(&self) -> &[u8] {
        self.required.in_bytes(self.bytes.bytes())
    }

    /// Where the required literals stand first.
    fn required_in(&self, text: &[u8]) -> Option<usize> {
        literal::first(text, self.required(), usize::from(self.pivots[0]))
    }

    /// Where the literals stand first that starts are looked for by.
    fn sought_in(&self, text: &[u8]) -> Option<usize> {
        literal::first(text, self.sought.in_bytes(self.bytes.bytes()), usize::from(self.pivots[1]))
    }

    #[inline]
    fn view(&self) -> View<'_> {
        let bytes = self.bytes.bytes();
        let items = bytes.get(..usize::from(self.items)).unwrap_or_default();
        View::new(items, bytes.get(usize::from(self.told)..).unwrap_or_default().as_chunks().0)
    }

    /// The literals of a program that is nothing else between both anchors.
    pub(super) fn whole(&self) -> Option<&[u8]> {
        let items = self.view();
        let literals = (0..items.len())
            .all(|place| matches!(items.get(place), Some(Packed::Literal(_) | Packed::Never)));
        let whole = literals && self.begin_anchored && self.end_anchored && items.len() > 0;
        whole.then(|| self.required())
    }

    pub(super) fn can_match(&self) -> bool {
        self.first != First::Never
    }

    /// Runs over `subject`; the answer is the reported place. `steps` is what may still be spent, `known` what is known of
    /// the required literal.
    pub(super) fn run(
        &self,
        subject: &[u8],
        marks: Option<&mut Vec<usize>>,
        steps: &mut usize,
        known: Known,
    ) -> Option<isize> {
        if self.first == First::Never || !self.begin.allows(subject) {
            return None;
        }
        let place = match known {
            Known::Nothing => None,
            Known::Absent => return None,
            // What reaches behind the end stands behind a NUL, and nothing stands before it.
            Known::First(place) if place + self.required.len() > subject.len() => return None,
            Known::First(place) => Some(place),
        };
        if self.plain && subject.len() < PLAIN_LIMIT {
            let end = place.or_else(|| self.required_in(subject))? + self.required.len();
            // Without a mark of its own; the buffer may hold those of the alternative before.
            marks.into_iter().for_each(Vec::clear);
            return isize::try_from(end - 1).ok();
        }
        let leads = !self.begin_anchored && self.first == First::Required;
        if !leads && place.is_none() && self.required_in(subject).is_none() {
            return None;
        }
        let wanted = marks.is_some();
        let marks = marks.map_or(&mut [][..], |marks| {
            marks.clear();
            marks.resize(usize::from(self.marks), UNSET);
            marks
        });
        let mut state = State {
            program: self,
            items: self.view(),
            subject,
            marks,
            wanted,
            p: 0,
            s: 0,
            r: 0,
            run: false,
            restart: UNSET,
            slots: [(0, 0); 4],
            filled: 0,
            steps: *steps,
            standing: 0,
        };
        // No start before it holds, and none of those that begin like it leaves a trace: at first there is no run to end.
        match place.filter(|_| leads || self.leads) {
            Some(place) => state.pass_starts(place),
            None => state.skip_starts(),
        }
        let place = state.walk();
        *steps = state.steps;
        place
    }
}

/// A place that is not set: no subject is so long.
pub(super) const UNSET: usize = usize::MAX;
/// No place to report.
const NOWHERE: isize = isize::MIN;

/// Longer subjects could exhaust the steps of the procedure, which plain searching does not count.
const PLAIN_LIMIT: usize = 1 << 16;

enum Next {
    Again,
    Fail,
    Succeed,
}

/// How the rest of a program looks from a place at the end of the subject.
enum Tail {
    Ends,
    Goes,
    /// In front of a `+`: the original then stands between class and quantifier and cannot go on.
    Stuck,
}

struct State<'a, 'm> {
    program: &'a Program,
    items: View<'a>,
    subject: &'a [u8],
    /// The places of the marks; no room for them where they are not wanted.
    marks: &'m mut [usize],
    wanted: bool,
    p: usize,
    s: usize,
    /// The place to report, or `NOWHERE`.
    r: isize,
    run: bool,
    /// Where the search starts again, if that is set.
    restart: usize,
    slots: [(usize, usize); 4],
    filled: usize,
    /// What may still be spent: a step for each byte, however many are taken in one go.
    steps: usize,
    /// So many literals that the program begins with were found to stand here.
    standing: usize,
}

impl State<'_, '_> {
    fn op(&self, place: usize) -> Option<Packed> {
        self.items.get(place)
    }

    fn set_mark(&mut self, index: u16, value: usize) {
        if let Some(mark) = self.marks.get_mut(usize::from(index)) {
            *mark = value;
        }
    }

    fn set_mark_at(&mut self, place: usize, value: usize) {
        if let Some(Packed::Mark(index)) = self.op(place) {
            self.set_mark(index, value);
        }
    }

    /// `s` as a reported place; subjects are far shorter than `isize` can count.
    fn place(&self) -> isize {
        self.s as isize
    }

    /// Moves from a start to the next one at which the first item holds.
    ///
    /// Exact because at a start no slot is filled, `restart` is unset and, behind the first start,
    /// `r` is unset: every start that is passed over here would fail without any other effect.
    fn skip_starts(&mut self) {
        if self.program.begin_anchored || self.s >= self.subject.len() {
            return;
        }
        let rest = &self.subject[self.s..];
        let skipped = match self.program.first {
            First::Unknown | First::Never => return,
            First::Literal(byte) => memchr::memchr2(byte, byte.to_ascii_uppercase(), rest),
            // A start at which only some of the literals stand fails at the next one: a literal leaves no slot.
            First::Required => self.program.required_in(rest),
            First::Run => self.program.sought_in(rest),
            // While there is no run to end, what the class does to a start that the literals fail leaves no trace.
            First::Before(set) if !self.run => {
                let mut from = 1;
                std::iter::from_fn(|| {
                    let place = from + self.program.sought_in(rest.get(from..)?)?;
                    from = place + 1;
                    Some(place - 1)
                })
                .find(|start| set.contains(rest[*start]))
            }
            First::Class(set) | First::Before(set) => rest.iter().position(|&byte| set.contains(byte)),
        };
        self.pass_starts(skipped.unwrap_or(rest.len()));
    }

    /// Passes over so many starts, none of which holds; literals that are looked for stand at the next one.
    fn pass_starts(&mut self, skipped: usize) {
        self.standing = match self.program.first {
            First::Literal(_) => 1,
            First::Required => self.program.required.len(),
            First::Run => self.program.sought.len(),
            _ => 0,
        };
        if skipped > 0 {
            self.s += skipped;
            self.r = NOWHERE;
            // What each of those starts would have done: set the mark before the first item.
            if let Some(Packed::Mark(index)) = self.op(0) {
                self.set_mark(index, self.s - 1);
            }
            // A class that refuses a byte also ends the run.
            if matches!(self.program.first, First::Class(_) | First::Before(_)) {
                self.run = false;
            }
        }
    }

    fn walk(&mut self) -> Option<isize> {
        while self.s < self.subject.len() {
            self.steps = self.steps.checked_sub(1)?;
            match self.step() {
                Next::Again => {}
                Next::Succeed => return self.found(),
                Next::Fail => {
                    if !self.retry() {
                        return None;
                    }
                }
            }
        }
        if self.finish() { self.found() } else { None }
    }

    /// The place to report.
    fn found(&self) -> Option<isize> {
        Some(self.r).filter(|place| *place != NOWHERE)
    }

    /// From the first item on that took a byte of its own the search starts again.
    fn begin(&mut self) {
        if self.restart == UNSET {
            self.restart = self.s;
        }
    }

    fn spend(&mut self, steps: usize) {
        self.steps = self.steps.saturating_sub(steps);
    }

    fn step(&mut self) -> Next {
        let mut op = self.op(self.p);
        if let Some(Packed::Mark(index)) = op {
            self.set_mark(index, self.s);
            self.p += 1;
            op = self.op(self.p);
        }
        match op {
            None if !self.program.end_anchored => Next::Succeed,
            Some(Packed::Class(class)) => self.class(class),
            Some(Packed::Literal(_)) => self.literals(),
            // Behind another mark it is compared as the byte that it was written with.
            Some(Packed::Mark(_)) if self.subject[self.s] == b'(' => self.take(1),
            _ => Next::Fail,
        }
    }

    /// As many literals in a row as stand here.
    fn literals(&mut self) -> Next {
        let count = match std::mem::take(&mut self.standing) {
            0 => self.items.literals(self.p, &self.subject[self.s..]),
            standing => standing,
        };
        match count {
            0 => Next::Fail,
            count => self.take(count),
        }
    }

    /// So many items of one byte each.
    fn take(&mut self, count: usize) -> Next {
        self.p += count;
        self.begin();
        self.spend(count - 1);
        self.s += count - 1;
        self.consume()
    }

    fn class(&mut self, class: Class) -> Next {
        if class.is_plus() && !self.run {
            let byte = self.subject[self.s];
            if !class.set().contains(byte) {
                return self.refuse(class);
            }
            self.accept(byte, class);
            if self.s == self.subject.len() {
                return Next::Again;
            }
            self.spend(1);
        }
        if self.run || class.is_star() {
            let passed = class.passed(&self.subject[self.s..]);
            if passed > 0 {
                self.run = true;
                self.s += passed;
                if class.is_tail() {
                    self.set_mark_at(self.p + 1, self.s);
                } else {
                    self.r = self.place() - 1;
                }
                self.spend(passed);
                if self.s == self.subject.len() {
                    return Next::Again;
                }
            }
        }
        let byte = self.subject[self.s];
        if class.set().contains(byte) { self.accept(byte, class) } else { self.refuse(class) }
    }

    fn consume(&mut self) -> Next {
        self.r = self.place();
        self.s += 1;
        Next::Again
    }

    fn accept(&mut self, byte: u8, class: Class) -> Next {
        let mut q = self.p + 1;
        if class.is_single() {
            self.p = q;
            self.begin();
            return self.consume();
        }
        if class.is_plus() && !self.run {
            let last = self.s + 1 == self.subject.len();
            self.set_mark_at(q, if last { self.s + 1 } else { self.s });
            self.run = true;
            return self.consume();
        }
        self.run = true;
        let mark = match self.op(q) {
            Some(Packed::Mark(index)) => {
                q += 1;
                Some(index)
            }
            _ => None,
        };
        let (target, mark_value) = match self.op(q) {
            None => {
                if let Some(index) = mark {
                    self.set_mark(index, self.s + 1);
                }
                self.s += 1;
                return Next::Again;
            }
            Some(Packed::Class(next)) if next.set().contains(byte) => {
                (if next.is_single() { q + 1 } else { q }, self.s)
            }
            Some(op) if op.is_literal(byte) => {
                self.run = false;
                (q + 1, self.s)
            }
            _ => return self.consume(),
        };
        if let Some(index) = mark {
            self.set_mark(index, mark_value);
        }
        if self.filled < self.slots.len() {
            self.slots[self.filled] = (self.p, self.s);
            self.filled += 1;
        }
        self.p = target;
        self.consume()
    }

    fn refuse(&mut self, class: Class) -> Next {
        if class.is_last() && self.run && self.r != NOWHERE {
            self.r = self.place();
            if !self.program.end_anchored {
                return Next::Succeed;
            }
        } else if class.is_plus() && self.run {
            self.p += 1;
            self.run = false;
            return Next::Again;
        } else if class.is_star() {
            self.p += 1;
            self.r = self.place() - 1;
            self.run = false;
            return Next::Again;
        }
        self.run = false;
        Next::Fail
    }

    fn retry(&mut self) -> bool {
        if self.filled > 0 {
            self.filled -= 1;
            let (p, s) = self.slots[self.filled];
            self.p = p;
            self.s = s + 1;
            return true;
        }
        if self.program.begin_anchored {
            return false;
        }
        if self.restart != UNSET {
            self.s = std::mem::replace(&mut self.restart, UNSET);
        }
        self.p = 0;
        self.r = NOWHERE;
        self.s += 1;
        self.skip_starts();
        true
    }

    /// Whether the program may end here, at the end of the subject.
    fn finish(&mut self) -> bool {
        if self.wanted {
            while matches!(self.op(self.p), Some(Packed::Class(class)) if class.is_star()) {
                self.p += 1;
            }
            self.set_mark_at(self.p, self.subject.len());
        }
        let mut c = self.p;
        if self.at_end(&mut c) {
            return true;
        }
        if self.run
            && let Some(Packed::Class(class)) = self.op(c)
        {
            c += 1;
            if !class.is_single() {
                if self.at_end(&mut c) {
                    return true;
                }
                match self.skip_star(&mut c) {
                    Tail::Ends => return true,
                    Tail::Goes => {}
                    Tail::Stuck => return false,
                }
            }
        }
        matches!(self.skip_star(&mut c), Tail::Ends)
    }

    /// Steps over a class that may be left out at the end of the subject.
    fn skip_star(&self, c: &mut usize) -> Tail {
        let Some(Packed::Class(class)) = self.op(*c) else { return Tail::Goes };
        if class.is_plus() {
            return Tail::Stuck;
        }
        *c += 1;
        if class.is_star() && self.at_end(c) { Tail::Ends } else { Tail::Goes }
    }

    fn at_end(&self, c: &mut usize) -> bool {
        if matches!(self.op(*c), Some(Packed::Mark(_))) {
            *c += 1;
        }
        *c >= self.items.len()
    }
}
