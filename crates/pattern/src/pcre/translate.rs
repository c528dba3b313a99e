//! From PCRE2 syntax to the syntax of the engines that serve it.
//!
//! The two languages look alike and differ in places that would go unnoticed: `[a[b]`, `\v`, `\h`,
//! `x{`, `$` before a last newline. So every pattern is read item by item and written anew with
//! explicit sets. Invariant: what is written means the same in the engine as it meant in PCRE2, or
//! the pattern is refused.

use super::class::{self, Ranges};
use crate::CompileError;

mod escape;
mod group;

/// The engine a pattern is written for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    /// `regex::bytes`, without look-around and back-references.
    Linear,
    /// `fancy_regex` on text: bytes as the first 256 code points, unless the pattern is UTF.
    Backtracking,
}

/// A pattern rewritten for one target.
#[derive(Debug, Default)]
pub(super) struct Translation {
    pub(super) source: String,
    /// The pattern asked for UTF-8 subjects.
    pub(super) utf: bool,
    pub(super) groups: usize,
    /// Only the backtracking engine can run it.
    pub(super) needs_backtracking: bool,
    /// The linear form is right only for subjects that do not end in a newline.
    pub(super) newline_sensitive: bool,
}

/// PCRE2's own limit for groups inside groups.
const NESTING_LIMIT: usize = 250;
/// PCRE2's own limit for a repeat count.
const REPEAT_LIMIT: u32 = 65_535;
/// Marks a character between `\Q` and `\E`: no syntax is made of it.
const QUOTED: u32 = 1 << 31;

/// Rewrites `pattern`, which is already cut at its first NUL.
pub(super) fn translate(pattern: &[u8], target: Target) -> Result<Translation, CompileError> {
    let (verbs, utf) = leading_verbs(pattern)?;
    let body = &pattern[verbs..];
    let units: Vec<u32> = if utf {
        let body = std::str::from_utf8(body).map_err(|error| {
            CompileError::pcre(format!("no UTF-8 at offset {}", verbs + error.valid_up_to()))
        })?;
        body.chars().map(u32::from).collect()
    } else {
        body.iter().copied().map(u32::from).collect()
    };
    let units = unquote(&units);
    let first = Translator::new(&units, utf, target, verbs, None).run()?;
    if !first.refers {
        return Ok(first.translation);
    }
    // References may point forward, so they are resolved in a second reading.
    let known = Known { groups: first.translation.groups, names: first.names };
    Ok(Translator::new(&units, utf, target, verbs, Some(&known)).run()?.translation)
}

/// The options in front, such as `(*UTF)`; those that only steer PCRE2's optimiser mean nothing here.
fn leading_verbs(pattern: &[u8]) -> Result<(usize, bool), CompileError> {
    let (mut at, mut utf) = (0, false);
    while let Some(rest) = pattern[at..].strip_prefix(b"(*") {
        let Some(length) = rest.iter().position(|&byte| byte == b')') else { break };
        match &rest[..length] {
            b"UTF" | b"UTF8" => utf = true,
            b"LF" | b"NO_AUTO_POSSESS" | b"NO_DOTSTAR_ANCHOR" | b"NO_JIT" | b"NO_START_OPT" => {}
            other => {
                let verb = String::from_utf8_lossy(other);
                return Err(CompileError::pcre(format!("verb `(*{verb})` at offset {at} is not supported")));
            }
        }
        at += length + 3;
    }
    Ok((at, utf))
}

/// Resolves `\Q…\E`.
fn unquote(units: &[u32]) -> Vec<u32> {
    let mut out = Vec::with_capacity(units.len());
    let mut quoted = false;
    let mut at = 0;
    while let Some(&unit) = units.get(at) {
        let next = units.get(at + 1).and_then(|&unit| char::from_u32(unit));
        match (unit == u32::from('\\'), next) {
            (true, Some('E')) => quoted = false,
            (true, Some('Q')) if !quoted => quoted = true,
            (true, Some(_)) if !quoted => out.extend([unit, units[at + 1]]),
            _ => {
                out.push(if quoted { unit | QUOTED } else { unit });
                at += 1;
                continue;
            }
        }
        at += 2;
    }
    out
}

