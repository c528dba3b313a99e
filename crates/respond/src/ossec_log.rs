//! `logs/ossec.log`, one line per occurrence in the contract's form, and the same line to a terminal or the journal.
//! Stands here because every service that runs a responder writes it.
//! Invariant: one call is one line, whatever the text holds.

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

use tld_model::{Timestamp, Zone};
use tld_sys::clock::Clock;

/// How urgent a line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// For those who look for a fault.
    Debug,
    /// For the record.
    Info,
    /// Something works less well than asked for.
    Warning,
    /// Something does not work.
    Error,
}

impl Level {
    /// The word in the log.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Debug => "DEBUG",
            Self::Info => "INFO",
            Self::Warning => "WARNING",
            Self::Error => "ERROR",
        }
    }
}

/// Writes the service's own log. Cheap to clone.
#[derive(Clone)]
pub struct Log {
    path: PathBuf,
    clock: Arc<dyn Clock>,
    zone: Zone,
    echo: bool,
    program: &'static str,
}

impl std::fmt::Debug for Log {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Log").field("path", &self.path).field("echo", &self.echo).finish_non_exhaustive()
    }
}

impl Log {
    /// Appends to `path`; with `echo` also to standard error.
    pub fn new(path: PathBuf, clock: Arc<dyn Clock>, zone: Zone, echo: bool) -> Self {
        Self { path, clock, zone, echo, program: "threatlockdown" }
    }

    /// The same log under another program's name, where the contract fixes it.
    #[must_use]
    pub fn named(mut self, program: &'static str) -> Self {
        self.program = program;
        self
    }

    /// One line. Control characters are made visible, since parts of it may come from an attacker.
    pub fn line(&self, level: Level, text: &str) {
        let at = self.zone.local(Timestamp::from_nanos(self.clock.wall_nanos()));
        let text: String = text
            .chars()
            .flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] })
            .collect();
        let line = format!("{} {}: {}: {text}\n", at.log_stamp(), self.program, level.word());
        if self.echo {
            let _ = std::io::stderr().write_all(line.as_bytes());
        }
        // A log that cannot be written has nowhere else to be reported than the terminal above.
        let _ = tld_sys::durable::append_line(&self.path, line.as_bytes(), 0o640);
    }

    /// For the record.
    pub fn info(&self, text: &str) {
        self.line(Level::Info, text);
    }

    /// Something works less well than asked for.
    pub fn warning(&self, text: &str) {
        self.line(Level::Warning, text);
    }

    /// Something does not work.
    pub fn error(&self, text: &str) {
        self.line(Level::Error, text);
    }
}
