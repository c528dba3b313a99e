//! What an alert says of the event's agent and location, which is the same for all events from there.

use std::sync::Arc;

use tld_model::Agent;

use super::data::Tree;
use super::json::Object;
use crate::analyzer::Settings;

/// Longest location behind an agent's wrapping.
const LOCATION_LIMIT: usize = 1022;

/// Of one agent and location.
#[derive(Debug, Default)]
pub(super) struct Place {
    agent: Arc<Agent>,
    location: Vec<u8>,
    /// From `agent` to the gap for the id.
    pub(super) head: Vec<u8>,
    /// From `location` to the end.
    pub(super) tail: Vec<u8>,
}

impl Place {
    /// Whether alerts from there say the same.
    pub(super) fn is(&self, agent: &Agent, location: &[u8]) -> bool {
        let own = &*self.agent;
        !self.head.is_empty()
            && own.id == agent.id
            && self.location == location
            && own.ip == agent.ip
            && own.labels == agent.labels
    }

    /// Makes the pieces anew.
    #[cold]
    #[inline(never)]
    pub(super) fn set(&mut self, agent: &Arc<Agent>, location: &[u8], settings: &Settings) {
        let Self { head, tail, .. } = self;
        let agentless = agentless(agent, location);
        let manager = settings.manager_name.as_bytes();
        head.clear();
        let mut root = Object::open(head);
        if agentless.is_none() {
            write_agent(agent, location, manager, root.named("agent"));
        }
        let mut object = Object::open(root.named("manager"));
        object.text("name", manager);
        object.close();
        root.named("id").push(b'"');
        tail.clear();
        let mut root = Object::open(tail);
        root.text("location", inner(location));
        if let Some([script, user, host]) = agentless {
            let mut object = Object::open(root.named("agentless"));
            object.text("script", script);
            object.text("user", user);
            object.text("host", host);
            object.close();
        }
        root.close();
        // Both are pieces of one object: their brace becomes the comma before them.
        (head[0], tail[0]) = (b',', b',');
        self.agent = Arc::clone(agent);
        self.location.clear();
        self.location.extend_from_slice(location);
    }
}

fn write_agent(agent: &Agent, location: &[u8], manager: &[u8], out: &mut Vec<u8>) {
    let mut object = Object::open(out);
    object.text("id", agent.id.to_string().as_bytes());
    let wrapped = wrapped(location);
    object.text("name", wrapped.map_or(manager, |(name, _)| name));
    let ip = agent.ip.as_deref().map(str::as_bytes).or_else(|| wrapped.and_then(|(_, ip)| ip));
    if let Some(ip) = ip.filter(|ip| !ip.is_empty() && *ip != b"any") {
        object.text("ip", ip);
    }
    if !agent.labels.is_empty() {
        let mut labels = Tree::default();
        for (key, value) in &agent.labels {
            labels.insert(key.as_bytes(), value.as_bytes());
        }
        labels.write(object.named("labels"));
    }
    object.close();
}

/// Name and address of `(name) ip->path`.
fn wrapped(location: &[u8]) -> Option<(&[u8], Option<&[u8]>)> {
    let rest = location.strip_prefix(b"(")?;
    let close = memchr::memchr(b')', rest)?;
    let ip = rest[close..].strip_prefix(b") ").map(|ip| {
        let end = memchr::memchr(b'-', ip).unwrap_or(ip.len());
        &ip[..end]
    });
    Some((&rest[..close], ip))
}

fn inner(location: &[u8]) -> &[u8] {
    if !location.starts_with(b"(") {
        return location;
    }
    let inner = memchr::memchr(b'>', location).map_or(location, |at| &location[at + 1..]);
    &inner[..inner.len().min(LOCATION_LIMIT)]
}

/// Script, user and host of `(script) user@host->...` at the manager itself.
fn agentless<'l>(agent: &Agent, location: &'l [u8]) -> Option<[&'l [u8]; 3]> {
    if agent.id != tld_model::AgentId::MANAGER {
        return None;
    }
    let rest = location.strip_prefix(b"(")?;
    let close = memchr::memmem::find(rest, b") ")?;
    let (script, rest) = (&rest[..close], &rest[close + 2..]);
    let rest = &rest[..memchr::memmem::find(rest, b"->")?];
    let at = memchr::memchr(b'@', rest)?;
    Some([script, &rest[..at], &rest[at + 1..]])
}
