//! Which files are one log, and in which order they were written. Rotation leaves `auth.log`, `auth.log.1` and
//! `auth.log.2.gz`, or `access.log-20261101.gz`; the first stamp of each file decides, else its name does.
//! Invariant: every file given is replayed once.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use tld_model::{Timestamp, Zone};
use tld_server::logtime::LogTime;

use super::archive;
use crate::input::{Input, Line};

/// Lines that are looked at for a first stamp.
const LOOK: usize = 64;
/// Name of standard input.
pub(super) const STDIN: &str = "-";

/// A file of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Part {
    /// As it was given.
    pub(super) path: PathBuf,
    /// The newest moment that a line of it may have.
    pub(super) latest: Timestamp,
    /// The first stamp found.
    pub(super) first: Option<Timestamp>,
    /// Bytes as stored.
    pub(super) size: u64,
}

/// The files of one log, oldest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Series {
    /// Where its lines are said to come from: the path of the live log.
    pub(super) location: String,
    pub(super) parts: Vec<Part>,
}

/// How a rotated file is marked. The order is that of age, oldest first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Mark {
    Date(String),
    Number(std::cmp::Reverse<u32>),
    Live,
}

/// Sorts the files into logs. `now` bounds stamps without a year of standard input.
pub(super) fn arrange(
    files: &[PathBuf],
    location: Option<&str>,
    zone: &Zone,
    now: Timestamp,
) -> Result<Vec<Series>> {
    let mut logs: BTreeMap<PathBuf, Vec<(Mark, Part)>> = BTreeMap::new();
    let mut order = Vec::new();
    let mut known = Vec::new();
    for path in files {
        let (base, mark, part) = if path.as_os_str() == STDIN {
            let part = Part { path: path.clone(), latest: now, first: None, size: 0 };
            (PathBuf::from("stdin"), Mark::Live, part)
        } else {
            let (base, mark) = name(&std::path::absolute(path).unwrap_or_else(|_| path.clone()));
            (base, mark, look(path, zone, now)?)
        };
        let identity = path.canonicalize().unwrap_or_else(|_| path.clone());
        if known.contains(&identity) {
            bail!("`{}` is given twice; name each file once", path.display());
        }
        known.push(identity);
        if !order.contains(&base) {
            order.push(base.clone());
        }
        logs.entry(base).or_default().push((mark, part));
    }
    let series = order.into_iter().filter_map(|base| {
        let mut parts = logs.remove(&base)?;
        if parts.iter().all(|(_, part)| part.first.is_some()) {
            parts.sort_by_key(|(_, part)| part.first);
        } else {
            parts.sort_by(|(a, _), (b, _)| a.cmp(b));
        }
        let location = location.map_or_else(|| base.display().to_string(), str::to_owned);
        Some(Series { location, parts: parts.into_iter().map(|(_, part)| part).collect() })
    });
    Ok(series.collect())
}

fn look(path: &Path, zone: &Zone, now: Timestamp) -> Result<Part> {
    let shown = path.display();
    let known = std::fs::metadata(path).with_context(|| format!("cannot read `{shown}`"))?;
    // A log cannot be older than its last change, which archives keep; a copy made today has the present as its bound.
    let changed = known.modified().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
    let latest = changed.map_or(now, timestamp).min(now);
    let mut first = None;
    // A pipe cannot be looked into and read again.
    if known.is_file() || known.is_dir() {
        let bytes = archive::open(path, &Arc::default()).with_context(|| format!("cannot read `{shown}`"))?;
        let mut times = LogTime::new(zone.clone(), latest);
        let mut input = Input::new(std::io::BufReader::new(bytes.take(1 << 20)));
        for _ in 0..LOOK {
            let Ok(Some(Line::Whole(text) | Line::Cut(text))) = input.next() else { break };
            first = times.read(&text);
            if first.is_some() {
                break;
            }
        }
    }
    Ok(Part { path: path.to_path_buf(), latest, first, size: known.len() })
}

fn timestamp(since_epoch: Duration) -> Timestamp {
    Timestamp::EPOCH.plus(since_epoch)
}

