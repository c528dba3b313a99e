//! Changing rules under a running service: no event is lost, nothing counted is forgotten, and a broken file changes nothing.

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "tests start programs and may fail loudly"
)]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use common::{BINARY, Home, PATIENCE, failures, stamp, until};

/// Rule 100100 alerts on each numbered line, 100120 on the fourth of those that 100110 sees; `extra` goes behind them.
fn rules(home: &Home, extra: &str) {
    let text = format!(
        "<group name=\"local,\">\n\
         <rule id=\"100100\" level=\"5\"><match>tld-numbered </match><description>Numbered.</description></rule>\n\
         <rule id=\"100110\" level=\"3\"><match>tld-half </match><description>One half.</description></rule>\n\
         <rule id=\"100120\" level=\"10\" frequency=\"4\" timeframe=\"300\"><if_matched_sid>100110</if_matched_sid>\
         <description>Four halves.</description></rule>\n{extra}</group>\n"
    );
    fs::write(home.at("etc/rules/local_rules.xml"), text).unwrap();
}

fn reload(home: &Home) -> Output {
    Command::new(BINARY).args(["reload", "--home"]).arg(home.path.path()).output().expect("it runs")
}

fn texts(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

fn fired(home: &Home, rule: &str) -> usize {
    home.alerts().iter().filter(|alert| alert["rule"]["id"] == rule).count()
}

fn line(text: &str) -> String {
    format!("{} web01 tldtest[7]: {text}\n", stamp())
}

/// How often each number was alerted on.
fn numbers(home: &Home) -> BTreeMap<usize, usize> {
    let mut counts = BTreeMap::new();
    for alert in home.alerts().iter().filter(|alert| alert["rule"]["id"] == "100100") {
        let log = alert["full_log"].as_str().unwrap();
        *counts.entry(log.rsplit(' ').next().unwrap().parse().unwrap()).or_default() += 1;
    }
    counts
}

fn prepared() -> Home {
    let home = Home::new("");
    fs::create_dir_all(home.at("etc/rules")).unwrap();
    rules(&home, "");
    home
}

#[test]
fn five_reloads_under_load_lose_and_double_no_event() {
    let home = prepared();
    let service = home.start(None, &[], &[]);
    let stop = AtomicBool::new(false);
    let written = std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut written = 0;
            let stamp = stamp();
            while !stop.load(Ordering::Relaxed) {
                let lines: String = (written..written + 20)
                    .map(|n| format!("{stamp} web01 tldtest[7]: tld-numbered {n}\n"))
                    .collect();
                home.log(&lines);
                written += 20;
                std::thread::sleep(Duration::from_millis(5));
            }
            written
        });
        until(PATIENCE, "the first lines are judged", || fired(&home, "100100") > 0);
        for round in 1..=5 {
            let extra = format!(
                "<rule id=\"{}\" level=\"3\"><match>tld-new-{round} </match><description>New.</description></rule>\n",
                100_200 + round
            );
            rules(&home, &extra);
            let output = reload(&home);
            let (out, err) = texts(&output);
            assert!(output.status.success(), "{out}{err}");
            assert!(out.contains(&format!("1 new: {}", 100_200 + round)), "{out}");
            assert_eq!(out.contains("1 gone"), round > 1, "{out}");
            // The service answers for what it does from now on.
            home.log(&line(&format!("tld-new-{round} now")));
            let rule = (100_200 + round).to_string();
            until(PATIENCE, "the new rule is in force", || fired(&home, &rule) == 1);
        }
        stop.store(true, Ordering::Relaxed);
        writer.join().unwrap()
    });
    until(2 * PATIENCE, "every line is judged", || fired(&home, "100100") >= written);
    let numbers = numbers(&home);
    assert_eq!((numbers.len(), numbers.values().max()), (written, Some(&1)), "each line once");
    assert_eq!(service.stop(), Some(0));
    assert!(!home.at("var/threatlockdown/service.pid").exists());
}

#[test]
fn a_half_filled_composite_rule_fires_after_the_reload() {
    let home = prepared();
    let _service = home.start(None, &[], &[]);
    home.log(&line("tld-half a").repeat(3));
    until(PATIENCE, "three halves are seen", || fired(&home, "100110") == 3);
    rules(
        &home,
        "<rule id=\"100300\" level=\"3\"><match>tld-other</match><description>Other.</description></rule>",
    );
    assert!(reload(&home).status.success());
    home.log(&line("tld-half b"));
    until(PATIENCE, "the fourth half completes the rule", || fired(&home, "100120") == 1);
}

#[test]
fn a_broken_rule_file_keeps_the_running_rules() {
    let home = prepared();
    let service = home.start(None, &[], &[]);
    rules(
        &home,
        "<rule id=\"100300\" level=\"99\"><match>tld-other</match><description>Other.</description></rule>",
    );
    let output = reload(&home);
    let (out, err) = texts(&output);
    assert_eq!(output.status.code(), Some(1));
    assert!(err.contains("local_rules.xml") && out.contains("the running rules stay"), "{out}{err}");
    assert!(!home.read("logs/ossec.log").contains("reloaded"), "the service was left alone");

    // The same by hand: the service itself refuses.
    let pid = home.read("var/threatlockdown/service.pid");
    assert_eq!(pid.trim(), service.child.id().to_string());
    assert!(Command::new("kill").args(["-HUP", pid.trim()]).status().unwrap().success());
    until(PATIENCE, "the service refuses", || home.read("logs/ossec.log").contains("not reloaded"));
    home.log(&line("tld-numbered 1"));
    until(PATIENCE, "the rules from before judge", || fired(&home, "100100") == 1);

    rules(&home, "");
    assert!(reload(&home).status.success(), "mended");
}

#[test]
fn without_a_service_there_is_nothing_to_reload_and_one_home_has_one_service() {
    let home = prepared();
    tld_server::home::prepare(home.path.path(), "").unwrap();
    let (_, err) = texts(&reload(&home));
    assert!(err.contains("no service runs"), "{err}");
    let service = home.start(None, &[], &[]);
    let second = Command::new(BINARY)
        .args(["standalone", "--user", "tld-nobody-such", "--home"])
        .arg(home.path.path())
        .output()
        .unwrap();
    let (_, err) = texts(&second);
    assert!(!second.status.success() && err.contains("another service already runs"), "{err}");
    // A crash leaves the process id behind; it is not believed.
    service.kill();
    assert!(home.at("var/threatlockdown/service.pid").exists());
    let (_, err) = texts(&reload(&home));
    assert!(err.contains("no service runs"), "{err}");
}

#[test]
fn a_new_response_needs_no_restart_and_a_new_escalation_does() {
    let home = prepared();
    let _service = home.start(None, &["--dry-run"], &[]);
    let add = |text: &str| {
        let conf =
            home.read("etc/ossec.conf").replacen("</ossec_config>", &format!("{text}</ossec_config>"), 1);
        fs::write(home.at("etc/ossec.conf"), conf).unwrap();
        texts(&reload(&home)).0
    };
    let said =
        add("<active-response><command>firewall-drop</command><location>local</location><level>5</level>\
         <timeout>60</timeout></active-response>");
    assert!(said.contains("1 responses") && !said.contains("restart"), "{said}");
    home.log(&failures("203.0.113.9", 1));
    until(PATIENCE, "it answers", || home.read("logs/ossec.log").contains("203.0.113.9"));
    let said = add("<active-response><repeated_offenders>30,60</repeated_offenders></active-response>");
    assert!(
        said.contains("the responder's part of <active-response> changed: this takes a restart"),
        "{said}"
    );
}
