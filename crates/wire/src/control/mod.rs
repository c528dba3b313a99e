//! Control messages: payloads that start with `#!-`, in both directions.
//! Invariant: trailing blanks are part of the contract; a text that is not exactly a known message is `Unknown`.

mod keep_alive;

use serde::{Deserialize, Serialize};

pub use keep_alive::{KeepAlive, Label, System};

use crate::extension::{self, Hello};
use crate::key::md5_text;
use crate::version::Version;

/// What every control message starts with.
pub const LEAD: &[u8] = b"#!-";

const STARTUP: &[u8] = b"agent startup ";
const SHUTDOWN: &[u8] = b"agent shutdown ";
const ACK: &[u8] = b"agent ack ";
const REQUEST: &[u8] = b"req ";
const EXECD: &[u8] = b"execd ";
const UP_FILE: &[u8] = b"up file ";
const CLOSE_FILE: &[u8] = b"close file ";
const RECONNECT: &[u8] = b"force_reconnect";
const REFUSED: &[u8] = b"err ";
const EXTENSION: &[u8] = b"threatlockdown ";

/// Why a manager refuses a handshake.
pub const VERSION_TOO_NEW: &str = "Agent version must be lower or equal to manager version";
/// The handshake's JSON tells no version.
pub const VERSION_UNKNOWN: &str = "Couldn't retrieve version";

/// Reads one JSON value from the start of a text and ignores what follows, as every receiver of the contract must.
pub fn leading_json<'a, T: Deserialize<'a>>(text: &'a [u8]) -> Option<T> {
    serde_json::Deserializer::from_slice(text).into_iter().next()?.ok()
}

/// How an agent introduces itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Startup {
    /// Without JSON: an old agent.
    Bare,
    /// With JSON.
    Told {
        /// Its version as written, if it is told at all.
        version: Option<String>,
        /// Our extension, which agents of other makes do not declare.
        hello: Option<Hello>,
    },
}

#[derive(Serialize, Deserialize)]
struct StartupJson {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    version: Option<serde_json::Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    threatlockdown: Option<serde_json::Value>,
}

impl Startup {
    /// For an agent of this product.
    pub fn ours() -> Self {
        Self::of(Version::CONTRACT)
    }

    /// For an agent of this product that has to name another version.
    pub fn of(version: Version) -> Self {
        Self::Told { version: Some(version.to_string()), hello: Some(Hello::default()) }
    }

    /// Its version, if it tells one that can be read.
    pub fn version(&self) -> Option<Version> {
        match self {
            Self::Bare => None,
            Self::Told { version, .. } => version.as_ref()?.parse().ok(),
        }
    }

    /// Our extension, if the agent declares it.
    pub fn hello(&self) -> Option<Hello> {
        match self {
            Self::Bare => None,
            Self::Told { hello, .. } => *hello,
        }
    }

    /// The manager's answer: an acknowledgement, or the refusal in its place.
    pub fn answer(&self, manager: Version, allow_higher_versions: bool) -> FromManager {
        let refused = |reason: &str| FromManager::Refused { message: reason.into() };
        match (self, self.version()) {
            (Self::Bare, _) => FromManager::Ack,
            (Self::Told { .. }, None) => refused(VERSION_UNKNOWN),
            (Self::Told { .. }, Some(version)) if version > manager && !allow_higher_versions => {
                refused(VERSION_TOO_NEW)
            }
            (Self::Told { .. }, Some(_)) => FromManager::Ack,
        }
    }

    fn parse(text: &[u8]) -> Self {
        if text.trim_ascii().is_empty() {
            return Self::Bare;
        }
        let told: Option<StartupJson> = leading_json(text);
        Self::Told {
            version: told.as_ref().and_then(|told| Some(told.version.as_ref()?.as_str()?.to_owned())),
            // Another shape of our member is another product's or a later one's: not ours.
            hello: told.and_then(|told| serde_json::from_value(told.threatlockdown?).ok()),
        }
    }

    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(STARTUP);
        if let Self::Told { version, hello } = self {
            let told = StartupJson {
                version: version.clone().map(Into::into),
                threatlockdown: hello.and_then(|hello| serde_json::to_value(hello).ok()),
            };
            out.extend_from_slice(&serde_json::to_vec(&told).unwrap_or_default());
        }
    }
}

/// The name of a remote query, echoed in its answer.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct QueryId(String);

impl QueryId {
    /// From a number that the manager made up.
    pub fn new(number: u32) -> Self {
        Self(format!("{number:x}"))
    }

    /// As on the wire.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn parse(text: &[u8]) -> Option<Self> {
        let text = str::from_utf8(text).ok()?;
        let fits = (1..=16).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        fits.then(|| Self(text.into()))
    }
}

