//! The serving matcher: items with their classes as bit sets, and two shortcuts.
//!
//! The shortcuts are provably without effect on the answer: a subject without a literal that every
//! success must pass is refused at once, and starts at which the first item cannot hold are passed
//! over. Invariant: a place in the program is always the index of an item.

use super::Known;
use super::program::{Alternative, Item, Members, Quantifier};
use crate::beginning::{Beginning, ByteSet};
use crate::literal::{self, Needle};

/// One alternative, ready to run.
#[derive(Debug, Clone)]
pub(super) struct Program {
    items: Box<[Op]>,
    /// For each item the byte that a literal takes, case folded. Subjects never hold the NUL of the others.
    folded: Box<[u8]>,
    begin_anchored: bool,
    end_anchored: bool,
    marks: usize,
    /// The longest run of literals, all of which must be matched one behind the other.
    required: Needle,
    /// What an anchored program can begin with, where the first items tell.
    begin: Beginning,
    /// Nothing but literals, found by searching them.
    plain: bool,
    can_match: bool,
    first: First,
    /// What is required stands at the beginning, and the program may start anywhere.
    leads: bool,
}

#[derive(Debug, Clone, Copy)]
enum Op {
    Literal(u8),
    /// A mark; where it is compared it stands for the byte `(`. Patterns are far shorter than marks can be counted.
    Mark(u16),
    Class {
        set: Members,
        quantifier: Quantifier,
        /// At most one byte of the pattern text is left behind the class letter.
        last: bool,
        /// What a run of the class does not just pass by: bytes that it refuses or that the next item accepts.
        /// None for a class without quantifier.
        stop: Option<Stop>,
        /// At most a mark stands behind the class.
        tail: bool,
    },
}

/// The bytes that end a run.
#[derive(Debug, Clone, Copy)]
enum Stop {
    None,
    One(u8),
    Two(u8, u8),
    /// What the class refuses, what the next item accepts if it is a class, and its byte if it is a literal, 0 otherwise.
    Several(Members, u8),
}

impl Stop {
    fn new(set: Members, next: Option<&Op>) -> Self {
        let taken = |byte| next.is_some_and(|next| next.takes(byte));
        let members: Vec<u8> = (1..=u8::MAX).filter(|&byte| !set.contains(byte) || taken(byte)).collect();
        match (&members[..], next) {
            ([], _) => Self::None,
            ([one], _) => Self::One(*one),
            ([one, two], _) => Self::Two(*one, *two),
            (_, Some(Op::Class { set, .. })) => Self::Several(*set, 0),
            (_, Some(literal)) => Self::Several(Members::NONE, literal.byte().unwrap_or(0)),
            (_, None) => Self::Several(Members::NONE, 0),
        }
    }

    /// How many bytes a run of this class passes by. Subjects hold no NUL.
    fn passed(self, class: Members, rest: &[u8]) -> usize {
        let end = match self {
            Self::None => None,
            Self::One(one) => memchr::memchr(one, rest),
            Self::Two(one, two) => memchr::memchr2(one, two, rest),
            Self::Several(next, literal) => rest.iter().position(|&byte| {
                !class.contains(byte) || next.contains(byte) || byte.to_ascii_lowercase() == literal
            }),
        };
        end.unwrap_or(rest.len())
    }
}

