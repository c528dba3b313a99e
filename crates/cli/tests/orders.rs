//! Orders of a real manager to agents that speak the contract's bytes, with and without our extension, and what becomes of them.

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
use std::net::UdpSocket;
use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::time::{Duration, Instant};

use common::fleet::{Peer, Site, free_port};
use common::{BINARY, failures, until};
use tld_model::{Evidence, OrderId, Outcome, OutcomeKind, Target, Timestamp, Timings};
use tld_server::dispatch::ledger::{Filter, Listed, State, list};
use tld_wire::control::{FromAgent, FromManager};
use tld_wire::extension::{self, Ticket};

const LONG: Duration = common::PATIENCE;
const LOG: &str = "/var/ossec/logs/active-responses.log";

fn response(location: &str, more: &str) -> String {
    format!(
        "<active-response><command>firewall-drop</command><location>{location}</location><level>5</level>\
         <timeout>600</timeout>{more}</active-response>"
    )
}

fn listed(site: &Site) -> Vec<Listed> {
    list(site.home.path.path(), &Filter { closed: 100, ..Filter::default() }).unwrap()
}

#[track_caller]
fn becomes(site: &Site, agent: u32, kind: OutcomeKind) -> Listed {
    let find = || {
        let is = |outcome: &Option<Outcome>| outcome.as_ref().is_some_and(|outcome| outcome.kind == kind);
        listed(site).into_iter().find(|one| one.agent.0 == agent && (is(&one.outcome) || is(&one.ending)))
    };
    until(LONG, &format!("the order of agent {agent} is {kind}"), || find().is_some());
    find().unwrap()
}

/// The JSON of the next order.
fn order(peer: &mut Peer) -> serde_json::Value {
    let payload = peer.expect("#!-execd ");
    serde_json::from_slice(&payload[b"#!-execd ".len()..]).unwrap()
}

fn ticket(order: &serde_json::Value) -> Ticket {
    serde_json::from_value(order["threatlockdown"].clone()).unwrap()
}

fn report(peer: &mut Peer, order: &OrderId, kind: OutcomeKind, until: Option<Timestamp>) {
    let outcome = Outcome {
        order: order.clone(),
        kind,
        response: "firewall-drop600".into(),
        program: "active-response/bin/firewall-drop".into(),
        target: Target::Address([198, 51, 100, 9].into()),
        alert_id: String::new(),
        rule: None,
        detail: "done".into(),
        evidence: Evidence { read_back: Some("in the set".into()), ..Evidence::default() },
        at: Timestamp::EPOCH,
        until,
        timings: Timings::default(),
    };
    let message = extension::FromAgent::Outcome(Box::new(outcome));
    peer.send(&FromAgent::Extension(message).to_bytes());
}

fn far() -> Option<Timestamp> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    Some(Timestamp::from_secs(i64::try_from(now.as_secs()).unwrap() + 600))
}

fn said(verb: &str, alert: &serde_json::Value) -> String {
    let message = serde_json::json!({
        "version": 1, "origin": {"name": "", "module": "wazuh-execd"}, "command": verb,
        "parameters": {"extra_args": [], "alert": alert, "program": "active-response/bin/firewall-drop"},
    });
    message.to_string()
}