/// Who answers a query on the agent. The name would be a path on a less careful agent, so this list is all there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum QueryTarget {
    /// The connection itself.
    Agent,
    /// Execution of responses.
    Com,
    /// Log collection.
    Logcollector,
    /// File integrity.
    Syscheck,
    /// Modules.
    Modules,
    /// Upgrades.
    Upgrade,
}

impl QueryTarget {
    const ALL: [(Self, &'static str); 6] = [
        (Self::Agent, "agent"),
        (Self::Com, "com"),
        (Self::Logcollector, "logcollector"),
        (Self::Syscheck, "syscheck"),
        (Self::Modules, "wmodules"),
        (Self::Upgrade, "upgrade"),
    ];

    /// As on the wire.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(target, _)| *target == self).map_or("", |(_, name)| name)
    }

    /// The target of that name.
    pub fn of_name(name: &[u8]) -> Option<Self> {
        Self::ALL.iter().find(|(_, known)| known.as_bytes() == name).map(|(target, _)| *target)
    }
}

/// What an agent says to its manager.
#[derive(Debug, Clone, PartialEq)]
pub enum FromAgent {
    /// Handshake.
    Startup(Startup),
    /// It leaves.
    Shutdown,
    /// Answer to a query.
    Answer {
        /// The query.
        id: QueryId,
        /// `ok …`, `err …` or JSON.
        text: Vec<u8>,
    },
    /// It has received a query; on UDP only.
    QueryReceived(QueryId),
    /// Sign of life.
    KeepAlive(KeepAlive),
    /// Our extension.
    Extension(extension::FromAgent),
    /// None of these; reported and ignored.
    Unknown(Vec<u8>),
}

impl FromAgent {
    /// Reads a payload; `None` when it is an event and no control message.
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let text = behind_lead(payload)?;
        Some(Self::known(text).unwrap_or_else(|| Self::Unknown(text.to_vec())))
    }

    fn known(text: &[u8]) -> Option<Self> {
        if let Some(told) = text.strip_prefix(STARTUP) {
            return Some(Self::Startup(Startup::parse(told)));
        }
        if text == SHUTDOWN {
            return Some(Self::Shutdown);
        }
        if let Some(answer) = text.strip_prefix(REQUEST) {
            let (id, text) = split_blank(answer);
            let id = QueryId::parse(id)?;
            return Some(match text {
                b"ack" => Self::QueryReceived(id),
                _ => Self::Answer { id, text: text.to_vec() },
            });
        }
        if let Some(json) = text.strip_prefix(EXTENSION) {
            return leading_json(json).map(Self::Extension);
        }
        KeepAlive::parse(text).map(Self::KeepAlive)
    }

    /// The payload.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = LEAD.to_vec();
        match self {
            Self::Startup(startup) => startup.write(&mut out),
            Self::Shutdown => out.extend_from_slice(SHUTDOWN),
            Self::Answer { id, text } => write_query(&mut out, id, &[text]),
            Self::QueryReceived(id) => write_query(&mut out, id, &[b"ack"]),
            Self::KeepAlive(keep_alive) => out.extend_from_slice(&keep_alive.to_bytes()),
            Self::Extension(message) => write_json(&mut out, EXTENSION, message),
            Self::Unknown(text) => out.extend_from_slice(text),
        }
        out
    }
}

/// What a manager says to an agent.
#[derive(Debug, Clone, PartialEq)]
pub enum FromManager {
    /// Handshake or keep-alive received.
    Ack,
    /// Handshake refused.
    Refused {
        /// For the agent's log.
        message: String,
    },
    /// An active response: one JSON value, perhaps with rubbish behind it.
    Execd(Vec<u8>),
    /// A file follows.
    UpFile {
        /// Checksum of the whole file.
        md5: String,
        /// Its name, before [`pushed_name`](crate::merged::pushed_name) has judged it.
        name: String,
    },
    /// The file is complete.
    CloseFile,
    /// A query.
    Query {
        /// To be echoed.
        id: QueryId,
        /// Who answers.
        target: QueryTarget,
        /// The question.
        text: Vec<u8>,
    },
    /// A query for somebody who does not exist; the answer is an error.
    StrayQuery(QueryId),
    /// The agent's answer was received; on UDP only.
    AnswerReceived(QueryId),
    /// Close and shake hands again.
    Reconnect,
    /// For the integrity daemon.
    Integrity(Vec<u8>),
    /// For the inventory module.
    Inventory(Vec<u8>),
    /// For policy assessment.
    Assessment(Vec<u8>),
    /// Our extension.
    Extension(extension::FromManager),
    /// None of these; ignored, but still a sign of life.
    Unknown(Vec<u8>),
}

