//! What every condition tells of the events that it may hold for, worked out once when rules are loaded.
//!
//! A worker makes a plan for each kind of event that it meets. What a plan takes from an expression (its literals, what a
//! log must begin with) is the same in all of them, so that here it is asked once. Invariant: a hint never rules out an
//! event for which its condition holds.

use std::collections::HashMap;
use std::ops::Range;

use tld_pattern::Expression;

use super::wholes::LONGEST;
use crate::StaticField;
use crate::fields::{FieldId, FieldNames};
use crate::hash::Quick;
use crate::lexicon::{Lexicon, Needed};
use crate::rule::Rules;
use crate::rule::condition::Test;
use crate::rule::subject::Subject;

/// Literals below this length stand in too many lines to be worth a view each, and are not in the lexicon.
const SHORTEST: usize = 5;
/// More literals of one condition than this are not looked for.
const MOST_LITERALS: usize = 256;

/// The hints of all rules.
#[derive(Debug, Default)]
pub(crate) struct Hints {
    /// In the order of the conditions.
    all: Box<[Hint]>,
    groups: Box<[Group]>,
    /// Sets of bytes that a log may begin with.
    beginnings: Box<[[u64; 4]]>,
    /// The conditions on the program.
    programs: Box<[u32]>,
    /// Decoders' names that rules ask for.
    names: HashMap<Box<str>, u32, Quick>,
}

/// What one condition tells.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Hint {
    pub(super) common: Common,
    /// It has a memory.
    pub(super) remembers: bool,
    /// The group of literals of which one must occur; none: unknown.
    pub(super) group: Option<u32>,
    /// The literals alone decide it, inverted or not.
    pub(super) decided: Option<bool>,
    /// What the log must begin with, unless it is empty.
    pub(super) begins: Option<u32>,
    /// The static field without which it fails.
    pub(super) fixed: Option<StaticField>,
    /// The dynamic field without which it fails.
    pub(super) dynamic: Option<FieldId>,
}

/// What a condition's answer depends on, if it is the same for all events of a plan.
#[derive(Debug, Clone, Copy, Default)]
pub(super) enum Common {
    #[default]
    Nothing,
    /// Whether the event's decoder has this name.
    Decoder(u32),
    /// What this condition on the program answers.
    Program(u32),
}

/// Literals of which one must occur somewhere.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) domain: Domain,
    /// In lower case.
    pub(super) literals: Vec<Vec<u8>>,
    /// What of the lexicon they are; unknown outside the log.
    pub(super) needed: Needed,
}

/// Where literals are looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Domain {
    /// The log and static fields, in one pass.
    Log,
    /// Within a dynamic field.
    Field(FieldId),
    /// The whole of it.
    Whole(FieldId),
}

impl Hints {
    /// Of these rules. What is in the lexicon is told later, since that is made of these literals.
    pub(crate) fn new(rules: &Rules, fields: &FieldNames) -> Self {
        let mut making = Making::new(fields);
        (0..).zip(&rules.tests).for_each(|(number, test)| making.add(test, number));
        Self {
            all: making.all.into(),
            groups: making.groups.into(),
            beginnings: making.beginnings.into(),
            programs: making.programs.into(),
            names: making.names,
        }
    }

    /// What rules look for in logs and static fields.
    pub(crate) fn log_literals(&self) -> Vec<Vec<u8>> {
        let groups = self.groups.iter().filter(|group| group.domain == Domain::Log);
        groups.flat_map(|group| group.literals.iter().cloned()).collect()
    }

    /// Learns which of the literals are in the lexicon.
    pub(crate) fn look_up(&mut self, lexicon: &Lexicon) {
        for group in self.groups.iter_mut().filter(|group| group.domain == Domain::Log) {
            group.needed = lexicon.needed(&group.literals);
        }
    }

    /// The hints of some conditions.
    pub(super) fn of(&self, conditions: Range<usize>) -> &[Hint] {
        &self.all[conditions]
    }

    /// A group by its number.
    pub(super) fn group(&self, number: u32) -> &Group {
        &self.groups[number as usize]
    }

    /// How many groups there are.
    pub(super) fn groups(&self) -> usize {
        self.groups.len()
    }

    /// The conditions on the program in the order of their numbers.
    pub(super) fn programs(&self) -> &[u32] {
        &self.programs
    }

    /// The number of a decoder's name, if some rule asks for it.
    pub(super) fn name(&self, name: &str) -> Option<u32> {
        self.names.get(name).copied()
    }

    /// Whether what a log must begin with rules out this byte.
    pub(super) fn refuses(&self, begins: Option<u32>, first: u8) -> bool {
        begins.is_some_and(|set| {
            self.beginnings[set as usize][usize::from(first >> 6)] >> (first & 63) & 1 == 0
        })
    }
}

/// Hints while they are made.
struct Making<'a> {
    fields: &'a FieldNames,
    all: Vec<Hint>,
    groups: Vec<Group>,
    numbers: HashMap<(Domain, Vec<Vec<u8>>), u32>,
    beginnings: Vec<[u64; 4]>,
    programs: Vec<u32>,
    names: HashMap<Box<str>, u32, Quick>,
}

