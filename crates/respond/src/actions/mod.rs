//! The responses this program carries out itself, one file each behind [`Action`]. A new one is a file and a line
//! in [`REGISTRY`].
//! Invariant: `apply` and `revert` are idempotent, and success means that the effect was read back.

pub(crate) mod firewall_drop;

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use serde_json::Value;

use crate::kernel::{Kernel, Seen};

/// What an action acts on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Subject {
    /// An address, never an IPv4-mapped one.
    Address(IpAddr),
}

impl Subject {
    /// The address, for the guards.
    pub(crate) const fn address(self) -> IpAddr {
        match self {
            Self::Address(address) => address,
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
        }
    }
}

/// What is wanted of one subject: present for so long (`None` = without end).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted {
    pub(crate) subject: Subject,
    pub(crate) lease: Option<Duration>,
}

/// What was read back.
pub(crate) type Proof = String;

/// One response of our own. Slices, because many orders of a burst share one transaction.
pub(crate) trait Action: Sync {
    /// File names that it serves.
    fn names(&self) -> &'static [&'static str];
    /// Whom an alert's data name; the error is the contract's literal text for the log.
    fn subject(&self, alert: &Value) -> Result<Subject, &'static str>;
    /// Puts the effects in place or moves their ends.
    fn apply(&self, kernel: &mut dyn Kernel, wanted: &[Wanted]) -> Vec<Result<Proof, String>>;
    /// Removes them.
    fn revert(&self, kernel: &mut dyn Kernel, subjects: &[Subject]) -> Vec<Result<Proof, String>>;
    /// Looks, after making sure that what it finds also acts. One answer per subject.
    fn verify(&self, kernel: &mut dyn Kernel, subjects: &[Subject]) -> Result<Vec<Seen>, String>;
}

impl fmt::Debug for dyn Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.names()).finish()
    }
}

/// Every action.
pub(crate) static REGISTRY: &[&dyn Action] = &[&firewall_drop::FirewallDrop];

/// The action that a file of this name stands for.
pub(crate) fn of_name(name: &str) -> Option<&'static dyn Action> {
    REGISTRY.iter().copied().find(|action| action.names().contains(&name))
}
