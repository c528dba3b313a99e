//! One framed message over a local stream socket, as its tools send it (wire contract 5).
//! Invariant: a peer that trickles bytes is held no longer than one that sends none.

use std::io::{self, Read as _};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use tld_sys::clock::Deadline;
use tld_wire::frame;

/// Waits for one whole message.
///
/// # Errors
/// `UnexpectedEof` when the other end closes before, `TimedOut` after `patience`, and what the socket says.
pub(crate) fn receive(mut stream: &UnixStream, patience: Duration) -> io::Result<Vec<u8>> {
    let deadline = Deadline::after(patience);
    let mut decoder = frame::Decoder::default();
    let mut buffer = [0; 4_096];
    loop {
        let left = deadline.remaining().filter(|left| !left.is_zero());
        stream.set_read_timeout(Some(left.ok_or(io::ErrorKind::TimedOut)?))?;
        let count = match stream.read(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            other => other?,
        };
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut input = buffer.get(..count).unwrap_or_default();
        if let Some(message) = decoder.next(&mut input).map_err(io::Error::other)? {
            return Ok(message);
        }
    }
}
