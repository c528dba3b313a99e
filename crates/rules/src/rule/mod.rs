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

use std::sync::Arc;

use tld_model::{RuleId, RuleTexts};

pub(crate) use load::load;

use crate::Category;
use crate::alert::Constant;
use condition::Condition;
use correlation::{Correlation, Target};
use subject::Subject;

/// What the rest of the product may know about a rule.
#[derive(Debug, Clone)]
pub struct RuleInfo {
    /// Number.
    pub id: RuleId,
    /// 0–16.
    pub level: u8,
    /// Raw group string, a comma list.
    pub groups: Arc<str>,
    /// Description before expansion.
    pub description: Vec<u8>,
    /// Alerts of this rule are written.
    pub log: bool,
    /// Alerts of this rule ask for e-mail.
    pub mail: bool,
    /// The rule forbids responses.
    pub no_ar: bool,
    /// The rule only passes events on to its children.
    pub noalert: bool,
    /// `frequency` as alerts show it; only for rules that search earlier events.
    pub frequency: Option<u32>,
    /// Seconds that a search reaches back.
    pub timeframe: u32,
    /// Seconds of the `ignore` window.
    pub ignore: Option<u32>,
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

/// A rule as the engine runs it.
#[derive(Debug)]
pub(crate) struct Rule {
    pub(crate) info: RuleInfo,
    /// Sort key while loading: level × 100, 9900 for level 0, without the factor for `accuracy="0"`.
    pub(crate) key: u32,
    /// Same text, same hash: decides whether state survives a reload.
    pub(crate) hash: u64,
    pub(crate) category: Category,
    pub(crate) conditions: Vec<Condition>,
    /// Whether the text in force has an `if_matched_*`.
    pub(crate) correlated: bool,
    pub(crate) correlation: Correlation,
    /// The window holds per value of these; empty: for the rule as a whole.
    pub(crate) ignore_by: Vec<Subject>,
    pub(crate) ignore_line: Option<IgnoreLine>,
    pub(crate) no_full_log: bool,
    pub(crate) no_counter: bool,
    pub(crate) shown: Shown,
    /// The unchanging bytes of its alerts, made when the rule has its place.
    pub(crate) constant: Constant,
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
            conditions: Vec::new(),
            correlated: false,
            correlation: Correlation::default(),
            ignore_by: Vec::new(),
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
        self.conditions.shrink_to_fit();
        self.info.description.shrink_to_fit();
        self.info.parents.shrink_to_fit();
        self.place.children.shrink_to_fit();
        self.place.feeds.shrink_to_fit();
    }

    /// Dynamic fields that its conditions look at.
    pub(crate) fn dynamic_fields(&self) -> impl Iterator<Item = &str> {
        self.conditions.iter().filter_map(|condition| condition.test.dynamic_field())
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
    /// The lists that its events enter, worked out when all rules are there.
    pub(crate) feeds: Vec<(ListId, u32)>,
}

/// A rule as read, before it has a place.
#[derive(Debug)]
pub(crate) struct Draft {
    pub(crate) rule: Rule,
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
    pub(crate) roots: Vec<Index>,
    pub(crate) by_id: std::collections::HashMap<RuleId, Index>,
    /// How many lists of remembered events the rules need.
    pub(crate) lists: usize,
}

impl Rules {
    /// The lists that events of this rule enter, and how often.
    pub(crate) fn feeds(&self, winner: Index) -> &[(ListId, u32)] {
        self.all.get(winner).map_or(&[], |rule| &rule.place.feeds)
    }
}
