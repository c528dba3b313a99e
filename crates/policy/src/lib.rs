//! Which responses an alert causes, and for every other one the reason why it does not run.
//!
//! Pure: rules and responses are bound once, at load (active-response 3.1); each alert is then decided from what it
//! carries. Invariant: a value that a response does not use never stops it.

mod binding;
mod reason;
mod subject;

use std::collections::HashMap;
use std::net::IpAddr;

use tld_config::{AllowEntry, Contested, Response, Settings};
use tld_model::{AgentId, Alert, RuleId, Target};
use tld_rules::{RuleInfo, Ruleset};

pub use binding::{Because, bind};
pub use reason::Reason;
pub use subject::{Subject, Uses};

/// Where an order goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// The machine that decides: the manager, or the one host of a standalone installation.
    Here,
    /// One agent.
    Agent(AgentId),
    /// Every agent.
    All,
}

/// What was decided about one response for one alert.
#[derive(Debug, Clone)]
pub struct Decision<'p> {
    /// The response.
    pub response: &'p Response,
    /// Why it was considered at all.
    pub because: Because,
    /// What it acts on, as far as it can be told here.
    pub target: Target,
    /// Where it runs, or why it does not.
    pub outcome: Result<Destination, Reason>,
}

/// Responses bound to the rules of one ruleset.
#[derive(Debug)]
pub struct Policy {
    responses: Vec<Response>,
    allow: Vec<AllowEntry>,
    bound: HashMap<RuleId, Vec<(usize, Because)>>,
}

impl Policy {
    /// Binds the configured responses to the rules (active-response 3.1).
    pub fn new(settings: &Settings, ruleset: &Ruleset) -> Self {
        let mut bound: HashMap<RuleId, Vec<(usize, Because)>> = HashMap::new();
        for rule in ruleset.rules() {
            let list = bind_all(&settings.responses, rule);
            if !list.is_empty() {
                bound.insert(rule.id, list);
            }
        }
        Self { responses: settings.responses.clone(), allow: settings.global.white_list.clone(), bound }
    }

    /// Responses in the order of the configuration.
    pub fn responses(&self) -> &[Response] {
        &self.responses
    }

    /// Responses bound to a rule.
    pub fn bound(&self, rule: RuleId) -> impl Iterator<Item = (&Response, Because)> {
        self.bound
            .get(&rule)
            .into_iter()
            .flatten()
            .filter_map(|(index, because)| self.responses.get(*index).map(|response| (response, *because)))
    }

    /// The allow-list entry that forbids acting on this target, for orders that no rule gave.
    pub fn allow_listed(&self, target: &Target) -> Option<String> {
        let Target::Address(address) = target else { return None };
        let raw_source = Some(address.to_string().into_bytes());
        self.allowed(&Subject { address: Some(*address), raw_source, user: None })
    }

