//! Local sockets that keep message boundaries, for the talk between our own processes.
//!
//! Invariant: a message is received whole or reported as too long; it is never cut silently.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

use crate::clock::Deadline;
use crate::ready;

/// Darwin has no such flag; there, as everywhere, a Rust program ignores SIGPIPE from its start.
#[cfg(not(target_os = "linux"))]
const SEND: SendFlags = SendFlags::DONTWAIT;
#[cfg(target_os = "linux")]
const SEND: SendFlags = SendFlags::DONTWAIT.union(SendFlags::NOSIGNAL);

/// Who is at the other end, as the kernel noted it when the connection was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// Process id.
    pub pid: u32,
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

/// What came of waiting for a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Received {
    /// A whole message.
    Message(Vec<u8>),
    /// The other end is closed.
    Closed,
    /// Nothing came in time.
    TimedOut,
    /// A message longer than permitted came and was thrown away.
    TooLong,
}

/// One end of a connection that carries messages in order.
#[derive(Debug)]
pub struct Seqpacket {
    fd: OwnedFd,
}

/// Two connected ends. Both close on exec: share them by forking, not by starting programs.
pub fn pair() -> io::Result<(Seqpacket, Seqpacket)> {
    #[cfg(target_os = "linux")]
    let (kind, flags) = (SocketType::SEQPACKET, SocketFlags::CLOEXEC);
    // Darwin has no local seqpacket sockets; datagrams in a pair are as ordered and reliable.
    #[cfg(not(target_os = "linux"))]
    let (kind, flags) = (SocketType::DGRAM, SocketFlags::empty());
    let (one, other) = rustix::net::socketpair(AddressFamily::UNIX, kind, flags, None)?;
    #[cfg(not(target_os = "linux"))]
    for fd in [&one, &other] {
        rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::CLOEXEC)?;
    }
    Ok((Seqpacket { fd: one }, Seqpacket { fd: other }))
}

impl From<Seqpacket> for OwnedFd {
    fn from(socket: Seqpacket) -> Self {
        socket.fd
    }
}

impl Seqpacket {
    /// Takes over an end made elsewhere: accepted from a listener, or inherited.
    #[must_use]
    pub fn from_fd(fd: OwnedFd) -> Self {
        Self { fd }
    }

    /// Sends one message, not empty (that would read as the end), waiting at most `timeout` for room.
    pub fn send(&self, message: &[u8], timeout: Duration) -> io::Result<()> {
        if message.is_empty() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "an empty message"));
        }
        let deadline = Deadline::after(timeout);
        loop {
            match rustix::net::send(&self.fd, message, SEND) {
                Ok(_) => return Ok(()),
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => {
                    if !ready::wait(&mut [PollFd::new(&self.fd, PollFlags::OUT)], &deadline)? {
                        return Err(io::ErrorKind::TimedOut.into());
                    }
                }
                Err(e) => return Err(e.into()),
            }
        }
    }

    /// Receives one message of at most `max` bytes.
    pub fn recv(&self, max: usize, timeout: Duration) -> io::Result<Received> {
        let deadline = Deadline::after(timeout);
        loop {
            if !ready::wait(&mut [PollFd::new(&self.fd, PollFlags::IN)], &deadline)? {
                return Ok(Received::TimedOut);
            }
            // One byte more than permitted tells a message that fits from one that was cut.
            let mut buffer = vec![0_u8; self.waiting().unwrap_or(usize::MAX).min(max.saturating_add(1))];
            match rustix::net::recv(&self.fd, buffer.as_mut_slice(), RecvFlags::DONTWAIT) {
                Ok((_, 0)) | Err(rustix::io::Errno::CONNRESET) => return Ok(Received::Closed),
                Ok((_, length)) if length > max => return Ok(Received::TooLong),
                Ok((_, length)) => {
                    buffer.truncate(length);
                    return Ok(Received::Message(buffer));
                }
                Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => {}
                Err(e) => return Err(e.into()),
            }
        }
    }

    /// Length of the message that waits, where the system tells: most are far shorter than the longest.
    #[cfg(target_os = "linux")]
    fn waiting(&self) -> Option<usize> {
        let flags = RecvFlags::PEEK | RecvFlags::TRUNC | RecvFlags::DONTWAIT;
        // One byte at least, for the room of nothing would also say "the end".
        rustix::net::recv(&self.fd, &mut [0_u8][..], flags).ok().map(|(_, length)| length.max(1))
    }

    #[cfg(not(target_os = "linux"))]
    fn waiting(&self) -> Option<usize> {
        None
    }

    /// Who is at the other end.
    pub fn peer(&self) -> io::Result<Peer> {
        peer(&self.fd)
    }
}

impl AsFd for Seqpacket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Who is at the other end of a connected local socket of any kind.
#[cfg(target_os = "linux")]
pub fn peer(socket: impl AsFd) -> io::Result<Peer> {
    let credentials = rustix::net::sockopt::socket_peercred(socket)?;
    Ok(Peer {
        pid: u32::try_from(credentials.pid.as_raw_nonzero().get()).unwrap_or(0),
        uid: credentials.uid.as_raw(),
        gid: credentials.gid.as_raw(),
    })
}

