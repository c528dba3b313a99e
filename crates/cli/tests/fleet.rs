//! Two hundred agents on one manager: the size of a fleet at which one agent's trouble would show at the others.

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "tests start programs and may fail loudly"
)]

mod common;

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::time::{Duration, Instant};

use common::fleet::{Peer, Site};
use common::{BINARY, failures, until};
use tld_server::dispatch::ledger::{Filter, State, list};
use tld_sys::tcp;
use tld_wire::key::AgentKey;

const AGENTS: usize = 200;
/// The last ones never read what they are sent.
const SILENT: usize = 10;
const EVENTS: usize = 20;
/// For a busy machine: what is waited for takes a second or two.
const LONG: Duration = Duration::from_secs(90);
/// What the manager may need for all of them, besides what it needs for itself.
const MEMORY: u64 = 96 << 20;
const RULES: &str = "<group name=\"sim,\">\n\
    <rule id=\"100100\" level=\"3\"><match>sim-event </match><description>Numbered.</description></rule>\n</group>\n";
const RESPONSE: &str = "<active-response><command>firewall-drop</command><location>local</location><level>5</level>\
    <timeout>600</timeout></active-response>";

fn registered(site: &Site) -> Vec<AgentKey> {
    let line = |number| format!("{number:03} sim-{number} any {number:064x}");
    let lines: Vec<String> = (1..=AGENTS).map(line).collect();
    fs::write(site.home.at("etc/client.keys"), lines.join("\n") + "\n").unwrap();
    lines.iter().map(|line| line.parse().unwrap()).collect()
}

fn memory(process: u32, field: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).expect("the manager lives");
    let line = status.lines().find(|line| line.starts_with(field)).expect("it has memory");
    line.split_ascii_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
}

fn active(site: &Site) -> usize {
    let mut command = Command::new(BINARY);
    command.args(["agents", "list", "--state", "active", "--json", "--home"]).arg(site.home.path.path());
    String::from_utf8_lossy(&command.output().unwrap().stdout).lines().count()
}

/// Bytes that the kernel holds for these agents on the manager's side, unsent or unread.
fn undelivered(site: &Site, agents: &[Peer]) -> u64 {
    let ports: Vec<String> =
        agents.iter().map(|agent| format!(":{:04X}", agent.stream.local_addr().unwrap().port())).collect();
    let own = format!(":{:04X}", site.port);
    let table = fs::read_to_string("/proc/net/tcp").unwrap()
        + &fs::read_to_string("/proc/net/tcp6").unwrap_or_default();
    let waiting = table.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let (local, remote, queues) = (fields.get(1)?, fields.get(2)?, fields.get(4)?);
        let ours = local.ends_with(&own) && ports.iter().any(|port| remote.ends_with(port));
        u64::from_str_radix(queues.split(':').next()?, 16).ok().filter(|_| ours)
    });
    waiting.sum()
}

/// Sends each of them more than its queue holds, until neither the kernel nor the manager takes any more.
fn fill(site: &Site, silent: &[Peer]) {
    let socket = UnixDatagram::unbound().unwrap();
    let path = site.home.at("queue/alerts/ar");
    // Messages are compressed on their way: only noise fills a queue.
    let mut noise = 1_u32;
    let padding: String = (0..50_000)
        .map(|_| {
            noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            char::from(b'!' + (noise >> 24) as u8 % 94)
        })
        .collect();
    let (mut before, mut same) = (0, 0);
    let send = |times: usize, text: &str| {
        for agent in silent.iter().cycle().take(times * silent.len()) {
            let text = format!("(local_source) [] NRN {} {text}", agent.key.id);
            socket.send_to(text.as_bytes(), &path).unwrap();
        }
    };
    let full = || {
        send(6, &padding);
        std::thread::sleep(Duration::from_millis(50));
        let now = undelivered(site, silent);
        same = if now == before { same + 1 } else { 0 };
        before = now;
        now > 0 && same == 3
    };
    until(LONG, "the queues of agents that do not read are full", full);
    // Nor is there a gap at the end that an order would fit into.
    send(20, &padding[..800]);
}

#[test]
fn two_hundred_agents_are_served_and_those_that_never_read_delay_nobody() {
    tcp::raise_open_files(2_048);
    let site = Site::new(RESPONSE);
    fs::create_dir_all(site.home.at("etc/rules")).unwrap();
    fs::write(site.home.at("etc/rules/local_rules.xml"), RULES).unwrap();
    let keys = registered(&site);
    let service = site.start(None, &[]);
    let process = service.child.id();
    let before = memory(process, "VmRSS:");

    let mut agents: Vec<Peer> = keys.into_iter().map(|key| Peer::connect(site.port, key)).collect();
    let mut silent = agents.split_off(AGENTS - SILENT);
    for agent in &mut silent {
        agent.send(b"#!-agent startup {\"version\":\"v4.14.7\"}");
        agent.keep_alive();
    }
    for agent in &mut agents {
        agent.start();
    }
    until(LONG, "all agents are active", || active(&site) == AGENTS);

    for number in 0..EVENTS {
        for (at, agent) in agents.iter_mut().chain(&mut silent).enumerate() {
            agent.event("/var/log/syslog", &format!("Nov 23 02:00:00 web01 sim[7]: sim-event {at} {number}"));
        }
    }
    let judged = || {
        std::thread::sleep(Duration::from_millis(100));
        site.home.read("logs/alerts/alerts.json").matches(": sim-event ").count()
    };
    until(LONG, "every event is judged", || judged() >= AGENTS * EVENTS);
    assert_eq!(judged(), AGENTS * EVENTS, "each once");

    fill(&site, &silent);
    // Orders for those that do not read wait in the ledger.
    for (at, agent) in silent.iter_mut().enumerate() {
        agent.event("/var/log/auth.log", failures(&format!("198.51.100.{}", at + 1), 1).trim_end());
    }
    let waiting = || {
        let listed = list(site.home.path.path(), &Filter { closed: 100, ..Filter::default() }).unwrap();
        listed
            .iter()
            .filter(|one| one.agent.0 as usize > AGENTS - SILENT && one.state == State::Stored)
            .count()
    };
    until(LONG, "the orders for silent agents wait", || waiting() == SILENT);
    let mut longest = Duration::ZERO;
    for (at, agent) in agents.iter_mut().step_by(10).enumerate() {
        let begin = Instant::now();
        agent.event("/var/log/auth.log", failures(&format!("203.0.113.{}", at + 1), 1).trim_end());
        agent.expect("#!-execd ");
        longest = longest.max(begin.elapsed());
    }
    assert!(longest < Duration::from_secs(10), "an order took {longest:?}");
    assert_eq!(waiting(), SILENT, "the queues were full all the time");
    let grown = memory(process, "VmHWM:").saturating_sub(before);
    let told = format!("longest way of an order {longest:?}; {} KiB more memory at its highest", grown >> 10);
    println!("{told}");
    assert!(grown < MEMORY, "{told}");
    assert_eq!(active(&site), AGENTS);
    assert_eq!(service.stop(), Some(0));
}
