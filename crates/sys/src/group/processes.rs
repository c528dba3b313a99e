//! All processes of the system, and which of them belong to a group that has no place in the kernel.
//!
//! Invariant: a number alone names nobody; a process is its number and the moment of its start.

use std::collections::HashSet;
use std::path::Path;

use super::place::read;

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

/// What is known of one group.
#[derive(Debug)]
pub(super) struct Members {
    mark: String,
    leader: Option<u32>,
    known: HashSet<(u32, u64)>,
    strangers: HashSet<(u32, u64)>,
}

impl Members {
    pub(super) fn new(mark: String) -> Self {
        Self { mark, leader: None, known: HashSet::new(), strangers: HashSet::new() }
    }

    pub(super) fn mark(&self) -> &str {
        &self.mark
    }

    pub(super) fn led_by(&mut self, pid: u32) {
        self.leader = Some(pid);
        // Looked at between fork and exec it had no mark yet.
        self.strangers.clear();
    }

    /// Those among `all` that belong to it.
    pub(super) fn among(&mut self, all: &[Process]) -> Vec<u32> {
        let is = |process: &Process| (process.pid, process.started);
        let living: HashSet<(u32, u64)> = all.iter().map(is).collect();
        self.known.retain(|one| living.contains(one));
        self.strangers.retain(|one| living.contains(one));
        let parents: HashSet<u32> = self.known.iter().map(|(pid, _)| *pid).collect();
        for process in all {
            let one = is(process);
            if self.known.contains(&one) || self.strangers.contains(&one) {
                continue;
            }
            let led = self.leader.is_some_and(|leader| process.session == leader);
            let marked =
                if led || parents.contains(&process.parent) { Some(true) } else { self.marked(process.pid) };
            if marked == Some(true) {
                self.known.insert(one);
            } else if marked.is_some() && self.leader.is_some() {
                self.strangers.insert(one);
            }
        }
        self.known.iter().map(|(pid, _)| *pid).collect()
    }

    /// Not known while it begins a program and so has no environment.
    fn marked(&self, pid: u32) -> Option<bool> {
        let text = read(Path::new(&format!("/proc/{pid}/environ"))).filter(|text| !text.is_empty())?;
        let mark = text.split('\0').find_map(|variable| variable.strip_prefix(MARK)?.strip_prefix('='));
        Some(mark == Some(self.mark.as_str()))
    }
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
