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

use tld_pattern::Text;

use super::draft::{Draft, Facts, Need, Node};
use super::hints::{Domain, Hints};
use super::outline::{Outline, Question};
use super::view::{Scratch, ViewId, Views};
use super::wholes::Wholes;
use crate::decoder::DecoderId;
use crate::fields::FieldId;
use crate::hash::Quick;
use crate::lexicon::{Concerns, Found, Lexicon, Needed};
use crate::literals::{Bits, LiteralSet};
use crate::rule::condition::Test;
use crate::rule::subject::Subject;
use crate::ruleset::Ruleset;
use crate::{Category, Decoded, StaticField};

/// Programs whose answers are remembered, and the longest name.
const MOST_PROGRAMS: usize = 1024;
const LONGEST_PROGRAM: usize = 64;
/// Views of all plans together, and bytes of all plans; beyond it everything is forgotten and made anew.
const MOST_VIEWS: usize = 4096;
const MOST_PLAN_BYTES: usize = 40 << 20;

/// All plans of one worker.
#[derive(Debug)]
pub(crate) struct Plans {
    /// What is known of programs: the class is the set of conditions on the program that hold.
    programs: HashMap<Box<[u8]>, u32, Quick>,
    classes: HashMap<Bits, u32, Quick>,
    /// The sets by class.
    held: Vec<Bits>,
    by_key: HashMap<Key, usize, Quick>,
    /// Plans of the same rules and conditions are one.
    by_content: HashMap<Box<[u32]>, usize, Quick>,
    plans: Vec<Plan>,
    views: usize,
    bytes: usize,
    signature: Bits,
    draft: Draft,
    scratch: Scratch,
}

impl Default for Plans {
    fn default() -> Self {
        Self {
            programs: HashMap::default(),
            classes: HashMap::default(),
            // No program fails every condition on it, so it is a class of its own.
            held: vec![Bits::default()],
            by_key: HashMap::default(),
            by_content: HashMap::default(),
            plans: Vec::new(),
            views: 0,
            bytes: 0,
            signature: Bits::default(),
            draft: Draft::default(),
            scratch: Scratch::default(),
        }
    }
}

/// What a plan depends on.
type Key = (u32, Option<DecoderId>, Category);

/// The rules that events of one kind can reach, and what is to be known of such an event.
#[derive(Debug)]
pub(super) struct Plan {
    views: Views,
    /// How many groups of literals there are, those of dynamic fields included.
    groups: usize,
    /// Dynamic fields that conditions look at: the place among `fields` by number.
    places: Box<[Option<u16>]>,
    fields: Box<[FieldSet]>,
    /// Groups by what the lexicon finds in the log, for logs that decoders had looked through.
    concerns: Concerns,
    /// Groups with a literal too short for the lexicon.
    short: LiteralSet,
    /// The literals of all groups, for other logs: fewer than those of the lexicon. Made when the first such log comes.
    literals: Option<Box<LiteralSet>>,
    /// Only views are made of it, so it lies apart.
    reach: Box<Reach>,
}

/// The rules that events of one kind can reach, with what is open of their conditions.
#[derive(Debug)]
pub(super) struct Reach {
    pub(super) groups: Box<[u32]>,
    pub(super) roots: Box<[u32]>,
    pub(super) nodes: Box<[Node]>,
    needs: Box<[Need]>,
    dynamic: Box<[u16]>,
    children: Box<[u32]>,
}

/// What conditions look for in one dynamic field.
#[derive(Debug, Default)]
struct FieldSet {
    /// Groups of literals by whole text.
    wholes: Wholes,
    /// Literals within.
    literals: LiteralSet,
}

impl FieldSet {
    /// Adds what occurs in a value, which holds no NUL.
    fn find(&self, value: &[u8], signature: &mut Bits) {
        self.wholes.find(value).iter().for_each(|group| signature.insert(*group as usize));
        self.literals.find(value, signature);
    }
}

impl Plans {
    /// Draws the outline of the rules that may match an event.
    pub(crate) fn draw(&mut self, question: &Question<'_, '_>, found: &mut Found, outline: &mut Outline) {
        if self.views >= MOST_VIEWS || self.bytes >= MOST_PLAN_BYTES {
            *self = Self::default();
        }
        let ruleset = question.ruleset;
        let place = self.place(question);
        let Self { plans, signature, views, bytes, scratch, .. } = self;
        let plan = &mut plans[place];
        let hints = &ruleset.hints;
        plan.concerns.fetch(found);
        plan.sign_fields(question.event, found.is_whole(), signature);
        if !found.is_read() {
            Plan::glance(&question.event.log, signature);
            let view = plan.view(hints, signature, views, scratch);
            if plan.views.is_worth_it(view) {
                if outline.draw(plan.views.at(view), question) {
                    return;
                }
                plan.views.note_stopped(view);
            }
            Plan::read(signature);
            *bytes += plan.look_for_all(hints);
        }
        plan.sign_log(question.event, ruleset.decoders.lexicon(), found, signature);
        let view = plan.view(hints, signature, views, scratch);
        // Nothing is left out of this view.
        let _ = outline.draw(plan.views.at(view), question);
    }

