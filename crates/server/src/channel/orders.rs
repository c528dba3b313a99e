//! The way from the rest of the manager to agents.
//! Invariant: the agent's version and what it declared choose the form of what it gets; nothing in an alert does.

use serde_json::Value;
use tld_model::{AgentId, ExecMessage, OrderId, Outcome};
use tld_wire::ar::{Form, Legacy, neutralise};
use tld_wire::control::FromManager;
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
        let called = std::mem::replace(&mut state.called, true);
        drop(state);
        if !called {
            match link {
                Link::Stream { lane, token } => self.post(lane, Command::Flush(token)),
                Link::Datagrams { .. } => self.post(0, Command::FlushDatagrams(id)),
            }
        }
        Ok(answer)
    }

    /// Queues a control message of any kind, as it is behind `#!-`.
    ///
    /// # Errors
    /// When it was not queued.
    pub fn control_message(&self, agent: AgentId, payload: Vec<u8>) -> Result<(), ReachError> {
        self.queue(agent, None, |_, _| Ok((payload, ())))
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
                let payload = state.session.order(message, ticket).map_err(|_| ReachError::Encode)?;
                return Ok((payload, Queued::Confirming));
            }
            let text = match Form::of(version) {
                Form::Json => message.to_line().map_err(|_| ReachError::Encode)?,
                Form::Neutralised => neutralise(&message.to_line().map_err(|_| ReachError::Encode)?),
                Form::Legacy => legacy(message).ok_or(ReachError::Encode)?,
            };
            Ok((FromManager::Execd(text.into_bytes()).to_bytes(), Queued::Plain))
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

/// The line for agents before 4.2, out of the alert that the message carries.
fn legacy(message: &ExecMessage) -> Option<String> {
    let alert: Value = serde_json::from_str(message.parameters.alert.get()).ok()?;
    let text = |path: &str| alert.pointer(path).and_then(Value::as_str);
    let place = text("/location").unwrap_or("-");
    let location = match (text("/agent/id"), text("/agent/name")) {
        (Some(id), Some(name)) if id != "000" => {
            format!("({name}) {}->{place}", text("/agent/ip").unwrap_or("any"))
        }
        _ => format!("{}->{place}", text("/manager/name").unwrap_or("-")),
    };
    let extra = message.parameters.extra_args.join(" ");
    let line = Legacy {
        response: &message.command,
        user: text("/data/dstuser"),
        ip: text("/data/srcip"),
        alert_id: text("/id").unwrap_or("-"),
        rule: text("/rule/id").unwrap_or("-"),
        location: &location,
        file: text("/syscheck/path"),
        extra: (!extra.is_empty()).then_some(&extra),
    };
    Some(line.to_line())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_agents_get_a_line_made_from_the_alert() {
        let json = r#"{"version":1,"origin":{"name":"","module":"wazuh-analysisd"},"command":"firewall-drop600","parameters":{"extra_args":["-x","2"],"alert":{"id":"1772446530.48213","rule":{"id":"100200"},"agent":{"id":"001","name":"web01","ip":"10.0.0.21"},"data":{"srcip":"::ffff:203.0.113.7","dstuser":"bob"},"location":"/var/log/auth.log"}}}"#;
        let message: ExecMessage = serde_json::from_str(json).unwrap();
        assert_eq!(
            legacy(&message).unwrap(),
            "firewall-drop600 bob 203.0.113.7 1772446530.48213 100200 (web01) 10.0.0.21->/var/log/auth.log - -x 2"
        );
    }
}
