//! `threatlockdown agents`: the real binary on real files, as an operator uses it with and beside other tools.

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "tests start programs and may fail loudly"
)]

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

fn home() -> TempDir {
    let home = tempfile::tempdir().unwrap();
    fs::create_dir_all(home.path().join("etc/shared/linux")).unwrap();
    fs::create_dir_all(home.path().join("etc/shared/default")).unwrap();
    home
}

fn agents(home: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_threatlockdown"));
    command.arg("agents").args(arguments).arg("--home").arg(home).env("TZ", "UTC").output().unwrap()
}

fn good(home: &Path, arguments: &[&str]) -> String {
    let output = agents(home, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn bad(home: &Path, arguments: &[&str]) -> String {
    let output = agents(home, arguments);
    assert!(!output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8(output.stderr).unwrap()
}

fn keys(home: &Path) -> String {
    fs::read_to_string(home.join("etc/client.keys")).unwrap_or_default()
}

fn import_from_stdin(home: &Path, key: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_threatlockdown"));
    command.args(["agents", "import", "-", "--home"]).arg(home);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(key.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

#[test]
fn an_agent_is_added_shown_and_removed_and_its_id_is_not_given_again() {
    let home = home();
    let home = home.path();
    assert_eq!(good(home, &["list"]), "no agents\n");
    assert!(good(home, &["add", "web-01", "--group", "linux"]).starts_with("added: agent 001 (web-01)\n"));
    good(home, &["add", "net", "--ip", "10.7.0.0/16"]);
    let table = good(home, &["list"]);
    assert!(table.starts_with("ID ") && table.contains("never_connected"), "{table}");
    assert!(good(home, &["show", "web-01"]).contains("groups              linux\n"));
    let shown: serde_json::Value = serde_json::from_str(&good(home, &["show", "2", "--json"])).unwrap();
    assert_eq!((&shown["id"], &shown["registerIP"]), (&"002".into(), &"10.7.0.0/16".into()));
    assert_eq!(good(home, &["remove", "002"]), "removed: agent 002 (net)\n");
    assert!(keys(home).contains("\n002 !net 10.7.0.0/16 "));
    assert_eq!(good(home, &["list", "--json"]).lines().count(), 1);
    let added: serde_json::Value = serde_json::from_str(&good(home, &["add", "net", "--json"])).unwrap();
    assert_eq!(added["id"], "003");
    good(home, &["remove", "net", "--purge"]);
    // Keys are random digits: only a line's beginning tells.
    assert!(!keys(home).contains("\n003 "), "{}", keys(home));
}

#[test]
fn a_key_goes_from_manager_to_agent() {
    let (manager, agent) = (home(), home());
    good(manager.path(), &["add", "web-01"]);
    let line = keys(manager.path());
    let key = good(manager.path(), &["key", "web-01"]);
    let output = import_from_stdin(agent.path(), &key);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(keys(agent.path()), line);
    let mode = fs::metadata(agent.path().join("etc/client.keys")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o640);
    // A second import replaces the first, and forgets how far the former manager had counted.
    fs::create_dir_all(agent.path().join("queue/rids")).unwrap();
    fs::write(agent.path().join("queue/rids/002"), "9:9:").unwrap();
    good(manager.path(), &["add", "web-02"]);
    let key = good(manager.path(), &["key", "002"]);
    good(agent.path(), &["import", key.trim()]);
    assert!(keys(agent.path()).starts_with("002 web-02 any "));
    assert!(!agent.path().join("queue/rids/002").exists());
    assert!(bad(manager.path(), &["import", key.trim()]).contains("it is a manager's"));
    assert!(bad(agent.path(), &["import", "bm90IGEga2V5"]).contains("holds no agent"));
    assert!(bad(agent.path(), &["import", "?"]).contains("no import key"));
}

#[test]
fn mistakes_are_named_and_change_nothing() {
    let home = home();
    let home = home.path();
    good(home, &["add", "web-01", "--ip", "10.1.2.3"]);
    let before = keys(home);
    assert!(bad(home, &["add", "web-01"]).contains("the name `web-01` is taken"));
    assert!(bad(home, &["add", "web-02", "--ip", "10.1.2.3"]).contains("the address `10.1.2.3` is taken"));
    assert!(bad(home, &["add", "a b"]).contains("`a b` is not an agent name"));
    assert!(bad(home, &["add", "web-02", "--ip", "10.1.2"]).contains("is not an address"));
    assert!(bad(home, &["add", "web-02", "--id", "1"]).contains("was given before"));
    assert!(bad(home, &["add", "web-02", "--group", "nope"]).contains("there are default, linux"));
    assert!(bad(home, &["remove", "web-01", "nobody"]).contains("there is no agent `nobody`"));
    assert!(bad(home, &["list", "--state", "gone"]).contains("never_connected, pending"));
    assert!(bad(&home.join("nowhere"), &["list"]).contains("is no installation"));
    assert_eq!(keys(home), before);
}

#[test]
fn lines_of_other_tools_stay_and_bad_ones_are_told() {
    let home = home();
    let home = home.path();
    let text = "# made by hand\n005 old any 0123456789abcdef\nnonsense\n";
    fs::write(home.join("etc/client.keys"), text).unwrap();
    let output = agents(home, &["add", "web"]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("line 3: a key line has four fields"));
    assert!(keys(home).starts_with(&format!("{text}006 web any ")), "{}", keys(home));
    good(home, &["group", "old", "linux", "default"]);
    assert!(good(home, &["list"]).contains("linux,default"));
}
