//! Hints that a file or directory changed. Only hints: the reader looks at everything once a second anyway, so a
//! lost one (queue overflow, network mount, no watches left) costs time, never lines.
//!
//! Invariant: [`Notify::wait`] returns at once after [`Waker::wake`].

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};

/// Number of a watch.
pub(crate) type Watch = i32;

/// Something happened.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Hint {
    /// The content of a watched file.
    File(Watch),
    /// A name came into or left a watched directory.
    Name(Watch, OsString),
    /// The kernel removed a watch.
    Gone(Watch),
    /// Hints were lost.
    Lost,
}

/// The kernel's notifications, where there are any.
#[derive(Debug)]
pub(crate) struct Notify {
    inotify: Option<OwnedFd>,
    wake: Arc<OwnedFd>,
}

/// Ends a wait from another thread.
#[derive(Debug, Clone)]
pub(crate) struct Waker(Arc<OwnedFd>);

impl Waker {
    /// Makes the present or next wait return.
    pub(crate) fn wake(&self) {
        // A full counter is a wake-up that is already under way.
        let _ = rustix::io::write(&*self.0, &1_u64.to_ne_bytes());
    }
}

impl Notify {
    /// Without notifications in the kernel this waits only.
    pub(crate) fn new() -> io::Result<Self> {
        let wake = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?;
        let inotify = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).ok();
        Ok(Self { inotify, wake: Arc::new(wake) })
    }

    /// A handle for other threads.
    pub(crate) fn waker(&self) -> Waker {
        Waker(Arc::clone(&self.wake))
    }

    /// Watches the content of an open file, whatever its name is by now.
    pub(crate) fn watch_file(&self, file: &File) -> Option<Watch> {
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        inotify::add_watch(self.inotify.as_ref()?, path, WatchFlags::MODIFY).ok()
    }

    /// Watches which names a directory has.
    pub(crate) fn watch_directory(&self, path: &Path) -> Option<Watch> {
        let names = WatchFlags::CREATE | WatchFlags::MOVED_TO | WatchFlags::MOVED_FROM | WatchFlags::DELETE;
        inotify::add_watch(self.inotify.as_ref()?, path, names | WatchFlags::ONLYDIR).ok()
    }

    /// Ends a watch.
    pub(crate) fn forget(&self, watch: Watch) {
        if let Some(inotify) = &self.inotify {
            // It may have ended by itself with the file.
            let _ = inotify::remove_watch(inotify, watch);
        }
    }

    /// Waits for hints, at most `timeout`.
    pub(crate) fn wait(&self, timeout: Duration, hints: &mut Vec<Hint>) -> io::Result<()> {
        let mut descriptors = vec![self.wake.as_fd()];
        descriptors.extend(self.inotify.as_ref().map(AsFd::as_fd));
        let ready = tld_sys::ready::readable(&descriptors, timeout)?;
        if !ready.contains(&true) {
            return Ok(());
        }
        let mut count = [0_u8; 8];
        // Nothing to read means that nobody woke us.
        let _ = rustix::io::read(&*self.wake, &mut count);
        self.drain(hints);
        Ok(())
    }

    fn drain(&self, hints: &mut Vec<Hint>) {
        let Some(inotify) = &self.inotify else { return };
        let mut buffer = [MaybeUninit::uninit(); 8192];
        let mut reader = Reader::new(inotify, &mut buffer);
        // Bounded, so that a storm of changes cannot keep us from reading.
        for _ in 0..4096 {
            let Ok(event) = reader.next() else { return };
            let flags = event.events();
            hints.push(if flags.contains(ReadFlags::QUEUE_OVERFLOW) {
                Hint::Lost
            } else if flags.contains(ReadFlags::IGNORED) {
                Hint::Gone(event.wd())
            } else if let Some(name) = event.file_name() {
                Hint::Name(event.wd(), OsString::from_vec(name.to_bytes().to_vec()))
            } else {
                Hint::File(event.wd())
            });
        }
        hints.push(Hint::Lost);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn hints(notify: &Notify) -> Vec<Hint> {
        let mut hints = Vec::new();
        notify.wait(Duration::from_secs(20), &mut hints).unwrap();
        hints
    }

    #[test]
    fn a_write_is_seen_even_after_the_file_lost_its_name() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("a");
        let mut file = File::create(&path).unwrap();
        let notify = Notify::new().unwrap();
        let watch = notify.watch_file(&File::open(&path).unwrap()).unwrap();
        std::fs::rename(&path, home.path().join("b")).unwrap();
        file.write_all(b"x").unwrap();
        assert_eq!(hints(&notify), [Hint::File(watch)]);
    }

    #[test]
    fn a_new_name_is_seen() {
        let home = tempfile::tempdir().unwrap();
        let notify = Notify::new().unwrap();
        let watch = notify.watch_directory(home.path()).unwrap();
        File::create(home.path().join("a")).unwrap();
        assert_eq!(hints(&notify), [Hint::Name(watch, OsString::from("a"))]);
    }

    #[test]
    fn a_waker_ends_a_wait() {
        let notify = Notify::new().unwrap();
        notify.waker().wake();
        assert!(hints(&notify).is_empty());
    }
}
