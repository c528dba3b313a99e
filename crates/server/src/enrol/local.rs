//! `queue/sockets/auth`: tools of this host add, remove and look up agents (wire contract 5.4), one framed JSON request per
//! connection.
//!
//! One thread answers one connection after the other, each within [`PATIENCE`]; the socket's mode lets only the installation's
//! own group in.
//! Invariant: every request that was read gets an answer, and an answer that tells of a change is given after the change.

use std::fs;
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use tld_model::AgentId;
use tld_sys::durable;
use tld_wire::enrol::decide::Force;
use tld_wire::enrol::{Reason, Request, RequestedIp};
use tld_wire::frame;
use tld_wire::key::{AgentKey, Secret};

use super::admit::{Admission, Refusal, Wish};
use crate::framed;
use crate::registry::AddError;

/// Time that one connection may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// The socket's service. Dropping it ends it.
#[derive(Debug)]
pub(super) struct LocalSocket {
    path: PathBuf,
    wake: Option<io::PipeWriter>,
    thread: Option<JoinHandle<()>>,
}

/// Starts to serve at `path`. A socket left behind by a dead process is replaced, a live one is not.
pub(super) fn serve(path: PathBuf, admission: Arc<Admission>) -> io::Result<LocalSocket> {
    if let Some(folder) = path.parent() {
        durable::create_dirs(folder, 0o770)?;
    }
    let listener = crate::local::listen(&path)?;
    let (asleep, wake) = io::pipe()?;
    let thread = std::thread::Builder::new().name("auth-socket".into()).spawn(move || {
        while let Ok([ready, false]) =
            tld_sys::ready::readable(&[listener.as_fd(), asleep.as_fd()], Duration::from_secs(3_600))
                .as_deref()
        {
            if let (true, Ok((stream, _))) = (ready, listener.accept()) {
                // A client that goes away or stalls has nobody to be told.
                let _ = converse(&stream, &admission);
            }
        }
    })?;
    Ok(LocalSocket { path, wake: Some(wake), thread: Some(thread) })
}

impl Drop for LocalSocket {
    fn drop(&mut self) {
        drop(self.wake.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn converse(mut stream: &UnixStream, admission: &Admission) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    let request = framed::receive(stream, PATIENCE)?;
    let answer = zeroize::Zeroizing::new(answer(&request, admission));
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(&frame::encode(answer.as_bytes()).map_err(io::Error::other)?)
}

/// The contract's numbered failures. The texts are ours; tools go by the number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Failure {
    Internal,
    Json,
    Argument,
    Name,
    Ip,
    DuplicateIp,
    DuplicateName,
    Key,
    NoId,
    UnknownId,
    DuplicateId,
    Limit,
    Group,
}

impl Failure {
    const fn told(self) -> (u16, &'static str) {
        match self {
            Self::Internal => (9001, "Internal error"),
            Self::Json => (9002, "The request is not JSON"),
            Self::Argument => (9004, "An argument is missing or of the wrong kind"),
            Self::Name => (9005, "Invalid name"),
            Self::Ip => (9006, "Invalid address"),
            Self::DuplicateIp => (9007, "The address is taken"),
            Self::DuplicateName => (9008, "The name is taken"),
            Self::Key => (9009, "Invalid key"),
            Self::NoId => (9010, "No agent id was given"),
            Self::UnknownId => (9011, "There is no agent of that id"),
            Self::DuplicateId => (9012, "The id is taken"),
            Self::Limit => (9013, "No agent id is left"),
            Self::Group => (9014, "There is no such group"),
        }
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Reason(reason) => match reason {
                Reason::Name(_) => Self::Name,
                Reason::Ip(_) => Self::Ip,
                Reason::Group(_) | Reason::GroupName(..) | Reason::TooManyGroups => Self::Group,
                Reason::DuplicateIp(_) => Self::DuplicateIp,
                Reason::DuplicateName(_) => Self::DuplicateName,
                Reason::Password
                | Reason::Request
                | Reason::Unterminated(_)
                | Reason::Version
                | Reason::Internal(_) => Self::Internal,
            },
            Refusal::Add(error) => match error {
                AddError::Name(_) => Self::Name,
                AddError::Key => Self::Key,
                AddError::Id(_) => Self::Argument,
                AddError::DuplicateId(_) => Self::DuplicateId,
                AddError::DuplicateName(_) => Self::DuplicateName,
                AddError::DuplicateIp(_) => Self::DuplicateIp,
                AddError::NoIds => Self::Limit,
                AddError::Random(_) => Self::Internal,
            },
            Refusal::Broken => Self::Internal,
        }
    }
}

#[derive(Debug, Deserialize)]
struct Call {
    function: String,
    #[serde(default)]
    arguments: Value,
}

#[derive(Debug, Deserialize)]
struct AddArguments {
    name: String,
    ip: String,
    id: Option<String>,
    key: Option<String>,
    key_hash: Option<String>,
    groups: Option<String>,
    force: Option<ForceArguments>,
}

#[derive(Debug, Deserialize)]
struct ForceArguments {
    #[serde(default)]
    enabled: bool,
    #[serde(default)]
    key_mismatch: bool,
    disconnected_time: Option<DisconnectedTime>,
    after_registration_time: Option<Span>,
}

#[derive(Debug, Deserialize)]
struct DisconnectedTime {
    #[serde(default)]
    enabled: bool,
    value: Option<Span>,
}

/// A number of seconds, or a number with its unit.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Span {
    Seconds(u32),
    Text(String),
}

