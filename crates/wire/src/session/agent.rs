//! The agent's side of a connection: handshake, signs of life, files that the manager pushes.
//! Invariant: time is a span since the owner's own start, from a clock that never goes back; after every call
//! [`Session::deadline`] says when to call [`Session::on_time`] next.

use std::time::Duration;

use tld_model::{OrderId, OutcomeKind};

use crate::control::{FromAgent, FromManager, QueryId, QueryTarget, Startup};
use crate::counter::Counter;
use crate::extension::{self, Ticket};
use crate::key::md5_text;
use crate::merged::{BUNDLE_LIMIT, pushed_name};
use crate::version::Version;

/// How long things take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// Between two signs of life.
    pub notify: Duration,
    /// Without a word of the manager, until the connection counts as lost.
    pub reconnect: Duration,
    /// For the answer to the handshake.
    pub handshake: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        let secs = Duration::from_secs;
        Self { notify: secs(20), reconnect: secs(60), handshake: secs(60) }
    }
}

impl Timing {
    // A connection must not be given up before a sign of life could have been answered.
    fn sane(self) -> Self {
        let reconnect = if self.reconnect <= self.notify { self.notify * 3 } else { self.reconnect };
        Self { reconnect, ..self }
    }
}

/// Why a connection ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Closing {
    /// No answer to the handshake.
    HandshakeTimeout,
    /// The manager refused it, with this text.
    Refused(String),
    /// The manager has been silent.
    Silent,
    /// The manager asks for a new handshake.
    Asked,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// Seal and send this payload.
    Send(Vec<u8>),
    /// The manager has accepted the handshake.
    Connected,
    /// The manager speaks our extension; outcomes may be reported.
    Extended,
    /// Send a sign of life; only the owner knows its content.
    KeepAlive,
    /// An order for the executor, with its ticket if the manager speaks our extension.
    Execd(Vec<u8>, Option<Ticket>),
    /// A file arrived whole; its name stays in one directory.
    File {
        /// Flat name.
        name: String,
        /// Its bytes, checked against the announced sum.
        content: Vec<u8>,
    },
    /// A file arrived damaged, or was refused; what was stored under that name should go.
    BadFile(String),
    /// A query to be answered.
    Query(QueryId, QueryTarget, Vec<u8>),
    /// A text for another part of the agent.
    Forward(FromManager),
    /// An outcome is stored at the manager.
    Confirmed(OrderId, OutcomeKind),
    /// An order is withdrawn.
    Cancel(OrderId),
    /// The manager has taken every message up to this pair; what was sent behind it may be lost with the connection.
    Taken(Counter),
    /// Close the connection. Nothing is to be done with this session any more.
    Close(Closing),
}

#[derive(Debug)]
struct Transfer {
    md5: String,
    // None for a name that is refused: its pieces are dropped.
    name: Option<String>,
    announced: String,
    content: Vec<u8>,
    is_too_long: bool,
}

/// One connection, from its handshake to its end.
#[derive(Debug)]
pub struct Session {
    timing: Timing,
    is_connected: bool,
    is_extended: bool,
    is_closed: bool,
    heard: Duration,
    notify_at: Duration,
    transfer: Option<Transfer>,
}

impl Session {
    /// Begins a connection; the payload is the handshake.
    pub fn start(timing: Timing, now: Duration) -> (Self, Vec<u8>) {
        Self::start_as(Version::CONTRACT, timing, now)
    }

    /// Begins a connection under another version, for a manager that refuses newer ones.
    pub fn start_as(version: Version, timing: Timing, now: Duration) -> (Self, Vec<u8>) {
        let timing = timing.sane();
        let session = Self {
            timing,
            is_connected: false,
            is_extended: false,
            is_closed: false,
            heard: now,
            notify_at: now + timing.notify,
            transfer: None,
        };
        (session, FromAgent::Startup(Startup::of(version)).to_bytes())
    }

    /// Whether the handshake is done.
    pub const fn is_connected(&self) -> bool {
        self.is_connected
    }

    /// Whether outcomes may be reported.
    pub const fn is_extended(&self) -> bool {
        self.is_extended
    }

    /// When [`on_time`](Self::on_time) is to be called at the latest.
    pub fn deadline(&self) -> Duration {
        if self.is_connected {
            self.notify_at.min(self.heard + self.timing.reconnect)
        } else {
            self.heard + self.timing.handshake
        }
    }

