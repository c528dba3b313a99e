//! The acceptance tests that peers of the contract run against an execution daemon (active-response 13.1, X1–X6).

#![allow(clippy::disallowed_methods, clippy::panic, reason = "tests start programs")]

mod common;

use std::time::Instant;

use common::{BOTH, Home, PATIENCE, SECOND, network, request, until};

const DROP: &str = "firewall-drop5 - firewall-drop - 5";
const RESTART: &str = "restart-wazuh0 - restart-wazuh - 0\nrestart-wazuh0 - restart-wazuh.exe - 0\n";
/// What the reference's restart executable does, as far as the test looks.
const RESTARTER: &str = "#!/bin/bash\nread -r line\n\
    say() { echo \"$(date -u '+%Y/%m/%d %H:%M:%S') active-response/bin/restart-wazuh: $1\" >> logs/active-responses.log; }\n\
    say Starting\n\
    [[ $line == *'\"version\"'* ]] || { say 'Invalid input format'; exit 255; }\n\
    say \"$line\"\nkill -TERM $PPID\nsay Ended\n";

#[test]
fn x1_an_address_is_blocked_and_let_in_again() {
    // A machine that is busy with other things may spoil a round, but not all of them.
    assert!((0..4).any(|_| blocked_within_a_second_and_let_in_again()));
}

fn blocked_within_a_second_and_let_in_again() -> bool {
    let Some(network) = network() else { return true };
    let home = Home::new("<disabled>no</disabled>", DROP);
    home.ours("firewall-drop");
    let service = home.start(Some(&network), &[]);
    home.send(request("firewall-drop5", BOTH) + "\0");
    let sent = Instant::now();
    let delete = || home.responses().contains("\"command\":\"delete\"");
    until(PATIENCE, || home.logs(), || network.rules().contains("3.3.3.3") || delete());
    let blocked = sent.elapsed();
    home.logged("DEBUG: Received message: '{\"version\":1,");
    home.logged("DEBUG: Executing command 'active-response/bin/firewall-drop {\"version\":1,");
    home.responded("active-response/bin/firewall-drop: Starting");
    home.responded("\"command\":\"add\"");
    home.responded("\"srcip\":\"3.3.3.3\"");
    home.responded("\"keys\":[\"3.3.3.3\"]");
    until(PATIENCE, || home.logs(), delete);
    let held = sent.elapsed();
    assert!(held > 4 * SECOND, "undone after {held:?}");
    until(PATIENCE, || network.rules(), || !network.rules().contains("3.3.3.3"));
    assert_eq!(service.stop(), Some(0));
    blocked < SECOND && held < 8 * SECOND
}

#[test]
fn x2_without_an_address_the_missing_one_is_named() {
    let home = Home::new("<disabled>no</disabled>", DROP);
    home.ours("firewall-drop");
    let _service = home.start(None, &[]);
    home.send(request("firewall-drop5", r#"{"dstuser":"Test."}"#));
    home.responded("active-response/bin/firewall-drop: Cannot read 'srcip' from data");
}

#[test]
fn x3_without_a_version_the_format_is_refused() {
    let home = Home::new("<disabled>no</disabled>", DROP);
    home.ours("firewall-drop");
    let _service = home.start(None, &[]);
    home.send(request("firewall-drop5", r#"{"dstuser":"Test."}"#).replace("\"version\":1,", ""));
    home.responded("active-response/bin/firewall-drop: Invalid input format");
}

#[test]
fn x4_without_parameters_and_with_surplus_braces_the_format_is_refused() {
    let home = Home::new("<disabled>no</disabled>", DROP);
    home.ours("firewall-drop");
    let _service = home.start(None, &[]);
    home.send(format!(
        r#"{{"version":1,"origin":{{"name":"","module":"wazuh-analysisd"}},"command":"firewall-drop5","data":{BOTH}}}}}}}}}"#
    ));
    home.responded("active-response/bin/firewall-drop: Invalid input format");
}

#[test]
fn x5_a_restart_runs_the_restarter_and_the_stop_lifts_what_is_in_force_when_told_so() {
    let Some(network) = network() else { return };
    let home =
        Home::new("<disabled>no</disabled>", &format!("{RESTART}firewall-drop600 - firewall-drop - 600\n"));
    home.ours("firewall-drop");
    home.script("restart-wazuh", RESTARTER);
    let mut service = home.start(Some(&network), &["--revert-all"]);
    home.send(request("firewall-drop600", BOTH));
    until(PATIENCE, || home.logs(), || network.rules().contains("3.3.3.3"));
    home.send(request("restart-wazuh0", "{}"));
    home.responded("active-response/bin/restart-wazuh: Starting");
    home.logged("Shutdown received. Deleting responses.");
    until(PATIENCE, || home.logs(), || service.child.try_wait().unwrap().is_some());
    assert!(!network.rules().contains("3.3.3.3"), "{}", network.rules());
    assert!(home.responses().contains("\"command\":\"delete\""), "{}", home.logs());
}

#[test]
fn x6_a_restart_without_a_version_is_refused_and_nothing_restarts() {
    let home = Home::new("<disabled>no</disabled>", RESTART);
    home.script("restart-wazuh", RESTARTER);
    let service = home.start(None, &[]);
    home.send(request("restart-wazuh0", "{}").replace("\"version\":1,", ""));
    home.responded("active-response/bin/restart-wazuh: Invalid input format");
    assert!(home.ask("getconfig active-response").starts_with("ok "), "still there");
    assert_eq!(service.stop(), Some(0));
    assert!(!home.log().contains("Deleting responses"));
}
