//! Manager and agent, both the real binary: enrolment, a line on the agent, an alert at the manager, a block on the agent.

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
use std::path::Path;
use std::time::{Duration, Instant};

use common::fleet::{Site, agent_home, start_agent};
use common::{Home, Host, failures, namespaces, until};

const SECOND: Duration = Duration::from_secs(1);
const RULES: &str = r#"<group name="local,"><rule id="100900" level="3"><match>counted line</match>
    <description>A counted line.</description></rule></group>"#;

fn connected(home: &Home) -> bool {
    home.read("logs/ossec.log").contains("connected to the server")
}

#[test]
fn an_attack_on_the_agent_is_judged_by_the_manager_and_blocked_on_the_agent() {
    if !namespaces() {
        return;
    }
    let (far, near) = (Host::new("manager"), Host::new("agent"));
    far.connect(&near, "10.77.0.1/24", "10.77.0.2/24");
    let site = Site::new(
        "<active-response><command>firewall-drop</command><location>local</location><level>5</level>\
         <timeout>600</timeout></active-response>",
    );
    let manager = site.start(Some(&far), &[]);
    // Nothing of what follows may wait for a second sign of life, nor for the time that a manager gets to learn a new key.
    let home = agent_home("10.77.0.1", &site, "web-01", 600);
    let conf = home.read("etc/ossec.conf").replace("enrollment>1<", "enrollment>600<");
    fs::write(home.at("etc/ossec.conf"), conf).unwrap();
    let agent = start_agent(&home, Some(&near), &[]);
    until(60 * SECOND, "the agent enrols and connects", || connected(&home));
    home.log(&failures("203.0.113.7", 8));
    let attacker = "203.0.113.7".parse().unwrap();
    let time = until(60 * SECOND, "the agent blocks", || near.blocked().contains(&attacker));
    println!("from the connection of a fresh agent to the block: {time:?}");
    assert!(home.read("etc/client.keys").starts_with("001 web-01 any "));
    until(60 * SECOND, "it says so", || home.read("logs/active-responses.log").contains("203.0.113.7"));
    until(60 * SECOND, "the alert names the agent", || {
        site.home
            .alerts()
            .iter()
            .any(|alert| alert["agent"]["name"] == "web-01" && alert["data"]["srcip"] == "203.0.113.7")
    });
    assert!(far.blocked().is_empty(), "the manager blocks nothing");
    until(60 * SECOND, "the outcome is confirmed", || untold(home.path.path()) == Some(0));
    drop(manager);
    agent.kill();
    assert!(near.blocked().contains(&attacker), "a block outlives the agent");
}

#[test]
fn a_manager_that_is_not_there_is_asked_for_a_key_once_a_round() {
    let site = Site::new("");
    let home = agent_home("127.0.0.1", &site, "web-01", 1);
    let begin = Instant::now();
    let agent = start_agent(&home, None, &["--dry-run"]);
    let log = || home.read("logs/ossec.log");
    until(60 * SECOND, "it is refused", || log().contains("no key from"));
    // Somebody who asks without a pause would be seen now. On a busy machine the next round may have begun: there are
    // five seconds between them.
    std::thread::sleep(Duration::from_millis(300));
    let said = log();
    let rounds = 1 + begin.elapsed().as_secs() / 5;
    assert!((1..=rounds).contains(&(said.matches("requesting a key").count() as u64)), "{said}");
    assert_eq!(agent.stop(), Some(0));
}

/// Outcomes that the manager has not confirmed; none while it is not known or none was told.
fn untold(home: &Path) -> Option<usize> {
    let listed = tld_respond::journal::list(home, 10).ok()?;
    let told = listed.iter().any(|one| one.outcome.is_some());
    told.then(|| tld_respond::journal::unconfirmed(home).ok()).flatten()
}

#[test]
fn no_line_is_lost_or_repeated_while_the_manager_is_restarted_three_times() {
    let site = Site::new("");
    fs::create_dir_all(site.home.at("etc/rules")).unwrap();
    fs::write(site.home.at("etc/rules/local_rules.xml"), RULES).unwrap();
    let mut manager = site.start(None, &[]);
    let home = agent_home("127.0.0.1", &site, "web-01", 1);
    let agent = start_agent(&home, None, &["--dry-run"]);
    until(60 * SECOND, "the agent enrols and connects", || connected(&home));
    let (rounds, lines) = (4, 5000);
    for round in 0..rounds {
        let text: String = (0..lines)
            .map(|n| format!("Nov 23 02:00:00 web01 app: counted line {}\n", round * lines + n))
            .collect();
        home.log(&text);
        arrive(&site, round * lines + 1);
        if round + 1 < rounds {
            assert_eq!(manager.stop(), Some(0));
            manager = site.start(None, &[]);
        }
    }
    arrive(&site, rounds * lines);
    // What comes twice would come now.
    std::thread::sleep(Duration::from_millis(500));
    let seen = counted(&site);
    let unique: std::collections::BTreeSet<_> = seen.iter().collect();
    assert_eq!((seen.len(), unique.len()), (rounds * lines, rounds * lines));
    assert_eq!(agent.stop(), Some(0));
    assert_eq!(manager.stop(), Some(0));
}

/// Waits for so many alerts; with pauses, since the file is long and the machine may be busy.
fn arrive(site: &Site, least: usize) {
    let begin = Instant::now();
    loop {
        let count = counted(site).len();
        if count >= least {
            return;
        }
        assert!(begin.elapsed() < 150 * SECOND, "only {count} of {least} lines arrived");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Numbers of the counted lines in the manager's alerts.
fn counted(site: &Site) -> Vec<usize> {
    let text = site.home.read("logs/alerts/alerts.json");
    let lines = text.lines().filter_map(|line| line.split_once("counted line ")?.1.split('"').next());
    lines.filter_map(|number| number.parse().ok()).collect()
}
