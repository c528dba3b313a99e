//! What a message from the network is: a probe, an event, a control message, or nothing to be believed.
//! Invariant: nothing before [`Opener::open`] trusts a byte of it, and nothing behind asks who sent it but by the key.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tld_model::{Event, Timestamp};
use tld_sys::queue::Refused;
use tld_wire::control::LEAD;
use tld_wire::counter::Counter;
use tld_wire::event;
use tld_wire::frame;
use tld_wire::seal::{Envelope, OpenError, Opener};

use super::Hub;
use super::lane::Command;
use super::peer::{Link, Peer};
use crate::log::Level;
use crate::registry::Agent;

/// Where a message came from, and when.
#[derive(Debug, Clone, Copy)]
pub(super) struct From {
    pub(super) link: Link,
    pub(super) address: IpAddr,
    /// Time since boot.
    pub(super) now: Duration,
    /// The moment for rules and alerts.
    pub(super) received: Timestamp,
}

/// An event that the pipeline did not take.
#[derive(Debug)]
pub(super) struct Stalled {
    pub(super) event: Event,
    /// Whose it is, and the pair of its message.
    pub(super) peer: Arc<Peer>,
    pub(super) pair: Counter,
    /// The connection became the agent's own with the message.
    pub(super) bound: bool,
}

/// What is to be done next on the connection.
#[derive(Debug)]
pub(super) enum Taken {
    /// Go on. The agent proved its key.
    Done(Arc<Agent>),
    /// Go on, after what was put in line for this agent is sent. The connection is its own now.
    Answer(Arc<Agent>, Arc<Peer>),
    /// The pipeline is full: offer this event again before anything else of this connection, which may have become the
    /// agent's own.
    Stall(Arc<Agent>, Stalled),
    /// A probe in clear.
    Ping,
    /// The connection has no business here.
    Close,
}

impl Hub {
    /// Takes one message.
    pub(super) fn take(&self, opener: &mut Opener, from: &From, message: &[u8]) -> Taken {
        if frame::is_ping(message) {
            return Taken::Ping;
        }
        let (agent, envelope) = match self.sender(from, message) {
            Ok(found) => found,
            Err(reason) => return self.refuse(from, &reason),
        };
        let opened = match opener.open(agent.sealing(), envelope.method, envelope.ciphertext) {
            Ok(opened) => opened,
            Err(error) => return self.refuse(from, &format!("agent {}: {error}", agent.key.id)),
        };
        let peer = self.peer_of(&agent);
        if !self.may_use(from, &agent, &peer) {
            return Taken::Close;
        }
        {
            let mut state = peer.state();
            if self.counters.verifies() {
                if let Err(replay) = state.replay.check(opened.counter) {
                    drop(state);
                    let error = OpenError::from(replay);
                    return self.refuse(from, &format!("agent {}: {error}", agent.key.id));
                }
                state.replay_unsaved = true;
            }
            if state.link == Some(from.link) {
                state.heard = from.now;
            }
        }
        self.tally.received.fetch_add(1, Ordering::Relaxed);
        if opened.payload.starts_with(LEAD) {
            self.tally.control.fetch_add(1, Ordering::Relaxed);
            return self.control(&agent, &peer, from, envelope.method, &opened);
        }
        match event::from_agent(&opened.payload, agent.origin(), from.received) {
            Ok(event) => {
                if let Some(event) = self.hand_over(event) {
                    let pair = opened.counter;
                    return Taken::Stall(agent, Stalled { event, peer, pair, bound: false });
                }
            }
            Err(_) => {
                self.tally.dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
        peer.state().taken = Some(opened.counter);
        Taken::Done(agent)
    }

    /// Offers a stalled event again; it comes back while the pipeline is full.
    pub(super) fn offer(&self, stalled: Stalled) -> Option<Stalled> {
        let Stalled { event, peer, pair, bound } = stalled;
        match self.hand_over(event) {
            Some(event) => Some(Stalled { event, peer, pair, bound }),
            None => {
                peer.state().taken = Some(pair);
                None
            }
        }
    }

    /// Gives an event to the pipeline; it comes back when that is full.
    pub(super) fn hand_over(&self, event: Event) -> Option<Event> {
        match self.events.try_send(event) {
            Ok(()) => {
                self.tally.events.fetch_add(1, Ordering::Relaxed);
                None
            }
            Err(Refused::Full(event)) => {
                self.tally.stalls.fetch_add(1, Ordering::Relaxed);
                Some(event)
            }
            // The manager is going down. An agent of ours has kept what is not called taken.
            Err(Refused::Closed(event)) => Some(event),
        }
    }

    /// The agent that a message claims to be from, if it may speak from there.
    fn sender<'m>(&self, from: &From, message: &'m [u8]) -> Result<(Arc<Agent>, Envelope<'m>), String> {
        let envelope = Envelope::parse(message).map_err(|error| error.to_string())?;
        let table = self.registry.table();
        let agent = match envelope.id {
            Some(id) => {
                let named = id.parse().ok().and_then(|id| table.by_id(id)).filter(|agent| agent.key.id == id);
                let agent = named.ok_or_else(|| format!("there is no agent `{id}`"))?;
                if !agent.may_speak_from(from.address) {
                    return Err(format!("agent {id} is registered for `{}`", agent.key.ip));
                }
                agent
            }
            None => table.by_source(from.address).ok_or("no agent is registered for this address")?,
        };
        Ok((Arc::clone(agent), envelope))
    }

    fn refuse(&self, from: &From, reason: &str) -> Taken {
        self.tally.refused.fetch_add(1, Ordering::Relaxed);
        self.complain(Level::Warning, &format!("message from `{}` refused: {reason}", from.address));
        Taken::Close
    }

    /// One live stream per key: a second one is refused, unless the first has been silent for long.
    fn may_use(&self, from: &From, agent: &Agent, peer: &Peer) -> bool {
        let mut state = peer.state();
        let Some(Link::Stream { lane, token }) = state.link.filter(|link| *link != from.link) else {
            return true;
        };
        if !matches!(from.link, Link::Stream { .. }) {
            return true;
        }
        let (overtake, silence) = (self.options.overtake, from.now.saturating_sub(state.heard));
        if overtake.is_zero() || silence <= overtake {
            drop(state);
            self.complain(
                Level::Warning,
                &format!(
                    "agent {}: its key is in use by another connection, `{}` is refused",
                    agent.key.id, from.address
                ),
            );
            return false;
        }
        state.unbind();
        drop(state);
        if let Some(attendant) = self.attendant() {
            attendant.gone(agent.id);
        }
        self.complain(
            Level::Info,
            &format!("agent {}: `{}` takes the place of a silent connection", agent.key.id, from.address),
        );
        self.post(lane, Command::Close(token));
        true
    }
}
