//! Which files are read and where reading begins.

use std::fs::File;
use std::io;
use std::os::unix::fs::DirEntryExt;
use std::path::Path;
use std::time::Duration;

use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use tld_model::Timestamp;

use super::{Followed, MAX_FILES, Reader};
use crate::glob;
use crate::position::{Place, Stored, key};
use crate::source::{Location, Source};
use crate::tail::{self, Identity, Tail};

/// With `only-future-events` a stored place counts after a pause no longer than this: a restart loses nothing, a
/// longer absence begins at the end, so that attacks of yesterday are not answered today.
const RESTART: i64 = 600;

/// Whether a file was last written longer than `age` ago.
pub(super) fn is_older(file: &File, age: Duration, now: Timestamp) -> bool {
    let written = file.metadata().map_or(i64::MAX, |metadata| metadata.mtime());
    now.since(Timestamp::from_secs(written)) > age
}

impl Reader {
    /// Follows every path that the locations name now.
    pub(super) fn find_paths(&mut self, at_start: bool) {
        let now = self.zone.local(self.outlet.now());
        for number in 0..self.sources.len() {
            let Some(source) = self.sources.get(number) else { continue };
            let found = source.paths(&now, MAX_FILES);
            let dated = matches!(source.location, Location::Dated(_));
            for directory in &found.directories {
                self.watch_directory(directory);
            }
            if dated {
                for followed in self.followed.values_mut().filter(|followed| followed.source == number) {
                    followed.leaving = !found.paths.contains(&followed.path);
                }
            }
            for path in found.paths {
                if let Some(parent) = path.parent() {
                    self.watch_directory(parent);
                }
                if !self.by_path.contains_key(&path) {
                    self.follow(number, &path, at_start);
                }
            }
        }
    }

    fn watch_directory(&mut self, path: &Path) {
        if self.directories.contains_key(path) {
            return;
        }
        if let Some(watch) = self.notify.watch_directory(path) {
            self.directories.insert(path.to_owned(), watch);
            self.by_directory.insert(watch, path.to_owned());
        }
    }

    fn follow(&mut self, source: usize, path: &Path, at_start: bool) {
        if self.followed.len() >= MAX_FILES {
            if !self.full {
                (self.log)(&format!(
                    "more than {MAX_FILES} files: `{}` and others are not read",
                    path.display()
                ));
                self.full = true;
            }
            return;
        }
        let id = self.next;
        self.next += 1;
        let location = path.as_os_str().as_bytes().into();
        self.by_path.insert(path.to_owned(), id);
        let followed = Followed {
            path: path.to_owned(),
            source,
            location,
            current: None,
            retired: Vec::new(),
            leaving: false,
            refused: false,
            past: None,
        };
        self.followed.insert(id, followed);
        if let Some(identity) = Identity::at(path) {
            self.begin(id, path, identity, at_start);
        }
    }

    /// A path that names nothing may only be hidden from us.
    pub(super) fn unreachable(&mut self, id: usize, path: &Path) {
        if self.followed.get(&id).is_some_and(|followed| !followed.refused && followed.current.is_none())
            && let Err(error) = std::fs::metadata(path)
        {
            self.refused(id, path, &error);
        }
    }

    /// Tells once that a file cannot be read; every look tries again. What is not there may come, and is nobody's slip.
    fn refused(&mut self, id: usize, path: &Path, error: &io::Error) {
        let Some(followed) = self.followed.get_mut(&id) else { return };
        if error.kind() != io::ErrorKind::NotFound && !std::mem::replace(&mut followed.refused, true) {
            (self.log)(&format!(
                "(1103): cannot read `{}`: {error}; it is read as soon as that is possible",
                path.display()
            ));
        }
    }

