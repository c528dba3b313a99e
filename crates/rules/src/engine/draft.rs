//! A plan while it is made: the rules that events of one kind can reach, and which of their conditions are open.
//!
//! The memory stays from one draft to the next, and most drafts turn out to be a plan that is known already. Invariant:
//! drafts of the same content make the same plan.

use super::hints::{Common, Domain, Hint};
use crate::fields::FieldId;
use crate::literals::Bits;
use crate::rule::{Index, Rule};
use crate::ruleset::Ruleset;
use crate::{Category, StaticField};

/// What a plan knows of its events.
#[derive(Debug, Clone, Copy)]
pub(super) struct Facts<'a> {
    pub(super) category: Category,
    /// The number of the decoder's name.
    pub(super) decoder: Option<u32>,
    /// The conditions on the program that hold.
    pub(super) held: &'a Bits,
}

impl Facts<'_> {
    /// The answer of a condition, where it is the same for all events of the plan.
    fn decide(&self, common: Common) -> Option<bool> {
        match common {
            Common::Nothing => None,
            Common::Decoder(name) => Some(self.decoder == Some(name)),
            Common::Program(number) => Some(self.held.contains(number as usize)),
        }
    }
}

/// A rule of a plan. Ranges are places in the plan's own lists.
#[derive(Debug, Clone, Copy)]
pub(super) struct Node {
    pub(super) rule: u32,
    pub(super) needs: (u32, u32),
    /// Dynamic fields without which some condition fails, by place.
    pub(super) dynamic: (u32, u32),
    pub(super) children: (u32, u32),
    /// The same for static fields, by bit.
    pub(super) fixed: u16,
    pub(super) walked: Walked,
}

/// What a walk asks of every rule that it meets, kept beside the way so that most rules themselves are not looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Walked {
    /// See [`Rule::searches`].
    pub(super) searches: bool,
    pub(super) noalert: bool,
}

impl Walked {
    fn new(rule: &Rule) -> Self {
        Self { searches: rule.searches(), noalert: rule.info.noalert }
    }
}

/// A condition that the plan did not decide.
#[derive(Debug, Clone, Copy)]
pub(super) struct Need {
    /// Its place among all.
    pub(super) condition: u32,
    /// It can prune: everything before it is without memory.
    pub(super) early: bool,
    /// The literals are those of one dynamic field, so what occurs elsewhere does not matter.
    pub(super) own: bool,
    /// The literals alone decide it, inverted or not.
    pub(super) decided: Option<bool>,
    /// The group of literals of which one must occur; none: unknown.
    pub(super) group: Option<u32>,
    /// What the log must begin with, unless it is empty.
    pub(super) begins: Option<u32>,
}

/// The place of a rule that was not looked at.
pub(super) const UNKNOWN: u32 = u32::MAX;
/// The place of one that is left out.
pub(super) const NOWHERE: u32 = u32::MAX - 1;
/// No number or place yet.
const NONE: u32 = u32::MAX;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Draft {
    pub(super) roots: Vec<u32>,
    pub(super) nodes: Vec<Node>,
    pub(super) needs: Vec<Need>,
    pub(super) dynamic: Vec<u16>,
    pub(super) children: Vec<u32>,
    /// Groups of literals that some condition needs one of, in the order of their numbers in the plan.
    pub(super) groups: Vec<u32>,
    /// Dynamic fields by place.
    pub(super) fields: Vec<FieldId>,
    /// All that the plan depends on: the rules in it, each with its open conditions.
    pub(super) content: Vec<u32>,
    /// By rule its place among the nodes.
    places: Vec<u32>,
    /// By group its number in the plan, by field its place.
    numbers: Vec<u32>,
    field_places: Vec<u32>,
    /// Children of rules that are not done.
    pending: Vec<u32>,
}

impl Draft {
    /// Begins anew with the rules that events with these facts can reach.
    pub(super) fn draw(&mut self, ruleset: &Ruleset, facts: Facts<'_>) {
        let hints = &ruleset.hints;
        self.roots.clear();
        self.nodes.clear();
        self.needs.clear();
        self.dynamic.clear();
        self.children.clear();
        self.content.clear();
        self.groups.drain(..).for_each(|group| self.numbers[group as usize] = NONE);
        self.fields.drain(..).for_each(|field| self.field_places[usize::from(field.0)] = NONE);
        self.numbers.resize(hints.groups(), NONE);
        self.field_places.resize(ruleset.decoders.fields().len(), NONE);
        self.places.clear();
        self.places.resize(ruleset.rules.all.len(), UNKNOWN);
        for root in &ruleset.rules.roots {
            if ruleset.rules.all[*root].category == facts.category {
                let place = self.place(ruleset, facts, *root);
                self.roots.extend(place);
            }
        }
    }

    /// Puts a rule and what is below it into the plan, unless one of its conditions can never hold.
    fn place(&mut self, ruleset: &Ruleset, facts: Facts<'_>, index: Index) -> Option<u32> {
        match self.places[index] {
            NOWHERE => return None,
            UNKNOWN => {}
            known => return Some(known),
        }
        let hints = ruleset.hints.of(ruleset.rules.conditions(index));
        let early = hints.iter().position(|hint| hint.remembers).unwrap_or(hints.len());
        if hints[..early].iter().any(|hint| facts.decide(hint.common) == Some(false)) {
            self.places[index] = NOWHERE;
            return None;
        }
        // A plan holds as many rules as the ruleset at most.
        let place = self.nodes.len() as u32;
        self.places[index] = place;
        let node = self.node(ruleset, index, hints, early, facts);
        self.nodes.push(node);
        let pending = self.pending.len();
        for child in &ruleset.rules.all[index].place.children {
            let child = self.place(ruleset, facts, *child);
            self.pending.extend(child);
        }
        let start = self.children.len() as u32;
        self.children.extend(self.pending.drain(pending..));
        self.nodes[place as usize].children = (start, self.children.len() as u32);
        Some(place)
    }

