//! One agent as the channel knows it: the connection that is its own, its session, and what waits to be sent to it.
//! Invariant: what waits weighs at most [`OUTBOX`], or is one message; it waits for one connection and ends with it.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tld_model::{AgentId, OrderId};
use tld_wire::control::FromManager;
use tld_wire::counter::{Counter, ReceiverCounter};
use tld_wire::extension;
use tld_wire::merged;
use tld_wire::seal::Method;
use tld_wire::session::manager::Session;

use super::shared::Bundle;
use crate::registry::Agent;

/// Bytes that may wait for one agent, before they are sealed.
pub(super) const OUTBOX: usize = 256 << 10;

/// How soon a bundle is sent again to an agent that goes on reporting another one.
const PUSH_AGAIN: Duration = Duration::from_secs(60);

/// A connection, or for UDP the address it came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Link {
    /// Of a lane.
    Stream { lane: usize, token: u64 },
    /// Through a socket of the first lane.
    Datagrams { socket: usize, address: SocketAddr },
}

/// A file on its way.
#[derive(Debug)]
struct Transfer {
    bundle: Arc<Bundle>,
    /// Bytes that were sent; none before the announcement.
    at: Option<usize>,
}

/// A message that waits.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) payload: Vec<u8>,
    /// The order in it, for the figures.
    pub(super) order: Option<OrderId>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) agent: Arc<Agent>,
    state: Mutex<State>,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) link: Option<Link>,
    pub(super) session: Session,
    /// How the agent sealed its last control message, and so how it is answered.
    pub(super) method: Method,
    /// Time since boot of the last message over the link.
    pub(super) heard: Duration,
    /// The agent has told its state on this link.
    pub(super) ready: bool,
    /// A lane was asked to send what waits.
    pub(super) called: bool,
    pub(super) replay: ReceiverCounter,
    /// The pair is newer than the stored one.
    pub(super) replay_unsaved: bool,
    /// The pair of the last message that was done with.
    pub(super) taken: Option<Counter>,
    /// What that was when the keeper looked last, and what the agent was told.
    pub(super) settled: Option<Counter>,
    pub(super) told: Option<Counter>,
    /// The file that is on its way, and the last one with the time since boot when its way began.
    transfer: Option<Transfer>,
    pushed: Option<(String, Duration)>,
    outbox: VecDeque<Outgoing>,
    bytes: usize,
}

impl Peer {
    pub(super) fn new(
        agent: Arc<Agent>,
        session: Session,
        replay: ReceiverCounter,
        taken: Option<Counter>,
    ) -> Self {
        let state = State {
            link: None,
            session,
            method: Method::default(),
            heard: Duration::ZERO,
            ready: false,
            called: false,
            replay,
            replay_unsaved: false,
            taken,
            settled: taken,
            told: None,
            transfer: None,
            pushed: None,
            outbox: VecDeque::new(),
            bytes: 0,
        };
        Self { agent, state: Mutex::new(state) }
    }

    pub(super) fn id(&self) -> AgentId {
        self.agent.id
    }

    /// Gives a connection up if it is still the agent's own.
    pub(super) fn leave(&self, link: Link) -> bool {
        let mut state = self.state();
        let own = state.link == Some(link);
        if own {
            state.unbind();
        }
        own
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Another connection is the agent's from now on; nothing of the former one holds. An agent that sends datagrams from
    /// another port is still in the same session.
    pub(super) fn bind(&mut self, link: Link, session: Session) {
        if let (Some(Link::Datagrams { .. }), Link::Datagrams { .. }) = (self.link, link) {
            self.link = Some(link);
            return;
        }
        self.unbind();
        self.link = Some(link);
        self.session = session;
    }

    /// The agent has no connection.
    pub(super) fn unbind(&mut self) {
        self.link = None;
        self.ready = false;
        self.called = false;
        self.told = None;
        self.transfer = None;
        self.pushed = None;
        self.outbox = VecDeque::new();
        self.bytes = 0;
    }

    /// Sends the agent a bundle unless that is on its way, or was lately without the agent having taken it.
    pub(super) fn push(&mut self, bundle: &Arc<Bundle>, now: Duration) {
        let same = self.pushed.as_ref().is_some_and(|(md5, since)| {
            *md5 == bundle.md5 && (self.transfer.is_some() || now.saturating_sub(*since) < PUSH_AGAIN)
        });
        if !same {
            self.pushed = Some((bundle.md5.clone(), now));
            self.transfer = Some(Transfer { bundle: Arc::clone(bundle), at: None });
        }
    }

    /// Tells the agent how far its messages are taken.
    pub(super) fn tell_taken(&mut self, pair: Counter) {
        let message = FromManager::Extension(extension::FromManager::Taken(pair));
        if self.queue(message.to_bytes(), None) {
            self.told = Some(pair);
        }
    }

    /// Whether the next message is a piece of a file, which datagrams carry at a measured pace.
    pub(super) fn next_is_piece(&self) -> bool {
        self.outbox.is_empty() && self.transfer.is_some()
    }

    /// Puts a message in line; false if there is no room.
    pub(super) fn queue(&mut self, payload: Vec<u8>, order: Option<OrderId>) -> bool {
        if self.bytes > 0 && self.bytes + payload.len() > OUTBOX {
            return false;
        }
        self.bytes += payload.len();
        self.outbox.push_back(Outgoing { payload, order });
        true
    }

    /// The next message.
    pub(super) fn next(&mut self) -> Option<Outgoing> {
        let Some(next) = self.outbox.pop_front() else {
            // A burst's memory is not kept for quiet times.
            self.outbox = VecDeque::new();
            return self.next_piece();
        };
        self.bytes -= next.payload.len();
        Some(next)
    }

    /// The next message of a file: its announcement, a piece, or its end. Everything else goes first.
    fn next_piece(&mut self) -> Option<Outgoing> {
        let transfer = self.transfer.as_mut()?;
        let bytes = &transfer.bundle.bytes;
        let payload = match transfer.at {
            None => {
                transfer.at = Some(0);
                let md5 = transfer.bundle.md5.clone();
                FromManager::UpFile { md5, name: "merged.mg".into() }.to_bytes()
            }
            Some(at) if at < bytes.len() => {
                let piece = merged::piece(bytes, at).to_vec();
                transfer.at = Some(at + piece.len());
                piece
            }
            Some(_) => {
                self.transfer = None;
                FromManager::CloseFile.to_bytes()
            }
        };
        Some(Outgoing { payload, order: None })
    }
}