impl<'a> Making<'a> {
    fn new(fields: &'a FieldNames) -> Self {
        Self {
            fields,
            all: Vec::new(),
            groups: Vec::new(),
            numbers: HashMap::new(),
            beginnings: Vec::new(),
            programs: Vec::new(),
            names: HashMap::default(),
        }
    }

    fn add(&mut self, test: &Test, number: u32) {
        let mut hint = Hint {
            remembers: matches!(test, Test::Difference | Test::FirstTime),
            fixed: required_field(test),
            dynamic: test.dynamic_field().and_then(|name| self.fields.find(name.as_bytes())),
            ..Hint::default()
        };
        match test {
            Test::DecodedAs(name) => {
                let fresh = self.names.len() as u32;
                hint.common = Common::Decoder(*self.names.entry(name.clone()).or_insert(fresh));
            }
            Test::Expression { subject: Subject::Program, .. } => {
                hint.common = Common::Program(self.programs.len() as u32);
                self.programs.push(number);
            }
            Test::Expression { subject: Subject::Dynamic(..), expression, negate } => {
                if let Some(field) = hint.dynamic {
                    self.within_field(&mut hint, field, expression, *negate);
                }
            }
            Test::Expression { subject, expression, negate } => {
                hint.begins = self.begins(subject, expression, *negate);
                if let Some((literals, decided)) = log_group(subject, expression, *negate) {
                    hint.group = Some(self.number(Domain::Log, literals));
                    hint.decided = decided;
                }
            }
            _ => {}
        }
        self.all.push(hint);
    }

    /// What one dynamic field has to hold; that it is there at all is asked for apart.
    fn within_field(&mut self, hint: &mut Hint, field: FieldId, expression: &Expression, negate: bool) {
        let short = |texts: &[Vec<u8>]| texts.iter().all(|text| text.len() <= LONGEST);
        let good = |literals: &[Vec<u8>]| {
            (1..=MOST_LITERALS).contains(&literals.len())
                && literals.iter().all(|literal| !literal.is_empty())
        };
        if let Some((texts, decides)) = expression.wholes().filter(|(texts, _)| short(texts))
            && (decides || !negate)
        {
            hint.group = Some(self.number(Domain::Whole(field), texts));
            hint.decided = decides.then_some(negate);
        } else if let Some((literals, inverted)) = expression.occurrences().filter(|(found, _)| good(found)) {
            hint.group = Some(self.number(Domain::Field(field), literals));
            hint.decided = Some(inverted != negate);
        } else if !negate {
            let literals = expression.required_literals();
            hint.group = good(&literals).then(|| self.number(Domain::Field(field), literals));
        }
    }

    /// What a log must begin with for a condition to hold, if it is bound to the log's beginning.
    fn begins(&mut self, subject: &Subject, expression: &Expression, negate: bool) -> Option<u32> {
        if !matches!(subject, Subject::Log) || negate {
            return None;
        }
        let beginning = expression.beginning();
        if beginning.is_empty() {
            return None;
        }
        let mut bytes = [0; 4];
        for byte in 1..=u8::MAX {
            bytes[usize::from(byte >> 6)] |= u64::from(beginning.allows(0, byte)) << (byte & 63);
        }
        let known = self.beginnings.iter().position(|known| *known == bytes);
        Some(known.unwrap_or_else(|| {
            self.beginnings.push(bytes);
            self.beginnings.len() - 1
        }) as u32)
    }

    fn number(&mut self, domain: Domain, mut literals: Vec<Vec<u8>>) -> u32 {
        literals.sort();
        literals.dedup();
        let fresh = self.groups.len() as u32;
        *self.numbers.entry((domain, literals)).or_insert_with_key(|(_, literals)| {
            self.groups.push(Group { domain, literals: literals.clone(), needed: Needed::Unknown });
            fresh
        })
    }
}

/// Literals of which one must occur in the log or a static field for a condition to hold, and whether that is all it asks,
/// inverted or not.
fn log_group(
    subject: &Subject,
    expression: &Expression,
    negate: bool,
) -> Option<(Vec<Vec<u8>>, Option<bool>)> {
    let worth = |literals: &[Vec<u8>]| {
        (1..=MOST_LITERALS).contains(&literals.len())
            && literals.iter().all(|literal| literal.len() >= SHORTEST)
    };
    if matches!(subject, Subject::Log)
        && let Some((literals, inverted)) = expression.occurrences()
        && worth(&literals)
    {
        return Some((literals, Some(inverted != negate)));
    }
    let searched =
        matches!(subject, Subject::Log | Subject::Static(_) | Subject::DstOrSrcUser | Subject::SrcOrDstUser);
    if negate || !searched {
        return None;
    }
    let literals = expression.required_literals();
    worth(&literals).then_some((literals, None))
}

/// The static field without which a condition fails.
fn required_field(test: &Test) -> Option<StaticField> {
    match test {
        Test::Expression { subject: Subject::Static(field), .. } | Test::Network { field, .. } => {
            Some(*field)
        }
        Test::List(list) => match &list.subject {
            Subject::Static(field) => Some(*field),
            _ => None,
        },
        _ => None,
    }
}
