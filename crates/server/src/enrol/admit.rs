//! One request line to one answer: the contract's grammar and decisions over the registry.
//! Invariant: an answer that grants a key is given only when the key is on disk.

use std::cell::OnceCell;
use std::net::IpAddr;
use std::sync::Arc;

use tld_model::{AgentId, Timestamp};
use tld_wire::enrol::decide::{self, Contact, Force, Registered, Settings};
use tld_wire::enrol::{Answer, Reason, Request};
use tld_wire::key::Secret;
use tld_wire::name::RegisteredIp;

use crate::log::Log;
use crate::registry::{AddError, Agent, Edit, NewAgent, Registry, State};

/// What requests are judged by.
#[derive(Debug)]
pub(super) struct Admission {
    pub(super) registry: Arc<Registry>,
    pub(super) settings: Settings,
    pub(super) password: Option<Secret>,
    pub(super) purge: bool,
    pub(super) log: Log,
}

impl Admission {
    /// Answers a request line and carries out what it grants.
    pub(super) fn answer(&self, line: &[u8], peer: IpAddr) -> Answer {
        match self.admit(line, peer) {
            Ok((agent, replaced)) => {
                let instead = if replaced.is_empty() {
                    String::new()
                } else {
                    format!(", in place of {}", replaced.join(" and "))
                };
                self.log.info(&format!(
                    "enrolment: agent `{}` ({}) from `{peer}`{instead}",
                    agent.key.name, agent.key.id
                ));
                Answer::Granted(agent.key.clone())
            }
            Err(reason) => {
                self.log.warning(&format!("enrolment: refused for `{peer}`: {reason}"));
                reason.into()
            }
        }
    }

    fn admit(&self, line: &[u8], peer: IpAddr) -> Result<(Arc<Agent>, Vec<String>), Reason> {
        let request = Request::parse(line, self.password.as_ref())?;
        let name = request.name.clone();
        let wish = Wish { request, peer, force: self.settings.force, id: None, key: None };
        self.carry_out(wish).map_err(|refusal| match refusal {
            Refusal::Reason(reason) => reason,
            Refusal::Add(AddError::DuplicateName(name)) => Reason::DuplicateName(name),
            Refusal::Add(AddError::DuplicateIp(ip)) => Reason::DuplicateIp(ip.to_string()),
            Refusal::Add(_) | Refusal::Broken => Reason::Internal(name),
        })
    }

    /// Decides and, if granted, registers; tells the ids of those that gave way.
    pub(super) fn carry_out(&self, wish: Wish) -> Result<(Arc<Agent>, Vec<String>), Refusal> {
        let (registry, purge) = (Arc::clone(&self.registry), self.purge);
        let settings = Settings { force: wish.force, ..self.settings.clone() };
        let done = self.registry.edit(move |edit| admit(edit, wish, &settings, &registry, purge));
        done.unwrap_or_else(|error| {
            self.log.error(&format!("enrolment: {error}"));
            Err(Refusal::Broken)
        })
    }
}

/// What is asked for, by the port or by the local socket.
#[derive(Debug)]
pub(super) struct Wish {
    pub(super) request: Request,
    pub(super) peer: IpAddr,
    pub(super) force: Force,
    pub(super) id: Option<String>,
    pub(super) key: Option<Secret>,
}

/// Why it is not granted.
#[derive(Debug)]
pub(super) enum Refusal {
    /// By the contract's rules.
    Reason(Reason),
    /// By the registry's.
    Add(AddError),
    /// The registry cannot be written.
    Broken,
}

fn admit(
    edit: &mut Edit,
    wish: Wish,
    settings: &Settings,
    registry: &Registry,
    purge: bool,
) -> Result<(Arc<Agent>, Vec<String>), Refusal> {
    let view = View { edit, registry, by_name: OnceCell::new(), by_ip: OnceCell::new() };
    let granted =
        decide::decide(&wish.request, wish.peer, settings, &view, edit.now()).map_err(Refusal::Reason)?;
    let new = NewAgent {
        groups: granted.groups,
        id: wish.id,
        key: wish.key,
        ..NewAgent::new(granted.name, granted.ip)
    };
    // Nobody gives way to an agent that cannot be added.
    edit.check(&new).map_err(Refusal::Add)?;
    let replaced = granted.replaces.iter().filter_map(|id| id.parse::<AgentId>().ok());
    for id in replaced.collect::<Vec<_>>() {
        edit.remove(id, purge);
    }
    Ok((edit.add(new).map_err(Refusal::Add)?, granted.replaces))
}

/// The registry as decisions want to see it. They look at one name and one address at most.
struct View<'a> {
    edit: &'a Edit,
    registry: &'a Registry,
    by_name: OnceCell<Option<Registered>>,
    by_ip: OnceCell<Option<Registered>>,
}

impl decide::Registry for View<'_> {
    fn by_name(&self, name: &str) -> Option<&Registered> {
        let found = || self.edit.table().by_name(name).map(|agent| registered(agent));
        self.by_name.get_or_init(found).as_ref().filter(|agent| agent.name == name)
    }

    fn by_ip(&self, ip: &RegisteredIp) -> Option<&Registered> {
        self.by_ip.get_or_init(|| self.edit.table().by_ip(ip).map(|agent| registered(agent))).as_ref()
    }

    fn has_group(&self, group: &str) -> bool {
        self.registry.has_group(group)
    }
}

fn registered(agent: &Agent) -> Registered {
    let activity = agent.activity();
    let gone = || activity.disconnected_at.or(activity.last_keep_alive).unwrap_or(Timestamp::EPOCH);
    Registered {
        id: agent.key.id.clone(),
        name: agent.key.name.clone(),
        ip: agent.key.ip.clone(),
        since: agent.registered.unwrap_or(Timestamp::EPOCH),
        key_hash: agent.key.hash(),
        contact: match activity.state {
            State::NeverConnected => Contact::Never,
            State::Pending | State::Active => Contact::Connected,
            State::Disconnected => Contact::Gone(gone()),
        },
    }
}
