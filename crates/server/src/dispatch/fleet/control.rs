//! The operator's door to a running manager: `var/threatlockdown/manager/door.sock`, one framed JSON request and one reply for each
//! connection. Whoever asks learns there which orders are concerned, and what became of them from the ledger.
//! Invariant: only root, or the user that the manager runs as, is listened to.

use std::fs;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tld_config::Response;
use tld_model::{AgentId, Order, OrderId, Target, Timestamp};
use tld_policy::Policy;
use tld_respond::RevertSelector;
use tld_sys::unix_socket;
use tld_wire::frame;

use super::Fleet;
use super::book::{Act, Book};
use crate::dispatch::ledger::{Audience, Draft};
use crate::framed;
use crate::registry::Table;

/// Time that one connection may take.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
/// Below the home.
const SOCKET: &str = "var/threatlockdown/manager/door.sock";
/// Orders that a reply names, and reasons.
const NAMED: usize = 1_000;
const REASONS: usize = 20;
/// A response that ends so soon takes the place of an undo on agents that know none.
const SOON: u64 = 10;

/// What an operator asks for.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// Carry out an order given by hand, on agents.
    Add(Box<Draft>),
    /// Undo on agents before its time.
    Revert {
        /// What.
        selector: RevertSelector,
        /// On one agent only.
        agent: Option<u32>,
    },
}

/// What the manager says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// Begun.
    Taken {
        /// The first of the orders that are concerned.
        orders: Vec<OrderId>,
        /// How many others there are.
        more: usize,
        /// Why some cannot be undone.
        stuck: Vec<String>,
    },
    /// Not done, for this reason.
    Refused(String),
}

/// The manager was not asked, or did not answer.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Nobody serves the home.
    #[error("no manager serves `{}`; start it first", path.display())]
    Absent {
        /// The socket.
        path: PathBuf,
    },
    /// The conversation broke off.
    #[error("the conversation with the manager at `{}` failed", path.display())]
    Socket {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Asks the manager of a home.
///
/// # Errors
/// When there is none, or it may not be asked.
pub fn ask(home: &Path, request: &Request) -> Result<Reply, ControlError> {
    let path = home.join(SOCKET);
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            ControlError::Absent { path: path.clone() }
        }
        _ => ControlError::Socket { path: path.clone(), source },
    };
    let converse = || {
        let mut stream = UnixStream::connect(&path)?;
        let text = serde_json::to_vec(request)?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.write_all(&frame::encode(&text).map_err(io::Error::other)?)?;
        let reply = read(&stream, PATIENCE * 2)?;
        Ok(serde_json::from_slice(&reply)?)
    };
    converse().map_err(failed)
}

/// The door is shut before strangers without a word.
fn read(stream: &UnixStream, patience: Duration) -> io::Result<Vec<u8>> {
    framed::receive(stream, patience).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => io::ErrorKind::PermissionDenied.into(),
        _ => error,
    })
}

/// The open door. Dropping it closes it.
#[derive(Debug)]
pub struct Door {
    path: PathBuf,
    wake: Option<io::PipeWriter>,
    thread: Option<JoinHandle<()>>,
}

