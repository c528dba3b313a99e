//! As much of the system's message bus (D-Bus) as a question to one of its services takes: texts and a number go there,
//! an answer of yes or no or an error comes back. The tools that ask it otherwise take a third of a second to start.
//! Invariant: every wait ends with the patience of the connection, every message is bounded, and what is not understood is
//! an error.

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use tld_sys::clock::Deadline;

/// The question was not answered with yes, no or done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BusError {
    /// There is no bus.
    #[error("the system's message bus cannot be reached: {0}")]
    Connect(io::Error),
    /// It broke off, or was silent for too long.
    #[error("the system's message bus does not answer: {0}")]
    Broken(#[from] io::Error),
    /// It said something that is not of the protocol.
    #[error("the system's message bus answers with what is not understood")]
    Malformed,
    /// The service or the bus says no.
    #[error("{text}")]
    Said { name: String, text: String },
}

/// Whom a call is for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Service<'a> {
    pub(crate) name: &'a str,
    pub(crate) object: &'a str,
    pub(crate) interface: &'a str,
}

/// One argument of a call.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Argument<'a> {
    Text(&'a str),
    Number(i32),
}

/// What a call returned.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    signature: String,
    body: Vec<u8>,
}

impl Answer {
    /// A plain yes or no.
    pub(crate) fn is_yes(&self) -> Result<bool, BusError> {
        match (self.signature.as_str(), number(&self.body, 0)) {
            ("b", Some(value)) => Ok(value != 0),
            _ => Err(BusError::Malformed),
        }
    }
}

/// A connection as the user that we are.
#[derive(Debug)]
pub(crate) struct Bus {
    stream: UnixStream,
    serial: u32,
    deadline: Deadline,
}

impl Bus {
    /// Connects and says who we are; everything on it together takes at most `patience`.
    pub(crate) fn connect(socket: &Path, patience: Duration) -> Result<Self, BusError> {
        let stream = UnixStream::connect(socket).map_err(BusError::Connect)?;
        let mut bus = Self { stream, serial: 0, deadline: Deadline::after(patience) };
        let user = rustix::process::geteuid().as_raw().to_string();
        let hex: String = user.bytes().map(|byte| format!("{byte:02x}")).collect();
        bus.send(format!("\0AUTH EXTERNAL {hex}\r\n").as_bytes())?;
        if !bus.line()?.starts_with(b"OK ") {
            return Err(BusError::Malformed);
        }
        bus.send(b"BEGIN\r\n")?;
        bus.call(DRIVER, "Hello", &[])?;
        Ok(bus)
    }

