//! Groups, inline options and look-around.

use super::{CompileError, NESTING_LIMIT, Open, Target, Translator};

impl Translator<'_> {
    pub(super) fn open_group(&mut self) -> Result<(), CompileError> {
        if self.peek() == Some('*') {
            return Err(self.error("verbs inside the pattern are not supported"));
        }
        if !self.eat('?') {
            if self.flags.no_capture {
                return self.push("(?:", false);
            }
            return self.capture(None);
        }
        let Some(kind) = self.next().and_then(char::from_u32) else {
            return Err(self.error("the pattern ends behind `(?`"));
        };
        let next = self.peek();
        match (kind, next) {
            (':', _) => self.push("(?:", false),
            ('=', _) => self.look("(?="),
            ('!', _) => self.look("(?!"),
            ('>', _) => {
                self.out.needs_backtracking = true;
                self.push("(?>", false)
            }
            ('<', Some('=')) => {
                self.at += 1;
                self.look("(?<=")
            }
            ('<', Some('!')) => {
                self.at += 1;
                self.look("(?<!")
            }
            ('#', _) => {
                // The item in front stays the one a quantifier belongs to.
                while let Some(unit) = self.next() {
                    if unit == u32::from(')') {
                        return Ok(());
                    }
                }
                Err(self.error("missing `)` of a comment"))
            }
            ('<', _) => self.named('>'),
            ('\'', _) => self.named('\''),
            ('P', Some('<')) => {
                self.at += 1;
                self.named('>')
            }
            ('P', Some('=')) => {
                self.at += 1;
                let name = self.name(')')?;
                self.reference_by_name(&name)
            }
            ('a'..='z' | 'J' | 'U' | '-' | '^' | ')', _) => self.options(kind),
            _ => Err(self.error("this kind of group is not supported")),
        }
    }

    pub(super) fn close_group(&mut self) -> Result<(), CompileError> {
        let Some(open) = self.open.pop() else { return Err(self.error("unmatched `)`")) };
        self.out.source.push(')');
        self.flags = open.flags;
        self.atom = Some(super::Atom { start: open.start, wrap: open.assertion });
        Ok(())
    }

    fn push(&mut self, source: &str, assertion: bool) -> Result<(), CompileError> {
        if self.open.len() >= NESTING_LIMIT {
            return Err(self.error("groups are nested too deep"));
        }
        self.open.push(Open { flags: self.flags, start: self.out.source.len(), assertion });
        self.out.source.push_str(source);
        self.atom = None;
        Ok(())
    }

    fn look(&mut self, source: &str) -> Result<(), CompileError> {
        self.out.needs_backtracking = true;
        self.push(source, true)
    }

    fn capture(&mut self, name: Option<String>) -> Result<(), CompileError> {
        self.out.groups += 1;
        if let Some(name) = name {
            if self.names.iter().any(|(known, _)| *known == name) {
                return Err(self.error("two groups have the same name"));
            }
            self.names.push((name, self.out.groups));
        }
        self.push("(", false)
    }

    fn named(&mut self, end: char) -> Result<(), CompileError> {
        let name = self.name(end)?;
        self.capture(Some(name))
    }

    /// A group name up to `end`, which is passed too.
    pub(super) fn name(&mut self, end: char) -> Result<String, CompileError> {
        let mut name = String::new();
        while let Some(unit) = self.next().and_then(char::from_u32) {
            match unit {
                _ if unit == end && !name.is_empty() => return Ok(name),
                'a'..='z' | 'A'..='Z' | '_' => name.push(unit),
                '0'..='9' if !name.is_empty() => name.push(unit),
                _ => break,
            }
            if name.len() > 32 {
                break;
            }
        }
        Err(self.error("bad group name"))
    }

    /// `(?i)`, `(?i-s:…)`, `(?^)` and so on; `first` is the letter already read.
    fn options(&mut self, first: char) -> Result<(), CompileError> {
        let before = self.flags;
        let mut flags = before;
        let mut on = true;
        let mut letter = Some(first);
        loop {
            match letter {
                Some('i') => flags.caseless = on,
                Some('m') => flags.multi_line = on,
                Some('s') => flags.dot_all = on,
                Some('x') => flags.extended = on,
                Some('n') => flags.no_capture = on,
                Some('U') => flags.ungreedy = on,
                // Duplicate names: a pattern that has some is still refused.
                Some('J') => {}
                Some('-') if on => on = false,
                Some('^') if self.units[self.at - 2] == u32::from('?') => {
                    flags = super::Flags { ungreedy: flags.ungreedy, ..super::Flags::default() }
                }
                Some(')') => {
                    self.flags = flags;
                    self.flags_used |= flags.caseless;
                    self.atom = None;
                    self.write_flags();
                    return Ok(());
                }
                Some(':') => {
                    self.push(if flags.caseless { "(?i:" } else { "(?-i:" }, false)?;
                    // The group before is closed with its own flags, which `push` has kept.
                    self.flags = flags;
                    self.flags_used |= flags.caseless;
                    return Ok(());
                }
                _ => return Err(self.error("unknown option letter")),
            }
            letter = self.next().and_then(char::from_u32);
        }
    }

    pub(super) fn reference_by_name(&mut self, name: &str) -> Result<(), CompileError> {
        let names = self.known.map_or(&self.names, |known| &known.names);
        let number = names.iter().find(|(known, _)| known == name).map(|&(_, number)| number);
        match (number, self.known) {
            (None, Some(_)) => Err(self.error("reference to a group that does not exist")),
            (number, _) => self.reference(number.unwrap_or(1)),
        }
    }

    /// A back-reference; whether the group exists is known in the second reading only.
    pub(super) fn reference(&mut self, number: usize) -> Result<(), CompileError> {
        self.refers = true;
        self.out.needs_backtracking = true;
        if self.known.is_some_and(|known| number > known.groups) {
            return Err(self.error("reference to a group that does not exist"));
        }
        self.begin();
        if self.target == Target::Backtracking {
            self.out.source.push_str(&format!("(?:\\{number})"));
        }
        Ok(())
    }
}
