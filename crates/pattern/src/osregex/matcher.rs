//! The serving matcher: items with their classes as bit sets, and two shortcuts.
//!
//! The shortcuts are provably without effect on the answer: a subject without a literal that every
//! success must pass is refused at once, and starts at which the first item cannot hold are passed
//! over. Invariant: a place in the program is always the index of an item.

use super::Known;
use super::op::{Class, Code, Op, Packed, Stop, View};
use super::program::{Alternative, Item, Members, Quantifier};
use crate::beginning::{Beginning, ByteSet};
use crate::literal::{self, Needle};

/// One alternative, ready to run. What every run asks stands in front.
#[derive(Debug, Clone)]
#[repr(C)]
pub(super) struct Program {
    /// What an anchored program can begin with, where the first items tell.
    begin: Beginning,
    code: Code,
    can_match: bool,
    begin_anchored: bool,
    end_anchored: bool,
    /// Nothing but literals, found by searching them.
    plain: bool,
    /// What is required stands at the beginning, and the program may start anywhere.
    leads: bool,
    marks: u16,
    /// The longest run of literals, all of which must be matched one behind the other.
    required: Needle,
    first: First,
}

/// What the first item of the program takes, if starts can be skipped by it.
#[derive(Debug, Clone)]
enum First {
    Unknown,
    Literal(u8),
    /// The required literals.
    Required,
    /// Several other literals in a row.
    Run(Needle),
    /// One byte, and the literals in a row directly behind it.
    Class(Members, Option<Needle>),
}

impl Program {
    pub(super) fn new(alternative: &Alternative) -> Self {
        let mut marks = 0;
        let count = alternative.items.len();
        let mut items: Box<[_]> = alternative
            .items
            .iter()
            .enumerate()
            .map(|(index, item)| match *item {
                Item::Literal(byte) => Op::Literal(byte),
                Item::Mark => {
                    marks += 1;
                    Op::Mark(marks - 1)
                }
                Item::Class { name, quantifier } => {
                    let short = quantifier == Quantifier::None
                        && index + 2 == count
                        && !matches!(alternative.items[index + 1], Item::Class { .. });
                    let last = short || index + 1 == count;
                    Op::Class { set: Members::of_class(name), quantifier, last, stop: None, tail: false }
                }
            })
            .collect();
        set_stops(&mut items);
        let obliged = &items[..obliged(&items)];
        let can_match = !obliged.iter().any(|op| matches!(op, Op::Literal(byte) if *byte >= 0x80));
        let (required, leads) = longest_literal(obliged);
        let leading = leading_literal(&items);
        let first = match items.iter().find(|op| !matches!(op, Op::Mark(0))) {
            Some(Op::Literal(_)) if leading.len() > 1 && can_match => {
                if leading == required {
                    First::Required
                } else {
                    First::Run(Needle::new(&leading))
                }
            }
            Some(Op::Literal(byte)) => First::Literal(*byte),
            Some(Op::Class { set, quantifier: Quantifier::None, .. }) => {
                let behind = leading_literal(unmarked(&items).get(1..).unwrap_or_default());
                let behind = Some(&*behind).filter(|behind| behind.len() > 1 && can_match);
                First::Class(*set, behind.map(Needle::new))
            }
            _ => First::Unknown,
        };
        let plain = !items.is_empty()
            && !alternative.begin_anchored
            && !alternative.end_anchored
            && items.iter().all(|op| matches!(op, Op::Literal(_)));
        Self {
            required: Needle::new(&required),
            begin: if alternative.begin_anchored { beginning(&items) } else { Beginning::default() },
            plain,
            leads: leads && !alternative.begin_anchored && matches!(first, First::Required | First::Run(_)),
            code: Code::new(&items),
            begin_anchored: alternative.begin_anchored,
            end_anchored: alternative.end_anchored,
            marks,
            can_match,
            first,
        }
    }

    pub(super) fn has_marks(&self) -> bool {
        self.marks > 0
    }

    pub(super) fn required(&self) -> &[u8] {
        self.required.text()
    }

    pub(super) fn beginning(&self) -> &Beginning {
        &self.begin
    }

    pub(super) fn refuses_quickly(&self) -> bool {
        !self.begin.is_empty() || self.plain
    }

