//! The operator's door to a running responder: `var/threatlockdown/responder.sock`, one JSON request and one JSON reply
//! for each connection. Whoever asks learns there which orders are concerned, and what became of them from the journal.
//! Invariant: only root, or the user that the responder runs as, is listened to.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, SyncSender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use serde::{Deserialize, Serialize};
use tld_model::{Order, OrderId, Outcome, OutcomeKind};
use tld_sys::clock::{Clock as _, SystemClock};
use tld_sys::durable;
use tld_sys::unix_socket::{Received, Seqpacket};

use crate::executor::Input;
use crate::journal::{self, JournalError, State};
use crate::{LogFn, Responder, RevertSelector, Setup, StartError};

/// What an operator asks for.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// Lift effects before their time.
    Revert(RevertSelector),
    /// Let effects last at least so many seconds from now.
    Extend(RevertSelector, u64),
    /// Carry out an order given by hand.
    Add(Box<Order>),
    /// Begin nothing new and put nothing back, until resumed. What is in place still ends at its time.
    Pause,
    /// Go on.
    Resume,
    /// How wish and world agree.
    Status,
}

/// How wish and world agree, in numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Status {
    /// Effects that should be in place.
    pub desired: usize,
    /// Of these, the ones that were in place when last looked at.
    pub enforced: usize,
    /// How often something was put back since the start.
    pub healed: u64,
    /// How often putting back or undoing failed since the start.
    pub failed: u64,
    /// Undos that failed and are tried again.
    pub stuck: usize,
    /// Responses that wait for a slot or run.
    pub waiting: usize,
    /// By an operator.
    pub paused: bool,
    /// Why the journal cannot be written, if so.
    pub journal: Option<String>,
    /// Why no address can be blocked, if so.
    pub firewall: Option<String>,
}

/// How wish and world agree, by the running service; none when none runs.
///
/// # Errors
/// When the conversation fails.
pub fn status(home: &Path) -> Result<Option<Status>, ControlError> {
    Ok(match ask(home, &Request::Status)? {
        Some(Reply::Status(status)) => Some(status),
        _ => None,
    })
}

/// What the responder says.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// Begun, for these orders.
    Taken(Vec<OrderId>),
    /// Begun, for so many effects that their orders are not named.
    Many(usize),
    /// The answer to [`Request::Status`].
    Status(Status),
    /// Not done, for this reason.
    Refused(String),
}

/// The operator's wish was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// No service runs, and the responder's parts are not to be had either.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The socket failed in the middle.
    #[error("the conversation with the responder at `{path}` failed")]
    Socket {
        /// The socket.
        path: PathBuf,
        /// Reason.
        source: io::Error,
    },
    /// It does not listen to this user.
    #[error("the responder at `{path}` does not listen to this user; run as root")]
    Denied {
        /// The socket.
        path: PathBuf,
    },
    /// The responder answered something else than a reply.
    #[error("the responder's reply is not readable")]
    Reply(#[from] serde_json::Error),
    /// The responder refused.
    #[error("the responder refused: {0}")]
    Refused(String),
    /// The journal cannot be read.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The mark of the pause cannot be made or removed.
    #[error("cannot change `{path}`")]
    Mark {
        /// The mark.
        path: PathBuf,
        /// Reason.
        source: io::Error,
    },
}

/// Whether new responses are paused below `home`.
#[must_use]
pub fn is_paused(home: &Path) -> bool {
    home.join(PAUSED).exists()
}

/// Makes or removes the mark of the pause, which outlives every restart.
pub(crate) fn mark_paused(home: &Path, paused: bool) -> io::Result<()> {
    let path = home.join(PAUSED);
    if paused {
        durable::create_dirs(&home.join("var/threatlockdown"), 0o750)?;
        return durable::replace(&path, b"", 0o640);
    }
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// What came of a request.
#[derive(Debug, Default)]
pub struct Carried {
    /// What became of the orders concerned.
    pub outcomes: Vec<Outcome>,
    /// So many effects were concerned that they are only counted.
    pub counted: usize,
    /// How many effects were still open at the end, where they were only counted.
    pub open: u64,
}

/// Carries `request` out: through the running service, or where none runs on the journal under its lock, with a
/// responder made by `setup` for the moment. Returns what became of the orders within `patience`.
///
/// # Errors
/// When neither way works.
pub fn carry_out(setup: Setup, request: Request, patience: Duration) -> Result<Carried, ControlError> {
    let home = setup.home.clone();
    let undoing = matches!(request, Request::Revert(_));
    if let Some(reply) = ask(&home, &request)? {
        return settle(&home, reply, undoing, patience);
    }
    if let Request::Pause | Request::Resume = request {
        let paused = matches!(request, Request::Pause);
        return mark_paused(&home, paused)
            .map(|()| Carried::default())
            .map_err(|source| ControlError::Mark { path: home.join(PAUSED), source });
    }
    let (outcomes, _unread) = channel();
    let responder = Responder::start(setup, outcomes)?;
    let done = settle(&home, responder.control(request), undoing, patience);
    responder.stop();
    done
}

fn settle(home: &Path, reply: Reply, undoing: bool, patience: Duration) -> Result<Carried, ControlError> {
    match reply {
        Reply::Taken(orders) => {
            let outcomes = await_outcomes(home, orders, undoing, patience)?;
            Ok(Carried { outcomes, ..Carried::default() })
        }
        Reply::Many(counted) => {
            let end = SystemClock.boot() + patience;
            let mut open = journal::count(home)?;
            while undoing && open > 0 && SystemClock.boot() < end {
                std::thread::sleep(LONG_PAUSE);
                open = journal::count(home)?;
            }
            Ok(Carried { outcomes: Vec::new(), counted, open })
        }
        Reply::Refused(why) => Err(ControlError::Refused(why)),
        Reply::Status(_) => Ok(Carried::default()),
    }
}

/// Asks the running service; none when nobody listens.
fn ask(home: &Path, request: &Request) -> Result<Option<Reply>, ControlError> {
    let path = home.join(SOCKET);
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::PermissionDenied => ControlError::Denied { path: path.clone() },
        _ => ControlError::Socket { path: path.clone(), source },
    };
    let socket = match connect(&path) {
        Ok(socket) => socket,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            return Ok(None);
        }
        Err(error) => return Err(failed(error)),
    };
    socket.send(&serde_json::to_vec(request)?, TALK).map_err(failed)?;
    match socket.recv(MESSAGE, TALK).map_err(failed)? {
        Received::Message(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
        Received::Closed => Err(failed(io::ErrorKind::PermissionDenied.into())),
        Received::TimedOut => Err(failed(io::ErrorKind::TimedOut.into())),
        Received::TooLong => Err(failed(io::ErrorKind::FileTooLarge.into())),
    }
}

