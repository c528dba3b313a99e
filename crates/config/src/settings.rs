//! What the configuration says, typed: the main structure, alerts, allow list, commands and responses.
//!
//! Invariant: every value here was checked; a response names an executable that a command defined before it.

use std::sync::Arc;
use std::time::Duration;

use tld_model::{AgentId, Contract, RuleId};
use tld_pattern::{Network, OsMatch};

use crate::scope::Scope;
use crate::{Client, ClientBuffer, LocalFile, RulesetPaths};

/// Which program reads the configuration: it decides which sections are judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The server with its own responder.
    Manager,
    /// An endpoint; commands and responses are not judged there.
    Agent,
    /// One host that watches itself.
    Standalone,
}

/// Everything that was read.
#[derive(Debug, Default)]
pub struct Settings {
    /// `<global>`.
    pub global: Global,
    /// `<alerts>`.
    pub alerts: AlertLevels,
    /// `<ruleset>`.
    pub ruleset: RulesetPaths,
    /// `<command>` blocks in the order of the file.
    pub commands: Vec<Command>,
    /// Enabled `<active-response>` blocks in the order of the file.
    pub responses: Vec<Response>,
    /// `<localfile>` blocks in the order of the file.
    pub localfiles: Vec<LocalFile>,
    /// What the responder of this host takes from `<active-response>` blocks.
    pub responder: ResponderSettings,
    /// `<remote>` blocks.
    pub remotes: Vec<Remote>,
    /// `<client>`.
    pub client: Client,
    /// `<client_buffer>`.
    pub client_buffer: ClientBuffer,
    /// `<auth>`.
    pub auth: Auth,
    /// `<rule_test>`.
    pub rule_test: RuleTest,
    /// `<labels>`, keys with a leading `_` left out.
    pub labels: Vec<Label>,
    /// Names of sections that were accepted but have no effect here.
    pub unused_sections: Vec<String>,
}

/// `<global>`, and the node names of `<cluster>`.
#[derive(Debug, Clone)]
pub struct Global {
    /// Sources that no response may act on.
    pub white_list: Vec<AllowEntry>,
    /// Events that composite rules can look back on.
    pub memory_size: u32,
    /// Write `alerts.json`.
    pub jsonout_output: bool,
    /// Write `alerts.log`.
    pub alerts_log: bool,
    /// Write every event to `archives.log`.
    pub logall: bool,
    /// Write every event to `archives.json`.
    pub logall_json: bool,
    /// Age at which an output file is rotated within the day; zero = only daily.
    pub rotate_interval: Duration,
    /// Size at which an output file is rotated; 0 = no limit.
    pub max_output_size: u64,
    /// Silence after which an agent counts as disconnected.
    pub agents_disconnection_time: Duration,
    /// Further silence after which that is reported; zero = at once.
    pub agents_disconnection_alert_time: Duration,
    /// Level of the statistics alert; 0 = off.
    pub stats: u8,
    /// Level of the host information alert.
    pub host_information: u8,
    /// Form of `alerts.log` in place of the contract's own.
    pub custom_alert_output: Option<String>,
    /// Name of this node, where `<cluster>` is enabled.
    pub node_name: Option<String>,
    /// Name of the cluster, where `<cluster>` is enabled.
    pub cluster_name: Option<String>,
}

impl Default for Global {
    fn default() -> Self {
        Self {
            white_list: Vec::new(),
            memory_size: 8192,
            jsonout_output: true,
            alerts_log: true,
            logall: false,
            logall_json: false,
            rotate_interval: Duration::ZERO,
            max_output_size: 0,
            agents_disconnection_time: Duration::from_secs(15 * 60),
            agents_disconnection_alert_time: Duration::ZERO,
            stats: 4,
            host_information: 8,
            custom_alert_output: None,
            node_name: None,
            cluster_name: None,
        }
    }
}

/// One `<white_list>`.
#[derive(Debug, Clone)]
pub enum AllowEntry {
    /// An address or network of either family.
    Network(Network),
    /// A pattern for host names.
    Host {
        /// The pattern as written.
        text: String,
        /// The same, compiled.
        pattern: OsMatch,
    },
}

/// `<alerts>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AlertLevels {
    /// Least level of an alert that is written.
    pub log_alert_level: u8,
    /// Least level of an alert that is mailed.
    pub email_alert_level: u8,
}

impl Default for AlertLevels {
    fn default() -> Self {
        Self { log_alert_level: 1, email_alert_level: 7 }
    }
}

/// One `<command>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// Name that responses use.
    pub name: String,
    /// File in `active-response/bin`, with or without its extension.
    pub executable: String,
    /// May a response give a timeout?
    pub timeout_allowed: bool,
    /// Words passed to the executable.
    pub extra_args: Vec<String>,
    /// How the executable is talked to.
    pub contract: Contract,
    /// File of the block.
    pub file: Arc<str>,
    /// Line of the block.
    pub line: u32,
}

/// One enabled `<active-response>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// Name of the command.
    pub command: String,
    /// The command's executable.
    pub executable: String,
    /// The command's extra arguments.
    pub extra_args: Vec<String>,
    /// Name on the wire: command name and timeout in one, such as `host-deny600`.
    pub name: String,
    /// Where it runs.
    pub location: Locations,
    /// The agent of `defined-agent`.
    pub agent_id: Option<AgentId>,
    /// Least level of a rule that causes it; never 0.
    pub level: Option<u8>,
    /// Rules that cause it.
    pub rules_id: Vec<RuleId>,
    /// Pattern over the groups of rules that cause it.
    pub rules_group: Option<String>,
    /// Seconds until the revert; 0 = stays.
    pub timeout_secs: u64,
    /// Escalation steps in minutes that this block itself gives; the first block's are the endpoint's.
    pub repeated_offenders: Vec<u32>,
    /// What to do when a line offers several targets.
    pub contested: Contested,
    /// Ports that a block is limited to; empty = all.
    pub ports: Vec<u16>,
    /// End live connections of the target too.
    pub cut_connections: bool,
    /// How the executable is talked to.
    pub contract: Contract,
    /// Which agents it may reach, and how often.
    pub scope: Scope,
    /// File of the block.
    pub file: Arc<str>,
    /// Line of the block.
    pub line: u32,
}