/// The path of the live log, and how this file of it is marked.
fn name(path: &Path) -> (PathBuf, Mark) {
    let whole = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let plain =
        [".gz", ".zst", ".zstd"].iter().find_map(|ending| whole.strip_suffix(ending)).unwrap_or(whole);
    let (base, mark) = marked(plain).unwrap_or((plain, Mark::Live));
    if base.is_empty() { (path.to_path_buf(), Mark::Live) } else { (path.with_file_name(base), mark) }
}

fn marked(name: &str) -> Option<(&str, Mark)> {
    if let Some((base, number)) = name.rsplit_once('.')
        && number.len() <= 4
        && let Ok(number) = number.parse()
    {
        return Some((base, Mark::Number(std::cmp::Reverse(number))));
    }
    // `-20261101`, `.20261101`, `-2026-11-01`, `-2026110113` (hourly), `-1795381200` (by the second).
    let at = name.rfind(|character: char| !character.is_ascii_digit() && character != '-')?;
    let tail = name.get(at + 1..)?;
    let (base, date) = match name.as_bytes().get(at) {
        Some(b'.') => (name.get(..at)?, tail),
        _ => (name.get(..=at)?, tail.strip_prefix('-')?),
    };
    let digits: String = date.chars().filter(char::is_ascii_digit).collect();
    (8..=14).contains(&digits.len()).then_some((base, Mark::Date(digits)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(folder: &Path, name: &str, text: &str) -> PathBuf {
        let path = folder.join(name);
        tld_sys::durable::replace(&path, text.as_bytes(), 0o600).unwrap();
        path
    }

    fn arranged(files: &[PathBuf]) -> Vec<Vec<String>> {
        let now = Timestamp::from_secs(1_795_381_200);
        let series = arrange(files, None, &Zone::utc(), now).unwrap();
        let name = |part: &Part| part.path.file_name().unwrap().to_str().unwrap().to_owned();
        series.iter().map(|one| one.parts.iter().map(name).collect()).collect()
    }

    #[test]
    fn names_of_rotated_files_lead_to_the_live_log() {
        let base = |text: &str| name(Path::new(text)).0.display().to_string();
        for rotated in [
            "/v/auth.log",
            "/v/auth.log.1",
            "/v/auth.log.2.gz",
            "/v/auth.log-20261101.zst",
            "/v/auth.log.20261101",
            "/v/auth.log-2026-11-01.gz",
            "/v/auth.log-1795381200",
        ] {
            assert_eq!(base(rotated), "/v/auth.log", "{rotated}");
        }
        assert_eq!(base("/v/app-7.log"), "/v/app-7.log");
        assert_eq!(base("/v/20261101"), "/v/20261101");
    }

    #[test]
    fn the_first_stamps_decide_the_order_within_a_log() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str, text: &str| write(folder.path(), name, text);
        let files = [
            at("auth.log", "2026-11-20T00:00:00Z a b: c\n"),
            at("auth.log.1", "no stamp\n2026-11-22T00:00:00Z a b: c\n"),
            at("other.log", "2026-11-01T00:00:00Z a b: c\n"),
            at("auth.log.2", "2026-11-21T00:00:00Z a b: c\n"),
        ];
        assert_eq!(arranged(&files), [vec!["auth.log", "auth.log.2", "auth.log.1"], vec!["other.log"]]);
    }

    #[test]
    fn without_stamps_the_names_decide() {
        let folder = tempfile::tempdir().unwrap();
        let files = ["x", "x.1", "x.10", "x.2"].map(|name| write(folder.path(), name, "no stamp\n"));
        assert_eq!(arranged(&files), [["x.10", "x.2", "x.1", "x"]]);
    }

    #[test]
    fn a_file_given_twice_and_a_missing_one_are_told() {
        let folder = tempfile::tempdir().unwrap();
        let file = write(folder.path(), "x", "");
        let now = Timestamp::from_secs(0);
        let error = |files: &[PathBuf]| format!("{:#}", arrange(files, None, &Zone::utc(), now).unwrap_err());
        assert!(error(&[file.clone(), folder.path().join("./x")]).contains("given twice"));
        assert!(error(&[folder.path().join("y")]).contains("y`: No such file"));
        assert!(error(&[folder.path().to_path_buf()]).contains("name the files in it"));
    }
}
