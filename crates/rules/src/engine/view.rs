//! The tree of rules as it is for events that hold the same: what can match of a plan, and what is still to be asked.
//!
//! Where the log was not looked through, a view is made of fields alone and ends at rules that want more. Invariant: a
//! rule that may match is in the view, or in front of it stands one at which every walk ends.

use super::draft::{NOWHERE, Node, UNKNOWN, Walked};
use super::hints::Hints;
use super::plan::{Plan, Reach};
use crate::StaticField;
use crate::hash::{FACTOR, Quick, fold};
use crate::literals::Bits;

/// A view in which so many walks ended early is not tried any more.
const MOST_STOPPED: u32 = 8;

/// The tree as it is for one set of literals.
///
/// It lies in one piece in the order of the walk, because walks of many views take turns and each place that one meets is
/// likely to be in memory only: how many roots, where they begin, and then for each rule its number, how many of its
/// conditions are open, how many rules are below it and the marks, the open conditions by their places among all, and
/// where the rules below begin.
#[derive(Debug, Clone, Copy)]
pub(crate) struct View<'v> {
    words: &'v [u32],
}

/// The views of a plan.
#[derive(Debug, Default)]
pub(super) struct Views {
    /// A power of two of them, most of them vacant.
    slots: Vec<Slot>,
    /// One view behind the other, each behind the signature that it is for and a count of the walks that ended early.
    words: Vec<u32>,
    count: usize,
    quick: Quick,
}

/// Where a view is.
#[derive(Debug, Clone, Copy)]
struct Slot {
    hash: u32,
    start: u32,
}

/// No view.
const VACANT: Slot = Slot { hash: 0, start: u32::MAX };

/// A view among those of its plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ViewId {
    /// Where it begins, behind the count.
    start: usize,
}

impl Views {
    /// The view for a signature, made if there is none yet, which is told.
    pub(super) fn of(&mut self, signature: &Bits, make: impl FnOnce(&mut Vec<u32>)) -> (ViewId, bool) {
        if self.count * 2 >= self.slots.len() {
            self.grow();
        }
        let (hash, count) = self.hash(signature);
        let mask = self.slots.len() - 1;
        let mut at = hash as usize & mask;
        while self.slots[at].start != VACANT.start {
            let slot = self.slots[at];
            if slot.hash == hash
                && let Some(start) = self.behind(signature, count, slot.start as usize)
            {
                return (ViewId { start }, false);
            }
            at = (at + 1) & mask;
        }
        // All views together have far fewer words.
        self.slots[at] = Slot { hash, start: self.words.len() as u32 };
        self.count += 1;
        self.words.push(count);
        self.words.extend(members(signature).flatten());
        self.words.push(0);
        let start = self.words.len();
        make(&mut self.words);
        (ViewId { start }, true)
    }

    /// Where the view begins whose signature is here, if it is this one, which has so many members.
    fn behind(&self, signature: &Bits, count: u32, start: usize) -> Option<usize> {
        let (known, rest) = self.words[start..].split_first()?;
        let (members, _) = rest.as_chunks::<3>();
        let members = &members[..*known as usize];
        let differ = |[number, low, high]: &[u32; 3]| {
            let own = signature.0.get(*number as usize).copied().unwrap_or_default();
            own ^ (u64::from(*high) << 32 | u64::from(*low))
        };
        let differences = members.iter().fold(0, |all, member| all | differ(member));
        (*known == count && differences == 0).then_some(start + 1 + 3 * members.len() + 1)
    }

    /// The view itself.
    pub(super) fn at(&self, id: ViewId) -> View<'_> {
        View { words: &self.words[id.start..] }
    }

    /// Whether a walk may be expected to come to its end.
    pub(super) fn is_worth_it(&self, id: ViewId) -> bool {
        self.words[id.start - 1] < MOST_STOPPED
    }

    /// A walk ended early.
    pub(super) fn note_stopped(&mut self, id: ViewId) {
        self.words[id.start - 1] += 1;
    }

    /// The hash of a signature and how many members it has. No word waits for the one before, and whether it is empty, which
    /// nobody can foresee, is not asked.
    fn hash(&self, signature: &Bits) -> (u32, u32) {
        let [mut key, factor] = self.quick.secret();
        let (mut hash, mut count) = (0_u64, 0);
        for word in &signature.0 {
            hash = hash.wrapping_add(fold(key ^ word, factor));
            key = key.wrapping_add(FACTOR);
            count += u32::from(*word != 0);
        }
        (hash as u32, count)
    }

    fn grow(&mut self) {
        let slots = vec![VACANT; (2 * self.slots.len()).max(4)];
        let mask = slots.len() - 1;
        for slot in std::mem::replace(&mut self.slots, slots) {
            if slot.start != VACANT.start {
                let mut at = slot.hash as usize & mask;
                while self.slots[at].start != VACANT.start {
                    at = (at + 1) & mask;
                }
                self.slots[at] = slot;
            }
        }
    }
}