/// The words of `<location>`; several may be set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Locations {
    /// On the server.
    pub server: bool,
    /// Where the event came from.
    pub local: bool,
    /// On one agent.
    pub defined_agent: bool,
    /// On every agent.
    pub all: bool,
}

/// What to do when a log line offers several addresses to act on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Contested {
    /// Do nothing and report it.
    #[default]
    Refuse,
    /// Take the first one of the line.
    First,
    /// Take the last one of the line.
    Last,
}

/// `<rule_test>`: the socket of the test tool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RuleTest {
    /// Serve it.
    pub enabled: bool,
    /// Requests worked on at the same time.
    pub threads: u8,
    /// Sessions kept at the same time.
    pub max_sessions: u16,
    /// A session that nobody used for so long is over.
    pub session_timeout: Duration,
}

impl Default for RuleTest {
    fn default() -> Self {
        Self { enabled: true, threads: 1, max_sessions: 64, session_timeout: Duration::from_secs(900) }
    }
}

/// What the responder of a host needs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ResponderSettings {
    /// Runs nothing.
    pub disabled: bool,
    /// Escalation steps in minutes; empty = none.
    pub repeated_offenders: Vec<u32>,
    /// Networks that are never blocked on this host.
    pub protected: Vec<Network>,
    /// Names or addresses of the managers, which are never blocked either.
    pub managers: Vec<String>,
    /// Options for responses whose manager cannot send them.
    pub own: Vec<Own>,
}

impl ResponderSettings {
    /// What this endpoint adds to a response: found by its name on the wire, that name without its timeout, or the
    /// executable's name. The first block that fits counts.
    pub fn own(&self, response: &str, timeout_secs: u64, executable: &str) -> Option<&Own> {
        let command = response.strip_suffix(&timeout_secs.to_string()).unwrap_or(response);
        self.own.iter().find(|own| [response, command, executable].contains(&own.name.as_str()))
    }
}

/// Options of one response in the configuration of an endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Own {
    /// The `<command>` it is for.
    pub name: String,
    /// How the executable is talked to.
    pub contract: Contract,
    /// Escalation steps in minutes; empty = the endpoint's.
    pub repeated_offenders: Vec<u32>,
    /// Ports that a block is limited to; empty = all.
    pub ports: Vec<u16>,
    /// End live connections of the target too.
    pub cut_connections: bool,
}

/// One `<remote>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remote {
    /// Agents (`secure`) or plain syslog.
    pub syslog: bool,
    /// Port listened on.
    pub port: u16,
    /// Listens on TCP.
    pub tcp: bool,
    /// Listens on UDP.
    pub udp: bool,
    /// Senders of syslog that are heard; empty = none.
    pub allowed: Vec<Network>,
    /// Senders of syslog that are not heard.
    pub denied: Vec<Network>,
    /// Address listened on; none = all.
    pub local_ip: Option<std::net::IpAddr>,
    /// Listens on IPv6 too.
    pub ipv6: bool,
    /// Messages that may wait.
    pub queue_size: u32,
    /// Silence of an agent's connection after which another one may take its place; zero = never.
    pub overtake: Duration,
    /// Agents may be newer than the contract's version.
    pub allow_higher_versions: bool,
}

/// `<auth>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Auth {
    /// Enrolment is off.
    pub disabled: bool,
    /// Port listened on.
    pub port: u16,
    /// Agents must know the secret of `etc/authd.pass`.
    pub use_password: bool,
    /// Bind a new agent to the address it enrolled from.
    pub use_source_ip: bool,
    /// Removed agents vanish from the key file.
    pub purge: bool,
    /// `<force>`.
    pub force: Force,
    /// Agents may be newer than the contract's version.
    pub allow_higher_versions: bool,
    /// File of the authority that signs agents' certificates; none = they need none.
    pub agent_ca: Option<String>,
    /// An agent's certificate must name its address.
    pub verify_host: bool,
    /// File of the manager's certificate, relative to the home.
    pub certificate: Option<String>,
    /// File of its key, relative to the home.
    pub key: Option<String>,
}

impl Default for Auth {
    fn default() -> Self {
        Self {
            disabled: false,
            port: 1515,
            use_password: false,
            use_source_ip: false,
            purge: false,
            force: Force::default(),
            allow_higher_versions: false,
            agent_ca: None,
            verify_host: false,
            certificate: None,
            key: None,
        }
    }
}

/// When an agent of the same name or address gives way to a new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Force {
    /// At all.
    pub enabled: bool,
    /// Only if the new one does not show the old one's key.
    pub key_mismatch: bool,
    /// Seconds that the old one must have been gone; none = that does not matter.
    pub disconnected: Option<u32>,
    /// Seconds that the old registration must have lasted; 0 = that does not matter.
    pub after_registration: u32,
}

impl Default for Force {
    fn default() -> Self {
        Self { enabled: true, key_mismatch: true, disconnected: Some(3_600), after_registration: 3_600 }
    }
}

/// One `<label>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Label {
    /// Dotted key.
    pub key: String,
    /// Text.
    pub value: String,
    /// Left out of alerts by default.
    pub hidden: bool,
}
