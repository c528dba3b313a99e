//! An order: one response, because of one alert, on one endpoint. Idempotent by its id.

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::{OrderId, RawJson, RuleId, Timestamp, Timings};

/// What a response acts on, as far as the manager can tell; the executable decides from the alert itself.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// A canonical address (`::ffff:a.b.c.d` is IPv4 here).
    Address(IpAddr),
    /// A user name.
    User(String),
    /// The response takes neither.
    None,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::User(user) => f.write_str(user),
            Self::None => f.write_str("-"),
        }
    }
}

/// Options that the contract's message cannot carry; understood by our own responders only.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct OrderOptions {
    /// Only say what would be done.
    pub dry_run: bool,
    /// Escalation steps of this response in minutes; empty = the endpoint's own.
    pub repeated_offenders: Vec<u32>,
    /// Ports that a block is limited to; empty = all.
    pub ports: Vec<u16>,
    /// End live connections of the target too.
    pub cut_connections: bool,
}

/// An instruction to an endpoint. Delivered twice, it acts once.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Order {
    /// Key everywhere.
    pub id: OrderId,
    /// Response name as on the wire: command name and timeout in one (`firewall-drop600`).
    pub response: String,
    /// Executable as configured, before its name is resolved on the endpoint.
    pub executable: String,
    /// Seconds until the revert; 0 = stateless.
    pub timeout_secs: u64,
    /// Extra arguments.
    #[serde(default)]
    pub extra_args: Vec<String>,
    /// `origin.name` of the message to the script.
    #[serde(default)]
    pub node: String,
    /// The whole alert, byte for byte as in alerts.json.
    pub alert: RawJson,
    /// The alert's id.
    pub alert_id: String,
    /// The rule that fired, none for orders given by hand.
    #[serde(default)]
    pub rule: Option<RuleId>,
    /// Effective target, for guards and reports.
    pub target: Target,
    /// When it was given.
    pub created: Timestamp,
    /// Stages passed so far.
    #[serde(default)]
    pub timings: Timings,
    /// Extensions.
    #[serde(default)]
    pub options: OrderOptions,
}
