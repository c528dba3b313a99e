//! Which rules an event can reach at all, so that a walk meets a handful of the thousands in the tree.
//!
//! Two steps, both remembered. A [`Plan`] leaves out what the event's decoder, type and program rule out; events
//! without number share one. One pass over the log then tells which literals of the plan's conditions occur; a
//! [`View`] is the tree for one such outcome: rules that lack a necessary literal or field are gone, and conditions
//! that the outcome decides are not asked again.
//! Most events are won by a rule that stands before all that look for text in the log. So where the log was not looked
//! through yet, a first view tells only of fields, and ends at rules that want more. A walk that gets there is made
//! again with a view of everything.
//! Invariant: walking a view has the same winner and the same effects as walking the whole tree. A rule is left out
//! only for a condition without memory that stands before every condition with one, so no effect is lost.

use std::collections::HashMap;

use tld_pattern::Expression;

use super::outline::{Outline, Question};
use super::view::View;
use crate::decoder::DecoderId;
use crate::fields::FieldId;
use crate::hash::Quick;
use crate::lexicon::{Concerns, Found, Lexicon, Needed};
use crate::literals::{Bits, LiteralSet};
use crate::rule::condition::{Condition, Test};
use crate::rule::subject::Subject;
use crate::rule::{Index, Rules};
use crate::ruleset::Ruleset;
use crate::{Category, Decoded, StaticField};

/// Literals below this length stand in too many lines to be worth a view each, and are not in the lexicon.
const SHORTEST: usize = 5;
/// Longer whole texts are not looked up.
const LONGEST_WHOLE: usize = 64;
/// More literals of one condition than this are not looked for.
const MOST_LITERALS: usize = 256;
/// Programs whose answers are remembered, and the longest name.
const MOST_PROGRAMS: usize = 1024;
const LONGEST_PROGRAM: usize = 64;
/// Views of all plans together, and bytes of all plans; beyond it everything is forgotten and made anew.
const MOST_VIEWS: usize = 4096;
const MOST_PLAN_BYTES: usize = 40 << 20;

/// All plans of one worker.
#[derive(Debug, Default)]
pub(crate) struct Plans {
    /// Rules' conditions on the program, and what is known of programs: the class is the set that holds.
    program_conditions: Option<Vec<(Index, usize)>>,
    programs: HashMap<Box<[u8]>, u32, Quick>,
    classes: HashMap<Bits, u32, Quick>,
    by_key: HashMap<Key, usize, Quick>,
    /// Plans of the same rules and conditions are one.
    by_content: HashMap<Vec<(Index, Vec<u16>)>, usize, Quick>,
    plans: Vec<Plan>,
    views: usize,
    bytes: usize,
    signature: Bits,
}

/// What a plan depends on.
type Key = (u32, Option<DecoderId>, Category);

/// The rules that events of one kind can reach.
#[derive(Debug)]
pub(super) struct Plan {
    /// Groups by what the lexicon finds in the log, for logs that decoders had looked through.
    concerns: Concerns,
    /// Groups with a literal too short for the lexicon.
    short: LiteralSet,
    /// The literals of all groups, for other logs: fewer than those of the lexicon.
    literals: LiteralSet,
    /// Groups of literals, those of dynamic fields included.
    pub(super) groups: usize,
    /// Dynamic fields that conditions look at: the place among `fields` by number.
    places: Vec<Option<u16>>,
    fields: Vec<FieldSet>,
    pub(super) roots: Vec<u32>,
    pub(super) nodes: Vec<Node>,
    by_signature: HashMap<Box<[u64]>, usize, Quick>,
    views: Vec<View>,
}

/// A rule of a plan.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) rule: Index,
    pub(super) needs: Vec<Need>,
    /// Static fields without which some condition fails.
    pub(super) fields: u16,
    /// The same for dynamic fields, by place.
    pub(super) dynamic: Vec<u16>,
    pub(super) children: Vec<u32>,
}

/// A condition that the plan did not decide.
#[derive(Debug)]
pub(super) struct Need {
    pub(super) condition: u16,
    /// It can prune: everything before it is without memory.
    pub(super) early: bool,
    /// The group of literals of which one must occur; none: unknown.
    pub(super) group: Option<u32>,
    /// The literals alone decide it, inverted or not.
    pub(super) decided: Option<bool>,
    /// The literals are those of one dynamic field, so what occurs elsewhere does not matter.
    pub(super) own: bool,
    /// The bytes that a log may begin with, unless it is empty.
    pub(super) begins: Option<Box<[u64; 4]>>,
}