    /// Calls a method of a service that runs already, and waits for its answer.
    pub(crate) fn call(
        &mut self,
        service: Service<'_>,
        method: &str,
        arguments: &[Argument<'_>],
    ) -> Result<Answer, BusError> {
        self.serial += 1;
        let serial = self.serial;
        self.send(&message(serial, service, method, arguments))?;
        loop {
            // Signals and the like are for others.
            let Some(answer) = self.receive(serial)? else { continue };
            return answer;
        }
    }

    /// The next message, if it answers this call.
    fn receive(&mut self, serial: u32) -> Result<Option<Result<Answer, BusError>>, BusError> {
        let mut head = [0; HEAD];
        self.fill(&mut head)?;
        let (fields, body) = lengths(&head).ok_or(BusError::Malformed)?;
        let mut rest = vec![0; fields.next_multiple_of(8) + body];
        self.fill(&mut rest)?;
        Ok(understand(&head, &rest, serial))
    }

    fn send(&mut self, bytes: &[u8]) -> Result<(), BusError> {
        self.stream.set_write_timeout(Some(self.left()?))?;
        Ok(self.stream.write_all(bytes)?)
    }

    fn fill(&mut self, buffer: &mut [u8]) -> Result<(), BusError> {
        let mut filled = 0;
        while filled < buffer.len() {
            self.stream.set_read_timeout(Some(self.left()?))?;
            match self.stream.read(&mut buffer[filled..]) {
                Ok(0) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// A line of the greeting, which is text.
    fn line(&mut self) -> Result<Vec<u8>, BusError> {
        let mut line = Vec::new();
        while line.len() < LINE {
            let mut byte = [0];
            self.fill(&mut byte)?;
            match byte {
                [b'\n'] => return Ok(line),
                [byte] => line.push(byte),
            }
        }
        Err(BusError::Malformed)
    }

    fn left(&self) -> Result<Duration, BusError> {
        let left = self.deadline.remaining().unwrap_or(Duration::MAX);
        if left.is_zero() { Err(io::Error::from(io::ErrorKind::TimedOut).into()) } else { Ok(left) }
    }
}

// Layout (D-Bus specification, "Message Protocol"): byte order, kind, flags, version 1; length of the body, serial, length of
// the fields, each four bytes; the fields, each beginning at a multiple of eight, as code, signature, value; the body, at a
// multiple of eight. Everything is aligned to its size; texts are their length, their bytes and a NUL.

/// A call. Only the byte order of this machine is spoken, since both ends are on it.
fn message(serial: u32, service: Service<'_>, method: &str, arguments: &[Argument<'_>]) -> Vec<u8> {
    let mut body = Vec::new();
    let mut signature = String::new();
    for argument in arguments {
        align(&mut body, 4);
        match argument {
            Argument::Text(value) => {
                signature.push('s');
                text(&mut body, value);
            }
            Argument::Number(value) => {
                signature.push('i');
                body.extend(value.to_ne_bytes());
            }
        }
    }
    let mut fields = Vec::new();
    for (code, kind, value) in [
        (PATH, 'o', service.object),
        (DESTINATION, 's', service.name),
        (INTERFACE, 's', service.interface),
        (MEMBER, 's', method),
    ] {
        align(&mut fields, 8);
        fields.extend([code, 1, kind as u8, 0]);
        text(&mut fields, value);
    }
    if !signature.is_empty() {
        align(&mut fields, 8);
        // A signature has its length in one byte; ours are a letter for each argument.
        fields.extend([SIGNATURE, 1, b'g', 0, u8::try_from(signature.len()).unwrap_or(u8::MAX)]);
        fields.extend(signature.bytes().chain([0]));
    }
    let mut all = vec![ORDER, CALL, NO_AUTO_START, 1];
    for number in [
        u32::try_from(body.len()).unwrap_or(u32::MAX),
        serial,
        u32::try_from(fields.len()).unwrap_or(u32::MAX),
    ] {
        all.extend(number.to_ne_bytes());
    }
    all.extend(fields);
    align(&mut all, 8);
    all.extend(body);
    all
}

fn align(bytes: &mut Vec<u8>, to: usize) {
    bytes.resize(bytes.len().next_multiple_of(to), 0);
}

fn length(text: &str) -> u32 {
    u32::try_from(text.len()).unwrap_or(u32::MAX)
}

fn text(bytes: &mut Vec<u8>, text: &str) {
    bytes.extend(length(text).to_ne_bytes());
    bytes.extend(text.bytes().chain([0]));
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    let four = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_ne_bytes(four.try_into().ok()?))
}

fn read_text(bytes: &[u8], at: usize) -> Option<(String, usize)> {
    let begin = at.checked_add(4)?;
    let end = begin.checked_add(number(bytes, at)? as usize)?;
    Some((String::from_utf8_lossy(bytes.get(begin..end)?).into_owned(), end.checked_add(1)?))
}

/// How long the fields and the body of a message are.
fn lengths(head: &[u8; HEAD]) -> Option<(usize, usize)> {
    if head[0] != ORDER || head[3] != 1 {
        return None;
    }
    let (body, fields) = (number(head, 4)? as usize, number(head, 12)? as usize);
    (fields <= MOST && body <= MOST).then_some((fields, body))
}

/// What a message says to the call of this serial; `None` if it is about something else.
fn understand(head: &[u8; HEAD], rest: &[u8], serial: u32) -> Option<Result<Answer, BusError>> {
    let (length, _) = lengths(head)?;
    if !matches!(head[1], RETURN | ERROR) {
        return None;
    }
    let Some(fields) = rest.get(..length).and_then(Fields::read) else {
        return Some(Err(BusError::Malformed));
    };
    if fields.answers != Some(serial) {
        return None;
    }
    let body = rest.get(length.next_multiple_of(8)..).unwrap_or_default().to_vec();
    if head[1] == RETURN {
        return Some(Ok(Answer { signature: fields.signature, body }));
    }
    let said = if fields.signature.starts_with('s') { read_text(&body, 0) } else { None };
    let text = said.map_or_else(|| fields.error.clone(), |(text, _)| text);
    Some(Err(BusError::Said { name: fields.error, text }))
}

#[derive(Debug, Default)]
struct Fields {
    answers: Option<u32>,
    error: String,
    signature: String,
}

impl Fields {
    fn read(bytes: &[u8]) -> Option<Self> {
        let mut fields = Self::default();
        let mut at: usize = 0;
        while at < bytes.len() {
            let (code, kind) = (*bytes.get(at)?, bytes.get(at + 1..at + 4)?);
            let value = at + 4;
            at = match kind {
                [1, b's' | b'o', 0] => {
                    let (text, end) = read_text(bytes, value)?;
                    if code == ERROR_NAME {
                        fields.error = text;
                    }
                    end
                }
                [1, b'g', 0] => {
                    let end = value + 1 + usize::from(*bytes.get(value)?);
                    if code == SIGNATURE {
                        fields.signature = String::from_utf8_lossy(bytes.get(value + 1..end)?).into_owned();
                    }
                    end + 1
                }
                [1, b'u', 0] => {
                    if code == REPLY_SERIAL {
                        fields.answers = number(bytes, value);
                    }
                    value + 4
                }
                _ => return None,
            };
            at = at.next_multiple_of(8);
        }
        Some(fields)
    }
}

const DRIVER: Service<'_> = Service {
    name: "org.freedesktop.DBus",
    object: "/org/freedesktop/DBus",
    interface: "org.freedesktop.DBus",
};
const ORDER: u8 = if cfg!(target_endian = "little") { b'l' } else { b'B' };
const CALL: u8 = 1;
const RETURN: u8 = 2;
const ERROR: u8 = 3;
/// The bus must not start a service that does not run.
const NO_AUTO_START: u8 = 2;
const PATH: u8 = 1;
const INTERFACE: u8 = 2;
const MEMBER: u8 = 3;
const ERROR_NAME: u8 = 4;
const REPLY_SERIAL: u8 = 5;
const DESTINATION: u8 = 6;
const SIGNATURE: u8 = 8;
const HEAD: usize = 16;
const LINE: usize = 1_024;
const MOST: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    const ASKED: Service<'_> = Service { name: "a.b", object: "/a", interface: "a.b.c" };