#[test]
fn a_plain_agent_gets_the_contracts_bytes_and_its_log_tells_the_outcome() {
    let site = Site::new(&response("local", ""));
    let _service = site.start(None, &[]);
    let mut agent = site.agent("web-01");
    let begin = Instant::now();
    agent.event("/var/log/auth.log", failures("198.51.100.9", 1).trim_end());
    let order = order(&mut agent);
    println!("from the event on the wire to the order on the wire: {:?}", begin.elapsed());
    assert_eq!(order["command"], "firewall-drop600");
    assert_eq!(order["origin"], serde_json::json!({"name": "undefined", "module": "wazuh-analysisd"}));
    assert!(order.get("threatlockdown").is_none());
    let alert = &order["parameters"]["alert"];
    assert_eq!((&alert["agent"]["id"], &alert["data"]["srcip"]), (&"001".into(), &"198.51.100.9".into()));
    let line = |text: &str| format!("2026/03/02 10:15:31 active-response/bin/firewall-drop: {text}");
    for text in ["Starting", &said("add", alert), &said("continue", alert), "Ended"] {
        agent.event(LOG, &line(text));
    }
    let applied = becomes(&site, 1, OutcomeKind::Applied);
    assert_eq!((applied.state, applied.plain), (State::Active, true));
    for text in ["Starting", &said("delete", alert), "Ended"] {
        agent.event(LOG, &line(text));
    }
    assert_eq!(becomes(&site, 1, OutcomeKind::Reverted).state, State::Closed);
}

#[test]
fn an_agent_of_ours_confirms_and_a_killed_manager_goes_on_where_it_was() {
    let site = Site::new(&response("local", ""));
    let service = site.start(None, &[]);
    let key = site.enrol("web-01");
    let mut agent = Peer::connect(site.port, key.clone());
    agent.start_confirming();
    agent.event("/var/log/auth.log", failures("198.51.100.9", 1).trim_end());
    let first = ticket(&order(&mut agent));
    assert!(first.deadline_ns.is_some());
    service.kill();
    let _service = site.start(None, &[]);
    let counter = agent.counter;
    let mut agent = Peer::connect(site.port, key);
    agent.counter = counter;
    agent.start_confirming();
    let again = ticket(&order(&mut agent));
    assert_eq!(again.order, first.order, "sent again under its id, so that it acts once");
    agent.send(
        &FromAgent::Extension(extension::FromAgent::Received { order: first.order.clone() }).to_bytes(),
    );
    until(LONG, "it is received", || listed(&site).iter().any(|one| one.state == State::Received));
    report(&mut agent, &first.order, OutcomeKind::Applied, far());
    let applied = becomes(&site, 1, OutcomeKind::Applied);
    assert_eq!(applied.outcome.unwrap().evidence.read_back.as_deref(), Some("in the set"));
    report(&mut agent, &first.order, OutcomeKind::Reverted, None);
    assert_eq!(becomes(&site, 1, OutcomeKind::Reverted).state, State::Closed);
}

#[test]
fn each_location_reaches_whom_it_names_and_all_reaches_who_comes_back() {
    let responses = [
        "<command><name>other</name><executable>host-deny</executable><timeout_allowed>yes</timeout_allowed></command>",
        &response("all", ""),
        "<active-response><command>other</command><location>defined-agent</location><agent_id>002</agent_id>\
         <level>5</level></active-response>",
        "<active-response><command>firewall-drop</command><location>server</location><level>5</level>\
         <timeout>300</timeout></active-response>",
    ];
    let site = Site::new(&responses.concat());
    let _service = site.start(None, &[]);
    let mut web = site.agent("web");
    let mut database = site.agent("db");
    let late = site.enrol("late");
    web.event("/var/log/auth.log", failures("198.51.100.9", 1).trim_end());
    assert_eq!(order(&mut web)["command"], "firewall-drop600");
    let mut both = [order(&mut database), order(&mut database)].map(|one| one["command"].to_string());
    both.sort();
    assert_eq!(both, ["\"firewall-drop600\"", "\"other0\""]);
    let mut late = Peer::connect(site.port, late);
    late.start();
    assert_eq!(order(&mut late)["command"], "firewall-drop600");
    until(LONG, "the manager's own responder has answered", || {
        listed(&site).iter().any(|one| one.agent.0 == 0 && one.outcome.is_some())
    });
}

