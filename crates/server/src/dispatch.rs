//! From a decision to an order on its way. The order's text is made once and handed over before any output is written.

use std::fmt;
use std::time::Duration;

use serde_json::value::RawValue;
use tld_model::{Alert, Order, OrderId, OrderOptions, Stage, Target, Timestamp, Timings};
use tld_policy::{Decision, Destination, Reason};
use tld_respond::carrier::{Carrier, DeliverError};
use tld_sys::clock::Deadline;

use crate::retarget;

/// A responder that takes no order for so long is taken for dead.
const PATIENCE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_micros(500);
/// Longest alert that an order carries whole: what the contract lets a message have.
const MOST_TEXT: usize = 64 << 10;
/// Longest single text of an alert that had to be shortened, and the shortest that it may be cut to.
const MOST_STRING: usize = 8 << 10;
const LEAST_STRING: usize = 256;
const MOST_LEVELS: usize = 32;

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
                    let mut alert_text = text.get_or_insert_with(|| alert_text(alert, alert_id)).clone();
                    if let Some((field, value)) = retarget::chosen(alert, decision) {
                        alert_text = retarget::retarget(alert_text, field, &value);
                    }
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
                contract: response.contract,
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

/// An alert grown beyond what an order can carry: without the events that led to it, and with long texts cut. An attacker
/// chooses how long the lines are, and no length may make the order undeliverable; `alerts.json` keeps everything.
fn shortened(text: &str) -> Option<String> {
    // Deep nesting is for an attacker as good as length: it is left out too.
    let mut alert = tld_model::read_shallow(text.as_bytes(), MOST_LEVELS)?;
    let fields = alert.as_object_mut()?;
    fields.remove("previous_output");
    fields.remove("previous_log");
    let mut most = MOST_STRING;
    loop {
        cut(&mut alert, most);
        let text = alert.to_string();
        // Hundreds of long fields: shorter still, but never so short that an address or a name would be cut.
        if text.len() <= MOST_TEXT || most <= LEAST_STRING {
            return Some(text);
        }
        most /= 2;
    }
}

/// Cuts every text in `value` to at most `most` bytes.
fn cut(value: &mut serde_json::Value, most: usize) {
    match value {
        serde_json::Value::String(text) => text.truncate(text.floor_char_boundary(most)),
        serde_json::Value::Array(items) => items.iter_mut().for_each(|item| cut(item, most)),
        serde_json::Value::Object(fields) => fields.values_mut().for_each(|field| cut(field, most)),
        _ => {}
    }
}

/// The alert as the order carries it. Bytes that are not UTF-8 are replaced, since the message to a script is text.
fn alert_text(alert: &Alert, id: &str) -> Box<RawValue> {
    let mut json = Vec::new();
    alert.json.write(id, &mut json);
    let text =
        String::from_utf8(json).unwrap_or_else(|bad| String::from_utf8_lossy(bad.as_bytes()).into_owned());
    let text = if text.len() > MOST_TEXT { shortened(&text).unwrap_or(text) } else { text };
    RawValue::from_string(text).unwrap_or_else(|_| RawValue::NULL.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alert_too_long_for_an_order_loses_its_history_and_its_tails_but_not_its_address() {
        let long = "\\\"".repeat(40_000);
        let text = serde_json::json!({
            "rule": { "level": 10, "id": "31151" }, "previous_output": long, "full_log": long,
            "data": { "srcip": "198.51.100.9", "url": long },
        })
        .to_string();
        let short = shortened(&text).unwrap();
        assert!(short.len() <= MOST_TEXT, "{}", short.len());
        let alert: serde_json::Value = serde_json::from_str(&short).unwrap();
        assert_eq!(alert["data"]["srcip"], "198.51.100.9");
        assert_eq!(alert["rule"]["id"], "31151");
        assert!(alert.get("previous_output").is_none());
        assert_eq!(alert["full_log"].as_str().map(str::len), Some(MOST_STRING));
    }

    #[test]
    fn many_long_fields_are_cut_further() {
        let data: serde_json::Map<_, _> =
            (0..200).map(|n| (format!("f{n}"), "é".repeat(3_000).into())).collect();
        let short = shortened(&serde_json::json!({ "data": data }).to_string()).unwrap();
        assert!(short.len() <= MOST_TEXT, "{}", short.len());
    }
}
