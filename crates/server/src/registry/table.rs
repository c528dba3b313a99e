//! The agents of one generation of the key file, with the ways to find them. Readers hold a generation as long as they like.
//! Invariant: ids, names and registered addresses lead to at most one agent each; of duplicates in the file the first counts.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use tld_model::AgentId;
use tld_wire::name::RegisteredIp;

use super::Agent;

/// A generation.
#[derive(Debug, Clone, Default)]
pub struct Table {
    by_id: BTreeMap<AgentId, Arc<Agent>>,
    by_name: HashMap<String, AgentId>,
    by_host: HashMap<IpAddr, AgentId>,
    by_network: HashMap<String, AgentId>,
    generation: u64,
}

impl Table {
    pub(super) fn numbered(generation: u64) -> Self {
        Self { generation, ..Self::default() }
    }

    pub(super) const fn renumber(&mut self, generation: u64) {
        self.generation = generation;
    }

    /// Grows with each change, so that a reader sees by one comparison whether something changed.
    pub const fn generation(&self) -> u64 {
        self.generation
    }

    /// All agents in the order of their ids.
    pub fn agents(&self) -> impl ExactSizeIterator<Item = &Arc<Agent>> {
        self.by_id.values()
    }

    /// The agent of that number.
    pub fn by_id(&self, id: AgentId) -> Option<&Arc<Agent>> {
        self.by_id.get(&id)
    }

    /// The agent of that name.
    pub fn by_name(&self, name: &str) -> Option<&Arc<Agent>> {
        self.by_id.get(self.by_name.get(name)?)
    }

    /// The agent whose registered address is that peer's; the way of messages without `!id!`.
    pub fn by_source(&self, address: IpAddr) -> Option<&Arc<Agent>> {
        self.by_id.get(self.by_host.get(&address.to_canonical())?)
    }

    /// The agent registered with exactly that address or network; none for `any`.
    pub fn by_ip(&self, ip: &RegisteredIp) -> Option<&Arc<Agent>> {
        let id = match ip.single() {
            Some(address) => self.by_host.get(&address.to_canonical())?,
            None => self.by_network.get(ip.as_str())?,
        };
        self.by_id.get(id)
    }

    /// Takes an agent in, unless its id is taken.
    pub(super) fn insert(&mut self, agent: Arc<Agent>) -> bool {
        if self.by_id.contains_key(&agent.id) {
            return false;
        }
        self.by_name.entry(agent.key.name.clone()).or_insert(agent.id);
        match agent.key.ip.single() {
            Some(address) => {
                self.by_host.entry(address.to_canonical()).or_insert(agent.id);
            }
            None if !agent.key.ip.is_any() => {
                self.by_network.entry(agent.key.ip.to_string()).or_insert(agent.id);
            }
            None => {}
        }
        self.by_id.insert(agent.id, agent);
        true
    }

    pub(super) fn remove(&mut self, id: AgentId) -> Option<Arc<Agent>> {
        let agent = self.by_id.remove(&id)?;
        if self.by_name.get(&agent.key.name) == Some(&id) {
            self.by_name.remove(&agent.key.name);
        }
        if let Some(address) = agent.key.ip.single().map(|address| address.to_canonical()) {
            if self.by_host.get(&address) == Some(&id) {
                self.by_host.remove(&address);
            }
        } else if self.by_network.get(agent.key.ip.as_str()) == Some(&id) {
            self.by_network.remove(agent.key.ip.as_str());
        }
        Some(agent)
    }
}
