//! One open file and how far it has been read.
//!
//! Invariant: `safe ≤ consumed ≤ read_at`: everything before `safe` was handed to the channel, `consumed` is the end
//! of a line, `read_at` the end of what was read.

use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::format::Format;
use crate::lines::Splitter;
use crate::notify::Watch;
use crate::outlet::{Closed, Outlet};
use crate::position::{HEAD, Place, digest};
use crate::source::Source;

/// How far back the beginning of the last, unfinished line is looked for.
const LOOK_BACK: usize = 65_536;

/// Which file, apart from its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Identity {
    pub(crate) device: u64,
    pub(crate) inode: u64,
}

impl Identity {
    pub(crate) fn of(metadata: &Metadata) -> Self {
        Self { device: metadata.dev(), inode: metadata.ino() }
    }

    /// The file that a path names now; none if it names no regular file.
    pub(crate) fn at(path: &Path) -> Option<Self> {
        std::fs::metadata(path).ok().filter(Metadata::is_file).map(|metadata| Self::of(&metadata))
    }
}

/// Least time between two messages about lines with a NUL byte.
const TELLING: Duration = Duration::from_secs(60);

/// What a round of reading came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    /// At the end.
    Idle,
    /// The budget is used up; there is more.
    More,
    /// The file is shorter than, or begins differently from, what was read.
    Truncated,
}

/// Where messages go and what is done on the way.
pub(crate) struct Way<'a> {
    pub(crate) source: &'a Source,
    pub(crate) location: &'a Arc<[u8]>,
    pub(crate) outlet: &'a Outlet,
}

impl Way<'_> {
    fn send(&self, text: Vec<u8>) -> Result<(), Closed> {
        if !self.source.filters_lines && !self.source.filter.passes(&text, self.outlet) {
            return Ok(());
        }
        self.source.filter.send(self.location, text, self.outlet)
    }
}

/// An open file.
pub(crate) struct Tail {
    file: File,
    pub(crate) identity: Identity,
    consumed: u64,
    safe: u64,
    head: Vec<u8>,
    splitter: Splitter,
    format: Box<dyn Format>,
    out: Vec<Vec<u8>>,
    /// Boot time of the last data.
    pub(crate) active: Duration,
    /// Lines with a NUL byte that nobody was told of, and when to tell.
    nul_lines: u64,
    tell_after: Duration,
    /// The notification that belongs to it.
    pub(crate) watch: Option<Watch>,
}

/// Opens a regular file for reading; never waits, as for a pipe that somebody put there.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    let flags = rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOCTTY;
    let file = OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(path)?;
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"))
    }
}

/// Whether the file still begins with the bytes that a place describes, and reaches it.
pub(crate) fn is_place(file: &File, place: &Place) -> bool {
    let Ok(metadata) = file.metadata() else { return false };
    let same = Identity::of(&metadata) == Identity { device: place.device, inode: place.inode };
    let length = usize::try_from(place.head).map_or(HEAD, |head| head.min(HEAD));
    same && metadata.len() >= place.offset
        && read_head(file, length).is_ok_and(|head| head.len() == length && digest(&head) == place.digest)
}

fn read_head(file: &File, length: usize) -> io::Result<Vec<u8>> {
    let mut head = vec![0; length];
    let mut filled = 0;
    while let Some(space) = head.get_mut(filled..).filter(|space| !space.is_empty()) {
        match file.read_at(space, filled as u64)? {
            0 => break,
            count => filled += count,
        }
    }
    head.truncate(filled);
    Ok(head)
}

/// The end of the last complete line.
pub(crate) fn end_of_lines(file: &File) -> io::Result<u64> {
    let size = file.metadata()?.len();
    let from = size.saturating_sub(LOOK_BACK as u64);
    let mut buffer = vec![0; usize::try_from(size - from).unwrap_or(LOOK_BACK)];
    let count = file.read_at(&mut buffer, from)?;
    buffer.truncate(count);
    Ok(match memchr::memrchr(b'\n', &buffer) {
        Some(at) => from + at as u64 + 1,
        None if from == 0 => 0,
        None => size,
    })
}

/// Whether the beginning of the file is text.
pub(crate) fn is_text(file: &File) -> bool {
    read_head(file, 1024).is_ok_and(|head| {
        !head.contains(&0)
            && match std::str::from_utf8(&head) {
                Ok(_) => true,
                Err(error) => error.error_len().is_none(),
            }
    })
}

