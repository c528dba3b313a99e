//! From a datagram to an order (active-response 6.2–6.4). Invariant: one datagram is answered at a time and none is
//! waited for; whatever takes long happens behind the responder.

use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::value::RawValue;
use tld_config::{Own, ResponderSettings};
use tld_model::{
    Contract, Evidence, Order, OrderId, OrderOptions, Outcome, OutcomeKind, Stage, Target, Timestamp, Timings,
};
use tld_respond::Responder;
use tld_respond::ossec_log::Level;
use tld_sys::clock::{Clock, SystemClock};
use tld_sys::unix_socket::{self, Received};
use tld_wire::extension::Ticket;

use super::listen::Admission;
use super::request::{self, Body, Request};
use super::runs::Runs;
use super::table::{Found, Table, is_bare, shown};
use super::voice::Voice;

/// Of one datagram no more counts.
const DATAGRAM: usize = 65_535;
const TICK: Duration = Duration::from_millis(300);
/// After a failing read, so that a broken socket does not keep a processor busy.
const PAUSE: Duration = Duration::from_secs(1);
const BIN: &str = "active-response/bin";
/// Paths from here on are refused by the contract.
const PATH: usize = 256;

/// Where orders go. Waits while the responder is full, as its senders are used to.
pub(crate) trait Sink: Send + std::fmt::Debug {
    fn put(&self, order: Order) -> Result<(), String>;

    /// The manager has stored an outcome.
    fn confirm(&self, order: OrderId, kind: OutcomeKind);

    /// The manager withdraws an order.
    fn withdraw(&self, order: OrderId);
}

impl Sink for Arc<Responder> {
    fn put(&self, order: Order) -> Result<(), String> {
        self.submit_waiting(order).map_err(|refused| refused.to_string())
    }

    fn confirm(&self, order: OrderId, kind: OutcomeKind) {
        Responder::confirm(self, order, kind);
    }

    fn withdraw(&self, order: OrderId) {
        Responder::withdraw(self, order);
    }
}

/// Takes requests.
#[derive(Debug)]
pub(crate) struct Intake {
    home: PathBuf,
    table: Table,
    sink: Box<dyn Sink>,
    runs: Option<Runs>,
    voice: Voice,
    dry_run: bool,
    own: ResponderSettings,
    ids: Ids,
}

impl Intake {
    pub(crate) fn new(
        home: &Path,
        sink: Box<dyn Sink>,
        runs: Option<Runs>,
        voice: Voice,
        dry_run: bool,
        own: ResponderSettings,
    ) -> Self {
        let (home, table) = (home.to_path_buf(), Table::new(home));
        Self { home, table, sink, runs, voice, dry_run, own, ids: Ids::new(now()) }
    }

    /// Serves the socket until `stop`.
    pub(crate) fn serve(mut self, socket: &UnixDatagram, admission: Admission, stop: &AtomicBool) {
        while !stop.load(Ordering::SeqCst) {
            match unix_socket::recv_from_peer(socket, DATAGRAM, TICK) {
                Ok((Received::Message(datagram), Some(peer))) if admission.admits(peer) => {
                    // What cannot be an order is in the log; nobody waits for an answer here.
                    self.take(&datagram, None);
                }
                Ok((Received::TimedOut | Received::Closed, _)) => {}
                Ok((Received::TooLong, _)) => {
                    self.voice.error(&format!("(1315): a request of more than {DATAGRAM} bytes was dropped"));
                }
                Ok((Received::Message(_), Some(peer))) => self.voice.warning(&format!(
                    "a request of process {} (user {}, group {}) was dropped: not of this installation",
                    peer.pid, peer.uid, peer.gid
                )),
                Ok((Received::Message(_), None)) => {
                    self.voice.warning("a request without a sender was dropped");
                }
                Err(error) => {
                    self.voice.error(&format!("(1210): cannot read requests: {error}"));
                    std::thread::sleep(PAUSE);
                }
            }
        }
    }

    /// Where orders go.
    pub(crate) fn sink(&self) -> &dyn Sink {
        &*self.sink
    }

    /// Whether the response of a message is known by now; what is no request needs no waiting for it.
    pub(crate) fn knows(&mut self, datagram: &[u8]) -> bool {
        let Ok(request) = request::parse(datagram) else { return true };
        let voice = self.voice.clone();
        let say = |level, text: &str| {
            // A file that is not there yet is what is waited for.
            if level != Level::Error {
                voice.say(level, text);
            }
        };
        request.command.starts_with('!') || self.table.find(&request.command, &say).is_some()
    }

