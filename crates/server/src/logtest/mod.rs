//! The test tool's socket, `queue/sockets/logtest` (wire contract 5.5): one framed JSON request per connection, sessions that
//! remember events between requests.
//!
//! A few threads share the listening socket, each with one connection within [`PATIENCE`]: more than `threads` of `<rule_test>`
//! asks for, because a client that says nothing holds one of them. A new session starts with empty memory over the ruleset that the
//! service runs at that moment, which is equal to one freshly loaded from the same files.
//! Invariant: a request never changes the service's own state, and what all sessions remember together is bounded.

mod request;
mod session;
#[cfg(test)]
mod tests;

use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tld_config::RuleTest;
use tld_model::Zone;
use tld_rules::{Mode, Ruleset, Settings, Trace};
use tld_sys::clock::{Clock, Deadline};

use session::Sessions;

/// Longest request.
pub const REQUEST_LIMIT: usize = 65_535;
/// Longest answer.
const ANSWER_LIMIT: usize = 65_536;
/// Time that one connection may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Bytes of an excessive request that are read away, so that its sender reads our answer instead of an error.
const DRAINED: u64 = 1 << 20;
/// Threads beyond those asked for, for clients that keep one waiting.
const SPARE: usize = 8;
/// How often idle sessions are looked for when nobody asks.
const TIDYING: Duration = Duration::from_secs(60);

/// The ruleset in force, asked for at the start of each session.
pub type RulesetSource = Arc<dyn Fn() -> Arc<Ruleset> + Send + Sync>;

/// A listening socket with its sessions.
#[derive(Debug)]
pub struct LogtestServer {
    path: PathBuf,
    wake: Option<io::PipeWriter>,
    threads: Vec<JoinHandle<()>>,
}

/// Settings of an analyzer that tests: this host's names, no records for alerts.log.
pub fn settings(zone: Zone) -> Settings {
    Settings {
        mode: Mode::Logtest,
        manager_name: tld_sys::host::name(),
        short_host: tld_sys::host::short_name(),
        zone,
        cluster: None,
        with_plain: false,
        plain_form: None,
    }
}

/// The way through the rules in the contract's words (analysis-output 6.1, `rules_debug`).
pub fn rules_debug(ruleset: &Ruleset, trace: &Trace) -> Vec<String> {
    let mut lines = Vec::new();
    for step in &trace.rules {
        let description = ruleset.rule(step.rule).map(|rule| String::from_utf8_lossy(&rule.description));
        lines.push(format!("Trying rule: {} - {}", step.rule, description.unwrap_or_default()));
        if step.failed.is_none() {
            lines.push(format!("*Rule {} matched", step.rule));
            if step.has_children {
                lines.push("*Trying child rules".to_owned());
            }
        }
    }
    lines
}

/// Starts to serve at `path`. A socket left behind by a dead process is replaced, a live one is not.
///
/// # Errors
/// Somebody serves there, or the socket cannot be made.
pub fn serve(
    path: PathBuf,
    source: RulesetSource,
    settings: Settings,
    limits: RuleTest,
    clock: Arc<dyn Clock>,
) -> io::Result<LogtestServer> {
    let listener = crate::local::listen(&path)?;
    let (asleep, wake) = io::pipe()?;
    let shared = Arc::new((listener, asleep, Sessions::new(source, settings, limits, clock)));
    let mut server = LogtestServer { path, wake: Some(wake), threads: Vec::new() };
    for _ in 0..usize::from(limits.threads) + SPARE {
        let shared = Arc::clone(&shared);
        let serving = move || {
            let (listener, asleep, sessions) = &*shared;
            accept(listener, asleep, sessions);
        };
        // Dropped at an error, the server ends the threads that there are.
        server.threads.push(std::thread::Builder::new().name("logtest".into()).spawn(serving)?);
    }
    Ok(server)
}

impl LogtestServer {
    /// Ends after the connections in hand, and takes the socket away.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        drop(self.wake.take());
        if !self.threads.is_empty() {
            let _ = fs::remove_file(&self.path);
        }
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Drop for LogtestServer {
    fn drop(&mut self) {
        self.end();
    }
}

fn accept(listener: &UnixListener, asleep: &io::PipeReader, sessions: &Sessions) {
    loop {
        match tld_sys::ready::readable(&[listener.as_fd(), asleep.as_fd()], TIDYING).as_deref() {
            Ok([_, true]) | Err(_) => return,
            Ok([true, _]) => {}
            Ok(_) => {
                sessions.forget_idle();
                continue;
            }
        }
        if let Ok((stream, _)) = listener.accept() {
            // A client that goes away or stalls has nobody to be told.
            let _ = converse(&stream, asleep, sessions);
        }
    }
}

fn converse(stream: &UnixStream, asleep: &io::PipeReader, sessions: &Sessions) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    let deadline = Deadline::after(PATIENCE);
    let mut length = [0; 4];
    fill(stream, &mut length, asleep, &deadline)?;
    let length = usize::try_from(u32::from_le_bytes(length)).unwrap_or(usize::MAX);
    let answer = if length > REQUEST_LIMIT {
        let mut rest = stream.take(DRAINED.min(length as u64));
        stream.set_read_timeout(Some(Duration::from_millis(200)))?;
        // Whatever arrives at once is enough; a trickle is cut off by the bound on time or on bytes.
        while !deadline.passed() && matches!(rest.read(&mut [0; 8192]), Ok(1..)) {}
        request::too_large(length)
    } else {
        let mut request = vec![0; length];
        fill(stream, &mut request, asleep, &deadline)?;
        request::answer(&request, sessions)
    };
    let length = u32::try_from(answer.len()).unwrap_or(u32::MAX);
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut out = stream;
    out.write_all(&[&length.to_le_bytes(), answer.as_slice()].concat())
}

/// Reads until `buffer` is full, or the service ends.
fn fill(
    mut stream: &UnixStream,
    mut buffer: &mut [u8],
    asleep: &io::PipeReader,
    deadline: &Deadline,
) -> io::Result<()> {
    while !buffer.is_empty() {
        let left = deadline.remaining().filter(|left| !left.is_zero());
        let left = left.ok_or(io::ErrorKind::TimedOut)?;
        match tld_sys::ready::readable(&[stream.as_fd(), asleep.as_fd()], left)?.as_slice() {
            [true, false] => {}
            [_, true] => return Err(io::ErrorKind::Interrupted.into()),
            _ => continue,
        }
        match stream.read(buffer) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => buffer = buffer.get_mut(count..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