    /// Decides every response bound to the alert's rule, in configuration order. Empty for most alerts, at the price of
    /// one look-up.
    pub fn decide(&self, alert: &Alert) -> Vec<Decision<'_>> {
        if alert.no_response || !self.bound.contains_key(&alert.rule.id) {
            return Vec::new();
        }
        let subject = Subject::of(alert);
        self.bound(alert.rule.id)
            .map(|(response, because)| self.judge(alert, &subject, response, because))
            .collect()
    }

    fn judge<'p>(
        &self,
        alert: &Alert,
        subject: &Subject,
        response: &'p Response,
        because: Because,
    ) -> Decision<'p> {
        let uses = Uses::of(&response.executable);
        let (target, contested) = self.target(alert, subject, response, uses);
        let chosen = Self::chosen(alert, subject, response, &target);
        let outcome = self
            .refusal(alert, chosen.as_ref().unwrap_or(subject), uses, because)
            .or(contested)
            .or_else(|| no_address(subject, uses, &target))
            .map_or_else(|| destination(response, alert.agent.id), Err);
        Decision { response, because, target, outcome }
    }

    fn refusal(&self, alert: &Alert, subject: &Subject, uses: Uses, because: Because) -> Option<Reason> {
        let own_log = alert.rule.groups().split(',').any(|group| group == "active_response");
        if own_log && because == Because::Level {
            return Some(Reason::OwnLog);
        }
        if !uses.address() {
            return None;
        }
        let entry = self.allowed(subject)?;
        Some(Reason::AllowListed { entry })
    }

    /// What the response sees where `<contested>last` took another value than the decoded one, which then protects nobody.
    fn chosen(alert: &Alert, subject: &Subject, response: &Response, target: &Target) -> Option<Subject> {
        if response.contested != Contested::Last || alert.contested.is_empty() {
            return None;
        }
        match target {
            Target::Address(address) if subject.address != Some(*address) => Some(Subject {
                address: Some(*address),
                raw_source: Some(address.to_string().into_bytes()),
                user: subject.user.clone(),
            }),
            _ => None,
        }
    }

    /// The allow-list entry that covers the address which the response would act on.
    fn allowed(&self, subject: &Subject) -> Option<String> {
        let address = subject.address;
        let name = subject.raw_source.as_deref();
        self.allow.iter().find_map(|entry| match entry {
            AllowEntry::Network(network) => {
                address.filter(|address| network.contains(*address)).map(|_| network.to_string())
            }
            // The pattern form is for names, but installations write address prefixes in it too (`^10.0.0.`).
            AllowEntry::Host { text, pattern } => pattern.is_match(name?).then(|| text.clone()),
        })
    }

    /// The value acted on. With `<contested>first|last` one of the rivals is taken, by its place in the line.
    fn target(
        &self,
        alert: &Alert,
        subject: &Subject,
        response: &Response,
        uses: Uses,
    ) -> (Target, Option<Reason>) {
        let field = if uses.user() { "dstuser" } else { "srcip" };
        let rivals: Vec<String> = alert
            .contested
            .iter()
            .filter(|(name, _)| *name == field && (uses.user() || uses.address()))
            .map(|(_, value)| String::from_utf8_lossy(value).into_owned())
            .collect();
        let decoded = match (uses.user(), subject.address, &subject.user) {
            (true, _, Some(user)) => Target::User(user.clone()),
            (false, Some(address), _) if uses.address() => Target::Address(address),
            _ => Target::None,
        };
        if rivals.is_empty() {
            return (decoded, None);
        }
        match response.contested {
            Contested::Refuse => (decoded, Some(Reason::Contested { field, rivals })),
            // The expressions of the contract take the first value of a line, so the decoded one is the first.
            Contested::First => (decoded, None),
            Contested::Last => (rivals.last().map_or(decoded, |text| rival(field, text)), None),
        }
    }
}

/// A host name or a word like `UNKNOWN` cannot be blocked: said once here, rather than as a failure on every endpoint.
fn no_address(subject: &Subject, uses: Uses, target: &Target) -> Option<Reason> {
    if uses != Uses::Address || *target != Target::None {
        return None;
    }
    let shown =
        |text: &Vec<u8>| String::from_utf8_lossy(&text[..text.len().min(SHOWN)]).escape_debug().to_string();
    Some(Reason::NoAddress { source: subject.raw_source.as_ref().map(shown) })
}

fn rival(field: &str, text: &str) -> Target {
    match (field, tld_pattern::parse_address(text.as_bytes())) {
        ("srcip", Some(address)) => Target::Address(address),
        ("srcip", None) => Target::None,
        _ => Target::User(text.to_owned()),
    }
}

fn bind_all(responses: &[Response], rule: &RuleInfo) -> Vec<(usize, Because)> {
    let each = responses.iter().enumerate();
    each.filter_map(|(index, response)| bind(response, rule).map(|because| (index, because))).collect()
}

/// Destination in the contract's order (active-response 3.4). Agent `000` is this machine wherever it is named.
fn destination(response: &Response, origin: AgentId) -> Result<Destination, Reason> {
    let at = response.location;
    if at.server || (at.local && origin == AgentId::MANAGER) {
        Ok(Destination::Here)
    } else if at.all {
        Ok(Destination::All)
    } else if at.defined_agent {
        response.agent_id.map(Destination::Agent).ok_or(Reason::NoAgent)
    } else {
        Ok(Destination::Agent(origin))
    }
}

const SHOWN: usize = 100;

/// True for an address that documentation and tests use and that no real host has (RFC 5737, RFC 3849).
pub fn is_documentation(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_documentation(),
        IpAddr::V6(v6) => v6.segments().starts_with(&[0x2001, 0xdb8]),
    }
}

#[cfg(test)]
mod tests;
