//! What goes by time: silent agents, removed agents, counters on disk.
//! Invariant: nothing here is waited for by a lane.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use tld_wire::event;

use super::Hub;
use super::lane::Command;
use super::peer::Link;
use super::shared::DEFAULT_GROUP;
use crate::registry::{Agent, State};

const PERIOD: Duration = Duration::from_secs(1);
/// Between two writes of checked counters.
const COUNTERS: u32 = 5;
/// Rounds in which what was taken has been judged, as far as a crash is concerned.
const SETTLING: u32 = 2;

/// Looks once a second until the sender is gone.
pub(super) fn keep(hub: &Hub, ended: &Receiver<()>) {
    let mut keeper = Keeper { hub, missing: Vec::new(), generation: None, round: 0 };
    loop {
        let last = !matches!(ended.recv_timeout(PERIOD), Err(RecvTimeoutError::Timeout));
        keeper.look(last);
        if last {
            return;
        }
    }
}

struct Keeper<'h> {
    hub: &'h Hub,
    /// Agents that fell silent, and when that is to be reported.
    missing: Vec<(Duration, Arc<Agent>)>,
    generation: Option<u64>,
    round: u32,
}

impl Keeper<'_> {
    fn look(&mut self, last: bool) {
        self.round = self.round.wrapping_add(1);
        if let Err(error) = self.hub.counters.secure() {
            self.hub.log.error(&format!("agents' channel: the message counter is not stored: {error}"));
        }
        if last || self.round.is_multiple_of(COUNTERS) {
            self.save_counters();
        }
        if last || self.round.is_multiple_of(SETTLING) {
            self.settle(last);
        }
        self.group();
        self.note_silent();
        self.report_missing();
        self.cut_removed();
    }

    fn save_counters(&self) {
        if !self.hub.counters.verifies() {
            return;
        }
        for peer in self.hub.peers() {
            let pair = {
                let mut state = peer.state();
                std::mem::take(&mut state.replay_unsaved).then(|| state.replay.last())
            };
            let Some(pair) = pair else { continue };
            if let Err(error) = self.hub.counters.save(peer.id(), pair) {
                peer.state().replay_unsaved = true;
                self.hub.log.error(&format!("agents' channel: counters are not stored: {error}"));
                return;
            }
        }
    }

    /// Stores how far agents' messages are taken, and tells those that want to know. What was taken since the last look may
    /// still wait to be judged; at the end everything that was taken will be.
    fn settle(&self, last: bool) {
        let peers = self.hub.peers();
        let mut settled = Vec::with_capacity(peers.len());
        for peer in &peers {
            let mut state = peer.state();
            let now = state.taken;
            let before = std::mem::replace(&mut state.settled, now);
            let pair = if last { now } else { before };
            // Others never ask.
            if let Some(pair) = pair.filter(|_| state.session.confirms() || last) {
                settled.push((peer.id(), pair));
            }
        }
        let table = self.hub.registry.table();
        let stored = self.hub.taken.store(settled.iter().copied(), |id| table.by_id(id).is_some());
        if let Err(error) = stored {
            self.hub.log.error(&format!("agents' channel: what was taken is not stored: {error}"));
            return;
        }
        if last {
            return;
        }
        for (id, pair) in settled {
            self.hub.tell_taken(id, pair);
        }
    }

    /// Agents that are in no group are in the default one from their first sign of life on.
    fn group(&mut self) {
        let table = self.hub.registry.table();
        for agent in table.agents().filter(|agent| agent.state() == State::Active && agent.has_no_group()) {
            let groups = vec![DEFAULT_GROUP.to_owned()];
            if let Err(error) = self.hub.registry.set_groups(agent.id, groups) {
                self.hub.log.error(&format!("agents' channel: {error}"));
                return;
            }
        }
    }

    fn note_silent(&mut self) {
        let due = self.hub.clock.boot() + self.hub.options.alert_time;
        for agent in self.hub.registry.disconnect_silent(self.hub.options.disconnection_time) {
            if let Some(peer) = self.hub.peer(agent.id) {
                // Its connection may still stand; its next keep-alive makes it ready again.
                peer.state().ready = false;
            }
            if let Some(attendant) = self.hub.attendant() {
                attendant.gone(agent.id);
            }
            self.missing.push((due, agent));
        }
    }

    fn report_missing(&mut self) {
        let now = self.hub.clock.boot();
        let received = self.hub.now();
        self.missing.retain(|(due, agent)| {
            if agent.state() != State::Disconnected {
                return false;
            }
            if now < *due {
                return true;
            }
            let text =
                format!("1:wazuh-monitord:ossec: Agent disconnected: '{}-{}'.", agent.key.name, agent.key.ip);
            // A full pipeline is tried again at the next look.
            event::from_agent(text.as_bytes(), agent.origin(), received)
                .is_ok_and(|event| self.hub.hand_over(event).is_some())
        });
    }

    /// An agent whose key is gone or another one loses its connection.
    fn cut_removed(&mut self) {
        let table = self.hub.registry.table();
        if self.generation.replace(table.generation()) == Some(table.generation()) {
            return;
        }
        for peer in self.hub.peers() {
            if table.by_id(peer.id()).is_some_and(|agent| Arc::ptr_eq(agent, &peer.agent)) {
                continue;
            }
            self.hub.forget(&peer);
            let link = {
                let mut state = peer.state();
                let link = state.link;
                state.unbind();
                link
            };
            if let Some(Link::Stream { lane, token }) = link {
                self.hub.post(lane, Command::Close(token));
            }
            if let Some(attendant) = self.hub.attendant() {
                attendant.gone(peer.id());
            }
        }
    }
}
