//! One thread that serves many sockets. The first lane also accepts connections and serves the datagrams.
//! Invariant: no turn of one socket is longer than one read or [`BURST`] bytes written, and between turns the lane looks
//! for what other threads want sent.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tld_model::{AgentId, OrderId, Stage, Timings};
use tld_sys::poller::{Interest, Poller, Ready};
use tld_sys::tcp;
use tld_wire::frame;
use tld_wire::seal::{Opener, Sealer};

use super::connection::{Came, Connection};
use super::peer::{Link, Outgoing, Peer};
use super::receive::{From, Stalled, Taken};
use super::{Hub, Post};
use crate::log::Level;

/// Bytes read in one turn of a connection.
const READ: usize = 16 << 10;
/// Bytes written in one turn of a connection.
const BURST: usize = 128 << 10;
/// Messages read in one turn of a datagram socket.
const DATAGRAMS: usize = 64;
/// Pieces of a file that are sent as datagrams before a pause of one [`TICK`].
const PIECES: usize = 30;
/// Tokens of connections begin here; those of listeners and datagram sockets are below.
const FIRST: u64 = 1 << 32;
const DATAGRAM: u64 = 1 << 16;
/// How long a lane sleeps when nothing happens, and between two looks for idle connections.
const TICK: Duration = Duration::from_secs(1);
/// How soon a full pipeline is tried again.
const RETRY: Duration = Duration::from_millis(2);
/// Time for a new connection to prove a key.
const PROOF: Duration = Duration::from_secs(30);
/// Time for a frame that has begun to arrive, and for bytes that the other end does not take.
const PATIENCE: Duration = Duration::from_secs(300);
/// Kernel's probes of silent peers.
const PROBE_IDLE: Duration = Duration::from_secs(30);
const PROBE_INTERVAL: Duration = Duration::from_secs(10);
const PROBES: u32 = 3;

/// What other threads want of a lane.
#[derive(Debug)]
pub(super) enum Command {
    /// Serve a new connection.
    Adopt(TcpStream, SocketAddr),
    /// Something waits for the agent of this connection.
    Flush(u64),
    /// Something waits for an agent that is reached by datagrams.
    FlushDatagrams(AgentId),
    /// The connection is no longer wanted.
    Close(u64),
    /// The manager ends.
    Stop,
}

pub(super) struct Lane {
    index: usize,
    hub: Arc<Hub>,
    poller: Poller,
    listeners: Vec<TcpListener>,
    datagrams: Vec<UdpSocket>,
    most: usize,
    connections: HashMap<u64, Connection>,
    next: u64,
    /// Connections whose event the pipeline did not take, in turn.
    stalled: VecDeque<u64>,
    /// The same for datagrams: nothing is read from their sockets meanwhile.
    stalled_datagram: Option<Stalled>,
    opener: Opener,
    sealer: Sealer,
    random: Random,
    scratch: Vec<u8>,
    swept: Duration,
    accepting: usize,
    /// Agents that get more of a file by datagrams at the next look.
    paced: Vec<AgentId>,
}

impl Lane {
    pub(super) fn new(
        index: usize,
        hub: Arc<Hub>,
        poller: Poller,
        listeners: Vec<TcpListener>,
        datagrams: Vec<UdpSocket>,
        most: usize,
    ) -> io::Result<Self> {
        for (number, listener) in (0..).zip(&listeners) {
            poller.add(listener, number, Interest::READ)?;
        }
        for (number, socket) in (DATAGRAM..).zip(&datagrams) {
            poller.add(socket, number, Interest::READ)?;
        }
        Ok(Self {
            index,
            hub,
            poller,
            listeners,
            datagrams,
            most,
            connections: HashMap::new(),
            next: FIRST,
            stalled: VecDeque::new(),
            stalled_datagram: None,
            opener: Opener::default(),
            sealer: Sealer::default(),
            random: Random::default(),
            // The longest datagram; streams use the first part.
            scratch: vec![0; 1 << 16],
            swept: Duration::ZERO,
            accepting: 0,
            paced: Vec::new(),
        })
    }

    /// Serves until [`Command::Stop`].
    pub(super) fn serve(mut self) {
        let mut ready = Vec::new();
        loop {
            let is_stalled = !self.stalled.is_empty() || self.stalled_datagram.is_some();
            if let Err(error) = self.poller.wait(&mut ready, if is_stalled { RETRY } else { TICK }) {
                self.hub.log.error(&format!("agents' channel: a thread ends: {error}"));
                return;
            }
            if !self.obey() {
                return;
            }
            for one in &ready {
                self.turn(*one);
                if !self.obey() {
                    return;
                }
            }
            self.retry();
            self.sweep();
        }
    }