/// Who is at the other end is not known here yet.
#[cfg(not(target_os = "linux"))]
pub fn peer(_socket: impl AsFd) -> io::Result<Peer> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Asks the kernel to attach the sender's credentials to each datagram that arrives on `socket`.
#[cfg(target_os = "linux")]
pub fn request_credentials(socket: impl AsFd) -> io::Result<()> {
    Ok(rustix::net::sockopt::set_socket_passcred(socket, true)?)
}

/// Receives one datagram of at most `max` bytes with its sender, known only after [`request_credentials`].
#[cfg(target_os = "linux")]
pub fn recv_from_peer(
    socket: impl AsFd,
    max: usize,
    timeout: Duration,
) -> io::Result<(Received, Option<Peer>)> {
    use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, recvmsg};

    let deadline = Deadline::after(timeout);
    let mut buffer = vec![0_u8; max.saturating_add(1)];
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmCredentials(1))];
    loop {
        if !ready::wait(&mut [PollFd::new(&socket, PollFlags::IN)], &deadline)? {
            return Ok((Received::TimedOut, None));
        }
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
        let length = match recvmsg(&socket, &mut [io::IoSliceMut::new(&mut buffer)], &mut control, flags) {
            Ok(message) => message.bytes,
            Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => continue,
            Err(e) => return Err(e.into()),
        };
        let sender = control.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmCredentials(c) => Some(Peer {
                pid: u32::try_from(c.pid.as_raw_nonzero().get()).unwrap_or(0),
                uid: c.uid.as_raw(),
                gid: c.gid.as_raw(),
            }),
            _ => None,
        });
        if length > max {
            return Ok((Received::TooLong, sender));
        }
        buffer.truncate(length);
        return Ok((Received::Message(buffer), sender));
    }
}

/// Senders of datagrams are not told here yet.
#[cfg(not(target_os = "linux"))]
pub fn request_credentials(_socket: impl AsFd) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Senders of datagrams are not told here yet.
#[cfg(not(target_os = "linux"))]
pub fn recv_from_peer(
    _socket: impl AsFd,
    _max: usize,
    _timeout: Duration,
) -> io::Result<(Received, Option<Peer>)> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Asks for a receive buffer of `bytes`; without privilege the system may grant less.
pub fn enlarge_receive_buffer(socket: impl AsFd, bytes: usize) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    if rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, bytes).is_ok() {
        return Ok(());
    }
    Ok(rustix::net::sockopt::set_socket_recv_buffer_size(socket, bytes)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(20);

    #[test]
    fn messages_keep_their_bounds_and_order() {
        let (a, b) = pair().unwrap();
        a.send(b"one", LONG).unwrap();
        a.send(b"three", LONG).unwrap();
        assert_eq!(b.recv(10, LONG).unwrap(), Received::Message(b"one".to_vec()));
        assert_eq!(b.recv(5, LONG).unwrap(), Received::Message(b"three".to_vec()));
        assert_eq!(b.recv(5, Duration::ZERO).unwrap(), Received::TimedOut);
    }

    #[test]
    fn an_excessive_message_is_dropped_and_the_next_one_arrives() {
        let (a, b) = pair().unwrap();
        a.send(b"123456", LONG).unwrap();
        a.send(b"ok", LONG).unwrap();
        assert_eq!(b.recv(5, LONG).unwrap(), Received::TooLong);
        assert_eq!(b.recv(5, LONG).unwrap(), Received::Message(b"ok".to_vec()));
        assert!(a.send(b"", LONG).is_err());
    }

    #[test]
    fn a_full_queue_times_out_and_a_closed_end_is_seen() {
        let (a, b) = pair().unwrap();
        let error = (0..100_000).find_map(|_| a.send(&[7; 4096], Duration::from_millis(1)).err());
        assert_eq!(error.map(|e| e.kind()), Some(io::ErrorKind::TimedOut));
        drop(a);
        while let Received::Message(_) = b.recv(4096, LONG).unwrap() {}
        assert_eq!(b.recv(5, LONG).unwrap(), Received::Closed);
        assert!(b.send(b"x", LONG).is_err());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn both_ways_of_asking_name_this_process() {
        let me = Peer {
            pid: std::process::id(),
            uid: rustix::process::getuid().as_raw(),
            gid: rustix::process::getgid().as_raw(),
        };
        let (a, _b) = pair().unwrap();
        assert_eq!(a.peer().unwrap(), me);
        let (sender, receiver) = std::os::unix::net::UnixDatagram::pair().unwrap();
        request_credentials(&receiver).unwrap();
        sender.send(b"hello").unwrap();
        let received = recv_from_peer(&receiver, 100, LONG).unwrap();
        assert_eq!(received, (Received::Message(b"hello".to_vec()), Some(me)));
    }
}