fn await_outcomes(
    home: &Path,
    orders: Vec<OrderId>,
    undoing: bool,
    patience: Duration,
) -> Result<Vec<Outcome>, ControlError> {
    let end = SystemClock.boot() + patience;
    let mut told: Vec<Outcome> = Vec::new();
    let mut open = orders;
    loop {
        let mut left = Vec::new();
        for order in open {
            let listed = journal::find(home, &order)?;
            let settled = listed.as_ref().is_none_or(|one| {
                let kind = one.outcome.as_ref().map(|outcome| outcome.kind);
                one.state == State::Closed
                    || kind == Some(OutcomeKind::RevertFailed)
                    || (!undoing && kind.is_some())
            });
            match listed.and_then(|one| one.outcome).filter(|_| settled) {
                Some(outcome) => told.push(outcome),
                None if settled => {}
                None => left.push(order),
            }
        }
        if left.is_empty() || SystemClock.boot() >= end {
            return Ok(told);
        }
        open = left;
        std::thread::sleep(PAUSE);
    }
}

fn connect(path: &Path) -> io::Result<Seqpacket> {
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, FLAGS, None)?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(Seqpacket::from_fd(socket))
}

/// Opens the door. Without it the service works on; operators then stop it to use the offline way.
pub(crate) fn open(
    home: &Path,
    inbox: SyncSender<Input>,
    ended: Arc<AtomicBool>,
    log: &LogFn,
) -> Option<JoinHandle<()>> {
    let path = home.join(SOCKET);
    let listener = match listen(&path) {
        Ok(listener) => listener,
        Err(error) => {
            log(&format!("`{}` cannot be opened, operators cannot ask: {error}", path.display()));
            return None;
        }
    };
    let log = Arc::clone(log);
    let work = move || {
        let wait = Timespec::try_from(Duration::from_millis(300)).ok();
        while !ended.load(Ordering::SeqCst) {
            let ready = poll(&mut [PollFd::new(&listener, PollFlags::IN)], wait.as_ref());
            if !matches!(ready, Ok(count) if count > 0) {
                continue;
            }
            if let Ok(peer) = rustix::net::accept_with(&listener, FLAGS)
                && let Err(error) = serve(&Seqpacket::from_fd(peer), &inbox)
            {
                log(&format!("an operator's request failed: {error}"));
            }
        }
        let _ = std::fs::remove_file(&path);
    };
    std::thread::Builder::new().name("control".into()).spawn(work).ok()
}

/// The journal's lock is held, so a socket that is there already belongs to nobody.
fn listen(path: &Path) -> io::Result<OwnedFd> {
    let _ = std::fs::remove_file(path);
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, FLAGS, None)?;
    rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
    std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    rustix::net::listen(&socket, 8)?;
    Ok(socket)
}

fn serve(peer: &Seqpacket, inbox: &SyncSender<Input>) -> io::Result<()> {
    let uid = peer.peer()?.uid;
    if uid != 0 && uid != rustix::process::geteuid().as_raw() {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, format!("user {uid} may not ask")));
    }
    let Received::Message(bytes) = peer.recv(MESSAGE, TALK)? else { return Ok(()) };
    let reply = match serde_json::from_slice(&bytes) {
        Ok(request) => put(inbox, request),
        Err(error) => Reply::Refused(format!("the request is not readable: {error}")),
    };
    peer.send(&serde_json::to_vec(&reply)?, TALK)
}

/// Hands a request to the executor and waits for its reply.
pub(crate) fn put(inbox: &SyncSender<Input>, request: Request) -> Reply {
    let (reply, answer): (Sender<Reply>, _) = channel();
    if inbox.send(Input::Control(request, reply)).is_err() {
        return Reply::Refused("it has stopped".into());
    }
    answer.recv_timeout(TALK).unwrap_or_else(|_| Reply::Refused("it is too busy to answer".into()))
}

const SOCKET: &str = "var/threatlockdown/responder.sock";
const PAUSED: &str = "var/threatlockdown/paused";
const FLAGS: SocketFlags = SocketFlags::CLOEXEC;
const MESSAGE: usize = 1 << 17;
const TALK: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(20);
const LONG_PAUSE: Duration = Duration::from_millis(250);
