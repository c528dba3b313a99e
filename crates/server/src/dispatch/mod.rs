//! From a decision to an order on its way. The order's text is made once and handed over before any output is written.
//!
//! On one host an order goes straight to the responder. A manager's orders go through the [`fleet`], which writes them into the
//! [`ledger`] before they are sent to agents; its own responder does not wait for that, since it has a journal itself.
//! Invariant: whatever was decided is either an order with an id or a reason.

pub mod fleet;
mod guard;
pub mod ledger;
mod text;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde_json::value::RawValue;
use tld_config::Response;
use tld_model::{
    AgentId, Alert, Event, Order, OrderId, OrderOptions, Origin, Stage, Target, Timestamp, Timings,
};
use tld_policy::{Decision, Destination, Policy, Reason};
use tld_respond::carrier::{Carrier, DeliverError};
use tld_sys::clock::Deadline;

use crate::retarget;
use fleet::{Fleet, Own};
use guard::Guard;
use ledger::{Audience, Draft};
use text::alert_text;

/// A responder that takes no order for so long is taken for dead.
const PATIENCE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_micros(500);
/// Who gives orders because of rules, as the contract's messages say, and the name of a node that has none.
const MODULE: &str = "wazuh-analysisd";
const NO_NODE: &str = "undefined";

/// Makes order ids: unique over restarts by the start's time and the process, growing within one run.
#[derive(Debug)]
pub struct OrderIds {
    prefix: String,
    next: u64,
}

impl OrderIds {
    /// Ids of a run that began at `start`.
    pub fn new(start: Timestamp, process: u32) -> Self {
        Self { prefix: format!("{:x}-{process:x}", start.nanos()), next: 0 }
    }

    /// The next id.
    pub fn make(&mut self) -> OrderId {
        self.next += 1;
        OrderId(format!("{}-{}", self.prefix, self.next))
    }
}

/// One response that was considered for one alert, as people are told about it.
#[derive(Debug, Clone)]
pub struct Considered {
    /// Response name (`firewall-drop600`).
    pub response: String,
    /// What it acts on.
    pub target: Target,
    /// The order, or why there is none.
    pub result: Result<OrderId, String>,
}

/// Orders leave here.
pub struct Dispatch {
    own: Own,
    fleet: Option<Arc<Fleet>>,
    guard: Guard,
    ids: OrderIds,
    node: String,
    dry_run: bool,
}

impl fmt::Debug for Dispatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dispatch").field("ids", &self.ids).field("node", &self.node).finish_non_exhaustive()
    }
}

impl Dispatch {
    /// For one host: every order goes to that carrier.
    pub fn new(carrier: Box<dyn Carrier>, ids: OrderIds, node: String, dry_run: bool) -> Self {
        Self { own: Own::new(carrier), fleet: None, guard: Guard::default(), ids, node, dry_run }
    }

    /// For a manager: orders go to its agents, and to its own responder.
    pub fn with_fleet(fleet: Arc<Fleet>, ids: OrderIds, node: String, dry_run: bool) -> Self {
        let own = fleet.own().clone();
        Self { own, fleet: Some(fleet), guard: Guard::default(), ids, node, dry_run }
    }

    /// Shows an event before it is judged: agents' logs prove what became of orders.
    pub fn watch(&self, event: &Event) {
        if let Some(fleet) = &self.fleet {
            fleet.watch(event);
        }
    }

    /// Takes over a reloaded policy.
    pub fn swap(&self, policy: &Arc<Policy>) {
        if let Some(fleet) = &self.fleet {
            fleet.swap(Arc::clone(policy));
        }
    }