    fn post(&self) -> Option<&Post> {
        self.hub.posts.get().and_then(|posts| posts.get(self.index))
    }

    /// Does what other threads asked for; false at the end.
    fn obey(&mut self) -> bool {
        let commands = self.post().map(Post::take).unwrap_or_default();
        for command in commands {
            match command {
                Command::Adopt(stream, address) => self.adopt(stream, address),
                Command::Flush(token) => self.flush(token),
                Command::FlushDatagrams(agent) => self.flush_datagrams(agent),
                Command::Close(token) => self.close(token),
                Command::Stop => return false,
            }
        }
        true
    }

    fn turn(&mut self, ready: Ready) {
        match ready.token {
            token if token >= FIRST => {
                if ready.write {
                    self.flush(token);
                }
                if ready.read {
                    self.read(token, ready.broken);
                }
            }
            token if token >= DATAGRAM => self.read_datagrams((token - DATAGRAM) as usize),
            token => self.accept(token as usize),
        }
    }

    fn accept(&mut self, listener: usize) {
        // A bound, so that a flood of connections does not keep those that stand waiting.
        for _ in 0..64 {
            let Some(socket) = self.listeners.get(listener) else { return };
            match socket.accept() {
                Ok((stream, address)) => {
                    if self.hub.open.load(Ordering::Relaxed) >= self.most && !self.make_room() {
                        self.hub.complain(
                            Level::Warning,
                            &format!("`{}` turned away: too many connections", address.ip()),
                        );
                        continue;
                    }
                    self.hub.open.fetch_add(1, Ordering::Relaxed);
                    let lanes = self.hub.posts.get().map_or(1, Vec::len);
                    let lane = self.accepting % lanes;
                    self.accepting = self.accepting.wrapping_add(1);
                    if lane == self.index {
                        self.adopt(stream, address);
                    } else {
                        self.hub.post(lane, Command::Adopt(stream, address));
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.hub.complain(Level::Error, &format!("cannot accept: {error}"));
                    return;
                }
            }
        }
    }

    /// Closes the oldest connection that never proved a key; false if there is none here.
    fn make_room(&mut self) -> bool {
        let strangers = self.connections.iter().filter(|(_, connection)| connection.agent.is_none());
        let oldest = strangers.min_by_key(|(_, connection)| connection.heard).map(|(token, _)| *token);
        let found = oldest.is_some();
        if let Some(token) = oldest {
            self.close(token);
        }
        found
    }

    fn adopt(&mut self, stream: TcpStream, address: SocketAddr) {
        let token = self.next;
        self.next += 1;
        let prepared = stream
            .set_nonblocking(true)
            .and_then(|()| stream.set_nodelay(true))
            .and_then(|()| tcp::probe_silence(&stream, PROBE_IDLE, PROBE_INTERVAL, PROBES))
            .and_then(|()| self.poller.add(&stream, token, Interest::READ));
        if prepared.is_err() {
            self.hub.open.fetch_sub(1, Ordering::Relaxed);
            return;
        }
        let connection = Connection::new(stream, address.ip().to_canonical(), self.hub.clock.boot());
        self.connections.insert(token, connection);
    }

    fn close(&mut self, token: u64) {
        let Some(connection) = self.connections.remove(&token) else { return };
        self.hub.open.fetch_sub(1, Ordering::Relaxed);
        let Some(peer) = connection.peer else { return };
        self.leave(&peer, token);
    }

    fn leave(&self, peer: &Peer, token: u64) {
        let left = peer.leave(Link::Stream { lane: self.index, token });
        if let (true, Some(attendant)) = (left, self.hub.attendant()) {
            attendant.gone(peer.id());
        }
    }

    fn read(&mut self, token: u64, broken: bool) {
        let Some(connection) = self.connections.get_mut(&token) else { return };
        if connection.stalled.is_some() {
            if broken && !std::mem::replace(&mut connection.detached, true) {
                let _ = self.poller.remove(&connection.stream);
            }
            return;
        }
        match connection.read(&mut self.scratch[..READ]) {
            Came::Nothing => {}
            Came::End => self.close(token),
            Came::Bytes(count) => {
                connection.input.extend_from_slice(&self.scratch[..count]);
                self.frames(token);
            }
        }
    }

    /// Takes whole frames off a connection's input until it is used up, or the connection has to wait or to go.
    fn frames(&mut self, token: u64) {
        let Some(connection) = self.connections.get_mut(&token) else { return };
        let from = From {
            link: Link::Stream { lane: self.index, token },
            address: connection.address,
            now: self.hub.clock.boot(),
            received: self.hub.now(),
        };
        let (mut at, mut answer, mut goes, mut former) = (0, false, false, Vec::new());
        loop {
            let message = match frame::split(&connection.input[at..]) {
                Ok(Some(message)) => message,
                Ok(None) => break,
                Err(error) => {
                    self.hub.complain(Level::Warning, &format!("`{}`: {error}", connection.address));
                    goes = true;
                    break;
                }
            };
            let length = 4 + message.len();
            let taken = self.hub.take(&mut self.opener, &from, message);
            at += length;
            connection.heard = from.now;
            match taken {
                Taken::Done(agent) => connection.agent = Some(agent),
                Taken::Answer(agent, peer) => {
                    connection.agent = Some(agent);
                    former.extend(connection.become_of(peer));
                    answer = true;
                }
                Taken::Stall(agent, stalled) => {
                    connection.agent = Some(agent);
                    if stalled.bound {
                        former.extend(connection.become_of(Arc::clone(&stalled.peer)));
                        answer = true;
                    }
                    connection.stalled = Some(stalled);
                    break;
                }
                Taken::Ping => {
                    // Probes are not answered without end for somebody who does not read.
                    if connection.unwritten() < KEEP_PONGS {
                        connection.frame(frame::PONG);
                    }
                    answer = true;
                }
                Taken::Close => {
                    goes = true;
                    break;
                }
            }
        }
        connection.taken(at);
        let stalled = connection.stalled.is_some();
        for peer in former {
            self.leave(&peer, token);
        }
        if goes {
            self.close(token);
            return;
        }
        if stalled {
            self.stalled.push_back(token);
            self.watch(token);
        }
        if answer {
            self.flush(token);
        }
    }

    /// Writes what waits for the agent of a connection.
    fn flush(&mut self, token: u64) {
        let Some(connection) = self.connections.get_mut(&token) else { return };
        let now = self.hub.clock.boot();
        let mut sent = 0;
        loop {
            match connection.write(now) {
                Ok(true) => {}
                Ok(false) => break,
                Err(_) => {
                    self.close(token);
                    return;
                }
            }
            if sent >= BURST {
                // The others first.
                self.hub.post(self.index, Command::Flush(token));
                break;
            }
            let Some(peer) = &connection.peer else { break };
            let link = Link::Stream { lane: self.index, token };
            let next = next_sealed(&self.hub, &mut self.sealer, &mut self.random, peer, link);
            let Some((outgoing, sealed)) = next else { break };
            let id = peer.id();
            sent += sealed.len();
            connection.frame(&sealed);
            if let Some(order) = &outgoing.order {
                let _ = connection.write(now);
                told_sent(&self.hub, id, order);
            }
        }
        self.watch(token);
    }

    /// Asks the poller for what the connection waits for.
    fn watch(&mut self, token: u64) {
        let Some(connection) = self.connections.get_mut(&token) else { return };
        let interest = Interest { read: connection.stalled.is_none(), write: connection.unwritten() > 0 };
        if interest == connection.interest || connection.detached {
            return;
        }
        connection.interest = interest;
        if self.poller.change(&connection.stream, token, interest).is_err() {
            self.close(token);
        }
    }

    /// Offers the pipeline again what it did not take, each connection in its turn.
    fn retry(&mut self) {
        if let Some(stalled) = self.stalled_datagram.take() {
            self.stalled_datagram = self.hub.offer(stalled);
            if self.stalled_datagram.is_none() {
                self.watch_datagrams(Interest::READ);
            }
        }
        for _ in 0..self.stalled.len() {
            let Some(token) = self.stalled.pop_front() else { return };
            let Some(connection) = self.connections.get_mut(&token) else { continue };
            let Some(stalled) = connection.stalled.take() else { continue };
            connection.stalled = self.hub.offer(stalled);
            if connection.stalled.is_some() {
                self.stalled.push_front(token);
                return;
            }
            if std::mem::take(&mut connection.detached) {
                let again = self.poller.add(&connection.stream, token, Interest::READ);
                connection.interest = Interest::READ;
                if again.is_err() {
                    self.close(token);
                    continue;
                }
            }
            self.frames(token);
            self.watch(token);
        }
    }

    /// Once in a while: connections that prove nothing, do not go on, or do not read.
    fn sweep(&mut self) {
        let now = self.hub.clock.boot();
        if now.saturating_sub(self.swept) < TICK {
            return;
        }
        self.swept = now;
        for agent in std::mem::take(&mut self.paced) {
            self.flush_datagrams(agent);
        }
        let silence = self.hub.options.disconnection_time.max(PATIENCE).saturating_mul(2);
        let over = |connection: &Connection| {
            let quiet = now.saturating_sub(connection.heard);
            connection.stalled.is_none()
                && ((connection.agent.is_none() && quiet > PROOF)
                    || (!connection.input.is_empty() && quiet > PATIENCE)
                    || quiet > silence
                    || connection.stuck.is_some_and(|since| now.saturating_sub(since) > PATIENCE))
        };
        let gone: Vec<u64> = self
            .connections
            .iter()
            .filter(|(_, connection)| over(connection))
            .map(|(token, _)| *token)
            .collect();
        for token in gone {
            self.close(token);
        }
    }

    fn read_datagrams(&mut self, socket: usize) {
        for _ in 0..DATAGRAMS {
            if self.stalled_datagram.is_some() {
                return;
            }
            let Some(open) = self.datagrams.get(socket) else { return };
            let (length, address) = match open.recv_from(&mut self.scratch) {
                Ok(received) => received,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => continue,
            };
            let from = From {
                link: Link::Datagrams { socket, address },
                address: address.ip().to_canonical(),
                now: self.hub.clock.boot(),
                received: self.hub.now(),
            };
            match self.hub.take(&mut self.opener, &from, &self.scratch[..length]) {
                Taken::Answer(agent, _) => self.flush_datagrams(agent.id),
                Taken::Stall(_, stalled) => {
                    self.stalled_datagram = Some(stalled);
                    self.watch_datagrams(Interest::default());
                }
                Taken::Ping => {
                    let _ = self.datagrams[socket].send_to(frame::PONG, address);
                }
                Taken::Done(_) | Taken::Close => {}
            }
        }
    }

    fn watch_datagrams(&self, interest: Interest) {
        for (number, socket) in (DATAGRAM..).zip(&self.datagrams) {
            let _ = self.poller.change(socket, number, interest);
        }
    }

    fn flush_datagrams(&mut self, id: AgentId) {
        let Some(peer) = self.hub.peer(id) else { return };
        let Some(link @ Link::Datagrams { socket, address }) = peer.state().link else { return };
        let mut pieces = 0;
        loop {
            if peer.state().next_is_piece() {
                pieces += 1;
                if pieces > PIECES {
                    if !self.paced.contains(&id) {
                        self.paced.push(id);
                    }
                    return;
                }
            }
            let next = next_sealed(&self.hub, &mut self.sealer, &mut self.random, &peer, link);
            let Some((outgoing, sealed)) = next else { return };
            // A datagram that the kernel has no room for is lost, as it may be anywhere on its way.
            let _ = self.datagrams.get(socket).map(|socket| socket.send_to(&sealed, address));
            if let Some(order) = &outgoing.order {
                told_sent(&self.hub, id, order);
            }
        }
    }
}

/// Pongs that may wait for one connection.
const KEEP_PONGS: usize = 4 << 10;

/// The next message for an agent, sealed; none if nothing waits for this link. Sealed only now, so that its counter is
/// above that of every message before it.
fn next_sealed(
    hub: &Hub,
    sealer: &mut Sealer,
    random: &mut Random,
    peer: &Peer,
    link: Link,
) -> Option<(Outgoing, Vec<u8>)> {
    let agent = &peer.agent;
    loop {
        let (outgoing, method) = {
            let mut state = peer.state();
            if state.link != Some(link) {
                return None;
            }
            let Some(next) = state.next() else {
                state.called = false;
                return None;
            };
            (next, state.method)
        };
        let pair = match hub.counters.advance() {
            Ok(pair) => pair,
            Err(error) => {
                hub.complain(Level::Error, &format!("nothing can be sent: {error}"));
                return None;
            }
        };
        match sealer.seal(agent.sealing(), method, None, random.next(), pair, &outgoing.payload) {
            Ok(sealed) => {
                hub.tally.sent.fetch_add(1, Ordering::Relaxed);
                return Some((outgoing, sealed));
            }
            Err(error) => hub.complain(Level::Error, &format!("agent {}: {error}", agent.key.id)),
        }
    }
}

fn told_sent(hub: &Hub, agent: AgentId, order: &OrderId) {
    if let Some(attendant) = hub.attendant() {
        let mut timings = Timings::default();
        timings.mark(Stage::Dispatched, hub.now());
        attendant.sent(agent, order, timings);
    }
}

/// Random numbers for the seal, asked from the system in one piece.
#[derive(Debug)]
struct Random {
    bytes: [u8; 512],
    at: usize,
}

impl Default for Random {
    fn default() -> Self {
        Self { bytes: [0; 512], at: 512 }
    }
}

impl Random {
    fn next(&mut self) -> u16 {
        if self.at + 2 > self.bytes.len() {
            // Without fresh bytes the old ones serve again: the number only salts the compressed text.
            let _ = getrandom::fill(&mut self.bytes);
            self.at = 0;
        }
        let number = u16::from_le_bytes([self.bytes[self.at], self.bytes[self.at + 1]]);
        self.at += 2;
        number
    }
}
