//! The execution daemon's own cases (active-response 6, 13.5) through its sockets, and what a stop leaves behind.

#![allow(clippy::disallowed_methods, clippy::panic, reason = "tests start programs")]

mod common;

use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt as _;
use std::time::{Duration, Instant};

use common::{BINARY, BOTH, Home, PATIENCE, request, skip, until};

/// An operator's executable with keys: it notes what it was told in `told`.
const KEYS: &str = "#!/bin/bash\nread -r line\ncase $line in\n\
    *'\"command\":\"add\"'*)\n\
    echo '{\"version\":1,\"origin\":{\"name\":\"keys\",\"module\":\"active-response\"},\"command\":\"check_keys\",\"parameters\":{\"keys\":[\"k\"]}}'\n\
    read -r answer\n[[ $answer == *'\"continue\"'* ]] && echo continue >> told || echo abort >> told;;\n\
    *) echo delete >> told;;\nesac\n";
/// One without: it keeps its input and ends.
const PLAIN: &str = "#!/bin/bash\nread -r line\necho \"$line\" >> told\n";

fn home(ar_conf: &str) -> Home {
    Home::new("<disabled>no</disabled><repeated_offenders>1,5,10</repeated_offenders>", ar_conf)
}

#[test]
fn what_is_no_request_is_logged_with_its_number() {
    let home = home("known0 - known - 0\n");
    let _service = home.start(None, &["--dry-run"]);
    for (message, number) in [
        ("unknown", "(1315)"),
        ("{}", "(1316)"),
        (&request("nobody7", "{}"), "(1311)"),
        (&request("!../../bin/sh", "{}"), "(1311)"),
        (&request("!..", "{}"), "is not the bare name"),
    ] {
        let before = home.log().matches(number).count();
        home.send(message);
        until(
            PATIENCE,
            || format!("{message}: {}", home.log()),
            || home.log().matches(number).count() > before,
        );
    }
    home.send(vec![b'x'; 65_536]);
    home.logged("more than 65535 bytes");
}

#[test]
fn a_file_can_be_named_directly_and_gets_the_message_as_one_line() {
    let home = home("");
    home.script("plain", PLAIN);
    let _service = home.start(None, &[]);
    home.send(request("!plain", BOTH) + " - null (from_the_server) (no_rule_id)");
    until(PATIENCE, || home.logs(), || home.read("told").lines().count() == 1);
    assert_eq!(
        home.read("told").trim_end(),
        request("add", BOTH)
            .replace("wazuh-analysisd", "wazuh-execd")
            .replace("}}}}", "}},\"program\":\"active-response/bin/plain\"}}")
    );
}

#[test]
fn the_same_key_again_is_aborted_and_undone_once() {
    // Long enough for a second request on a busy machine.
    let home = Home::new("<disabled>no</disabled>", "keys5 - keys - 5\n");
    home.script("keys", KEYS);
    let _service = home.start(None, &[]);
    home.send(request("keys5", "{}"));
    until(PATIENCE, || home.logs(), || home.read("told").starts_with("continue\n"));
    home.send(request("keys5", "{}"));
    until(PATIENCE, || home.logs(), || home.read("told").starts_with("continue\nabort\n"));
    home.logged("was received before; its time was updated");
    until(PATIENCE, || home.logs(), || home.read("told") == "continue\nabort\ndelete\n");
}

#[test]
fn the_endpoints_own_file_says_how_an_executable_of_a_foreign_manager_is_talked_to() {
    let own = "<disabled>no</disabled><command>old</command><contract>argv</contract>";
    let home = Home::new(own, "old1 - old.sh - 1\nnew1 - new.sh - 0\n");
    let words = "#!/bin/bash\necho \"${0##*/} $@\" >> told\n";
    home.script("old.sh", words);
    home.script("new.sh", words);
    let _service = home.start(None, &[]);
    home.send(request("old1", BOTH));
    let both = "old.sh add Test. 3.3.3.3 - 554 - - -\nold.sh delete Test. 3.3.3.3 - 554 - - -\n";
    until(PATIENCE, || home.logs(), || home.read("told") == both);
    home.send(request("new1", BOTH));
    until(PATIENCE, || home.logs(), || home.read("told").ends_with("\nnew.sh \n"));
}

