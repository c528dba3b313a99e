//! Syslog from the network: `<remote><connection>syslog</connection>` (analysis-collection 2).
//!
//! Over UDP a datagram is a message. Over TCP a newline ends one; senders that count bytes (RFC 6587) are understood too,
//! because the contract's reader makes one garbled line of all they say.
//! Invariant: nobody is heard who is not in `allowed-ips`, and no sender makes us hold more than one message.

use std::collections::HashSet;
use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tld_config::Remote;
use tld_model::{Event, QUEUE_SYSLOG, Timestamp};
use tld_pattern::Network;
use tld_sys::unix_socket;

use super::{Counts, Setup, StartError, TICK};

/// Longest message; what is longer goes on as another one.
const LIMIT: usize = 65_536;
/// Bytes that may wait in the kernel.
const WAITING: usize = 8 << 20;
/// Connections at a time.
const MOST_PEERS: usize = 1_024;
/// Refused senders that are named once each.
const MOST_NAMED: usize = 1_000;
/// Messages of one connection in a row.
const TURN: usize = 64 << 10;

enum Socket {
    Udp(UdpSocket),
    Tcp(TcpListener),
}

/// A listening port.
pub(super) struct Port {
    socket: Socket,
    address: SocketAddr,
    senders: Senders,
}

/// Who is heard.
struct Senders {
    allowed: Vec<Network>,
    denied: Vec<Network>,
    named: HashSet<IpAddr>,
}

impl Senders {
    fn hears(&self, sender: IpAddr) -> bool {
        let within = |networks: &[Network]| networks.iter().any(|network| network.contains(sender));
        within(&self.allowed) && !within(&self.denied)
    }

    /// Whether a refused sender is refused for the first time.
    fn is_news(&mut self, sender: IpAddr) -> bool {
        self.named.len() < MOST_NAMED && self.named.insert(sender)
    }
}

struct Peer {
    stream: TcpStream,
    sender: IpAddr,
    text: Splitter,
}

impl Port {
    /// Listens.
    pub(super) fn open(remote: &Remote) -> Result<Self, StartError> {
        let any: IpAddr =
            if remote.ipv6 { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
        let wanted = SocketAddr::new(remote.local_ip.unwrap_or(any), remote.port);
        let open = || {
            let socket = if remote.udp {
                let socket = UdpSocket::bind(wanted)?;
                socket.set_read_timeout(Some(TICK))?;
                unix_socket::enlarge_receive_buffer(&socket, WAITING)?;
                Socket::Udp(socket)
            } else {
                let listener = TcpListener::bind(wanted)?;
                listener.set_nonblocking(true)?;
                Socket::Tcp(listener)
            };
            let address = match &socket {
                Socket::Udp(socket) => socket.local_addr()?,
                Socket::Tcp(listener) => listener.local_addr()?,
            };
            Ok((socket, address))
        };
        let (socket, address) = open().map_err(|source| StartError::Port { address: wanted, source })?;
        let senders =
            Senders { allowed: remote.allowed.clone(), denied: remote.denied.clone(), named: HashSet::new() };
        Ok(Self { socket, address, senders })
    }

    /// Where it listens.
    pub(super) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `stop`.
    pub(super) fn serve(mut self, setup: &Setup, counts: &Counts, stop: &AtomicBool) {
        match self.socket {
            Socket::Udp(socket) => {
                let mut buffer = vec![0; LIMIT];
                while !stop.load(Ordering::SeqCst) {
                    match socket.recv_from(&mut buffer) {
                        Ok((length, sender)) => {
                            let sender = sender.ip().to_canonical();
                            if admit(&mut self.senders, sender, setup, counts) {
                                hand_over(buffer.get(..length).unwrap_or_default(), sender, setup, counts);
                            }
                        }
                        Err(error) if is_pause(&error) => {}
                        Err(error) => {
                            setup.log.error(&format!("cannot read syslog on {}: {error}", self.address));
                            std::thread::sleep(TICK);
                        }
                    }
                }
            }
            Socket::Tcp(listener) => serve_streams(&listener, &mut self.senders, setup, counts, stop),
        }
    }
}

fn is_pause(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted)
}

fn serve_streams(
    listener: &TcpListener,
    senders: &mut Senders,
    setup: &Setup,
    counts: &Counts,
    stop: &AtomicBool,
) {
    let mut peers: Vec<Peer> = Vec::new();
    let mut buffer = vec![0; TURN];
    while !stop.load(Ordering::SeqCst) {
        let room = peers.len() < MOST_PEERS;
        let fds: Vec<_> =
            peers.iter().map(|peer| peer.stream.as_fd()).chain(room.then(|| listener.as_fd())).collect();
        let Ok(ready) = tld_sys::ready::readable(&fds, TICK) else {
            std::thread::sleep(TICK);
            continue;
        };
        let mut turns = ready.iter();
        peers.retain_mut(|peer| match turns.next() {
            Some(true) => peer.read(&mut buffer, setup, counts),
            _ => true,
        });
        if turns.next() != Some(&true) {
            continue;
        }
        if let Ok((stream, sender)) = listener.accept() {
            let sender = sender.ip().to_canonical();
            if admit(senders, sender, setup, counts) && stream.set_nonblocking(true).is_ok() {
                peers.push(Peer { stream, sender, text: Splitter::default() });
            }
        }
    }
}

