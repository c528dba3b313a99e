//! A change in the making: what a caller decides while nobody else can change the registry.
//! Invariant: nothing is seen by others before all of it is on disk.

use std::collections::BTreeMap;
use std::sync::Arc;

use tld_model::{AgentId, Timestamp};
use tld_wire::key::{AgentKey, KeyFile, KeyLine, Secret, generate};
use tld_wire::name::{RegisteredIp, is_agent_name};

use super::{Activity, Agent, Table};

/// An agent to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewAgent {
    /// Its name.
    pub name: String,
    /// From where it may speak.
    pub ip: RegisteredIp,
    /// Its id as written; none = the next free one.
    pub id: Option<String>,
    /// Its key; none = a fresh random one.
    pub key: Option<Secret>,
    /// Its groups.
    pub groups: Vec<String>,
}

impl NewAgent {
    /// With a fresh id and key, in no group.
    pub fn new(name: impl Into<String>, ip: RegisteredIp) -> Self {
        Self { name: name.into(), ip, id: None, key: None, groups: Vec::new() }
    }
}

/// Why an agent cannot be added.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddError {
    /// Not a name.
    #[error("`{0}` is not an agent name")]
    Name(String),
    /// The key has other characters than a name may have.
    #[error("the key is empty or has characters that a key may not have")]
    Key,
    /// Not an id, or the manager's own.
    #[error("`{0}` is not an agent id")]
    Id(String),
    /// The id was given before.
    #[error("the id `{0}` was given before")]
    DuplicateId(String),
    /// The name is taken.
    #[error("the name `{0}` is taken")]
    DuplicateName(String),
    /// The address is taken.
    #[error("the address `{0}` is taken")]
    DuplicateIp(RegisteredIp),
    /// Eight digits do not suffice.
    #[error("no agent id is left")]
    NoIds,
    /// The system gives no random bytes.
    #[error("no random bytes: {0}")]
    Random(String),
}

/// The change.
#[derive(Debug)]
pub struct Edit {
    pub(super) file: KeyFile,
    pub(super) table: Table,
    pub(super) now: Timestamp,
    pub(super) added: BTreeMap<AgentId, Arc<Agent>>,
    pub(super) removed: Vec<Arc<Agent>>,
    pub(super) changed: bool,
}

impl Edit {
    /// The registry with the change so far.
    pub const fn table(&self) -> &Table {
        &self.table
    }

    /// The moment of the change.
    pub const fn now(&self) -> Timestamp {
        self.now
    }

    /// Whether given name, id and key may stand in a key file and the id is free; what [`Self::remove`] cannot mend.
    ///
    /// # Errors
    /// When not.
    pub fn check(&self, new: &NewAgent) -> Result<(), AddError> {
        if !is_agent_name(&new.name) {
            return Err(AddError::Name(new.name.clone()));
        }
        if new.key.as_ref().is_some_and(|key| !is_agent_name(key.expose())) {
            return Err(AddError::Key);
        }
        new.id.as_deref().map_or(Ok(()), |id| self.free(id))
    }

    /// Adds an agent. Id, name and address must be free; remove who has them first.
    ///
    /// # Errors
    /// When one is not, or something may not stand in a key file.
    pub fn add(&mut self, new: NewAgent) -> Result<Arc<Agent>, AddError> {
        self.check(&new)?;
        if self.table.by_name(&new.name).is_some() {
            return Err(AddError::DuplicateName(new.name));
        }
        if self.table.by_ip(&new.ip).is_some() {
            return Err(AddError::DuplicateIp(new.ip));
        }
        let id = new.id.or_else(|| self.file.next_id()).ok_or(AddError::NoIds)?;
        let number = id.parse::<AgentId>().map_err(|_not_digits| AddError::Id(id.clone()))?;
        let key = new.key.map_or_else(fresh_key, Ok)?;
        let key = AgentKey { id, name: new.name, ip: new.ip, key };
        let activity = Activity { groups: new.groups, ..Activity::default() };
        let agent = Agent::new(number, key, Some(self.now), activity);
        self.file.lines.push(KeyLine::Agent(agent.key.clone()));
        self.table.insert(Arc::clone(&agent));
        self.added.insert(number, Arc::clone(&agent));
        self.changed = true;
        Ok(agent)
    }

    /// Takes an agent out and gives it back, if it was there. Without `purge` its line stays, marked as removed.
    pub fn remove(&mut self, id: AgentId, purge: bool) -> Option<Arc<Agent>> {
        let agent = self.table.remove(id)?;
        self.file.remove(&agent.key.id, purge);
        if self.added.remove(&id).is_none() {
            self.removed.push(Arc::clone(&agent));
        }
        self.changed = true;
        Some(agent)
    }

    /// Takes out the lines of agents that were removed earlier; their ids may be given again.
    pub fn purge_removed(&mut self) -> usize {
        let before = self.file.lines.len();
        self.file.lines.retain(|line| !matches!(line, KeyLine::Removed(_)));
        let gone = before - self.file.lines.len();
        self.changed |= gone > 0;
        gone
    }

    fn free(&self, id: &str) -> Result<(), AddError> {
        let number = id.parse::<AgentId>().ok().filter(|number| *number != AgentId::MANAGER);
        let number = number.ok_or_else(|| AddError::Id(id.into()))?;
        let taken = self.file.lines.iter().any(|line| match line {
            KeyLine::Agent(agent) | KeyLine::Removed(agent) => agent.id.parse() == Ok(number),
            KeyLine::Other(_) => false,
        });
        if taken { Err(AddError::DuplicateId(id.into())) } else { Ok(()) }
    }
}

fn fresh_key() -> Result<Secret, AddError> {
    let mut random = zeroize::Zeroizing::new([0; 32]);
    getrandom::fill(&mut *random).map_err(|error| AddError::Random(error.to_string()))?;
    Ok(generate(&random))
}
