//! Two clocks: the wall, which people set, and the time since boot, which only advances.
//!
//! Deadlines of blocks are kept on the boot clock while the machine is up, because it also counts while the
//! machine sleeps and nobody can turn it back; the wall clock bridges a reboot. [`boot_id`] tells the two
//! situations apart.
//!
//! Invariant: [`Clock::boot`] never goes backwards within one boot.

use std::path::Path;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A source of time. Code that decides takes one of these, so that tests can hold time still.
pub trait Clock: Send + Sync {
    /// Nanoseconds since 1970-01-01 UTC; may jump in either direction.
    fn wall_nanos(&self) -> i64;

    /// Time since boot, including time asleep where the system can tell; never jumps.
    fn boot(&self) -> Duration;
}

/// The machine's own clocks.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn wall_nanos(&self) -> i64 {
        #[expect(clippy::disallowed_methods, reason = "this is the place where the clock is read")]
        let now = std::time::SystemTime::now();
        match now.duration_since(std::time::UNIX_EPOCH) {
            Ok(after) => i64::try_from(after.as_nanos()).unwrap_or(i64::MAX),
            Err(before) => i64::try_from(before.duration().as_nanos()).map_or(i64::MIN, |n| -n),
        }
    }

    fn boot(&self) -> Duration {
        boot_clock()
    }
}

#[cfg(any(target_os = "linux", target_os = "android"))]
fn boot_clock() -> Duration {
    clock(rustix::time::ClockId::Boottime)
}

#[cfg(all(unix, not(any(target_os = "linux", target_os = "android"))))]
fn boot_clock() -> Duration {
    // Darwin's monotonic clock counts time asleep, like Linux's boot clock.
    clock(rustix::time::ClockId::Monotonic)
}

#[cfg(unix)]
fn clock(id: rustix::time::ClockId) -> Duration {
    let now = rustix::time::clock_gettime(id);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    let nanos = u32::try_from(now.tv_nsec).unwrap_or(0);
    Duration::new(seconds, nanos.min(999_999_999))
}

#[cfg(not(unix))]
fn boot_clock() -> Duration {
    // No boot clock without a system call of its own: count from the first question in this process.
    static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    let now = instant();
    now.saturating_duration_since(*START.get_or_init(|| now))
}

/// A clock that moves only when told to.
#[derive(Debug, Default)]
pub struct ManualClock {
    wall: AtomicI64,
    boot: AtomicU64,
}

impl ManualClock {
    /// A clock standing at `wall_nanos`, with `boot` elapsed since boot.
    #[must_use]
    pub fn new(wall_nanos: i64, boot: Duration) -> Self {
        let clock = Self::default();
        clock.set_wall(wall_nanos);
        clock.set_boot(boot);
        clock
    }

    /// Jumps the wall clock alone, as an operator or NTP would.
    pub fn set_wall(&self, wall_nanos: i64) {
        self.wall.store(wall_nanos, Ordering::SeqCst);
    }

    /// Sets the time since boot, as a reboot would.
    pub fn set_boot(&self, boot: Duration) {
        self.boot.store(u64::try_from(boot.as_nanos()).unwrap_or(u64::MAX), Ordering::SeqCst);
    }

    /// Lets time pass on both clocks.
    pub fn advance(&self, by: Duration) {
        let nanos = u64::try_from(by.as_nanos()).unwrap_or(u64::MAX);
        self.set_wall(self.wall_nanos().saturating_add(i64::try_from(nanos).unwrap_or(i64::MAX)));
        self.set_boot(self.boot().saturating_add(Duration::from_nanos(nanos)));
    }
}

impl Clock for ManualClock {
    fn wall_nanos(&self) -> i64 {
        self.wall.load(Ordering::SeqCst)
    }

    fn boot(&self) -> Duration {
        Duration::from_nanos(self.boot.load(Ordering::SeqCst))
    }
}

/// The kernel's name for the present boot, different after each; `None` where there is none.
#[must_use]
pub fn boot_id() -> Option<String> {
    boot_id_from(Path::new("/proc/sys/kernel/random/boot_id"))
}

/// [`boot_id`] read from another file, for tests.
#[must_use]
pub fn boot_id_from(path: &Path) -> Option<String> {
    let bytes = crate::durable::read_bounded(path, 128).ok()?;
    let id = String::from_utf8(bytes).ok()?.trim().to_owned();
    (!id.is_empty()).then_some(id)
}

/// A moment after which waiting ends; never, if the wait is longer than the clock can count.
#[derive(Debug, Clone, Copy)]
pub struct Deadline(Option<Instant>);

impl Deadline {
    /// The moment `wait` from now.
    #[must_use]
    pub fn after(wait: Duration) -> Self {
        Self(instant().checked_add(wait))
    }

    /// What is left of the wait; `None` without end.
    #[must_use]
    pub fn remaining(&self) -> Option<Duration> {
        self.0.map(|at| at.saturating_duration_since(instant()))
    }

    /// Whether the wait is over.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.remaining() == Some(Duration::ZERO)
    }
}

fn instant() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "waits inside one process are measured here and only here")]
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_boot_clock_never_goes_back() {
        let mut last = SystemClock.boot();
        for _ in 0..1000 {
            let now = SystemClock.boot();
            assert!(now >= last);
            last = now;
        }
    }

    #[test]
    fn the_wall_clock_shows_a_plausible_year() {
        let years = SystemClock.wall_nanos() / 1_000_000_000 / 31_556_952 + 1970;
        assert!((2020..2262).contains(&years), "{years}");
    }

    #[test]
    fn a_manual_clock_moves_only_when_told() {
        let clock = ManualClock::new(5, Duration::from_secs(7));
        assert_eq!((clock.wall_nanos(), clock.boot()), (5, Duration::from_secs(7)));
        clock.advance(Duration::from_nanos(3));
        assert_eq!((clock.wall_nanos(), clock.boot()), (8, Duration::new(7, 3)));
        clock.set_wall(-1);
        assert_eq!((clock.wall_nanos(), clock.boot()), (-1, Duration::new(7, 3)));
    }

    #[test]
    fn a_boot_id_is_read_trimmed_and_an_empty_file_has_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("boot_id");
        assert_eq!(boot_id_from(&path), None);
        crate::durable::replace(&path, b"abc-def\n", 0o600).unwrap();
        assert_eq!(boot_id_from(&path).as_deref(), Some("abc-def"));
        crate::durable::replace(&path, b"\n", 0o600).unwrap();
        assert_eq!(boot_id_from(&path), None);
    }

    #[test]
    fn an_uncountable_wait_has_no_deadline() {
        assert_eq!(Deadline::after(Duration::MAX).remaining(), None);
        assert!(Deadline::after(Duration::ZERO).passed());
        assert!(!Deadline::after(Duration::from_secs(60)).passed());
    }
}