#[derive(Debug, Clone, Copy, Default)]
struct Flags {
    caseless: bool,
    multi_line: bool,
    dot_all: bool,
    extended: bool,
    no_capture: bool,
    ungreedy: bool,
}

struct Known {
    groups: usize,
    names: Vec<(String, usize)>,
}

struct Read {
    translation: Translation,
    names: Vec<(String, usize)>,
    refers: bool,
}

/// The item a quantifier would belong to.
#[derive(Clone, Copy)]
struct Atom {
    start: usize,
    /// Look-around, which may be repeated here, but in the engine only inside a group.
    wrap: bool,
}

struct Open {
    flags: Flags,
    start: usize,
    assertion: bool,
}

struct Translator<'p> {
    units: &'p [u32],
    at: usize,
    /// Bytes in front of the first unit, for messages.
    base: usize,
    target: Target,
    known: Option<&'p Known>,
    /// The greatest character value.
    most: u32,
    flags: Flags,
    flags_used: bool,
    open: Vec<Open>,
    atom: Option<Atom>,
    names: Vec<(String, usize)>,
    refers: bool,
    /// In a class: the last member was a set, so no range can begin with it.
    after_set: bool,
    out: Translation,
}

impl<'p> Translator<'p> {
    fn new(units: &'p [u32], utf: bool, target: Target, base: usize, known: Option<&'p Known>) -> Self {
        Self {
            units,
            at: 0,
            base,
            target,
            known,
            most: if utf { 0x10_ffff } else { 0xff },
            flags: Flags::default(),
            flags_used: false,
            open: Vec::new(),
            atom: None,
            names: Vec::new(),
            refers: false,
            after_set: false,
            out: Translation { utf, ..Translation::default() },
        }
    }

    fn run(mut self) -> Result<Read, CompileError> {
        while let Some(unit) = self.next() {
            self.item(unit)?;
        }
        if !self.open.is_empty() {
            return Err(self.error("missing `)`"));
        }
        Ok(Read { translation: self.out, names: self.names, refers: self.refers })
    }

    fn next(&mut self) -> Option<u32> {
        let unit = self.units.get(self.at).copied()?;
        self.at += 1;
        Some(unit)
    }

    /// The next unit as a syntax character.
    fn peek(&self) -> Option<char> {
        self.peek_at(0)
    }

    fn peek_at(&self, ahead: usize) -> Option<char> {
        self.units.get(self.at + ahead).and_then(|&unit| char::from_u32(unit))
    }

    fn eat(&mut self, wanted: char) -> bool {
        let found = self.peek() == Some(wanted);
        self.at += usize::from(found);
        found
    }

    fn error(&self, message: &str) -> CompileError {
        CompileError::pcre(format!("{message} at offset {}", self.base + self.at))
    }

    fn item(&mut self, unit: u32) -> Result<(), CompileError> {
        let Some(syntax) = char::from_u32(unit) else {
            self.literal(unit & !QUOTED);
            return Ok(());
        };
        match syntax {
            '\\' => self.escape()?,
            '[' => self.class()?,
            '(' => self.open_group()?,
            ')' => self.close_group()?,
            '|' => {
                self.out.source.push('|');
                self.atom = None;
                self.write_flags();
            }
            '.' if self.flags.dot_all => self.set(&vec![(0, self.most)], false),
            '.' => self.set(&vec![(0x0a, 0x0a)], true),
            '^' => self.caret(),
            '$' => self.dollar(self.flags.multi_line),
            '*' => self.repeat("*")?,
            '+' => self.repeat("+")?,
            '?' => self.repeat("?")?,
            '{' => self.brace()?,
            '#' if self.flags.extended => while self.next().is_some_and(|unit| unit != 0x0a) {},
            '\t' | '\n' | '\x0b' | '\x0c' | '\r' | ' ' if self.flags.extended => {}
            other => self.literal(u32::from(other)),
        }
        Ok(())
    }

    /// Opens an item that may be quantified.
    fn begin(&mut self) {
        self.atom = Some(Atom { start: self.out.source.len(), wrap: false });
    }

    fn literal(&mut self, value: u32) {
        self.begin();
        match char::from_u32(value) {
            Some(plain) if plain.is_ascii_alphanumeric() => self.out.source.push(plain),
            _ if value >= 0x80 && self.flags.caseless && !self.out.utf => {
                // Only ASCII has cases; as a code point this one might have some too.
                self.out.source.push_str("(?-i:");
                class::write_one(&mut self.out.source, value);
                self.out.source.push(')');
            }
            _ => class::write_one(&mut self.out.source, value),
        }
    }

