//! Events in their text form, `<queue>:<location>:<message>`, on local sockets and across the wire.
//! Invariant: an agent's identity comes from the session that opened its message, or from the header that the manager
//! itself wrote; nothing inside a message can claim another agent.

use std::borrow::Cow;
use std::sync::Arc;

use memchr::memchr;
use tld_model::{Agent, Event, Timestamp};

use crate::key::AgentKey;
use crate::name::{RegisteredIp, is_agent_id, is_agent_name};

/// Longest datagram, with its closing NUL.
pub const LIMIT: usize = 65_536;

/// Location of what a manager's receiver says itself.
const RECEIVER: &str = "wazuh-remoted";

/// Why a datagram is no event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EventError {
    /// Not a queue id, a colon and a location.
    #[error("an event starts with one character, a colon and a location")]
    Form,
    /// Too long.
    #[error("the event has {0} bytes")]
    Length(usize),
    /// An agent's sign of life in the disguise of an event, which is dropped.
    #[error("the event is a keep-alive")]
    KeepAlive,
}

/// An event's parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parts<'a> {
    /// Queue id.
    pub queue: u8,
    /// Where it came from, without escapes.
    pub location: Cow<'a, [u8]>,
    /// The line.
    pub message: &'a [u8],
}

impl<'a> Parts<'a> {
    /// Splits a datagram. Everything from its first NUL on is no part of it.
    ///
    /// # Errors
    /// When there is no queue id or no location.
    pub fn parse(datagram: &'a [u8]) -> Result<Self, EventError> {
        let (queue, rest) = split_queue(datagram)?;
        let colon = unescaped_colon(rest).ok_or(EventError::Form)?;
        Ok(Self { queue, location: unescape(&rest[..colon]), message: &rest[colon + 1..] })
    }

    /// The datagram, without a closing NUL.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut text = vec![self.queue, b':'];
        escape(&self.location, &mut text);
        text.push(b':');
        text.extend_from_slice(self.message);
        text
    }

    /// The event itself.
    pub fn into_event(self, agent: Arc<Agent>, received: Timestamp) -> Event {
        Event {
            queue: self.queue,
            location: self.location.into(),
            agent,
            text: self.message.to_vec(),
            received,
        }
    }
}

/// The text of an event, as local sockets and agents carry it.
pub fn to_bytes(event: &Event) -> Vec<u8> {
    let location = Cow::Borrowed(&*event.location);
    Parts { queue: event.queue, location, message: &event.text }.to_bytes()
}

/// The event in an opened message of `agent`: what a manager does that needs no local socket in between.
///
/// # Errors
/// When the manager of the contract would drop the message, or could not tell its location.
pub fn from_agent(payload: &[u8], agent: Arc<Agent>, received: Timestamp) -> Result<Event, EventError> {
    drop_keep_alive(payload)?;
    Ok(Parts::parse(payload)?.into_event(agent, received))
}

/// An opened message of `agent` as the contract's manager puts it on its local socket, closing NUL included. What is
/// over [`LIMIT`] is cut off.
///
/// # Errors
/// When it is to be dropped.
pub fn wrap(payload: &[u8], id: &str, name: &str, ip: &RegisteredIp) -> Result<Vec<u8>, EventError> {
    drop_keep_alive(payload)?;
    let (queue, rest) = split_queue(payload)?;
    let mut datagram = vec![queue, b':'];
    escape(format!("[{id}] ({name}) {ip}->").as_bytes(), &mut datagram);
    datagram.extend_from_slice(rest);
    datagram.truncate(LIMIT - 1);
    datagram.push(0);
    Ok(datagram)
}

/// The event that a manager makes when an agent says goodbye, as the agent might have sent it.
pub fn agent_stopped(agent: &AgentKey) -> Vec<u8> {
    format!("1:{RECEIVER}:ossec: Agent stopped: '{}->{}'.", agent.name, agent.ip).into_bytes()
}

/// The event that an agent sends behind its first handshake.
pub fn agent_started(agent: &AgentKey) -> Vec<u8> {
    format!("1:wazuh-agent:ossec: Agent started: '{}->{}'.", agent.name, agent.ip).into_bytes()
}

/// The header of a wrapped location.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header<'a> {
    /// As written.
    pub id: &'a str,
    /// Its name.
    pub name: &'a str,
    /// Its registered address.
    pub ip: &'a str,
    /// The location that the agent gave.
    pub location: &'a [u8],
}

impl<'a> Header<'a> {
    /// Reads `[id] (name) ip->location` off an unescaped location; `None` means that the manager itself is meant.
    pub fn parse(location: &'a [u8]) -> Option<Self> {
        let rest = location.strip_prefix(b"[")?;
        let (id, rest) = until(rest, b"] (")?;
        let (name, rest) = until(rest, b") ")?;
        let (ip, location) = until(rest, b"->")?;
        let fits = is_agent_id(id) && is_agent_name(name) && ip.parse::<RegisteredIp>().is_ok();
        fits.then_some(Self { id, name, ip, location })
    }
}

// Each part is short, so only the start of a long location is searched.
fn until<'a>(text: &'a [u8], mark: &[u8]) -> Option<(&'a str, &'a [u8])> {
    let window = &text[..text.len().min(160)];
    let at = window.windows(mark.len()).position(|part| part == mark)?;
    Some((str::from_utf8(&text[..at]).ok()?, &text[at + mark.len()..]))
}

fn split_queue(datagram: &[u8]) -> Result<(u8, &[u8]), EventError> {
    let text = memchr(0, datagram).map_or(datagram, |nul| &datagram[..nul]);
    if text.len() > LIMIT {
        return Err(EventError::Length(text.len()));
    }
    match text {
        [queue, b':', rest @ ..] => Ok((*queue, rest)),
        _ => Err(EventError::Form),
    }
}