#[test]
fn what_other_tools_send_to_agents_arrives_unchanged() {
    let site = Site::new("");
    let _service = site.start(None, &[]);
    let mut agent = site.agent("web-01");
    let text = "dummy-ar admin 1.1.1.1 1.1 44 (any-agent) any->/testing/testing.txt - -";
    let socket = UnixDatagram::unbound().unwrap();
    let path = site.home.at("queue/alerts/ar");
    // Peer cases F1 to F4, by TCP.
    socket.send_to(format!("(local_source) [] NRN 001 {text}\0").as_bytes(), &path).unwrap();
    assert_eq!(agent.expect("#!-execd "), format!("#!-execd {text}").into_bytes());
    // Peer cases F5 to F8, by UDP.
    let mut peer = Peer::connect(site.port, site.enrol("by-udp"));
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    udp.set_read_timeout(Some(LONG)).unwrap();
    let mut buffer = [0; 2_048];
    let startup = peer.seal(b"#!-agent startup {\"version\":\"v4.14.7\"}");
    udp.send_to(&startup, ("127.0.0.1", site.port)).unwrap();
    udp.recv(&mut buffer).unwrap();
    let alive = peer.seal(b"#!-Linux |by-udp |6.1 |#1 |x86_64 - Wazuh v4.14.7\nx merged.mg\n");
    udp.send_to(&alive, ("127.0.0.1", site.port)).unwrap();
    udp.recv(&mut buffer).unwrap();
    socket.send_to(format!("(local_source) [] NRN 002 {text}").as_bytes(), &path).unwrap();
    loop {
        let length = udp.recv(&mut buffer).unwrap();
        if peer.open(&buffer[..length]) == format!("#!-execd {text}").as_bytes() {
            break;
        }
    }
}

#[test]
fn tools_events_and_syslog_from_the_network_are_judged() {
    let port = free_port();
    let site = Site::new(&format!(
        "<remote><connection>syslog</connection><port>{port}</port><protocol>udp</protocol>\
         <allowed-ips>127.0.0.1</allowed-ips><local_ip>127.0.0.1</local_ip></remote>"
    ));
    let _service = site.start(None, &[]);
    let line = failures("198.51.100.9", 1);
    UdpSocket::bind("127.0.0.1:0")
        .unwrap()
        .send_to(format!("<38>{line}").as_bytes(), ("127.0.0.1", port))
        .unwrap();
    until(LONG, "syslog makes an alert", || {
        site.home
            .alerts()
            .iter()
            .any(|alert| alert["location"] == "127.0.0.1" && alert["agent"]["id"] == "000")
    });
    let event = format!("1:/var/log/tool.log:{}\0", failures("198.51.100.8", 1).trim_end());
    UnixDatagram::unbound().unwrap().send_to(event.as_bytes(), site.home.at("queue/sockets/queue")).unwrap();
    until(LONG, "the tool's event makes an alert", || {
        site.home.alerts().iter().any(|alert| alert["location"] == "/var/log/tool.log")
    });
}

