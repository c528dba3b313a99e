//! Hints that files changed (inotify), so that a reader need not ask all the time.
//!
//! Hints only: the queue can overflow and network file systems say nothing, so whoever uses this still looks by
//! itself now and then.
//!
//! Invariant: an overflow is reported as [`WatchEvent::Overflow`], never swallowed.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Something happened to a watched path.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum WatchEvent {
    /// A file grew or was written.
    Written(PathBuf),
    /// A name appeared in a watched directory, made or moved in.
    Appeared(PathBuf),
    /// A name vanished, removed or moved away.
    Vanished(PathBuf),
    /// Owner, mode or link count changed.
    Attributes(PathBuf),
    /// The watch itself ended, with its file or directory.
    Ended(PathBuf),
    /// Events were lost: look at everything.
    Overflow,
}

/// A set of watched files and directories.
#[derive(Debug)]
pub struct Watcher {
    #[cfg(target_os = "linux")]
    fd: OwnedFd,
    #[cfg(target_os = "linux")]
    paths: std::collections::HashMap<i32, PathBuf>,
    #[cfg(not(target_os = "linux"))]
    fd: OwnedFd,
}

#[cfg(target_os = "linux")]
impl Watcher {
    /// Watches nothing yet.
    pub fn new() -> io::Result<Self> {
        use rustix::fs::inotify::{CreateFlags, init};
        let fd = init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        Ok(Self { fd, paths: std::collections::HashMap::new() })
    }

    /// Watches the names in a directory and writes to its files.
    pub fn add_dir(&mut self, path: &Path) -> io::Result<()> {
        use rustix::fs::inotify::WatchFlags as F;
        let flags = F::CREATE | F::DELETE | F::MOVED_FROM | F::MOVED_TO | F::MODIFY | F::CLOSE_WRITE;
        self.add(path, flags | F::DELETE_SELF | F::MOVE_SELF | F::ONLYDIR)
    }

    /// Watches one file, following links.
    pub fn add_file(&mut self, path: &Path) -> io::Result<()> {
        use rustix::fs::inotify::WatchFlags as F;
        self.add(path, F::MODIFY | F::CLOSE_WRITE | F::ATTRIB | F::DELETE_SELF | F::MOVE_SELF)
    }

    fn add(&mut self, path: &Path, flags: rustix::fs::inotify::WatchFlags) -> io::Result<()> {
        let watch = rustix::fs::inotify::add_watch(&self.fd, path, flags)?;
        // Two names of one file share a watch; the name given last is reported.
        self.paths.insert(watch, path.to_owned());
        Ok(())
    }