impl Need {
    /// Whether a log that begins with this byte cannot do.
    pub(super) fn refuses(&self, first: u8) -> bool {
        let begins = self.begins.as_ref();
        begins.is_some_and(|begins| begins[usize::from(first >> 6)] >> (first & 63) & 1 == 0)
    }
}

/// What conditions look for in one dynamic field.
#[derive(Debug, Default)]
struct FieldSet {
    /// Groups of literals by whole text in lower case.
    wholes: HashMap<Box<[u8]>, Vec<u32>, Quick>,
    /// Literals within.
    literals: LiteralSet,
}

impl FieldSet {
    fn find(&self, value: &[u8], signature: &mut Bits) {
        let value = &value[..memchr::memchr(0, value).unwrap_or(value.len())];
        if !self.wholes.is_empty() && value.len() <= LONGEST_WHOLE {
            let mut folded = [0; LONGEST_WHOLE];
            let folded = &mut folded[..value.len()];
            folded.copy_from_slice(value);
            folded.make_ascii_lowercase();
            if let Some(groups) = self.wholes.get(&*folded) {
                groups.iter().for_each(|group| signature.insert(*group as usize));
            }
        }
        self.literals.find(value, signature);
    }
}

impl Plans {
    /// Draws the outline of the rules that may match an event.
    pub(crate) fn draw(
        &mut self,
        ruleset: &Ruleset,
        question: &Question<'_, '_>,
        found: &mut Found,
        outline: &mut Outline,
    ) {
        if self.views >= MOST_VIEWS || self.bytes >= MOST_PLAN_BYTES {
            *self = Self::default();
        }
        let place = self.place(ruleset, question);
        let Self { plans, signature, views, .. } = self;
        let plan = &mut plans[place];
        plan.sign_fields(question.event, signature);
        if !found.is_read() {
            Plan::glance(&question.event.log, signature);
            let view = plan.view(signature, views);
            if view.is_worth_it() {
                if outline.draw(view, question) {
                    return;
                }
                view.stopped += 1;
            }
            Plan::read(signature);
        }
        plan.sign_log(question.event, ruleset.decoders.lexicon(), found, signature);
        // Nothing is left out of this view.
        let _ = outline.draw(plan.view(signature, views), question);
    }

    /// Where the plan for this event is.
    fn place(&mut self, ruleset: &Ruleset, question: &Question<'_, '_>) -> usize {
        let event = question.event;
        let class = self.class(ruleset, event.program_name.as_deref());
        let key = (class, event.decoder, event.category);
        if let Some(place) = self.by_key.get(&key) {
            return *place;
        }
        let program = event.program_name.as_deref();
        let facts = Facts { decoder: question.decoder.map(|info| info.name.as_str()), program };
        let draft = Draft::new(ruleset, event.category, &facts);
        let plans = &mut self.plans;
        let bytes = &mut self.bytes;
        let place = *self.by_content.entry(draft.content()).or_insert_with(|| {
            let plan = draft.plan();
            *bytes += plan.bytes();
            plans.push(plan);
            plans.len() - 1
        });
        self.by_key.insert(key, place);
        place
    }

    /// Programs of one class are the same to all rules.
    fn class(&mut self, ruleset: &Ruleset, program: Option<&[u8]>) -> u32 {
        // No program fails every condition on it, so it is a class of its own.
        let Some(program) = program else { return 0 };
        if let Some(class) = self.programs.get(program) {
            return *class;
        }
        let conditions = self.program_conditions.get_or_insert_with(|| program_conditions(ruleset));
        let mut held = Bits::default();
        held.reset(conditions.len());
        for (number, (rule, condition)) in conditions.iter().enumerate() {
            let condition = &ruleset.rules.all[*rule].conditions[*condition];
            if on_program(condition)
                .is_some_and(|(expression, negate)| expression.is_match(program) != negate)
            {
                held.insert(number);
            }
        }
        let fresh = self.classes.len() as u32 + 1;
        let class = *self.classes.entry(held).or_insert(fresh);
        if program.len() <= LONGEST_PROGRAM {
            if self.programs.len() >= MOST_PROGRAMS {
                self.programs.clear();
            }
            self.programs.insert(program.into(), class);
        }
        class
    }
}

