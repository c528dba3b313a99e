//! The matching procedure in its plainest form: one string of bytes, one place in it, no shortcuts.
//!
//! Nothing serves from here. It exists to be compared with the serving matcher, so it follows the
//! wording of the procedure (labels A to G) and not the needs of a processor.

use super::program::{Alternative, Item, Quantifier, class_contains};

/// What a successful alternative leaves behind.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Success {
    pub(super) place: isize,
    pub(super) marks: Vec<Option<usize>>,
}

const ESCAPE: u8 = b'\\';
const MARK: u8 = b'(';

struct Machine<'a> {
    code: Vec<u8>,
    /// For each byte of `code`: which mark it is.
    mark_at: Vec<Option<usize>>,
    begin_anchored: bool,
    end_anchored: bool,
    subject: &'a [u8],
    capturing: bool,
    p: usize,
    s: usize,
    r: Option<isize>,
    run: bool,
    restart: Option<usize>,
    slots: Vec<(usize, usize)>,
    marks: Vec<Option<usize>>,
}

enum Next {
    Again,
    Fail,
    Succeed,
}

/// Runs one alternative over `subject`.
pub(super) fn run(alternative: &Alternative, subject: &[u8], capturing: bool) -> Option<Success> {
    let mut machine = Machine::new(alternative, subject, capturing);
    while machine.s < subject.len() {
        match machine.step() {
            Next::Again => {}
            Next::Succeed => return machine.success(),
            Next::Fail => {
                if !machine.retry() {
                    return None;
                }
            }
        }
    }
    if machine.finish() { machine.success() } else { None }
}

impl<'a> Machine<'a> {
    fn new(alternative: &Alternative, subject: &'a [u8], capturing: bool) -> Self {
        let (mut code, mut mark_at, mut count) = (Vec::new(), Vec::new(), 0);
        for item in &alternative.items {
            match *item {
                Item::Literal(byte) => code.push(byte),
                Item::Mark => {
                    mark_at.resize(code.len(), None);
                    mark_at.push(Some(count));
                    count += 1;
                    code.push(MARK);
                }
                Item::Class { name, quantifier } => {
                    code.extend([ESCAPE, name]);
                    match quantifier {
                        Quantifier::None => {}
                        Quantifier::Plus => code.push(b'+'),
                        Quantifier::Star => code.push(b'*'),
                    }
                }
            }
        }
        mark_at.resize(code.len(), None);
        Self {
            code,
            mark_at,
            begin_anchored: alternative.begin_anchored,
            end_anchored: alternative.end_anchored,
            subject,
            capturing,
            p: 0,
            s: 0,
            r: Some(0),
            run: false,
            restart: None,
            slots: Vec::new(),
            marks: vec![None; count],
        }
    }

    fn at(&self, place: usize) -> Option<u8> {
        self.code.get(place).copied()
    }

    fn is_end(&self, place: usize) -> bool {
        place >= self.code.len()
    }

    fn is_mark(&self, place: usize) -> bool {
        self.mark_at.get(place).copied().flatten().is_some()
    }

    fn is_class(&self, place: usize) -> bool {
        self.at(place) == Some(ESCAPE)
    }

    fn in_class(&self, place: usize, byte: u8) -> bool {
        self.is_class(place) && self.at(place + 1).is_some_and(|name| class_contains(name, byte))
    }

    fn is_quantifier(&self, place: usize) -> bool {
        matches!(self.at(place), Some(b'+' | b'*'))
    }

    fn is_literal(&self, place: usize, byte: u8) -> bool {
        let folded = byte.to_ascii_lowercase();
        folded < 0x80 && self.at(place) == Some(folded)
    }

    fn set_mark(&mut self, place: usize, value: usize) {
        if self.capturing
            && let Some(Some(index)) = self.mark_at.get(place).copied()
        {
            self.marks[index] = Some(value);
        }
    }

    fn place(&self) -> Option<isize> {
        isize::try_from(self.s).ok()
    }

    fn success(&mut self) -> Option<Success> {
        self.r.map(|place| Success { place, marks: std::mem::take(&mut self.marks) })
    }

