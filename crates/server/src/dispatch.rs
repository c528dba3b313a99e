//! From a decision to an order on its way. The order's text is made once and handed over before any output is written.

use std::fmt;
use std::time::Duration;

use serde_json::value::RawValue;
use tld_model::{Alert, Order, OrderId, OrderOptions, Stage, Target, Timestamp, Timings};
use tld_policy::{Decision, Destination, Reason};
use tld_respond::carrier::{Carrier, DeliverError};
use tld_sys::clock::Deadline;

/// A responder that takes no order for so long is taken for dead.
const PATIENCE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_micros(500);

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
    carrier: Box<dyn Carrier>,
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
    /// Orders of this node go to that carrier.
    pub fn new(carrier: Box<dyn Carrier>, ids: OrderIds, node: String, dry_run: bool) -> Self {
        Self { carrier, ids, node, dry_run }
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
                Ok(Destination::Agent(id)) => Err(Reason::UnknownAgent(*id).to_string()),
                // Standalone: the one endpoint is every endpoint.
                Ok(Destination::Here | Destination::All) => {
                    let alert_text = text.get_or_insert_with(|| alert_text(alert, alert_id)).clone();
                    self.deliver(alert, alert_id, decision, alert_text, timings, now)
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

    fn deliver(
        &mut self,
        alert: &Alert,
        alert_id: &str,
        decision: &Decision<'_>,
        alert_text: Box<RawValue>,
        mut timings: Timings,
        now: Timestamp,
    ) -> Result<OrderId, String> {
        let response = decision.response;
        timings.mark(Stage::Dispatched, now);
        let order = Order {
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
            created: now,
            timings,
            options: OrderOptions {
                dry_run: self.dry_run,
                repeated_offenders: response.repeated_offenders.clone(),
                ports: response.ports.clone(),
                cut_connections: response.cut_connections,
            },
        };
        self.hand_over(&order).map_err(|error| error.to_string())?;
        Ok(order.id)
    }

    /// A full queue is waited for: the collectors wait behind us, and no order of a burst is lost.
    fn hand_over(&self, order: &Order) -> Result<(), DeliverError> {
        let patience = Deadline::after(PATIENCE);
        loop {
            match self.carrier.deliver(order) {
                Err(DeliverError::Full) if !patience.passed() => std::thread::sleep(PAUSE),
                result => return result,
            }
        }
    }
}

/// The alert as the order carries it. Bytes that are not UTF-8 are replaced, since the message to a script is text.
fn alert_text(alert: &Alert, id: &str) -> Box<RawValue> {
    let mut json = Vec::new();
    alert.json.write(id, &mut json);
    let text =
        String::from_utf8(json).unwrap_or_else(|bad| String::from_utf8_lossy(bad.as_bytes()).into_owned());
    RawValue::from_string(text).unwrap_or_else(|_| RawValue::NULL.to_owned())
}