    /// Where the plan for this event is.
    fn place(&mut self, question: &Question<'_, '_>) -> usize {
        let Question { ruleset, event, .. } = *question;
        let class = self.class(ruleset, event.program_name.as_deref());
        let key = (class, event.decoder, event.category);
        if let Some(place) = self.by_key.get(&key) {
            return *place;
        }
        let name = event.decoder.map(|id| &ruleset.decoders.info(id).name);
        let decoder = name.and_then(|name| ruleset.hints.name(name));
        let facts = Facts { category: event.category, decoder, held: &self.held[class as usize] };
        self.draft.draw(ruleset, facts);
        let known = self.by_content.get(&*self.draft.content).copied();
        let place = known.unwrap_or_else(|| {
            let plan = Plan::new(&self.draft, ruleset);
            self.bytes += plan.bytes() + 4 * self.draft.content.len();
            self.by_content.insert(self.draft.content.as_slice().into(), self.plans.len());
            self.plans.push(plan);
            self.plans.len() - 1
        });
        self.by_key.insert(key, place);
        place
    }

    /// Programs of one class are the same to all rules.
    fn class(&mut self, ruleset: &Ruleset, program: Option<&[u8]>) -> u32 {
        let Some(program) = program else { return 0 };
        if let Some(class) = self.programs.get(program) {
            return *class;
        }
        let conditions = ruleset.hints.programs();
        let mut held = Bits::default();
        held.reset(conditions.len());
        for (number, condition) in conditions.iter().enumerate() {
            if holds_for(&ruleset.rules.tests[*condition as usize], program) {
                held.insert(number);
            }
        }
        let class = *self.classes.entry(held).or_insert_with_key(|held| {
            self.held.push(held.clone());
            self.held.len() as u32 - 1
        });
        if program.len() <= LONGEST_PROGRAM {
            if self.programs.len() >= MOST_PROGRAMS {
                self.programs.clear();
            }
            self.programs.insert(program.into(), class);
        }
        class
    }
}

/// Whether a condition on the program holds.
fn holds_for(test: &Test, program: &[u8]) -> bool {
    match test {
        Test::Expression { subject: Subject::Program, expression, negate } => {
            expression.is_match(program) != *negate
        }
        _ => false,
    }
}

impl Plan {
    fn new(draft: &Draft, ruleset: &Ruleset) -> Self {
        let mut places = vec![None; ruleset.decoders.fields().len()];
        for (place, field) in (0_u16..).zip(&draft.fields) {
            places[usize::from(field.0)] = Some(place);
        }
        let (mut pairs, mut short) = (Vec::new(), Vec::new());
        let (mut within, mut wholes) =
            (vec![Vec::new(); draft.fields.len()], vec![Vec::new(); draft.fields.len()]);
        for (number, group) in (0_u32..).zip(&draft.groups) {
            let group = ruleset.hints.group(*group);
            let literals = group.literals.iter().map(Vec::as_slice);
            let place = |field: FieldId| usize::from(places[usize::from(field.0)].unwrap_or_default());
            match group.domain {
                Domain::Log => match &group.needed {
                    Needed::Unknown => short.extend(literals.map(|literal| (literal, number))),
                    needed => pairs.extend(needed.literals().iter().map(|literal| (*literal, number))),
                },
                Domain::Field(field) => {
                    within[place(field)].extend(literals.map(|literal| (literal, number)));
                }
                Domain::Whole(field) => {
                    wholes[place(field)].extend(literals.map(|literal| (literal, number)));
                }
            }
        }
        let set = |(wholes, literals): (Vec<_>, &Vec<_>)| FieldSet {
            wholes: Wholes::new(wholes),
            literals: if literals.is_empty() { LiteralSet::default() } else { LiteralSet::new(literals) },
        };
        let fields = wholes.into_iter().zip(&within).map(set).collect();
        let reach = Reach {
            groups: draft.groups.as_slice().into(),
            roots: draft.roots.as_slice().into(),
            nodes: draft.nodes.as_slice().into(),
            needs: draft.needs.as_slice().into(),
            dynamic: draft.dynamic.as_slice().into(),
            children: draft.children.as_slice().into(),
        };
        Self {
            views: Views::default(),
            groups: reach.groups.len(),
            places: places.into(),
            fields,
            concerns: Concerns::new(pairs),
            short: LiteralSet::new(&short),
            literals: None,
            reach: Box::new(reach),
        }
    }

