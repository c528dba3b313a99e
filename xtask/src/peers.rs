//! The peers' own programs on the same log, where they are installed. Invariant: processor time of the whole tree of
//! processes, and never a figure for a program that did not run.

use std::fmt::Write as _;
use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result};

use crate::report::generated;

/// Runs of each; the median counts.
const RUNS: usize = 3;
const LINES: &str = "200000";

/// A program, the line that shows it, and how it is fed.
struct Peer {
    name: &'static str,
    program: &'static str,
    arguments: &'static [&'static str],
    /// Arguments behind the path of the log; without a path it reads standard input.
    behind: Option<&'static [&'static str]>,
    does: &'static str,
}

const PEERS: &[Peer] = &[
    Peer {
        name: "fail2ban",
        program: "fail2ban-regex",
        arguments: &[],
        behind: Some(&["sshd"]),
        does: "filter `sshd` on each line, no counting, no bans; includes its start",
    },
    Peer {
        name: "sshguard",
        program: "sshg-parser",
        arguments: &[],
        behind: None,
        does: "parser alone, no counting",
    },
    Peer {
        name: "crowdsec",
        program: "crowdsec",
        arguments: &["-type", "syslog", "-no-api", "-dsn"],
        behind: Some(&[]),
        does: "whole engine; needs a local API that answers",
    },
    Peer {
        name: "OSSEC",
        program: "/var/ossec/bin/ossec-logtest",
        arguments: &["-a"],
        behind: None,
        does: "decode, rules, alerts printed",
    },
];

/// Measures those that are here and names those that are not.
pub(crate) fn measure(out: &mut String, shared: &Path, folder: &Path) -> Result<()> {
    let log =
        generated(shared, folder, "a200k", "gen_authlog.py", &["--lines", LINES, "--attackers", "200"])?;
    writeln!(
        out,
        "### Peers on this machine\n{LINES} sshd lines, 200 attackers; processor time with that of children, median of {RUNS} runs.\n"
    )?;
    let (mut rows, mut absent) = (String::new(), Vec::new());
    for peer in PEERS {
        println!("== {}", peer.name);
        match median(peer, &log)? {
            Some(seconds) => {
                let rate = LINES.parse::<f64>()? / seconds;
                writeln!(rows, "| {} | {} | {} | {rate:.0} |", peer.name, peer.program, peer.does)?;
            }
            None => absent.push(peer.name),
        }
    }
    if !rows.is_empty() {
        writeln!(out, "| peer | program | what it does | lines per CPU second |\n|---|---|---|---|\n{rows}")?;
    }
    if !absent.is_empty() {
        writeln!(out, "Not installed or not able to run here: {}.\n", absent.join(", "))?;
    }
    Ok(())
}

fn median(peer: &Peer, log: &Path) -> Result<Option<f64>> {
    let mut seconds = Vec::new();
    for _ in 0..RUNS {
        let mut command = Command::new(peer.program);
        command.args(peer.arguments).stdout(Stdio::null()).stderr(Stdio::null());
        match peer.behind {
            Some(behind) if peer.name == "crowdsec" => {
                command.arg(format!("file://{}", log.display())).args(behind);
            }
            Some(behind) => {
                command.arg(log).args(behind);
            }
            None => {
                command.stdin(File::open(log)?);
            }
        }
        let before = children()?;
        let Ok(status) = command.env("TZ", "UTC").status() else { return Ok(None) };
        if !status.success() {
            return Ok(None);
        }
        seconds.push(children()? - before);
    }
    seconds.sort_by(f64::total_cmp);
    Ok(seconds.get(RUNS / 2).copied().filter(|seconds| *seconds > 0.0))
}

/// Processor seconds of all children that have ended, user and system.
fn children() -> Result<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").context("cannot read /proc/self/stat")?;
    // The second field is a name in brackets and may hold anything.
    let (_, fields) = stat.rsplit_once(')').context("/proc/self/stat is strange")?;
    let ticks = |number: usize| {
        fields.split_ascii_whitespace().nth(number - 3).and_then(|field| field.parse::<f64>().ok())
    };
    // proc(5): 16 = cutime, 17 = cstime, in hundredths of a second.
    let spent = ticks(16).zip(ticks(17)).context("/proc/self/stat is short")?;
    Ok((spent.0 + spent.1) / 100.0)
}
