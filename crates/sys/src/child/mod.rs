//! Child processes under control: fixed environment, closed descriptors, limits, deadlines, capped output.
//!
//! What runs here runs as root and talks to us over pipes. It inherits nothing by accident: no variable but
//! `PATH`, `LANG` and what the caller names, no descriptor but 0, 1 and 2, no signal disposition. Each child
//! leads a session and process group of its own, so that a hung one is killed with its descendants. It is *not*
//! tied to our life: an undo that is under way finishes even if we die.
//!
//! Invariant: no method waits beyond the timeout it is given, and while one waits the child's stderr is drained,
//! so that a talkative child cannot hang on a full pipe.

mod dialogue;
#[cfg(target_os = "linux")]
mod resting;
mod start;
#[cfg(target_os = "linux")]
mod vfork;

pub use dialogue::{Captured, ReadLine, read_line_deadline, run_capture};
#[cfg(target_os = "linux")]
pub use resting::{Resting, resting};
pub use start::spawn;

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::ExitStatus;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags};
#[cfg(target_os = "linux")]
use rustix::process::WaitOptions;
use rustix::process::{Pid, Signal};

use crate::clock::Deadline;
use crate::ready;

/// How much of a child's stderr is kept: the end of it.
pub const STDERR_TAIL: usize = 4096;

/// How much output is read only to be thrown away.
const MOST_DISCARDED: u64 = 1 << 20;

/// Without a process descriptor (old kernels, other systems) exits are noticed at this interval.
const EXIT_POLL: Duration = Duration::from_millis(10);

/// What the child reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Stdin {
    /// Nothing.
    #[default]
    Null,
    /// What we write into [`Child::stdin`].
    Pipe,
}

/// Where the child's output goes; its stderr always goes to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Stdout {
    /// Nowhere.
    #[default]
    Null,
    /// To us, through [`Child::stdout`].
    Pipe,
}

/// Resource limits of the child and, one by one, of its descendants; `None` sets none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Address space. Programs that map large files (`journalctl`) need more, or none.
    pub memory_bytes: Option<u64>,
    /// Memory that it may write to and that is its own. Unlike the address space this does not count what a runtime
    /// only reserves.
    pub data_bytes: Option<u64>,
    /// Processes and threads of the child's *user*, hence not applied to root.
    pub processes: Option<u64>,
    /// The largest file it may write.
    pub file_bytes: Option<u64>,
    /// Open descriptors.
    pub open_files: Option<u64>,
}

impl Limits {
    /// No limits at all.
    pub const fn none() -> Self {
        Self { memory_bytes: None, data_bytes: None, processes: None, file_bytes: None, open_files: None }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory_bytes: Some(512 << 20),
            data_bytes: None,
            processes: Some(512),
            file_bytes: Some(1 << 30),
            open_files: Some(1024),
        }
    }
}

/// What to run and how.
#[derive(Debug, Clone)]
pub struct Spec<'a> {
    /// The file, with at least one slash (no search); relative to `cwd` if one is given.
    pub program: &'a Path,
    /// The name it is told, if not `program`.
    pub argv0: Option<OsString>,
    /// Arguments after the name.
    pub args: Vec<OsString>,
    /// Its working directory, ours if `None`.
    pub cwd: Option<&'a Path>,
    /// What it reads.
    pub stdin: Stdin,
    /// Where its output goes.
    pub stdout: Stdout,
    /// Variables besides `PATH` and `LANG`; may override those.
    pub env: Vec<(OsString, OsString)>,
    /// Resource limits.
    pub limits: Limits,
    /// User and group to become, without supplementary groups; needs root.
    pub user: Option<(u32, u32)>,
    /// The group that it and all its descendants belong to.
    #[cfg(target_os = "linux")]
    pub group: Option<&'a crate::group::Group>,
}

impl<'a> Spec<'a> {
    /// `program` without arguments, input or output, as the present user, with the usual limits.
    #[must_use]
    pub fn new(program: &'a Path) -> Self {
        Self {
            program,
            argv0: None,
            args: Vec::new(),
            cwd: None,
            stdin: Stdin::Null,
            stdout: Stdout::Null,
            env: Vec::new(),
            limits: Limits::default(),
            user: None,
            #[cfg(target_os = "linux")]
            group: None,
        }
    }
}

/// A started child. Dropping it neither kills nor waits (a finished one is reaped): call
/// [`Child::kill_group`] and [`Child::wait_deadline`] for that.
#[derive(Debug)]
pub struct Child {
    /// Process id, also the id of its session and process group.
    pub pid: u32,
    /// Our end of its stdin, if piped; drop it to signal the end of input.
    pub stdin: Option<File>,
    /// Our end of its stdout, if piped. Take it to read it yourself: what is taken is not drained by waits.
    pub stdout: Option<File>,
    /// Our end of its stderr, until its end. Do not read from it beside [`Child::stderr_tail`].
    pub stderr: Option<File>,
    /// Becomes readable when the child ends; `None` where the system has no such thing.
    pub pidfd: Option<OwnedFd>,
    process: Process,
    discarded: u64,
    status: Option<ExitStatus>,
    tail: Vec<u8>,
    pending: Vec<u8>,
}

/// Who waits for the exit.
#[derive(Debug)]
enum Process {
    Std(std::process::Child),
    /// We do, by its number, which is its own until then.
    #[cfg(target_os = "linux")]
    Numbered,
}

impl Child {
    /// `pipes` are our ends of stdin, stdout and stderr.
    fn new(pid: u32, process: Process, pidfd: Option<OwnedFd>, pipes: [Option<File>; 3]) -> Self {
        let [stdin, stdout, stderr] = pipes;
        let (tail, pending) = (Vec::new(), Vec::new());
        Self { pid, stdin, stdout, stderr, pidfd, process, discarded: 0, status: None, tail, pending }
    }