impl FromManager {
    /// Reads a payload; `None` when it is a piece of a file.
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let text = behind_lead(payload)?;
        Some(Self::known(text).unwrap_or_else(|| Self::Unknown(text.to_vec())))
    }

    fn known(text: &[u8]) -> Option<Self> {
        match text {
            ACK => return Some(Self::Ack),
            CLOSE_FILE => return Some(Self::CloseFile),
            RECONNECT => return Some(Self::Reconnect),
            _ => {}
        }
        if let Some(json) = text.strip_prefix(EXECD) {
            return Some(Self::Execd(json.to_vec()));
        }
        if let Some(file) = text.strip_prefix(UP_FILE) {
            let line = file.split(|byte| *byte == b'\n').next().unwrap_or_default();
            let (md5, name) = str::from_utf8(line).ok()?.split_once(' ')?;
            let fits = md5.len() == 32 && md5.bytes().all(|byte| byte.is_ascii_hexdigit());
            return fits.then(|| Self::UpFile { md5: md5.to_ascii_lowercase(), name: name.into() });
        }
        if let Some(query) = text.strip_prefix(REQUEST) {
            let (id, rest) = split_blank(query);
            let id = QueryId::parse(id)?;
            if rest == b"ack" {
                return Some(Self::AnswerReceived(id));
            }
            let (target, text) = split_blank(rest);
            return Some(match QueryTarget::of_name(target) {
                Some(target) => Self::Query { id, target, text: text.to_vec() },
                None => Self::StrayQuery(id),
            });
        }
        if let Some(json) = text.strip_prefix(REFUSED) {
            #[derive(Deserialize)]
            struct Refusal {
                message: String,
            }
            let refusal: Refusal = leading_json(json)?;
            return Some(Self::Refused { message: refusal.message });
        }
        if let Some(json) = text.strip_prefix(EXTENSION) {
            return leading_json(json).map(Self::Extension);
        }
        let starts = |lead: &[u8]| text.starts_with(lead);
        if starts(b"syscheck ") || starts(b"fim_file ") || starts(b"fim_registry") {
            return Some(Self::Integrity(text.to_vec()));
        }
        if starts(b"syscollector_") {
            return Some(Self::Inventory(text.to_vec()));
        }
        starts(b"sca-dump").then(|| Self::Assessment(text.to_vec()))
    }

    /// The payload.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = LEAD.to_vec();
        match self {
            Self::Ack => out.extend_from_slice(ACK),
            Self::Refused { message } => {
                write_json(&mut out, REFUSED, &serde_json::json!({ "message": message }));
            }
            Self::Execd(json) => out.extend_from_slice(&[EXECD, json].concat()),
            Self::UpFile { md5, name } => {
                out.extend_from_slice(UP_FILE);
                out.extend_from_slice(format!("{md5} {name}\n").as_bytes());
            }
            Self::CloseFile => out.extend_from_slice(CLOSE_FILE),
            Self::Query { id, target, text } => write_query(&mut out, id, &[target.name().as_bytes(), text]),
            Self::StrayQuery(id) => write_query(&mut out, id, &[b"-"]),
            Self::AnswerReceived(id) => write_query(&mut out, id, &[b"ack"]),
            Self::Reconnect => out.extend_from_slice(RECONNECT),
            Self::Extension(message) => write_json(&mut out, EXTENSION, message),
            Self::Integrity(text) | Self::Inventory(text) | Self::Assessment(text) | Self::Unknown(text) => {
                out.extend_from_slice(text);
            }
        }
        out
    }

    /// Announces a file of those bytes.
    pub fn up_file(name: &str, content: &[u8]) -> Self {
        Self::UpFile { md5: md5_text(content), name: name.into() }
    }
}

// Peers of the contract take a message as text, which ends at a NUL.
fn behind_lead(payload: &[u8]) -> Option<&[u8]> {
    let text = payload.strip_prefix(LEAD)?;
    Some(memchr::memchr(0, text).map_or(text, |nul| &text[..nul]))
}

fn split_blank(text: &[u8]) -> (&[u8], &[u8]) {
    memchr::memchr(b' ', text).map_or((text, &[]), |at| (&text[..at], &text[at + 1..]))
}

fn write_query(out: &mut Vec<u8>, id: &QueryId, parts: &[&[u8]]) {
    out.extend_from_slice(REQUEST);
    out.extend_from_slice(id.as_str().as_bytes());
    for part in parts {
        out.push(b' ');
        out.extend_from_slice(part);
    }
}

fn write_json(out: &mut Vec<u8>, lead: &[u8], value: &impl Serialize) {
    out.extend_from_slice(lead);
    // These values are our own structs with text keys: they always encode.
    out.extend_from_slice(&serde_json::to_vec(value).unwrap_or_default());
}

#[cfg(test)]
mod tests;
