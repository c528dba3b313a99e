//! Netlink messages and sockets: the wire format shared by the firewall and the address queries.
//!
//! The encoder is ours because the firewall needs exact control over batches, single-element queries and
//! 64-bit timeouts; it is small because netlink is type-length-value all the way down.
//!
//! Invariant: decoding never reads outside the bytes it was given, whatever lengths they claim.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags};
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType};

use crate::clock::Deadline;
use crate::ready;

pub(crate) const NLM_F_REQUEST: u16 = 0x1;
pub(crate) const NLM_F_ACK: u16 = 0x4;
pub(crate) const NLM_F_DUMP_INTR: u16 = 0x10;
pub(crate) const NLM_F_DUMP: u16 = 0x300;
pub(crate) const NLM_F_EXCL: u16 = 0x200;
pub(crate) const NLM_F_CREATE: u16 = 0x400;
pub(crate) const NLM_F_APPEND: u16 = 0x800;
pub(crate) const NLMSG_ERROR: u16 = 2;
pub(crate) const NLMSG_DONE: u16 = 3;
const NLA_F_NESTED: u16 = 0x8000;
const NLA_TYPE_MASK: u16 = 0x3fff;
const HEADER: usize = 16;

/// Messages under construction, one after the other.
#[derive(Debug, Default)]
pub(crate) struct Writer {
    bytes: Vec<u8>,
    message: usize,
}

/// An attribute whose content is being written.
#[must_use]
pub(crate) struct Nest(usize);

impl Writer {
    /// Opens a message with its fixed part; [`Writer::end`] must follow.
    pub(crate) fn begin(&mut self, kind: u16, flags: u16, sequence: u32, fixed: &[u8]) {
        self.message = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(&flags.to_ne_bytes());
        self.bytes.extend_from_slice(&sequence.to_ne_bytes());
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(fixed);
        self.pad();
    }

    /// Closes the message opened last.
    pub(crate) fn end(&mut self) {
        let length = u32::try_from(self.bytes.len() - self.message).unwrap_or(u32::MAX);
        self.bytes[self.message..self.message + 4].copy_from_slice(&length.to_ne_bytes());
    }

    pub(crate) fn attribute(&mut self, kind: u16, value: &[u8]) {
        let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
        self.bytes.extend_from_slice(&length.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value);
        self.pad();
    }

    /// Numbers inside netfilter attributes are big endian.
    pub(crate) fn u32(&mut self, kind: u16, value: u32) {
        self.attribute(kind, &value.to_be_bytes());
    }

    pub(crate) fn text(&mut self, kind: u16, value: &str) {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.attribute(kind, &bytes);
    }

    pub(crate) fn open(&mut self, kind: u16) -> Nest {
        let at = self.bytes.len();
        self.bytes.extend_from_slice(&[0, 0]);
        self.bytes.extend_from_slice(&(kind | NLA_F_NESTED).to_ne_bytes());
        Nest(at)
    }

    #[expect(clippy::needless_pass_by_value, reason = "a nest is closed once")]
    pub(crate) fn close(&mut self, nest: Nest) {
        let length = u16::try_from(self.bytes.len() - nest.0).unwrap_or(u16::MAX);
        self.bytes[nest.0..nest.0 + 2].copy_from_slice(&length.to_ne_bytes());
    }

    /// Bytes in the message opened last; attributes must stay below 64 KiB.
    pub(crate) fn message_length(&self) -> usize {
        self.bytes.len() - self.message
    }

    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    fn pad(&mut self) {
        while !self.bytes.len().is_multiple_of(4) {
            self.bytes.push(0);
        }
    }
}

/// A received message.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Message<'a> {
    pub(crate) kind: u16,
    pub(crate) flags: u16,
    pub(crate) sequence: u32,
    pub(crate) port: u32,
    pub(crate) body: &'a [u8],
}

impl Message<'_> {
    /// The error number of an error message, 0 for an acknowledgement; `None` for other messages.
    pub(crate) fn errno(&self) -> Option<i32> {
        if self.kind != NLMSG_ERROR {
            return None;
        }
        let code =
            self.body.get(..4).and_then(|b| b.try_into().ok()).map_or(-libc::EBADMSG, i32::from_ne_bytes);
        Some(code.saturating_neg())
    }
}

/// The messages of one datagram; a damaged rest is left out.
pub(crate) fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let length = usize::try_from(word(bytes, 0)?).ok()?;
        // An error answer to a long request may quote more of it than we cared to receive.
        let length = if length > bytes.len() { bytes.len() } else { length };
        let body = bytes.get(HEADER..length)?;
        let message = Message {
            kind: half(bytes, 4)?,
            flags: half(bytes, 6)?,
            sequence: word(bytes, 8)?,
            port: word(bytes, 12)?,
            body,
        };
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(message)
    })
}