    /// The literals of a program that is nothing else between both anchors.
    pub(super) fn whole(&self) -> Option<&[u8]> {
        let items = self.code.view();
        let literals = (0..items.len())
            .all(|place| matches!(items.get(place), Some(Packed::Literal(_) | Packed::Never)));
        let whole = literals && self.begin_anchored && self.end_anchored && items.len() > 0;
        whole.then(|| self.required())
    }

    /// A literal from 128 on never matches, and no success gets around a literal.
    pub(super) fn can_match(&self) -> bool {
        self.can_match
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
        if !self.can_match || !self.begin.allows_text(subject) {
            return None;
        }
        let place = match known {
            Known::Nothing => None,
            Known::Absent => return None,
            // What reaches behind the end stands behind a NUL, and nothing stands before it.
            Known::First(place) if place + self.required().len() > subject.len() => return None,
            Known::First(place) => Some(place),
        };
        if self.plain && subject.len() < PLAIN_LIMIT {
            let end = place.or_else(|| self.required.start_in(subject))? + self.required().len();
            // Without a mark of its own; the buffer may hold those of the alternative before.
            marks.into_iter().for_each(Vec::clear);
            return isize::try_from(end - 1).ok();
        }
        let leads = !self.begin_anchored && matches!(self.first, First::Required);
        if !leads && place.is_none() && !self.required.is_in(subject) {
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
            items: self.code.view(),
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

/// Tells every class what ends its run.
fn set_stops(items: &mut [Op]) {
    for index in 0..items.len() {
        let next = items.get(index + 1..).and_then(|behind| match behind {
            // A mark behind another mark is compared as the byte that it was written with.
            [Op::Mark(_), next, ..] => Some(next),
            [Op::Mark(_)] | [] => None,
            [next, ..] => Some(next),
        });
        let next = next.copied();
        if let Some(Op::Class { set, stop, quantifier, tail, .. }) = items.get_mut(index)
            && *quantifier != Quantifier::None
        {
            *stop = Some(Stop::new(*set, next.as_ref()));
            *tail = next.is_none();
        }
    }
}

/// What an anchored program can begin with: for each place the bytes of all items that it may have come to there.
fn beginning(items: &[Op]) -> Beginning {
    let mut places: Vec<ByteSet> = Vec::new();
    let survives = run_survives(items);
    let mut from = vec![0];
    while places.len() < Beginning::PLACES
        && let Some(open) = open_items(items, &from, survives, !places.is_empty())
    {
        places.push(ByteSet::of(|byte| open.iter().any(|item| items[*item].takes(byte))));
        let stays = |item: &usize| {
            let run =
                matches!(items[*item], Op::Class { quantifier: Quantifier::Plus | Quantifier::Star, .. });
            [Some(item + 1), Some(*item).filter(|_| run)]
        };
        from = open.iter().flat_map(stays).flatten().collect();
        from.sort_unstable();
        from.dedup();
    }
    Beginning::new(places)
}

/// The items that may take a byte when the program stands in front of one of some items; none where it may also be at its
/// end.
fn open_items(items: &[Op], from: &[usize], survives: bool, later: bool) -> Option<Vec<usize>> {
    let mut open = Vec::new();
    for start in from {
        for item in *start.. {
            match items.get(item)? {
                // Compared as a byte.
                Op::Mark(_) if matches!(items.get(item + 1), Some(Op::Mark(_))) => return None,
                Op::Mark(_) => {}
                // At its end a run may leave the rest out.
                Op::Class { last: true, .. } if later => return None,
                Op::Class { quantifier, .. } => {
                    open.push(item);
                    if *quantifier == Quantifier::None || (*quantifier == Quantifier::Plus && !survives) {
                        break;
                    }
                }
                Op::Literal(_) => {
                    open.push(item);
                    break;
                }
            }
        }
    }
    Some(open)
}

/// Without a mark at the beginning.
fn unmarked(items: &[Op]) -> &[Op] {
    match items {
        [Op::Mark(_), rest @ ..] => rest,
        _ => items,
    }
}

/// How many items every success must pass: all of them, but for a single byte behind a class
/// without quantifier at the very end, which a run that goes on from before may leave out.
fn obliged(items: &[Op]) -> usize {
    match items {
        [.., Op::Class { quantifier: Quantifier::None, .. }, Op::Literal(_)] => items.len() - 1,
        _ => items.len(),
    }
}

/// The literals that a program begins with.
fn leading_literal(items: &[Op]) -> Box<[u8]> {
    let items = items.iter().skip_while(|op| matches!(op, Op::Mark(0)));
    let literals = items.map_while(|op| match op {
        Op::Literal(byte) => Some(*byte),
        _ => None,
    });
    literals.collect()
}

/// The longest run of literals with nothing at all between them. A class of one byte is a literal like any other, and a run
/// of it begins and ends with one.
///
/// The second answer tells whether the program begins with it.
fn longest_literal(items: &[Op]) -> (Box<[u8]>, bool) {
    let (mut best, mut current): (Vec<u8>, Vec<u8>) = (Vec::new(), Vec::new());
    let (mut best_leads, mut leads) = (false, true);
    let items = unmarked(items);
    // Classes behind the last literal may be left out at the end of a subject.
    let firm = items.iter().rposition(|op| matches!(op, Op::Literal(_))).unwrap_or(0);
    let survives = run_survives(items);
    for (place, op) in items.iter().copied().enumerate() {
        let single = match op {
            Op::Class { set, quantifier: Quantifier::None, .. } if place < firm => set.single(),
            Op::Class { set, quantifier: Quantifier::Plus, .. } if place < firm && !survives => set.single(),
            _ => None,
        };
        match (op, single) {
            (Op::Literal(byte), _) | (_, Some(byte)) => current.push(byte.to_ascii_lowercase()),
            _ => {
                current.clear();
                leads = false;
            }
        }
        if literal::worth(&current) > literal::worth(&best) {
            best.clone_from(&current);
            best_leads = leads;
        }
        if let (Op::Class { quantifier: Quantifier::Plus, .. }, Some(byte)) = (op, single) {
            current = vec![byte];
            leads = false;
        }
    }
    (best.into(), best_leads)
}

/// Whether a run can last beyond its class: the byte on which it goes over to a class without quantifier does not end it, and
/// a later `+` is then passed without a byte of its own.
fn run_survives(items: &[Op]) -> bool {
    let overlap =
        |one: Members, other: Members| (1..=u8::MAX).any(|byte| one.contains(byte) && other.contains(byte));
    (0..items.len()).any(|place| match (items[place], unmarked(&items[place + 1..]).first()) {
        (Op::Class { quantifier: Quantifier::None, .. } | Op::Literal(_) | Op::Mark(_), _) => false,
        (Op::Class { set, .. }, Some(Op::Class { set: next, quantifier: Quantifier::None, .. })) => {
            overlap(set, *next)
        }
        _ => false,
    })
}

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
        let skipped = match &self.program.first {
            First::Unknown => return,
            First::Literal(byte) => memchr::memchr2(*byte, byte.to_ascii_uppercase(), rest),
            // A start at which only some of the literals stand fails at the next one: a literal leaves no slot.
            First::Required => self.program.required.start_in(rest),
            First::Run(literals) => literals.start_in(rest),
            // While there is no run to end, what the class does to a start that the literals fail leaves no trace.
            First::Class(set, Some(behind)) if !self.run => {
                let mut from = 1;
                std::iter::from_fn(|| {
                    let place = from + behind.start_in(rest.get(from..)?)?;
                    from = place + 1;
                    Some(place - 1)
                })
                .find(|start| set.contains(rest[*start]))
            }
            First::Class(set, _) => rest.iter().position(|&byte| set.contains(byte)),
        };
        let skipped = skipped.unwrap_or(rest.len());
        self.pass_starts(skipped);
    }

    /// Passes over so many starts, none of which holds.
    fn pass_starts(&mut self, skipped: usize) {
        if skipped > 0 {
            self.s += skipped;
            self.r = NOWHERE;
            // What each of those starts would have done: set the mark before the first item.
            if let Some(Packed::Mark(index)) = self.op(0) {
                self.set_mark(index, self.s - 1);
            }
            // A class that refuses a byte also ends the run.
            if matches!(self.program.first, First::Class(..)) {
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
        match self.items.literals(self.p, &self.subject[self.s..]) {
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
