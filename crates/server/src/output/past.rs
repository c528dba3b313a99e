//! Logs of past days: compressed (`.gz`) and hashed (`.sum`), on a thread of its own so that no alert waits for it
//! (analysis-output 4).
//!
//! A `.sum` holds lines that `sha256sum -c --ignore-missing` checks, of the log and of its compressed form.
//! Invariant: a log is removed only after its compressed form and the hashes are durably there; a cut in between leaves
//! the log and a `.part` file, and the next round does it again.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use sha2::{Digest, Sha256};
use tld_model::{Timestamp, Zone};
use tld_sys::clock::Clock;

use super::file::report;
use crate::sequencer::{MONTHS, Volume};

/// How often it looks for a past day.
const ROUND: Duration = Duration::from_secs(300);
/// Read, hashed and compressed at once; between two the end of the service is noticed.
const CHUNK: usize = 1 << 18;
/// Files looked at in one round.
const MOST: usize = 20_000;
const FOLDERS: [&str; 3] = ["alerts", "archives", "firewall"];

/// What is done with past days.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PastDays {
    /// `monitord.compress`: compress, besides hashing.
    pub compress: bool,
    /// `monitord.day_wait`: a day is past so long after midnight.
    pub wait: Duration,
}

/// The thread's belongings.
pub(super) struct Keeper {
    pub(super) home: PathBuf,
    pub(super) zone: Zone,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) days: PastDays,
    pub(super) failures: Arc<Mutex<Vec<String>>>,
    /// Its sender goes when the service ends.
    pub(super) end: Receiver<()>,
}

/// Why a file was left as it is.
#[derive(Debug)]
enum Left {
    Ending,
    Failed(io::Error),
}

impl From<io::Error> for Left {
    fn from(error: io::Error) -> Self {
        Self::Failed(error)
    }
}

impl Keeper {
    pub(super) fn run(self) {
        loop {
            if self.round().is_err() || self.end.recv_timeout(ROUND) != Err(RecvTimeoutError::Timeout) {
                return;
            }
        }
    }

    /// Does what is to be done now; an error when the service ends.
    fn round(&self) -> Result<(), ()> {
        let wait = i64::try_from(self.days.wait.as_nanos()).unwrap_or(0);
        let now = Timestamp::from_nanos(self.clock.wall_nanos().saturating_sub(wait));
        let today = Volume::of(&self.zone.local(now));
        for folder in FOLDERS {
            for path in past(&self.home.join("logs").join(folder), today) {
                match self.keep(&path) {
                    Ok(()) => {}
                    Err(Left::Ending) => return Err(()),
                    Err(Left::Failed(error)) => {
                        report(&self.failures, format!("cannot put `{}` away: {error}", path.display()));
                    }
                }
            }
        }
        Ok(())
    }

    fn keep(&self, path: &Path) -> Result<(), Left> {
        let sum = with_suffix(path, ".sum");
        if !self.days.compress {
            if sum.exists() {
                return Ok(());
            }
            let hash = self.pour(&mut File::open(path)?, &mut io::sink())?;
            tld_sys::durable::replace(&sum, line(path, &hash).as_bytes(), 0o640)?;
            return Ok(());
        }
        let (packed, part) = (with_suffix(path, ".gz"), with_suffix(path, ".gz.part"));
        let result = self.pack(path, &packed, &part);
        if result.is_err() {
            let _ = fs::remove_file(&part);
        }
        let hash = result?;
        let packed_hash = self.pour(&mut File::open(&packed)?, &mut io::sink())?;
        let lines = hash.map_or_else(String::new, |hash| line(path, &hash)) + &line(&packed, &packed_hash);
        tld_sys::durable::replace(&sum, lines.as_bytes(), 0o640)?;
        fs::remove_file(path)?;
        Ok(())
    }

    /// Makes the compressed file. A late line may have begun a log of that day anew: it becomes a further member of the
    /// compressed file, which then has no one log to be compared with.
    fn pack(&self, path: &Path, packed: &Path, part: &Path) -> Result<Option<String>, Left> {
        let mut out = OpenOptions::new().write(true).create(true).truncate(true).mode(0o640).open(part)?;
        let earlier = match File::open(packed) {
            Ok(mut earlier) => {
                self.pour(&mut earlier, &mut out)?;
                true
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            Err(error) => return Err(error.into()),
        };
        let mut encoder = GzEncoder::new(out, Compression::new(6));
        let hash = self.pour(&mut File::open(path)?, &mut encoder)?;
        encoder.finish()?.sync_all()?;
        fs::rename(part, packed)?;
        if let Some(folder) = packed.parent() {
            File::open(folder)?.sync_all()?;
        }
        Ok((!earlier).then_some(hash))
    }

    /// Copies and hashes.
    fn pour(&self, from: &mut impl Read, to: &mut impl Write) -> Result<String, Left> {
        let mut hash = Sha256::new();
        let mut buffer = vec![0; CHUNK];
        loop {
            if self.end.try_recv() == Err(std::sync::mpsc::TryRecvError::Disconnected) {
                return Err(Left::Ending);
            }
            let count = from.read(&mut buffer)?;
            if count == 0 {
                break;
            }
            hash.update(&buffer[..count]);
            to.write_all(&buffer[..count])?;
        }
        Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
    }
}

fn line(path: &Path, hash: &str) -> String {
    format!("SHA256 ({}) = {hash}\n", path.file_name().unwrap_or_default().to_string_lossy())
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Logs below `folder` of days before `today`, oldest first.
fn past(folder: &Path, today: Volume) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for (year, years) in entries(folder, |name| name.parse::<i32>().ok().filter(|_| name.len() == 4)) {
        for (month, months) in entries(&years, |name| MONTHS.iter().position(|month| *month == name)) {
            for ((day, name), path) in entries(&months, |name| Some((day(name)?, name.to_owned()))) {
                let month = u8::try_from(month + 1).unwrap_or(u8::MAX);
                let date = (year, month, day);
                if date < (today.year, today.month, today.day) && found.len() < MOST {
                    found.push((date, name, path));
                }
            }
        }
    }
    found.sort();
    found.into_iter().map(|(_, _, path)| path).collect()
}

/// Files and folders of names that mean something, without following links.
fn entries<T>(folder: &Path, meaning: impl Fn(&str) -> Option<T>) -> Vec<(T, PathBuf)> {
    let Ok(list) = fs::read_dir(folder) else { return Vec::new() };
    let named = |entry: fs::DirEntry| {
        let kind = entry.file_type().ok().filter(|kind| !kind.is_symlink())?;
        let file = kind.is_file();
        let name = entry.file_name();
        // Only logs have a dot in their name.
        let name = name.to_str().filter(|name| file == name.contains('.'))?;
        Some((meaning(name)?, entry.path()))
    };
    list.take(MOST).filter_map(|entry| named(entry.ok()?)).collect()
}

/// The day of `ossec-<kind>-<DD>[-<number>].<log|json>`.
fn day(name: &str) -> Option<u8> {
    let stem = name.strip_suffix(".log").or_else(|| name.strip_suffix(".json"))?;
    let mut parts = stem.split('-');
    let known =
        parts.next() == Some("ossec") && matches!(parts.next(), Some("alerts" | "archive" | "firewall"));
    let day = parts.next().filter(|day| known && day.len() == 2)?.parse().ok()?;
    let number = parts.next().is_none_or(|number| number.bytes().all(|byte| byte.is_ascii_digit()));
    (number && parts.next().is_none()).then_some(day)
}

#[cfg(test)]
mod tests;