    /// Starts to read the file that a path names now.
    pub(super) fn begin(&mut self, id: usize, path: &Path, identity: Identity, at_start: bool) {
        match self.release(id, path, identity) {
            Held::Elsewhere => return,
            Held::Handed(tail) => return self.install(id, Vec::new(), Some(*tail)),
            Held::Nowhere => {}
        }
        // Without the right to read it, or gone again: the next look tries anew.
        let file = match tail::open(path) {
            Ok(file) => file,
            Err(error) => {
                if at_start && let Some(followed) = self.followed.get_mut(&id) {
                    followed.past = Some(identity);
                }
                return self.refused(id, path, &error);
            }
        };
        let at_start = at_start || self.admitted(id, path, identity);
        let Some(source) = self.followed.get(&id).and_then(|followed| self.sources.get(followed.source))
        else {
            return;
        };
        let now = self.outlet.now();
        if source.skip_binaries && !tail::is_text(&file)
            || source.age.is_some_and(|age| is_older(&file, age, now))
        {
            return;
        }
        let stored = self.positions.files.remove(&key(path));
        let openings = beginnings(path, file, source, stored, at_start, now);
        let boot = self.outlet.boot();
        let mut tails: Vec<Tail> = openings
            .into_iter()
            .filter_map(|(file, offset)| Tail::new(file, offset, source.format(path), boot).ok())
            .collect();
        let current = tails.pop();
        if !at_start && let Some(current) = &current {
            tails.extend(self.overtaken(id, path, current, boot));
        }
        self.install(id, tails, current);
    }

    /// The file can be read; true if it could not at the start.
    fn admitted(&mut self, id: usize, path: &Path, identity: Identity) -> bool {
        let Some(followed) = self.followed.get_mut(&id) else { return false };
        if std::mem::take(&mut followed.refused) {
            (self.log)(&format!("`{}` can be read now", path.display()));
        }
        followed.past.take() == Some(identity)
    }

    /// Files that came and went between two looks, because rotation is faster than the pipeline.
    fn overtaken(&self, id: usize, path: &Path, current: &Tail, boot: Duration) -> Vec<Tail> {
        let Some(followed) = self.followed.get(&id) else { return Vec::new() };
        let (Some(last), Some(source)) = (followed.retired.last(), self.sources.get(followed.source)) else {
            return Vec::new();
        };
        let others =
            self.followed.values().flat_map(|followed| followed.retired.iter().chain(&followed.current));
        let known: Vec<u64> = others.map(|tail| tail.identity.inode).collect();
        rotated_since(path, last.file(), current.file(), &known)
            .into_iter()
            .filter_map(|file| Tail::new(file, 0, source.format(path), boot).ok())
            .collect()
    }

    fn install(&mut self, id: usize, retired: Vec<Tail>, current: Option<Tail>) {
        let Some(followed) = self.followed.get_mut(&id) else { return };
        followed.retired.extend(retired);
        followed.current = current;
        for tail in followed.retired.iter_mut().chain(&mut followed.current) {
            if tail.watch.is_none() {
                tail.watch = self.notify.watch_file(tail.file());
            }
            match tail.watch {
                Some(watch) => {
                    self.by_watch.insert(watch, id);
                }
                None if !self.unwatched => {
                    self.unwatched = true;
                    let path = followed.path.display();
                    (self.log)(&format!("no notifications for `{path}`: it is looked at once a second"));
                }
                None => {}
            }
        }
    }

    /// Takes a file from the path that had it before, if that path does not name it any more.
    fn release(&mut self, id: usize, path: &Path, identity: Identity) -> Held {
        for (other, followed) in &mut self.followed {
            if let Some(at) = followed.retired.iter().position(|tail| tail.identity == identity) {
                let tail = followed.retired.remove(at);
                return Held::Handed(Box::new(tail));
            }
            if *other == id || followed.current.as_ref().is_none_or(|tail| tail.identity != identity) {
                continue;
            }
            if followed.path != path && Identity::at(&followed.path) == Some(identity) {
                return Held::Elsewhere;
            }
            if let Some(tail) = followed.current.take() {
                return Held::Handed(Box::new(tail));
            }
        }
        Held::Nowhere
    }
}

/// Who reads a file already.
enum Held {
    Nowhere,
    /// Another path that still names it.
    Elsewhere,
    /// Another path that has lost it.
    Handed(Box<Tail>),
}