/// What the first item of the program takes, if starts can be skipped by it.
#[derive(Debug, Clone)]
enum First {
    Unknown,
    Literal(u8),
    /// Several literals in a row, and whether they are the required ones.
    Run(Needle, bool),
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
                    Op::Mark(u16::try_from(marks - 1).unwrap_or(u16::MAX))
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
                First::Run(Needle::new(&leading), leading == required)
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
        let byte = |op: &Op| if let Op::Literal(_) = op { op.byte().unwrap_or(0) } else { 0 };
        Self {
            folded: items.iter().map(byte).collect(),
            required: Needle::new(&required),
            begin: if alternative.begin_anchored { beginning(&items) } else { Beginning::default() },
            plain,
            leads: leads && !alternative.begin_anchored && matches!(first, First::Run(..)),
            items,
            begin_anchored: alternative.begin_anchored,
            end_anchored: alternative.end_anchored,
            marks,
            can_match,
            first,
        }
    }

    pub(super) fn marks(&self) -> usize {
        self.marks
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
        let literals = self.items.iter().all(|op| matches!(op, Op::Literal(_)));
        let whole = literals && self.begin_anchored && self.end_anchored && !self.items.is_empty();
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
        marks: Option<&mut Vec<Option<usize>>>,
        steps: &mut u32,
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
        let leads = !self.begin_anchored && matches!(self.first, First::Run(_, true));
        if !leads && place.is_none() && !self.required.is_in(subject) {
            return None;
        }
        let marks = marks.map(|marks| {
            marks.clear();
            marks.resize(self.marks, None);
            marks.as_mut_slice()
        });
        let mut state = State {
            program: self,
            subject,
            marks,
            p: 0,
            s: 0,
            r: Some(0),
            run: false,
            restart: None,
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
    subject: &'a [u8],
    marks: Option<&'m mut [Option<usize>]>,
    p: usize,
    s: usize,
    r: Option<isize>,
    run: bool,
    restart: Option<usize>,
    slots: [(usize, usize); 4],
    filled: usize,
    /// What may still be spent: a step for each byte, however many are taken in one go.
    steps: u32,
}

impl<'a> State<'a, '_> {
    fn op(&self, place: usize) -> Option<&'a Op> {
        self.program.items.get(place)
    }

    fn set_mark(&mut self, index: u16, value: usize) {
        if let Some(marks) = &mut self.marks {
            marks[usize::from(index)] = Some(value);
        }
    }

    fn set_mark_at(&mut self, place: usize, value: usize) {
        if let Some(&Op::Mark(index)) = self.op(place) {
            self.set_mark(index, value);
        }
    }

    /// `s` as a reported place; subjects are far shorter than `isize` can count.
    fn place(&self) -> isize {
        isize::try_from(self.s).unwrap_or(isize::MAX)
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
            First::Run(literals, _) => literals.start_in(rest),
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
            self.r = None;
            // What each of those starts would have done: set the mark before the first item.
            if let Some(&Op::Mark(index)) = self.op(0) {
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
                Next::Succeed => return self.r,
                Next::Fail => {
                    if !self.retry() {
                        return None;
                    }
                }
            }
        }
        if self.finish() { self.r } else { None }
    }

    fn spend(&mut self, steps: usize) {
        self.steps = self.steps.saturating_sub(u32::try_from(steps).unwrap_or(u32::MAX));
    }

    fn step(&mut self) -> Next {
        let mut op = self.op(self.p);
        if let Some(&Op::Mark(index)) = op {
            self.set_mark(index, self.s);
            self.p += 1;
            op = self.op(self.p);
        }
        match op {
            None if !self.program.end_anchored => Next::Succeed,
            Some(&Op::Class { set, quantifier, last, stop, tail }) => {
                self.class(set, quantifier, last, stop, tail)
            }
            Some(Op::Literal(_)) => self.literals(),
            // Behind another mark it is compared as the byte that it was written with.
            Some(Op::Mark(_)) if self.subject[self.s] == b'(' => self.take(1),
            _ => Next::Fail,
        }
    }

    /// As many literals in a row as stand here.
    fn literals(&mut self) -> Next {
        let own = self.program.folded.get(self.p..).unwrap_or_default();
        let pairs = own.iter().zip(&self.subject[self.s..]);
        match pairs.take_while(|(own, byte)| **own == byte.to_ascii_lowercase()).count() {
            0 => Next::Fail,
            count => self.take(count),
        }
    }

    /// So many items of one byte each.
    fn take(&mut self, count: usize) -> Next {
        self.p += count;
        self.restart.get_or_insert(self.s);
        self.spend(count - 1);
        self.s += count - 1;
        self.consume()
    }

    fn class(
        &mut self,
        set: Members,
        quantifier: Quantifier,
        last: bool,
        stop: Option<Stop>,
        tail: bool,
    ) -> Next {
        if quantifier == Quantifier::Plus && !self.run {
            if !set.contains(self.subject[self.s]) {
                return self.refuse(quantifier, last);
            }
            self.accept(self.subject[self.s], quantifier);
            if self.s == self.subject.len() {
                return Next::Again;
            }
            self.spend(1);
        }
        if let Some(stop) = stop
            && (self.run || quantifier == Quantifier::Star)
        {
            let passed = stop.passed(set, &self.subject[self.s..]);
            if passed > 0 {
                self.run = true;
                self.s += passed;
                if tail {
                    self.set_mark_at(self.p + 1, self.s);
                } else {
                    self.r = Some(self.place() - 1);
                }
                self.spend(passed);
                if self.s == self.subject.len() {
                    return Next::Again;
                }
            }
        }
        let byte = self.subject[self.s];
        if set.contains(byte) { self.accept(byte, quantifier) } else { self.refuse(quantifier, last) }
    }

    fn consume(&mut self) -> Next {
        self.r = Some(self.place());
        self.s += 1;
        Next::Again
    }

    fn accept(&mut self, byte: u8, quantifier: Quantifier) -> Next {
        let mut q = self.p + 1;
        match quantifier {
            Quantifier::None => {
                self.p = q;
                self.restart.get_or_insert(self.s);
                return self.consume();
            }
            Quantifier::Star => self.run = true,
            Quantifier::Plus if !self.run => {
                let last = self.s + 1 == self.subject.len();
                self.set_mark_at(q, if last { self.s + 1 } else { self.s });
                self.run = true;
                return self.consume();
            }
            Quantifier::Plus => {}
        }
        let mark = match self.op(q) {
            Some(&Op::Mark(index)) => {
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
            Some(Op::Class { set, quantifier, .. }) if set.contains(byte) => {
                (if *quantifier == Quantifier::None { q + 1 } else { q }, self.s)
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

    fn refuse(&mut self, quantifier: Quantifier, last: bool) -> Next {
        if last && self.run && self.r.is_some() {
            self.r = Some(self.place());
            if !self.program.end_anchored {
                return Next::Succeed;
            }
        } else if quantifier == Quantifier::Plus && self.run {
            self.p += 1;
            self.run = false;
            return Next::Again;
        } else if quantifier == Quantifier::Star {
            self.p += 1;
            self.r = Some(self.place() - 1);
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
        if let Some(restart) = self.restart.take() {
            self.s = restart;
        }
        self.p = 0;
        self.r = None;
        self.s += 1;
        self.skip_starts();
        true
    }

    /// Whether the program may end here, at the end of the subject.
    fn finish(&mut self) -> bool {
        if self.marks.is_some() {
            while matches!(self.op(self.p), Some(Op::Class { quantifier: Quantifier::Star, .. })) {
                self.p += 1;
            }
            self.set_mark_at(self.p, self.subject.len());
        }
        let mut c = self.p;
        if self.at_end(&mut c) {
            return true;
        }
        if self.run
            && let Some(Op::Class { quantifier, .. }) = self.op(c)
        {
            c += 1;
            if *quantifier != Quantifier::None {
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
        let Some(Op::Class { quantifier, .. }) = self.op(*c) else { return Tail::Goes };
        if *quantifier == Quantifier::Plus {
            return Tail::Stuck;
        }
        *c += 1;
        if *quantifier == Quantifier::Star && self.at_end(c) { Tail::Ends } else { Tail::Goes }
    }

    fn at_end(&self, c: &mut usize) -> bool {
        if matches!(self.op(*c), Some(Op::Mark(_))) {
            *c += 1;
        }
        *c >= self.program.items.len()
    }
}

impl Op {
    /// Whether the item accepts this byte where it stands.
    fn takes(&self, byte: u8) -> bool {
        match self {
            Self::Class { set, .. } => set.contains(byte),
            _ => self.is_literal(byte),
        }
    }

    fn is_literal(&self, byte: u8) -> bool {
        self.byte() == Some(byte.to_ascii_lowercase())
    }

    /// The byte that a literal accepts, case folded; one from 128 on accepts none.
    fn byte(&self) -> Option<u8> {
        let own = match self {
            Self::Literal(own) => *own,
            Self::Mark(_) => b'(',
            Self::Class { .. } => return None,
        };
        Some(own).filter(|own| *own < 0x80)
    }
}