/// The attributes in `bytes` as (type, value); a damaged rest is left out.
pub(crate) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(half(bytes, 0)?);
        let kind = half(bytes, 2)? & NLA_TYPE_MASK;
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// The first attribute of type `kind`.
pub(crate) fn attribute(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(k, _)| *k == kind).map(|(_, value)| value)
}

/// A text attribute without its final zero.
pub(crate) fn text(value: &[u8]) -> String {
    let end = value.iter().position(|byte| *byte == 0).unwrap_or(value.len());
    String::from_utf8_lossy(&value[..end]).into_owned()
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

/// A netlink socket in the network namespace of the thread that opened it.
#[derive(Debug)]
pub(crate) struct Socket {
    fd: OwnedFd,
    port: u32,
    buffer: Vec<u8>,
}

impl Socket {
    /// `groups` is a mask of multicast groups to join.
    pub(crate) fn open(protocol: Option<Protocol>, groups: u32) -> io::Result<Self> {
        let fd = rustix::net::socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            protocol,
        )?;
        rustix::net::bind(&fd, &SocketAddrNetlink::new(0, groups))?;
        let address = SocketAddrNetlink::try_from(rustix::net::getsockname(&fd)?)?;
        Ok(Self { fd, port: address.pid(), buffer: vec![0; 1 << 16] })
    }

    /// The kernel's name for this socket; messages it causes carry it.
    pub(crate) fn port(&self) -> u32 {
        self.port
    }

    pub(crate) fn grow_receive_buffer(&self, bytes: usize) {
        if rustix::net::sockopt::set_socket_recv_buffer_size_force(&self.fd, bytes).is_err() {
            // Without the right to exceed the system's limit: as much as it grants.
            let _ = rustix::net::sockopt::set_socket_recv_buffer_size(&self.fd, bytes);
        }
    }

    /// Sends one datagram, making room for it first if it is long.
    pub(crate) fn send(&self, bytes: &[u8]) -> io::Result<()> {
        if bytes.len() > 64 << 10 {
            let room = bytes.len() * 2;
            if rustix::net::sockopt::set_socket_send_buffer_size_force(&self.fd, room).is_err() {
                let _ = rustix::net::sockopt::set_socket_send_buffer_size(&self.fd, room);
            }
        }
        loop {
            match rustix::net::sendto(&self.fd, bytes, SendFlags::empty(), &SocketAddrNetlink::new(0, 0)) {
                Ok(_) => return Ok(()),
                Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
    }

    /// The next datagram from the kernel, `None` at the timeout. [`libc::ENOBUFS`] tells that some were lost.
    pub(crate) fn receive(&mut self, timeout: Duration) -> io::Result<Option<&[u8]>> {
        let deadline = Deadline::after(timeout);
        // The kernel answers most requests while they are sent, so that waiting first would be a call in vain.
        let length = loop {
            match rustix::net::recvfrom(&self.fd, self.buffer.as_mut_slice(), RecvFlags::DONTWAIT) {
                Ok((length, _, from)) => {
                    let from = from.and_then(|from| SocketAddrNetlink::try_from(from).ok());
                    // Other processes may send to our port; only the kernel is port 0.
                    if from.is_some_and(|from| from.pid() == 0) {
                        break length;
                    }
                }
                Err(rustix::io::Errno::INTR) => continue,
                Err(rustix::io::Errno::AGAIN) => {}
                Err(e) => return Err(e.into()),
            }
            if !ready::wait(&mut [PollFd::new(&self.fd, PollFlags::IN)], &deadline)? {
                return Ok(None);
            }
        };
        Ok(Some(&self.buffer[..length]))
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_bytes_decode_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            for message in messages(&bytes) {
                let _ = message.errno();
                for (_, value) in attributes(message.body) {
                    let _ = (text(value), attributes(value).count());
                }
            }
            prop_assert!(attributes(&bytes).count() <= bytes.len());
        }

        #[test]
        fn written_attributes_are_read_back(
            values in proptest::collection::vec((0_u16..100, proptest::collection::vec(any::<u8>(), 0..20)), 0..10),
        ) {
            let mut writer = Writer::default();
            writer.begin(7, 1, 42, &[1, 0, 0, 0]);
            for (kind, value) in &values {
                writer.attribute(*kind, value);
            }
            writer.end();
            let bytes = writer.into_bytes();
            let all: Vec<_> = messages(&bytes).collect();
            prop_assert_eq!(all.len(), 1);
            prop_assert_eq!((all[0].kind, all[0].sequence), (7, 42));
            let read: Vec<_> = attributes(&all[0].body[4..]).map(|(k, v)| (k, v.to_vec())).collect();
            prop_assert_eq!(read, values);
        }
    }
}
