//! Decoders, rules and lists compiled once, shared by all analyzers. Invariant: never changed after loading, and
//! never made of files with an error in them.

use std::collections::HashMap;
use std::sync::Arc;

use tld_model::RuleId;
use tld_xml::{Diagnostic, Source};

use crate::Texts;
use crate::alert;
use crate::decoder::{DecoderOptions, Decoders};
use crate::engine::Hints;
use crate::fields::FieldNames;
use crate::list::Lists;
use crate::rule::{self, Index, Rule, RuleInfo, Rules};

/// Settings that shape loading and analysis, with the contract's names and defaults.
#[derive(Debug, Clone)]
pub struct Options {
    /// Alerts below this level are not written.
    pub log_alert_level: u8,
    /// Alerts from this level on ask for e-mail.
    pub email_alert_level: u8,
    /// Most dynamic fields of an event, 32–1024.
    pub decoder_order_size: usize,
    /// Seconds that a composite rule without `timeframe` reaches back.
    pub default_timeframe: u32,
    /// First-time keys of intrusion detection events that a new one is compared with.
    pub fts_list_size: usize,
    /// Length at which such a key is cut.
    pub fts_min_size_for_str: usize,
    /// Most first-time keys that are remembered; the oldest is forgotten first.
    pub fts_most_keys: usize,
    /// The daemon leaves firewall events without all of action, addresses, ports and protocol to no rule
    /// (`analysisd.log_fw`).
    pub log_fw: bool,
    /// Most bytes of remembered events. An event leaves earlier when no timeframe can reach it any more.
    pub max_memory_bytes: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            log_alert_level: 1,
            email_alert_level: 7,
            decoder_order_size: 256,
            default_timeframe: 360,
            fts_list_size: 32,
            fts_min_size_for_str: 14,
            fts_most_keys: 1 << 18,
            log_fw: true,
            max_memory_bytes: 256 << 20,
        }
    }
}

/// A complete set of decoders, rules and lists.
#[derive(Debug)]
pub struct Ruleset {
    pub(crate) decoders: Decoders,
    pub(crate) rules: Rules,
    /// What plans take from the rules' conditions.
    pub(crate) hints: Hints,
    pub(crate) options: Options,
    /// What alerts show of each decoder.
    pub(crate) shown: Texts,
    /// Seconds after which no rule can look back to an event.
    pub(crate) horizon: i64,
    lists: usize,
}

/// The result of loading.
#[derive(Debug)]
pub struct Loaded {
    /// The set; none if any diagnostic is an error.
    pub ruleset: Option<Arc<Ruleset>>,
    /// Everything worth saying, in order of loading.
    pub diagnostics: Vec<Diagnostic>,
}

/// How much a ruleset holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// Rules by id.
    pub rules: usize,
    /// Places in the rule tree; a rule below several parents counts several times.
    pub occurrences: u64,
    /// Lists.
    pub lists: usize,
}

/// Rules that differ between two rulesets, each list in order of loading.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Differences {
    /// Only in the newer one.
    pub added: Vec<RuleId>,
    /// Only in the older one.
    pub removed: Vec<RuleId>,
    /// In both, with another text.
    pub changed: Vec<RuleId>,
}

impl Ruleset {
    /// Compiles files that are already in the contract's order.
    pub fn load(decoders: &[Source], rules: &[Source], lists: &[Source], options: &Options) -> Loaded {
        let mut diagnostics = Vec::new();
        let decoder_options = DecoderOptions { order_size: options.decoder_order_size };
        let mut decoders = Decoders::load(decoders, &decoder_options, &mut diagnostics);
        let lists = Lists::load(lists);
        let known = |name: &str| decoders.known(name);
        let mut rules = rule::load(rules, &known, &lists, options, &mut diagnostics);
        decoders.set_rules(rules.by_id.keys().copied());
        decoders.set_fields(FieldNames::new(rules.dynamic_fields()));
        rules.look_up(decoders.fields());
        let mut hints = Hints::new(&rules, decoders.fields());
        decoders.set_literals(hints.log_literals());
        hints.look_up(decoders.lexicon());
        let composite = || rules.all.iter().filter(|rule| rule.searches());
        let horizon = composite().map(|rule| i64::from(rule.correlation.timeframe)).max().unwrap_or(0);
        let shown = alert::decoders(&decoders);
        let lists = lists.len();
        let ruleset = Self { decoders, rules, hints, options: options.clone(), shown, horizon, lists };
        let valid = !diagnostics.iter().any(Diagnostic::is_error);
        Loaded { ruleset: valid.then(|| Arc::new(ruleset)), diagnostics }
    }

    /// All rules in order of loading.
    pub fn rules(&self) -> impl Iterator<Item = &RuleInfo> {
        self.rules.all.iter().map(|rule| &rule.info)
    }

    /// The rule of that id.
    pub fn rule(&self, id: RuleId) -> Option<&RuleInfo> {
        self.index(id).map(|index| &self.rules.all[index].info)
    }

    /// How much it holds.
    pub fn counts(&self) -> Counts {
        Counts {
            rules: self.rules.all.len(),
            occurrences: self.rules.all.iter().map(|rule| u64::from(rule.place.occurrences)).sum(),
            lists: self.lists,
        }
    }

    /// The decoders.
    pub fn decoders(&self) -> &Decoders {
        &self.decoders
    }

    /// The settings that it was loaded with.
    pub fn options(&self) -> &Options {
        &self.options
    }

    pub(crate) fn index(&self, id: RuleId) -> Option<Index> {
        self.rules.by_id.get(&id).copied()
    }

    /// What is new, gone or different in comparison with `old`.
    pub fn differences(&self, old: &Self) -> Differences {
        let mut differences = Differences::default();
        for rule in &self.rules.all {
            match old.index(rule.info.id) {
                None => differences.added.push(rule.info.id),
                Some(before) if old.rules.all[before].hash != rule.hash => {
                    differences.changed.push(rule.info.id);
                }
                Some(_) => {}
            }
        }
        let gone = old.rules().filter(|rule| self.index(rule.id).is_none());
        differences.removed.extend(gone.map(|rule| rule.id));
        differences
    }

    /// Where each rule of `old` stands here, if its text did not change.
    pub(crate) fn unchanged(&self, old: &Self) -> HashMap<Index, Index> {
        let same = |(index, rule): (Index, &Rule)| {
            let now = self.index(rule.info.id)?;
            (self.rules.all[now].hash == rule.hash).then_some((index, now))
        };
        old.rules.all.iter().enumerate().filter_map(same).collect()
    }
}