/// Peer cases B1 to B4, with the mode that the operator's guide gives.
#[test]
fn responses_follow_plain_overwritten_and_child_rules() {
    let custom = "<command><name>custom-ar</name><executable>custom-ar.sh</executable><timeout_allowed>no</timeout_allowed></command>\
        <active-response><disabled>no</disabled><command>custom-ar</command><location>local</location>\
        <rules_id>100000,100002,100004,100005</rules_id></active-response>";
    let site = Site::new(custom);
    fs::create_dir_all(site.home.at("etc/rules")).unwrap();
    let rule = |id: u32, level: u8, more: &str, parent: &str, text: &str| {
        format!(
            "<rule id=\"{id}\" level=\"{level}\"{more}>{parent}<match>{text}</match><description>Test.</description></rule>"
        )
    };
    let child = |of: u32| format!("<if_sid>{of}</if_sid>");
    let rules = [
        rule(100_000, 10, "", "", "TEST 1"),
        rule(100_001, 3, "", "", "TEST 2"),
        rule(100_002, 10, "", "", "TEST 3"),
        rule(100_002, 6, " overwrite=\"yes\"", "", "TEST 4"),
        rule(100_003, 4, "", &child(100_001), "TEST 5"),
        rule(100_004, 5, "", &child(100_003), "TEST 6"),
        rule(100_005, 7, "", &child(100_002), "TEST 7"),
    ];
    let text = format!("<group name=\"test,\">{}</group>", rules.concat());
    fs::write(site.home.at("etc/rules/local_rules.xml"), text).unwrap();
    let marker = site.home.at("marker");
    site.home.script("custom-ar.sh", &format!("#!/bin/sh\ntouch {}\n", marker.display()));
    let _service = site.start(None, &[]);
    for (case, line) in
        [("B1", "TEST 1"), ("B2", "TEST 4"), ("B3", "TEST 2 TEST 5 TEST 6"), ("B4", "TEST 4 TEST 7")]
    {
        let _ = fs::remove_file(&marker);
        site.home.log(&format!("{line}\n"));
        until(LONG, &format!("{case} ran"), || marker.exists());
    }
    until(LONG, "each has its outcome in the ledger", || {
        let listed = listed(&site);
        listed.len() == 4 && listed.iter().all(|one| one.agent.0 == 0 && one.outcome.is_some())
    });
}

fn tool(site: &Site, arguments: &[&str]) -> (bool, String) {
    let output =
        Command::new(BINARY).args(arguments).arg("--home").arg(site.home.path.path()).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

#[test]
fn an_operator_orders_lists_and_undoes_on_agents() {
    let site = Site::new(&response("local", ""));
    let _service = site.start(None, &[]);
    let mut agent = Peer::connect(site.port, site.enrol("web-01"));
    agent.start_confirming();
    let home = site.home.path.path().to_path_buf();
    let asking = std::thread::spawn(move || {
        let arguments =
            ["responses", "add", "firewall-drop", "198.51.100.9", "--for", "600", "--agent", "001", "--home"];
        Command::new(BINARY).args(arguments).arg(home).output().unwrap()
    });
    let order = order(&mut agent);
    assert_eq!(order["command"], "firewall-drop600");
    let order = ticket(&order).order;
    report(&mut agent, &order, OutcomeKind::Applied, far());
    let output = asking.join().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success() && text.contains("applied firewall-drop600 198.51.100.9 by agent 001"),
        "{output:?}"
    );

    let (_, text) = tool(&site, &["responses", "list", "--json"]);
    let line: serde_json::Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    assert_eq!((&line["agent"], &line["state"]), (&"001".into(), &"active".into()), "{text}");
    let (_, text) = tool(&site, &["responses", "show", "198.51.100.9"]);
    assert!(text.contains("by agent 001, active") && text.contains("evidence: in the set"), "{text}");

    let home = site.home.path.path().to_path_buf();
    let asking = std::thread::spawn(move || {
        let arguments = ["responses", "revert", "198.51.100.9", "--agent", "001", "--home"];
        Command::new(BINARY).args(arguments).arg(home).output().unwrap()
    });
    // Confirmations come in between.
    let cancel = FromManager::Extension(extension::FromManager::Cancel { order: order.clone() }).to_bytes();
    until(LONG, "the order is withdrawn", || agent.expect("#!-threatlockdown ") == cancel);
    report(&mut agent, &order, OutcomeKind::Reverted, None);
    let output = asking.join().unwrap();
    assert!(output.status.success(), "{output:?}");
    let (well, text) =
        tool(&site, &["responses", "add", "firewall-drop", "198.51.100.9", "--for", "7", "--agent", "001"]);
    assert!(!well && text.contains("configured are: firewall-drop600"), "{text}");
    let (well, text) = tool(&site, &["responses", "add", "firewall-drop600", "127.0.0.1", "--agent", "001"]);
    assert!(!well && text.contains("allow-listed"), "{text}");
}
