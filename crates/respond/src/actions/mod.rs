//! The responses this program carries out itself, one file each. Those behind [`Action`] change the firewall, in
//! batches on the executor's own thread; those behind [`Local`] change anything else on this host, each in a thread of
//! its own, because files and tools may be slow. A new one is a file and a line in [`REGISTRY`] or [`LOCALS`].
//! Invariant: `apply` and `revert` are idempotent, and success means that the effect was read back.

mod call;
pub(crate) mod disable_account;
pub(crate) mod firewall_drop;
mod firewalld_drop;
mod host_deny;
mod ip_customblock;
mod isolate_host;
mod kaspersky;
mod kill_process;
mod logins;
mod quarantine_file;
mod restart;
mod route_null;
mod tool;
mod webhook;

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

pub use call::Places;
pub(crate) use call::{Call, Failure};

use tld_sys::nft::Spot;

use crate::kernel::Kernel;

/// What an action acts on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Subject {
    /// An address, never an IPv4-mapped one.
    Address(IpAddr),
    /// Some ports to an address; at least one, in order.
    Ports(IpAddr, Box<[u16]>),
    /// An account.
    User(String),
    /// A file.
    File(PathBuf),
    /// A process.
    Process(u32),
    /// The host itself, or nothing.
    None,
}

impl Subject {
    /// The address, for the guards.
    pub(crate) const fn address(&self) -> Option<IpAddr> {
        match self {
            Self::Address(address) | Self::Ports(address, _) => Some(*address),
            _ => None,
        }
    }

    /// What the firewall holds for it.
    pub(crate) fn spots(&self) -> impl Iterator<Item = Spot> + '_ {
        let (address, ports) = match self {
            Self::Address(address) => (Some(*address), &[][..]),
            Self::Ports(address, ports) => (Some(*address), &ports[..]),
            _ => (None, &[][..]),
        };
        let whole = address.filter(|_| ports.is_empty()).map(Spot::from);
        let each = address
            .into_iter()
            .flat_map(|address| ports.iter().map(move |port| Spot { address, port: Some(*port) }));
        whole.into_iter().chain(each)
    }

    /// An address with or without ports, as it is shown.
    pub(crate) fn from_shown(text: &str) -> Option<Self> {
        let Some((address, ports)) = text.split_once(PORTS) else {
            return text.parse().ok().map(Self::Address);
        };
        let ports: Option<Box<[u16]>> = ports.split(',').map(|port| port.parse().ok()).collect();
        Some(Self::Ports(address.parse().ok()?, ports?))
    }

    /// As the model's target.
    pub(crate) fn target(&self) -> tld_model::Target {
        match self {
            Self::Address(address) | Self::Ports(address, _) => tld_model::Target::Address(*address),
            Self::User(user) => tld_model::Target::User(user.clone()),
            _ => tld_model::Target::None,
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Ports(address, ports) => {
                let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
                write!(f, "{address}{PORTS}{}", ports.join(","))
            }
            Self::User(user) => f.write_str(user),
            Self::File(path) => path.display().fmt(f),
            Self::Process(pid) => pid.fmt(f),
            Self::None => f.write_str("-"),
        }
    }
}

/// Between an address and its ports.
const PORTS: &str = " ports ";

/// What is wanted of one spot of the firewall: present for so long (`None` = without end).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted {
    pub(crate) spot: Spot,
    pub(crate) lease: Option<Duration>,
    /// Most likely not there yet.
    pub(crate) fresh: bool,
}

/// What was read back.
pub(crate) type Proof = String;

/// One response of our own in the firewall. Slices, because many orders of a burst share one transaction.
pub(crate) trait Action: Sync {
    /// File names that it serves.
    fn names(&self) -> &'static [&'static str];
    /// Whom an alert's data name; the error is the contract's literal text for the log.
    fn subject(&self, alert: &Value) -> Result<Subject, &'static str>;
    /// Puts the effects in place or moves their ends.
    fn apply(&self, kernel: &mut dyn Kernel, wanted: &[Wanted]) -> Vec<Result<Proof, String>>;
    /// Removes them.
    fn revert(&self, kernel: &mut dyn Kernel, spots: &[Spot]) -> Vec<Result<Proof, String>>;
}

