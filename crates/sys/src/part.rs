//! A second process of our own program, for work that should not have our rights: started with one socket as standard input.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use crate::signal::{self, Signal, Signals};
use crate::unix_socket::Seqpacket;

/// Marks the arguments of the other part.
pub const BEHIND: &str = "--behind-responder";
const TICK: Duration = Duration::from_millis(200);

/// The other part of the service. When this process dies, the system ends it too.
#[derive(Debug)]
pub struct Part {
    child: Child,
}

/// How it ended.
#[derive(Debug, Clone, Copy)]
pub struct Ended {
    /// Its exit status.
    pub status: ExitStatus,
    /// It was asked to stop.
    pub asked: bool,
}

impl Ended {
    /// As was wanted.
    #[must_use]
    pub fn well(self) -> bool {
        self.asked && self.status.success()
    }
}

/// Starts our own executable again with our own arguments and [`BEHIND`]; `socket` becomes its standard input, the terminal
/// stays shared.
///
/// # Errors
/// The executable cannot be found or started.
pub fn start(socket: Seqpacket) -> io::Result<Part> {
    let program = std::env::current_exe()?;
    let arguments = std::env::args_os().skip(1).chain([OsString::from(BEHIND)]);
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
    /// Passes the signals that come on until it has ended.
    ///
    /// # Errors
    /// The signals cannot be read, or it cannot be waited for.
    pub fn attend(&mut self, signals: &Signals) -> io::Result<Ended> {
        let mut asked = false;
        loop {
            if let Some(signal) = signals.wait(TICK)? {
                asked |= signal != Signal::Hangup;
                // One that has ended already is fine.
                let _ = signal::send(self.child.id(), signal);
            }
            if let Some(status) = self.child.try_wait()? {
                return Ok(Ended { status, asked });
            }
        }
    }
}