    fn reply(kind: u8, fields: &[u8], body: &[u8]) -> ([u8; HEAD], Vec<u8>) {
        let mut head = [0; HEAD];
        head[..4].copy_from_slice(&[ORDER, kind, 1, 1]);
        head[4..8].copy_from_slice(&u32::try_from(body.len()).unwrap().to_ne_bytes());
        head[12..].copy_from_slice(&u32::try_from(fields.len()).unwrap().to_ne_bytes());
        let mut rest = fields.to_vec();
        align(&mut rest, 8);
        rest.extend(body);
        (head, rest)
    }

    /// The fields that say which call is answered, with one more.
    fn fields(serial: u32, code: u8, kind: u8, value: &[u8]) -> Vec<u8> {
        let mut bytes = vec![REPLY_SERIAL, 1, b'u', 0];
        bytes.extend(serial.to_ne_bytes());
        bytes.extend([code, 1, kind, 0]);
        bytes.extend(value);
        bytes
    }

    #[test]
    fn a_call_is_laid_out_as_the_specification_says() {
        let call = message(7, ASKED, "M", &[Argument::Text("x"), Argument::Number(-1)]);
        assert_eq!(call.len() % 4, 0);
        let head: [u8; HEAD] = call[..HEAD].try_into().unwrap();
        let (fields, body) = lengths(&head).unwrap();
        assert_eq!(number(&head, 8), Some(7));
        assert_eq!(HEAD + fields.next_multiple_of(8) + body, call.len());
        let body = &call[call.len() - body..];
        assert_eq!(read_text(body, 0), Some(("x".into(), 6)));
        assert_eq!(number(body, 8), Some(u32::MAX));
        assert_eq!(Fields::read(&call[HEAD..HEAD + fields]).unwrap().signature, "si");
    }

    #[test]
    fn answers_errors_and_strange_messages_are_told_apart() {
        let (head, rest) = reply(RETURN, &fields(7, SIGNATURE, b'g', b"\x01b\0"), &1_u32.to_ne_bytes());
        assert!(understand(&head, &rest, 7).unwrap().unwrap().is_yes().unwrap());
        assert!(understand(&head, &rest, 8).is_none(), "of another call");
        let (head, rest) = reply(4, &[], &[]);
        assert!(understand(&head, &rest, 7).is_none(), "a signal");
        let mut name = Vec::new();
        text(&mut name, "a.Error");
        let (head, rest) = reply(ERROR, &fields(7, ERROR_NAME, b's', &name), &[]);
        let told = understand(&head, &rest, 7).unwrap().unwrap_err();
        assert!(matches!(told, BusError::Said { name, .. } if name == "a.Error"));
        let (head, rest) = reply(RETURN, &fields(7, 9, b'a', &[]), &[]);
        assert!(matches!(understand(&head, &rest, 7), Some(Err(BusError::Malformed))));
    }

    proptest::proptest! {
        #[test]
        fn whatever_the_bus_sends_is_understood_or_refused(head: [u8; HEAD], rest: Vec<u8>, kind in 2_u8..4) {
            let mut head = head;
            let _ = understand(&head, &rest, 7);
            head[..4].copy_from_slice(&[ORDER, kind, 0, 1]);
            head[12..].copy_from_slice(&u32::try_from(rest.len()).unwrap().to_ne_bytes());
            if let Some(Ok(answer)) = understand(&head, &rest, 7) {
                let _ = answer.is_yes();
            }
        }
    }
}
