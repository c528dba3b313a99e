//! Reading the spool in order.
//! Invariant: events are given out once each, in their order, unless the reader goes back on purpose.

use std::fs::File;
use std::io::{self, Read};
use std::sync::Arc;

use super::Spool;
use super::segment::{HEAD, parse_head, sum};

const CHUNK: usize = 1 << 16;

/// A reader's place.
#[derive(Debug)]
pub struct Tail {
    spool: Arc<Spool>,
    /// Number of the next event.
    next: u64,
    open: Option<Open>,
    lost: u64,
}

#[derive(Debug)]
struct Open {
    file: File,
    first: u64,
    buffer: Vec<u8>,
    at: usize,
}

impl Tail {
    /// Begins with the first event that is not known to be with the manager.
    pub fn new(spool: Arc<Spool>) -> Self {
        let next = spool.done();
        Self { spool, next, open: None, lost: 0 }
    }

    /// Number of the next event.
    pub const fn position(&self) -> u64 {
        self.next
    }

    /// Events that could not be read since the last question.
    pub fn take_lost(&mut self) -> u64 {
        std::mem::take(&mut self.lost)
    }

    /// Goes to another event.
    pub fn seek(&mut self, number: u64) {
        if number != self.next {
            self.next = number;
            self.open = None;
        }
    }

    /// The next event with its number; none if there is none yet. What cannot be read is passed over and counted.
    ///
    /// # Errors
    /// The disk fails.
    pub fn take(&mut self) -> io::Result<Option<(u64, Vec<u8>)>> {
        loop {
            if self.next >= self.spool.head() {
                return Ok(None);
            }
            if self.open.is_none() {
                self.open = self.find()?;
            }
            let Some(open) = &mut self.open else {
                self.skip_to(self.spool.head());
                continue;
            };
            if let Some(event) = open.record()? {
                self.next += 1;
                return Ok(Some((self.next - 1, event)));
            }
            // The end of this file, or damage in it.
            let first = open.first;
            self.open = None;
            let behind = self.spool.behind(first).unwrap_or_else(|| self.spool.head());
            if self.next < behind {
                self.skip_to(behind);
            }
        }
    }

    fn skip_to(&mut self, number: u64) {
        self.lost += number.saturating_sub(self.next);
        self.next = number;
    }

    fn find(&self) -> io::Result<Option<Open>> {
        let Some((path, first)) = self.spool.segment_of(self.next) else { return Ok(None) };
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut open = Open { file, first, buffer: Vec::new(), at: 0 };
        for _ in first..self.next {
            if open.record()?.is_none() {
                return Ok(Some(open));
            }
        }
        Ok(Some(open))
    }
}

impl Open {
    fn record(&mut self) -> io::Result<Option<Vec<u8>>> {
        if !self.has(HEAD)? {
            return Ok(None);
        }
        let Some((length, wanted)) = parse_head(&self.buffer[self.at..]) else { return Ok(None) };
        if !self.has(HEAD + length)? {
            return Ok(None);
        }
        let text = &self.buffer[self.at + HEAD..self.at + HEAD + length];
        if sum(text) != wanted {
            return Ok(None);
        }
        let text = text.to_vec();
        self.at += HEAD + length;
        Ok(Some(text))
    }

    /// Reads until so many bytes are there.
    fn has(&mut self, count: usize) -> io::Result<bool> {
        while self.buffer.len() - self.at < count {
            self.buffer.drain(..self.at);
            self.at = 0;
            let before = self.buffer.len();
            self.buffer.resize(before + CHUNK, 0);
            let read = self.file.read(&mut self.buffer[before..]);
            self.buffer.truncate(before + read.as_ref().map_or(0, |count| *count));
            if read? == 0 {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
