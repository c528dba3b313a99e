//! The tree of rules as it is for events that hold the same: what can match of a plan, and what is still to be asked.
//!
//! Where the log was not looked through, a view is made of fields alone and ends at rules that want more. Invariant: a
//! rule that may match is in the view, or in front of it stands one at which every walk ends.

use super::draft::Node;
use super::hints::Hints;
use super::plan::Plan;
use crate::StaticField;
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

/// Memory for making views.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    view: View,
    /// By node of the plan its place in the view.
    places: Vec<u32>,
    /// Children of rules that are not done.
    pending: Vec<u32>,
}

/// A node whose place is not known.
const UNKNOWN: u32 = u32::MAX;
/// It cannot match.
const NOWHERE: u32 = u32::MAX - 1;

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
    pub(super) fn new(plan: &Plan, hints: &Hints, signature: &Bits, scratch: &mut Scratch) -> Self {
        let Scratch { view, places, pending } = scratch;
        places.clear();
        places.resize(plan.nodes.len(), UNKNOWN);
        let (glance, fixed) = (Plan::glanced(signature), plan.fixed(signature));
        let mut building = Building { plan, hints, signature, fixed, glance, view, places, pending };
        let roots = building.place_all(&plan.roots);
        // Exactly as large as needed, since there may be many.
        let made = Self {
            roots: building.pending.drain(roots..).collect(),
            nodes: view.nodes.as_slice().into(),
            children: view.children.as_slice().into(),
            conditions: view.conditions.as_slice().into(),
            stopped: 0,
        };
        view.nodes.clear();
        view.children.clear();
        view.conditions.clear();
        made
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
    hints: &'a Hints,
    signature: &'a Bits,
    /// Static fields that are there, by bit.
    fixed: u16,
    /// What occurs in the log is not in the signature; this is its first byte.
    glance: Option<u8>,
    view: &'a mut View,
    places: &'a mut Vec<u32>,
    pending: &'a mut Vec<u32>,
}

impl Building<'_> {
    /// Adds those that may match, up to one that every walk ends at, to what is pending. Gives where they begin.
    fn place_all(&mut self, numbers: &[u32]) -> usize {
        let start = self.pending.len();
        for number in numbers {
            if let Some(place) = self.place(*number) {
                self.pending.push(place);
                if self.view.surely_stops(place) {
                    break;
                }
            }
        }
        start
    }

    fn place(&mut self, number: u32) -> Option<u32> {
        match self.places[number as usize] {
            NOWHERE => return None,
            UNKNOWN => {}
            known => return Some(known),
        }
        let plan = self.plan;
        let node = &plan.nodes[number as usize];
        let start = self.view.conditions.len() as u32;
        let Some(stops) = self.ask(node) else {
            self.view.conditions.truncate(start as usize);
            self.places[number as usize] = NOWHERE;
            return None;
        };
        let conditions = (start, self.view.conditions.len() as u32);
        let place = self.view.nodes.len() as u32;
        self.view.nodes.push(ViewNode { rule: node.rule, conditions, children: (0, 0), stops });
        self.places[number as usize] = place;
        if !stops {
            let children = self.place_all(plan.children(node));
            let start = self.view.children.len() as u32;
            self.view.children.extend(self.pending.drain(children..));
            self.view.nodes[place as usize].children = (start, self.view.children.len() as u32);
        }
        Some(place)
    }

    /// Adds the conditions that the signature does not decide, and tells whether it says too little; none where one of them
    /// fails.
    fn ask(&mut self, node: &Node) -> Option<bool> {
        let plan = self.plan;
        let there = |place: &u16| self.signature.contains(plan.dynamic_bit(*place));
        if node.fixed & !self.fixed != 0 || !plan.dynamic(node).iter().all(there) {
            return None;
        }
        let mixed = self.signature.contains(plan.groups.len() + StaticField::ALL.len());
        let mut stops = false;
        for need in plan.needs(node) {
            let occurs = need.group.is_some_and(|group| self.signature.contains(group as usize));
            let refused = |first: u8| first != 0 && need.early && self.hints.refuses(need.begins, first);
            let possible = match need.decided {
                _ if self.glance.is_some_and(refused) => false,
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
