//! `queue/alerts/ar`: what tools of this host send to agents (active-response 5.1, wire 5.1).
//!
//! A message that is an order in JSON goes through the ledger like any other and reaches agents of the plain contract with the
//! very bytes of its sender; anything else is passed on at once or dropped.
//! Invariant: the allow list holds here too.

use std::os::unix::net::UnixDatagram;
use std::sync::atomic::{AtomicBool, Ordering};

use tld_config::Response;
use tld_model::{AgentId, ExecMessage, Order, OrderId, OrderOptions, Target, Timings};
use tld_policy::Uses;
use tld_wire::ar::{Kind, Routed};
use tld_wire::control::leading_json;

use super::{Counts, Setup};
use crate::dispatch::OrderIds;
use crate::dispatch::ledger::{Audience, Draft};
use crate::log::Level;
use crate::registry::State;

/// Longest datagram that a reader of the contract uses.
const LIMIT: usize = 65_535;

/// Serves the socket until `stop`.
pub(super) fn serve(socket: &UnixDatagram, setup: &Setup, counts: &Counts, stop: &AtomicBool) {
    let mut router = Router { setup, ids: OrderIds::new(setup.now(), std::process::id()) };
    super::datagrams(socket, LIMIT, "messages for agents", &setup.log, stop, |datagram| {
        counts.routed.fetch_add(1, Ordering::Relaxed);
        let Some(datagram) = datagram else {
            counts.dropped.fetch_add(1, Ordering::Relaxed);
            return setup.log.warning(&format!("(1310): a message for agents is longer than {LIMIT} bytes"));
        };
        if let Err(why) = router.take(datagram) {
            counts.dropped.fetch_add(1, Ordering::Relaxed);
            setup.log.warning(&why);
        }
    });
}

struct Router<'s> {
    setup: &'s Setup,
    ids: OrderIds,
}

impl Router<'_> {
    fn take(&mut self, datagram: &[u8]) -> Result<(), String> {
        let log = &self.setup.log;
        log.line(Level::Debug, "a message for agents came in");
        let routed = Routed::parse(datagram).map_err(|error| format!("(1310): {error}"))?;
        if !routed.has_addressee() {
            return Ok(());
        }
        let audience = if routed.all {
            Audience::All { groups: Vec::new(), labels: Vec::new() }
        } else {
            let id: AgentId =
                routed.agent.parse().map_err(|error| format!("(1320): a message for no agent: {error}"))?;
            if self.setup.registry.table().by_id(id).is_none() {
                return Err(format!(
                    "(1320): a message for agent {id}, which is not registered, was dropped"
                ));
            }
            Audience::One(id.0)
        };
        let order = match routed.kind {
            Kind::Control => None,
            Kind::Origin | Kind::Response => leading_json::<ExecMessage>(routed.payload),
        };
        match order {
            Some(message) => self.order(message, routed.payload, audience),
            None => {
                self.relay(&audience, &routed.message());
                Ok(())
            }
        }
    }

    /// Text that is no order: it cannot be followed, so that it is worth nothing to an agent that is away.
    fn relay(&self, audience: &Audience, payload: &[u8]) {
        let table = self.setup.registry.table();
        let meant = table.agents().filter(|agent| audience.includes(agent));
        let there = meant.filter(|agent| *audience != all() || agent.state() == State::Active);
        for agent in there {
            let text = match self.setup.fleet.relay(agent.id, payload) {
                Ok(_) => format!("a message for agent {} was passed on", agent.id),
                Err(error) => format!("(1245): a message for agent {} was dropped: {error}", agent.id),
            };
            self.setup.log.line(Level::Debug, &text);
        }
    }

    fn order(&mut self, message: ExecMessage, payload: &[u8], audience: Audience) -> Result<(), String> {
        let policy = self.setup.fleet.policy();
        let known = policy.responses().iter().find(|response| response.name == message.command);
        let (executable, timeout_secs) = named(&message.command, known);
        let target = target(&message, &executable);
        let created = self.setup.now();
        let alert_id = text_at(&message, "/id").unwrap_or_default();
        let order = Order {
            id: self.ids.make(),
            response: message.command.clone(),
            executable,
            timeout_secs,
            extra_args: message.parameters.extra_args.clone(),
            node: message.origin.name.clone().unwrap_or_default(),
            alert: message.parameters.alert.clone(),
            alert_id,
            rule: text_at(&message, "/rule/id").and_then(|id| id.parse().ok()),
            target,
            created,
            timings: Timings { event: created.nanos(), dispatched: created.nanos(), ..Timings::default() },
            options: OrderOptions::default(),
        };
        let order = Order { id: OrderId(format!("tool-{}", order.id)), ..order };
        let agent = match audience {
            Audience::One(id) => AgentId(id),
            Audience::All { .. } => AgentId::MANAGER,
        };
        let refusal = policy
            .allow_listed(&order.target)
            .map(|entry| format!("{} is allow-listed by <white_list>{entry}</white_list>", order.target));
        let verbatim = str::from_utf8(payload).ok().map(str::to_owned);
        let draft = Draft { order, audience, origin: message.origin, verbatim };
        match refusal {
            Some(reason) => {
                let refused = format!("order {} of a local tool is refused: {reason}", draft.order.id);
                self.setup.fleet.refuse(draft, agent, reason);
                Err(refused)
            }
            None => {
                self.setup.fleet.submit(draft, false);
                Ok(())
            }
        }
    }
}

fn all() -> Audience {
    Audience::All { groups: Vec::new(), labels: Vec::new() }
}

/// Executable and timeout of a response. Of one that is not configured here, as its name says.
fn named(command: &str, known: Option<&Response>) -> (String, u64) {
    if let Some(response) = known {
        return (response.executable.clone(), response.timeout_secs);
    }
    if let Some(file) = command.strip_prefix('!') {
        return (file.to_owned(), 0);
    }
    let name = command.trim_end_matches(|c: char| c.is_ascii_digit());
    let seconds = command.get(name.len()..).and_then(|digits| digits.parse().ok());
    (name.to_owned(), seconds.filter(|seconds| *seconds <= u64::from(u32::MAX)).unwrap_or(0))
}

fn target(message: &ExecMessage, executable: &str) -> Target {
    let uses = Uses::of(executable);
    if uses.user() {
        return text_at(message, "/data/dstuser").map_or(Target::None, Target::User);
    }
    let places = ["/data/win/eventdata/ipAddress", "/data/win/eventdata/destinationIp", "/data/srcip"];
    let mut addresses = places.iter().filter_map(|place| {
        text_at(message, place).and_then(|text| tld_pattern::parse_address(text.as_bytes()))
    });
    if uses.address() { addresses.next().map_or(Target::None, Target::Address) } else { Target::None }
}

/// A text in the alert.
fn text_at(message: &ExecMessage, place: &str) -> Option<String> {
    let alert: serde_json::Value = serde_json::from_str(message.parameters.alert.get()).ok()?;
    alert.pointer(place).and_then(serde_json::Value::as_str).map(str::to_owned)
}
