//! Cutting the header off a log line: time, host and program (analysis 3).
//!
//! Every known form is told by a few bytes at fixed places, tested in a fixed order; nothing is searched.
//! Invariant: parts are slices of the event, only an agent's location is put together.

use std::borrow::Cow;

use tld_model::{AgentId, Event};

use crate::Decoded;

mod header;
#[cfg(test)]
mod tests;

/// Names of the host that this manager runs on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostNames {
    /// As the system gives it.
    pub full: String,
    /// Up to the first dot: the host of local lines without one.
    pub short: String,
}

impl HostNames {
    /// From the full name.
    pub fn new(full: impl Into<String>) -> Self {
        let full = full.into();
        let short = full.split('.').next().unwrap_or_default().to_owned();
        Self { full, short }
    }
}

/// What a header says; the log starts at `log`.
#[derive(Debug, Default)]
struct Header<'e> {
    timestamp: Option<&'e [u8]>,
    hostname: Option<&'e [u8]>,
    program: Option<&'e [u8]>,
    log: usize,
    /// End of the log where that is not the end of the text.
    log_end: Option<usize>,
}

/// Cuts the header off and gives the event its location and host.
pub fn predecode<'e>(event: &'e Event, host: &HostNames) -> Decoded<'e> {
    let mut decoded = Decoded::new(event);
    predecode_into(&mut decoded, host);
    decoded
}

/// The same for an event of which nothing is known yet.
pub(crate) fn predecode_into(decoded: &mut Decoded<'_>, host: &HostNames) {
    let event = decoded.event;
    let text: &[u8] = &event.text;
    let header = header::read(text);
    decoded.log =
        Cow::Borrowed(text.get(header.log..header.log_end.unwrap_or(text.len())).unwrap_or_default());
    decoded.timestamp = header.timestamp.map(Cow::Borrowed);
    decoded.program_name = header.program.map(Cow::Borrowed);
    if event.agent.id == AgentId::MANAGER {
        let short = host.short.as_bytes();
        decoded.set_hostname(header.hostname.unwrap_or(short));
        return;
    }
    let agent = &*event.agent;
    let head = ["(", &agent.name, ") ", &agent.registered_ip, "->"].concat();
    decoded.location = Cow::Owned([head.as_bytes(), &event.location].concat());
    let name = agent.name.split(')').next().unwrap_or_default();
    decoded.set_hostname(name.as_bytes());
}
