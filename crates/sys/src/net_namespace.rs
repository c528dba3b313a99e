//! A network of one's own, for tests only.
//!
//! Invariant: only the calling thread moves, and with it the children it starts afterwards.

use std::io;

/// Moves the calling thread into a fresh network namespace with a working loopback. Needs root. There is no way
/// back: call it in a thread of its own.
#[cfg(target_os = "linux")]
pub fn enter_private() -> io::Result<()> {
    use crate::netlink::{NLM_F_ACK, NLM_F_REQUEST, Socket, Writer, messages};

    const NEWLINK: u16 = 16;
    const UP: u32 = 1;

    // SAFETY: unsharing the network namespace leaves the descriptor table shared; only sharing of that would
    // endanger others.
    #[expect(unsafe_code, reason = "the call is unsafe for other namespaces")]
    unsafe {
        rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNET)?;
    }
    let mut socket = Socket::open(None, 0)?;
    let mut link = [0_u8; 16];
    link[4..8].copy_from_slice(&1_u32.to_ne_bytes()); // the loopback's index in every namespace
    link[8..12].copy_from_slice(&UP.to_ne_bytes());
    link[12..16].copy_from_slice(&UP.to_ne_bytes());
    let mut writer = Writer::default();
    writer.begin(NEWLINK, NLM_F_REQUEST | NLM_F_ACK, 1, &link);
    writer.end();
    socket.send(&writer.into_bytes())?;
    let answer = socket.receive(std::time::Duration::from_secs(10))?;
    match answer.and_then(|bytes| messages(bytes).find_map(|m| m.errno())) {
        Some(0) => Ok(()),
        Some(errno) => Err(io::Error::from_raw_os_error(errno)),
        None => Err(io::ErrorKind::TimedOut.into()),
    }
}

/// Elsewhere there are no network namespaces.
#[cfg(not(target_os = "linux"))]
pub fn enter_private() -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}
