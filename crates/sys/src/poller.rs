//! Waiting for many descriptors at once (epoll), and waking who waits.
//!
//! Level-triggered: what was not read or written is reported again. Invariant: a descriptor is named by the token its owner
//! chose, and a wake-up is never lost, however early it came.

use std::fmt;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::event::{EventfdFlags, Timespec, eventfd};

/// Token that no owner may choose: it marks a wake-up.
const WAKE: u64 = u64::MAX;
/// Most descriptors reported by one wait.
const BATCH: usize = 512;

/// What is waited for on a descriptor. Errors and hang-ups are always reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Interest {
    /// Something can be read, or the other end is closed.
    pub read: bool,
    /// There is room to write.
    pub write: bool,
}

impl Interest {
    /// Only reading.
    pub const READ: Self = Self { read: true, write: false };

    fn flags(self) -> EventFlags {
        let mut flags = EventFlags::empty();
        flags.set(EventFlags::IN, self.read);
        flags.set(EventFlags::OUT, self.write);
        flags
    }
}

/// A descriptor that can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ready {
    /// As its owner named it.
    pub token: u64,
    /// Reading will not wait; it may find the end or an error.
    pub read: bool,
    /// Writing will not wait.
    pub write: bool,
    /// Both directions are over.
    pub broken: bool,
}

/// A set of descriptors.
pub struct Poller {
    epoll: OwnedFd,
    wake: Arc<OwnedFd>,
}

impl fmt::Debug for Poller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Poller").field("epoll", &self.epoll).finish_non_exhaustive()
    }
}

/// Ends another thread's wait. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Waker(Arc<OwnedFd>);

impl Waker {
    /// Ends the present wait, or the next one.
    pub fn wake(&self) {
        // The only failure is a counter at its limit, and then the wake-up stands already.
        let _ = rustix::io::write(&*self.0, &1_u64.to_ne_bytes());
    }
}

impl Poller {
    /// An empty set.
    pub fn new() -> io::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        epoll::add(&epoll, &wake, EventData::new_u64(WAKE), EventFlags::IN)?;
        Ok(Self { epoll, wake: Arc::new(wake) })
    }

    /// For other threads.
    #[must_use]
    pub fn waker(&self) -> Waker {
        Waker(Arc::clone(&self.wake))
    }

    /// Takes a descriptor in; it leaves by itself when it is closed.
    pub fn add(&self, fd: impl AsFd, token: u64, interest: Interest) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, fd, EventData::new_u64(token), interest.flags())?)
    }

    /// Waits for something else on a descriptor of the set.
    pub fn change(&self, fd: impl AsFd, token: u64, interest: Interest) -> io::Result<()> {
        Ok(epoll::modify(&self.epoll, fd, EventData::new_u64(token), interest.flags())?)
    }

    /// Takes a descriptor out, so that not even errors of it are reported.
    pub fn remove(&self, fd: impl AsFd) -> io::Result<()> {
        Ok(epoll::delete(&self.epoll, fd)?)
    }

    /// Waits until a descriptor is ready, a [`Waker`] was used, or time is up; `ready` holds what is.
    pub fn wait(&self, ready: &mut Vec<Ready>, timeout: Duration) -> io::Result<()> {
        ready.clear();
        let timeout = Timespec {
            tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: timeout.subsec_nanos().into(),
        };
        let mut room = [const { MaybeUninit::<Event>::uninit() }; BATCH];
        let events = match epoll::wait(&self.epoll, &mut room, Some(&timeout)) {
            Ok((events, _)) => events,
            // An early end is allowed to a wait that its caller repeats anyway.
            Err(rustix::io::Errno::INTR) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        for event in events {
            // The fields are unaligned, so they are copied.
            let (data, flags) = (event.data, event.flags);
            if data.u64() == WAKE {
                let _ = rustix::io::read(&*self.wake, &mut [0_u8; 8]);
                continue;
            }
            let broken = flags.intersects(EventFlags::ERR | EventFlags::HUP);
            ready.push(Ready {
                token: data.u64(),
                read: broken || flags.contains(EventFlags::IN),
                write: broken || flags.contains(EventFlags::OUT),
                broken,
            });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    const LONG: Duration = Duration::from_secs(20);

    #[test]
    fn only_what_is_ready_is_told_and_until_it_is_read() {
        let poller = Poller::new().unwrap();
        let (quiet, _keep) = io::pipe().unwrap();
        let (loud, mut speaker) = io::pipe().unwrap();
        poller.add(&quiet, 1, Interest::READ).unwrap();
        poller.add(&loud, 2, Interest::READ).unwrap();
        speaker.write_all(b"x").unwrap();
        let mut ready = Vec::new();
        for _ in 0..2 {
            poller.wait(&mut ready, LONG).unwrap();
            assert_eq!(ready, [Ready { token: 2, read: true, write: false, broken: false }]);
        }
        poller.change(&loud, 2, Interest::default()).unwrap();
        poller.wait(&mut ready, Duration::from_millis(1)).unwrap();
        assert!(ready.is_empty());
        drop(speaker);
        poller.wait(&mut ready, LONG).unwrap();
        assert!(ready[0].broken);
        poller.remove(&loud).unwrap();
        poller.wait(&mut ready, Duration::from_millis(1)).unwrap();
        assert!(ready.is_empty());
    }

    #[test]
    fn a_wake_up_before_the_wait_ends_it() {
        let poller = Poller::new().unwrap();
        poller.waker().wake();
        let mut ready = Vec::new();
        poller.wait(&mut ready, LONG).unwrap();
        assert!(ready.is_empty());
    }
}
