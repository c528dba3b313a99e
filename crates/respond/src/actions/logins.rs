//! The live sessions of an account: found and ended without the help of a session service, which many hosts have not. A
//! process belongs to a login if the system recorded that login for it, if it has a terminal, or if it is the half of the
//! SSH daemon that works for the account; daemons that only run under the account's number are left alone.
//! Invariant: nothing of root is ever ended, and never ourselves.

use std::path::Path;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tld_sys::clock::Deadline;
use tld_sys::durable::read_bounded;

/// Ends them all; how many processes that were, and how many still live.
pub(super) fn end(user: u32) -> (usize, usize) {
    if user == 0 {
        return (0, 0);
    }
    let deadline = Deadline::after(PATIENCE);
    let mut ended = std::collections::HashSet::new();
    loop {
        let living = of_logins(user);
        if living.is_empty() || deadline.passed() {
            return (ended.len(), living.len());
        }
        for pid in living {
            ended.insert(pid);
            if let Some(pid) = Pid::from_raw(pid) {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
        std::thread::sleep(AGAIN);
    }
}

fn of_logins(user: u32) -> Vec<i32> {
    let numbers = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers = numbers.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let own = i32::try_from(std::process::id()).unwrap_or_default();
    numbers.filter(|pid| *pid > 1 && *pid != own && is_of_login(*pid, user)).take(MOST).collect()
}

fn is_of_login(pid: i32, user: u32) -> bool {
    let text = |name: &str| {
        let bytes = read_bounded(&Path::new("/proc").join(pid.to_string()).join(name), FILE).ok()?;
        Some(String::from_utf8_lossy(&bytes).into_owned())
    };
    let Some((stat, status)) = text("stat").zip(text("status")) else { return false };
    let Some((state, terminal)) = parse(&stat) else { return false };
    let real =
        status.lines().find_map(|line| line.strip_prefix("Uid:")?.split_whitespace().next()?.parse().ok());
    if matches!(state, 'Z' | 'X') || real != Some(user) {
        return false;
    }
    let recorded = text("loginuid").is_some_and(|text| text.trim() == user.to_string());
    let ssh = status
        .lines()
        .next()
        .is_some_and(|line| line.strip_prefix("Name:").is_some_and(|name| SSH.contains(&name.trim())));
    recorded || terminal || ssh
}

/// State and whether it has a terminal (proc_pid_stat(5)); the name may hold anything.
fn parse(stat: &str) -> Option<(char, bool)> {
    let mut fields = stat.rsplit_once(") ")?.1.split(' ');
    let state = fields.next()?.chars().next()?;
    Some((state, fields.nth(3)?.parse::<i64>().ok()? != 0))
}

/// What the part of the SSH daemon that runs as the account is called.
const SSH: [&str; 2] = ["sshd", "sshd-session"];
const MOST: usize = 1 << 20;
const FILE: usize = 1 << 16;
const PATIENCE: Duration = Duration::from_secs(3);
const AGAIN: Duration = Duration::from_millis(20);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_terminal_is_found_behind_any_name() {
        assert_eq!(parse("7 (a) Z 1) S 1 7 7 34816 7 0"), Some(('S', true)));
        assert_eq!(parse("7 (sleep) R 1 7 7 0 -1 0"), Some(('R', false)));
        assert_eq!(parse("7 (sleep"), None);
    }
}
