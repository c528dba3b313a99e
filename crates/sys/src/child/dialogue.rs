//! Talking with a child over its pipes, line by line or all at once.
//!
//! Invariant: every wait has an end, every buffer a limit.

use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::process::ExitStatus;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags};

use super::{Child, Interest, Spec, Stdin, Stdout, spawn};
use crate::clock::Deadline;
use crate::ready;

/// After a kill, how long the kernel may take to deliver the exit.
const AFTER_KILL: Duration = Duration::from_secs(2);

/// What came of waiting for a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReadLine {
    /// A line without its newline; the last one may have had none.
    Line(Vec<u8>),
    /// The other side closed without a word.
    Eof,
    /// No whole line came in time; what came is kept for the next call where there is a buffer to keep it in.
    TimedOut,
    /// More than the permitted number of bytes came without a newline.
    TooLong,
}

/// Reads one line of at most `max` bytes from a pipe, byte by byte so that nothing behind it is swallowed.
/// Half a line at the timeout is lost: for a conversation use [`Child::read_line`].
pub fn read_line_deadline(
    pipe: &mut (impl Read + AsFd),
    max: usize,
    timeout: Duration,
) -> io::Result<ReadLine> {
    let deadline = Deadline::after(timeout);
    let mut line = Vec::new();
    loop {
        if !ready::wait(&mut [PollFd::new(pipe, PollFlags::IN)], &deadline)? {
            return Ok(ReadLine::TimedOut);
        }
        let mut byte = [0_u8; 1];
        match pipe.read(&mut byte) {
            Ok(0) if line.is_empty() => return Ok(ReadLine::Eof),
            Ok(0) => return Ok(ReadLine::Line(line)),
            Ok(_) if byte[0] == b'\n' => return Ok(ReadLine::Line(line)),
            Ok(_) if line.len() == max => return Ok(ReadLine::TooLong),
            Ok(_) => line.push(byte[0]),
            Err(e) if matches!(e.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock) => {}
            Err(e) => return Err(e),
        }
    }
}