    /// Takes one message of the manager; what ends here without an order has its outcome, if it came with a ticket.
    pub(crate) fn take(&mut self, datagram: &[u8], ticket: Option<&Ticket>) -> Option<Outcome> {
        self.voice.detail(|| {
            let text = String::from_utf8_lossy(datagram);
            format!("Received message: '{}'", text.trim_end_matches('\0'))
        });
        let request = match request::parse(datagram) {
            Ok(request) => request,
            Err(fault) => {
                let begin = shown(&String::from_utf8_lossy(datagram));
                self.voice.error(&format!("({}): a request was dropped, {fault}: '{begin}'", fault.code()));
                return ticket.map(|ticket| ended(ticket, "", OutcomeKind::Failed, fault.to_string()));
            }
        };
        let command = request.command.as_str();
        if let ("restart-wazuh", Some(runs)) = (command, &self.runs) {
            runs.restart(false);
            return None;
        }
        let Some(found) = self.resolve(command) else {
            let detail = "no response of that name is known on this host";
            return ticket.map(|ticket| ended(ticket, command, OutcomeKind::NotFound, detail.into()));
        };
        let program = format!("{BIN}/{}", file_name(&self.home, &found.executable));
        let line = |verb: &str| request.line(verb, &program);
        self.voice.debug(|| format!("Executing command '{program} {}'", line("add")));
        match (&request.body, &self.runs) {
            (Some(body), _) => self.order(&request, body, found, ticket),
            // Nothing can come of it that would have to be undone; the words of rejection are the executable's.
            (None, Some(runs)) => {
                runs.start(&program, Vec::new(), format!("{}\n", line("add")));
                None
            }
            (None, None) => {
                let detail = "the message is not well formed";
                self.voice
                    .error(&format!("(1315): a request for `{}` was dropped: {detail}", shown(command)));
                ticket.map(|ticket| ended(ticket, command, OutcomeKind::Failed, detail.into()))
            }
        }
    }

    fn resolve(&mut self, command: &str) -> Option<Found> {
        if let Some(file) = command.strip_prefix('!') {
            if !is_bare(file) || BIN.len() + 1 + file.len() >= PATH {
                let file = shown(file);
                self.voice.warning(&format!("`{file}` is not the bare name of a file in `{BIN}`"));
                self.voice.error(&format!("(1311): no response is named '!{file}'"));
                return None;
            }
            return Some(Found { executable: file.to_owned(), timeout_secs: 0, present: true });
        }
        let voice = self.voice.clone();
        let found = self.table.find(command, &|level, text| voice.say(level, text));
        match &found {
            None => self.voice.error(&format!("(1311): no response is named '{}'", shown(command))),
            // The reference is silent here; the responder's answer follows.
            Some(found) if !found.present => self.voice.warning(&format!(
                "response `{}` has no executable on this host: `{BIN}/{}` is missing",
                shown(command),
                found.executable
            )),
            Some(_) => {}
        }
        found
    }

    fn order(
        &mut self,
        request: &Request,
        body: &Body,
        found: Found,
        ticket: Option<&Ticket>,
    ) -> Option<Outcome> {
        let created = now();
        let rule = request::at(&body.alert, &["rule", "id"]).and_then(|id| id.parse().ok());
        let mut timings = Timings::default();
        timings.mark(Stage::Dispatched, created);
        let own = self.own.own(&request.command, found.timeout_secs, &found.executable);
        let mut options = own.map(options).unwrap_or_default();
        if let Some(ticket) = ticket {
            let told = ticket.options.clone();
            let contract =
                if told.contract == Contract::default() { options.contract } else { told.contract };
            let ends = [ticket.deadline_ns, ticket.ends_ns].into_iter().flatten().min();
            let deadline = ends.map(Timestamp::from_nanos);
            options = OrderOptions { contract, reported: true, deadline, withdrawn: false, ..told };
        }
        let timeout_secs = remaining(found.timeout_secs, ticket.and_then(|ticket| ticket.ends_ns), created);
        options.dry_run |= self.dry_run;
        let named =
            ticket.map(|ticket| ticket.order.clone()).or_else(|| request.order_id.clone().map(OrderId));
        let order = Order {
            id: named.unwrap_or_else(|| self.ids.make()),
            response: request.command.clone(),
            target: target(&body.alert, &found.executable),
            executable: found.executable,
            timeout_secs,
            extra_args: body.extra_args.clone(),
            node: body.node.clone(),
            alert: body.alert.clone(),
            alert_id: request::at(&body.alert, &["id"]).map(|id| shown(&id)).unwrap_or_default(),
            rule,
            created,
            timings,
            options,
        };
        if let Err(refused) = self.sink.put(order) {
            // The manager sends it again.
            self.voice
                .error(&format!("the request for `{}` was dropped: {refused}", shown(&request.command)));
        }
        None
    }
}

