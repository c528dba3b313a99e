//! Least privilege: started as root, this process stays the responder and starts everything that reads what others wrote
//! (logs, the manager's messages, pushed files) as another user. The two talk over one socket, the child's standard input.
//! Invariant: if either ends, the other does too; blocks stay and end on time.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};

use tld_model::{Order, OrderId, OutcomeKind};
use tld_respond::Report;
use tld_respond::carrier::socket::{self, SocketCarrier};
use tld_sys::part;
use tld_sys::service_user::{GiveError, ServiceUser};
use tld_sys::signal::Signals;

use super::{DAEMON, Options, RunError};
use crate::responder::Service;
use crate::responder::intake::Sink;
use crate::responder::listen::Admission;
use crate::responder::voice::Voice;

/// What the other part writes.
const WRITTEN: [&str; 9] = [
    "logs",
    "etc/client.keys",
    "etc/shared",
    "queue/alerts",
    "queue/logcollector",
    "queue/rids",
    "queue/sockets",
    "queue/threatlockdown",
    SPOOL,
];
const SPOOL: &str = "queue/threatlockdown/spool";
/// Both write to it.
const LOG: &str = "logs/ossec.log";
/// What it only reads; executables and journal stay root's.
const READ: [&str; 10] = [
    "",
    "etc",
    "etc/ossec.conf",
    "etc/local_internal_options.conf",
    "active-response",
    "active-response/bin",
    "queue",
    "var",
    "var/run",
    "logs/active-responses.log",
];
/// Files there are replaced whole: the keys, the state.
const OPEN: [&str; 2] = ["etc", "var/run"];

/// The service cannot be two processes.
#[derive(Debug, thiserror::Error)]
pub enum SplitError {
    /// The home stays root's.
    #[error(transparent)]
    Give(#[from] GiveError),
    /// There is no socket between the two.
    #[error("cannot make the socket to the unprivileged part")]
    Socket(#[source] io::Error),
    /// The other process cannot be started or watched.
    #[error("cannot start or watch the unprivileged part")]
    Part(#[source] io::Error),
    /// This process stays root.
    #[error("cannot become the service user `{0}`")]
    Become(String, #[source] io::Error),
    /// The other process is gone.
    #[error("the unprivileged part ended ({0}): stopping; blocks stay and are reverted on time")]
    Ended(std::process::ExitStatus),
}

/// Gives the other part what it works on.
pub(super) fn hand_over(home: &Path, user: ServiceUser) -> Result<(), SplitError> {
    // What waits there may be of a run in one process.
    let waiting: Vec<String> = std::fs::read_dir(home.join(SPOOL))
        .into_iter()
        .flatten()
        .flatten()
        .map(|file| format!("{SPOOL}/{}", file.file_name().to_string_lossy()))
        .collect();
    user.give(home, LOG, WRITTEN.into_iter().chain(waiting.iter().map(String::as_str)), READ)?;
    Ok(user.open(home, &OPEN)?)
}

/// The privileged part: serves until it is told to stop, or the other part has ended.
pub(super) fn responder(
    service: Service,
    told: Receiver<Report>,
    signals: &Signals,
    voice: &Voice,
) -> Result<(), RunError> {
    let (near, far) = socket::pair().map_err(SplitError::Socket)?;
    let warn = voice.clone();
    let log = Arc::new(move |line: &str| warn.warning(line));
    let mut idle = None;
    let serving = match service.responder.clone() {
        Some(responder) => {
            Some(socket::serve_reports(near, responder, told, log).map_err(SplitError::Socket)?)
        }
        // Active response is disabled: nobody speaks, but the other part must not find the socket closed.
        None => {
            idle = Some((near, told));
            None
        }
    };
    let mut front = part::start(far).map_err(SplitError::Part)?;
    let ended = front.attend(signals).map_err(SplitError::Part)?;
    drop(idle);
    if let Some([orders, _reports]) = serving {
        // It holds the responder, which can be stopped only when nobody else does.
        let _ = orders.join();
    }
    service.stop(false);
    if ended.well() { Ok(()) } else { Err(SplitError::Ended(ended.status).into()) }
}

/// The unprivileged part.
pub(super) fn front(options: &Options, signals: &Signals) -> Result<(), RunError> {
    let socket = part::socket().map_err(SplitError::Socket)?;
    if let Some(user) = ServiceUser::named(&options.user) {
        user.become_it().map_err(|error| SplitError::Become(options.user.clone(), error))?;
    }
    part::end_with_parent().map_err(SplitError::Part)?;
    let home = options.home.as_path();
    let admission =
        Admission::of(home).map_err(|source| RunError::Home { path: home.to_path_buf(), source })?;
    let voice = super::voice(options, DAEMON);
    let read = super::read(options, &voice).ok_or(RunError::Configuration)?;
    let (reports, told) = channel();
    let warn = voice.clone();
    let log = Arc::new(move |line: &str| warn.warning(line));
    let carrier = SocketCarrier::reporting(socket, reports, log).map_err(SplitError::Socket)?;
    let way = Way { carrier, voice: voice.clone() };
    let sink = || Some(Box::new(way.clone()) as Box<dyn Sink>);
    super::serve(options, signals, read, admission, &voice, told, sink)
}

/// The way to the responder in the other process.
#[derive(Debug, Clone)]
struct Way {
    carrier: SocketCarrier,
    voice: Voice,
}

impl Sink for Way {
    fn put(&self, order: Order) -> Result<(), String> {
        self.carrier.deliver_waiting(order).map_err(|error| error.to_string())
    }

    fn confirm(&self, order: OrderId, kind: OutcomeKind) {
        if let Err(error) = self.carrier.confirm(order, kind) {
            self.voice.debug(|| format!("an outcome will be told again: {error}"));
        }
    }

    fn withdraw(&self, order: OrderId) {
        let id = order.0.clone();
        if let Err(error) = self.carrier.withdraw(order) {
            self.voice
                .warning(&format!("order `{id}` was withdrawn, which did not reach the responder: {error}"));
        }
    }
}