    fn step(&mut self) -> Next {
        if self.is_end(self.p) {
            if !self.end_anchored {
                return Next::Succeed;
            }
        } else if self.is_mark(self.p) {
            self.set_mark(self.p, self.s);
            self.p += 1;
            if self.is_end(self.p) && !self.end_anchored {
                return Next::Succeed;
            }
        }
        let byte = self.subject[self.s];
        if self.is_class(self.p) {
            if self.in_class(self.p, byte) { self.accept(byte) } else { self.refuse() }
        } else if self.is_literal(self.p, byte) {
            self.p += 1;
            self.restart.get_or_insert(self.s);
            self.consume()
        } else {
            Next::Fail
        }
    }

    fn consume(&mut self) -> Next {
        self.r = self.place();
        self.s += 1;
        Next::Again
    }

    /// B1.
    fn accept(&mut self, byte: u8) -> Next {
        let mut q = self.p + 2;
        match self.at(q) {
            Some(b'+') => {}
            Some(b'*') => self.run = true,
            _ => {
                self.p = q;
                self.restart.get_or_insert(self.s);
                return self.consume();
            }
        }
        q += 1;
        if !self.run {
            let last = self.s + 1 == self.subject.len();
            self.set_mark(q, if last { self.s + 1 } else { self.s });
            self.run = true;
            return self.consume();
        }
        let mark = self.is_mark(q).then_some(q);
        if mark.is_some() {
            q += 1;
        }
        let step = if self.is_end(q) {
            Some(1)
        } else if self.is_class(q) {
            self.in_class(q, byte).then(|| if self.is_quantifier(q + 2) { 0 } else { 2 })
        } else if self.is_literal(q, byte) {
            self.run = false;
            Some(1)
        } else {
            None
        };
        if let Some(step) = step {
            if let Some(mark) = mark {
                self.set_mark(mark, if self.run && step == 1 { self.s + 1 } else { self.s });
            }
            if self.is_end(q) {
                self.s += 1;
                return Next::Again;
            }
            if self.slots.len() < 4 {
                self.slots.push((self.p, self.s));
            }
            self.p = q + step;
        }
        self.consume()
    }

    /// B2.
    fn refuse(&mut self) -> Next {
        let next = self.at(self.p + 2);
        if (next.is_none() || self.is_end(self.p + 3)) && self.run && self.r.is_some() {
            self.r = self.place();
            if !self.end_anchored {
                return Next::Succeed;
            }
        } else if next == Some(b'+') && self.run {
            self.p += 3;
            self.run = false;
            return Next::Again;
        } else if next == Some(b'*') {
            self.p += 3;
            self.r = self.place().map(|place| place - 1);
            self.run = false;
            return Next::Again;
        }
        self.run = false;
        Next::Fail
    }

    /// F.
    fn retry(&mut self) -> bool {
        if let Some((p, s)) = self.slots.pop() {
            self.p = p;
            self.s = s + 1;
            return true;
        }
        if self.begin_anchored {
            return false;
        }
        if let Some(restart) = self.restart.take() {
            self.s = restart;
        }
        self.p = 0;
        self.r = None;
        self.s += 1;
        true
    }

    /// G1 and G2.
    fn finish(&mut self) -> bool {
        if self.capturing {
            while self.is_class(self.p) && self.at(self.p + 2) == Some(b'*') {
                self.p += 3;
            }
            self.set_mark(self.p, self.subject.len());
        }
        let mut c = self.p;
        if self.at_end(&mut c) {
            return true;
        }
        if self.is_class(c) && self.run {
            c += 2;
            if self.is_quantifier(c) {
                c += 1;
                if self.at_end(&mut c) || self.skip_star(&mut c) {
                    return true;
                }
            }
        }
        self.skip_star(&mut c)
    }

    fn skip_star(&self, c: &mut usize) -> bool {
        if !self.is_class(*c) {
            return false;
        }
        *c += 2;
        if self.at(*c) != Some(b'*') {
            return false;
        }
        *c += 1;
        self.at_end(c)
    }

    fn at_end(&self, c: &mut usize) -> bool {
        if self.is_mark(*c) {
            *c += 1;
        }
        self.is_end(*c)
    }
}
