//! One file of the spool: records of a length (u32, little endian), a sum (u32) and that many bytes.
//! Invariant: a record is valid as a whole or not at all, so that a torn end is recognised.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

/// Bytes before a record's text.
pub(super) const HEAD: usize = 8;
/// Longest text.
pub(super) const RECORD: usize = 1 << 17;
const SUFFIX: &str = ".events";

/// A file that is complete.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) path: PathBuf,
    /// Number of its first event.
    pub(super) first: u64,
    pub(super) bytes: u64,
}

impl Segment {
    pub(super) fn remove(&self) -> io::Result<()> {
        std::fs::remove_file(&self.path)
    }

    pub(super) fn refresh(&mut self) -> io::Result<()> {
        self.bytes = std::fs::metadata(&self.path)?.len();
        Ok(())
    }
}

/// FNV-1a, 32 bits: it tells a torn record, not a forged one.
pub(super) fn sum(text: &[u8]) -> u32 {
    text.iter().fold(0x811c_9dc5, |sum, byte| (sum ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

/// Bytes that events take on the disk.
pub(super) fn size(events: &[Vec<u8>]) -> u64 {
    events.iter().map(|event| (HEAD + event.len()) as u64).sum()
}

/// The segments of a directory by number.
pub(super) fn find(directory: &Path) -> io::Result<Vec<Segment>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| name.strip_suffix(SUFFIX)).and_then(|n| n.parse().ok());
        if let Some(first) = number
            && entry.file_type()?.is_file()
        {
            found.push(Segment { path: entry.path(), first, bytes: entry.metadata()?.len() });
        }
    }
    found.sort_by_key(|segment| segment.first);
    Ok(found)
}

/// Cuts off what is behind the last whole record; answers the number behind it.
pub(super) fn mend(segment: &Segment) -> io::Result<u64> {
    let file = OpenOptions::new().read(true).write(true).open(&segment.path)?;
    let mut reader = io::BufReader::with_capacity(1 << 16, &file);
    let (mut good, mut number) = (0_u64, segment.first);
    let mut text = Vec::new();
    while let Some(length) = read_record(&mut reader, &mut text)? {
        good += (HEAD + length) as u64;
        number += 1;
    }
    if file.metadata()?.len() != good {
        file.set_len(good)?;
    }
    Ok(number)
}

/// Reads one record into `text`; none at the end or at what is no record.
fn read_record(reader: &mut impl Read, text: &mut Vec<u8>) -> io::Result<Option<usize>> {
    let mut head = [0; HEAD];
    if !fill(reader, &mut head)? {
        return Ok(None);
    }
    let Some((length, wanted)) = parse_head(&head) else { return Ok(None) };
    text.resize(length, 0);
    Ok((fill(reader, text)? && sum(text) == wanted).then_some(length))
}

/// Length and sum of a record.
pub(super) fn parse_head(head: &[u8]) -> Option<(usize, u32)> {
    let length = u32::from_le_bytes(*head.first_chunk::<4>()?) as usize;
    let sum = u32::from_le_bytes(*head.get(4..)?.first_chunk::<4>()?);
    (length <= RECORD).then_some((length, sum))
}

fn fill(reader: &mut impl Read, into: &mut [u8]) -> io::Result<bool> {
    match reader.read_exact(into) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

/// The file that is being written.
#[derive(Debug)]
pub(super) struct Writer {
    pub(super) path: PathBuf,
    pub(super) first: u64,
    file: File,
    bytes: u64,
    buffer: Vec<u8>,
}

impl Writer {
    pub(super) fn create(directory: &Path, first: u64) -> io::Result<Self> {
        let path = directory.join(format!("{first:020}{SUFFIX}"));
        let mut options = OpenOptions::new();
        options.append(true).create(true);
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o640);
        let file = options.open(&path)?;
        let bytes = file.metadata()?.len();
        Ok(Self { path, first, file, bytes, buffer: Vec::new() })
    }

    pub(super) const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Appends all of them or none.
    pub(super) fn append(&mut self, events: &[Vec<u8>]) -> io::Result<()> {
        self.buffer.clear();
        for event in events {
            let length = u32::try_from(event.len().min(RECORD)).unwrap_or(0);
            let event = &event[..length as usize];
            self.buffer.extend_from_slice(&length.to_le_bytes());
            self.buffer.extend_from_slice(&sum(event).to_le_bytes());
            self.buffer.extend_from_slice(event);
        }
        if let Err(error) = self.file.write_all(&self.buffer) {
            // A part of it would be read as events that the writer still has.
            let _ = self.file.set_len(self.bytes);
            return Err(error);
        }
        self.bytes += self.buffer.len() as u64;
        Ok(())
    }

    pub(super) fn file(&self) -> io::Result<File> {
        self.file.try_clone()
    }

    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    pub(super) fn into_segment(self) -> Segment {
        Segment { path: self.path, first: self.first, bytes: self.bytes }
    }
}
