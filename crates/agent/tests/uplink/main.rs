//! The whole agent against a manager made of the wire room's own parts.

#![allow(
    clippy::disallowed_methods,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "tests start programs"
)]

mod bed;

use std::time::Duration;

use bed::{Agent, Bed, Manager, until};
use tld_wire::version::Version;

const LONG: Duration = Duration::from_secs(30);

#[test]
fn lines_of_a_watched_file_reach_the_manager_and_a_restart_of_it_loses_and_repeats_none() {
    let mut manager = Manager::start(true, Version::CONTRACT);
    let bed = Bed::new(&manager, "");
    let agent = Agent::start(&bed);
    until(LONG, "the agent connects", || manager.connections() == 1);
    let mut written = Vec::new();
    for round in 0..3 {
        let lines: Vec<_> = (0..3000).map(|n| format!("round {round} line {n}")).collect();
        bed.log(&lines);
        written.extend(lines);
        until(LONG, "some lines arrive", || manager.lines().len() > round * 3000 + 1000);
        manager.restart();
    }
    until(LONG, "all lines arrive", || manager.lines().len() >= written.len());
    assert_eq!(manager.lines(), written);
    assert!(manager.events().iter().any(|event| event.starts_with("1:wazuh-agent:ossec: Agent started:")));
    agent.stop();
    until(LONG, "it has said goodbye", || manager.said_goodbye());
}

#[test]
fn lines_wait_in_the_spool_while_the_manager_is_away_also_over_a_kill() {
    let mut manager = Manager::start(true, Version::CONTRACT);
    let bed = Bed::new(&manager, "");
    let agent = Agent::start(&bed);
    until(LONG, "the agent connects", || manager.connections() == 1);
    bed.log(&["first".to_owned()]);
    until(LONG, "a line arrives", || manager.lines().len() == 1);
    manager.pause();
    let lines: Vec<_> = (0..500).map(|n| format!("away {n}")).collect();
    bed.log(&lines);
    until(LONG, "the lines are in the spool", || bed.spool_contains("away 499"));
    agent.kill();
    let agent = Agent::start(&bed);
    manager.resume();
    until(LONG, "all lines arrive", || manager.lines().iter().any(|line| line == "away 499"));
    let mut seen = manager.lines();
    seen.dedup();
    let all: Vec<_> = std::iter::once("first".to_owned()).chain(lines).collect();
    // After a crash of the agent what was on its way may come twice, but nothing is missing.
    assert!(all.iter().all(|line| seen.contains(line)));
    agent.stop();
}

#[test]
fn an_older_manager_is_told_an_older_version_which_is_remembered() {
    let manager = Manager::start(false, Version::new(4, 5, 0));
    let bed = Bed::new(&manager, "");
    let agent = Agent::start(&bed);
    until(LONG, "the agent is accepted", || manager.connections() == 1);
    bed.log(&["hello".to_owned()]);
    until(LONG, "a line arrives", || manager.lines() == ["hello"]);
    until(LONG, "it is remembered", || bed.read("queue/threatlockdown/version") == "v4.4.0");
    assert!(bed.read("logs/ossec.log").contains("accepts version v4.4.0"));
    until(LONG, "it stands in the keep-alive", || manager.products().contains(&"Wazuh v4.4.0".to_owned()));
    agent.stop();
}

#[test]
fn queries_are_answered_and_a_pushed_configuration_is_used() {
    let manager = Manager::start(false, Version::CONTRACT);
    let bed = Bed::new(&manager, "");
    let agent = Agent::start(&bed);
    until(LONG, "the agent connects", || manager.connections() == 1);
    let answer = manager.ask("com getconfig active-response");
    assert!(answer.starts_with("ok ") && answer.contains(r#""disabled":"no""#), "{answer}");
    let answer = manager.ask("agent getstate");
    assert!(answer.contains(r#""status":"connected""#), "{answer}");
    assert!(manager.ask("agent getconfig client").contains(r#""notify_time":1"#));
    assert_eq!(manager.ask("agent getconfig nothing"), "err Could not get requested section");
    assert_eq!(manager.ask("syscheck getconfig syscheck"), "err No such file or directory");
    let other = bed.at("other.log");
    std::fs::write(&other, "").unwrap();
    let conf = format!(
        "<agent_config><localfile><log_format>syslog</log_format><location>{}</location></localfile></agent_config>",
        other.display()
    );
    manager.push(&[("agent.conf", conf.as_bytes())]);
    until(LONG, "the configuration is used", || {
        bed.read("logs/ossec.log").contains("the manager has pushed another configuration")
            && manager.connections() == 2
    });
    std::fs::write(&other, "from the other\n").unwrap();
    until(LONG, "a line of the other file arrives", || manager.lines() == ["from the other"]);
    agent.stop();
}

#[test]
fn an_order_is_received_and_reported_until_confirmed() {
    let mut manager = Manager::start(true, Version::CONTRACT);
    let bed = Bed::new(&manager, "");
    bed.script("note", "#!/bin/sh\n");
    std::fs::write(bed.at("etc/shared/ar.conf"), "note0 - note - 0\n").unwrap();
    let agent = Agent::start(&bed);
    until(LONG, "the agent connects", || manager.connections() == 1);
    let outcomes = |manager: &Manager, order: &str| {
        manager.outcomes().into_iter().filter(|(id, _)| id == order).map(|(_, kind)| kind).collect::<Vec<_>>()
    };
    manager.order("o-1", "note0", None);
    until(LONG, "the order is received", || manager.received() == ["o-1"]);
    until(LONG, "its outcome comes", || outcomes(&manager, "o-1") == ["dry-run"]);
    manager.order("late", "note0", Some(1));
    until(LONG, "a late one is told", || outcomes(&manager, "late") == ["expired"]);
    manager.order("unknown", "nothing0", None);
    until(LONG, "an unknown name is told", || outcomes(&manager, "unknown") == ["not-found"]);
    // Nothing is confirmed: a killed agent tells it again, and an order sent again does nothing.
    agent.kill();
    let agent = Agent::start(&bed);
    until(LONG, "it is told again", || outcomes(&manager, "o-1").len() >= 2);
    manager.order("o-1", "note0", None);
    until(LONG, "it is answered again", || manager.received().iter().filter(|id| *id == "o-1").count() == 2);
    manager.confirm("o-1", "dry-run");
    manager.confirm("late", "expired");
    manager.cancel("gone");
    until(LONG, "a withdrawn order is told", || outcomes(&manager, "gone") == ["cancelled"]);
    let told = outcomes(&manager, "o-1").len();
    manager.restart();
    until(LONG, "what is not confirmed is told again", || outcomes(&manager, "gone").len() >= 2);
    assert_eq!(outcomes(&manager, "o-1").len(), told);
    agent.stop();
}