/// Seconds that are left of an order that reached us late; never 0 for one that is to be undone.
fn remaining(timeout_secs: u64, ends_ns: Option<i64>, now: Timestamp) -> u64 {
    let Some(ends) = ends_ns.filter(|_| timeout_secs > 0) else { return timeout_secs };
    let left = ends.saturating_sub(now.nanos()).div_euclid(1_000_000_000).saturating_add(1);
    u64::try_from(left).unwrap_or(1).clamp(1, timeout_secs)
}

/// The outcome of an order on a host that takes none.
pub(crate) fn disabled(ticket: &Ticket) -> Outcome {
    ended(ticket, "", OutcomeKind::Refused, "active response is disabled on this host".into())
}

/// The outcome of what never became an order.
fn ended(ticket: &Ticket, response: &str, kind: OutcomeKind, detail: String) -> Outcome {
    Outcome {
        order: ticket.order.clone(),
        kind,
        response: shown(response),
        program: String::new(),
        target: Target::None,
        alert_id: String::new(),
        rule: None,
        detail,
        evidence: Evidence::default(),
        at: now(),
        until: None,
        timings: Timings::default(),
    }
}

/// What this endpoint's own configuration adds, since the contract's message cannot carry it.
fn options(own: &Own) -> OrderOptions {
    OrderOptions {
        repeated_offenders: own.repeated_offenders.clone(),
        ports: own.ports.clone(),
        cut_connections: own.cut_connections,
        contract: own.contract,
        ..OrderOptions::default()
    }
}

/// The file a name stands for, or the name itself where there is none.
fn file_name(home: &Path, executable: &str) -> String {
    let found = tld_config::executable::resolve(&home.join(BIN), executable).ok();
    let name = found.as_deref().and_then(Path::file_name).and_then(|name| name.to_str());
    name.unwrap_or(executable).to_owned()
}

/// Whom the executables will take from the alert: an address, in their order of preference, or a user.
fn target(alert: &RawValue, executable: &str) -> Target {
    let user = || request::at(alert, &["data", "dstuser"]).map(|user| Target::User(shown(&user)));
    if executable.starts_with("disable-account") {
        return user().unwrap_or(Target::None);
    }
    let fields: [&[&str]; 3] = [
        &["data", "win", "eventdata", "ipAddress"],
        &["data", "win", "eventdata", "destinationIp"],
        &["data", "srcip"],
    ];
    let addresses = fields.iter().filter_map(|path| request::at(alert, path));
    let address = addresses.filter_map(|text| text.parse::<std::net::IpAddr>().ok()).next();
    address.map(|address| Target::Address(address.to_canonical())).or_else(user).unwrap_or(Target::None)
}

fn now() -> Timestamp {
    Timestamp::from_nanos(SystemClock.wall_nanos())
}

/// Names for orders that came without one: unique over restarts by start and process.
#[derive(Debug)]
struct Ids {
    prefix: String,
    next: u64,
}

impl Ids {
    fn new(start: Timestamp) -> Self {
        Self { prefix: format!("x{:x}-{:x}", start.nanos(), std::process::id()), next: 0 }
    }

    fn make(&mut self) -> OrderId {
        self.next += 1;
        OrderId(format!("{}-{}", self.prefix, self.next))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_order_lasts_as_long_as_is_left_of_it() {
        let now = Timestamp::from_secs(1000);
        let at = |secs: i64| Some(secs * 1_000_000_000);
        for (timeout, ends, left) in [
            (600, None, 600),
            (600, at(1100), 101),
            (600, at(9000), 600),
            (600, at(900), 1),
            (0, at(1100), 0),
        ] {
            assert_eq!(remaining(timeout, ends, now), left, "{timeout} {ends:?}");
        }
    }

    #[test]
    fn the_target_is_the_one_that_the_executable_takes() {
        let of = |alert: &str, executable: &str| {
            target(&RawValue::from_string(alert.into()).unwrap(), executable).to_string()
        };
        let both = r#"{"data":{"srcip":"::ffff:192.0.2.1","dstuser":"bob"}}"#;
        assert_eq!(of(both, "firewall-drop"), "192.0.2.1");
        assert_eq!(of(both, "disable-account"), "bob");
        assert_eq!(of(r#"{"data":{"srcip":"x","dstuser":"bob"}}"#, "custom"), "bob");
        let win = r#"{"data":{"win":{"eventdata":{"ipAddress":"-","destinationIp":"192.0.2.9"}},"srcip":"192.0.2.1"}}"#;
        assert_eq!(of(win, "netsh.exe"), "192.0.2.9");
        for none in ["{}", "[]", "null", r#"{"data":7}"#] {
            assert_eq!(of(none, "custom"), "-", "{none}");
        }
    }
}