    /// Sends the orders of one alert. `now` is read by the caller once the decisions stand.
    pub fn send(
        &mut self,
        alert: &Alert,
        alert_id: &str,
        decisions: &[Decision<'_>],
        timings: Timings,
        now: Timestamp,
    ) -> Vec<Considered> {
        let mut text: Option<Box<RawValue>> = None;
        let mut considered = Vec::with_capacity(decisions.len());
        for decision in decisions {
            let result = match &decision.outcome {
                Err(reason) => Err(reason.to_string()),
                Ok(destination) => {
                    let mut alert_text = text.get_or_insert_with(|| alert_text(alert, alert_id)).clone();
                    if let Some((field, value)) = retarget::chosen(alert, decision) {
                        alert_text = retarget::retarget(alert_text, field, &value);
                    }
                    let mut timings = timings;
                    timings.mark(Stage::Dispatched, now);
                    let order = self.order(alert, alert_id, decision, alert_text, timings);
                    self.deliver(order, decision.response, destination, now)
                }
            };
            considered.push(Considered {
                response: decision.response.name.clone(),
                target: decision.target.clone(),
                result,
            });
        }
        considered
    }

    fn order(
        &mut self,
        alert: &Alert,
        alert_id: &str,
        decision: &Decision<'_>,
        alert_text: Box<RawValue>,
        timings: Timings,
    ) -> Order {
        let response = decision.response;
        Order {
            id: self.ids.make(),
            response: response.name.clone(),
            executable: response.executable.clone(),
            timeout_secs: response.timeout_secs,
            extra_args: response.extra_args.clone(),
            node: self.node.clone(),
            alert: alert_text,
            alert_id: alert_id.to_owned(),
            rule: Some(alert.rule.id),
            target: decision.target.clone(),
            created: Timestamp::from_nanos(timings.dispatched),
            timings,
            options: OrderOptions {
                dry_run: self.dry_run,
                repeated_offenders: response.repeated_offenders.clone(),
                ports: response.ports.clone(),
                cut_connections: response.cut_connections,
                contract: response.contract,
                ..OrderOptions::default()
            },
        }
    }

    fn deliver(
        &mut self,
        order: Order,
        response: &Response,
        destination: &Destination,
        now: Timestamp,
    ) -> Result<OrderId, String> {
        let refused = self.guard.admit(response, &order.target, now);
        let Some(fleet) = self.fleet.clone() else {
            refused.map_err(|refusal| refusal.reason)?;
            return match destination {
                Destination::Agent(id) => Err(Reason::UnknownAgent(*id).to_string()),
                // The one endpoint is every endpoint.
                Destination::Here | Destination::All => {
                    self.hand_over(&order).map_err(|error| error.to_string())?;
                    Ok(order.id)
                }
            };
        };
        let (audience, meant) = match destination {
            Destination::Here => (Audience::One(0), AgentId::MANAGER),
            Destination::Agent(id) => (Audience::One(id.0), *id),
            Destination::All => {
                let scope = &response.scope;
                let (groups, labels) = (scope.groups.clone(), scope.labels.clone());
                (Audience::All { groups, labels }, AgentId::MANAGER)
            }
        };
        let draft = self.draft(order, audience);
        if let Err(refusal) = refused {
            if refusal.is_first {
                fleet.refuse(draft, meant, refusal.reason.clone());
            }
            return Err(refusal.reason);
        }
        if *destination == Destination::Here {
            return self.to_own(&fleet, draft);
        }
        if self.dry_run {
            return Err("nothing is sent to agents in a dry run".into());
        }
        if *destination == Destination::All {
            let table = fleet.registry().table();
            let many = table.agents().filter(|agent| draft.audience.includes(agent)).count();
            if let Some(reason) = guard::unconfirmed(response, many, table.agents().len()) {
                fleet.refuse(draft, meant, reason.clone());
                return Err(reason);
            }
            if response.scope.include_manager {
                let own = Draft {
                    order: Order { id: self.ids.make(), ..draft.order.clone() },
                    audience: Audience::One(0),
                    ..draft.clone()
                };
                // The agents' orders do not depend on the manager's own; its failure stands in the ledger.
                let _ = self.to_own(&fleet, own);
            }
        }
        let id = draft.order.id.clone();
        fleet.submit(draft, false);
        Ok(id)
    }

    fn draft(&self, order: Order, audience: Audience) -> Draft {
        let name = if self.node.is_empty() { NO_NODE } else { &self.node };
        let origin = Origin { name: Some(name.to_owned()), module: MODULE.to_owned() };
        Draft { order, audience, origin, verbatim: None }
    }

    /// To the manager's own responder. The ledger hears of it first, so that it knows the order when its outcome comes.
    fn to_own(&self, fleet: &Fleet, draft: Draft) -> Result<OrderId, String> {
        let order = draft.order.clone();
        fleet.submit(draft, true);
        match self.hand_over(&order) {
            Ok(()) => Ok(order.id),
            Err(error) => {
                fleet.own_failed(&order, &error.to_string());
                Err(error.to_string())
            }
        }
    }

    /// A full queue is waited for: the collectors wait behind us, and no order of a burst is lost.
    fn hand_over(&self, order: &Order) -> Result<(), DeliverError> {
        let patience = Deadline::after(PATIENCE);
        loop {
            match self.own.deliver(order) {
                Err(DeliverError::Full) if !patience.passed() => std::thread::sleep(PAUSE),
                result => return result,
            }
        }
    }
}
