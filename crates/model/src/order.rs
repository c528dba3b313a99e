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

/// How a file that is not ours is talked to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Contract {
    /// One JSON line, `add` or `delete`, the alert inside: since 4.2.
    #[default]
    #[serde(rename = "4")]
    Four,
    /// Words on the command line and no input: before 4.2.
    #[serde(rename = "argv")]
    Argv,
    /// One flat JSON document, `enable` or `disable`: 5.x.
    #[serde(rename = "5")]
    Five,
}

impl Contract {
    /// The word in a configuration.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Four => "4",
            Self::Argv => "argv",
            Self::Five => "5",
        }
    }

    /// Reads the word of a configuration.
    pub fn from_word(word: &str) -> Option<Self> {
        [Self::Four, Self::Argv, Self::Five].into_iter().find(|one| one.word() == word)
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
    /// A manager wants to know what became of it: outcomes are kept until they are confirmed. Set on the endpoint.
    pub reported: bool,
    /// After this moment it is not begun any more. Set on the endpoint, from the order's ticket.
    pub deadline: Option<Timestamp>,
    /// It only says that an order of this name is not to be carried out. Set on the endpoint.
    pub withdrawn: bool,
    /// How the file is talked to.
    pub contract: Contract,
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
