//! The connection itself: bytes in and out, sealed and opened.
//! Invariant: messages leave in the order of their counters.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown, TcpStream, ToSocketAddrs, UdpSocket};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tld_wire::counter::Counter;
use tld_wire::frame::{self, Decoder};
use tld_wire::key::{AgentKey, SealingKeys};
use tld_wire::seal::{Envelope, Method, OpenError, Opener, SealError, Sealer};

use crate::key::{CounterError, Numbers};

/// A manager that takes nothing for so long is gone.
const STUCK: Duration = Duration::from_secs(60);
const READ: usize = 1 << 16;

/// A TCP or UDP socket towards a manager.
#[derive(Debug)]
pub(crate) enum Channel {
    Tcp(TcpStream),
    Udp(UdpSocket),
}

impl Channel {
    pub(crate) fn open(host: &str, port: u16, udp: bool, patience: Duration) -> io::Result<Self> {
        if !udp {
            let stream = crate::enrol::connect(host, port, patience)?;
            stream.set_nodelay(true)?;
            stream.set_write_timeout(Some(STUCK))?;
            return Ok(Self::Tcp(stream));
        }
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for address in (host, port).to_socket_addrs()? {
            let any: IpAddr = match address.ip() {
                IpAddr::V4(_) => std::net::Ipv4Addr::UNSPECIFIED.into(),
                IpAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
            };
            match UdpSocket::bind((any, 0)).and_then(|socket| socket.connect(address).map(|()| socket)) {
                Ok(socket) => return Ok(Self::Udp(socket)),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Our own address on it.
    pub(crate) fn local_ip(&self) -> Option<IpAddr> {
        let address = match self {
            Self::Tcp(stream) => stream.local_addr(),
            Self::Udp(socket) => socket.local_addr(),
        };
        address.ok().map(|address| address.ip())
    }

    pub(crate) fn is_udp(&self) -> bool {
        matches!(self, Self::Udp(_))
    }

    /// Ends it, also for a thread that waits in it.
    pub(crate) fn shut(&self) {
        if let Self::Tcp(stream) = self {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    pub(crate) fn send(&self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => (&*stream).write_all(bytes),
            Self::Udp(socket) => socket.send(bytes).map(|_| ()),
        }
    }
}

/// Takes messages off a channel.
#[derive(Debug)]
pub(crate) struct Incoming<'a> {
    channel: &'a Channel,
    decoder: Decoder,
    whole: VecDeque<Vec<u8>>,
    buffer: Vec<u8>,
}

impl<'a> Incoming<'a> {
    pub(crate) fn new(channel: &'a Channel) -> Self {
        Self { channel, decoder: Decoder::default(), whole: VecDeque::new(), buffer: vec![0; READ] }
    }

    /// The next message, or none within `patience`. An end of the stream is an error.
    pub(crate) fn next(&mut self, patience: Duration) -> io::Result<Option<Vec<u8>>> {
        if let Some(message) = self.whole.pop_front() {
            return Ok(Some(message));
        }
        let patience = Some(patience.max(Duration::from_millis(1)));
        let read = match self.channel {
            Channel::Tcp(stream) => {
                stream.set_read_timeout(patience)?;
                (&*stream).read(&mut self.buffer)
            }
            Channel::Udp(socket) => {
                socket.set_read_timeout(patience)?;
                socket.recv(&mut self.buffer)
            }
        };
        let count = match read {
            Ok(count) => count,
            Err(error) if is_pause(&error) => return Ok(None),
            Err(error) => return Err(error),
        };
        if self.channel.is_udp() {
            return Ok(Some(self.buffer[..count].to_vec()));
        }
        if count == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the manager closed the connection"));
        }
        let mut bytes = &self.buffer[..count];
        while let Some(message) = self.decoder.next(&mut bytes).map_err(io::Error::other)? {
            self.whole.push_back(message);
        }
        Ok(self.whole.pop_front())
    }
}

fn is_pause(error: &io::Error) -> bool {
    use io::ErrorKind::{Interrupted, TimedOut, WouldBlock};
    matches!(error.kind(), WouldBlock | TimedOut | Interrupted)
}

/// A message was not sealed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StampError {
    #[error(transparent)]
    Counter(#[from] CounterError),
    #[error(transparent)]
    Seal(#[from] SealError),
    #[error("no random number: {0}")]
    Random(#[from] getrandom::Error),
    #[error(transparent)]
    Frame(#[from] frame::FrameError),
}

/// Seals what is sent.
pub(crate) struct Stamp {
    keys: SealingKeys,
    method: Method,
    id: Option<String>,
    framed: bool,
    sealer: Sealer,
    numbers: Arc<Mutex<Numbers>>,
    last: Counter,
}

impl std::fmt::Debug for Stamp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stamp").field("method", &self.method).field("id", &self.id).finish_non_exhaustive()
    }
}

impl Stamp {
    pub(crate) fn new(key: &AgentKey, method: Method, udp: bool, numbers: Arc<Mutex<Numbers>>) -> Self {
        let id = key.announces_id().then(|| key.id.clone());
        let (keys, sealer, last) = (key.sealing(), Sealer::default(), Counter::default());
        Self { keys, method, id, framed: !udp, sealer, numbers, last }
    }

    /// The last counter used, also for what could not be sealed.
    pub(crate) const fn last(&self) -> Counter {
        self.last
    }

    /// Adds a message, ready for the channel, to `out`; answers its counter.
    pub(crate) fn add(&mut self, payload: &[u8], out: &mut Vec<u8>) -> Result<Counter, StampError> {
        let random = getrandom::u32()? as u16;
        let pair = self.numbers.lock().unwrap_or_else(PoisonError::into_inner).next()?;
        self.last = pair;
        let sealed = self.sealer.seal(&self.keys, self.method, self.id.as_deref(), random, pair, payload)?;
        if self.framed {
            out.extend_from_slice(&frame::encode(&sealed)?);
        } else {
            out.extend_from_slice(&sealed);
        }
        Ok(pair)
    }
}

/// Opens what is received.
pub(crate) struct Letters {
    keys: SealingKeys,
    method: Method,
    opener: Opener,
}

impl std::fmt::Debug for Letters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Letters").field("method", &self.method).finish_non_exhaustive()
    }
}

impl Letters {
    pub(crate) fn new(key: &AgentKey, method: Method) -> Self {
        Self { keys: key.sealing(), method, opener: Opener::default() }
    }

    pub(crate) fn open(&mut self, message: &[u8]) -> Result<Vec<u8>, OpenError> {
        let envelope = Envelope::parse(message)?;
        // Our own method counts, whatever the tag says.
        Ok(self.opener.open(&self.keys, self.method, envelope.ciphertext)?.payload)
    }
}
