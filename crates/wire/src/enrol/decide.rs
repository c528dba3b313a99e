//! Whether a request is granted: versions, groups, addresses, duplicates and forced replacement.
//! Invariant: pure. Time, peer address and registry are arguments, so every refusal can be replayed in a test.

use std::net::IpAddr;

use tld_model::Timestamp;

use super::{Reason, Request, RequestedIp};
use crate::name::RegisteredIp;
use crate::version::Version;

/// How an agent that is registered already stands with the manager.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Contact {
    /// It has never connected.
    Never,
    /// It is there, or not yet known to be gone.
    Connected,
    /// It is gone since then.
    Gone(Timestamp),
}

/// An entry of the registry, as far as duplicates are judged by it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registered {
    /// As written in the key file.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its address.
    pub ip: RegisteredIp,
    /// When it was added.
    pub since: Timestamp,
    /// [`AgentKey::hash`](crate::key::AgentKey::hash) of its key.
    pub key_hash: String,
    /// Its connection.
    pub contact: Contact,
}

/// What is registered at this moment.
pub trait Registry {
    /// The agent of that name.
    fn by_name(&self, name: &str) -> Option<&Registered>;
    /// The agent with exactly that registered address; never asked for `any`.
    fn by_ip(&self, ip: &RegisteredIp) -> Option<&Registered>;
    /// Whether the group exists.
    fn has_group(&self, group: &str) -> bool;
}

/// When a duplicate gives way (`<force>`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Force {
    /// At all.
    pub enabled: bool,
    /// Only if the key that the agent shows differs from the stored one.
    pub key_mismatch: bool,
    /// Seconds the old agent must have been gone for; `None` = not tested.
    pub disconnected_secs: Option<u32>,
    /// Seconds the old registration must have lasted for; 0 = not tested.
    pub after_registration_secs: u32,
}

impl Default for Force {
    fn default() -> Self {
        Self {
            enabled: true,
            key_mismatch: true,
            disconnected_secs: Some(3_600),
            after_registration_secs: 3_600,
        }
    }
}

/// What the manager's configuration says about enrolment, besides the password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The manager's host name: no agent may have it.
    pub manager_host: String,
    /// No agent may be newer,
    pub manager_version: Version,
    /// unless this is set.
    pub allow_higher_versions: bool,
    /// Register the peer's address when the request names none.
    pub use_source_ip: bool,
    /// Duplicates.
    pub force: Force,
}

/// A granted request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admission {
    /// The name to register.
    pub name: String,
    /// The address to register.
    pub ip: RegisteredIp,
    /// The groups to put it into.
    pub groups: Vec<String>,
    /// Ids of agents that give way to it.
    pub replaces: Vec<String>,
}

/// Decides a request that came from `peer` at `now`.
///
/// # Errors
/// With the reason that the agent is told.
pub fn decide(
    request: &Request,
    peer: IpAddr,
    settings: &Settings,
    registry: &dyn Registry,
    now: Timestamp,
) -> Result<Admission, Reason> {
    if let Some(version) = &request.version {
        let fits = |version: Version| settings.allow_higher_versions || version <= settings.manager_version;
        if !version.parse().is_ok_and(fits) {
            return Err(Reason::Version);
        }
    }
    if let Some(missing) = request.groups.iter().find(|group| !registry.has_group(group)) {
        return Err(Reason::Group(missing.clone()));
    }
    let ip = match &request.ip {
        Some(RequestedIp::Given(ip)) => ip.clone(),
        Some(RequestedIp::Source) => RegisteredIp::host(peer),
        None if settings.use_source_ip => RegisteredIp::host(peer),
        None => RegisteredIp::any(),
    };
    let mut replaces = Vec::new();
    let same_ip = if ip.is_any() { None } else { registry.by_ip(&ip) };
    if let Some(old) = same_ip {
        if !gives_way(old, request, &settings.force, now) {
            return Err(Reason::DuplicateIp(ip.to_string()));
        }
        replaces.push(old.id.clone());
    }
    if request.name == settings.manager_host {
        return Err(Reason::Name(request.name.clone()));
    }
    if let Some(old) = registry.by_name(&request.name).filter(|old| !replaces.contains(&old.id)) {
        if !gives_way(old, request, &settings.force, now) {
            return Err(Reason::DuplicateName(request.name.clone()));
        }
        replaces.push(old.id.clone());
    }
    Ok(Admission { name: request.name.clone(), ip, groups: request.groups.clone(), replaces })
}

