//! One line on the terminal while a long replay runs. Invariant: nothing is shown where nobody looks (no terminal), and
//! nothing is left behind.

use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use tld_sys::clock::{Clock, SystemClock};

use super::table::{grouped, size};

/// A replay shorter than this needs no progress.
const FIRST: Duration = Duration::from_millis(1_000);
const EVERY: Duration = Duration::from_millis(250);

/// See the module.
#[derive(Debug)]
pub(super) struct Progress {
    terminal: bool,
    start: Duration,
    next: Duration,
    /// Bytes of all files as stored; 0 = unknown.
    size: u64,
    shown: bool,
}

impl Progress {
    pub(super) fn new(size: u64) -> Self {
        let start = SystemClock.boot();
        Self { terminal: std::io::stderr().is_terminal(), start, next: start + FIRST, size, shown: false }
    }

    /// Shows how far it is, if it is time to.
    pub(super) fn show(&mut self, consumed: u64, lines: u64) {
        if !self.terminal {
            return;
        }
        let now = SystemClock.boot();
        if now < self.next {
            return;
        }
        self.next = now + EVERY;
        self.shown = true;
        let spent = now.saturating_sub(self.start).as_secs_f64().max(0.001);
        let rate = grouped((lines as f64 / spent) as u64);
        let mut text = format!("{} lines, {rate} a second", grouped(lines));
        if self.size > 0 && consumed > 0 {
            let part = (consumed as f64 / self.size as f64).min(1.0);
            let left = spent / part - spent;
            text = format!("{:>3.0} % of {}, {text}, {left:.0} s left", part * 100.0, size(self.size));
        }
        // Wrapping off, so that a narrow terminal shows one line too.
        eprint!("\r\x1b[?7l\x1b[K{text}\x1b[?7h");
        let _ = std::io::stderr().flush();
    }

    /// Removes the line.
    pub(super) fn clear(&mut self) {
        if self.shown {
            eprint!("\r\x1b[K");
        }
    }
}