/// The files to read for one path and where, oldest first; the last is the one that has the name.
fn beginnings(
    path: &Path,
    file: File,
    source: &Source,
    stored: Option<Stored>,
    at_start: bool,
    now: Timestamp,
) -> Vec<(File, u64)> {
    let fresh = |stored: &Stored| {
        !source.only_future || !at_start || now.secs().saturating_sub(stored.seen) <= RESTART
    };
    let Some(stored) = stored.filter(fresh) else {
        // A file that appears while we watch is all future.
        let offset = if at_start { tail::end_of_lines(&file).unwrap_or(0) } else { 0 };
        return vec![(file, offset)];
    };
    let mut openings = Vec::new();
    let mut here = 0;
    for place in &stored.places {
        if tail::is_place(&file, place) {
            here = place.offset;
        } else if let Some(old) = moved(path, place) {
            openings.push((old, place.offset));
        }
    }
    if let Some((last, _)) = openings.last() {
        let known: Vec<u64> = stored.places.iter().map(|place| place.inode).collect();
        let unseen = rotated_since(path, last, &file, &known);
        openings.extend(unseen.into_iter().map(|file| (file, 0)));
    }
    openings.push((file, here));
    for (file, offset) in &mut openings {
        let size = file.metadata().map_or(0, |metadata| metadata.len());
        if size.saturating_sub(*offset) > source.max_size {
            *offset = tail::end_of_lines(file).unwrap_or(size);
        }
    }
    openings
}

/// Finds a file that was renamed within its directory while we were not running.
fn moved(path: &Path, place: &Place) -> Option<File> {
    let entries = std::fs::read_dir(path.parent()?).ok()?;
    entries
        .take(glob::MAX_ENTRIES)
        .flatten()
        .filter(|entry| entry.ino() == place.inode)
        .filter_map(|entry| tail::open(&entry.path()).ok())
        .find(|file| tail::is_place(file, place))
}

/// Files that had the name between `last`, which we know, and `current`, oldest first: more than one rotation
/// happened while we were not looking. They are called like the file plus a number or date, and were written to
/// after `last` was left alone.
fn rotated_since(path: &Path, last: &File, current: &File, known: &[u64]) -> Vec<File> {
    let written =
        |file: &File| file.metadata().map_or((0, 0), |metadata| (metadata.mtime(), metadata.mtime_nsec()));
    let inode = |file: &File| file.metadata().map_or(0, |metadata| metadata.ino());
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Vec::new() };
    let Ok(entries) = std::fs::read_dir(parent) else { return Vec::new() };
    let mut found: Vec<_> = entries
        .take(glob::MAX_ENTRIES)
        .flatten()
        .filter(|entry| is_rotated_name(name.as_bytes(), entry.file_name().as_bytes()))
        .filter(|entry| entry.ino() != inode(current) && !known.contains(&entry.ino()))
        .filter_map(|entry| tail::open(&entry.path()).ok())
        .map(|file| (written(&file), file))
        .filter(|(at, file)| *at >= written(last) && tail::is_text(file))
        .collect();
    found.sort_by_key(|(at, _)| *at);
    found.into_iter().map(|(_, file)| file).collect()
}

/// Whether `other` is `name` with a number or date behind it, as rotation tools write them.
fn is_rotated_name(name: &[u8], other: &[u8]) -> bool {
    other.strip_prefix(name).is_some_and(|suffix| {
        matches!(suffix, [b'.' | b'-' | b'_', _, ..])
            && suffix.iter().all(|byte| byte.is_ascii_digit() || b".-_:T".contains(byte))
            && suffix.iter().any(u8::is_ascii_digit)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_written_today_is_not_a_day_old() {
        let file = tempfile::tempfile().unwrap();
        let written = Timestamp::from_secs(file.metadata().unwrap().mtime());
        let day = Duration::from_secs(86_400);
        assert!(!is_older(&file, day, written));
        assert!(is_older(&file, day, written.plus(day * 2)));
    }

    #[test]
    fn only_numbers_and_dates_make_a_rotated_name() {
        for good in ["a.log.1", "a.log-20260301", "a.log.2026-03-01T10:00"] {
            assert!(is_rotated_name(b"a.log", good.as_bytes()), "{good}");
        }
        for bad in ["a.log", "a.log.", "a.log.gz", "a.log.1.gz", "a.log-errors", "b.log.1", "a.log1"] {
            assert!(!is_rotated_name(b"a.log", bad.as_bytes()), "{bad}");
        }
    }
}
