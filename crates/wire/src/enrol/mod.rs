//! Enrolment: the request line of an agent, the manager's answer, and (in [`decide`]) whether it is granted.
//! Invariant: whatever a request holds, it becomes a value whose fields passed the character rules, or a reason.

pub mod decide;

use std::fmt;

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::key::{AgentKey, Secret};
use crate::name::{GROUP_LIMIT, GROUPS_LIMIT, RegisteredIp, is_agent_name, is_group_name};
use crate::version::Version;

/// Longest request or answer that is read.
pub const LINE_LIMIT: usize = 69_632;
/// Longest error answer that is written.
pub const ERROR_LIMIT: usize = 2_048;
/// Most of a password file that is read.
pub const PASSWORD_FILE_LIMIT: usize = 4_095;

const PASSWORD: &str = "OSSEC PASS: ";
const NAME: &str = "OSSEC A:'";
const GRANTED: &str = "OSSEC K:'";
const ERROR: &str = "ERROR: ";
const ERROR_TAIL: &str = ". Unable to add agent";

/// The address an agent asks to be registered with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RequestedIp {
    /// The one its connection comes from.
    Source,
    /// This one.
    Given(RegisteredIp),
}

/// What an agent asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Its name, already checked.
    pub name: String,
    /// Its version as written; old agents send none.
    pub version: Option<String>,
    /// Its groups, in order.
    pub groups: Vec<String>,
    /// The wanted address.
    pub ip: Option<RequestedIp>,
    /// Hash of the key that it has already.
    pub key_hash: Option<String>,
}

/// A field that was not closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    /// `V`
    Version,
    /// `G`
    Group,
    /// `IP`
    Ip,
    /// `K`
    Key,
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Version => "version",
            Self::Group => "group",
            Self::Ip => "IP",
            Self::Key => "key",
        })
    }
}

/// What is wrong with a list of groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GroupFault {
    /// A character that a directory name may not have.
    Characters,
    /// No name at all.
    Empty,
    /// A name over 255 bytes.
    Long,
    /// The list does not fit into a line.
    ListLong,
    /// A comma without a name before or behind it.
    Commas,
}

impl fmt::Display for GroupFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Characters => r#"characters '\/:*?"<>|,' are prohibited"#,
            Self::Empty => "Empty Group",
            Self::Long => "group is too large",
            Self::ListLong => "multigroup is too large",
            Self::Commas => "each comma needs a name on both sides",
        })
    }
}

/// Why a request is refused. The texts are the contract's: agents write them into their logs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// Wrong or missing password.
    #[error("Invalid password")]
    Password,
    /// Not a request.
    #[error("Invalid request for new agent")]
    Request,
    /// Not a name, or the manager's own.
    #[error("Invalid agent name: {0}")]
    Name(String),
    /// A quote is missing.
    #[error("Unterminated {0} field")]
    Unterminated(Field),
    /// Newer than the manager.
    #[error("Agent version must be lower or equal to manager version")]
    Version,
    /// Not an address.
    #[error("Invalid IP: {0}")]
    Ip(String),
    /// No such group.
    #[error("Invalid group: {0}")]
    Group(String),
    /// Not a group's name.
    #[error("Invalid group name: {0}... {1}")]
    GroupName(String, GroupFault),
    /// More than 128 groups.
    #[error("Maximum multigroup reached: Limit is {GROUPS_LIMIT}")]
    TooManyGroups,
    /// The address is taken.
    #[error("Duplicate IP: {0}")]
    DuplicateIp(String),
    /// The name is taken.
    #[error("Duplicate agent name: {0}")]
    DuplicateName(String),
    /// No id or key could be made.
    #[error("Internal manager error adding agent: {0}")]
    Internal(String),
}

impl Request {
    /// Reads a request line, with or without its line end. `password` is the manager's, if it demands one.
    ///
    /// # Errors
    /// With the reason that the agent is told.
    pub fn parse(line: &[u8], password: Option<&Secret>) -> Result<Self, Reason> {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        if line.len() > LINE_LIMIT {
            return Err(Reason::Request);
        }
        let line = match password {
            None => line,
            Some(secret) => behind_password(line, secret.expose().as_bytes()).ok_or(Reason::Password)?,
        };
        let line =
            str::from_utf8(line).ok().and_then(|line| line.strip_prefix(NAME)).ok_or(Reason::Request)?;
        let (name, mut rest) = line.split_once('\'').ok_or(Reason::Request)?;
        if !is_agent_name(name) {
            return Err(Reason::Name(name.into()));
        }
        // Positional: what stands out of its order is not seen, and neither is what follows it.
        let version = part(&mut rest, " V:'", Field::Version)?.map(str::to_owned);
        let groups = part(&mut rest, " G:'", Field::Group)?.map_or(Ok(Vec::new()), parse_groups)?;
        let ip = part(&mut rest, " IP:'", Field::Ip)?.map(parse_ip).transpose()?;
        let key_hash = part(&mut rest, " K:'", Field::Key)?.map(|hash| hash.chars().take(64).collect());
        Ok(Self { name: name.into(), version, groups, ip, key_hash })
    }

