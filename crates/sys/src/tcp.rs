//! What the standard library does not offer for a server with many TCP connections: a long queue of connections, probes
//! of silent peers, more descriptors.
//!
//! Invariant: every socket made here is closed on exec.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::net::sockopt;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::clock::Deadline;

/// Connections that may wait for being accepted: a fleet that comes back at once must not be turned away.
const BACKLOG: i32 = 4_096;

/// Listens without blocking. An IPv6 socket takes IPv6 alone, so that both families can have one each.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = socket(address, SocketType::STREAM)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    rustix::net::bind(&socket, &address)?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(socket.into())
}

/// A datagram socket that does not block, with a receive buffer of about `buffer` bytes.
pub fn datagrams(address: SocketAddr, buffer: usize) -> io::Result<UdpSocket> {
    let socket = socket(address, SocketType::DGRAM)?;
    rustix::net::bind(&socket, &address)?;
    crate::unix_socket::enlarge_receive_buffer(&socket, buffer)?;
    Ok(socket.into())
}

fn socket(address: SocketAddr, kind: SocketType) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, kind, flags, None)?;
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    Ok(socket)
}

/// Lets the kernel probe a peer that has been silent for `idle`, `probes` times every `interval`, before it gives up.
pub fn probe_silence(stream: impl AsFd, idle: Duration, interval: Duration, probes: u32) -> io::Result<()> {
    sockopt::set_socket_keepalive(&stream, true)?;
    sockopt::set_tcp_keepidle(&stream, idle)?;
    sockopt::set_tcp_keepintvl(&stream, interval)?;
    Ok(sockopt::set_tcp_keepcnt(&stream, probes)?)
}

/// Asks for `wanted` open files in this process and tells how many there may be.
pub fn raise_open_files(wanted: u64) -> u64 {
    let now = getrlimit(Resource::Nofile);
    let current = now.current.unwrap_or(u64::MAX);
    if current >= wanted {
        return current;
    }
    // Root may raise the upper limit as well; others get as much as it allows.
    let maximum = now.maximum.unwrap_or(u64::MAX);
    let both = Rlimit { current: Some(wanted), maximum: Some(maximum.max(wanted)) };
    let own = Rlimit { current: Some(wanted.min(maximum)), maximum: now.maximum };
    if setrlimit(Resource::Nofile, both).or_else(|_| setrlimit(Resource::Nofile, own)).is_err() {
        return current;
    }
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// A stream whose reads and writes all end at one moment, so that a peer that trickles bytes holds nobody longer than a silent one.
#[derive(Debug)]
pub struct Timed<'a> {
    stream: &'a TcpStream,
    deadline: Deadline,
}

impl<'a> Timed<'a> {
    /// All waits together take at most `patience`.
    #[must_use]
    pub fn new(stream: &'a TcpStream, patience: Duration) -> Self {
        Self { stream, deadline: Deadline::after(patience) }
    }

    /// From now on it is another `patience`.
    pub fn renew(&mut self, patience: Duration) {
        self.deadline = Deadline::after(patience);
    }

    fn left(&self) -> io::Result<Option<Duration>> {
        match self.deadline.remaining() {
            Some(Duration::ZERO) => Err(io::ErrorKind::TimedOut.into()),
            left => Ok(left),
        }
    }
}

impl Read for Timed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.set_read_timeout(self.left()?)?;
        self.stream.read(buffer)
    }
}

impl Write for Timed<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.set_write_timeout(self.left()?)?;
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_families_listen_on_one_port() {
        let four = listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let port = four.local_addr().unwrap().port();
        match listen(SocketAddr::new("::1".parse().unwrap(), port)) {
            Ok(_) => {}
            Err(error) => println!("skipped: no IPv6 here: {error}"),
        }
        let mut one = TcpStream::connect(four.local_addr().unwrap()).unwrap();
        let (stream, _) = loop {
            match four.accept() {
                Ok(accepted) => break accepted,
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
            }
        };
        probe_silence(&stream, Duration::from_secs(30), Duration::from_secs(10), 3).unwrap();
        Write::write_all(&mut one, b"x").unwrap();
        assert!(datagrams("127.0.0.1:0".parse().unwrap(), 1 << 16).is_ok());
    }

    #[test]
    fn the_limit_of_open_files_is_told_and_never_lowered() {
        let before = raise_open_files(0);
        assert!(raise_open_files(before) >= before);
    }
}
