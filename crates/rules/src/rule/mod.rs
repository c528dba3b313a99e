//! Rules: what a file says about them, and how they hang together (analysis-rules 1, 2, 6).
//!
//! `read` turns one element into a [`Rule`], `tree` places it. All occurrences of a rule in the contract's tree have
//! the same children, because a child is attached below every occurrence and no occurrence appears later; so the
//! tree is kept as a graph with one node per rule, and `occurrences` remembers how often it stands in the tree.

mod attribute;
pub(crate) mod condition;
pub(crate) mod correlation;
mod load;
mod mitre;
mod read;
pub(crate) mod subject;
mod time;
mod tree;

use std::ops::Range;
use std::sync::Arc;

use tld_model::{RuleId, RuleTexts};

pub(crate) use load::load;

use crate::Category;
use crate::alert::Constant;
use crate::fields::FieldNames;
use condition::{Condition, Label, Test};
use correlation::{Correlation, Target};
use subject::Subject;

/// What the rest of the product may know about a rule. In this order, so that what every alert asks for stands in front.
#[derive(Debug, Clone)]
#[repr(C)]
pub struct RuleInfo {
    /// Number.
    pub id: RuleId,
    /// 0–16.
    pub level: u8,
    /// Alerts of this rule are written.
    pub log: bool,
    /// Alerts of this rule ask for e-mail.
    pub mail: bool,
    /// The rule forbids responses.
    pub no_ar: bool,
    /// The rule only passes events on to its children.
    pub noalert: bool,
    /// Seconds of the `ignore` window.
    pub ignore: Option<u32>,
    /// Description before expansion.
    pub description: Vec<u8>,
    /// `frequency` as alerts show it; only for rules that search earlier events.
    pub frequency: Option<u32>,
    /// Seconds that a search reaches back.
    pub timeframe: u32,
    /// Raw group string, a comma list.
    pub groups: Arc<str>,
    /// Rules that this one was placed below; empty for a root.
    pub parents: Vec<RuleId>,
    /// File of the text in force (of the overwriting rule, if any).
    pub file: Arc<str>,
    /// Line of that text.
    pub line: u32,
}

/// A place in [`crate::Ruleset`]'s table of rules.
pub(crate) type Index = usize;
/// A place in the table of remembered events' lists.
pub(crate) type ListId = usize;

/// A rule as the engine runs it. In this order, so that what every alert asks of its rule, which most likely is in no
/// cache, stands in two neighbouring lines of one.
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct Rule {
    /// The unchanging bytes of its alerts, made when the rule has its place.
    pub(crate) constant: Constant,
    /// Which of all feeds are its own.
    pub(crate) feeds: (u32, u32),
    pub(crate) ignore_line: Option<Box<IgnoreLine>>,
    pub(crate) no_full_log: bool,
    pub(crate) no_counter: bool,
    /// Whether the text in force has an `if_matched_*`.
    pub(crate) correlated: bool,
    pub(crate) info: RuleInfo,
    /// Where its conditions begin and end among all.
    pub(crate) tests: (u32, u32),
    /// Sort key while loading: level × 100, 9900 for level 0, without the factor for `accuracy="0"`.
    pub(crate) key: u32,
    /// Same text, same hash: decides whether state survives a reload.
    pub(crate) hash: u64,
    pub(crate) category: Category,
    pub(crate) correlation: Correlation,
    /// The window holds per value of these; empty: for the rule as a whole.
    pub(crate) ignore_by: Vec<Subject>,
    pub(crate) shown: Shown,
    pub(crate) place: Place,
}

impl Rule {
    /// A rule without conditions, text or place.
    pub(crate) fn own(info: RuleInfo) -> Self {
        Self {
            info,
            key: 0,
            hash: 0,
            category: Category::default(),
            tests: (0, 0),
            correlated: false,
            correlation: Correlation::default(),
            ignore_by: Vec::new(),
            feeds: (0, 0),
            ignore_line: None,
            no_full_log: false,
            no_counter: false,
            shown: Shown::default(),
            constant: Constant::default(),
            place: Place::default(),
        }
    }

    /// What its alerts carry along.
    pub(crate) fn texts(&self) -> RuleTexts {
        let RuleInfo { description, groups, .. } = &self.info;
        RuleTexts { description: description.clone(), groups: groups.as_ref().to_owned() }
    }

