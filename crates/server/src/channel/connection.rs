//! One TCP connection: bytes in, bytes out, and what is known of it.
//! Invariant: idle, it holds no buffer; busy, at most one unfinished frame with one read behind it, and one sealed
//! message with what the socket did not take of it.

use std::io::{self, Read, Write};
use std::net::{IpAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use tld_sys::poller::Interest;

use super::peer::Peer;
use super::receive::Stalled;
use crate::registry::Agent;

/// Buffers up to this size are kept by a quiet connection.
const KEPT: usize = 512;

#[derive(Debug)]
pub(super) struct Connection {
    pub(super) stream: TcpStream,
    pub(super) address: IpAddr,
    /// The agent that proved its key here last.
    pub(super) agent: Option<Arc<Agent>>,
    /// The place of an agent that has spoken a control message here.
    pub(super) peer: Option<Arc<Peer>>,
    /// Time since boot when it was made, and when the last whole message came.
    pub(super) heard: Duration,
    /// Since when bytes wait that the socket does not take.
    pub(super) stuck: Option<Duration>,
    /// An event that the pipeline did not take yet.
    pub(super) stalled: Option<Stalled>,
    pub(super) interest: Interest,
    /// Errors must not be reported while it is stalled: they would be, without end.
    pub(super) detached: bool,
    /// Bytes that arrived and were not taken yet.
    pub(super) input: Vec<u8>,
    output: Vec<u8>,
    written: usize,
}

/// What a read found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Came {
    /// That many bytes.
    Bytes(usize),
    /// Nothing for now.
    Nothing,
    /// The other end is closed or broken.
    End,
}

impl Connection {
    pub(super) const fn new(stream: TcpStream, address: IpAddr, now: Duration) -> Self {
        Self {
            stream,
            address,
            agent: None,
            peer: None,
            heard: now,
            stuck: None,
            stalled: None,
            interest: Interest::READ,
            detached: false,
            input: Vec::new(),
            output: Vec::new(),
            written: 0,
        }
    }

    /// Notes whose own it is; the agent whose own it was comes back.
    pub(super) fn become_of(&mut self, peer: Arc<Peer>) -> Option<Arc<Peer>> {
        let same = self.peer.as_ref().is_some_and(|known| Arc::ptr_eq(known, &peer));
        self.peer.replace(peer).filter(|_| !same)
    }

    /// Reads once.
    pub(super) fn read(&mut self, scratch: &mut [u8]) -> Came {
        loop {
            return match self.stream.read(scratch) {
                Ok(0) => Came::End,
                Ok(count) => Came::Bytes(count),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => Came::Nothing,
                Err(_) => Came::End,
            };
        }
    }

    /// Drops the first bytes of the input; an emptied buffer is given back.
    pub(super) fn taken(&mut self, count: usize) {
        if count >= self.input.len() {
            self.input.clear();
            self.input.shrink_to(KEPT);
        } else {
            self.input.drain(..count);
        }
    }

    /// Puts a message into its frame behind what is to be written.
    pub(super) fn frame(&mut self, message: &[u8]) {
        let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
        self.output.extend_from_slice(&length.to_le_bytes());
        self.output.extend_from_slice(message);
    }

    /// Bytes that wait to be written.
    pub(super) fn unwritten(&self) -> usize {
        self.output.len() - self.written
    }

    /// Writes as much as the socket takes; false when it takes no more.
    ///
    /// # Errors
    /// The connection is broken.
    pub(super) fn write(&mut self, now: Duration) -> io::Result<bool> {
        while self.written < self.output.len() {
            match self.stream.write(&self.output[self.written..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => {
                    self.written += count;
                    self.stuck = None;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.stuck.get_or_insert(now);
                    return Ok(false);
                }
                Err(error) => return Err(error),
            }
        }
        self.written = 0;
        self.output.clear();
        self.output.shrink_to(KEPT);
        Ok(true)
    }
}