    /// The line an agent writes, with its line end. As secret as the password in it.
    pub fn to_line(&self, password: Option<&Secret>) -> Zeroizing<String> {
        let mut line = Zeroizing::new(String::with_capacity(256));
        if let Some(secret) = password {
            line.push_str(PASSWORD);
            line.push_str(secret.expose());
            line.push(' ');
        }
        line.push_str(NAME);
        line.push_str(&self.name);
        line.push('\'');
        let groups = self.groups.join(",");
        let ip = self.ip.as_ref().map(|ip| match ip {
            RequestedIp::Source => "src",
            RequestedIp::Given(ip) => ip.as_str(),
        });
        let parts = [
            (" V:'", self.version.as_deref()),
            (" G:'", Some(groups.as_str()).filter(|groups| !groups.is_empty())),
            (" IP:'", ip),
            (" K:'", self.key_hash.as_deref()),
        ];
        for (lead, value) in parts.into_iter().filter_map(|(lead, value)| Some((lead, value?))) {
            line.push_str(lead);
            line.push_str(value);
            line.push('\'');
        }
        line.push('\n');
        line
    }

    /// For an agent of this product: its name, the contract's version, nothing else.
    pub fn new(name: impl Into<String>) -> Self {
        let version = Some(Version::CONTRACT.to_string());
        Self { name: name.into(), version, groups: Vec::new(), ip: None, key_hash: None }
    }
}

fn behind_password<'a>(line: &'a [u8], secret: &[u8]) -> Option<&'a [u8]> {
    let text = line.strip_prefix(PASSWORD.as_bytes())?;
    let (given, rest) = text.split_at_checked(secret.len())?;
    if !bool::from(given.ct_eq(secret)) {
        return None;
    }
    rest.strip_prefix(b" ")
}

fn part<'a>(rest: &mut &'a str, lead: &str, field: Field) -> Result<Option<&'a str>, Reason> {
    let Some(behind) = rest.strip_prefix(lead) else { return Ok(None) };
    let (value, behind) = behind.split_once('\'').ok_or(Reason::Unterminated(field))?;
    *rest = behind;
    Ok(Some(value))
}

fn parse_groups(list: &str) -> Result<Vec<String>, Reason> {
    let fault = |fault| Reason::GroupName(shortened(list, GROUP_LIMIT), fault);
    if list.is_empty() {
        return Err(fault(GroupFault::Empty));
    }
    if list.split(',').count() > GROUPS_LIMIT {
        return Err(Reason::TooManyGroups);
    }
    if list.len() > (GROUP_LIMIT + 1) * GROUPS_LIMIT {
        return Err(fault(GroupFault::ListLong));
    }
    for group in list.split(',') {
        if group.is_empty() {
            return Err(fault(GroupFault::Commas));
        }
        if group.len() > GROUP_LIMIT {
            return Err(fault(GroupFault::Long));
        }
        if !is_group_name(group) {
            return Err(fault(GroupFault::Characters));
        }
    }
    Ok(list.split(',').map(str::to_owned).collect())
}

fn parse_ip(text: &str) -> Result<RequestedIp, Reason> {
    let text = text.split(' ').next().unwrap_or_default();
    if text == "src" {
        return Ok(RequestedIp::Source);
    }
    text.parse().map(RequestedIp::Given).map_err(|_no_address| Reason::Ip(shortened(text, 46)))
}

fn shortened(text: &str, most: usize) -> String {
    text[..text.floor_char_boundary(most)].into()
}

/// The manager's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The entry for the agent's key file.
    Granted(AgentKey),
    /// Refused, with the text of the reason.
    Refused(String),
}

/// The answer is neither a key nor an error.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    /// Neither form, or not closed.
    #[error("the manager's answer is not understood")]
    Form,
    /// A key that may not be used.
    #[error("the manager's answer holds no usable key")]
    Key(#[from] crate::key::KeyLineError),
}

impl Answer {
    /// Reads an answer.
    ///
    /// # Errors
    /// When it is neither a usable key nor an error text.
    pub fn parse(answer: &[u8]) -> Result<Self, AnswerError> {
        if let Some(entry) = answer.strip_prefix(GRANTED.as_bytes()) {
            let entry = entry.get(..LINE_LIMIT).unwrap_or(entry);
            let close = memchr::memchr(b'\'', entry).ok_or(AnswerError::Form)?;
            let entry = str::from_utf8(&entry[..close]).ok().ok_or(AnswerError::Form)?;
            return Ok(Self::Granted(entry.parse()?));
        }
        let reason = answer.strip_prefix(ERROR.as_bytes()).ok_or(AnswerError::Form)?;
        let reason = String::from_utf8_lossy(reason.get(..ERROR_LIMIT).unwrap_or(reason));
        let reason = reason.trim_end_matches(['\n', '\0']);
        Ok(Self::Refused(reason.strip_suffix(ERROR_TAIL).unwrap_or(reason).into()))
    }

    /// The text as sent, without a line end; secret when it holds a key.
    pub fn to_text(&self) -> Zeroizing<String> {
        Zeroizing::new(match self {
            Self::Granted(agent) => format!("{GRANTED}{}'", *agent.to_line()),
            Self::Refused(reason) => {
                let room = ERROR_LIMIT - ERROR.len() - ERROR_TAIL.len();
                format!("{ERROR}{}{ERROR_TAIL}", shortened(reason, room))
            }
        })
    }
}

impl From<Reason> for Answer {
    fn from(reason: Reason) -> Self {
        Self::Refused(reason.to_string())
    }
}

/// The password in the text of a password file: its first line. `None` when the file is too short to hold one.
pub fn password_of_file(text: &str) -> Option<Secret> {
    let text = shortened(text, PASSWORD_FILE_LIMIT);
    let line = text.split('\n').next().unwrap_or_default();
    (text.len() > 2 && !line.is_empty()).then(|| Secret::new(line))
}

#[cfg(test)]
mod tests;