/// What tells a signature, most words of which are empty: the others, each in halves behind its number.
fn members(signature: &Bits) -> impl Iterator<Item = [u32; 3]> {
    let words = (0..).zip(&signature.0).filter(|(_, word)| **word != 0);
    words.map(|(number, word)| [number, *word as u32, (word >> 32) as u32])
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

impl<'v> View<'v> {
    /// The rules that a walk begins with.
    pub(crate) fn roots(self) -> &'v [u32] {
        self.words.split_first().and_then(|(count, rest)| rest.get(..*count as usize)).unwrap_or_default()
    }

    /// What is told of a rule.
    #[inline]
    pub(crate) fn node(self, place: u32) -> Seen<'v> {
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
}

impl Scratch {
    /// Makes the view of the rules of a plan that may match where this occurs, and appends it.
    pub(super) fn view(&mut self, reach: &Reach, hints: &Hints, signature: &Bits, words: &mut Vec<u32>) {
        self.nodes.clear();
        self.children.clear();
        self.conditions.clear();
        self.pending.clear();
        self.places.clear();
        self.places.resize(reach.nodes.len(), UNKNOWN);
        let (glance, fixed) = (Plan::glanced(signature), reach.fixed(signature));
        Building { reach, hints, signature, fixed, glance, scratch: self }.place_all(&reach.roots);
        self.append(words);
    }

    /// Whether every walk that gets to a rule ends there.
    fn surely_stops(&self, node: u32) -> bool {
        let node = &self.nodes[node as usize];
        node.stops && node.conditions.0 == node.conditions.1
    }

    /// Appends all in one piece; what is pending are the roots.
    fn append(&mut self, words: &mut Vec<u32>) {
        let mut end = 1 + self.pending.len() as u32;
        for node in &mut self.nodes {
            node.place = end;
            let parts = [node.conditions, node.children];
            end += HEAD as u32 + parts.iter().map(|(start, end)| end - start).sum::<u32>();
        }
        words.reserve(end as usize);
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
    }
}

/// A view while it is made.
struct Building<'a> {
    reach: &'a Reach,
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
        let reach = self.reach;
        let node = &reach.nodes[number as usize];
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
            let children = self.place_all(reach.children(node));
            let start = self.scratch.children.len() as u32;
            self.scratch.children.extend(self.scratch.pending.drain(children..));
            self.scratch.nodes[place as usize].children = (start, self.scratch.children.len() as u32);
        }
        Some(place)
    }

    /// Adds the conditions that the signature does not decide, and tells whether it says too little; none where one of them
    /// fails.
    fn ask(&mut self, node: &Node) -> Option<bool> {
        let reach = self.reach;
        let there = |place: &u16| reach.has(*place, self.signature);
        if node.fixed & !self.fixed != 0 || !reach.dynamic(node).iter().all(there) {
            return None;
        }
        let mixed = self.signature.contains(reach.groups.len() + StaticField::ALL.len());
        let mut stops = false;
        for need in reach.needs(node) {
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

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_signature_gets_its_own_view_and_no_other_one(
            signatures in proptest::collection::vec(proptest::collection::vec(0_u64..3, 3), 0..60),
        ) {
            let mut views = Views::default();
            let mut known = HashMap::new();
            for signature in signatures {
                let (id, fresh) = views.of(&Bits(signature.clone()), |words| {
                    words.extend([2, 10 + known.len() as u32, 11 + known.len() as u32]);
                });
                prop_assert_eq!(fresh, !known.contains_key(&signature));
                let next = 10 + known.len() as u32;
                let first = *known.entry(signature).or_insert(next);
                prop_assert_eq!(views.at(id).roots(), [first, first + 1]);
                prop_assert!(views.is_worth_it(id));
            }
        }
    }

    #[test]
    fn a_view_in_which_walks_end_early_is_given_up() {
        let mut views = Views::default();
        let (first, _) = views.of(&Bits(vec![1]), |words| words.push(0));
        let (other, _) = views.of(&Bits(vec![2]), |words| words.push(0));
        (0..MOST_STOPPED).for_each(|_| views.note_stopped(first));
        assert!(!views.is_worth_it(first) && views.is_worth_it(other));
    }
}
