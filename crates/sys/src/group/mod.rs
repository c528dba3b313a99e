//! Groups of processes: what one file starts, bounded in number and ended as a whole, whoever forked twice or began a
//! session of its own.
//!
//! The kernel keeps such a group where there is a control group to be had (version 2 where it was delegated to us,
//! version 1 where the `pids` hierarchy is mounted): then the bound is the kernel's. Else we keep it: version 2 without
//! controllers still tells who belongs to it, and without any control group members are known by a variable of their
//! environment, by their session and by their parents. What we keep ourselves is looked at ten times a second (more rarely
//! where so much runs that looking would keep a processor busy), and a group above its bound is stopped.
//!
//! Invariant: making a group never fails and never hinders a start; at worst it is kept by looking.

mod place;
mod processes;
mod watch;

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::process::Signal;

use crate::clock::Deadline;
use place::Place;
use processes::Census;

/// What a group may hold; `None` sets no bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Bounds {
    /// Processes at once (the kernel counts threads too).
    pub processes: Option<u64>,
    /// Memory of all of them together, where the kernel keeps the group.
    pub memory_bytes: Option<u64>,
}

/// Where groups are made.
#[derive(Debug, Clone)]
pub struct Groups(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    place: Place,
    /// Groups that we keep, and whether somebody looks at them.
    kept: Mutex<watch::Kept>,
    /// Who belongs to those that are known by a mark.
    census: Census,
    /// Control groups that could not be removed yet, since something in them lives on.
    left: Mutex<Vec<PathBuf>>,
}

/// One group. Dropping it ends nothing: what lives on in it stays bounded.
#[derive(Debug)]
pub struct Group {
    inner: Arc<Inner>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Inner {
    kind: Kind,
    bounds: Bounds,
    /// How many were seen above the bound, if we had to stop them.
    crowd: AtomicU64,
    /// Nobody waits for it any more.
    over: AtomicU64,
}

#[derive(Debug)]
enum Kind {
    /// A control group; `bounded` where the kernel counts.
    Control { directory: PathBuf, bounded: bool },
    /// Known by a mark and by descent.
    Marked(Arc<str>),
}

impl Groups {
    /// Looks for a place where the kernel keeps groups.
    #[must_use]
    pub fn find() -> Self {
        let place = place::find();
        place::sweep(&place);
        Self::at(place)
    }

    /// Groups that are kept by looking, as where there is no control group.
    #[must_use]
    pub fn counted() -> Self {
        Self::at(Place::None)
    }

    fn at(place: Place) -> Self {
        let (kept, census, left) = (Mutex::default(), Census::default(), Mutex::default());
        Self(Arc::new(Shared { place, kept, census, left }))
    }

    /// Who keeps the bound, for people.
    #[must_use]
    pub fn keeper(&self) -> &'static str {
        match &self.0.place {
            Place::Two { controllers: true, .. } => "the kernel (cgroup v2)",
            Place::One { .. } => "the kernel (cgroup v1)",
            Place::Two { .. } | Place::None => "this program, which looks ten times a second",
        }
    }

    /// A new, empty group.
    #[must_use]
    pub fn make(&self, bounds: Bounds) -> Group {
        self.clear_left();
        let name = name();
        let kind = self.0.place.make(&name, bounds).unwrap_or_else(|| Kind::Marked(name.into()));
        self.start(kind, bounds)
    }

    /// The same for what the kernel's group did not take.
    #[must_use]
    pub fn make_counted(&self, bounds: Bounds) -> Group {
        self.start(Kind::Marked(name().into()), bounds)
    }

    fn start(&self, kind: Kind, bounds: Bounds) -> Group {
        let (crowd, over) = (AtomicU64::new(0), AtomicU64::new(0));
        let inner = Arc::new(Inner { kind, bounds, crowd, over });
        if bounds.processes.is_some() && !matches!(inner.kind, Kind::Control { bounded: true, .. }) {
            watch::keep(&self.0, &inner);
        }
        Group { inner, shared: Arc::clone(&self.0) }
    }

    fn clear_left(&self) {
        locked(&self.0.left)
            .retain(|directory| std::fs::remove_dir(directory).is_err() && directory.exists());
    }
}

impl Group {
    /// The file that a process writes `0` to in order to join; `None` where it joins by its environment.
    pub(crate) fn entrance(&self) -> io::Result<Option<File>> {
        let Kind::Control { directory, .. } = &self.inner.kind else { return Ok(None) };
        // Version 1: a single thread that moves itself need not wait for all processors to pass a quiet state.
        let tasks = directory.join("tasks");
        let file = if tasks.exists() { tasks } else { directory.join(PROCESSES) };
        File::options().write(true).open(file).map(Some)
    }

