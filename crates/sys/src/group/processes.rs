//! All processes of the system, and which of them belong to a group that has no place in the kernel.
//!
//! Invariant: a number alone names nobody; a process is its number and the moment of its start. However many groups there
//! are, each process is looked at once.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use super::locked;
use super::place::read;
use crate::clock::{Clock as _, SystemClock};

/// The variable that marks members; it is inherited unless a program takes care to lose it.
pub(super) const MARK: &str = "TLD_GROUP";

/// One process that lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Process {
    pub(super) pid: u32,
    parent: u32,
    session: u32,
    started: u64,
}

/// All of them but those that have ended and only wait to be reaped.
pub(super) fn all() -> Vec<Process> {
    let numbers = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers = numbers.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    numbers.take(MOST).filter_map(|pid| parse(pid, &read(Path::new(&format!("/proc/{pid}/stat")))?)).collect()
}

/// A line of `/proc/<pid>/stat` (proc_pid_stat(5)): the name in parentheses may hold anything.
fn parse(pid: u32, text: &str) -> Option<Process> {
    let mut fields = text.rsplit_once(") ")?.1.split(' ');
    let state = fields.next()?;
    if matches!(state, "Z" | "X" | "x") {
        return None;
    }
    let (parent, session) = (fields.next()?.parse().ok()?, fields.nth(1)?.parse().ok()?);
    // Field 22; the session was field 6.
    let started = fields.nth(15)?.parse().ok()?;
    Some(Process { pid, parent, session, started })
}

/// Who belongs to which group: one look at the system serves all groups, and all who ask meanwhile.
#[derive(Debug, Default)]
pub(super) struct Census(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// When the last look began, by the clock since boot.
    began: Option<Duration>,
    /// What every living process belongs to, if to anything. It is decided once.
    known: HashMap<(u32, u64), Option<Arc<str>>>,
    /// Sessions that files lead, with their groups.
    leaders: HashMap<u32, Arc<str>>,
    members: HashMap<Arc<str>, Vec<u32>>,
}

impl Census {
    /// A process begins that leads its session.
    pub(super) fn led_by(&self, group: &Arc<str>, pid: u32) {
        locked(&self.0).leaders.insert(pid, Arc::clone(group));
    }

    /// A group is over: its number may soon be another's.
    pub(super) fn forget(&self, group: &str) {
        locked(&self.0).leaders.retain(|_, of| **of != *group);
    }

    /// The living members of a group, by a look that began after this was asked.
    pub(super) fn members(&self, group: &str) -> Vec<u32> {
        self.look(SystemClock.boot()).members.get(group).cloned().unwrap_or_default()
    }

    /// How many live in each group now.
    pub(super) fn counts(&self) -> HashMap<Arc<str>, usize> {
        let state = self.look(SystemClock.boot());
        state.members.iter().map(|(group, members)| (Arc::clone(group), members.len())).collect()
    }

    fn look(&self, asked: Duration) -> MutexGuard<'_, State> {
        let mut state = locked(&self.0);
        if state.began.is_none_or(|began| began < asked) {
            state.began = Some(SystemClock.boot());
            state.take(&all());
        }
        state
    }
}

impl State {
    fn take(&mut self, all: &[Process]) {
        let mut before = std::mem::take(&mut self.known);
        self.members.clear();
        // Whom those who live knew: their numbers are still theirs.
        let living = all.iter().filter_map(|one| {
            let group = before.get(&(one.pid, one.started))?.as_ref()?;
            Some((one.pid, Arc::clone(group)))
        });
        let parents: HashMap<u32, Arc<str>> = living.collect();
        for process in all {
            let one = (process.pid, process.started);
            let decided = before.remove(&one);
            let group = match decided {
                Some(Some(group)) => Some(Some(group)),
                // Looked at between fork and exec it had no mark yet.
                Some(None) => Some(self.leaders.get(&process.session).cloned()),
                None => {
                    let led = self.leaders.get(&process.session).or_else(|| parents.get(&process.parent));
                    led.map_or_else(|| marked(process.pid), |group| Some(Some(Arc::clone(group))))
                }
            };
            let Some(group) = group else { continue };
            if let Some(group) = &group {
                self.members.entry(Arc::clone(group)).or_default().push(process.pid);
            }
            self.known.insert(one, group);
        }
    }
}

/// The mark of a process. Not known while it begins a program and so has no environment.
fn marked(pid: u32) -> Option<Option<Arc<str>>> {
    let text = read(Path::new(&format!("/proc/{pid}/environ"))).filter(|text| !text.is_empty())?;
    let mark = text.split('\0').find_map(|variable| variable.strip_prefix(MARK)?.strip_prefix('='));
    Some(mark.map(Arc::from))
}

const MOST: usize = 1 << 22;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_and_blanks_hides_nothing() {
        let rest = "S 7 41 42 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 987654 1000 1";
        let seen = parse(41, &format!("41 (a) Z 9 (b) ) {rest}")).unwrap();
        assert_eq!(seen, Process { pid: 41, parent: 7, session: 42, started: 987_654 });
        assert_eq!(parse(41, &format!("41 (x) {}", rest.replace('S', "Z"))), None);
        assert_eq!(parse(41, "41 (x"), None);
    }
}
