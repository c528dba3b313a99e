//! The manager with agents: the real binary, and agents that speak the contract's bytes.

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
use std::io::{Read as _, Write as _};
use std::net::{TcpStream, UdpSocket};
use std::process::Command;
use std::time::Duration;

use common::fleet::{Peer, Site, enrol, read_frame};
use common::{BINARY, PATIENCE, failures, until};
use tld_wire::frame;
use tld_wire::seal::Method;

const SECOND: Duration = Duration::from_secs(1);

fn shown(site: &Site, agent: &str) -> serde_json::Value {
    let output = Command::new(BINARY)
        .args(["agents", "show", agent, "--json", "--home"])
        .arg(site.home.path.path())
        .output()
        .unwrap();
    serde_json::from_slice(&output.stdout).unwrap_or_default()
}

#[test]
fn an_agents_event_becomes_an_alert_that_names_agent_manager_and_place() {
    let site = Site::new("");
    let service = site.start(None, &[]);
    let mut agent = site.agent("web-01");
    agent.event("/var/log/auth.log", failures("198.51.100.9", 1).trim_end());
    until(PATIENCE, "the alert is written", || !site.home.alerts().is_empty());
    let alert = &site.home.alerts()[0];
    assert_eq!(alert["agent"]["id"], "001");
    assert_eq!(alert["agent"]["name"], "web-01");
    assert_eq!(alert["agent"]["ip"], "192.0.2.77");
    assert_eq!(alert["manager"]["name"], tld_sys::host::name());
    assert_eq!(alert["location"], "/var/log/auth.log");
    assert_eq!(alert["data"]["srcip"], "198.51.100.9");
    until(PATIENCE, "other tools see the state", || shown(&site, "web-01")["status"] == "active");
    assert_eq!(shown(&site, "001")["version"], "v4.14.7");

    agent.send(b"#!-agent shutdown ");
    until(PATIENCE, "the goodbye is an alert", || {
        site.home.alerts().iter().any(|alert| {
            alert["full_log"].as_str().unwrap_or_default().contains("Agent stopped: 'web-01->any'.")
        })
    });
    until(PATIENCE, "the state is known", || shown(&site, "web-01")["status"] == "disconnected");
    assert_eq!(shown(&site, "web-01")["status_code"], 3);
    assert_eq!(service.stop(), Some(0));
}

