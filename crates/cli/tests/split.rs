//! Least privilege: what reads attackers' text runs as another user, the responder keeps root, and neither lives without the other.

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "tests start programs"
)]

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use common::fleet::{Peer, Site, agent_home, start_agent};
use common::{Home, Host, PATIENCE, failures, in_time, namespaces, until};
use tld_server::dispatch::ledger::{Filter, State, list};
use tld_wire::control::FromAgent;
use tld_wire::extension::{self, Ticket};

const SECOND: Duration = Duration::from_secs(1);

/// Process id, user id, and whether it is the part without root.
type Part = (u32, u32, bool);

/// Process ids and user ids of the processes of service `form` on this home, and whether it is the part without root.
fn processes(home: &Home, form: &str) -> Vec<Part> {
    let program = format!("threatlockdown {form}");
    let wanted = home.path.path().display().to_string();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
        let command = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        if !command.contains(&wanted) || !command.contains(&program) || command.starts_with("ip ") {
            continue;
        }
        let status = fs::read_to_string(entry.path().join("status")).unwrap_or_default();
        let uid = status
            .lines()
            .find_map(|line| line.strip_prefix("Uid:"))
            .and_then(|ids| ids.split_whitespace().nth(1));
        found.push((pid, uid.unwrap_or("0").parse().unwrap(), command.contains("--behind-responder")));
    }
    found
}

#[test]
fn the_reader_of_logs_has_no_root_and_the_block_is_real() {
    if !namespaces() {
        return;
    }
    let response = "<active-response><command>firewall-drop</command><location>local</location>\
        <rules_id>5712,5720,5763,5551</rules_id><timeout>600</timeout></active-response>";
    let (host, home) = (Host::new("srv"), Home::new(response));
    // As logs are on real hosts: not for everyone.
    fs::set_permissions(home.at("auth.log"), fs::Permissions::from_mode(0o600)).unwrap();
    let mut service = home.start(Some(&host), &["--user", "nobody"], &[]);
    let (parts, reader) = with_reader(&home, "standalone");
    assert_ne!(reader.1, 0, "the analysis is not root: {parts:?}");
    assert!(parts.iter().any(|(_, uid, behind)| !behind && *uid == 0), "the responder is root: {parts:?}");

    in_time("blocked within two seconds", |round| {
        let attacker = format!("203.0.113.{}", 30 + round);
        home.log(&failures(&attacker, 10));
        let took = until(PATIENCE, &format!("blocked; {}", home.read("service.out")), || {
            host.blocked().contains(&attacker.parse().unwrap())
        });
        until(PATIENCE, "the alert is written", || {
            home.alerts().iter().any(|alert| alert["data"]["srcip"] == *attacker)
        });
        took < 2 * SECOND
    });

    // Without its reader the responder does not pretend to serve; the block stays.
    kill(reader.0);
    until(PATIENCE, "the service ends when its reader is gone", || {
        service.child.try_wait().unwrap().is_some()
    });
    assert!(host.blocked().contains(&"203.0.113.30".parse().unwrap()));
}

/// The processes once the reader is among them, and the reader.
fn with_reader(home: &Home, form: &str) -> (Vec<Part>, Part) {
    let (mut parts, mut reader) = (Vec::new(), None);
    until(PATIENCE, "the reader runs", || {
        parts = processes(home, form);
        reader = parts.iter().find(|(_, _, behind)| *behind).copied();
        reader.is_some()
    });
    (parts, reader.unwrap())
}

fn kill(process: u32) {
    assert!(
        std::process::Command::new("kill").args(["-KILL", &process.to_string()]).status().unwrap().success()
    );
}