impl Tail {
    /// Begins at `offset`, which is the end of a line.
    pub(crate) fn new(file: File, offset: u64, format: Box<dyn Format>, now: Duration) -> io::Result<Self> {
        Ok(Self {
            identity: Identity::of(&file.metadata()?),
            head: read_head(&file, HEAD)?,
            file,
            consumed: offset,
            safe: offset,
            splitter: Splitter::default(),
            format,
            out: Vec::new(),
            active: now,
            nul_lines: 0,
            tell_after: Duration::ZERO,
            watch: None,
        })
    }

    /// The open file.
    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// What a restart needs to go on here.
    pub(crate) fn place(&self) -> Place {
        Place {
            device: self.identity.device,
            inode: self.identity.inode,
            offset: self.safe,
            head: self.head.len() as u64,
            digest: digest(&self.head),
        }
    }

    /// Whether no name leads to the file any more.
    pub(crate) fn is_deleted(&self) -> bool {
        self.file.metadata().is_ok_and(|metadata| metadata.nlink() == 0)
    }

    /// Reads about `budget` bytes.
    pub(crate) fn read(
        &mut self,
        way: &Way<'_>,
        buffer: &mut [u8],
        budget: usize,
    ) -> Result<Progress, Closed> {
        let mut left = budget;
        loop {
            let at = self.consumed + self.splitter.held_back();
            // A file that cannot be read now is tried again at the next look.
            let Ok(size) = self.file.metadata().map(|metadata| metadata.len()) else {
                return Ok(Progress::Idle);
            };
            if size < at {
                return Ok(Progress::Truncated);
            }
            if size == at {
                return Ok(Progress::Idle);
            }
            if !self.begins_as_before() {
                return Ok(Progress::Truncated);
            }
            let count = match self.file.read_at(buffer, at) {
                Ok(0) | Err(_) => return Ok(Progress::Idle),
                Ok(count) => count,
            };
            self.active = way.outlet.boot();
            self.take(buffer.get(..count).unwrap_or_default(), way)?;
            if left <= count {
                return Ok(Progress::More);
            }
            left -= count;
        }
    }

    /// A file that was emptied and filled again between two looks can be longer than before.
    fn begins_as_before(&mut self) -> bool {
        let Ok(head) = read_head(&self.file, HEAD) else { return true };
        let same = head.starts_with(&self.head);
        if same && head.len() > self.head.len() {
            self.head = head;
        }
        same
    }

    fn take(&mut self, mut chunk: &[u8], way: &Way<'_>) -> Result<(), Closed> {
        while let Some(line) = self.splitter.next(&mut chunk) {
            let start = self.consumed;
            let end = start + line.length;
            self.out.clear();
            if line.nul {
                way.outlet.counters.nul_lines.fetch_add(1, Ordering::Relaxed);
                self.nul_lines += 1;
            } else if !way.source.filters_lines || way.source.filter.passes(line.text, way.outlet) {
                self.format.feed(line.text, &mut self.out);
            }
            let emitted = !self.out.is_empty();
            for text in self.out.drain(..) {
                way.send(text)?;
            }
            self.consumed = end;
            if !self.format.pending() {
                self.safe = end;
            } else if emitted {
                self.safe = start;
            }
        }
        Ok(())
    }

    /// How many lines were left out for a NUL byte in them, if it is time to say so.
    pub(crate) fn nul_news(&mut self, now: Duration) -> Option<u64> {
        if self.nul_lines == 0 || now < self.tell_after {
            return None;
        }
        self.tell_after = now + TELLING;
        Some(std::mem::take(&mut self.nul_lines))
    }

    /// Time until what the format holds back has to go out.
    pub(crate) fn flush_in(&self, now: Duration) -> Option<Duration> {
        let patience = self.format.patience().filter(|_| self.format.pending())?;
        Some((self.active + patience).saturating_sub(now))
    }

    /// Sends what the format holds back.
    pub(crate) fn flush(&mut self, way: &Way<'_>) -> Result<(), Closed> {
        self.out.clear();
        self.format.flush(&mut self.out);
        for text in self.out.drain(..) {
            way.send(text)?;
        }
        self.safe = self.consumed;
        Ok(())
    }

    /// The last line of a file that will not be continued: its newline will never come.
    pub(crate) fn finish(&mut self, way: &Way<'_>) -> Result<(), Closed> {
        if self.splitter.held_back() > 0 {
            self.take(b"\n", way)?;
        }
        self.flush(way)
    }

    /// Starts again at the beginning.
    pub(crate) fn rewind(&mut self) {
        self.consumed = 0;
        self.safe = 0;
        self.splitter.clear();
        self.head.clear();
    }
}
