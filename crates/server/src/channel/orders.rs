//! The way from the rest of the manager to agents.
//! Invariant: the agent's version and what it declared choose the form of what it gets; nothing in an alert does.

use std::sync::MutexGuard;

use tld_model::{AgentId, ExecMessage, OrderId, Outcome};
use tld_wire::ar::{self, Form};
use tld_wire::control::FromManager;
use tld_wire::counter::Counter;
use tld_wire::extension::{self, Ticket};
use tld_wire::seal::PAYLOAD_LIMIT;
use tld_wire::version::Version;

use super::Hub;
use super::lane::Command;
use super::peer::{Link, State};
use crate::reach::{Queued, Reach, ReachError};

impl Hub {
    /// Puts what `make` says in line for an agent that is there.
    fn queue<R>(
        &self,
        id: AgentId,
        order: Option<&OrderId>,
        make: impl FnOnce(&State, Option<Version>) -> Result<(Vec<u8>, R), ReachError>,
    ) -> Result<R, ReachError> {
        let peer = self.peer(id).ok_or(ReachError::Away)?;
        let mut state = peer.state();
        let link = state.link.ok_or(ReachError::Away)?;
        let version = state.session.version();
        // An old agent tells its version with its first keep-alive, and the form depends on it.
        if version.is_none() && !state.ready {
            return Err(ReachError::Away);
        }
        let (payload, answer) = make(&state, version)?;
        if payload.len() > PAYLOAD_LIMIT {
            return Err(ReachError::Encode);
        }
        if !state.queue(payload, order.cloned()) {
            return Err(ReachError::Full);
        }
        self.call(id, link, state);
        Ok(answer)
    }

    /// Tells an agent over a stream how far its messages are taken, unless it knows.
    pub(super) fn tell_taken(&self, id: AgentId, pair: Counter) {
        let Some(peer) = self.peer(id) else { return };
        let mut state = peer.state();
        let Some(link @ Link::Stream { .. }) = state.link else { return };
        if state.session.confirms() && state.told.is_some_and(|told| told < pair) {
            state.tell_taken(pair);
            self.call(id, link, state);
        }
    }

    /// Has what waits for an agent sent.
    fn call(&self, id: AgentId, link: Link, mut state: MutexGuard<'_, State>) {
        let called = std::mem::replace(&mut state.called, true);
        drop(state);
        if called {
            return;
        }
        match link {
            Link::Stream { lane, token } => self.post(lane, Command::Flush(token)),
            Link::Datagrams { .. } => self.post(0, Command::FlushDatagrams(id)),
        }
    }

    /// Agents with a connection on which they told their state.
    pub fn connected(&self) -> Vec<AgentId> {
        self.peers().iter().filter(|peer| peer.state().ready).map(|peer| peer.id()).collect()
    }
}

impl Reach for Hub {
    fn order(&self, agent: AgentId, message: &ExecMessage, ticket: &Ticket) -> Result<Queued, ReachError> {
        self.queue(agent, Some(&ticket.order), |state, version| {
            if state.session.confirms() {
                let payload = state.session.order(message, ticket).map_err(|_unsaid| ReachError::Encode)?;
                return Ok((payload, Queued::Confirming));
            }
            let text = ar::text(Form::of(version), message).map_err(|_unsaid| ReachError::Encode)?;
            Ok((FromManager::Execd(text.into_bytes()).to_bytes(), Queued::Plain))
        })
    }

    fn relay(&self, agent: AgentId, payload: &[u8]) -> Result<Queued, ReachError> {
        self.queue(agent, None, |state, _| {
            let queued = if state.session.confirms() { Queued::Confirming } else { Queued::Plain };
            Ok((payload.to_vec(), queued))
        })
    }

    fn confirm(&self, agent: AgentId, outcome: &Outcome) -> Result<(), ReachError> {
        self.queue(agent, None, |state, _| {
            let payload = state.session.confirm(outcome).ok_or(ReachError::TooOld)?;
            Ok((payload, ()))
        })
    }

    fn cancel(&self, agent: AgentId, order: &OrderId) -> Result<(), ReachError> {
        self.queue(agent, None, |state, _| {
            if !state.session.confirms() {
                return Err(ReachError::TooOld);
            }
            let message = extension::FromManager::Cancel { order: order.clone() };
            Ok((FromManager::Extension(message).to_bytes(), ()))
        })
    }
}