    fn set(&mut self, ranges: &Ranges, negated: bool) {
        self.begin();
        if self.flags.caseless && !self.out.utf {
            let mut folded = ranges.clone();
            class::fold(&mut folded);
            self.out.source.push_str("(?-i:");
            class::write(&mut self.out.source, &folded, negated, self.most);
            self.out.source.push(')');
        } else {
            class::write(&mut self.out.source, ranges, negated, self.most);
        }
    }

    /// An assertion, which PCRE2 does not let anyone quantify.
    fn assertion(&mut self, source: &str) {
        self.atom = None;
        self.out.source.push_str(source);
    }

    fn caret(&mut self) {
        match (self.flags.multi_line, self.target) {
            (false, _) => self.assertion("\\A"),
            (true, Target::Backtracking) => self.assertion("(?:\\A|(?<=\\x0A)(?!\\z))"),
            // Behind a newline that ends the subject PCRE2 sees no line; `regex` does.
            (true, Target::Linear) => {
                self.out.newline_sensitive = true;
                self.assertion("(?m:^)");
            }
        }
    }

    fn dollar(&mut self, multi_line: bool) {
        match (multi_line, self.target) {
            (true, Target::Linear) => self.assertion("(?m:$)"),
            (true, Target::Backtracking) => self.assertion("(?=\\x0A|\\z)"),
            (false, Target::Backtracking) => self.assertion("(?=\\x0A?\\z)"),
            (false, Target::Linear) => {
                self.out.newline_sensitive = true;
                self.assertion("\\z");
            }
        }
    }

    fn brace(&mut self) -> Result<(), CompileError> {
        match self.bounds() {
            Some((low, high, length)) => {
                if low > REPEAT_LIMIT || high.is_some_and(|high| high > REPEAT_LIMIT) {
                    return Err(self.error("too big a number in a quantifier"));
                }
                if high.is_some_and(|high| high < low) {
                    return Err(self.error("numbers out of order in a quantifier"));
                }
                self.at += length;
                match high {
                    Some(high) if high == low => self.repeat(&format!("{{{low}}}")),
                    Some(high) => self.repeat(&format!("{{{low},{high}}}")),
                    None => self.repeat(&format!("{{{low},}}")),
                }
            }
            None => {
                self.literal(u32::from('{'));
                Ok(())
            }
        }
    }

    /// The numbers behind a `{` and how many units they take, if this is a quantifier at all.
    fn bounds(&self) -> Option<(u32, Option<u32>, usize)> {
        let mut length = 0;
        let number = |length: &mut usize| {
            let mut value = None;
            while let Some(digit) = self.peek_at(*length).and_then(|unit| unit.to_digit(10)) {
                value = Some((value.unwrap_or(0_u32) * 10 + digit).min(REPEAT_LIMIT + 1));
                *length += 1;
            }
            value
        };
        let low = number(&mut length)?;
        let mut high = Some(low);
        if self.peek_at(length) == Some(',') {
            length += 1;
            high = number(&mut length);
        }
        (self.peek_at(length) == Some('}')).then_some((low, high, length + 1))
    }

    fn repeat(&mut self, quantifier: &str) -> Result<(), CompileError> {
        let Some(atom) = self.atom else {
            return Err(self.error("a quantifier follows nothing that it could repeat"));
        };
        if atom.wrap {
            self.out.source.insert_str(atom.start, "(?:");
            self.out.source.push(')');
        }
        self.out.source.push_str(quantifier);
        if self.eat('+') {
            self.out.needs_backtracking = true;
            self.out.source.insert_str(atom.start, "(?>");
            self.out.source.push(')');
        } else if self.eat('?') != self.flags.ungreedy {
            self.out.source.push('?');
        }
        self.atom = None;
        Ok(())
    }

    /// Writes the case flag again where an engine might have dropped or kept it otherwise.
    fn write_flags(&mut self) {
        if self.flags_used {
            self.out.source.push_str(if self.flags.caseless { "(?i)" } else { "(?-i)" });
        }
    }
}