fn program_conditions(ruleset: &Ruleset) -> Vec<(Index, usize)> {
    let rules = ruleset.rules.all.iter().enumerate();
    rules
        .flat_map(|(index, rule)| {
            let conditions = rule.conditions.iter().enumerate();
            conditions.filter(|(_, c)| on_program(c).is_some()).map(move |(place, _)| (index, place))
        })
        .collect()
}

fn on_program(condition: &Condition) -> Option<(&Expression, bool)> {
    match &condition.test {
        Test::Expression { subject: Subject::Program, expression, negate } => Some((expression, *negate)),
        _ => None,
    }
}

/// What a plan knows of its events.
struct Facts<'a> {
    decoder: Option<&'a str>,
    program: Option<&'a [u8]>,
}

impl Facts<'_> {
    /// The answer of a condition, where it is the same for all events of the plan.
    fn decide(&self, condition: &Condition) -> Option<bool> {
        if let Test::DecodedAs(name) = &condition.test {
            return Some(self.decoder == Some(name));
        }
        let (expression, negate) = on_program(condition)?;
        Some(self.program.is_some_and(|program| expression.is_match(program) != negate))
    }
}

/// A plan while it is made.
struct Draft<'a> {
    ruleset: &'a Ruleset,
    facts: &'a Facts<'a>,
    roots: Vec<u32>,
    nodes: Vec<Node>,
    /// Where a rule stands in the plan, or that it is not in it.
    places: HashMap<Index, Option<u32>>,
    /// Sets of literals that some condition needs one of, by number.
    groups: HashMap<(Domain, Vec<Vec<u8>>), u32>,
    /// Dynamic fields by place.
    fields: Vec<FieldId>,
}

/// Where literals are looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Domain {
    /// The log and static fields, in one pass.
    Log,
    /// Within the dynamic field of this place.
    Field(u16),
    /// The whole of it.
    Whole(u16),
}

impl Plan {
    /// What there is of fields: a bit for each group of literals, then one for each static field, then one that tells that
    /// not only the log was looked at, then one for each dynamic field, then the word of [`Plan::glance`].
    fn sign_fields(&self, event: &Decoded<'_>, signature: &mut Bits) {
        let count = self.groups;
        signature.reset(self.dynamic_bit(0) + self.fields.len());
        signature.0.push(0);
        for field in StaticField::ALL {
            if event.field(field).is_some() {
                signature.insert(count + field as usize);
            }
        }
        for (field, value) in event.known() {
            let Some(place) = self.places.get(usize::from(field.0)).copied().flatten() else { continue };
            let bit = self.dynamic_bit(place);
            // Only the first field of a name is ever looked at.
            if !signature.contains(bit) {
                signature.insert(bit);
                self.fields[usize::from(place)].find(value, signature);
            }
        }
    }

    /// Adds what occurs in the log and in static fields.
    fn sign_log(&self, event: &Decoded<'_>, lexicon: &Lexicon, found: &mut Found, signature: &mut Bits) {
        let log = &*event.log;
        let read = found.is_read();
        let literals = if read { &self.short } else { &self.literals };
        literals.find(log, signature);
        // Expressions end at a NUL, the pass does not.
        let mut mixed = memchr::memchr(0, log).is_some();
        for value in StaticField::ALL.into_iter().filter_map(|field| event.field(field)) {
            if !inside(value, log) {
                mixed = true;
                literals.find(value, signature);
                if read {
                    lexicon.find(value, found);
                }
            }
        }
        if read {
            self.concerns.collect(found, signature);
        }
        if mixed {
            signature.insert(self.groups + StaticField::ALL.len());
        }
    }

    /// Says that of the log no more is known than its first byte.
    fn glance(log: &[u8], signature: &mut Bits) {
        if let Some(word) = signature.0.last_mut() {
            *word = 1 << 8 | u64::from(log.first().copied().unwrap_or(0));
        }
    }

    /// Takes that back.
    fn read(signature: &mut Bits) {
        if let Some(word) = signature.0.last_mut() {
            *word = 0;
        }
    }

    /// The log's first byte if nothing else is known of it; a NUL if it is empty for expressions.
    pub(super) fn glanced(signature: &Bits) -> Option<u8> {
        signature.0.last().filter(|word| **word != 0).map(|word| *word as u8)
    }

    /// The view for what there is.
    fn view(&mut self, signature: &Bits, views: &mut usize) -> &mut View {
        let view = match self.by_signature.get(&*signature.0) {
            Some(view) => *view,
            None => {
                let view = View::new(self, signature);
                self.views.push(view);
                *views += 1;
                self.by_signature.insert(signature.0.as_slice().into(), self.views.len() - 1);
                self.views.len() - 1
            }
        };
        &mut self.views[view]
    }

