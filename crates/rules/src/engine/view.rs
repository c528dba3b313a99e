//! The tree of rules as it is for events that hold the same: what can match of a plan, and what is still to be asked.
//!
//! Where the log was not looked through, a view is made of fields alone and ends at rules that want more. Invariant: a
//! rule that may match is in the view, or in front of it stands one at which every walk ends.

use std::collections::HashMap;

use super::plan::{Node, Plan};
use crate::StaticField;
use crate::hash::Quick;
use crate::literals::Bits;
use crate::rule::Index;

/// A view in which so many walks ended early is not tried any more.
const MOST_STOPPED: u32 = 8;

/// The tree as it is for one set of literals.
#[derive(Debug, Default)]
pub(crate) struct View {
    pub(crate) roots: Vec<u32>,
    nodes: Vec<ViewNode>,
    children: Vec<u32>,
    conditions: Vec<u16>,
    /// So many walks ended early in here.
    pub(super) stopped: u32,
}

/// A rule that may match.
#[derive(Debug, Clone, Copy)]
struct ViewNode {
    rule: u32,
    conditions: (u32, u32),
    children: (u32, u32),
    stops: bool,
}

/// What a view tells of a rule.
#[derive(Debug)]
pub(crate) struct Seen<'v> {
    pub(crate) rule: Index,
    /// Conditions still to be asked.
    pub(crate) conditions: &'v [u16],
    pub(crate) children: &'v [u32],
    /// More than this view tells has to be known if they hold.
    pub(crate) stops: bool,
}

impl View {
    /// The rules of a plan that may match where this occurs.
    pub(super) fn new(plan: &Plan, signature: &Bits) -> Self {
        let glance = Plan::glanced(signature);
        let places = HashMap::default();
        let mut building = Building { plan, signature, glance, view: Self::default(), places };
        let roots = building.place_all(&plan.roots);
        let mut view = building.view;
        view.roots = roots;
        view.children.shrink_to_fit();
        view.conditions.shrink_to_fit();
        view.nodes.shrink_to_fit();
        view
    }

    /// What is told of a rule.
    pub(crate) fn node(&self, node: u32) -> Seen<'_> {
        let ViewNode { rule, conditions, children, stops } = self.nodes[node as usize];
        let range = |(start, end): (u32, u32)| start as usize..end as usize;
        let (conditions, children) = (&self.conditions[range(conditions)], &self.children[range(children)]);
        Seen { rule: rule as Index, conditions, children, stops }
    }

    /// Whether a walk may be expected to come to its end.
    pub(super) fn is_worth_it(&self) -> bool {
        self.stopped < MOST_STOPPED
    }

    /// Whether every walk that gets to a rule ends there.
    fn surely_stops(&self, node: u32) -> bool {
        let node = &self.nodes[node as usize];
        node.stops && node.conditions.0 == node.conditions.1
    }
}

/// A view while it is made.
struct Building<'a> {
    plan: &'a Plan,
    signature: &'a Bits,
    /// What occurs in the log is not in the signature; this is its first byte.
    glance: Option<u8>,
    view: View,
    places: HashMap<u32, Option<u32>, Quick>,
}

impl Building<'_> {
    /// Those that may match, up to one that every walk ends at.
    fn place_all(&mut self, numbers: &[u32]) -> Vec<u32> {
        let mut placed = Vec::new();
        for number in numbers {
            if let Some(place) = self.place(*number) {
                placed.push(place);
                if self.view.surely_stops(place) {
                    break;
                }
            }
        }
        placed
    }

    fn place(&mut self, number: u32) -> Option<u32> {
        if let Some(known) = self.places.get(&number) {
            return *known;
        }
        let start = self.view.conditions.len() as u32;
        let Some(stops) = self.ask(&self.plan.nodes[number as usize]) else {
            self.view.conditions.truncate(start as usize);
            self.places.insert(number, None);
            return None;
        };
        let node = &self.plan.nodes[number as usize];
        let conditions = (start, self.view.conditions.len() as u32);
        let place = self.view.nodes.len() as u32;
        self.view.nodes.push(ViewNode { rule: node.rule as u32, conditions, children: (0, 0), stops });
        self.places.insert(number, Some(place));
        if !stops {
            let children = self.place_all(&node.children);
            let start = self.view.children.len() as u32;
            self.view.children.extend(children);
            self.view.nodes[place as usize].children = (start, self.view.children.len() as u32);
        }
        Some(place)
    }

    /// Adds the conditions that the signature does not decide, and tells whether it says too little; none where one of them
    /// fails.
    fn ask(&mut self, node: &Node) -> Option<bool> {
        let count = self.plan.groups;
        let lacks = |field: &StaticField| {
            node.fields >> (*field as u16) & 1 == 1 && !self.signature.contains(count + *field as usize)
        };
        let there = |place: &u16| self.signature.contains(self.plan.dynamic_bit(*place));
        if StaticField::ALL.iter().any(lacks) || !node.dynamic.iter().all(there) {
            return None;
        }
        let mixed = self.signature.contains(count + StaticField::ALL.len());
        let mut stops = false;
        for need in &node.needs {
            let occurs = need.group.is_some_and(|group| self.signature.contains(group as usize));
            let possible = match need.decided {
                _ if self.glance.is_some_and(|first| first != 0 && need.early && need.refuses(first)) => {
                    false
                }
                _ if need.group.is_some() && !need.own && self.glance.is_some() => {
                    stops = true;
                    true
                }
                // What occurs only outside the log says nothing of it; what occurs nowhere does.
                Some(inverted) if need.group.is_some() && (need.own || !mixed || !occurs) => {
                    occurs != inverted
                }
                None if need.group.is_some() && !occurs && need.early => false,
                _ => {
                    self.view.conditions.push(need.condition);
                    true
                }
            };
            if !possible {
                return None;
            }
        }
        Some(stops)
    }
}
