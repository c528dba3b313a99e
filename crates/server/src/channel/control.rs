//! What control messages do: who is there, in which state, with which files.
//! Invariant: no call to the attendant is made under a lock, so that it may send at once.

use std::sync::Arc;

use tld_model::{Event, OrderId, Outcome};
use tld_wire::control::{FromManager, KeepAlive};
use tld_wire::event;
use tld_wire::seal::{Method, Opened};
use tld_wire::session::manager::Step;

use super::Hub;
use super::peer::{Link, Peer, State as Place};
use super::receive::{From, Stalled, Taken};
use crate::log::Level;
use crate::registry::{Agent, State, Status};

/// What the rest of the manager is told once the agent's place is unlocked.
enum Told {
    Ready { confirms: bool },
    Gone,
    Received(OrderId),
    Outcome(Box<Outcome>),
}

impl Hub {
    /// Takes an opened control message.
    pub(super) fn control(
        &self,
        agent: &Arc<Agent>,
        peer: &Arc<Peer>,
        from: &From,
        method: Method,
        opened: &Opened,
    ) -> Taken {
        let mut told = Vec::new();
        let mut event = None;
        {
            let mut place = peer.state();
            if place.link != Some(from.link) {
                if place.link.is_some() {
                    told.push(Told::Gone);
                }
                place.bind(from.link, self.session());
            }
            place.method = method;
            place.heard = from.now;
            let taken = place.taken;
            for step in place.session.on_payload(&opened.payload) {
                match step {
                    // Without room the agent does not read; it will ask again.
                    Step::Send(payload) => drop(place.queue(payload, None)),
                    Step::Bind => {}
                    Step::Pending => {
                        self.pending(agent, &place);
                        if place.session.confirms() {
                            // An agent that counts anew has lost what it had sent before.
                            let taken = taken.filter(|taken| *taken < opened.counter).unwrap_or_default();
                            place.tell_taken(taken);
                        }
                    }
                    Step::Refused => refused(agent, &place),
                    Step::Active(alive) => {
                        self.active(agent, from, &alive);
                        let bundle = self.shared.of(&agent.groups());
                        if let Some(bundle) =
                            bundle.filter(|bundle| alive.merged_sum.as_ref() != Some(&bundle.md5))
                        {
                            place.push(&bundle, from.now);
                        }
                        if !std::mem::replace(&mut place.ready, true) {
                            told.push(Told::Ready { confirms: place.session.confirms() });
                        }
                    }
                    Step::Left => {
                        place.ready = false;
                        told.push(Told::Gone);
                        event = self.left(agent, from);
                    }
                    Step::Answer(id, text) => {
                        if matches!(from.link, Link::Datagrams { .. }) {
                            place.queue(FromManager::AnswerReceived(id.clone()).to_bytes(), None);
                        }
                        self.queries.answer(agent.id, &id, text);
                    }
                    Step::Event(_) => {}
                    Step::Received(order) => told.push(Told::Received(order)),
                    Step::Outcome(outcome) => told.push(Told::Outcome(outcome)),
                    Step::Ignored(text) => {
                        let text = String::from_utf8_lossy(text.get(..80).unwrap_or(&text)).into_owned();
                        let text = format!("agent {}: message not understood: `{text}`", agent.key.id);
                        self.complain(Level::Warning, &text);
                    }
                }
            }
        }
        self.tell(agent, told);
        if let Some(event) = event.and_then(|event| self.hand_over(event)) {
            let stalled = Stalled { event, peer: Arc::clone(peer), pair: opened.counter, bound: true };
            return Taken::Stall(Arc::clone(agent), stalled);
        }
        peer.state().taken = Some(opened.counter);
        Taken::Answer(Arc::clone(agent), Arc::clone(peer))
    }

    fn tell(&self, agent: &Arc<Agent>, told: Vec<Told>) {
        let Some(attendant) = self.attendant() else { return };
        for one in told {
            match one {
                Told::Ready { confirms } => attendant.ready(agent, confirms),
                Told::Gone => attendant.gone(agent.id),
                Told::Received(order) => attendant.received(agent.id, &order),
                Told::Outcome(outcome) => attendant.outcome(agent.id, *outcome),
            }
        }
    }

    fn pending(&self, agent: &Agent, place: &Place) {
        agent.update(|activity| {
            activity.state = State::Pending;
            activity.status = Status::Fine;
            activity.node.clone_from(&self.options.node);
            if let Some(version) = place.session.version() {
                activity.version = Some(version.to_string());
            }
        });
    }

    fn active(&self, agent: &Agent, from: &From, alive: &KeepAlive) {
        let visible = alive.labels.iter().filter(|label| !label.hidden && !label.system);
        let labels = visible.map(|label| (label.key.clone(), label.value.clone())).collect();
        let ip = alive.ip.unwrap_or(from.address).to_string();
        agent.update(|activity| {
            activity.state = State::Active;
            activity.status = Status::Fine;
            activity.last_keep_alive = Some(from.received);
            activity.disconnected_at = None;
            if let Some(version) = alive.product.as_deref().and_then(|product| product.rsplit(' ').next()) {
                activity.version = Some(version.to_owned());
            }
            activity.os = Some(alive.system.clone());
            activity.ip = Some(ip);
            activity.merged_sum.clone_from(&alive.merged_sum);
            activity.config_sum.clone_from(&alive.config_sum);
            activity.node.clone_from(&self.options.node);
            activity.labels = labels;
        });
    }

    /// The agent's goodbye becomes an event of its own.
    fn left(&self, agent: &Agent, from: &From) -> Option<Event> {
        agent.update(|activity| {
            activity.state = State::Disconnected;
            activity.status = Status::ShutDown;
            activity.disconnected_at = Some(from.received);
        });
        event::from_agent(&event::agent_stopped(&agent.key), agent.origin(), from.received).ok()
    }
}

fn refused(agent: &Agent, place: &Place) {
    let told = place.session.version().is_some();
    agent.update(|activity| {
        activity.status = if told { Status::VersionTooNew } else { Status::VersionUnknown };
    });
}