    /// The bit that tells that a dynamic field is there.
    pub(super) fn dynamic_bit(&self, place: u16) -> usize {
        self.groups + StaticField::ALL.len() + 1 + usize::from(place)
    }

    /// Memory that it takes, roughly.
    fn bytes(&self) -> usize {
        let fields: usize =
            self.fields.iter().map(|field| field.literals.bytes() + 128 * field.wholes.len()).sum();
        self.concerns.bytes()
            + self.short.bytes()
            + self.literals.bytes()
            + fields
            + 4 * self.places.len()
            + 256 * self.nodes.len()
    }
}

/// Whether a value is a part of the log, so that the pass over the log has seen it.
fn inside(value: &[u8], log: &[u8]) -> bool {
    let offset = (value.as_ptr() as usize).wrapping_sub(log.as_ptr() as usize);
    value.is_empty() || offset.checked_add(value.len()).is_some_and(|end| end <= log.len())
}

impl<'a> Draft<'a> {
    fn new(ruleset: &'a Ruleset, category: Category, facts: &'a Facts<'a>) -> Self {
        let mut draft = Self {
            ruleset,
            facts,
            roots: Vec::new(),
            nodes: Vec::new(),
            places: HashMap::new(),
            groups: HashMap::new(),
            fields: Vec::new(),
        };
        let roots = ruleset.rules.roots.iter().copied();
        let roots = roots.filter(|root| ruleset.rules.all[*root].category == category);
        draft.roots = roots.filter_map(|root| draft.place(root)).collect();
        draft
    }

    /// All that the plan depends on: which rules are in it, and which of their conditions are open.
    fn content(&self) -> Vec<(Index, Vec<u16>)> {
        let open = |node: &Node| node.needs.iter().map(|need| need.condition).collect();
        self.nodes.iter().map(|node| (node.rule, open(node))).collect()
    }

    fn plan(self) -> Plan {
        let groups = self.groups.len();
        let lexicon = self.ruleset.decoders.lexicon();
        let (mut pairs, mut short, mut log) = (Vec::new(), Vec::new(), Vec::new());
        let mut within = vec![Vec::new(); self.fields.len()];
        let mut fields: Vec<FieldSet> =
            std::iter::repeat_with(FieldSet::default).take(self.fields.len()).collect();
        for ((domain, literals), number) in self.groups {
            if domain == Domain::Log {
                match lexicon.needed(&literals) {
                    Needed::Unknown => short.extend(literals.iter().map(|literal| (literal.clone(), number))),
                    needed => pairs.extend(needed.literals().iter().map(|literal| (*literal, number))),
                }
            }
            let numbered = literals.into_iter().map(|literal| (literal, number));
            match domain {
                Domain::Log => log.extend(numbered),
                Domain::Field(place) => within[usize::from(place)].extend(numbered),
                Domain::Whole(place) => {
                    let wholes = &mut fields[usize::from(place)].wholes;
                    numbered.for_each(|(text, number)| wholes.entry(text.into()).or_default().push(number));
                }
            }
        }
        for (field, literals) in fields.iter_mut().zip(&within) {
            field.literals = LiteralSet::new(literals);
        }
        let mut places = vec![None; self.ruleset.decoders.fields().len()];
        for (place, field) in (0_u16..).zip(&self.fields) {
            places[usize::from(field.0)] = Some(place);
        }
        Plan {
            concerns: Concerns::new(pairs),
            short: LiteralSet::new(&short),
            literals: LiteralSet::new(&log),
            groups,
            places,
            fields,
            roots: self.roots,
            nodes: self.nodes,
            by_signature: HashMap::default(),
            views: Vec::new(),
        }
    }

