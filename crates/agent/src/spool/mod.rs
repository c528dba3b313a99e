//! Events on their way to the manager, in order, in `queue/threatlockdown/spool`. All of them pass through here: what is
//! sent at once is read back from the page cache, what waits for the manager waits on the disk.
//!
//! The files are segments of records (`segment`), each named after the number of its first event. Appending goes to the
//! last one; [`Spool::release`] removes those whose events are all with the manager, and notes the number up to which
//! they are in the file `done`.
//! Invariants: numbers rise without gaps; what [`Spool::append`] has taken survives a killed process; a full spool makes
//! the writer wait and loses nothing.

mod segment;
mod tail;

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tld_sys::durable;

use segment::{Segment, Writer};
pub use tail::Tail;

/// A segment is closed once it has so many bytes.
const SEGMENT: u64 = 8 << 20;
/// How often a waiting writer looks whether it should stop.
const LOOK: Duration = Duration::from_millis(200);
const DONE: &str = "done";

/// The spool cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot use the spool `{}`: {source}", path.display())]
pub struct SpoolError {
    /// File or directory.
    pub path: PathBuf,
    /// What the system said.
    #[source]
    pub source: io::Error,
}

/// See the module.
#[derive(Debug)]
pub struct Spool {
    directory: PathBuf,
    limit: u64,
    inner: Mutex<Inner>,
    room: Condvar,
    /// Number of the next event to be appended.
    head: AtomicU64,
    /// Everything below is with the manager.
    done: AtomicU64,
}

#[derive(Debug)]
struct Inner {
    closed: VecDeque<Segment>,
    last: Writer,
    noted: u64,
}

impl Inner {
    fn bytes(&self) -> u64 {
        self.closed.iter().map(|segment| segment.bytes).sum::<u64>() + self.last.bytes()
    }
}

impl Spool {
    /// Opens or makes it. Bytes at the end that a killed writer left unfinished are cut off.
    ///
    /// # Errors
    /// The directory or a file in it cannot be used.
    pub fn open(directory: &Path, limit: u64) -> Result<Self, SpoolError> {
        let failed = |source| SpoolError { path: directory.to_path_buf(), source };
        durable::create_dirs(directory, 0o750).map_err(failed)?;
        let noted = durable::read_bounded(&directory.join(DONE), 64).ok();
        let noted = noted.and_then(|text| String::from_utf8_lossy(&text).trim().parse::<u64>().ok());
        let mut segments = segment::find(directory).map_err(failed)?;
        let head = match segments.last() {
            None => noted.unwrap_or(0),
            Some(last) => segment::mend(last).map_err(failed)?,
        };
        segments.retain(|segment| segment.first < head || segment.remove().is_err());
        let mut closed: VecDeque<Segment> = segments.into();
        if let Some(last) = closed.back_mut() {
            last.refresh().map_err(failed)?;
        }
        let oldest = closed.front().map_or(head, |segment| segment.first);
        let done = noted.unwrap_or(oldest).clamp(oldest, head);
        let last = Writer::create(directory, head).map_err(failed)?;
        let spool = Self {
            directory: directory.to_path_buf(),
            limit: limit.max(SEGMENT * 2),
            inner: Mutex::new(Inner { closed, last, noted: noted.unwrap_or(u64::MAX) }),
            room: Condvar::new(),
            head: AtomicU64::new(head),
            done: AtomicU64::new(done),
        };
        spool.release(done);
        Ok(spool)
    }

    /// Number of the next event to be appended.
    pub fn head(&self) -> u64 {
        self.head.load(Ordering::Acquire)
    }

    /// Number of the first event that is not known to be with the manager.
    pub fn done(&self) -> u64 {
        self.done.load(Ordering::Acquire)
    }

    /// Takes events in order, waiting for room; false if `stop` was set before, and nothing was taken.
    ///
    /// # Errors
    /// The disk does not take them; nothing was taken then.
    pub fn append(&self, events: &[Vec<u8>], stop: &AtomicBool) -> io::Result<bool> {
        let size = segment::size(events);
        let mut inner = self.lock();
        while inner.bytes() + size > self.limit {
            if stop.load(Ordering::SeqCst) {
                return Ok(false);
            }
            inner = self.room.wait_timeout(inner, LOOK).unwrap_or_else(PoisonError::into_inner).0;
        }
        if inner.last.bytes() >= SEGMENT {
            self.close_last(&mut inner)?;
        }
        inner.last.append(events)?;
        self.head.fetch_add(events.len() as u64, Ordering::AcqRel);
        Ok(true)
    }

    fn close_last(&self, inner: &mut Inner) -> io::Result<()> {
        let fresh = Writer::create(&self.directory, self.head())?;
        let old = std::mem::replace(&mut inner.last, fresh);
        old.sync()?;
        inner.closed.push_back(old.into_segment());
        Ok(())
    }

    /// Makes what was taken safe from a power cut.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn sync(&self) -> io::Result<()> {
        // The file is synced outside of the lock: a slow disk must not hold up who appends.
        let file = self.lock().last.file()?;
        file.sync_data()
    }

    /// Everything below `number` is with the manager.
    pub fn release(&self, number: u64) {
        let done =
            self.done.fetch_max(number.min(self.head()), Ordering::AcqRel).max(number.min(self.head()));
        let mut inner = self.lock();
        let first_kept = inner.last.first;
        while let Some(segment) = inner.closed.front() {
            let next = inner.closed.get(1).map_or(first_kept, |next| next.first);
            if next > done || segment.remove().is_err() {
                break;
            }
            inner.closed.pop_front();
            self.room.notify_all();
        }
    }

    /// Writes down how far the manager has taken them, if that changed.
    ///
    /// # Errors
    /// The file cannot be written; the events would be sent again after a restart.
    pub fn note(&self) -> io::Result<()> {
        let done = self.done();
        if std::mem::replace(&mut self.lock().noted, done) == done {
            return Ok(());
        }
        durable::replace(&self.directory.join(DONE), done.to_string().as_bytes(), 0o640)
    }

    /// Bytes on the disk.
    pub fn bytes(&self) -> u64 {
        self.lock().bytes()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The segment that holds an event: its file and first number.
    fn segment_of(&self, number: u64) -> Option<(PathBuf, u64)> {
        let inner = self.lock();
        if number >= inner.last.first {
            return Some((inner.last.path.clone(), inner.last.first));
        }
        let at = inner.closed.partition_point(|segment| segment.first <= number);
        let segment = inner.closed.get(at.checked_sub(1)?)?;
        Some((segment.path.clone(), segment.first))
    }

    /// First number behind a segment; none for the last one.
    fn behind(&self, first: u64) -> Option<u64> {
        let inner = self.lock();
        let at = inner.closed.iter().position(|segment| segment.first == first)?;
        Some(inner.closed.get(at + 1).map_or(inner.last.first, |next| next.first))
    }
}

#[cfg(test)]
mod tests;