    /// Gets ready for logs that nobody looked through. Gives the bytes that this takes.
    fn look_for_all(&mut self, hints: &Hints) -> usize {
        if self.literals.is_some() {
            return 0;
        }
        let mut literals = Vec::new();
        for (number, group) in (0_u32..).zip(&self.reach.groups) {
            let group = hints.group(*group);
            if group.domain == Domain::Log {
                literals.extend(group.literals.iter().map(|literal| (literal.as_slice(), number)));
            }
        }
        self.literals.insert(Box::new(LiteralSet::new(&literals))).bytes()
    }

    /// What there is of fields: a bit for each group of literals, then one for each static field, then one that tells that
    /// not only the log was looked at, then one for each dynamic field, then the word of [`Plan::glance`].
    /// Whether the log is known to hold no NUL spares looking for one in its parts.
    fn sign_fields(&self, event: &Decoded<'_>, whole: bool, signature: &mut Bits) {
        signature.reset(dynamic_bit(self.groups, 0) + self.fields.len());
        signature.0.push(0);
        signature.insert_all(self.groups, event.present());
        for (field, value) in event.known() {
            let Some(place) = self.places.get(usize::from(field.0)).copied().flatten() else { continue };
            let bit = dynamic_bit(self.groups, place);
            // Only the first field of a name is ever looked at.
            if !signature.contains(bit) {
                signature.insert(bit);
                let set = &self.fields[usize::from(place)];
                if whole && inside(value, &event.log) {
                    set.find(value, signature);
                } else {
                    set.find(Text::new(value).bytes(), signature);
                }
            }
        }
    }

    /// Adds what occurs in the log and in static fields.
    fn sign_log(&self, event: &Decoded<'_>, lexicon: &Lexicon, found: &mut Found, signature: &mut Bits) {
        let log = &*event.log;
        let read = found.is_read();
        let literals = if read { &self.short } else { self.literals.as_deref().unwrap_or(&self.short) };
        literals.find(log, signature);
        // Expressions end at a NUL, the pass does not.
        let mut mixed = !found.is_whole() && memchr::memchr(0, log).is_some();
        for (_, value) in event.statics() {
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
    fn view(&mut self, hints: &Hints, signature: &Bits, views: &mut usize, scratch: &mut Scratch) -> ViewId {
        let Self { views: all, reach, .. } = self;
        let (view, fresh) = all.of(signature, |words| scratch.view(reach, hints, signature, words));
        *views += usize::from(fresh);
        view
    }

    /// Memory that it takes, roughly.
    fn bytes(&self) -> usize {
        let fields: usize =
            self.fields.iter().map(|field| field.literals.bytes() + field.wholes.bytes()).sum();
        self.concerns.bytes() + self.short.bytes() + fields + 4 * self.places.len() + self.reach.bytes()
    }
}

impl Reach {
    /// What is open of a rule's conditions.
    pub(super) fn needs(&self, node: &Node) -> &[Need] {
        &self.needs[node.needs.0 as usize..node.needs.1 as usize]
    }

    /// Places of the dynamic fields that a rule has to have.
    pub(super) fn dynamic(&self, node: &Node) -> &[u16] {
        &self.dynamic[node.dynamic.0 as usize..node.dynamic.1 as usize]
    }

    /// The rules below one.
    pub(super) fn children(&self, node: &Node) -> &[u32] {
        &self.children[node.children.0 as usize..node.children.1 as usize]
    }

    /// The static fields that an event with this signature has, by bit.
    pub(super) fn fixed(&self, signature: &Bits) -> u16 {
        let there = |field: &StaticField| signature.contains(self.groups.len() + *field as usize);
        StaticField::ALL.into_iter().filter(there).fold(0, |fixed, field| fixed | 1 << field as u16)
    }

    /// Whether a dynamic field is there.
    pub(super) fn has(&self, place: u16, signature: &Bits) -> bool {
        signature.contains(dynamic_bit(self.groups.len(), place))
    }

    /// Memory that it takes, roughly.
    fn bytes(&self) -> usize {
        4 * (self.groups.len() + self.roots.len() + self.children.len())
            + 2 * self.dynamic.len()
            + size_of::<Node>() * self.nodes.len()
            + size_of::<Need>() * self.needs.len()
    }
}

/// The bit that tells that a dynamic field is there, behind those of so many groups of literals.
fn dynamic_bit(groups: usize, place: u16) -> usize {
    groups + StaticField::ALL.len() + 1 + usize::from(place)
}

/// Whether a value is a part of the log, so that the pass over the log has seen it.
fn inside(value: &[u8], log: &[u8]) -> bool {
    let offset = (value.as_ptr() as usize).wrapping_sub(log.as_ptr() as usize);
    value.is_empty() || offset.checked_add(value.len()).is_some_and(|end| end <= log.len())
}