#[test]
fn both_ciphers_both_protocols_and_probes_in_clear_are_answered() {
    let site = Site::new("");
    let _service = site.start(None, &[]);
    let mut old = Peer::connect(site.port, site.enrol("old"));
    old.method = Method::Blowfish;
    old.start();

    let mut stream = TcpStream::connect(("127.0.0.1", site.port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(&frame::encode(b"#ping").unwrap()).unwrap();
    assert_eq!(read_frame(&mut stream).unwrap(), b"#pong");

    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut buffer = [0; 1024];
    socket.send_to(b"#ping", ("127.0.0.1", site.port)).unwrap();
    assert_eq!(socket.recv(&mut buffer).unwrap(), 5);
    let mut peer = Peer::connect(site.port, site.enrol("by-udp"));
    let startup = peer.seal(b"#!-agent startup {\"version\":\"v4.14.7\"}");
    socket.send_to(&startup, ("127.0.0.1", site.port)).unwrap();
    let length = socket.recv(&mut buffer).unwrap();
    assert!(buffer[..length].starts_with(b"#AES:"));
    let event = peer.seal(format!("1:/var/log/auth.log:{}", failures("198.51.100.7", 1)).as_bytes());
    socket.send_to(&event, ("127.0.0.1", site.port)).unwrap();
    until(PATIENCE, "the alert is written", || {
        site.home.alerts().iter().any(|alert| alert["agent"]["name"] == "by-udp")
    });
}

#[test]
fn strangers_second_connections_and_damage_are_turned_away_and_delay_nobody() {
    let site = Site::new("");
    let _service = site.start(None, &[]);
    let mut agent = site.agent("web-01");
    // The same key again, while its connection lives.
    let mut second = Peer::connect(site.port, agent.key.clone());
    second.send(b"#!-agent startup {\"version\":\"v4.14.7\"}");
    assert_eq!(second.receive(), None);
    // A key that is registered for another address.
    let elsewhere = enrol(site.home.path.path(), "elsewhere", "192.0.2.0/24");
    let mut stranger = Peer::connect(site.port, elsewhere);
    stranger.send(b"#!-agent startup {\"version\":\"v4.14.7\"}");
    assert_eq!(stranger.receive(), None);
    for bytes in [&b"\xff\xff\xff\xff"[..], b"\x05\x00\x00\x00hello", b"\x09\x00\x00\x00!999!#AES"] {
        let mut stream = TcpStream::connect(("127.0.0.1", site.port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(bytes).unwrap();
        assert_eq!(stream.read(&mut [0; 8]).unwrap_or(0), 0, "closed");
    }
    // A version above the manager's is refused in words, and the connection stays.
    let mut newer = Peer::connect(site.port, site.enrol("newer"));
    newer.send(b"#!-agent startup {\"version\":\"v4.99.0\"}");
    let refusal = String::from_utf8(newer.receive().unwrap()).unwrap();
    assert_eq!(refusal, "#!-err {\"message\":\"Agent version must be lower or equal to manager version\"}");
    until(PATIENCE, "the refusal is shown", || shown(&site, "newer")["status_code"] == 1);

    agent.keep_alive();
    // Past the files that its group has for it.
    agent.expect("#!-agent ack ");
}

#[test]
fn a_removed_agent_loses_its_connection_and_a_restart_goes_on_counting() {
    let site = Site::new("");
    let service = site.start(None, &[]);
    let mut agent = site.agent("web-01");
    let key = agent.key.clone();
    assert_eq!(service.stop(), Some(0));
    while agent.receive().is_some() {}
    let before = fs::read_to_string(site.home.at("queue/rids/sender_counter")).unwrap();
    let service = site.start(None, &[]);
    assert_ne!(before, fs::read_to_string(site.home.at("queue/rids/sender_counter")).unwrap());
    let mut again = Peer::connect(site.port, key);
    again.start();
    let removed = Command::new(BINARY)
        .args(["agents", "remove", "web-01", "--home"])
        .arg(site.home.path.path())
        .output()
        .unwrap();
    assert!(removed.status.success());
    let begin = std::time::Instant::now();
    while again.receive().is_some() {}
    assert!(begin.elapsed() < PATIENCE - SECOND, "closed, not only silent");
    assert_eq!(service.stop(), Some(0));
}

/// Keep-alives, as an agent sends them, until a file with that text comes.
fn pushed_anew(agent: &mut Peer, text: &str) {
    until(PATIENCE, &format!("a file with `{text}` is pushed"), || {
        agent.keep_alive();
        agent.expect("#!-agent ack ");
        agent.stream.set_read_timeout(Some(SECOND / 5)).unwrap();
        let comes = agent.has_passed_a_file() || agent.stream.peek(&mut [0]).is_ok();
        agent.stream.set_read_timeout(Some(PATIENCE)).unwrap();
        comes && agent.pushed().contains(text)
    });
}

#[test]
fn agents_get_their_groups_files_with_ar_conf_and_only_when_they_changed() {
    let response = "<active-response><command>firewall-drop</command><location>local</location>\
                    <rules_id>5763</rules_id><timeout>600</timeout></active-response>";
    let site = Site::new(response);
    fs::write(site.home.at("etc/local_internal_options.conf"), "remoted.shared_reload=1\n").unwrap();
    fs::create_dir_all(site.home.at("etc/shared/default")).unwrap();
    let long = format!("<agent_config>\n{}</agent_config>\n", "<!-- padding -->\n".repeat(200));
    fs::write(site.home.at("etc/shared/default/agent.conf"), &long).unwrap();
    let service = site.start(None, &[]);
    let mut agent = site.agent("web-01");
    let file = agent.pushed();
    let responses = site.home.read("etc/shared/ar.conf");
    assert!(responses.ends_with("\nfirewall-drop600 - firewall-drop - 600\n"), "{responses}");
    assert_eq!(
        file,
        format!("#default\n!{} ar.conf\n{responses}!{} agent.conf\n{long}", responses.len(), long.len())
    );
    until(PATIENCE, "the agent is in the default group", || {
        shown(&site, "web-01")["group"] == serde_json::json!(["default"])
    });

    // Nothing changed: the acknowledgement is all there is, over a restart too.
    let key = agent.key.clone();
    let (merged, written) = (agent.merged.clone(), fs::metadata(site.home.at("etc/shared/ar.conf")).unwrap());
    assert_eq!(service.stop(), Some(0));
    let _service = site.start(None, &[]);
    let mut agent = Peer::connect(site.port, key);
    agent.merged = merged;
    agent.start();
    agent.keep_alive();
    assert_eq!(agent.receive().unwrap(), b"#!-agent ack ");
    let now = fs::metadata(site.home.at("etc/shared/ar.conf")).unwrap();
    assert_eq!(now.modified().unwrap(), written.modified().unwrap(), "ar.conf was not written again");

    fs::write(site.home.at("etc/shared/default/list"), "new\n").unwrap();
    pushed_anew(&mut agent, "!4 list\nnew\n");

    // A reload with another response reaches agents as well.
    let conf = site.home.read("etc/ossec.conf").replace("<timeout>600<", "<timeout>30<");
    fs::write(site.home.at("etc/ossec.conf"), conf).unwrap();
    let reload = Command::new(BINARY).args(["reload", "--home"]).arg(site.home.path.path()).output().unwrap();
    assert!(reload.status.success());
    pushed_anew(&mut agent, "firewall-drop30 - firewall-drop - 30\n");
}

#[test]
fn tools_ask_agents_through_the_managers_socket() {
    let site = Site::new("");
    let _service = site.start(None, &[]);
    let mut agent = site.agent("web-01");
    let path = site.home.at("queue/sockets/remote");
    let ask = move |text: &'static str| {
        let path = path.clone();
        std::thread::spawn(move || {
            let mut socket = std::os::unix::net::UnixStream::connect(path).unwrap();
            socket.write_all(&frame::encode(text.as_bytes()).unwrap()).unwrap();
            String::from_utf8(read_frame(&mut socket).unwrap()).unwrap()
        })
    };
    let asked = ask("001 com getconfig active-response");
    let question = String::from_utf8(agent.expect("#!-req ")).unwrap();
    let (id, text) = question["#!-req ".len()..].split_once(' ').unwrap();
    assert_eq!(text, "com getconfig active-response");
    assert!(id.bytes().all(|byte| byte.is_ascii_hexdigit()));
    agent.send(format!("#!-req {id} ok {{\"active-response\":{{\"disabled\":\"no\"}}}}").as_bytes());
    assert_eq!(asked.join().unwrap(), "ok {\"active-response\":{\"disabled\":\"no\"}}");
    assert_eq!(ask("002 com getconfig active-response").join().unwrap(), "err Cannot send request");
    let stats: serde_json::Value =
        serde_json::from_str(&ask("{\"version\":1,\"command\":\"getstats\"}").join().unwrap()).unwrap();
    assert_eq!(stats["data"]["metrics"]["tcp_sessions"], 1);
}

/// Puts XML behind a place of the configuration.
fn set(site: &Site, before: &str, more: &str) {
    let conf = site.home.read("etc/ossec.conf").replacen(before, &format!("{before}{more}"), 1);
    fs::write(site.home.at("etc/ossec.conf"), conf).unwrap();
}

#[test]
fn a_silent_agent_is_disconnected_and_that_is_an_alert() {
    let site = Site::new("");
    set(&site, "<global>", "<agents_disconnection_time>2s</agents_disconnection_time>");
    let _service = site.start(None, &[]);
    let mut agent = site.agent("web-01");
    until(PATIENCE, "its silence is an alert", || {
        site.home.alerts().iter().any(|alert| {
            alert["rule"]["id"] == "504"
                && alert["agent"]["name"] == "web-01"
                && alert["full_log"]
                    .as_str()
                    .unwrap_or_default()
                    .contains("Agent disconnected: 'web-01-any'.")
        })
    });
    until(PATIENCE, "the state is known", || shown(&site, "web-01")["status"] == "disconnected");
    // The connection still stands: a sign of life is enough.
    until(PATIENCE, "it is back", || {
        agent.keep_alive();
        agent.expect("#!-agent ack ");
        shown(&site, "web-01")["status"] == "active"
    });
}

#[test]
fn where_counters_are_verified_a_replayed_event_is_refused_over_a_restart_too() {
    let site = Site::new("");
    fs::write(site.home.at("etc/local_internal_options.conf"), "remoted.verify_msg_id=1\n").unwrap();
    let service = site.start(None, &[]);
    let mut agent = site.agent("web-01");
    let line = |address: &str| format!("1:/var/log/auth.log:{}", failures(address, 1).trim_end());
    let event = agent.seal(line("198.51.100.9").as_bytes());
    let event = frame::encode(&event).unwrap();
    agent.stream.write_all(&event).unwrap();
    let from =
        |address: &str| site.home.alerts().iter().filter(|alert| alert["data"]["srcip"] == address).count();
    until(PATIENCE, "the event is judged", || from("198.51.100.9") == 1);
    agent.stream.write_all(&event).unwrap();
    while agent.receive().is_some() {}
    assert_eq!(service.stop(), Some(0));

    let _service = site.start(None, &[]);
    let mut thief = TcpStream::connect(("127.0.0.1", site.port)).unwrap();
    thief.set_read_timeout(Some(PATIENCE)).unwrap();
    thief.write_all(&event).unwrap();
    assert_eq!(thief.read(&mut [0; 8]).unwrap_or(0), 0, "closed");
    let mut again = Peer::connect(site.port, agent.key.clone());
    again.counter = agent.counter;
    again.start();
    again.send(line("198.51.100.8").as_bytes());
    until(PATIENCE, "what is new is judged", || from("198.51.100.8") == 1);
    assert_eq!(from("198.51.100.9"), 1, "what was sent twice is judged once");
}

#[test]
fn an_agent_on_datagrams_gets_its_groups_files() {
    let site = Site::new("");
    fs::create_dir_all(site.home.at("etc/shared/default")).unwrap();
    let long = "<!-- padding -->\n".repeat(300);
    fs::write(site.home.at("etc/shared/default/agent.conf"), &long).unwrap();
    let _service = site.start(None, &[]);
    let mut peer = Peer::connect(site.port, site.enrol("by-udp"));
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.connect(("127.0.0.1", site.port)).unwrap();
    let alive = b"#!-Linux |by-udp |6.1 |#1 |x86_64 - Wazuh v4.14.7\nx merged.mg\n";
    for payload in [&b"#!-agent startup {\"version\":\"v4.14.7\"}"[..], alive] {
        let sealed = peer.seal(payload);
        socket.send(&sealed).unwrap();
    }
    let mut next = || {
        let mut buffer = [0; 2_048];
        let length = socket.recv(&mut buffer).unwrap();
        peer.open(&buffer[..length])
    };
    let mut announced = Vec::new();
    while !announced.starts_with(b"#!-up file ") {
        announced = next();
    }
    let mut file = Vec::new();
    loop {
        let message = next();
        if message == b"#!-close file " {
            break;
        }
        file.extend_from_slice(&message);
    }
    let sum = tld_wire::key::md5_text(&file);
    assert_eq!(String::from_utf8(announced).unwrap(), format!("#!-up file {sum} merged.mg\n"));
    assert!(String::from_utf8(file).unwrap().ends_with(&format!("!{} agent.conf\n{long}", long.len())));
}

#[test]
fn a_second_connection_takes_the_place_of_one_that_was_silent_long_enough() {
    let site = Site::new("");
    set(&site, "<remote>", "<connection_overtake_time>1</connection_overtake_time>");
    let _service = site.start(None, &[]);
    let mut first = site.agent("web-01");
    let counter = first.counter;
    // Turned away until the first has been silent for long enough.
    let mut second = None;
    until(PATIENCE, "the second connection is let in", || {
        let mut peer = Peer::connect(site.port, first.key.clone());
        peer.counter = counter;
        peer.send(b"#!-agent startup {\"version\":\"v4.14.7\"}");
        let is_in = peer.receive().is_some();
        second = is_in.then_some(peer);
        is_in
    });
    while first.receive().is_some() {}
    let mut second = second.unwrap();
    second.keep_alive();
    second.expect("#!-agent ack ");
}

#[test]
fn a_reload_names_the_ports_that_take_a_restart() {
    let site = Site::new("");
    let _service = site.start(None, &[]);
    set(&site, "<remote>", "<connection_overtake_time>1</connection_overtake_time>");
    set(&site, "<auth>", "<purge>yes</purge>");
    let syslog = "<remote><connection>syslog</connection><allowed-ips>127.0.0.1</allowed-ips></remote>";
    set(&site, "</auth>", syslog);
    let reload = Command::new(BINARY).args(["reload", "--home"]).arg(site.home.path.path()).output().unwrap();
    let text = String::from_utf8_lossy(&reload.stdout).into_owned();
    for part in ["<remote> for agents (secure)", "<remote> for syslog", "<auth>"] {
        assert!(text.contains(&format!("{part} changed: this takes a restart")), "{text}");
    }
    assert!(!text.contains("<localfile>") && !text.contains("<rule_test>"), "{text}");
}

#[test]
fn status_tells_programs_what_a_manager_has_taken_and_what_waits() {
    let site = Site::new("");
    let service = site.start(None, &[]);
    let status = || -> serde_json::Value {
        let mut command = Command::new(BINARY);
        let output =
            command.args(["status", "--json", "--home"]).arg(site.home.path.path()).output().unwrap();
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let mut agent = site.agent("web-01");
    agent.event("/var/log/auth.log", failures("198.51.100.9", 1).trim_end());
    let event =
        |status: &serde_json::Value| status["manager"]["messages"]["received_breakdown"]["event"].clone();
    until(PATIENCE, "the event is counted", || event(&status()) == 1);
    let tool = std::os::unix::net::UnixDatagram::unbound().unwrap();
    tool.send_to(b"1:/var/log/tool.log:a line", site.home.at("queue/sockets/queue")).unwrap();
    until(PATIENCE, "a tool's event is counted", || status()["manager"]["entrances"]["events"] == 1);
    let running = status();
    assert_eq!((&running["state"], &running["pid"]), (&"running".into(), &service.child.id().into()));
    assert!(running["manager"]["pipeline"]["passed"].as_u64() >= Some(2), "{running}");
    assert_eq!(service.stop(), Some(0));
    let stopped = status();
    assert_eq!((&stopped["state"], &stopped["manager"]), (&"stopped".into(), &serde_json::Value::Null));
}