    /// The variable that its processes carry.
    pub(crate) fn mark(&self) -> Option<(&'static str, String)> {
        match &self.inner.kind {
            Kind::Control { .. } => None,
            Kind::Marked(mark) => Some((processes::MARK, mark.to_string())),
        }
    }

    /// Tells the process that leads its session.
    pub(crate) fn led_by(&self, pid: u32) {
        if let Kind::Marked(mark) = &self.inner.kind {
            self.shared.census.led_by(mark, pid);
        }
    }

    /// Whether the kernel keeps it.
    #[must_use]
    pub fn is_kernels(&self) -> bool {
        matches!(self.inner.kind, Kind::Control { .. })
    }

    /// How many processes live in it.
    #[must_use]
    pub fn count(&self) -> usize {
        self.inner.members(&self.shared.census).len()
    }

    /// What became of the bound, if it was met: one clause for people.
    #[must_use]
    pub fn crowded(&self) -> Option<String> {
        let most = self.inner.bounds.processes?;
        let seen = self.inner.crowd.load(Ordering::SeqCst);
        if seen > 0 {
            return Some(format!(
                "it had {seen} processes, more than {most} (`execd.script_processes`), all killed"
            ));
        }
        let refused = self.inner.refused()?;
        Some(format!("held to {most} processes (`execd.script_processes`): {refused} more were refused"))
    }

    /// Whether it was stopped because it was above its bound.
    #[must_use]
    pub fn was_stopped(&self) -> bool {
        self.inner.crowd.load(Ordering::SeqCst) > 0
    }

    /// Kills every process in it; false if some still lived after `patience`.
    pub fn kill(&self, patience: Duration) -> bool {
        self.inner.kill(&self.shared.census, &Deadline::after(patience))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.inner.over.store(1, Ordering::SeqCst);
        let directory = match &self.inner.kind {
            Kind::Control { directory, .. } => directory,
            // One that is looked at is forgotten when nothing of it lives.
            Kind::Marked(mark) => {
                if self.inner.bounds.processes.is_none() {
                    self.shared.census.forget(mark);
                }
                return;
            }
        };
        if std::fs::remove_dir(directory).is_err() {
            let mut left = locked(&self.shared.left);
            if left.len() < MOST_LEFT {
                left.push(directory.clone());
            }
        }
    }
}

impl Inner {
    /// Processes that live in it.
    fn members(&self, census: &Census) -> Vec<u32> {
        match &self.kind {
            Kind::Control { directory, .. } => listed(directory),
            Kind::Marked(mark) => census.members(mark),
        }
    }

    /// Forks that the kernel refused.
    fn refused(&self) -> Option<u64> {
        let Kind::Control { directory, bounded: true } = &self.kind else { return None };
        let text = place::read(&directory.join("pids.events"))?;
        let count = text.lines().find_map(|line| line.strip_prefix("max "))?.trim().parse().ok()?;
        (count > 0).then_some(count)
    }

    fn kill(&self, census: &Census, deadline: &Deadline) -> bool {
        if let Kind::Control { directory, .. } = &self.kind {
            // No fork outruns us.
            let _ = place::write(&directory.join("pids.max"), "0");
            let _ = place::write(&directory.join("cgroup.kill"), "1");
        }
        let mut first = true;
        loop {
            let members = self.members(census);
            if members.is_empty() {
                return true;
            }
            if first && matches!(self.kind, Kind::Marked(_)) {
                // Stopped, they cannot fork while the others are killed.
                members.iter().for_each(|pid| signal(*pid, Signal::STOP));
                first = false;
            }
            members.iter().for_each(|pid| signal(*pid, Signal::KILL));
            if deadline.passed() {
                return false;
            }
            let _ = crate::ready::readable(&[], AGAIN);
        }
    }
}

/// A name that no other group of this process has.
fn name() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("{PREFIX}{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

fn listed(directory: &Path) -> Vec<u32> {
    let text = place::read(&directory.join(PROCESSES)).unwrap_or_default();
    // A process of an outer namespace is shown as 0, which no signal may be sent to.
    text.lines().filter_map(|line| line.parse().ok()).filter(|pid| *pid > 1).collect()
}

fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw) {
        let _ = rustix::process::kill_process(pid, signal);
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

const PREFIX: &str = "threatlockdown-";
const PROCESSES: &str = "cgroup.procs";
const MOST_LEFT: usize = 4_096;
const AGAIN: Duration = Duration::from_millis(5);

#[cfg(test)]
mod tests;
