//! The real service under a steady load for a while: its memory must not grow. A minute in the gate; otherwise on demand:
//! `cargo xtask steady`, or `TLD_SOAK_SECONDS` seconds.

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::panic,
    reason = "tests start programs"
)]

mod common;

use std::fs;
use std::time::{Duration, Instant};

use common::Home;

/// A dry run, so that the test needs no firewall: orders take the whole way but the last step.
const RESPONSE: &str = "<active-response><command>firewall-drop</command><location>local</location>\
    <rules_id>5712</rules_id><timeout>600</timeout></active-response>";
/// Seconds in the gate.
const GATE: u64 = 60;
/// Lines of one write, twenty of them a second.
const CHUNK: usize = 250;
/// Lines of one second of the log's own time. No shipped rule looks back further than 120 s, so what is remembered is steady
/// after some ten thousand lines.
const PER_LOG_SECOND: usize = 50;
/// Attacks last.
const LAST: &str = "192.0.2.77";
/// What the allocator may keep in reserve without anything being lost.
const SLACK: u64 = 4 << 20;

/// Lines of logins with ever new addresses and names; some of them cause a response.
fn lines(first: usize) -> String {
    let line = |n: usize| {
        let second = n / PER_LOG_SECOND;
        // Twelve lines of one attacker are enough for an order, six are not.
        let attacker = if n % 400 < 12 { 60_000 + n / 400 } else { n / 8 };
        let day = 1 + second / 86_400 % 28;
        let clock = format!("{:02}:{:02}:{:02}", second / 3600 % 24, second / 60 % 60, second % 60);
        let address =
            format!("198.{}.{}.{}", 18 + attacker / 65_536 % 2, attacker / 256 % 256, attacker % 256);
        match n % 4 {
            0 => format!(
                "2026-11-{day:02}T{clock}.000000+00:00 web01 CRON[{n}]: (root) CMD (run-parts /etc/cron.hourly)\n"
            ),
            _ => format!(
                "2026-11-{day:02}T{clock}.000000+00:00 web01 sshd[{n}]: Invalid user u{attacker} from {address} port {}\n",
                1024 + n % 60_000
            ),
        }
    };
    (first..first + CHUNK).map(line).collect()
}

/// One more attack.
fn lines_of(address: &str, first: usize) -> String {
    let text = lines(first);
    let attack = text.lines().filter(|line| line.contains("sshd")).take(16).map(|line| {
        let (head, rest) = line.split_once(" from ").unwrap();
        let port = rest.split_once(' ').unwrap().1;
        format!("{head} from {address} {port}\n")
    });
    attack.collect::<Vec<_>>().concat()
}

fn resident(process: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).expect("the service lives");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("it has memory");
    line.split_ascii_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
}

fn median(samples: &[u64]) -> u64 {
    let mut sorted = samples.to_vec();
    sorted.sort_unstable();
    sorted[sorted.len() / 2]
}

#[test]
fn memory_does_not_grow_under_a_steady_load() {
    let asked = std::env::var("TLD_SOAK_SECONDS").ok().and_then(|text| text.parse::<u64>().ok());
    let asked = asked.or_else(|| std::env::var_os("TLD_REQUIRE_ALL").map(|_| GATE));
    let Some(seconds) = asked else {
        println!("skipped: runs on demand, `cargo xtask steady` or TLD_SOAK_SECONDS");
        return;
    };
    let home = Home::new(RESPONSE);
    let conf = home.read("etc/ossec.conf").replace("<log_alert_level>3<", "<log_alert_level>10<");
    fs::write(home.at("etc/ossec.conf"), conf).unwrap();
    let service = home.start(None, &["--dry-run", "--log-time"], &[]);
    let process = service.child.id();
    let start = Instant::now();
    let (mut written, mut samples, mut told) = (0, Vec::new(), 0);
    while start.elapsed() < Duration::from_secs(seconds) {
        home.log(&lines(written));
        written += CHUNK;
        samples.push(resident(process));
        if start.elapsed().as_secs() / 60 > told {
            told = start.elapsed().as_secs() / 60;
            println!("{told} min: {written} lines, {} KiB resident", resident(process) >> 10);
        }
        // The load, not a wait for something: a line's way takes less than a millisecond.
        std::thread::sleep(Duration::from_millis(50));
    }
    // Everything that was written must have been judged, else nothing was shown.
    home.log(&lines_of(LAST, written));
    let answered = || home.read("logs/ossec.log").contains(LAST);
    common::until(Duration::from_secs(120), "the last attacker is answered", answered);
    // The first third warms up: caches, the allocator, remembered events up to their horizon.
    let thirds: Vec<u64> = samples.chunks(samples.len().div_ceil(3)).map(median).collect();
    let text: Vec<_> = thirds.iter().map(|bytes| format!("{} KiB", bytes >> 10)).collect();
    println!("{written} lines in {seconds} s; resident by thirds of the time: {}", text.join(", "));
    assert!(service.stop() == Some(0));
    assert!(thirds[2] <= thirds[1] + thirds[1] / 20 + SLACK, "it grows: {}", text.join(", "));
}
