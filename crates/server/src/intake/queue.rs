//! `queue/sockets/queue`: events that tools of this host bring in the contract's text form (wire 4.1).
//! Invariant: an event that claims an agent is that agent's only if the registry knows it by this id and name.

use std::os::unix::net::UnixDatagram;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use tld_model::{Agent, AgentId, Event, Timestamp};
use tld_wire::event::{Header, LIMIT, Parts};

use super::{Counts, Setup};
use crate::registry::Registry;

/// Queue ids that carry no events to be judged: database synchronisation and upgrades.
const NOT_JUDGED: [u8; 2] = [b'5', b'u'];

/// Serves the socket until `stop`.
pub(super) fn serve(socket: &UnixDatagram, setup: &Setup, counts: &Counts, stop: &AtomicBool) {
    super::datagrams(socket, LIMIT, "events of local tools", &setup.log, stop, |datagram| {
        let event = datagram.and_then(|datagram| event(datagram, &setup.registry, setup.now()));
        counts.handed(event.is_some_and(|event| (setup.events)(event)));
    });
}

/// The event in a datagram.
pub(super) fn event(datagram: &[u8], registry: &Registry, now: Timestamp) -> Option<Event> {
    let parts = Parts::parse(datagram).ok()?;
    if NOT_JUDGED.contains(&parts.queue) {
        return None;
    }
    // A location that only begins like a header is a format error of the contract.
    let Some(header) = Header::parse(&parts.location) else {
        let is_broken = parts.location.starts_with(b"[") && !parts.location.contains(&b']');
        return (!is_broken).then(|| parts.into_event(Arc::default(), now));
    };
    let id: AgentId = header.id.parse().ok()?;
    let known = registry.table().by_id(id).filter(|agent| agent.key.name == header.name).cloned();
    let agent = known.map_or_else(
        || {
            Arc::new(Agent {
                id,
                name: header.name.to_owned(),
                registered_ip: header.ip.to_owned(),
                ..Agent::default()
            })
        },
        |agent| agent.origin(),
    );
    Some(Event {
        queue: parts.queue,
        location: header.location.into(),
        agent,
        text: parts.message.to_vec(),
        received: now,
    })
}