impl Child {
    /// Writes all of `bytes` to the child's stdin, [`io::ErrorKind::TimedOut`] if it does not take them in time,
    /// [`io::ErrorKind::BrokenPipe`] if it has closed its end.
    pub fn write_all(&mut self, bytes: &[u8], timeout: Duration) -> io::Result<()> {
        let deadline = Deadline::after(timeout);
        let mut left = bytes;
        while !left.is_empty() {
            let stdin = self.stdin.as_mut().ok_or_else(|| io::Error::from(io::ErrorKind::BrokenPipe))?;
            match stdin.write(left) {
                Ok(count) => left = &left[count..],
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    if deadline.passed() {
                        return Err(io::ErrorKind::TimedOut.into());
                    }
                    let ready = self.poll(Interest { stdin: true, stdout: false }, &deadline)?;
                    if ready.exited && !ready.stdin {
                        return Err(io::ErrorKind::BrokenPipe.into());
                    }
                }
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// Reads one line of at most `max` bytes from the child's stdout. A line that is not whole at the timeout
    /// is continued by the next call. A child that ends while a descendant holds its stdout counts as
    /// [`ReadLine::Eof`].
    pub fn read_line(&mut self, max: usize, timeout: Duration) -> io::Result<ReadLine> {
        let deadline = Deadline::after(timeout);
        loop {
            if let Some(end) = self.pending.iter().position(|byte| *byte == b'\n') {
                if end > max {
                    return Ok(ReadLine::TooLong);
                }
                let mut line: Vec<u8> = self.pending.drain(..=end).collect();
                line.pop();
                return Ok(ReadLine::Line(line));
            }
            if self.pending.len() > max {
                return Ok(ReadLine::TooLong);
            }
            if self.stdout.is_none() {
                return Ok(self.last_line());
            }
            let ready = self.poll(Interest { stdin: false, stdout: true }, &deadline)?;
            if ready.stdout {
                self.fill_pending()?;
            } else if ready.exited || (self.pidfd.is_none() && self.try_wait()?.is_some()) {
                return Ok(self.last_line());
            } else if deadline.passed() {
                return Ok(ReadLine::TimedOut);
            }
        }
    }

    fn last_line(&mut self) -> ReadLine {
        if self.pending.is_empty() {
            ReadLine::Eof
        } else {
            ReadLine::Line(std::mem::take(&mut self.pending))
        }
    }

    fn fill_pending(&mut self) -> io::Result<()> {
        let mut buffer = [0_u8; 4096];
        let Some(stdout) = self.stdout.as_mut() else { return Ok(()) };
        match stdout.read(&mut buffer) {
            Ok(0) => self.stdout = None,
            Ok(count) => self.pending.extend_from_slice(&buffer[..count]),
            Err(e) if matches!(e.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock) => {}
            Err(e) => return Err(e),
        }
        Ok(())
    }
}

/// What a finished child left behind.
#[derive(Debug, Clone)]
pub struct Captured {
    /// How it ended; `None` if it could not even be killed in time.
    pub status: Option<ExitStatus>,
    /// The beginning of its output, as much as was asked for.
    pub stdout: Vec<u8>,
    /// Whether output beyond that was thrown away.
    pub truncated: bool,
    /// The last [`super::STDERR_TAIL`] bytes of its stderr.
    pub stderr: Vec<u8>,
    /// Whether it was killed because it took too long.
    pub timed_out: bool,
}

/// Runs a child to its end: feeds it `input`, keeps at most `max_output` bytes of its stdout, kills its group at
/// the timeout. Pipes that a surviving descendant holds open are not waited for.
pub fn run_capture(
    spec: &Spec<'_>,
    input: &[u8],
    max_output: usize,
    timeout: Duration,
) -> io::Result<Captured> {
    let stdin = if input.is_empty() { Stdin::Null } else { Stdin::Pipe };
    let spec = Spec { stdin, stdout: Stdout::Pipe, ..spec.clone() };
    let deadline = Deadline::after(timeout);
    let mut child = spawn(&spec)?;
    let mut output = Output { bytes: Vec::new(), max: max_output, truncated: false };
    let timed_out = match converse(&mut child, input, &mut output, &deadline) {
        Ok(finished) => !finished,
        Err(e) => {
            child.kill_group()?;
            child.wait_deadline(AFTER_KILL)?;
            return Err(e);
        }
    };
    if timed_out {
        child.kill_group()?;
    }
    let status = child.wait_deadline(AFTER_KILL)?;
    Ok(Captured {
        status,
        stdout: output.bytes,
        truncated: output.truncated,
        stderr: child.stderr_tail().to_vec(),
        timed_out,
    })
}

struct Output {
    bytes: Vec<u8>,
    max: usize,
    truncated: bool,
}

impl Output {
    fn push(&mut self, more: &[u8]) {
        let room = self.max - self.bytes.len();
        self.truncated |= more.len() > room;
        self.bytes.extend_from_slice(&more[..more.len().min(room)]);
    }
}

/// Writes and reads until the child has ended and its pipes are empty; false if time ran out before.
fn converse(child: &mut Child, input: &[u8], output: &mut Output, deadline: &Deadline) -> io::Result<bool> {
    let mut left = input;
    loop {
        let interest = Interest { stdin: child.stdin.is_some(), stdout: child.stdout.is_some() };
        let ready = child.poll(interest, deadline)?;
        if ready.stdin {
            left = feed(child, left)?;
        }
        if ready.stdout {
            read_output(child, output)?;
        } else if ready.exited || (child.pidfd.is_none() && child.try_wait()?.is_some()) {
            return Ok(true);
        }
        if deadline.passed() {
            return Ok(false);
        }
    }
}

fn feed<'a>(child: &mut Child, left: &'a [u8]) -> io::Result<&'a [u8]> {
    let Some(stdin) = child.stdin.as_mut() else { return Ok(left) };
    let rest = match stdin.write(left) {
        Ok(count) => &left[count..],
        // It need not read everything it is offered.
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => &[],
        Err(e) if matches!(e.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock) => left,
        Err(e) => return Err(e),
    };
    if rest.is_empty() {
        child.stdin = None;
    }
    Ok(rest)
}

fn read_output(child: &mut Child, output: &mut Output) -> io::Result<()> {
    let mut buffer = [0_u8; 16384];
    let Some(stdout) = child.stdout.as_mut() else { return Ok(()) };
    match stdout.read(&mut buffer) {
        Ok(0) => child.stdout = None,
        Ok(count) => output.push(&buffer[..count]),
        Err(e) if matches!(e.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock) => {}
        Err(e) => return Err(e),
    }
    Ok(())
}