#[test]
fn what_is_undone_later_and_what_cannot_be_started_is_logged() {
    let home = home("keys60 - keys - 60\nplain60 - plain - 60\nbroken60 - broken - 60\n");
    home.script("keys", KEYS);
    home.script("plain", PLAIN);
    home.script("broken", "#!/no/such/interpreter\n");
    let _service = home.start(None, &[]);
    for (name, says) in [
        ("keys60", "Adding command 'active-response/bin/keys' to the timeout list"),
        ("plain60", "command 'active-response/bin/plain' was not added to the timeout list"),
        ("broken60", "(1317): `active-response/bin/broken` cannot be started"),
    ] {
        home.send(request(name, BOTH));
        home.logged(says);
    }
    // Names in any case and from anywhere are the first ones found; a broken line of the table hides no other.
    home.ar_conf("!x - keys - 1\nbad line\nlate0 - plain - 0");
    home.send(request("late0", BOTH));
    home.logged("(1313)");
    until(PATIENCE, || home.logs(), || home.read("told").contains("\"command\":\"add\""));
}

#[test]
fn without_a_timeout_there_is_nothing_to_undo() {
    let home = home("keys0 - keys - 0\n");
    home.script("keys", KEYS);
    let _service = home.start(None, &[]);
    for round in 1..=2 {
        home.send(request("keys0", "{}"));
        until(PATIENCE, || home.logs(), || home.read("told") == "continue\n".repeat(round));
    }
}

#[test]
fn an_order_that_comes_twice_under_one_name_acts_once() {
    let home = home("plain0 - plain - 0\nother0 - plain - 0\n");
    home.script("plain", PLAIN);
    let _service = home.start(None, &[]);
    let named = |name: &str, order: &str| {
        request(name, "{}").replacen('{', &format!("{{\"threatlockdown\":{{\"order\":\"{order}\"}},"), 1)
    };
    home.send(named("plain0", "a-1"));
    home.send(named("plain0", "a-1"));
    home.send(named("other0", "a-2"));
    until(PATIENCE, || home.logs(), || home.log().contains("order a-2"));
    until(PATIENCE, || home.logs(), || home.read("told").lines().count() == 2);
}

#[test]
fn a_changed_table_is_read_again_and_a_missing_executable_is_told() {
    let home = home("one0 - one - 0\n");
    home.script("plain", PLAIN);
    let _service = home.start(None, &[]);
    home.send(request("one0", "{}"));
    home.logged("response `one0` has no executable on this host: `active-response/bin/one` is missing");
    home.ar_conf("one0 - plain - 0\none0 - other - 5\n");
    home.send(request("one0", "{}"));
    until(PATIENCE, || home.logs(), || home.read("told").contains("\"add\""));
    home.logged("two responses are both named `one0`");
}

#[test]
fn the_control_socket_answers() {
    let home = home("");
    let _service = home.start(None, &["--dry-run"]);
    assert_eq!(
        home.ask("getconfig active-response"),
        r#"ok {"active-response":{"disabled":"no","repeated_offenders":[1,5,10]}}"#
    );
    for section in ["logging", "internal", "cluster"] {
        let answer = home.ask(&format!("getconfig {section}"));
        let json: serde_json::Value = serde_json::from_str(answer.strip_prefix("ok ").unwrap()).unwrap();
        assert!(json[section].is_object(), "{answer}");
    }
    assert_eq!(home.ask("getconfig nothing"), "err Could not get requested section");
    assert_eq!(home.ask("uncompress a b"), "err Unrecognized command");
    assert_eq!(home.ask(""), "err Unrecognized command");
    assert_eq!(home.ask("lock_restart -2"), "err Invalid timeout");
    assert_eq!(home.ask("lock_restart soon"), "err Invalid timeout");
}

#[test]
fn a_restart_runs_the_installations_script_unless_it_is_locked() {
    let home = home("");
    home.script("restart.sh", "#!/bin/bash\necho \"$*\" >> restarted\n");
    let _service = home.start(None, &[]);
    let restarted = |lines: &str| {
        until(PATIENCE, || home.logs(), || home.read("restarted") == lines);
    };
    assert_eq!(home.ask("restart"), "ok ");
    restarted("agent\n");
    assert_eq!(home.ask("reload"), "ok ");
    restarted("agent\nagent reload\n");
    home.send(request("restart-wazuh", "{}"));
    restarted("agent\nagent reload\nagent\n");
    assert_eq!(home.ask("lock_restart -1"), "ok ");
    assert_eq!(home.ask("restart"), "ok ");
    home.logged("restart is locked");
    assert_eq!(home.ask("lock_restart 0"), "ok ");
    assert_eq!(home.ask("restart"), "ok ");
    restarted("agent\nagent reload\nagent\nagent\n");
}

