//! `threatlockdown logtest` as a black box: the real binary, lines in, phases or JSON out.

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::panic,
    reason = "tests start programs"
)]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use common::{BINARY, shared};
use serde_json::Value;

const INVALID: &str = "Oct  8 10:21:33 box sshd[7]: Invalid user eve from 203.0.113.9 port 4242";

fn logtest(arguments: &[&str], input: impl AsRef<[u8]>) -> Output {
    let mut child = Command::new(BINARY)
        .arg("logtest")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.as_ref().to_vec();
    // A tester that ends early closes the pipe; what it said tells the rest.
    let feeder = std::thread::spawn(move || stdin.write_all(&input).is_ok());
    let output = child.wait_with_output().unwrap();
    feeder.join().unwrap();
    output
}

fn objects(arguments: &[&str], input: impl AsRef<[u8]>) -> Vec<Value> {
    let output = logtest(&[&["--json"], arguments].concat(), input);
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// A home with two rules of its own, one of them silenced by an `ignore` window.
fn home(rules: &str) -> tempfile::TempDir {
    let home = tempfile::tempdir().unwrap();
    for folder in ["etc", "ruleset/decoders", "ruleset/rules"] {
        fs::create_dir_all(home.path().join(folder)).unwrap();
    }
    fs::write(home.path().join("etc/ossec.conf"), "<ossec_config></ossec_config>").unwrap();
    let decoder = "<decoder name=\"door\">\n  <program_name>^door</program_name>\n</decoder>\n\n\
        <decoder name=\"door-open\">\n  <parent>door</parent>\n  <regex>opened by (\\S+)</regex>\n  <order>srcuser</order>\n</decoder>\n";
    fs::write(home.path().join("ruleset/decoders/door.xml"), decoder).unwrap();
    fs::write(
        home.path().join("ruleset/rules/door.xml"),
        format!("<group name=\"door,\">\n{rules}</group>\n"),
    )
    .unwrap();
    home
}

const DOOR: &str = "  <rule id=\"1\" level=\"0\" noalert=\"1\">
    <category>syslog</category>
    <description>Every line.</description>
  </rule>
  <rule id=\"100\" level=\"3\" ignore=\"600\">
    <decoded_as>door</decoded_as>
    <description>A door.</description>
  </rule>
  <rule id=\"101\" level=\"7\">
    <if_sid>100</if_sid>
    <match>closed</match>
    <description>Closed.</description>
  </rule>
";

fn files(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        found.push(path.display().to_string());
        if path.is_dir() {
            found.extend(files(&path));
        }
    }
    found.sort();
    found
}

#[test]
fn a_line_becomes_one_object_with_all_members() {
    let objects = objects(&[], format!("{INVALID}\n"));
    let [object] = objects.as_slice() else { panic!("{objects:?}") };
    assert_eq!(object["rule"]["id"], "5710");
    assert_eq!(object["rule"]["level"], 5);
    assert_eq!(object["decoder"]["name"], "sshd");
    assert_eq!(object["data"]["srcip"], "203.0.113.9");
    assert_eq!(object["predecoder"]["program_name"], "sshd");
    assert_eq!((&object["alert"], &object["location"]), (&Value::Bool(true), &"stdin".into()));
    assert_eq!(object["full_log"], INVALID);
}