fn drop_keep_alive(payload: &[u8]) -> Result<(), EventError> {
    let is_one = split_queue(payload)?.1.starts_with(b"keepalive");
    if is_one { Err(EventError::KeepAlive) } else { Ok(()) }
}

fn unescaped_colon(text: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        at += memchr::memchr2(b':', b'|', text.get(at..)?)?;
        if text[at] == b':' {
            return Some(at);
        }
        at += if matches!(text.get(at + 1), Some(b':' | b'|')) { 2 } else { 1 };
    }
}

fn escape(location: &[u8], out: &mut Vec<u8>) {
    for &byte in location {
        if matches!(byte, b':' | b'|') {
            out.push(b'|');
        }
        out.push(byte);
    }
}

fn unescape(location: &[u8]) -> Cow<'_, [u8]> {
    let Some(first) = memchr(b'|', location) else { return Cow::Borrowed(location) };
    let mut plain = location[..first].to_vec();
    let mut rest = &location[first..];
    while let [byte, tail @ ..] = rest {
        let (byte, tail) = match (byte, tail) {
            (b'|', [next @ (b':' | b'|'), tail @ ..]) => (next, tail),
            _ => (byte, tail),
        };
        plain.push(*byte);
        rest = tail;
    }
    Cow::Owned(plain)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ip(text: &str) -> RegisteredIp {
        text.parse().unwrap()
    }

    #[test]
    fn datagrams_split_at_the_first_unescaped_colon() {
        let table: [(&[u8], &[u8], &[u8]); 6] = [
            (b"1:/var/log/auth.log:hello: x", b"/var/log/auth.log", b"hello: x"),
            (b"1:C|:\\a.log:x\0", b"C:\\a.log", b"x"),
            (b"1:a||:x", b"a|", b"x"),
            (b"1:a|b:x", b"a|b", b"x"),
            (b"1:a:x\0y", b"a", b"x"),
            (b"1:::", b"", b":"),
        ];
        for (datagram, location, message) in table {
            let parts = Parts::parse(datagram).unwrap();
            assert_eq!((&*parts.location, parts.message), (location, message));
        }
    }

    #[test]
    fn a_text_without_location_is_no_event() {
        for bad in [&b""[..], b"1", b"1msg", b"1:msg only", b"1:a|:b", b"\x001:a:b"] {
            assert_eq!(Parts::parse(bad), Err(EventError::Form), "{bad:?}");
        }
    }

    #[test]
    fn the_header_of_an_ipv6_agent_is_escaped_and_read_back() {
        let datagram = wrap(b"1:C|:\\x:hi", "012", "win-1", &ip("2001:db8::1")).unwrap();
        assert_eq!(datagram, b"1:[012] (win-1) 2001|:db8|:|:1->C|:\\x:hi\0");
        let parts = Parts::parse(&datagram).unwrap();
        let header = Header::parse(&parts.location).unwrap();
        assert_eq!((header.id, header.name, header.ip), ("012", "win-1", "2001:db8::1"));
        assert_eq!(header.location, b"C:\\x");
    }

    #[test]
    fn an_agent_cannot_speak_for_another() {
        let forged = b"1:[001] (root) any->/var/log/auth.log:x";
        let wrapped = wrap(forged, "002", "web-01", &RegisteredIp::any()).unwrap();
        let parts = Parts::parse(&wrapped).unwrap();
        assert_eq!(Header::parse(&parts.location).unwrap().id, "002");
        let agent = Arc::new(Agent { name: "web-01".into(), ..Agent::default() });
        let event = from_agent(forged, agent, Timestamp::EPOCH).unwrap();
        assert_eq!(event.agent.name, "web-01");
    }

    #[test]
    fn locations_that_only_look_wrapped_are_the_managers_own() {
        for location in
            ["[x] (web) any->l", "[001](web) any->l", "[001] (w) any->l", "[001] (web) anyone->l", "l"]
        {
            assert_eq!(Header::parse(location.as_bytes()), None, "{location}");
        }
    }

    #[test]
    fn a_message_that_outgrows_the_limit_by_its_header_is_cut() {
        let payload = [b"1:l:".as_slice(), &vec![b'x'; 65_470]].concat();
        let datagram = wrap(&payload, "001", &"n".repeat(128), &RegisteredIp::any()).unwrap();
        assert_eq!((datagram.len(), datagram.last()), (LIMIT, Some(&0)));
    }

    proptest! {
        #[test]
        fn parts_round_trip(queue in 1u8.., location in prop::collection::vec(1u8.., 0..40), message in prop::collection::vec(1u8.., 0..60)) {
            let parts = Parts { queue, location: location.into(), message: &message };
            let text = parts.to_bytes();
            prop_assert_eq!(Parts::parse(&text), Ok(parts.clone()));
            let event = parts.into_event(Arc::default(), Timestamp::EPOCH);
            prop_assert_eq!(to_bytes(&event), text);
        }

        #[test]
        fn any_datagram_is_survived(bytes in prop::collection::vec(any::<u8>(), 0..120), lead in "(1:)?(\\[001\\] )?") {
            let bytes = [lead.as_bytes(), &bytes].concat();
            let _ = Parts::parse(&bytes).map(|parts| Header::parse(&parts.location).is_some());
            let _ = wrap(&bytes, "001", "web", &RegisteredIp::any());
            let _ = from_agent(&bytes, Arc::default(), Timestamp::EPOCH);
        }
    }
}
