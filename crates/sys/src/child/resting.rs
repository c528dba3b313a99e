//! Whether a child rests: it and all its descendants sleep. For whoever shares a bounded number of places among children.
//!
//! Invariant: when in doubt it does not rest.

use std::path::Path;
use std::time::Duration;

use crate::durable::read_bounded;

/// Processes and threads that are looked at.
const MOST: usize = 32;
const TEXT: usize = 1 << 14;

/// A child and its descendants, none of which wants the processor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resting {
    /// Processor time of all of them: the same at a later look means that none worked in between.
    pub ran: Duration,
    /// Memory that is theirs alone, in bytes.
    pub memory: u64,
}

/// `None` if one of them works, waits for the disk, or cannot be looked at.
#[must_use]
pub fn resting(pid: u32) -> Option<Resting> {
    let page = page_size();
    let mut all = Resting { ran: Duration::ZERO, memory: 0 };
    let mut left = vec![pid];
    let mut seen = 0;
    while let Some(pid) = left.pop() {
        let process = format!("/proc/{pid}");
        let (state, threads) = state(&read(&format!("{process}/stat"))?)?;
        seen += threads;
        if state == Some(Sleep::Ended) {
            continue;
        }
        if state.is_none() || seen + left.len() > MOST {
            return None;
        }
        all.ran += processor_time(pid)?;
        all.memory += own_pages(&read(&format!("{process}/statm"))?)? * page;
        if threads == 1 {
            left.extend(children(&read(&format!("{process}/task/{pid}/children"))?));
            continue;
        }
        for thread in std::fs::read_dir(format!("{process}/task")).ok()?.take(MOST) {
            let thread = thread.ok()?.path();
            let of_thread = |name: &str| read(thread.join(name).to_str()?);
            state_of(&of_thread("stat")?)?;
            left.extend(children(&of_thread("children")?));
        }
    }
    Some(all)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sleep {
    Asleep,
    Ended,
}

/// The state, `None` for one that works, and the number of threads, of a line of `/proc/<pid>/stat`.
fn state(line: &str) -> Option<(Option<Sleep>, usize)> {
    let mut fields = line.rsplit_once(") ")?.1.split(' ');
    let state = match fields.next()? {
        "S" | "T" | "t" | "I" => Some(Sleep::Asleep),
        "Z" | "X" => Some(Sleep::Ended),
        _ => None,
    };
    // Field 20; the state is field 3.
    Some((state, fields.nth(16)?.parse().ok()?))
}

fn state_of(line: &str) -> Option<Sleep> {
    state(line)?.0
}

fn own_pages(line: &str) -> Option<u64> {
    let mut fields = line.split(' ').skip(1).map(|field| field.trim().parse::<u64>().ok());
    Some(fields.next()??.saturating_sub(fields.next()??))
}

fn children(line: &str) -> Vec<u32> {
    line.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).take(MOST).collect()
}

fn read(path: &str) -> Option<String> {
    Some(String::from_utf8_lossy(&read_bounded(Path::new(path), TEXT).ok()?).into_owned())
}

fn page_size() -> u64 {
    // SAFETY: asks for a number and touches no memory of ours.
    #[expect(unsafe_code, reason = "no safe call for it")]
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    u64::try_from(size).unwrap_or(4_096)
}

fn processor_time(pid: u32) -> Option<Duration> {
    let mut clock = 0;
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the calls write a number and a time to what they are given.
    #[expect(unsafe_code, reason = "no safe call reads another process's clock")]
    let failed = unsafe {
        libc::clock_getcpuclockid(pid.cast_signed(), &raw mut clock) != 0
            || libc::clock_gettime(clock, &raw mut time) != 0
    };
    if failed {
        return None;
    }
    Some(Duration::new(u64::try_from(time.tv_sec).ok()?, u32::try_from(time.tv_nsec).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::child::{Child, Spec, Stdin, Stdout, spawn};
    use crate::clock::{Clock as _, SystemClock};

    fn shell(body: &str) -> Child {
        let mut spec = Spec { stdin: Stdin::Pipe, stdout: Stdout::Pipe, ..Spec::new(Path::new("/bin/sh")) };
        spec.args = vec!["-c".into(), body.into()];
        spawn(&spec).unwrap()
    }

    /// Two looks in a row that agree.
    fn comes_to_rest(pid: u32) -> bool {
        let end = SystemClock.boot() + Duration::from_secs(30);
        while SystemClock.boot() < end {
            let before = resting(pid);
            let _ = crate::ready::readable(&[], Duration::from_millis(10));
            if before.is_some() && before == resting(pid) {
                return true;
            }
        }
        false
    }

    #[test]
    fn one_that_waits_for_its_input_or_for_a_sleeping_descendant_rests() {
        for body in ["read line", "sleep 600; true", "(sleep 600; true) & wait"] {
            let mut child = shell(body);
            assert!(comes_to_rest(child.pid), "{body}");
            child.kill_group().unwrap();
            assert!(child.wait_deadline(Duration::from_secs(30)).unwrap().is_some());
            assert_eq!(resting(child.pid), None, "it is gone");
        }
    }

    #[test]
    fn one_whose_descendant_works_never_shows_the_same_twice() {
        let mut child = shell("(while :; do :; done) & wait");
        let mut agreed = 0;
        for _ in 0..20 {
            let before = resting(child.pid);
            let _ = crate::ready::readable(&[], Duration::from_millis(30));
            agreed += usize::from(before.is_some() && before == resting(child.pid));
        }
        child.kill_group().unwrap();
        child.wait_deadline(Duration::from_secs(30)).unwrap();
        // The shell may not have begun to work at the first look.
        assert!(agreed <= 1, "{agreed}");
    }

    #[test]
    fn lines_of_the_kernel_are_read_whatever_the_name_holds() {
        let rest = "7 41 42 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 3 0 987654 1000 1";
        assert_eq!(state(&format!("41 (a) R (b) ) S {rest}")), Some((Some(Sleep::Asleep), 3)));
        assert_eq!(state(&format!("41 (x) R {rest}")), Some((None, 3)));
        assert_eq!(state(&format!("41 (x) D {rest}")), Some((None, 3)));
        assert_eq!(state(&format!("41 (x) Z {rest}")), Some((Some(Sleep::Ended), 3)));
        assert_eq!(state("41 (x"), None);
        assert_eq!(own_pages("1000 300 200 5 0 80 0\n"), Some(100));
        assert_eq!(own_pages(""), None);
        assert_eq!(children("1 22 x 333 "), [1, 22, 333]);
    }
}