fn gives_way(old: &Registered, request: &Request, force: &Force, now: Timestamp) -> bool {
    let lasted = |since: Timestamp, secs: u32| {
        now.nanos().saturating_sub(since.nanos()) >= i64::from(secs).saturating_mul(1_000_000_000)
    };
    let gone_long_enough = match (force.disconnected_secs, old.contact) {
        (None, _) | (Some(_), Contact::Never) => true,
        (Some(_), Contact::Connected) => false,
        (Some(secs), Contact::Gone(since)) => lasted(since, secs),
    };
    let old_enough = force.after_registration_secs == 0 || lasted(old.since, force.after_registration_secs);
    let has_that_key = force.key_mismatch
        && request.key_hash.as_ref().is_some_and(|hash| hash.eq_ignore_ascii_case(&old.key_hash));
    force.enabled && gone_long_enough && old_enough && !has_that_key
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Snapshot(Vec<Registered>);

    impl Registry for Snapshot {
        fn by_name(&self, name: &str) -> Option<&Registered> {
            self.0.iter().find(|agent| agent.name == name)
        }
        fn by_ip(&self, ip: &RegisteredIp) -> Option<&Registered> {
            assert!(!ip.is_any());
            self.0.iter().find(|agent| agent.ip == *ip)
        }
        fn has_group(&self, group: &str) -> bool {
            group == "default"
        }
    }

    fn at(secs: i64) -> Timestamp {
        Timestamp::from_nanos(secs * 1_000_000_000)
    }

    fn settings() -> Settings {
        Settings {
            manager_host: "mgr".into(),
            manager_version: Version::CONTRACT,
            allow_higher_versions: false,
            use_source_ip: false,
            force: Force::default(),
        }
    }

    fn old(contact: Contact) -> Registered {
        Registered {
            id: "004".into(),
            name: "web".into(),
            ip: "10.0.0.4".parse().unwrap(),
            since: at(0),
            key_hash: "abcd".into(),
            contact,
        }
    }

    fn ask(line: &str, settings: &Settings, agents: Vec<Registered>, now: i64) -> Result<Admission, Reason> {
        let request = Request::parse(line.as_bytes(), None).unwrap();
        decide(&request, "192.0.2.9".parse().unwrap(), settings, &Snapshot(agents), at(now))
    }

    #[test]
    fn a_duplicate_gives_way_only_when_every_condition_holds() {
        const HOUR: i64 = 3_600;
        let gone = |secs| Contact::Gone(at(secs));
        for (contact, now, hash, replaced) in [
            (Contact::Never, HOUR, "", true),
            (Contact::Never, HOUR - 1, "", false),
            (Contact::Connected, 10 * HOUR, "", false),
            (gone(9 * HOUR), 10 * HOUR, "", true),
            (gone(9 * HOUR + 1), 10 * HOUR, "", false),
            (Contact::Never, HOUR, " K:'ABCD'", false),
            (Contact::Never, HOUR, " K:'abce'", true),
        ] {
            let line = format!("OSSEC A:'web'{hash}");
            let result = ask(&line, &settings(), vec![old(contact)], now);
            let expected =
                if replaced { Ok(vec!["004".into()]) } else { Err(Reason::DuplicateName("web".into())) };
            assert_eq!(result.map(|granted| granted.replaces), expected, "{contact:?} {now} {hash}");
        }
    }

    #[test]
    fn force_switched_off_protects_every_duplicate() {
        let mut off = settings();
        off.force.enabled = false;
        let result = ask("OSSEC A:'new' IP:'10.0.0.4'", &off, vec![old(Contact::Never)], 1_000_000);
        assert_eq!(result, Err(Reason::DuplicateIp("10.0.0.4".into())));
    }

    #[test]
    fn one_agent_with_both_duplicates_gives_way_once() {
        let granted =
            ask("OSSEC A:'web' IP:'10.0.0.4'", &settings(), vec![old(Contact::Never)], 9_999).unwrap();
        assert_eq!(granted.replaces, ["004"]);
    }

    #[test]
    fn tests_can_be_switched_off() {
        let mut lax = settings();
        lax.force =
            Force { enabled: true, key_mismatch: false, disconnected_secs: None, after_registration_secs: 0 };
        assert!(ask("OSSEC A:'web' K:'abcd'", &lax, vec![old(Contact::Connected)], 1).is_ok());
    }

    #[test]
    fn the_registered_address_follows_request_and_settings() {
        let mut source = settings();
        source.use_source_ip = true;
        for (line, settings, ip) in [
            ("OSSEC A:'new'", settings(), "any"),
            ("OSSEC A:'new'", source.clone(), "192.0.2.9"),
            ("OSSEC A:'new' IP:'src'", settings(), "192.0.2.9"),
            ("OSSEC A:'new' IP:'any'", source, "any"),
            ("OSSEC A:'new' IP:'10.7.0.0/16'", settings(), "10.7.0.0/16"),
        ] {
            assert_eq!(ask(line, &settings, vec![], 0).unwrap().ip.as_str(), ip, "{line}");
        }
    }

    #[test]
    fn newer_or_unreadable_versions_are_refused_unless_allowed() {
        assert_eq!(ask("OSSEC A:'new' V:'v4.14.8'", &settings(), vec![], 0), Err(Reason::Version));
        assert_eq!(ask("OSSEC A:'new' V:'newest'", &settings(), vec![], 0), Err(Reason::Version));
        let mut lax = settings();
        lax.allow_higher_versions = true;
        assert!(ask("OSSEC A:'new' V:'v5.0.0'", &lax, vec![], 0).is_ok());
    }
}