impl Span {
    fn secs(&self) -> Option<u32> {
        let text = match self {
            Self::Seconds(secs) => return Some(*secs),
            Self::Text(text) => text.as_str(),
        };
        let (digits, unit) = match text.char_indices().last()? {
            (at, 's') => (text.get(..at)?, 1),
            (at, 'm') => (text.get(..at)?, 60),
            (at, 'h') => (text.get(..at)?, 3_600),
            (at, 'd') => (text.get(..at)?, 86_400),
            _ => (text, 1),
        };
        digits.parse::<u32>().ok()?.checked_mul(unit)
    }
}

impl ForceArguments {
    fn force(&self) -> Option<Force> {
        let span = |span: &Option<Span>| span.as_ref().map_or(Some(0), Span::secs);
        let disconnected = match &self.disconnected_time {
            Some(DisconnectedTime { enabled: true, value }) => Some(span(value)?),
            _ => None,
        };
        Some(Force {
            enabled: self.enabled,
            key_mismatch: self.key_mismatch,
            disconnected_secs: disconnected,
            after_registration_secs: span(&self.after_registration_time)?,
        })
    }
}

fn answer(request: &[u8], admission: &Admission) -> String {
    if request.trim_ascii_end() == b"getconfig auth" {
        return format!("ok {}", configuration(admission));
    }
    match call(request, admission) {
        Ok(data) => json!({ "error": 0, "data": data }).to_string(),
        Err(failure) => {
            let (code, message) = failure.told();
            json!({ "error": code, "message": message }).to_string()
        }
    }
}

fn call(request: &[u8], admission: &Admission) -> Result<Value, Failure> {
    let value: Value = serde_json::from_slice(request).map_err(|_not_json| Failure::Json)?;
    let call: Call = serde_json::from_value(value).map_err(|_no_function| Failure::Argument)?;
    match call.function.as_str() {
        "add" => {
            let arguments = AddArguments::deserialize(call.arguments).map_err(|_bad| Failure::Argument)?;
            add(arguments, admission)
        }
        "remove" => remove(&call.arguments, admission),
        "get" => {
            let table = admission.registry.table();
            let agent = table.by_id(id(&call.arguments)?).ok_or(Failure::UnknownId)?;
            Ok(entry(&agent.key))
        }
        // The contract answers an unknown function like a fault of its own.
        _ => Err(Failure::Internal),
    }
}

fn add(arguments: AddArguments, admission: &Admission) -> Result<Value, Failure> {
    let ip = arguments.ip.parse().map_err(|_no_address| Failure::Ip)?;
    let groups = arguments.groups.unwrap_or_default();
    let groups = groups.split(',').filter(|group| !group.is_empty()).map(str::to_owned).collect();
    let never = Force { enabled: false, ..Force::default() };
    let force = arguments.force.map_or(Some(never), |force| force.force()).ok_or(Failure::Argument)?;
    let request = Request {
        name: arguments.name,
        version: None,
        groups,
        ip: Some(RequestedIp::Given(ip)),
        key_hash: arguments.key_hash,
    };
    let wish = Wish {
        request,
        peer: IpAddr::V4(Ipv4Addr::LOCALHOST),
        force,
        id: arguments.id,
        key: arguments.key.map(Secret::new),
    };
    let (agent, _replaced) = admission.carry_out(wish)?;
    admission.log.info(&format!("enrolment: agent `{}` ({}) by a local tool", agent.key.name, agent.key.id));
    Ok(entry(&agent.key))
}

fn remove(arguments: &Value, admission: &Admission) -> Result<Value, Failure> {
    let id = id(arguments)?;
    let purge = arguments.get("purge").and_then(Value::as_bool).unwrap_or(admission.purge);
    let removed = admission.registry.edit(move |edit| edit.remove(id, purge)).map_err(|error| {
        admission.log.error(&format!("enrolment: {error}"));
        Failure::Internal
    })?;
    let agent = removed.ok_or(Failure::UnknownId)?;
    admission
        .log
        .info(&format!("enrolment: agent `{}` ({}) removed by a local tool", agent.key.name, agent.key.id));
    Ok(json!("Agent deleted successfully."))
}

fn id(arguments: &Value) -> Result<AgentId, Failure> {
    let id = arguments.get("id").ok_or(Failure::NoId)?;
    id.as_str().ok_or(Failure::Argument)?.parse().map_err(|_not_digits| Failure::UnknownId)
}

fn entry(key: &AgentKey) -> Value {
    json!({ "id": key.id, "name": key.name, "ip": key.ip.as_str(), "key": key.key.expose() })
}

fn configuration(admission: &Admission) -> Value {
    let word = |yes| if yes { "yes" } else { "no" };
    let (settings, force) = (&admission.settings, &admission.settings.force);
    json!({ "auth": {
        "disabled": "no",
        "use_source_ip": word(settings.use_source_ip),
        "use_password": word(admission.password.is_some()),
        "purge": word(admission.purge),
        "allow_higher_versions": word(settings.allow_higher_versions),
        "force": {
            "enabled": word(force.enabled),
            "key_mismatch": word(force.key_mismatch),
            "disconnected_time": {
                "enabled": word(force.disconnected_secs.is_some()), "value": force.disconnected_secs.unwrap_or(0),
            },
            "after_registration_time": force.after_registration_secs,
        },
    } })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_seconds_or_have_a_unit() {
        let span = |text: &str| serde_json::from_str::<Span>(text).unwrap().secs();
        for (text, secs) in [
            ("3600", Some(3_600)),
            ("\"1h\"", Some(3_600)),
            ("\"90\"", Some(90)),
            ("\"2d\"", Some(172_800)),
            ("\"h\"", None),
            ("\"\"", None),
            ("\"1é\"", None),
            ("\"99999999h\"", None),
        ] {
            assert_eq!(span(text), secs, "{text}");
        }
    }
}