impl Door {
    /// Opens the door of a home whose lock is held: a socket that is there already belongs to nobody.
    ///
    /// # Errors
    /// The socket or its thread cannot be made.
    pub fn open(home: &Path, fleet: Arc<Fleet>) -> io::Result<Self> {
        let path = home.join(SOCKET);
        let _ = fs::remove_file(&path);
        let listener = UnixListener::bind(&path)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
        listener.set_nonblocking(true)?;
        // What we make belongs to whom we are.
        let own = fs::symlink_metadata(&path)?.uid();
        let (asleep, wake) = io::pipe()?;
        let thread = std::thread::Builder::new().name("manager-door".into()).spawn(move || {
            while let Ok([ready, false]) =
                tld_sys::ready::readable(&[listener.as_fd(), asleep.as_fd()], Duration::from_secs(3_600))
                    .as_deref()
            {
                if let (true, Ok((mut stream, _))) = (ready, listener.accept()) {
                    // An operator who goes away has nobody to be told.
                    let _ = serve(&mut stream, own, &fleet);
                }
            }
        })?;
        Ok(Self { path, wake: Some(wake), thread: Some(thread) })
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        drop(self.wake.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn serve(stream: &mut UnixStream, own: u32, fleet: &Fleet) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    let peer = unix_socket::peer(&*stream)?;
    if peer.uid != 0 && peer.uid != own {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    let reply = match serde_json::from_slice(&read(stream, PATIENCE)?) {
        Ok(request) => fleet.control(request),
        Err(error) => Reply::Refused(format!("the request is not readable: {error}")),
    };
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(&frame::encode(&serde_json::to_vec(&reply)?).map_err(io::Error::other)?)
}

/// Does what was asked, as far as the book goes.
pub(super) fn carry_out(
    book: &mut Book,
    request: Request,
    endless: Vec<(OrderId, AgentId, Draft)>,
    policy: &Policy,
    table: &Table,
    now: Timestamp,
) -> Reply {
    match request {
        Request::Add(draft) => add(book, *draft, policy, table, now),
        Request::Revert { selector, agent } => {
            let which = Which { selector, agent: agent.map(AgentId) };
            revert(book, &which, endless, policy, table, now)
        }
    }
}

/// The allow list holds for operators too; they may change it.
fn add(book: &mut Book, draft: Draft, policy: &Policy, table: &Table, now: Timestamp) -> Reply {
    if let Some(entry) = policy.allow_listed(&draft.order.target) {
        let reason = format!("{} is allow-listed by <white_list>{entry}</white_list>", draft.order.target);
        let agent = match draft.audience {
            Audience::One(agent) => AgentId(agent),
            Audience::All { .. } => AgentId::MANAGER,
        };
        book.refused(draft, agent, &reason, now);
        return Reply::Refused(reason);
    }
    let base = draft.order.id.clone();
    let is_one = matches!(draft.audience, Audience::One(_));
    book.submit(draft, false, table, now);
    let mut orders = if is_one { vec![base] } else { book.of_draft(&base) };
    let more = orders.len().saturating_sub(NAMED);
    orders.truncate(NAMED);
    Reply::Taken { orders, more, stuck: Vec::new() }
}

/// Which orders an operator means.
struct Which {
    selector: RevertSelector,
    agent: Option<AgentId>,
}

impl Which {
    fn means(&self, id: &OrderId, of: AgentId, order: &Order) -> bool {
        let here = self.agent.is_none_or(|agent| agent == of);
        here && match &self.selector {
            RevertSelector::Order(wanted) => wanted == id || *wanted == order.id,
            RevertSelector::Address(address) => order.target == Target::Address(address.to_canonical()),
            RevertSelector::Target(target) => {
                order.target != Target::None && order.target.to_string() == *target
            }
            RevertSelector::All => true,
        }
    }
}

/// Responses whose effect lasts until it is undone.
fn lasts(order: &Order) -> bool {
    order.target != Target::None || order.executable.starts_with("isolate-host")
}

fn revert(
    book: &mut Book,
    which: &Which,
    endless: Vec<(OrderId, AgentId, Draft)>,
    policy: &Policy,
    table: &Table,
    now: Timestamp,
) -> Reply {
    let means = |id: &OrderId, of: AgentId, order: &Order| which.means(id, of, order);
    let (mut orders, plain) = book.withdraw(means, now);
    let mut stuck = Vec::new();
    for (id, agent, draft) in plain {
        match soon_over(policy.responses(), &draft) {
            Some(short) => {
                let order = Order {
                    id: OrderId(format!("{id}-end")),
                    response: short.name.clone(),
                    timeout_secs: short.timeout_secs,
                    created: now,
                    ..draft.order.clone()
                };
                let draft = Draft { order, audience: Audience::One(agent.0), verbatim: None, ..(*draft).clone() };
                orders.push(id);
                book.submit(draft, false, table, now);
            }
            None => stuck.push(format!(
                "order {id}: agents of the contract take no undo before its time; configure a response of `{}` with a \
                 timeout of at most {SOON} s, and its shorter time will be sent instead",
                draft.order.executable
            )),
        }
    }
    for (id, agent, draft) in endless {
        if lasts(&draft.order) && which.means(&id, agent, &draft.order) {
            book.acts.push(Act::Cancel(agent, id.clone()));
            orders.push(id);
        }
    }
    let more = orders.len().saturating_sub(NAMED);
    orders.truncate(NAMED);
    stuck.truncate(REASONS);
    Reply::Taken { orders, more, stuck }
}

/// A plain agent knows what is in force by executable and target only, and takes over the time of whatever response comes next
/// (active-response 6.7): a short one ends a long one.
fn soon_over<'r>(responses: &'r [Response], draft: &Draft) -> Option<&'r Response> {
    let order = &draft.order;
    let fits = |response: &&Response| {
        response.executable == order.executable && (1..=SOON).contains(&response.timeout_secs)
    };
    responses.iter().filter(|_| order.timeout_secs > SOON).find(fits)
}
