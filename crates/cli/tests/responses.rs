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

use common::{Home, Host, Lasting, PATIENCE, Straggler, failures, in_time, namespaces, unhurried, until};

const SECOND: Duration = Duration::from_secs(1);

fn drop_for(seconds: u64) -> String {
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
    let (host, home) = (Host::new("srv"), Home::new(&drop_for(4)));
    let service = home.start(Some(&host), &[], &[]);
    in_time("blocked within a second, and let in again within two of the end", |round| {
        let attacker = format!("203.0.113.{}", 7 + round);
        let begin = Instant::now();
        home.log(&failures(&attacker, 10));
        let log = || home.read("logs/active-responses.log");
        let said = |verb: &str| {
            let verb = format!("\"command\":\"{verb}\"");
            log().lines().any(|line| line.contains(&verb) && line.contains(&attacker))
        };
        until(PATIENCE, "the attacker is in the kernel's set", || {
            host.blocked().contains(&address(&attacker)) || said("delete")
        });
        let blocked = begin.elapsed();
        until(PATIENCE, "the attacker is let in again", || !host.blocked().contains(&address(&attacker)));
        let held = begin.elapsed();
        assert!(held > 3 * SECOND, "reverted after {held:?}");
        until(PATIENCE, "the revert is in the log", || said("delete"));
        blocked < SECOND && held < blocked + 6 * SECOND
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
    let mut fired = None;
    until(PATIENCE, "the alert is written", || {
        fired = home.alerts().into_iter().find(|alert| {
            alert["data"]["srcip"] == "203.0.113.7" && alert["rule"]["level"].as_u64() >= Some(10)
        });
        fired.is_some()
    });
    // The alert that the script was given is the one in the file.
    let fired = fired.unwrap();
    let id = fired["id"].as_str().unwrap();
    assert!(log.contains(&format!("\"id\":\"{id}\"")), "{id} in {log}");
    assert_eq!(service.stop(), Some(0));
}

#[test]
fn a_stop_of_the_service_lifts_no_block_and_the_next_start_reverts_on_time() {
    if !namespaces() {
        return;
    }
    unhurried(4, |seconds| {
        let (host, home) = (Host::new("srv"), Home::new(&drop_for(seconds)));
        let service = home.start(Some(&host), &[], &[]);
        let block = Lasting::new(seconds);
        home.log(&failures("203.0.113.8", 10));
        until(PATIENCE, "blocked", || host.blocked().contains(&address("203.0.113.8")) || block.is_over());
        assert_eq!(service.stop(), Some(0));
        let in_force = || host.blocked() == [address("203.0.113.8")];
        let stopped = block.holds("a stop lifts nothing", in_force);
        let _again = home.start(Some(&host), &[], &[]);
        let seen = stopped && block.holds("a start lifts nothing", in_force);
        until(2 * PATIENCE, "reverted by the second run", || {
            host.blocked().is_empty()
                && home.read("logs/active-responses.log").contains("\"command\":\"delete\"")
        });
        seen && !block.is_over_since(2 * SECOND)
    });
}

#[test]
fn a_crash_at_any_step_leaves_no_block_behind_and_loses_none() {
    if !namespaces() {
        return;
    }
    // They mostly wait: side by side they take the time of one.
    std::thread::scope(|scope| {
        for point in ["before-apply", "after-apply", "while-active", "while-reverting", "after-revert"] {
            scope.spawn(move || unhurried(4, |seconds| crash(point, seconds)));
        }
    });
}

/// Whether the machine was quick enough to see the block within a second of the restart, and its end on time.
fn crash(point: &str, seconds: u64) -> bool {
    let (host, home) = (Host::new("srv"), Home::new(&drop_for(seconds)));
    let service = home.start(Some(&host), &[], &[("TLD_CRASH_AT", point)]);
    let block = Lasting::new(seconds);
    home.log(&failures("203.0.113.9", 10));
    service.dies(3 * PATIENCE);
    let _again = home.start(Some(&host), &[], &[]);
    let mut seen = true;
    if !point.contains("revert") {
        let in_force = || host.blocked().contains(&address("203.0.113.9"));
        let account = format!("{point}: the block is in force after the restart");
        let took = until(2 * PATIENCE, &account, || in_force() || block.is_over());
        seen = took < SECOND && !block.is_over();
    }
    until(2 * PATIENCE, &format!("{point}: the block ends"), || host.blocked().is_empty());
    let on_time = !block.is_over_since(2 * SECOND);
    until(PATIENCE, &format!("{point}: the journal has no open effect; {}", listed(&home)), || {
        listed(&home).is_empty()
    });
    seen && on_time
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
    until(2 * PATIENCE, "1,000 blocks", || host.blocked().len() == 1000);
    println!("1,000 attackers were blocked {:?} after the first line", start.elapsed());
    until(PATIENCE, "1,000 in the journal", || listed(&home).lines().count() == 1000);
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
    home.script("hang", &format!("#!/bin/bash\necho $$ > {}\nexec sleep 600\n", mark("hang.pid")));
    let _hung = Straggler(home.at("hang.pid"));
    home.script("eof", &format!("#!/bin/bash\nall=$(cat)\necho \"$all\" > {}\n", mark("eof.ran")));
    home.script("fail", "#!/bin/bash\nread -r line\necho 'no such tool' >&2\nexit 3\n");
    let _service = home.start(None, &[], &[]);
    home.log(&failures("203.0.113.20", 10));
    until(PATIENCE, "the others ran beside the hung one", || {
        ["keys.add", "plain.ran"].iter().all(|name| home.at(name).exists())
    });
    until(PATIENCE, "the timed one is undone with its own message", || {
        home.read("keys.delete").contains("\"command\":\"delete\"")
            && home.read("keys.delete").contains("203.0.113.20")
    });
    until(PATIENCE, "the failure is in the log", || {
        home.read("logs/active-responses.log")
            .contains("active-response/bin/fail: exit status 3: no such tool")
    });
    until(PATIENCE, "the reader to the end got its input", || home.read("eof.ran").contains("203.0.113.20"));
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

#[test]
fn a_target_is_asked_for_where_one_is_needed_and_names_what_is_undone() {
    if !namespaces() {
        return;
    }
    let (host, home) = (Host::new("srv"), Home::new(""));
    home.start(Some(&host), &[], &[]).stop();
    let file = home.path.path().with_extension("bad file");
    std::fs::write(&file, "x").unwrap();
    let shown = file.display().to_string();
    let run = |words: &[&str]| {
        let mut command = host.command(common::BINARY);
        command.arg("responses").args(words).arg("--home").arg(home.path.path());
        let output = command.output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8_lossy(&text).into_owned())
    };
    for (words, expected) in [
        (&["add", "isolate-host"][..], "no address of a manager is known"),
        (&["add", "firewall-drop"], "`firewall-drop` needs a target: an address"),
        (&["add", "firewall-drop", "bob"], "`firewall-drop` needs an address, and `bob` is none"),
        (&["add", "kill-process", "bob"], "`kill-process` needs the number of a process, and `bob` is none"),
        (&["add", "quarantine-file", "bob"], "`quarantine-file` needs the absolute path of a file"),
        (&["add", "disable-account", "/x"], "`disable-account` needs the name of an account"),
    ] {
        let (status, text) = run(words);
        assert!(status == Some(1) && text.contains(expected), "{words:?}: {text}");
    }
    let (status, text) = run(&["add", "quarantine-file", &shown]);
    assert!(status == Some(0) && text.contains(&format!("applied quarantine-file600 {shown}:")), "{text}");
    assert!(!file.exists());
    let (_, listed) = run(&["list"]);
    assert!(listed.contains(&shown) && listed.contains("quarantine-file600"), "{listed}");
    let (_, told) = run(&["show", &shown]);
    assert!(told.contains(&format!("responses revert {shown}")), "{told}");
    let (status, text) = run(&["extend", &shown, "--for", "90000", "--json"]);
    let told: serde_json::Value = serde_json::from_str(&text).unwrap_or_else(|_| panic!("{text}"));
    let length = told["until"].as_u64().unwrap() - told["at"].as_u64().unwrap();
    assert!(status == Some(0) && length > 89_000_000_000_000, "the new end: {text}");
    assert_eq!(run(&["revert", "/some/other/file"]), (Some(0), "nothing of that is in force\n".into()));
    let (status, text) = run(&["revert", &shown]);
    assert!(status == Some(0) && file.exists(), "{text}");
    std::fs::remove_file(&file).unwrap();
}

#[test]
fn a_home_that_is_not_there_is_said_to_be_missing_and_is_not_made() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("osec");
    for words in [&["list"][..], &["add", "firewall-drop", "203.0.113.7"], &["pause"], &["revert", "--all"]] {
        let mut command = std::process::Command::new(common::BINARY);
        let output = command.arg("responses").args(words).arg("--home").arg(&missing).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{words:?}");
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(text.contains("name the directory of the installation with --home"), "{text}");
        assert!(!missing.exists(), "{words:?}");
    }
}
