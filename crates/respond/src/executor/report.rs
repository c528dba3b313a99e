//! Orders whose manager wants to know what became of them: each outcome stays in the journal until it is confirmed.
//! Invariant: an order is called received, and an outcome is reported, only after the journal has it.

use std::collections::HashSet;
use std::sync::mpsc::Sender;

use tld_model::{Order, OrderId, OrderOptions, Outcome, OutcomeKind, Target, Timestamp, Timings};

use super::{After, Executor};
use crate::journal::Step;
use crate::{Report, RevertSelector};

/// Who is told, and about which orders.
#[derive(Debug, Default)]
pub(crate) struct Reporter {
    to: Option<Sender<Report>>,
    orders: HashSet<OrderId>,
}

impl Reporter {
    /// Remembers an order that is to be reported.
    pub(super) fn follow(&mut self, order: &OrderId, wanted: bool) {
        if wanted && self.to.is_some() {
            self.orders.insert(order.clone());
        }
    }

    fn say(&self, report: Report) {
        // Whoever listened may have stopped; the journal tells the next one.
        let _ = self.to.as_ref().map(|to| to.send(report));
    }
}

impl Executor {
    /// From now on reports go there.
    pub(crate) fn report_to(&mut self, to: Option<Sender<Report>>) {
        self.reporter.to = to;
    }

    /// Tells what was not confirmed before this start.
    pub(crate) fn report_untold(&self) {
        if self.reporter.to.is_none() {
            return;
        }
        match self.journal.untold() {
            Ok(outcomes) => {
                for outcome in outcomes {
                    self.reporter.say(Report::Outcome(Box::new(outcome)));
                }
            }
            Err(error) => (self.settings.log)(&format!("cannot read the unconfirmed outcomes: {error}")),
        }
    }

    /// The order is in the journal once the present steps are.
    pub(super) fn acknowledge(&mut self, order: &Order) {
        if order.options.reported {
            self.reporter.follow(&order.id, true);
            self.after.push(After::Received(order.id.clone()));
        }
    }

    pub(super) fn received(&self, order: OrderId) {
        self.reporter.say(Report::Received(order));
    }

    /// Keeps an outcome for its manager until that confirms it.
    pub(super) fn keep_untold(&mut self, outcome: &Outcome) {
        if self.reporter.orders.contains(&outcome.order) {
            self.steps.push(Step::Untold(Box::new(outcome.clone())));
        }
    }

    /// Reports an outcome that is in the journal.
    pub(super) fn report(&mut self, outcome: &Outcome) {
        if !self.reporter.orders.contains(&outcome.order) {
            return;
        }
        self.reporter.say(Report::Outcome(Box::new(outcome.clone())));
        if self.open(&outcome.order).is_none() {
            self.reporter.orders.remove(&outcome.order);
        }
    }

    /// The manager has stored an outcome.
    pub(super) fn confirmed(&mut self, order: OrderId, kind: OutcomeKind) {
        self.steps.push(Step::Told { order, kind });
    }

    /// Why an order may not be begun any more, if so.
    pub(super) fn too_late(&self, order: &Order) -> Option<(OutcomeKind, String)> {
        if order.options.withdrawn {
            return Some((OutcomeKind::Cancelled, "withdrawn before it came".into()));
        }
        let deadline = order.options.deadline.filter(|deadline| self.now() > *deadline)?;
        let late = self.now().nanos().saturating_sub(deadline.nanos()) / 1_000_000_000;
        Some((OutcomeKind::Expired, format!("it came {late} s after its deadline")))
    }

    /// What is to be done about a withdrawn order: the effect to lift, or an order that ends at once.
    pub(super) fn call_off(&mut self, order: OrderId) -> Result<Vec<i64>, Box<Order>> {
        if self.open(&order).is_some() {
            return Ok(self.select(&RevertSelector::Order(order)));
        }
        Err(Box::new(withdrawn(order, self.now())))
    }
}

/// Stands in the journal for an order that has not come, so that it is not carried out when it does.
fn withdrawn(id: OrderId, now: Timestamp) -> Order {
    Order {
        id,
        response: String::new(),
        executable: String::new(),
        timeout_secs: 0,
        extra_args: Vec::new(),
        node: String::new(),
        alert: serde_json::value::RawValue::NULL.to_owned(),
        alert_id: String::new(),
        rule: None,
        target: Target::None,
        created: now,
        timings: Timings::default(),
        options: OrderOptions { reported: true, withdrawn: true, ..OrderOptions::default() },
    }
}
