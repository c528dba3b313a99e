//! The tree of rules as it is for events that hold the same: what can match of a plan, and what is still to be asked.
//!
//! Where the log was not looked through, a view is made of fields alone and ends at rules that want more. Invariant: a
//! rule that may match is in the view, or in front of it stands one at which every walk ends.

use super::draft::{NOWHERE, Node, UNKNOWN, Walked};
use super::hints::Hints;
use super::plan::Plan;
use crate::StaticField;
use crate::literals::Bits;

/// A view in which so many walks ended early is not tried any more.
const MOST_STOPPED: u32 = 8;

/// The tree as it is for one set of literals.
///
/// It lies in one piece in the order of the walk, because walks of many views take turns and each place that one meets is
/// likely to be in memory only: how many roots, where they begin, and then for each rule its number, how many of its
/// conditions are open, how many rules are below it and the marks, the open conditions by their places among all, and
/// where the rules below begin.
#[derive(Debug)]
pub(crate) struct View {
    words: Box<[u32]>,
    /// So many walks ended early in here.
    pub(super) stopped: u32,
}

/// Marks of a rule, beside the number of rules below it.
const STOPS: u32 = 1;
const SEARCHES: u32 = 2;
const NOALERT: u32 = 4;
const MARKS: u32 = 3;
/// Words in front of the open conditions.
const HEAD: usize = 3;

/// Memory for making views.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    nodes: Vec<ViewNode>,
    children: Vec<u32>,
    conditions: Vec<u32>,
    /// By node of the plan its place in the view.
    places: Vec<u32>,
    /// Children of rules that are not done.
    pending: Vec<u32>,
}

/// A rule that may match.
#[derive(Debug, Clone, Copy)]
struct ViewNode {
    rule: u32,
    walked: Walked,
    conditions: (u32, u32),
    children: (u32, u32),
    stops: bool,
    /// Where it begins among the words.
    place: u32,
}

/// What a view tells of a rule.
#[derive(Debug)]
pub(crate) struct Seen<'v> {
    pub(crate) rule: u32,
    /// Conditions still to be asked.
    pub(crate) conditions: &'v [u32],
    pub(crate) children: &'v [u32],
    /// More than this view tells has to be known if they hold.
    pub(crate) stops: bool,
    pub(crate) searches: bool,
    pub(crate) noalert: bool,
}

impl View {
    /// The rules of a plan that may match where this occurs.
    pub(super) fn new(plan: &Plan, hints: &Hints, signature: &Bits, scratch: &mut Scratch) -> Self {
        scratch.nodes.clear();
        scratch.children.clear();
        scratch.conditions.clear();
        scratch.pending.clear();
        scratch.places.clear();
        scratch.places.resize(plan.nodes.len(), UNKNOWN);
        let (glance, fixed) = (Plan::glanced(signature), plan.fixed(signature));
        Building { plan, hints, signature, fixed, glance, scratch }.place_all(&plan.roots);
        Self { words: scratch.words(), stopped: 0 }
    }

    /// The rules that a walk begins with.
    pub(crate) fn roots(&self) -> &[u32] {
        self.words.split_first().and_then(|(count, rest)| rest.get(..*count as usize)).unwrap_or_default()
    }

    /// What is told of a rule.
    #[inline]
    pub(crate) fn node(&self, place: u32) -> Seen<'_> {
        let words = &self.words[place as usize..];
        let (rule, open, below) = (words[0], words[1], words[2]);
        let (conditions, rest) = words[HEAD..].split_at(open as usize);
        Seen {
            rule,
            conditions,
            children: &rest[..(below >> MARKS) as usize],
            stops: below & STOPS != 0,
            searches: below & SEARCHES != 0,
            noalert: below & NOALERT != 0,
        }
    }

    /// Whether a walk may be expected to come to its end.
    pub(super) fn is_worth_it(&self) -> bool {
        self.stopped < MOST_STOPPED
    }
}

impl Scratch {
    /// Whether every walk that gets to a rule ends there.
    fn surely_stops(&self, node: u32) -> bool {
        let node = &self.nodes[node as usize];
        node.stops && node.conditions.0 == node.conditions.1
    }

    /// All in one piece; what is pending are the roots.
    fn words(&mut self) -> Box<[u32]> {
        let mut end = 1 + self.pending.len() as u32;
        for node in &mut self.nodes {
            node.place = end;
            let parts = [node.conditions, node.children];
            end += HEAD as u32 + parts.iter().map(|(start, end)| end - start).sum::<u32>();
        }
        let mut words = Vec::with_capacity(end as usize);
        let place = |node: &u32| self.nodes[*node as usize].place;
        words.push(self.pending.len() as u32);
        words.extend(self.pending.iter().map(place));
        for node in &self.nodes {
            let range = |(start, end): (u32, u32)| start as usize..end as usize;
            let conditions = &self.conditions[range(node.conditions)];
            let children = &self.children[range(node.children)];
            let mark = |set: bool, mark: u32| if set { mark } else { 0 };
            let marks = mark(node.stops, STOPS)
                | mark(node.walked.searches, SEARCHES)
                | mark(node.walked.noalert, NOALERT);
            words.extend([node.rule, conditions.len() as u32, (children.len() as u32) << MARKS | marks]);
            words.extend(conditions);
            words.extend(children.iter().map(place));
        }
        words.into()
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
    scratch: &'a mut Scratch,
}

impl Building<'_> {
    /// Adds those that may match, up to one that every walk ends at, to what is pending. Gives where they begin there.
    fn place_all(&mut self, numbers: &[u32]) -> usize {
        let start = self.scratch.pending.len();
        for number in numbers {
            if let Some(place) = self.place(*number) {
                self.scratch.pending.push(place);
                if self.scratch.surely_stops(place) {
                    break;
                }
            }
        }
        start
    }

    fn place(&mut self, number: u32) -> Option<u32> {
        match self.scratch.places[number as usize] {
            NOWHERE => return None,
            UNKNOWN => {}
            known => return Some(known),
        }
        let plan = self.plan;
        let node = &plan.nodes[number as usize];
        let start = self.scratch.conditions.len() as u32;
        let Some(stops) = self.ask(node) else {
            self.scratch.conditions.truncate(start as usize);
            self.scratch.places[number as usize] = NOWHERE;
            return None;
        };
        let conditions = (start, self.scratch.conditions.len() as u32);
        let place = self.scratch.nodes.len() as u32;
        let Node { rule, walked, .. } = *node;
        self.scratch.nodes.push(ViewNode { rule, walked, conditions, children: (0, 0), stops, place: 0 });
        self.scratch.places[number as usize] = place;
        if !stops {
            let children = self.place_all(plan.children(node));
            let start = self.scratch.children.len() as u32;
            self.scratch.children.extend(self.scratch.pending.drain(children..));
            self.scratch.nodes[place as usize].children = (start, self.scratch.children.len() as u32);
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
                    self.scratch.conditions.push(need.condition);
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