    /// The exit status if the child has ended.
    pub fn try_wait(&mut self) -> io::Result<Option<ExitStatus>> {
        if self.status.is_none() {
            self.status = match &mut self.process {
                Process::Std(child) => child.try_wait()?,
                #[cfg(target_os = "linux")]
                Process::Numbered => {
                    use std::os::unix::process::ExitStatusExt as _;
                    let ended = rustix::process::waitpid(self.number()?.into(), WaitOptions::NOHANG)?;
                    ended.map(|(_, status)| ExitStatus::from_raw(status.as_raw()))
                }
            };
        }
        Ok(self.status)
    }

    /// Waits for the end at most `timeout`, throwing away what it still writes to stdout; `None` if it runs on.
    pub fn wait_deadline(&mut self, timeout: Duration) -> io::Result<Option<ExitStatus>> {
        let deadline = Deadline::after(timeout);
        loop {
            if let Some(status) = self.try_wait()? {
                self.drain_stderr();
                return Ok(Some(status));
            }
            if deadline.passed() {
                return Ok(None);
            }
            let ready = self.poll(Interest { stdin: false, stdout: self.stdout.is_some() }, &deadline)?;
            if ready.stdout {
                self.discard_stdout();
            }
        }
    }

    /// Kills the child and every process still in its group. After the child was waited for this does nothing:
    /// its number may by then belong to somebody else.
    pub fn kill_group(&mut self) -> io::Result<()> {
        if self.status.is_some() {
            return Ok(());
        }
        match rustix::process::kill_process_group(self.number()?, Signal::KILL) {
            // Gone already, or only the unreaped leader is left and the system refuses to signal it (Darwin).
            Ok(()) | Err(rustix::io::Errno::SRCH | rustix::io::Errno::PERM) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }

    fn number(&self) -> io::Result<Pid> {
        let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw);
        pid.ok_or_else(|| io::ErrorKind::InvalidInput.into())
    }

    /// The last [`STDERR_TAIL`] bytes the child has written to stderr up to now.
    pub fn stderr_tail(&mut self) -> &[u8] {
        self.drain_stderr();
        &self.tail
    }

    /// One round of waiting; stderr is drained on the way. Returns early with nothing ready when the child ended
    /// or, without a process descriptor, when it is time to ask again.
    fn poll(&mut self, interest: Interest, deadline: &Deadline) -> io::Result<Ready> {
        let mut fds = Vec::with_capacity(4);
        let mut index = [None; 3];
        let wanted = [
            (self.stderr.as_ref(), PollFlags::IN, true),
            (self.stdout.as_ref(), PollFlags::IN, interest.stdout),
            (self.stdin.as_ref(), PollFlags::OUT, interest.stdin),
        ];
        for (slot, (file, flags, wanted)) in index.iter_mut().zip(wanted) {
            if let Some(file) = file.filter(|_| wanted) {
                *slot = Some(fds.len());
                fds.push(PollFd::new(file, flags));
            }
        }
        let exit = if self.status.is_some() { None } else { self.pidfd.as_ref() };
        let exit_at = exit.map(|exit| {
            fds.push(PollFd::new(exit, PollFlags::IN));
            fds.len() - 1
        });
        let round = match (exit_at, deadline.remaining()) {
            (None, Some(left)) => Deadline::after(left.min(EXIT_POLL)),
            (None, None) => Deadline::after(EXIT_POLL),
            (Some(_), _) => *deadline,
        };
        ready::wait(&mut fds, &round)?;
        let is_ready = |at: Option<usize>| at.is_some_and(|at| !fds[at].revents().is_empty());
        let ready =
            Ready { stdout: is_ready(index[1]), stdin: is_ready(index[2]), exited: is_ready(exit_at) };
        if is_ready(index[0]) {
            drop(fds);
            self.drain_stderr();
        }
        Ok(ready)
    }

    fn drain_stderr(&mut self) {
        let mut buffer = [0_u8; 4096];
        // Bounded: a child that writes faster than we read must not hold us here.
        for _ in 0..64 {
            let Some(file) = self.stderr.as_mut() else { return };
            match file.read(&mut buffer) {
                Ok(0) => self.stderr = None,
                Ok(count) => keep_tail(&mut self.tail, &buffer[..count]),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    }

    fn discard_stdout(&mut self) {
        let mut buffer = [0_u8; 16384];
        let Some(file) = self.stdout.as_mut() else { return };
        match file.read(&mut buffer) {
            Ok(count) if count > 0 => {
                self.discarded += count as u64;
                // Who goes on writing meets a closed pipe.
                if self.discarded > MOST_DISCARDED {
                    self.stdout = None;
                }
            }
            Err(e) if matches!(e.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock) => {}
            _ => self.stdout = None,
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // Reaps it if it has ended; otherwise it runs on, as promised.
        let _ = self.try_wait();
    }
}

#[derive(Clone, Copy)]
struct Interest {
    stdin: bool,
    stdout: bool,
}

#[derive(Clone, Copy)]
struct Ready {
    stdin: bool,
    stdout: bool,
    exited: bool,
}

fn keep_tail(tail: &mut Vec<u8>, more: &[u8]) {
    tail.extend_from_slice(more);
    let surplus = tail.len().saturating_sub(STDERR_TAIL);
    tail.drain(..surplus);
}

fn set_nonblocking(fd: impl AsFd) -> io::Result<()> {
    let flags = rustix::fs::fcntl_getfl(&fd)?;
    Ok(rustix::fs::fcntl_setfl(&fd, flags | rustix::fs::OFlags::NONBLOCK)?)
}

#[cfg(test)]
mod tests;
