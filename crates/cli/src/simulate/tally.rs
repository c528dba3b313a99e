//! What a replay counts, event by event. Invariant: it sees the verdicts in the order of the events.

use std::collections::HashMap;
use std::sync::Arc;

use tld_model::RuleId;
use tld_policy::Policy;
use tld_rules::{Preparer, Verdict};
use tld_server::lanes::{Arrival, Sink};
use tld_server::load::Prepared;

use super::ledger::{Ledger, Times};
use super::timeline::{Counts, Timeline};

/// Counts of a replay.
pub(super) struct Tally {
    policy: Arc<Policy>,
    pub(super) ledger: Ledger,
    pub(super) rules: HashMap<RuleId, Times>,
    /// Alerts below `log_alert_level`.
    pub(super) unwritten: u64,
    pub(super) timeline: Timeline,
}

impl Tally {
    pub(super) fn new(prepared: &Prepared) -> Self {
        Self {
            policy: Arc::clone(&prepared.policy),
            ledger: Ledger::new(&prepared.settings, &prepared.policy),
            rules: HashMap::new(),
            unwritten: 0,
            timeline: Timeline::default(),
        }
    }
}

impl Sink for Tally {
    fn take(&mut self, arrival: &Arrival, verdict: &mut Verdict<'_>, _preparer: &mut Preparer) {
        let mut counts = Counts { events: 1, ..Counts::default() };
        if let Some(alert) = &verdict.alert {
            counts.alerts = 1;
            counts.responses = self.ledger.follow(&self.policy, alert);
            self.unwritten += u64::from(!alert.logged);
            self.rules
                .entry(alert.rule.id)
                .and_modify(|times| times.again(alert.at))
                .or_insert_with(|| Times::once(alert.at));
        }
        self.timeline.add(arrival.event.received, counts);
    }
}