    /// Time has passed.
    pub fn on_time(&mut self, now: Duration) -> Vec<Step> {
        if self.is_closed {
            return Vec::new();
        }
        if !self.is_connected {
            let is_late = now >= self.heard + self.timing.handshake;
            return if is_late { self.close(Closing::HandshakeTimeout) } else { Vec::new() };
        }
        if now >= self.heard + self.timing.reconnect {
            return self.close(Closing::Silent);
        }
        if now < self.notify_at {
            return Vec::new();
        }
        self.notify_at = now + self.timing.notify;
        vec![Step::KeepAlive]
    }

    /// Takes an opened payload. Each one is a sign of life of the manager.
    pub fn on_payload(&mut self, payload: &[u8], now: Duration) -> Vec<Step> {
        if self.is_closed {
            return Vec::new();
        }
        let Some(message) = FromManager::parse(payload) else {
            self.heard_when_connected(now);
            self.piece(payload);
            return Vec::new();
        };
        if !self.is_connected {
            return self.handshake(message, now);
        }
        self.heard = now;
        match message {
            FromManager::Execd(json) => {
                let ticket = if self.is_extended { extension::ticket(&json) } else { None };
                vec![Step::Execd(json, ticket)]
            }
            FromManager::UpFile { md5, name } => {
                let stored = pushed_name(&name);
                let (announced, content) = (name, Vec::new());
                self.transfer = Some(Transfer { md5, name: stored, announced, content, is_too_long: false });
                Vec::new()
            }
            FromManager::CloseFile => self.transfer.take().map(Transfer::finish).into_iter().collect(),
            FromManager::Query { id, target, text } => vec![Step::Query(id, target, text)],
            FromManager::StrayQuery(id) => {
                let text = b"err No such file or directory".to_vec();
                vec![Step::Send(FromAgent::Answer { id, text }.to_bytes())]
            }
            FromManager::Reconnect => self.close(Closing::Asked),
            FromManager::Extension(extension::FromManager::Hello(_)) => {
                if std::mem::replace(&mut self.is_extended, true) {
                    return vec![Step::Extended];
                }
                // One of ours takes the first sign of life at once: it makes the agent active and brings its files.
                self.notify_at = now + self.timing.notify;
                vec![Step::Extended, Step::KeepAlive]
            }
            FromManager::Extension(message) if self.is_extended => match message {
                extension::FromManager::Hello(_) => Vec::new(),
                extension::FromManager::Confirmed { order, kind } => vec![Step::Confirmed(order, kind)],
                extension::FromManager::Cancel { order } => vec![Step::Cancel(order)],
                extension::FromManager::Taken(counter) => vec![Step::Taken(counter)],
            },
            forward
            @ (FromManager::Integrity(_) | FromManager::Inventory(_) | FromManager::Assessment(_)) => {
                vec![Step::Forward(forward)]
            }
            FromManager::Ack
            | FromManager::Refused { .. }
            | FromManager::AnswerReceived(_)
            | FromManager::Extension(_)
            | FromManager::Unknown(_) => Vec::new(),
        }
    }

    fn handshake(&mut self, message: FromManager, now: Duration) -> Vec<Step> {
        match message {
            FromManager::Ack => {
                self.is_connected = true;
                self.heard = now;
                // The first sign of life is due a whole interval later, not at once, unless the extension is spoken.
                self.notify_at = now + self.timing.notify;
                vec![Step::Connected]
            }
            FromManager::Refused { message } => self.close(Closing::Refused(message)),
            _ => Vec::new(),
        }
    }

    const fn heard_when_connected(&mut self, now: Duration) {
        if self.is_connected {
            self.heard = now;
        }
    }

    fn piece(&mut self, bytes: &[u8]) {
        let Some(transfer) = &mut self.transfer else { return };
        // Text up to a NUL, as every receiver of the contract takes it.
        let text = memchr::memchr(0, bytes).map_or(bytes, |nul| &bytes[..nul]);
        if transfer.content.len() + text.len() > BUNDLE_LIMIT {
            transfer.is_too_long = true;
            transfer.content = Vec::new();
        }
        if transfer.name.is_some() && !transfer.is_too_long {
            transfer.content.extend_from_slice(text);
        }
    }

    fn close(&mut self, why: Closing) -> Vec<Step> {
        self.is_closed = true;
        vec![Step::Close(why)]
    }

    /// The payload that reports a state of an order; `None` while the manager does not speak our extension.
    pub fn report(&self, message: extension::FromAgent) -> Option<Vec<u8>> {
        self.is_extended.then(|| FromAgent::Extension(message).to_bytes())
    }
}

impl Transfer {
    fn finish(self) -> Step {
        match self.name {
            Some(name) if !self.is_too_long && md5_text(&self.content) == self.md5 => {
                Step::File { name, content: self.content }
            }
            _ => Step::BadFile(self.announced),
        }
    }
}