    /// Stops watching `path`.
    pub fn remove(&mut self, path: &Path) -> io::Result<()> {
        let watches: Vec<_> =
            self.paths.iter().filter(|(_, p)| *p == path).map(|(watch, _)| *watch).collect();
        for watch in watches {
            self.paths.remove(&watch);
            match rustix::fs::inotify::remove_watch(&self.fd, watch) {
                // The file is gone and its watch with it.
                Ok(()) | Err(rustix::io::Errno::INVAL) => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
    }

    /// The events that are there, without waiting; at most some hundred at once.
    pub fn read_events(&mut self) -> io::Result<Vec<WatchEvent>> {
        use rustix::fs::inotify::{ReadFlags as F, Reader};
        let mut buffer = [std::mem::MaybeUninit::uninit(); 16384];
        let mut reader = Reader::new(&self.fd, &mut buffer);
        let mut events: Vec<WatchEvent> = Vec::new();
        while events.len() < 512 {
            let event = match reader.next() {
                Ok(event) => event,
                Err(rustix::io::Errno::AGAIN) => break,
                Err(rustix::io::Errno::INTR) => continue,
                Err(e) => return Err(e.into()),
            };
            let flags = event.events();
            if flags.contains(F::QUEUE_OVERFLOW) {
                events.push(WatchEvent::Overflow);
                continue;
            }
            let name = event.file_name().map(|name| name.to_bytes().to_vec());
            let (watch, Some(base)) = (event.wd(), self.paths.get(&event.wd()).cloned()) else { continue };
            let path = match name {
                Some(name) => {
                    base.join(<std::ffi::OsString as std::os::unix::ffi::OsStringExt>::from_vec(name))
                }
                None => base,
            };
            let event = if flags.contains(F::IGNORED) {
                self.paths.remove(&watch);
                WatchEvent::Ended(path)
            } else if flags.intersects(F::CREATE | F::MOVED_TO) {
                WatchEvent::Appeared(path)
            } else if flags.intersects(F::DELETE | F::MOVED_FROM | F::DELETE_SELF | F::MOVE_SELF) {
                WatchEvent::Vanished(path)
            } else if flags.contains(F::ATTRIB) {
                WatchEvent::Attributes(path)
            } else {
                WatchEvent::Written(path)
            };
            if events.last() != Some(&event) {
                events.push(event);
            }
        }
        Ok(events)
    }
}

#[cfg(not(target_os = "linux"))]
impl Watcher {
    /// There is no watching here yet: look by yourself.
    pub fn new() -> io::Result<Self> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// See [`Watcher::new`].
    pub fn add_dir(&mut self, _path: &Path) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// See [`Watcher::new`].
    pub fn add_file(&mut self, _path: &Path) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// See [`Watcher::new`].
    pub fn remove(&mut self, _path: &Path) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// See [`Watcher::new`].
    pub fn read_events(&mut self) -> io::Result<Vec<WatchEvent>> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

impl Watcher {
    /// Becomes readable when there are events.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Waits for events or for one of `others` to become readable: (events, one flag for each other).
    pub fn wait(&self, others: &[BorrowedFd<'_>], timeout: Duration) -> io::Result<(bool, Vec<bool>)> {
        let all: Vec<_> = std::iter::once(self.fd()).chain(others.iter().copied()).collect();
        let mut ready = crate::ready::readable(&all, timeout)?;
        let own = ready.remove(0);
        Ok((own, ready))
    }
}

#[cfg(target_os = "linux")]
#[cfg(test)]
mod tests {
    use super::*;
    use crate::durable::append_line;

    const LONG: Duration = Duration::from_secs(20);

    /// Waits until all of them were told in this order. More may come in between: while another test starts a child,
    /// that child has our descriptors open, and the kernel tells of their end later.
    #[track_caller]
    fn tells(watcher: &mut Watcher, wanted: &[WatchEvent]) {
        let mut told = Vec::new();
        let mut left = wanted.iter().peekable();
        while left.peek().is_some() {
            assert!(watcher.wait(&[], LONG).unwrap().0, "only {told:?} of {wanted:?}");
            for event in watcher.read_events().unwrap() {
                let _ = left.next_if(|next| **next == event);
                told.push(event);
            }
        }
    }

    #[test]
    fn a_directory_tells_of_names_that_come_grow_and_go() {
        let dir = tempfile::tempdir().unwrap();
        let mut watcher = Watcher::new().unwrap();
        watcher.add_dir(dir.path()).unwrap();
        assert_eq!(watcher.read_events().unwrap(), []);
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        append_line(&a, b"x", 0o600).unwrap();
        tells(&mut watcher, &[WatchEvent::Appeared(a.clone()), WatchEvent::Written(a.clone())]);
        std::fs::rename(&a, &b).unwrap();
        tells(&mut watcher, &[WatchEvent::Vanished(a), WatchEvent::Appeared(b)]);
    }

    #[test]
    fn a_file_tells_of_writes_and_of_its_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        append_line(&path, b"x", 0o600).unwrap();
        let mut watcher = Watcher::new().unwrap();
        watcher.add_file(&path).unwrap();
        append_line(&path, b"x", 0o600).unwrap();
        tells(&mut watcher, &[WatchEvent::Written(path.clone())]);
        std::fs::remove_file(&path).unwrap();
        tells(&mut watcher, &[WatchEvent::Ended(path.clone())]);
        watcher.remove(&path).unwrap();
    }

    #[test]
    fn waiting_reports_other_descriptors_too() {
        let watcher = Watcher::new().unwrap();
        let (reader, writer) = io::pipe().unwrap();
        drop(writer);
        assert_eq!(watcher.wait(&[reader.as_fd()], LONG).unwrap(), (false, vec![true]));
    }

    #[test]
    fn a_missing_path_cannot_be_watched() {
        let error = Watcher::new().unwrap().add_file(Path::new("/no/such/file")).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
