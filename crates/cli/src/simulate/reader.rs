//! The lines of several logs in the order in which they were written. Invariant: one line of each log is held at a time.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tld_model::{Timestamp, Zone};
use tld_server::logtime::LogTime;

use super::archive::{self, Bytes};
use super::series::{Part, STDIN, Series};
use crate::input::{Input, Line};

/// A line with the moment it counts for.
#[derive(Debug)]
pub(super) struct Stamped {
    pub(super) location: Arc<[u8]>,
    pub(super) text: Vec<u8>,
    pub(super) at: Timestamp,
}

/// What was met on the way.
#[derive(Debug, Clone, Default)]
pub(super) struct Met {
    /// Lines, empty ones too.
    pub(super) lines: u64,
    /// Bytes of them, unpacked, with their ends.
    pub(super) bytes: u64,
    /// Lines without text; they are no events.
    pub(super) empty: u64,
    /// Lines over the longest event, cut there.
    pub(super) cut: u64,
    /// Lines without a time of their own, which have that of the line before.
    pub(super) unstamped: u64,
    /// Lines more than a minute older than one before them.
    pub(super) backwards: u64,
    /// Files that could not be read to their end.
    pub(super) problems: Vec<Problem>,
}

/// A file that ended too early.
#[derive(Debug, Clone, serde::Serialize)]
pub(super) struct Problem {
    pub(super) file: String,
    pub(super) message: String,
}

/// A log is out of order when it steps back by more than this; daemons that write together differ by less.
const BACK_SECS: i64 = 60;

/// All logs.
pub(super) struct Reader {
    logs: Vec<Log>,
    merge: bool,
    read: Arc<AtomicU64>,
    newest: Option<Timestamp>,
    pub(super) met: Met,
}

struct Log {
    location: Arc<[u8]>,
    parts: std::vec::IntoIter<Part>,
    open: Option<Open>,
    times: LogTime,
    zone: Zone,
    head: Option<Stamped>,
}

struct Open {
    input: Input<Bytes>,
    path: String,
    /// What lines before the first stamp count for.
    start: Timestamp,
}

impl Reader {
    /// With `merge` the logs are read side by side by time, else one after the other.
    pub(super) fn new(series: Vec<Series>, zone: &Zone, now: Timestamp, merge: bool) -> Self {
        let logs = series.into_iter().map(|one| Log {
            location: one.location.as_bytes().into(),
            parts: one.parts.into_iter(),
            open: None,
            times: LogTime::new(zone.clone(), now),
            zone: zone.clone(),
            head: None,
        });
        let mut reader =
            Self { logs: logs.collect(), merge, read: Arc::default(), newest: None, met: Met::default() };
        let Self { logs, met, read, .. } = &mut reader;
        logs.iter_mut().for_each(|log| log.advance(Vec::new(), met, read));
        logs.retain(|log| log.head.is_some());
        reader
    }

    /// Bytes taken from the files as they are stored.
    pub(super) fn consumed(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }

    /// The next line of the oldest log. A later line is put into the memory of `spare`, which is empty.
    pub(super) fn next(&mut self, spare: Vec<u8>) -> Option<Stamped> {
        let index = if self.merge && self.logs.len() > 1 {
            let heads = self.logs.iter().map(|log| log.head.as_ref().map(|head| head.at));
            heads.enumerate().min_by_key(|(_, at)| *at)?.0
        } else {
            0
        };
        let log = self.logs.get_mut(index)?;
        let line = log.head.take()?;
        log.advance(spare, &mut self.met, &self.read);
        if log.head.is_none() {
            self.logs.remove(index);
        }
        let newest = *self.newest.get_or_insert(line.at);
        self.met.backwards += u64::from(newest.secs() - line.at.secs() > BACK_SECS);
        self.newest = Some(newest.max(line.at));
        Some(line)
    }
}

impl Log {
    /// Puts the next line that is not empty into the head; none at the end of the last file.
    fn advance(&mut self, mut spare: Vec<u8>, met: &mut Met, read: &Arc<AtomicU64>) {
        loop {
            if self.open.is_none() {
                let Some(part) = self.parts.next() else { return };
                self.begin(&part, met, read);
                continue;
            }
            let Some(open) = &mut self.open else { return };
            match open.input.next_in(std::mem::take(&mut spare)) {
                Ok(None) => self.open = None,
                Err(error) => {
                    met.problem(&open.path, &error);
                    self.open = None;
                }
                Ok(Some(Line::Whole(text))) if text.is_empty() => {
                    met.lines += 1;
                    met.bytes += 1;
                    met.empty += 1;
                }
                Ok(Some(line)) => {
                    met.cut += u64::from(matches!(line, Line::Cut(_)));
                    let (Line::Whole(text) | Line::Cut(text)) = line;
                    met.lines += 1;
                    met.bytes += text.len() as u64 + 1;
                    let own = self.times.read(&text);
                    met.unstamped += u64::from(own.is_none());
                    let at = own.or(self.times.last()).unwrap_or(open.start);
                    self.head = Some(Stamped { location: Arc::clone(&self.location), text, at });
                    return;
                }
            }
        }
    }

    fn begin(&mut self, part: &Part, met: &mut Met, read: &Arc<AtomicU64>) {
        let last = self.times.last();
        let opened = if part.path.as_os_str() == STDIN {
            archive::unpack(io::stdin(), read)
        } else {
            archive::open(&part.path, read)
        };
        let path = shown(&part.path);
        match opened {
            Ok(bytes) => {
                self.times = LogTime::new(self.zone.clone(), part.latest);
                let start = part.first.or(last).unwrap_or(part.latest);
                self.open = Some(Open { input: Input::new(bytes), path, start });
            }
            Err(error) => met.problem(&path, &error),
        }
    }
}

impl Met {
    fn problem(&mut self, file: &str, error: &io::Error) {
        let message = match error.kind() {
            io::ErrorKind::UnexpectedEof => "the archive is cut off; what it held so far was replayed".into(),
            _ => error.to_string(),
        };
        self.problems.push(Problem { file: file.to_owned(), message });
    }
}

/// A file's name for people.
pub(super) fn shown(path: &Path) -> String {
    if path.as_os_str() == STDIN { "standard input".into() } else { path.display().to_string() }
}
