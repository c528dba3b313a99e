//! A second process of our own program, for work that should not have our rights: started with one socket as standard input.

use crate::unix_socket::Seqpacket;
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command, ExitStatus, Stdio};

/// The other part of the service. When this process dies, the system ends it too.
#[derive(Debug)]
pub struct Part {
    child: Child,
}

/// Starts our own executable again with these arguments; `socket` becomes its standard input, the terminal stays shared.
///
/// # Errors
/// The executable cannot be found or started.
pub fn start(arguments: &[OsString], socket: Seqpacket) -> io::Result<Part> {
    let program = std::env::current_exe()?;
    #[expect(
        clippy::disallowed_methods,
        reason = "the child module is for foreign programs; this one is ours"
    )]
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::from(OwnedFd::from(socket)));
    command.spawn().map(|child| Part { child })
}

/// In the other part: its end of the socket, moved away from standard input.
///
/// # Errors
/// Standard input is no descriptor.
pub fn socket() -> io::Result<Seqpacket> {
    io::stdin().as_fd().try_clone_to_owned().map(Seqpacket::from_fd)
}

/// In the other part: asks the system for SIGTERM when the process that started it dies.
///
/// # Errors
/// The system knows no such thing.
#[cfg(target_os = "linux")]
pub fn end_with_parent() -> io::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::TERM))?;
    Ok(())
}

/// Not to be had here; the closed socket ends the other part.
#[cfg(not(target_os = "linux"))]
pub fn end_with_parent() -> io::Result<()> {
    Ok(())
}

impl Part {
    /// Passes a signal on; one that has ended already is fine.
    pub fn signal(&self, signal: crate::signal::Signal) {
        let _ = crate::signal::send(self.child.id(), signal);
    }

    /// Its exit status if it has ended.
    ///
    /// # Errors
    /// It cannot be waited for.
    pub fn try_wait(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }
}