#[test]
fn a_disabled_endpoint_answers_questions_and_takes_no_requests() {
    let home = Home::new("<disabled>yes</disabled>", "");
    let service = home.start(None, &["--dry-run"]);
    home.logged("(1350)");
    assert!(home.ask("getconfig active-response").contains("\"disabled\":\"yes\""));
    assert!(!home.at("queue/alerts/execq").exists());
    assert_eq!(service.stop(), Some(0));
}

#[test]
fn a_wrong_configuration_is_refused_with_its_place() {
    let home = Home::new("<disabled>perhaps</disabled>", "");
    let mut command = std::process::Command::new(BINARY);
    let output = command.args(["responder", "--test", "--home"]).arg(home.at("")).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{text}");
    for part in ["1235", "etc/ossec.conf:3", "1202"] {
        assert!(text.contains(part), "{part} in {text}");
    }
}

#[test]
fn a_stop_lifts_nothing_and_the_next_start_undoes_on_time() {
    // More time where the machine was too busy for a stop before the end.
    assert!([3, 9, 27].into_iter().any(stopped_before_the_end));
}

fn stopped_before_the_end(seconds: u64) -> bool {
    let home = home(&format!("keys - keys - {seconds}\n"));
    home.script("keys", KEYS);
    let service = home.start(None, &[]);
    let begin = Instant::now();
    home.send(request("keys", "{}"));
    until(PATIENCE, || home.logs(), || home.log().contains("applied keys"));
    let pid = format!("var/run/wazuh-execd-{}.pid", service.child.id());
    assert!(home.at(&pid).exists());
    assert_eq!(service.stop(), Some(0));
    if begin.elapsed() >= Duration::from_secs(seconds) {
        return false;
    }
    assert!(!home.at(&pid).exists());
    assert_eq!(home.read("told"), "continue\n");
    assert!(home.log().contains("responses in force: 1, they stay"), "{}", home.log());
    let _again = home.start(None, &[]);
    until(PATIENCE, || home.logs(), || home.read("told") == "continue\ndelete\n");
    true
}

#[test]
fn two_daemons_do_not_share_a_socket() {
    let home = home("");
    let _service = home.start(None, &["--dry-run"]);
    let mut command = std::process::Command::new(BINARY);
    let output = command.args(["responder", "--home"]).arg(home.at("")).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("another daemon serves"), "{text}");
    home.ask("getconfig logging");
}

#[test]
fn strangers_are_not_obeyed() {
    if !std::path::Path::new("/proc/self").exists() || !is_root() {
        return skip("needs root, to become somebody else");
    }
    let home = home("plain0 - plain - 0\n");
    home.script("plain", PLAIN);
    let _service = home.start(None, &[]);
    // The mode of the socket alone would stop them; here it does not.
    let open = |path: &str, mode: u32| {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::set_permissions(home.at(path), std::fs::Permissions::from_mode(mode)).unwrap();
    };
    for path in ["", "queue", "queue/alerts"] {
        open(path, 0o755);
    }
    open("queue/alerts/execq", 0o666);
    // Perl and Python need not be there: this very test binary, started again, is the stranger.
    let mut stranger = std::process::Command::new(std::env::current_exe().unwrap());
    stranger
        .args(["--exact", "a_stranger_sends", "--nocapture"])
        .env("TLD_STRANGER", home.at("queue/alerts/execq"));
    stranger.uid(65_534).gid(65_534);
    let reachable = stranger.output().is_ok_and(|output| output.status.success());
    if !reachable {
        return skip("this test's own file cannot be run by another user");
    }
    home.logged("user 65534, group 65534");
    home.send(request("plain0", r#"{"dstuser":"mine"}"#));
    until(PATIENCE, || home.logs(), || home.read("told").contains("mine"));
    assert!(!home.read("told").contains("strangers"), "{}", home.read("told"));
}

#[test]
fn a_stranger_sends() {
    let Some(path) = std::env::var_os("TLD_STRANGER") else { return };
    let socket = UnixDatagram::unbound().unwrap();
    socket.send_to(request("plain0", r#"{"dstuser":"strangers"}"#).as_bytes(), path).unwrap();
}

fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata("/proc/self").is_ok_and(|meta| meta.uid() == 0)
}
