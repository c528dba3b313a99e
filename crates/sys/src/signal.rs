//! Being asked to stop, as data instead of an interruption.
//!
//! Signals are blocked and read from a descriptor. A mask belongs to a thread and is inherited by the threads it
//! starts: call [`termination`] in `main` before any other thread exists. Children are not affected: the `child`
//! module gives them an empty mask.
//!
//! Invariant: no code of ours runs inside a signal handler on Linux.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

/// What was asked of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// Stop (SIGTERM): the service manager.
    Terminate,
    /// Stop (SIGINT): somebody at the keyboard.
    Interrupt,
    /// Read the configuration again (SIGHUP).
    Hangup,
}

/// Sends a signal to a process.
///
/// # Errors
/// There is no such process, or it is not ours to signal.
pub fn send(process: u32, signal: Signal) -> io::Result<()> {
    let process = i32::try_from(process).ok().and_then(rustix::process::Pid::from_raw);
    let process = process.ok_or(io::ErrorKind::InvalidInput)?;
    let signal = match signal {
        Signal::Terminate => rustix::process::Signal::TERM,
        Signal::Interrupt => rustix::process::Signal::INT,
        Signal::Hangup => rustix::process::Signal::HUP,
    };
    rustix::process::kill_process(process, signal)?;
    Ok(())
}

/// The signals of termination, waiting to be read.
#[derive(Debug)]
pub struct Signals {
    fd: OwnedFd,
}

/// Takes over SIGTERM, SIGINT and SIGHUP, and ignores SIGPIPE.
#[cfg(target_os = "linux")]
pub fn termination() -> io::Result<Signals> {
    use std::os::fd::FromRawFd;

    let set = wanted()?;
    ignore_broken_pipes();
    // SAFETY: `set` is initialised and lives over the call; the old mask is not asked for.
    #[expect(unsafe_code, reason = "no safe call for it")]
    let errno = unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) };
    if errno != 0 {
        return Err(io::Error::from_raw_os_error(errno));
    }
    // SAFETY: `set` is initialised and lives over the call; -1 asks for a new descriptor.
    #[expect(unsafe_code, reason = "no safe call for it")]
    let fd = unsafe { libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was just made for us and nobody else knows it.
    #[expect(unsafe_code, reason = "the call gives a bare number")]
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    Ok(Signals { fd })
}

/// Signals cannot be read as data here yet.
#[cfg(not(target_os = "linux"))]
pub fn termination() -> io::Result<Signals> {
    ignore_broken_pipes();
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(target_os = "linux")]
fn wanted() -> io::Result<libc::sigset_t> {
    let mut set = std::mem::MaybeUninit::uninit();
    // SAFETY: the call initialises the set it is given.
    #[expect(unsafe_code, reason = "no safe call for it")]
    let empty = unsafe { libc::sigemptyset(set.as_mut_ptr()) };
    if empty != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: initialised by the call above, which succeeded.
    #[expect(unsafe_code, reason = "the call above initialised it")]
    let mut set = unsafe { set.assume_init() };
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
        // SAFETY: the set is initialised and the numbers exist.
        #[expect(unsafe_code, reason = "no safe call for it")]
        unsafe {
            libc::sigaddset(&raw mut set, signal);
        }
    }
    Ok(set)
}

/// Rust programs start like this; one whose `main` is not Rust's, or that was told otherwise, does not.
fn ignore_broken_pipes() {
    // SAFETY: sets a disposition without a handler.
    #[expect(unsafe_code, reason = "no safe call for it")]
    unsafe {
        libc::signal(libc::SIGPIPE, libc::SIG_IGN);
    }
}

impl Signals {
    /// The next signal, or `None` at the timeout.
    pub fn wait(&self, timeout: Duration) -> io::Result<Option<Signal>> {
        let deadline = crate::clock::Deadline::after(timeout);
        loop {
            if let Some(signal) = self.take()? {
                return Ok(Some(signal));
            }
            let left = deadline.remaining().unwrap_or(Duration::MAX);
            if !crate::ready::readable(&[self.fd.as_fd()], left)?[0] {
                return Ok(None);
            }
        }
    }

    /// A signal that has already come.
    pub fn take(&self) -> io::Result<Option<Signal>> {
        // The size of the kernel's record; its first field is the signal's number.
        let mut record = [0_u8; 128];
        match rustix::io::read(&self.fd, &mut record) {
            Ok(_) => {
                let [a, b, c, d, ..] = record;
                Ok(match i32::from_ne_bytes([a, b, c, d]) {
                    libc::SIGTERM => Some(Signal::Terminate),
                    libc::SIGINT => Some(Signal::Interrupt),
                    libc::SIGHUP => Some(Signal::Hangup),
                    _ => None,
                })
            }
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(target_os = "linux")]
#[cfg(test)]
mod tests {
    use super::*;

    /// Sends to this thread alone: other tests' threads have not blocked the signals.
    fn raise(signal: libc::c_int) {
        // SAFETY: sends a signal this thread has blocked to itself.
        #[expect(unsafe_code, reason = "no safe call that aims at a thread")]
        let answer = unsafe { libc::raise(signal) };
        assert_eq!(answer, 0);
    }

    #[test]
    fn signals_are_read_as_data() {
        let signals = termination().unwrap();
        assert_eq!(signals.take().unwrap(), None);
        assert_eq!(signals.wait(Duration::from_millis(1)).unwrap(), None);
        for (number, signal) in [
            (libc::SIGTERM, Signal::Terminate),
            (libc::SIGINT, Signal::Interrupt),
            (libc::SIGHUP, Signal::Hangup),
        ] {
            raise(number);
            assert_eq!(signals.wait(Duration::from_secs(20)).unwrap(), Some(signal));
        }
    }

    #[test]
    fn children_get_the_signals_we_took_over() {
        let _signals = termination().unwrap();
        let mut spec = crate::child::Spec::new(std::path::Path::new("/bin/sh"));
        spec.args = vec!["-c".into(), "kill -TERM $$; echo survived".into()];
        let captured = crate::child::run_capture(&spec, b"", 100, Duration::from_secs(20)).unwrap();
        assert_eq!(captured.stdout, b"");
    }
}