    /// Gives up memory that only reading it took: thousands of rules stay for as long as the program runs.
    fn shrink(&mut self) {
        self.info.description.shrink_to_fit();
        self.info.parents.shrink_to_fit();
        self.place.children.shrink_to_fit();
    }

    /// Whether the rule looks for earlier events. A rule that became composite by being overwritten has nothing to
    /// look in and matches without a search (analysis-rules 6).
    pub(crate) fn searches(&self) -> bool {
        self.correlated && self.place.target.is_some()
    }

    /// Whether it looks in all remembered events.
    pub(crate) fn searches_everything(&self) -> bool {
        self.searches() && matches!(self.place.target, Some(Target::Everything(_)))
    }
}

/// What an alert shows of a rule besides its info.
#[derive(Debug, Default)]
pub(crate) struct Shown {
    pub(crate) mitre: mitre::Mitre,
    pub(crate) cve: Vec<u8>,
    pub(crate) info: Vec<u8>,
}

/// What `ignore` writes down after a rule wins.
#[derive(Debug, Default)]
pub(crate) struct IgnoreLine {
    pub(crate) names: Vec<Box<str>>,
}

/// Where a rule stands; kept when its text is overwritten.
#[derive(Debug, Default)]
pub(crate) struct Place {
    /// In order of evaluation; a rule may stand here more than once.
    pub(crate) children: Vec<Index>,
    pub(crate) occurrences: u32,
    pub(crate) target: Option<Target>,
    /// Events that this rule won, if an `if_matched_sid` asks for them.
    pub(crate) history: Option<ListId>,
    /// Lists of `if_matched_group` rules that its group fits, and how many times each takes one event.
    pub(crate) groups: Vec<(ListId, u32)>,
}

/// A rule as read, before it has a place.
#[derive(Debug)]
pub(crate) struct Draft {
    pub(crate) rule: Rule,
    /// In the order of evaluation.
    pub(crate) conditions: Vec<Condition>,
    pub(crate) wanted: Wanted,
}

/// What a rule says about its place.
#[derive(Debug, Default)]
pub(crate) struct Wanted {
    pub(crate) sids: Option<Vec<u32>>,
    pub(crate) level: Option<u32>,
    pub(crate) group: Option<String>,
    pub(crate) matched_sid: Option<u32>,
    pub(crate) matched_group: Option<Vec<u8>>,
    pub(crate) matched_regex: Option<tld_pattern::OsRegex>,
}

/// All rules, with their roots.
#[derive(Debug, Default)]
pub(crate) struct Rules {
    pub(crate) all: Vec<Rule>,
    /// The conditions of all of them, one rule's behind the other's, apart from what only a failure tells of them.
    pub(crate) tests: Vec<Test>,
    pub(crate) labels: Vec<Label>,
    /// The lists that events of rules enter, and how many times each takes one, one rule's behind the other's.
    feeds: Vec<(ListId, u32)>,
    pub(crate) roots: Vec<Index>,
    pub(crate) by_id: std::collections::HashMap<RuleId, Index>,
    /// How many lists of remembered events the rules need.
    pub(crate) lists: usize,
}

impl Rules {
    /// Takes in the conditions of the rules, in their order.
    fn set_conditions(&mut self, conditions: impl Iterator<Item = Vec<Condition>>) {
        for (rule, conditions) in self.all.iter_mut().zip(conditions) {
            let start = self.tests.len() as u32;
            for Condition { label, test, .. } in conditions {
                self.labels.push(label);
                self.tests.push(test);
            }
            rule.tests = (start, self.tests.len() as u32);
        }
        self.tests.shrink_to_fit();
        self.labels.shrink_to_fit();
    }

    /// Where the conditions of a rule stand, in their order.
    pub(crate) fn conditions(&self, rule: Index) -> Range<usize> {
        let (start, end) = self.all[rule].tests;
        start as usize..end as usize
    }

    /// Dynamic fields that conditions look at.
    pub(crate) fn dynamic_fields(&self) -> impl Iterator<Item = &str> {
        self.tests.iter().filter_map(Test::dynamic_field)
    }

    /// Learns the numbers of those fields.
    pub(crate) fn look_up(&mut self, fields: &FieldNames) {
        self.tests.iter_mut().for_each(|test| test.look_up(fields));
    }

    /// The lists that events of this rule enter, and how often.
    pub(crate) fn feeds(&self, winner: Index) -> &[(ListId, u32)] {
        let (start, end) = self.all.get(winner).map_or((0, 0), |rule| rule.feeds);
        &self.feeds[start as usize..end as usize]
    }
}