impl fmt::Debug for dyn Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.names()).finish()
    }
}

/// One response of our own outside the firewall. What [`Local::prior`] tells is durable before [`Local::apply`] is
/// called, and comes back in [`Local::revert`], so that exactly the former state is restored.
pub(crate) trait Local: Sync {
    /// File names that it serves.
    fn names(&self) -> &'static [&'static str];
    /// Whom the order names; the error is the text for the log, literal where the contract has one.
    fn subject(&self, call: &Call) -> Result<Subject, String>;
    /// What its subject is, if it needs one.
    fn takes(&self) -> Option<Takes> {
        None
    }
    /// Whether its effect lasts, has a key and can be undone. Else it is done once, and `delete` does it again only
    /// where the contract says so.
    fn lasts(&self) -> bool {
        true
    }
    /// Looks at the state that a revert must restore.
    fn prior(&self, _call: &Call, _subject: &Subject) -> Result<String, Failure> {
        Ok(String::new())
    }
    /// Puts the effect in place.
    fn apply(&self, call: &Call, subject: &Subject, prior: &str) -> Result<Proof, Failure>;
    /// Restores `prior`.
    fn revert(&self, call: &Call, subject: &Subject, prior: &str) -> Result<Proof, Failure>;
    /// Whether the effect is in place.
    fn verify(&self, call: &Call, subject: &Subject, prior: &str) -> Result<bool, Failure>;
}

impl fmt::Debug for dyn Local {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.names()).finish()
    }
}

/// A response of our own.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Ours {
    Firewall(&'static dyn Action),
    Local(&'static dyn Local),
}

/// Every action in the firewall.
pub(crate) static REGISTRY: &[&dyn Action] = &[&firewall_drop::FirewallDrop];

/// Every other one.
pub(crate) static LOCALS: &[&dyn Local] = &[
    &disable_account::DisableAccount,
    &firewalld_drop::FirewalldDrop,
    &host_deny::HostDeny,
    &ip_customblock::IpCustomblock,
    &isolate_host::IsolateHost,
    &kaspersky::Kaspersky,
    &kill_process::KillProcess,
    &quarantine_file::QuarantineFile,
    &restart::Restart,
    &route_null::RouteNull,
    &webhook::Slack,
    &webhook::Webhook,
];

/// The action that a file of this name stands for.
pub(crate) fn of_name(name: &str) -> Option<Ours> {
    let firewall = REGISTRY.iter().find(|action| action.names().contains(&name));
    let local = || LOCALS.iter().find(|action| action.names().contains(&name));
    firewall.map(|action| Ours::Firewall(*action)).or_else(|| local().map(|action| Ours::Local(*action)))
}

/// What a response acts on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Takes {
    /// An address.
    Address,
    /// An account.
    Account,
    /// A file.
    File,
    /// A process.
    Process,
}

impl Takes {
    /// What a text most likely names.
    #[must_use]
    pub fn of(target: &str) -> Self {
        match target {
            _ if target.parse::<IpAddr>().is_ok() => Self::Address,
            _ if target.starts_with('/') => Self::File,
            _ if !target.is_empty() && target.bytes().all(|byte| byte.is_ascii_digit()) => Self::Process,
            _ => Self::Account,
        }
    }

    /// Whether a text may name such a thing.
    #[must_use]
    pub fn fits(self, target: &str) -> bool {
        let seems = Self::of(target);
        match self {
            Self::Account => matches!(seems, Self::Account | Self::Process),
            _ => seems == self,
        }
    }

    /// For people.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::Address => "an address",
            Self::Account => "the name of an account",
            Self::File => "the absolute path of a file",
            Self::Process => "the number of a process",
        }
    }
}

/// What our action of this name needs; none where it needs nothing, or is not ours.
#[must_use]
pub fn takes(name: &str) -> Option<Takes> {
    match of_name(name)? {
        Ours::Firewall(_) => Some(Takes::Address),
        Ours::Local(action) => action.takes(),
    }
}

/// The names of all.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    let firewall = REGISTRY.iter().flat_map(|action| action.names());
    firewall.chain(LOCALS.iter().flat_map(|action| action.names())).copied()
}
