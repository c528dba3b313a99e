//! What is left of the tree for one event once everything is decided that needs no memory: usually a path of a few
//! rules, on which only first-time, difference and earlier events remain to be asked.
//!
//! Making an outline changes nothing, so any thread may do it for any event; walking it belongs to whoever remembers.
//! Invariant: walking an outline has the winner and the effects of walking the view it was made from.

use super::view::{Seen, View};
use crate::Decoded;
use crate::ahead;
use crate::rule::condition::Moment;
use crate::ruleset::Ruleset;

/// The rules that may still match, parents before children.
#[derive(Debug, Default)]
pub(crate) struct Outline {
    pub(super) rules: Vec<Open>,
}

/// A rule whose conditions hold as far as they are without memory.
#[derive(Debug, Clone, Copy)]
pub(super) struct Open {
    pub(super) rule: u32,
    /// What is still to be asked of it, so that most rules need not be looked at.
    pub(super) left: Left,
    /// It only passes events on.
    pub(super) noalert: bool,
    /// The place behind the last rule below this one.
    pub(super) end: u32,
}

/// What memory has to answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Left {
    /// Nothing.
    Nothing,
    /// Nothing but the search for earlier events.
    Search,
    /// Conditions from that place among all on, and perhaps a search.
    Conditions(u32),
}

/// What conditions without memory look at.
#[derive(Debug)]
pub(crate) struct Question<'a, 'e> {
    pub(crate) ruleset: &'a Ruleset,
    pub(crate) event: &'a Decoded<'e>,
    pub(crate) moment: &'a Moment<'a>,
}

impl Question<'_, '_> {
    /// What a condition says of the event; none if it has a memory.
    fn ask(&self, condition: u32) -> Option<bool> {
        let Ruleset { rules, decoders, .. } = self.ruleset;
        rules.tests[condition as usize].holds(self.event, decoders, self.moment)
    }
}

impl Outline {
    /// Forgets all rules and keeps their memory.
    pub(crate) fn clear(&mut self) {
        self.rules.clear();
    }

    /// Goes through a view for an event, up to the first rule that wins whatever is remembered. False where the view does
    /// not tell enough for that: then nothing is known.
    pub(crate) fn draw(&mut self, view: View<'_>, question: &Question<'_, '_>) -> bool {
        self.rules.clear();
        let stopped = self.enter_all(view, view.roots(), question) == Course::Stopped;
        if stopped {
            self.rules.clear();
        }
        !stopped
    }

    fn enter_all(&mut self, view: View<'_>, nodes: &[u32], question: &Question<'_, '_>) -> Course {
        let courses = nodes.iter().map(|node| self.enter(view, *node, question));
        courses.into_iter().find(|course| *course != Course::On).unwrap_or(Course::On)
    }

    fn enter(&mut self, view: View<'_>, node: u32, question: &Question<'_, '_>) -> Course {
        let Seen { rule, conditions, children, stops, searches, noalert } = view.node(node);
        // It may win, and then all that is told of it is asked for.
        let rules = &question.ruleset.rules;
        ahead::fetch(&rules.all[rule as usize]);
        ahead::fetch(&rules.all[rule as usize].info);
        if let Some(condition) = conditions.first() {
            ahead::fetch(&rules.tests[*condition as usize]);
        }
        let mut left = if searches { Left::Search } else { Left::Nothing };
        for condition in conditions {
            match question.ask(*condition) {
                Some(true) => {}
                Some(false) => return Course::On,
                None => {
                    left = Left::Conditions(*condition);
                    break;
                }
            }
        }
        if stops {
            return Course::Stopped;
        }
        let sure = left == Left::Nothing;
        let place = self.rules.len();
        self.rules.push(Open { rule, left, noalert, end: 0 });
        let within = self.enter_all(view, children, question);
        // An outline has as many rules as the tree has places at most, and these are numbers of 32 bits.
        self.rules[place].end = self.rules.len() as u32;
        match within {
            Course::Stopped => Course::Stopped,
            Course::Sure if sure => Course::Sure,
            _ if sure && !noalert => Course::Sure,
            _ => Course::On,
        }
    }
}

/// How a walk goes on behind a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Course {
    /// With the next one.
    On,
    /// Not at all: this rule or one below it is sure to win.
    Sure,
    /// Not in this view: the rule's answer depends on what it does not tell.
    Stopped,
}