#[test]
fn a_line_that_nothing_knows_has_empty_members_and_no_rule() {
    let output = logtest(&["--json"], "zz 1\n");
    let line = text(&output.stdout);
    assert!(
        line.starts_with(r#"{"predecoder":{},"decoder":{},"data":{},"rule":null,"alert":false,"#),
        "{line}"
    );
}

#[test]
fn a_line_that_offers_a_second_target_says_so_in_both_forms() {
    let door = home(DOOR);
    let decoders = "<decoder name=\"door\">\n  <program_name>^door</program_name>\n  <regex>opened from (\\S+)</regex>\n  <order>srcip</order>\n</decoder>\n";
    fs::write(door.path().join("ruleset/decoders/door.xml"), decoders).unwrap();
    let folder = door.path().to_str().unwrap();
    let line = "Dec 29 10:00:00 gate door: opened from 203.0.113.9 opened from 198.51.100.5\n";
    let objects = objects(&["--home", folder], line);
    assert_eq!(objects[0]["data"]["srcip"], "203.0.113.9");
    assert_eq!(objects[0]["contested"], serde_json::json!({ "srcip": ["198.51.100.5"] }));
    let shown = text(&logtest(&["--home", folder], line).stderr);
    assert!(shown.contains("srcip: also '198.51.100.5'"), "{shown}");
}

#[test]
fn bytes_that_are_no_text_are_replaced() {
    let objects = objects(&["--location", "/var/log/x"], b"zz\xff 1\n");
    assert_eq!(objects[0]["full_log"], "zz\u{fffd} 1");
    assert_eq!(objects[0]["location"], "/var/log/x");
}

#[test]
fn an_empty_line_starts_a_session_without_memory() {
    let seven = format!("{INVALID}\n").repeat(7);
    let ids = |input: String| {
        let objects = objects(&[], input);
        objects.iter().map(|object| object["rule"]["id"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(ids(format!("{seven}{INVALID}\n")).last().unwrap(), "5712");
    let parted = ids(format!("{seven}\n{INVALID}\n"));
    assert_eq!((parted.len(), parted.last().unwrap().as_str()), (8, "5710"));
}

#[test]
fn every_object_is_written_before_the_next_line_is_read() {
    let mut child = Command::new(BINARY)
        .args(["logtest", "--json"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    for _ in 0..3 {
        writeln!(stdin, "{INVALID}").unwrap();
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        assert!(line.ends_with("}\n"), "{line}");
    }
    // Nobody reads on: that is no failure worth a word.
    drop(stdout);
    let _ = writeln!(stdin, "{INVALID}");
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
}

#[test]
fn phases_stand_on_standard_error_without_colour() {
    let output = logtest(&[], format!("\n{INVALID}\n"));
    let said = text(&output.stderr);
    assert!(!said.contains('\x1b'));
    for part in [
        "Type one log per line\n",
        "\n**Phase 1: Completed pre-decoding.\n\tfull event: 'Oct  8 10:21:33 box",
        "\ttimestamp: 'Oct  8 10:21:33'\n\thostname: 'box'\n\tprogram_name: 'sshd'\n\n**Phase 2: Completed decoding.\n\tname: 'sshd'\n\tparent: 'sshd'\n\tsrcip: '203.0.113.9'\n",
        "\n**Phase 3: Completed filtering (rules).\n\tid: '5710'\n\tlevel: '5'\n\tdescription: '",
        "\tmail: 'False'\n",
        "\n**Alert to be generated.\n",
    ] {
        assert!(said.contains(part), "{part:?} in\n{said}");
    }
    assert!(text(&output.stdout).trim().is_empty());
    let none = text(&logtest(&[], "zz 1\n").stderr);
    assert!(none.contains("\tNo decoder matched.\n") && !none.contains("Phase 3"), "{none}");
}

#[test]
fn control_characters_of_a_log_do_not_reach_the_terminal() {
    let said = text(&logtest(&["--trace"], "a\x1b[2Jb\n").stderr);
    assert!(said.contains("full event: 'a\\u{1b}[2Jb'"), "{said}");
}

#[test]
fn a_unit_test_compares_and_tells_by_its_exit_status() {
    let run = |wanted: &str, input: &str| {
        let output = logtest(&["-q", "-U", wanted], input);
        (output.status.code().unwrap(), text(&output.stderr))
    };
    let line = format!("{INVALID}\n");
    assert_eq!(run("5710:5:sshd", &line), (0, "Unit test OK\n".to_owned()));
    let failed = "Unit test FAIL. Expected ['5710', '6', 'sshd'] , Result ['5710', '5', 'sshd']\n";
    assert_eq!(run("5710:6:sshd", &line), (1, failed.to_owned()));
    assert_eq!(run("::", "zz 1\n").0, 3, "the number of empty parts");
    assert_eq!(run("5710:5:sshd", "").0, 1, "nothing was tested");
    assert_eq!(run("5710:5", &line).0, 2, "a part is missing");
}

#[test]
fn a_trace_tells_what_is_missing_for_a_count() {
    let said = text(&logtest(&["--trace"], format!("{INVALID}\n{INVALID}\n")).stderr);
    assert!(
        said.contains("5712: needs 8 events in 120 s with the same srcip, has 2  ruleset/rules/"),
        "{said}"
    );
    assert!(said.contains("5710: wins, level 5  ruleset/rules/"), "{said}");
}

#[test]
fn a_trace_tells_what_is_silent_and_which_condition_failed_where() {
    let home = home(DOOR);
    let path = home.path().to_str().unwrap();
    let line = "Oct  8 10:21:33 box door[7]: opened by eve\n";
    let said = text(&logtest(&["--home", path, "--trace"], line.repeat(2)).stderr);
    for part in [
        "door: program_name matches  ruleset/decoders/door.xml:2\n",
        "<program_name>^door</program_name>\n",
        "door-open: regex matches  ruleset/decoders/door.xml:7\n",
        "100: wins, level 3  ruleset/rules/door.xml:6\n",
        "101: match does not match  ruleset/rules/door.xml:12\n",
        "<match>closed</match>\n",
        "no: rule 100 won less than 600 s ago and has ignore=\"600\"",
        "**Events without an alert in this session:\n\trule 100: 1 inside its ignore window\n",
    ] {
        assert!(said.contains(part), "{part:?} in\n{said}");
    }
    let why =
        text(&logtest(&["--home", path, "--why", "101"], "Oct  8 10:21:33 box gate[7]: closed\n").stderr);
    assert!(
        why.contains("101: not tried, because of the rule above it:  ruleset/rules/door.xml:10\n"),
        "{why}"
    );
    assert!(
        why.contains("100: decoded_as does not match, there is no decoder  ruleset/rules/door.xml:7\n"),
        "{why}"
    );
}

#[test]
fn a_home_is_only_read() {
    let home = home(DOOR);
    let before = files(home.path());
    let path = home.path().to_str().unwrap();
    assert_eq!(objects(&["--home", path], "Oct  8 10:21:33 box door[7]: closed\n")[0]["rule"]["id"], "101");
    assert_eq!(files(home.path()), before);
}

#[test]
fn a_ruleset_with_an_error_tests_nothing() {
    let home = home("  <rule id=\"100\" level=\"99\"><match>x</match></rule>\n");
    let output = logtest(&["--home", home.path().to_str().unwrap(), "--json"], "x\n");
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty());
    assert!(text(&output.stderr).contains("ruleset/rules/door.xml:2:"), "{}", text(&output.stderr));
}

/// What makes two results the same: rule, level, decoder, alert.
fn result(object: &Value) -> [Value; 4] {
    [&object["rule"]["id"], &object["rule"]["level"], &object["decoder"]["name"], &object["alert"]]
        .map(Clone::clone)
}

#[test]
fn an_existing_ruleset_gives_the_reference_results() {
    let Some(reference) = shared("conformance/analysis/reference-output-open.jsonl") else { return };
    let Some(home) = shared("conformance/home") else { return };
    let mut sessions: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for line in fs::read_to_string(reference).unwrap().lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        sessions.entry(line["session_group"].as_str().unwrap().to_owned()).or_default().push(line);
    }
    // An empty event cannot be put on a line of its own here: that would end the session.
    sessions.retain(|_, lines| lines.iter().all(|line| line["log"] != ""));
    let log = |line: &Value| format!("{}\n", line["log"].as_str().unwrap());
    let input: Vec<String> = sessions.values().map(|lines| lines.iter().map(log).collect()).collect();
    let found = objects(&["--home", home.to_str().unwrap()], input.join("\n"));
    let wanted: Vec<&Value> = sessions.values().flatten().collect();
    assert_eq!(found.len(), wanted.len());
    let different: Vec<_> =
        wanted.iter().zip(&found).filter(|(wanted, found)| result(wanted) != result(found)).collect();
    println!("{} of {} lines as the reference has them", wanted.len() - different.len(), wanted.len());
    for (wanted, found) in &different {
        println!("{}\n  wanted {:?}\n  found  {:?}", wanted["log"], result(wanted), result(found));
    }
    assert!(different.is_empty());
}
