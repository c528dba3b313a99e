//! One line to one block and its revert, crashes in between, and operators' own scripts: the real binary, the real kernel.

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "tests start programs"
)]

mod common;

use std::net::IpAddr;
use std::time::{Duration, Instant};

use common::{Home, Host, failures, namespaces, until};

const SECOND: Duration = Duration::from_secs(1);

fn drop_for(seconds: u32) -> String {
    format!(
        "<active-response><command>firewall-drop</command><location>local</location>\
         <rules_id>5712,5720,5763,5551</rules_id><timeout>{seconds}</timeout></active-response>"
    )
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn an_attack_is_blocked_logged_and_reverted_on_time() {
    if !namespaces() {
        return;
    }
    let (host, home) = (Host::new("srv"), Home::new(&drop_for(3)));
    let service = home.start(Some(&host), &[], &[]);
    home.log(&failures("203.0.113.7", 10));
    until(SECOND, "the attacker is in the kernel's set", || host.blocked().contains(&address("203.0.113.7")));
    let applied = Instant::now();
    until(5 * SECOND, "the attacker is let in again", || host.blocked().is_empty());
    assert!(applied.elapsed() > 2 * SECOND, "reverted after {:?}", applied.elapsed());
    until(SECOND, "the revert is in the log", || {
        home.read("logs/active-responses.log").contains("\"command\":\"delete\"")
    });
    let log = home.read("logs/active-responses.log");
    for part in [
        "firewall-drop: Starting\n",
        "\"command\":\"add\"",
        "\"check_keys\"",
        "\"keys\":[\"203.0.113.7\"]",
        "\"continue\"",
        ": Ended\n",
    ] {
        assert!(log.contains(part), "{part} in {log}");
    }
    let alerts = home.alerts();
    let fired = alerts
        .iter()
        .find(|alert| alert["data"]["srcip"] == "203.0.113.7" && alert["rule"]["level"].as_u64() >= Some(10));
    assert!(fired.is_some(), "{alerts:?}");
    // The alert that the script was given is the one in the file.
    let id = fired.unwrap()["id"].as_str().unwrap();
    assert!(log.contains(&format!("\"id\":\"{id}\"")), "{id} in {log}");
    assert_eq!(service.stop(), Some(0));
}

#[test]
fn a_stop_of_the_service_lifts_no_block_and_the_next_start_reverts_on_time() {
    if !namespaces() {
        return;
    }
    let (host, home) = (Host::new("srv"), Home::new(&drop_for(4)));
    let service = home.start(Some(&host), &[], &[]);
    home.log(&failures("203.0.113.8", 10));
    until(SECOND, "blocked", || host.blocked().contains(&address("203.0.113.8")));
    assert_eq!(service.stop(), Some(0));
    assert_eq!(host.blocked(), [address("203.0.113.8")]);
    let _again = home.start(Some(&host), &[], &[]);
    assert_eq!(host.blocked(), [address("203.0.113.8")]);
    until(6 * SECOND, "reverted by the second run", || {
        host.blocked().is_empty() && home.read("logs/active-responses.log").contains("\"command\":\"delete\"")
    });
}

#[test]
fn a_crash_at_any_step_leaves_no_block_behind_and_loses_none() {
    if !namespaces() {
        return;
    }
    for point in ["before-apply", "after-apply", "while-active", "while-reverting", "after-revert"] {
        let (host, home) = (Host::new("srv"), Home::new(&drop_for(4)));
        let service = home.start(Some(&host), &[], &[("TLD_CRASH_AT", point)]);
        home.log(&failures("203.0.113.9", 10));
        service.dies(10 * SECOND);
        let reverting = point.contains("revert");
        let _again = home.start(Some(&host), &[], &[]);
        if !reverting {
            until(SECOND, &format!("{point}: the block is in force after the restart"), || {
                host.blocked().contains(&address("203.0.113.9"))
            });
        }
        until(6 * SECOND, &format!("{point}: the block ends on time"), || host.blocked().is_empty());
        until(2 * SECOND, &format!("{point}: the journal has no open effect; {}", listed(&home)), || {
            listed(&home).is_empty()
        });
    }
}

fn listed(home: &Home) -> String {
    let output = std::process::Command::new(common::BINARY)
        .args(["responses", "list", "--json", "--home"])
        .arg(home.path.path())
        .output()
        .unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn a_thousand_attackers_in_a_burst_are_a_thousand_blocks() {
    if !namespaces() {
        return;
    }
    let (host, home) = (Host::new("srv"), Home::new(&drop_for(600)));
    let _service = home.start(Some(&host), &[], &[]);
    let start = Instant::now();
    for n in 0..1000_u32 {
        home.log(&failures(&format!("198.18.{}.{}", n / 250, n % 250 + 1), 10));
    }
    until(10 * SECOND, "1,000 blocks", || host.blocked().len() == 1000);
    println!("1,000 attackers were blocked {:?} after the first line", start.elapsed());
    until(5 * SECOND, "1,000 in the journal", || listed(&home).lines().count() == 1000);
}

const SCRIPTS: &str = "\
<command><name>keys</name><executable>keys</executable><timeout_allowed>yes</timeout_allowed></command>
<command><name>plain</name><executable>plain</executable><timeout_allowed>no</timeout_allowed></command>
<command><name>hang</name><executable>hang</executable><timeout_allowed>yes</timeout_allowed></command>
<command><name>eof</name><executable>eof</executable><timeout_allowed>no</timeout_allowed></command>
<command><name>fail</name><executable>fail</executable><timeout_allowed>no</timeout_allowed></command>
<active-response><command>hang</command><location>local</location><rules_id>5763,5720</rules_id><timeout>2</timeout></active-response>
<active-response><command>keys</command><location>local</location><rules_id>5763,5720</rules_id><timeout>2</timeout></active-response>
<active-response><command>plain</command><location>local</location><rules_id>5763,5720</rules_id></active-response>
<active-response><command>eof</command><location>local</location><rules_id>5763,5720</rules_id></active-response>
<active-response><command>fail</command><location>local</location><rules_id>5763,5720</rules_id></active-response>";

#[test]
fn scripts_of_the_operator_run_and_a_hung_one_delays_no_other() {
    let home = Home::new(SCRIPTS);
    let mark = |name: &str| home.at(name).display().to_string();
    home.script(
        "keys",
        &format!(
            "#!/bin/bash\nread -r line\nif [[ $line == *'\"command\":\"add\"'* ]]; then\n\
             echo '{{\"version\":1,\"origin\":{{\"name\":\"keys\",\"module\":\"active-response\"}},\"command\":\"check_keys\",\"parameters\":{{\"keys\":[\"k\"]}}}}'\n\
             read -r answer\n[[ $answer == *'\"continue\"'* ]] && echo \"$line\" > {}\nelse echo \"$line\" > {}\nfi\n",
            mark("keys.add"),
            mark("keys.delete")
        ),
    );
    home.script("plain", &format!("#!/bin/bash\nread -r line\necho \"$line\" > {}\n", mark("plain.ran")));
    home.script("hang", "#!/bin/bash\nsleep 600\n");
    home.script("eof", &format!("#!/bin/bash\nall=$(cat)\necho \"$all\" > {}\n", mark("eof.ran")));
    home.script("fail", "#!/bin/bash\nread -r line\necho 'no such tool' >&2\nexit 3\n");
    let _service = home.start(None, &[], &[]);
    home.log(&failures("203.0.113.20", 10));
    until(3 * SECOND, "the others ran beside the hung one", || {
        ["keys.add", "plain.ran"].iter().all(|name| home.at(name).exists())
    });
    until(8 * SECOND, "the timed one is undone with its own message", || {
        home.read("keys.delete").contains("\"command\":\"delete\"")
            && home.read("keys.delete").contains("203.0.113.20")
    });
    until(3 * SECOND, "the failure is in the log", || {
        home.read("logs/active-responses.log")
            .contains("active-response/bin/fail: exit status 3: no such tool")
    });
    until(10 * SECOND, "the reader to the end got its input", || {
        home.read("eof.ran").contains("203.0.113.20")
    });
}

#[test]
fn a_wrong_configuration_starts_nothing_and_says_where() {
    let home = Home::new(
        "<active-response><command>nothing</command><location>local</location><level>7</level></active-response>\n\
         <active-response><command>firewall-drop</command><location>nowhere</location><level>high</level></active-response>",
    );
    let output = std::process::Command::new(common::BINARY)
        .args(["standalone", "--home"])
        .arg(home.path.path())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8_lossy(&output.stderr);
    for part in ["error[1303]", "error[1302]", "error[1235]", "etc/ossec.conf:", "nothing was started"] {
        assert!(text.contains(part), "{part} in {text}");
    }
    assert!(!home.at("logs/alerts/alerts.json").exists());
    assert!(!home.at("var/threatlockdown/journal.db").exists());
}