#[test]
fn what_an_agent_reads_is_read_without_root_and_its_blocks_are_real() {
    if !namespaces() {
        return;
    }
    let (far, near) = (Host::new("manager"), Host::new("agent"));
    far.connect(&near, "10.78.0.1/24", "10.78.0.2/24");
    let site = Site::new(
        "<active-response><command>firewall-drop</command><location>local</location><level>5</level>\
         <timeout>600</timeout></active-response>",
    );
    let manager = site.start(Some(&far), &[]);
    let home = agent_home("10.78.0.1", &site, "web-01", 1);
    fs::set_permissions(home.at("auth.log"), fs::Permissions::from_mode(0o600)).unwrap();
    // A run in one process before: its spool belongs to root.
    let agent = start_agent(&home, Some(&near), &["--user", "absent"]);
    assert_eq!(agent.stop(), Some(0));
    let mut agent = start_agent(&home, Some(&near), &["--user", "nobody"]);
    let (parts, reader) = with_reader(&home, "agent");
    assert_ne!(reader.1, 0, "the reader is not root: {parts:?}");
    assert!(parts.iter().any(|(_, uid, behind)| !behind && *uid == 0), "the responder is root: {parts:?}");
    until(PATIENCE, "it enrols and connects", || {
        home.read("logs/ossec.log").contains("connected to the server")
    });
    home.log(&failures("203.0.113.31", 8));
    let attacker = "203.0.113.31".parse().unwrap();
    until(PATIENCE, &format!("blocked; {}", home.read("service.out")), || near.blocked().contains(&attacker));
    until(PATIENCE, "the manager has heard of it, and the responder that it has", || {
        let listed = list(site.home.path.path(), &Filter::default()).unwrap();
        let applied = listed.iter().any(|one| one.order.target.to_string().contains("203.0.113.31"));
        applied && tld_respond::journal::unconfirmed(home.path.path()).ok() == Some(0)
    });
    let said = home.read("service.out");
    assert!(!said.contains("Permission denied"), "{said}");

    kill(reader.0);
    until(PATIENCE, "the agent ends when its reader is gone", || agent.child.try_wait().unwrap().is_some());
    assert!(near.blocked().contains(&attacker));
    assert_eq!(start_agent(&home, Some(&near), &["--user", "nobody"]).stop(), Some(0));
    drop(manager);
}

#[test]
fn a_manager_without_root_enrols_agents_and_keeps_their_dates() {
    if !namespaces() {
        return;
    }
    let site = Site::new("");
    let service = site.start(None, &["--user", "nobody"]);
    let mut agent = site.agent("web-01");
    assert!(site.home.read("queue/agents-timestamp").starts_with("001 web-01 any "));
    agent.event("/var/log/auth.log", failures("198.51.100.9", 1).trim_end());
    until(PATIENCE, &format!("an alert; {}", site.home.read("service.out")), || {
        site.home.alerts().iter().any(|alert| alert["agent"]["name"] == "web-01")
    });
    let said = site.home.read("service.out");
    assert!(!said.contains("Permission denied"), "{said}");
    assert_eq!(service.stop(), Some(0));
}

#[test]
fn a_manager_without_root_orders_and_hears_what_became_of_it() {
    if !namespaces() {
        return;
    }
    let response = "<active-response><command>firewall-drop</command><location>local</location><level>5</level>\
        <timeout>600</timeout></active-response>";
    let site = Site::new(response);
    let service = site.start(None, &["--user", "nobody"]);
    let mut agent = Peer::connect(site.port, site.enrol("web-01"));
    agent.start_confirming();
    agent.event("/var/log/auth.log", failures("198.51.100.9", 1).trim_end());
    let payload = agent.expect("#!-execd ");
    let order: serde_json::Value = serde_json::from_slice(&payload[b"#!-execd ".len()..]).unwrap();
    let ticket: Ticket = serde_json::from_value(order["threatlockdown"].clone()).unwrap();
    let received = extension::FromAgent::Received { order: ticket.order.clone() };
    agent.send(&FromAgent::Extension(received).to_bytes());
    until(PATIENCE, &format!("it is received; {}", site.home.read("service.out")), || {
        let listed = list(site.home.path.path(), &Filter::default()).unwrap();
        listed.iter().any(|one| one.order.id == ticket.order && one.state == State::Received)
    });
    let said = site.home.read("service.out");
    assert!(!said.contains("Permission denied"), "{said}");
    assert_eq!(service.stop(), Some(0));
}
