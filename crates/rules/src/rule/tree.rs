//! Puts rules into the tree (analysis-rules 2) and rewrites them in place (section 6).

use std::collections::HashMap;

use tld_model::RuleId;
use tld_pattern::{GroupPattern, OsMatch};

use super::condition::Condition;
use super::correlation::Target;
use super::{Draft, Index, ListId, Rule, Rules};
use crate::alert::Constant;

/// Rules below this number are roots.
const FIRST_CHILD: u32 = 10;
/// A deeper chain of rules is refused: evaluation descends by recursion.
const DEEPEST: u32 = 512;

/// What happened to a rule.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Placed {
    Done,
    /// Placed below some parents, these do not exist.
    Missing(Vec<u32>),
    /// No parent exists.
    Orphan(Vec<u32>),
    /// No rule fits its group, level or category.
    Nowhere,
    TooDeep,
}

/// The rules while they are loaded.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    pub(crate) rules: Rules,
    /// By rule.
    conditions: Vec<Vec<Condition>>,
    depth: Vec<u32>,
    /// Lists of `if_matched_group` rules by rule.
    own: HashMap<Index, ListId>,
}

impl Tree {
    /// Gives a new rule its place.
    pub(crate) fn add(&mut self, draft: Draft) -> Placed {
        let Draft { mut rule, conditions, mut wanted } = draft;
        let id = rule.info.id;
        let group = wanted.matched_group.as_deref().map(|text| String::from_utf8_lossy(text).into_owned());
        if wanted.sids.is_none() && wanted.group.is_none() {
            wanted.sids = wanted.matched_sid.map(|sid| vec![sid]);
            wanted.group = if wanted.sids.is_none() { group } else { None };
        }
        let mut missing = Vec::new();
        let mut twice = 0_u32;
        let parents: Vec<Index> = if id.0 < FIRST_CHILD {
            Vec::new()
        } else if let Some(sids) = &wanted.sids {
            let mut parents = Vec::new();
            for sid in sids {
                match self.rules.by_id.get(&RuleId(*sid)) {
                    Some(parent) => parents.push(*parent),
                    // The rule stands in the tree by now, so that it hangs below itself too: the same winner, but
                    // each of its places counts once more.
                    None if *sid == id.0 && !parents.is_empty() => twice += 1,
                    None => missing.push(*sid),
                }
            }
            if parents.is_empty() || (!missing.is_empty() && wanted.matched_sid.is_some()) {
                return Placed::Orphan(missing);
            }
            parents
        } else if let Some(level) = wanted.level {
            self.matching(|rule| rule.key >= level.saturating_mul(100))
        } else if let Some(group) = &wanted.group {
            let pattern = GroupPattern::new(group);
            self.matching(|rule| pattern.matches(&rule.info.groups))
        } else {
            let fits = |root: &&Index| self.rules.all[**root].category == rule.category;
            self.rules.roots.iter().find(fits).copied().into_iter().collect()
        };
        if parents.is_empty() && id.0 >= FIRST_CHILD {
            return Placed::Nowhere;
        }
        let depth = parents.iter().map(|parent| self.depth[*parent] + 1).max().unwrap_or(0);
        if depth > DEEPEST {
            return Placed::TooDeep;
        }
        if wanted.sids.is_some()
            && let Some(last) = parents.last()
        {
            rule.category = self.rules.all[*last].category;
        }
        let index = self.rules.all.len();
        let key = rule.key;
        rule.place.occurrences = if parents.is_empty() { 1 } else { 0 };
        for parent in &parents {
            let more = self.rules.all[*parent].place.occurrences;
            rule.place.occurrences = rule.place.occurrences.saturating_add(more);
            if !rule.info.parents.contains(&self.rules.all[*parent].info.id) {
                let parent_id = self.rules.all[*parent].info.id;
                rule.info.parents.push(parent_id);
            }
        }
        rule.place.occurrences = rule.place.occurrences.saturating_mul(1_u32 << twice.min(16));
        self.rules.all.push(rule);
        self.conditions.push(conditions);
        self.rules.by_id.insert(id, index);
        self.depth.push(depth);
        if parents.is_empty() {
            let mut roots = std::mem::take(&mut self.rules.roots);
            self.insert(&mut roots, index, key);
            self.rules.roots = roots;
        }
        for parent in parents {
            let mut children = std::mem::take(&mut self.rules.all[parent].place.children);
            self.insert(&mut children, index, key);
            self.rules.all[parent].place.children = children;
        }
        self.aim(index, wanted.matched_sid, wanted.matched_group.as_deref(), wanted.matched_regex);
        if missing.is_empty() { Placed::Done } else { Placed::Missing(missing) }
    }