impl Peer {
    /// Reads what is there; false when the connection is over.
    fn read(&mut self, buffer: &mut [u8], setup: &Setup, counts: &Counts) -> bool {
        let (sender, mut tell) =
            (self.sender, |message: &[u8]| hand_over(message, self.sender, setup, counts));
        match self.stream.read(buffer) {
            Ok(0) => {
                self.text.end(&mut tell);
                false
            }
            Ok(length) => {
                self.text.push(buffer.get(..length).unwrap_or_default(), &mut tell);
                true
            }
            Err(error) if is_pause(&error) => true,
            Err(error) => {
                setup.log.info(&format!("the syslog connection of {sender} broke off: {error}"));
                self.text.end(&mut tell);
                false
            }
        }
    }
}

fn admit(senders: &mut Senders, sender: IpAddr, setup: &Setup, counts: &Counts) -> bool {
    let heard = senders.hears(sender);
    if !heard {
        counts.dropped.fetch_add(1, Ordering::Relaxed);
        if senders.is_news(sender) {
            setup
                .log
                .warning(&format!("(1213): syslog of {sender} is not heard: it is not in <allowed-ips>"));
        }
    }
    heard
}

fn hand_over(message: &[u8], sender: IpAddr, setup: &Setup, counts: &Counts) {
    counts.handed(event(message, sender, setup.now()).is_some_and(|event| (setup.events)(event)));
}

/// The event in a message: without its priority and one closing newline, and up to its first NUL.
pub fn event(message: &[u8], sender: IpAddr, now: Timestamp) -> Option<Event> {
    let text = memchr::memchr(0, message).map_or(message, |nul| message.get(..nul).unwrap_or_default());
    let text = text.strip_suffix(b"\n").unwrap_or(text);
    let text = match (text.first(), memchr::memchr(b'>', text)) {
        (Some(b'<'), Some(end)) => text.get(end + 1..).unwrap_or_default(),
        _ => text,
    };
    (!text.is_empty()).then(|| Event {
        queue: QUEUE_SYSLOG,
        location: Arc::from(sender.to_string().into_bytes()),
        text: text.to_vec(),
        ..Event::local("", "", now)
    })
}

/// Finds the messages in a stream that comes in pieces.
#[derive(Debug, Default)]
pub struct Splitter {
    pending: Vec<u8>,
}

impl Splitter {
    /// Takes a piece, and tells of each message that is whole with it.
    pub fn push(&mut self, piece: &[u8], tell: &mut impl FnMut(&[u8])) {
        self.pending.extend_from_slice(piece);
        let mut at = 0;
        while let Some((message, next)) = first(self.pending.get(at..).unwrap_or_default()) {
            if !message.is_empty() {
                tell(message);
            }
            at += next;
        }
        self.pending.drain(..at);
    }

    /// The stream is over: its rest is a message too.
    pub fn end(&mut self, tell: &mut impl FnMut(&[u8])) {
        let rest = std::mem::take(&mut self.pending);
        if !rest.is_empty() {
            tell(&rest);
        }
    }
}

/// The first message and where the next begins; none while it is not whole.
fn first(text: &[u8]) -> Option<(&[u8], usize)> {
    if let Some((head, length)) = counted(text) {
        return text.get(head..head + length).map(|message| (message, head + length));
    }
    match memchr::memchr(b'\n', text.get(..text.len().min(LIMIT))?) {
        Some(end) => text.get(..end).map(|line| (line.strip_suffix(b"\r").unwrap_or(line), end + 1)),
        None => text.get(..LIMIT).map(|message| (message, LIMIT)),
    }
}

/// `<count> <`: the length of what stands before a counted message, and its own.
fn counted(text: &[u8]) -> Option<(usize, usize)> {
    let digits = text.iter().take(6).take_while(|byte| byte.is_ascii_digit()).count();
    let is_head = (1..=5).contains(&digits) && text.first() != Some(&b'0');
    if !is_head || text.get(digits) != Some(&b' ') || text.get(digits + 1) != Some(&b'<') {
        return None;
    }
    let length: usize = str::from_utf8(text.get(..digits)?).ok()?.parse().ok()?;
    (length <= LIMIT).then_some((digits + 1, length))
}