    /// Puts a rule and what is below it into the plan, unless one of its conditions can never hold.
    fn place(&mut self, index: Index) -> Option<u32> {
        if let Some(known) = self.places.get(&index) {
            return *known;
        }
        let rule = &self.ruleset.rules.all[index];
        let mut node =
            Node { rule: index, needs: Vec::new(), fields: 0, dynamic: Vec::new(), children: Vec::new() };
        let mut early = true;
        for (number, condition) in (0_u16..).zip(&rule.conditions) {
            early &= !matches!(condition.test, Test::Difference | Test::FirstTime);
            match self.facts.decide(condition) {
                Some(false) if early => {
                    self.places.insert(index, None);
                    return None;
                }
                Some(true) => {}
                _ => {
                    let need = self.need(number, early, &condition.test);
                    node.needs.push(need);
                    if let Some(field) = required_field(&condition.test).filter(|_| early) {
                        node.fields |= 1 << field as u16;
                    }
                    let dynamic = condition.test.dynamic_field().filter(|_| early);
                    node.dynamic.extend(dynamic.and_then(|name| self.field(name)));
                }
            }
        }
        // A plan holds as many rules as the ruleset at most.
        let place = self.nodes.len() as u32;
        self.nodes.push(node);
        self.places.insert(index, Some(place));
        let children: Vec<u32> = rule.place.children.iter().filter_map(|child| self.place(*child)).collect();
        self.nodes[place as usize].children = children;
        Some(place)
    }

    fn need(&mut self, condition: u16, early: bool, test: &Test) -> Need {
        let mut nothing = Need { condition, early, group: None, decided: None, own: false, begins: None };
        let Test::Expression { subject, expression, negate } = test else { return nothing };
        if !early {
            return nothing;
        }
        if let Subject::Dynamic(name) = subject {
            return self
                .field(name)
                .map_or(nothing, |place| self.field_need(condition, place, expression, *negate));
        }
        nothing.begins = begins(subject, expression, *negate);
        let Some((literals, decided)) = log_group(subject, expression, *negate) else { return nothing };
        let group = Some(self.number(Domain::Log, literals));
        Need { group, decided, ..nothing }
    }

    /// What one dynamic field has to hold; that it is there at all is asked for apart.
    fn field_need(&mut self, condition: u16, place: u16, expression: &Expression, negate: bool) -> Need {
        let need = |group, decided| Need { condition, early: true, group, decided, own: true, begins: None };
        let wholes = expression.wholes();
        if let Some((texts, decides)) =
            wholes.filter(|(texts, _)| texts.iter().all(|t| t.len() <= LONGEST_WHOLE))
            && (decides || !negate)
        {
            let group = self.number(Domain::Whole(place), texts);
            return need(Some(group), decides.then_some(negate));
        }
        let good = |literals: &[Vec<u8>]| {
            (1..=MOST_LITERALS).contains(&literals.len())
                && literals.iter().all(|literal| !literal.is_empty())
        };
        if let Some((literals, inverted)) = expression.occurrences().filter(|(literals, _)| good(literals)) {
            let group = self.number(Domain::Field(place), literals);
            return need(Some(group), Some(inverted != negate));
        }
        let literals = expression.required_literals();
        if negate || !good(&literals) {
            return need(None, None);
        }
        need(Some(self.number(Domain::Field(place), literals)), None)
    }

    /// The place of a dynamic field.
    fn field(&mut self, name: &str) -> Option<u16> {
        let field = self.ruleset.decoders.fields().find(name.as_bytes())?;
        let place = self.fields.iter().position(|known| *known == field).unwrap_or_else(|| {
            self.fields.push(field);
            self.fields.len() - 1
        });
        u16::try_from(place).ok()
    }

    fn number(&mut self, domain: Domain, mut group: Vec<Vec<u8>>) -> u32 {
        group.sort();
        group.dedup();
        let fresh = self.groups.len() as u32;
        *self.groups.entry((domain, group)).or_insert(fresh)
    }
}

/// What rules look for in logs and static fields.
pub(crate) fn log_literals(rules: &Rules) -> Vec<Vec<u8>> {
    let conditions = rules.all.iter().flat_map(|rule| &rule.conditions);
    let groups = conditions.filter_map(|condition| match &condition.test {
        Test::Expression { subject, expression, negate } => log_group(subject, expression, *negate),
        _ => None,
    });
    groups.flat_map(|(literals, _)| literals).collect()
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

/// The bytes that a log may begin with for a condition to hold, if it is bound to the log's beginning.
fn begins(subject: &Subject, expression: &Expression, negate: bool) -> Option<Box<[u64; 4]>> {
    if !matches!(subject, Subject::Log) || negate {
        return None;
    }
    let beginning = expression.beginning();
    let mut bytes = Box::new([0; 4]);
    for byte in 1..=u8::MAX {
        bytes[usize::from(byte >> 6)] |= u64::from(beginning.allows(0, byte)) << (byte & 63);
    }
    (!beginning.is_empty()).then_some(bytes)
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