    fn matching(&self, fits: impl Fn(&Rule) -> bool) -> Vec<Index> {
        (0..self.rules.all.len()).filter(|index| fits(&self.rules.all[*index])).collect()
    }

    fn insert(&self, siblings: &mut Vec<Index>, index: Index, key: u32) {
        let at = siblings.iter().position(|sibling| self.rules.all[*sibling].key < key);
        siblings.insert(at.unwrap_or(siblings.len()), index);
    }

    /// Connects a composite rule with the events that it searches.
    fn aim(
        &mut self,
        index: Index,
        sid: Option<u32>,
        group: Option<&[u8]>,
        regex: Option<tld_pattern::OsRegex>,
    ) {
        let target = if let Some(sid) = sid {
            let rule = self.rules.by_id.get(&RuleId(sid)).copied();
            Target::List(rule.map(|rule| self.history(rule)))
        } else if let Some(group) = group {
            let list = self.new_list();
            self.own.insert(index, list);
            if let Ok(pattern) = OsMatch::compile(group) {
                for rule in &mut self.rules.all {
                    if pattern.is_match(rule.info.groups.as_bytes()) {
                        rule.place.groups.push((list, rule.place.occurrences));
                    }
                }
            }
            Target::List(Some(list))
        } else if regex.is_some() {
            Target::Everything(regex)
        } else {
            return;
        };
        self.rules.all[index].place.target = Some(target);
    }

    fn history(&mut self, rule: Index) -> ListId {
        if let Some(list) = self.rules.all[rule].place.history {
            return list;
        }
        let list = self.new_list();
        self.rules.all[rule].place.history = Some(list);
        list
    }

    fn new_list(&mut self) -> ListId {
        self.rules.lists += 1;
        self.rules.lists - 1
    }

    /// Replaces a rule's text and keeps its place. What the new text says about placement has no effect;
    /// true when it says something.
    pub(crate) fn overwrite(&mut self, index: Index, draft: Draft) -> bool {
        let wanted = draft.wanted;
        let placed = wanted.sids.is_some()
            || wanted.level.is_some()
            || wanted.group.is_some()
            || wanted.matched_sid.is_some()
            || wanted.matched_group.is_some();
        let old = &mut self.rules.all[index];
        let mut rule = draft.rule;
        rule.place = std::mem::take(&mut old.place);
        rule.info.parents = std::mem::take(&mut old.info.parents);
        *old = rule;
        self.conditions[index] = draft.conditions;
        placed
    }

    /// The finished rules.
    pub(crate) fn finish(mut self) -> Rules {
        for rule in &mut self.rules.all {
            // A winner's events enter its history, if somebody asks for that, and otherwise the lists of groups:
            // never both (analysis-rules 3).
            let start = self.rules.feeds.len() as u32;
            match rule.place.history {
                Some(history) => self.rules.feeds.push((history, 1)),
                None => self.rules.feeds.append(&mut rule.place.groups),
            }
            rule.feeds = (start, self.rules.feeds.len() as u32);
            rule.info.frequency = rule.searches().then_some(rule.correlation.frequency + 2);
            rule.constant = Constant::new(rule);
            rule.shrink();
        }
        self.rules.set_conditions(self.conditions.into_iter());
        self.rules.all.shrink_to_fit();
        self.rules
    }
}
