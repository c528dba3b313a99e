//! Message counters on disk: `queue/rids`.
//!
//! The sender's pairs are reserved in blocks, so that a message does not wait for a disk: the file holds a round that no
//! message has reached yet, and a start goes on behind it. Agents' own pairs are stored only where they are checked.
//! Invariant: no pair is sent twice, whatever happens to the process or the host.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use tld_model::AgentId;
use tld_sys::durable;
use tld_wire::counter::{Counter, CounterExhausted, ReceiverCounter, SenderCounter};

use super::lock;

/// Rounds secured at once: some eighty thousand messages.
const BLOCK: u32 = 8;
const FILE_LIMIT: usize = 64;

pub(super) struct Counters {
    folder: PathBuf,
    sender: Mutex<Sending>,
    /// The keeper should secure the next block before the present one ends.
    wanted: AtomicBool,
    verify: bool,
}

struct Sending {
    counter: SenderCounter,
    /// Rounds below this one may be used.
    secured: u32,
}

/// No pair can be had.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoPair {
    #[error(transparent)]
    Exhausted(#[from] CounterExhausted),
    #[error("the message counter cannot be stored: {0}")]
    Store(#[from] io::Error),
}

impl Counters {
    pub(super) fn open(home: &Path, verify: bool) -> Result<Self, (PathBuf, io::Error)> {
        let folder = home.join("queue/rids");
        let failed = |path: &Path| {
            let path = path.to_path_buf();
            move |error| (path, error)
        };
        durable::create_dirs(&folder, 0o770).map_err(failed(&folder))?;
        let path = folder.join("sender_counter");
        let last = match durable::read_bounded(&path, FILE_LIMIT) {
            Ok(bytes) => String::from_utf8_lossy(&bytes)
                .parse::<Counter>()
                .map_err(|error| failed(&path)(io::Error::other(error)))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Counter::default(),
            Err(error) => return Err(failed(&path)(error)),
        };
        // A file of another manager holds the last pair it used, so its round is over for us.
        let fresh = last == Counter::default();
        let counter = if fresh { Ok(SenderCounter::default()) } else { SenderCounter::after_restart(last) };
        let counter = counter.map_err(|error| failed(&path)(io::Error::other(error)))?;
        let secured = counter.last().global.saturating_add(BLOCK);
        let this = Self {
            folder,
            sender: Mutex::new(Sending { counter, secured }),
            wanted: AtomicBool::new(false),
            verify,
        };
        this.store(secured).map_err(failed(&path))?;
        Ok(this)
    }

    /// The pair for the next message of this process, to whomever it goes.
    pub(super) fn advance(&self) -> Result<Counter, NoPair> {
        let mut sending = lock(&self.sender);
        let pair = sending.counter.advance()?;
        let left = sending.secured.saturating_sub(pair.global);
        if left == 0 {
            // The keeper was not fast enough.
            let next = pair.global.saturating_add(BLOCK);
            self.store(next)?;
            sending.secured = next;
        } else if left == 1 {
            self.wanted.store(true, Ordering::Relaxed);
        }
        Ok(pair)
    }

    /// Secures the next block if it will soon be needed. Called by the keeper, which may wait for a disk.
    pub(super) fn secure(&self) -> io::Result<()> {
        if !self.wanted.swap(false, Ordering::Relaxed) {
            return Ok(());
        }
        let next = lock(&self.sender).secured.saturating_add(BLOCK);
        self.store(next)?;
        let mut sending = lock(&self.sender);
        sending.secured = sending.secured.max(next);
        Ok(())
    }

    pub(super) const fn verifies(&self) -> bool {
        self.verify
    }

    /// The pair of an agent's last message before this start. No file means that none came yet, or that its key is new.
    pub(super) fn stored(&self, id: AgentId) -> ReceiverCounter {
        let read = || {
            let text = durable::read_bounded(&self.folder.join(id.to_string()), FILE_LIMIT).ok()?;
            String::from_utf8_lossy(&text).parse().ok()
        };
        ReceiverCounter::after(if self.verify { read().unwrap_or_default() } else { Counter::default() })
    }

    /// Stores an agent's pair.
    pub(super) fn save(&self, id: AgentId, pair: Counter) -> io::Result<()> {
        durable::replace(&self.folder.join(id.to_string()), pair.to_string().as_bytes(), 0o640)
    }

    fn store(&self, round: u32) -> io::Result<()> {
        let pair = Counter { global: round, local: 0 };
        durable::replace(&self.folder.join("sender_counter"), pair.to_string().as_bytes(), 0o640)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_rise_over_restarts_and_crashes() {
        let home = tempfile::tempdir().unwrap();
        let mut last = Counter::default();
        for _ in 0..3 {
            let counters = Counters::open(home.path(), false).unwrap();
            for _ in 0..25_000 {
                let pair = counters.advance().unwrap();
                assert!(pair > last, "{pair} after {last}");
                last = pair;
            }
            // Dropped without a word, as a crash would.
        }
        assert!(last.global > 2 * BLOCK);
    }

    #[test]
    fn a_fresh_manager_begins_at_one_and_a_block_is_secured_ahead() {
        let home = tempfile::tempdir().unwrap();
        let counters = Counters::open(home.path(), false).unwrap();
        assert_eq!(counters.advance().unwrap(), Counter { global: 0, local: 1 });
        let file = || std::fs::read_to_string(home.path().join("queue/rids/sender_counter")).unwrap();
        assert_eq!(file(), "8:0:");
        counters.secure().unwrap();
        assert_eq!(file(), "8:0:", "not needed yet");
        while counters.advance().unwrap().global < 7 {}
        counters.secure().unwrap();
        assert_eq!(file(), "16:0:");
    }

    #[test]
    fn another_managers_counter_is_continued() {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(home.path().join("queue/rids")).unwrap();
        durable::replace(&home.path().join("queue/rids/sender_counter"), b"41:77:", 0o640).unwrap();
        durable::replace(&home.path().join("queue/rids/007"), b"3:9:", 0o640).unwrap();
        let counters = Counters::open(home.path(), true).unwrap();
        assert_eq!(counters.advance().unwrap(), Counter { global: 42, local: 1 });
        assert_eq!(counters.stored(AgentId(7)).last(), Counter { global: 3, local: 9 });
        assert_eq!(counters.stored(AgentId(8)).last(), Counter::default());
    }
}
