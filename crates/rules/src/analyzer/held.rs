//! What every event needs of its rules, without a counter that threads share.
//!
//! Counting the users of one thing from several threads costs each of them a trip of that counter between their caches, several
//! times an event, which is dearer than the event. So each preparer counts the users of its own handle and hands out its own
//! copies of texts. Invariant: a copy says what its rule says.

use std::ops::Deref;
use std::sync::Arc;

use tld_model::RuleTexts;

use crate::ahead;
use crate::rule::Index;
use crate::ruleset::Ruleset;

/// Holds a ruleset for the events of one thread.
#[derive(Debug, Clone)]
#[expect(clippy::redundant_allocation, reason = "the outer one counts this thread's users alone")]
pub(super) struct Held(Arc<Arc<Ruleset>>);

impl Held {
    pub(super) fn new(ruleset: Arc<Ruleset>) -> Self {
        Self(Arc::new(ruleset))
    }

    /// What all threads share.
    pub(super) fn shared(&self) -> &Arc<Ruleset> {
        &self.0
    }

    /// Whether both hold the same rules.
    pub(super) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&*self.0, &*other.0)
    }
}

impl Deref for Held {
    type Target = Ruleset;

    fn deref(&self) -> &Ruleset {
        &self.0
    }
}

/// The texts of rules that have alerted, copied once.
#[derive(Debug, Default)]
pub(super) struct Copies {
    of: Option<Held>,
    texts: Vec<Option<Arc<RuleTexts>>>,
}

impl Copies {
    /// Has the texts of a rule fetched that are soon asked for.
    pub(super) fn fetch(&self, rule: Index) {
        if let Some(Some(texts)) = self.texts.get(rule) {
            ahead::fetch(&**texts);
        }
    }

    pub(super) fn of(&mut self, ruleset: &Held, rule: Index) -> &Arc<RuleTexts> {
        if !self.of.as_ref().is_some_and(|of| of.is(ruleset)) {
            self.texts.clear();
            self.texts.resize_with(ruleset.rules.all.len(), || None);
            self.of = Some(ruleset.clone());
        }
        self.texts[rule].get_or_insert_with(|| Arc::new(ruleset.rules.all[rule].texts()))
    }
}
