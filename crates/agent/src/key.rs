//! The agent's own entry in `etc/client.keys`, and the counter of what it has sent.
//! Invariant: a pair of the counter is never used twice with one key, whatever dies when.

use std::io;
use std::path::{Path, PathBuf};

use tld_sys::durable;
use tld_wire::counter::{Counter, CounterExhausted, SenderCounter};
use tld_wire::key::{AgentKey, KeyFile};

/// Below the home.
pub(crate) const KEYS: &str = "etc/client.keys";
const COUNTER: &str = "queue/rids/sender_counter";
const FILE: usize = 1 << 20;

/// The first entry of the key file; none if there is no file or no entry in it.
///
/// # Errors
/// The file cannot be read.
pub(crate) fn load(home: &Path) -> io::Result<Option<AgentKey>> {
    let text = match durable::read_bounded(&home.join(KEYS), FILE) {
        Ok(text) => zeroize::Zeroizing::new(text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let text = zeroize::Zeroizing::new(String::from_utf8_lossy(&text).into_owned());
    Ok(KeyFile::parse(&text).0.agents().next().cloned())
}

/// Replaces the key file by one entry.
///
/// # Errors
/// The file cannot be written.
pub(crate) fn store(home: &Path, key: &AgentKey) -> io::Result<()> {
    let mut line = key.to_line();
    line.push('\n');
    durable::replace(&home.join(KEYS), line.as_bytes(), 0o640)
}

/// Why no pair can be given out.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CounterError {
    #[error(transparent)]
    Exhausted(#[from] CounterExhausted),
    #[error("cannot write `{COUNTER}`: {0}")]
    Write(#[source] io::Error),
}

/// The counter with its file. The file is written when a round begins and at a stop; a start begins a round of its own.
#[derive(Debug)]
pub(crate) struct Numbers {
    path: PathBuf,
    counter: SenderCounter,
}

impl Numbers {
    pub(crate) fn load(home: &Path) -> Result<Self, CounterError> {
        let path = home.join(COUNTER);
        let stored = durable::read_bounded(&path, 4096).ok();
        let stored = stored.and_then(|text| String::from_utf8_lossy(&text).parse::<Counter>().ok());
        let counter = match stored {
            Some(stored) => SenderCounter::after_restart(stored)?,
            None => SenderCounter::default(),
        };
        let numbers = Self { path, counter };
        numbers.store()?;
        Ok(numbers)
    }

    /// The pair for the next message.
    pub(crate) fn next(&mut self) -> Result<Counter, CounterError> {
        let round = self.counter.last().global;
        let pair = self.counter.advance()?;
        if pair.global != round {
            self.store()?;
        }
        Ok(pair)
    }

    pub(crate) fn store(&self) -> Result<(), CounterError> {
        let text = self.counter.last().to_string();
        durable::replace(&self.path, text.as_bytes(), 0o640).map_err(CounterError::Write)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_rise_over_a_kill_at_any_moment() {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(home.path().join("queue/rids")).unwrap();
        let mut last = Counter::default();
        for life in [3, 10_005, 1, 2] {
            let mut numbers = Numbers::load(home.path()).unwrap();
            for _ in 0..life {
                let next = numbers.next().unwrap();
                assert!(next > last);
                last = next;
            }
        }
    }

    #[test]
    fn only_the_first_entry_counts_and_is_replaced_whole() {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir(home.path().join("etc")).unwrap();
        assert_eq!(load(home.path()).unwrap(), None);
        let text = "# note\n001 web any 0123456789abcdef\n002 other any 0123456789abcdef\n";
        durable::replace(&home.path().join(KEYS), text.as_bytes(), 0o640).unwrap();
        let mut key = load(home.path()).unwrap().unwrap();
        assert_eq!(key.name, "web");
        key.id = "007".into();
        store(home.path(), &key).unwrap();
        assert_eq!(load(home.path()).unwrap(), Some(key));
    }
}