    /// A rule with what is open of its conditions, the first few of which are without memory.
    fn node(&mut self, ruleset: &Ruleset, rule: Index, own: &[Hint], early: usize, facts: Facts<'_>) -> Node {
        let hints = &ruleset.hints;
        let (needs, dynamic) = (self.needs.len() as u32, self.dynamic.len() as u32);
        let mut fixed = 0;
        self.content.push(rule as u32);
        let (first, _) = ruleset.rules.all[rule].tests;
        let early = first + early as u32;
        for (condition, hint) in (first..).zip(own) {
            if facts.decide(hint.common) == Some(true) {
                continue;
            }
            // The highest bit tells it from a rule's number.
            self.content.push(1 << 31 | condition);
            let early = condition < early;
            let mut need = Need { condition, early, own: false, decided: None, group: None, begins: None };
            if early {
                need.own = hint.group.is_some_and(|group| hints.group(group).domain != Domain::Log);
                need.decided = hint.decided;
                need.group = hint.group.map(|group| self.number(group));
                need.begins = hint.begins;
                fixed |= hint.fixed.map_or(0, |field: StaticField| 1 << field as u16);
                let place = hint.dynamic.map(|field| self.field(field));
                self.dynamic.extend(place);
            }
            self.needs.push(need);
        }
        Node {
            rule: rule as u32,
            needs: (needs, self.needs.len() as u32),
            dynamic: (dynamic, self.dynamic.len() as u32),
            children: (0, 0),
            fixed,
            walked: Walked::new(&ruleset.rules.all[rule]),
        }
    }

    /// The number of a group of literals in the plan.
    fn number(&mut self, group: u32) -> u32 {
        let known = &mut self.numbers[group as usize];
        if *known == NONE {
            *known = self.groups.len() as u32;
            self.groups.push(group);
        }
        *known
    }

    /// The place of a dynamic field, of which there are as many as a number of a field can count.
    fn field(&mut self, field: FieldId) -> u16 {
        let known = &mut self.field_places[usize::from(field.0)];
        if *known == NONE {
            *known = self.fields.len() as u32;
            self.fields.push(field);
        }
        *known as u16
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tld_xml::Source;

    use super::*;
    use crate::Options;

    const DECODERS: &str = r#"
        <decoder name="one"><program_name>^one$</program_name></decoder>
        <decoder name="two"><program_name>^two$</program_name></decoder>"#;
    const RULES: &str = r#"<group name="g,">
        <rule id="1" level="0"><category>syslog</category><description>root</description></rule>
        <rule id="10" level="3"><if_sid>1</if_sid><decoded_as>one</decoded_as><match>first word</match><description>d</description></rule>
        <rule id="11" level="3"><if_sid>1, 10</if_sid><program_name>^two</program_name><field name="colour">^red$</field><description>d</description></rule>
        <rule id="12" level="3"><if_sid>11</if_sid><srcip>192.0.2.0/24</srcip><field name="size">^12</field><description>d</description></rule>
        </group>"#;

    fn ruleset() -> Arc<Ruleset> {
        let source = |name: &str, text: &str| [Source::new(name, text.as_bytes())];
        let (decoders, rules) = (source("d.xml", DECODERS), source("r.xml", RULES));
        Ruleset::load(&decoders, &rules, &[], &Options::default()).ruleset.expect("good texts")
    }

    #[test]
    fn a_draft_in_used_memory_is_the_one_in_fresh_memory() {
        let ruleset = ruleset();
        let all = |held: bool| {
            let mut bits = Bits::default();
            bits.reset(ruleset.hints.programs().len());
            (0..ruleset.hints.programs().len()).filter(|_| held).for_each(|number| bits.insert(number));
            bits
        };
        let (none, both) = (all(false), all(true));
        let mut used = Draft::default();
        let mut sizes = Vec::new();
        for (decoder, held) in
            [("one", &both), ("two", &both), ("one", &none), ("two", &none), ("one", &both)]
        {
            let facts = Facts { category: Category::Syslog, decoder: ruleset.hints.name(decoder), held };
            let mut fresh = Draft::default();
            fresh.draw(&ruleset, facts);
            used.draw(&ruleset, facts);
            let said = |draft: &Draft| {
                let Draft { roots, nodes, needs, dynamic, children, groups, fields, content, .. } = draft;
                format!(
                    "{roots:?} {nodes:?} {needs:?} {dynamic:?} {children:?} {groups:?} {fields:?} {content:?}"
                )
            };
            assert_eq!(said(&used), said(&fresh));
            sizes.push((used.nodes.len(), used.fields.len(), used.groups.len()));
        }
        // The rule with the word; that below it and what is below that: two fields, whose texts are two groups.
        assert_eq!(sizes, [(4, 2, 3), (3, 2, 2), (2, 0, 1), (1, 0, 0), (4, 2, 3)]);
    }
}
