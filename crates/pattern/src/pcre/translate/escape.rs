//! Backslash sequences and bracket classes.

use super::{CompileError, QUOTED, Ranges, Target, Translator, class};

/// What a backslash sequence stands for, inside or outside a class.
enum Meaning {
    Character(u32),
    Set(Ranges),
}

impl Translator<'_> {
    /// A sequence outside a class, behind its backslash.
    pub(super) fn escape(&mut self) -> Result<(), CompileError> {
        let utf_look = self.out.utf || self.target == Target::Backtracking;
        let Some(name) = self.peek() else { return Err(self.error("the pattern ends behind `\\`")) };
        self.at += 1;
        match name {
            'A' | 'G' => self.assertion("\\A"),
            'z' => self.assertion("\\z"),
            'Z' => self.dollar(false),
            'b' | 'B' if self.target == Target::Linear && utf_look => {
                self.assertion(if name == 'b' { "(?-u:\\b)" } else { "(?-u:\\B)" });
            }
            'b' if utf_look => {
                self.assertion("(?:(?<=[0-9A-Z_a-z])(?![0-9A-Z_a-z])|(?<![0-9A-Z_a-z])(?=[0-9A-Z_a-z]))");
            }
            'B' if utf_look => {
                self.assertion("(?:(?<=[0-9A-Z_a-z])(?=[0-9A-Z_a-z])|(?<![0-9A-Z_a-z])(?![0-9A-Z_a-z]))");
            }
            'b' | 'B' => self.assertion(if name == 'b' { "\\b" } else { "\\B" }),
            // Only the start of the whole match would move, and nobody asks for it.
            'K' => self.assertion("(?:)"),
            'C' if !self.out.utf => self.set(&vec![(0, 0xff)], false),
            'R' => {
                self.out.needs_backtracking = true;
                self.begin();
                self.out.source.push_str("(?>\\x0D\\x0A|");
                let ranges = class::of_escape('v', self.most).unwrap_or_default();
                class::write(&mut self.out.source, &ranges, false, self.most);
                self.out.source.push(')');
            }
            'k' => {
                let end = match self.next().and_then(char::from_u32) {
                    Some('<') => '>',
                    Some('\'') => '\'',
                    Some('{') => '}',
                    _ => return Err(self.error("`\\k` is not followed by a group name")),
                };
                let name = self.name(end)?;
                self.reference_by_name(&name)?;
            }
            'g' => self.numbered()?,
            '1'..='9' if self.is_reference() => {
                self.at -= 1;
                let number = self.decimal();
                self.reference(number)?;
            }
            'N' if self.peek() != Some('{') || self.quantified() => self.set(&vec![(0x0a, 0x0a)], true),
            _ => match self.meaning(name)? {
                Meaning::Character(value) => self.literal(value),
                Meaning::Set(ranges) => self.set(&ranges, false),
            },
        }
        Ok(())
    }

    /// Whether a numeric quantifier stands here.
    fn quantified(&mut self) -> bool {
        self.at += 1;
        let bounds = self.bounds();
        self.at -= 1;
        bounds.is_some()
    }

    /// Whether the digits from the one just read on are a back-reference and not an octal number.
    fn is_reference(&mut self) -> bool {
        self.at -= 1;
        let start = self.at;
        let number = self.decimal();
        self.at = start + 1;
        self.refers |= number > 9;
        number < 10 || self.known.map_or(self.out.groups, |known| known.groups) >= number
    }

    fn decimal(&mut self) -> usize {
        let mut number: usize = 0;
        while let Some(digit) = self.peek().and_then(|unit| unit.to_digit(10)) {
            number = (number * 10 + digit as usize).min(100_000);
            self.at += 1;
        }
        number
    }

    /// `\g1`, `\g{1}`, `\g{-1}` and `\g{name}`.
    fn numbered(&mut self) -> Result<(), CompileError> {
        let braced = self.eat('{');
        let back = self.eat('-');
        if self.peek().is_some_and(|unit| unit.is_ascii_digit()) {
            let number = self.decimal();
            if braced && !self.eat('}') {
                return Err(self.error("missing `}`"));
            }
            let number = if back { (self.out.groups + 1).saturating_sub(number) } else { number };
            if number == 0 {
                return Err(self.error("reference to a group that does not exist"));
            }
            return self.reference(number);
        }
        if !braced || back {
            return Err(self.error("`\\g` is not followed by a group"));
        }
        let name = self.name('}')?;
        self.reference_by_name(&name)
    }

    /// The sequences that mean the same in a class and outside.
    fn meaning(&mut self, name: char) -> Result<Meaning, CompileError> {
        if name != 'N'
            && name != 'n'
            && let Some(ranges) = class::of_escape(name, self.most)
        {
            return Ok(Meaning::Set(ranges));
        }
        let value = match name {
            'a' => 0x07,
            'e' => 0x1b,
            'f' => 0x0c,
            'n' => 0x0a,
            'r' => 0x0d,
            't' => 0x09,
            'x' => self.hexadecimal()?,
            'o' if self.eat('{') => self.braced(8)?,
            'N' if self.out.utf && self.peek_at(1) == Some('U') && self.peek_at(2) == Some('+') => {
                self.at += 3;
                self.braced(16)?
            }
            'c' => match self.next() {
                Some(unit @ 0x20..0x7f) => u32::from((unit as u8).to_ascii_uppercase()) ^ 0x40,
                _ => return Err(self.error("`\\c` is not followed by a printable character")),
            },
            '0'..='7' => {
                self.at -= 1;
                self.digits(8, 3)
            }
            '8' | '9' => u32::from(name),
            'p' | 'P' | 'X' => return Err(self.error("Unicode properties are not supported")),
            other if other.is_ascii_alphanumeric() => {
                return Err(self.error(&format!("unknown escape `\\{other}`")));
            }
            other => u32::from(other),
        };
        if value > self.most || char::from_u32(value).is_none() {
            return Err(self.error("the number of a character is too large"));
        }
        Ok(Meaning::Character(value))
    }

    fn hexadecimal(&mut self) -> Result<u32, CompileError> {
        if self.eat('{') { self.braced(16) } else { Ok(self.digits(16, 2)) }
    }

    fn braced(&mut self, radix: u32) -> Result<u32, CompileError> {
        let start = self.at;
        let value = self.digits(radix, 12);
        if self.at > start && self.eat('}') { Ok(value) } else { Err(self.error("missing `}` or bad digit")) }
    }

    fn digits(&mut self, radix: u32, most: usize) -> u32 {
        let mut value: u32 = 0;
        for _ in 0..most {
            let Some(digit) = self.peek().and_then(|unit| unit.to_digit(radix)) else { break };
            value = value.saturating_mul(radix).saturating_add(digit);
            self.at += 1;
        }
        value
    }

    /// A bracket class, behind its `[`.
    pub(super) fn class(&mut self) -> Result<(), CompileError> {
        let negated = self.eat('^');
        let mut ranges = Ranges::new();
        // The character that a `-` might extend to a range.
        let mut low = None;
        let mut first = true;
        loop {
            let Some(unit) = self.next() else { return Err(self.error("missing `]`")) };
            if unit == u32::from(']') && !first {
                break;
            }
            first = false;
            if unit == u32::from('-') && self.peek() != Some(']') && !ranges.is_empty() {
                match low {
                    Some(low) => self.range(&mut ranges, low)?,
                    None if self.after_set => return Err(self.error("a range begins with a set")),
                    None => ranges.push((unit, unit)),
                }
                (low, self.after_set) = (None, false);
                continue;
            }
            match self.member(unit)? {
                Meaning::Character(value) => {
                    ranges.push((value, value));
                    (low, self.after_set) = (Some(value), false);
                }
                Meaning::Set(set) => {
                    ranges.extend(set);
                    (low, self.after_set) = (None, true);
                }
            }
        }
        self.after_set = false;
        self.set(&ranges, negated);
        Ok(())
    }

    fn range(&mut self, ranges: &mut Ranges, low: u32) -> Result<(), CompileError> {
        let Some(unit) = self.next() else { return Err(self.error("missing `]`")) };
        match self.member(unit)? {
            Meaning::Character(high) if high < low => Err(self.error("a range in a class is out of order")),
            Meaning::Character(high) => {
                ranges.push((low, high));
                Ok(())
            }
            Meaning::Set(_) => Err(self.error("a range ends with a set")),
        }
    }

    fn member(&mut self, unit: u32) -> Result<Meaning, CompileError> {
        match char::from_u32(unit) {
            None => Ok(Meaning::Character(unit & !QUOTED)),
            Some('[') => match self.posix()? {
                Some(ranges) => Ok(Meaning::Set(ranges)),
                None => Ok(Meaning::Character(unit)),
            },
            Some('\\') => {
                let Some(name) = self.peek() else { return Err(self.error("missing `]`")) };
                self.at += 1;
                match name {
                    'b' => Ok(Meaning::Character(0x08)),
                    'B' | 'R' | 'X' => Err(self.error(&format!("`\\{name}` is not allowed in a class"))),
                    'N' if self.peek() != Some('{') => Err(self.error("`\\N` is not allowed in a class")),
                    _ => self.meaning(name),
                }
            }
            Some(_) => Ok(Meaning::Character(unit)),
        }
    }

    /// Whether `mark` and `]` stand together further on in the class.
    fn closes(&self, mark: char) -> bool {
        let mut rest = self.units[self.at + 1..].windows(2);
        rest.find(|pair| pair[0] == u32::from(']') || pair[1] == u32::from(']'))
            .is_some_and(|pair| pair[0] == u32::from(mark))
    }

    /// A POSIX class behind the inner `[`, if one stands here.
    fn posix(&mut self) -> Result<Option<Ranges>, CompileError> {
        match self.peek() {
            Some(':') => {}
            Some(mark @ ('.' | '=')) if self.closes(mark) => {
                return Err(self.error("collating elements are not supported"));
            }
            _ => return Ok(None),
        }
        let negated = self.peek_at(1) == Some('^');
        let start = 1 + usize::from(negated);
        let mut name = String::new();
        while let Some(letter) = self.peek_at(start + name.len()).filter(char::is_ascii_lowercase) {
            name.push(letter);
        }
        let end = start + name.len();
        if self.peek_at(end) != Some(':') || self.peek_at(end + 1) != Some(']') {
            return Ok(None);
        }
        self.at += end + 2;
        let name = if self.flags.caseless && matches!(&*name, "lower" | "upper") { "alpha" } else { &name };
        let Some(ranges) = class::of_posix(name) else { return Err(self.error("unknown POSIX class")) };
        Ok(Some(if negated { class::complement(ranges, self.most) } else { ranges }))
    }
}
