//! What `threatlockdown check` tells of an installation, and that it only reads.

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
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::SystemTime;

use common::BINARY;

fn check(home: &Path, more: &[&str]) -> Output {
    Command::new(BINARY).args(["check", "--home"]).arg(home).args(more).output().expect("it runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Every file below a directory with its time of change.
fn tree(folder: &Path, found: &mut BTreeMap<PathBuf, SystemTime>) {
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let changed = entry.metadata().unwrap().modified().unwrap();
        found.insert(entry.path(), changed);
        if entry.file_type().unwrap().is_dir() {
            tree(&entry.path(), found);
        }
    }
}

fn unchanged<T>(home: &Path, act: impl FnOnce() -> T) -> T {
    let (mut before, mut after) = (BTreeMap::new(), BTreeMap::new());
    tree(home, &mut before);
    let result = act();
    tree(home, &mut after);
    assert_eq!(before, after, "a check only reads");
    result
}

/// A home whose second rule file repeats the ids of the first.
fn home(rules: usize) -> tempfile::TempDir {
    let home = tempfile::tempdir().unwrap();
    for folder in ["etc/rules", "etc/decoders"] {
        fs::create_dir_all(home.path().join(folder)).unwrap();
    }
    let conf = "<ossec_config><ruleset><decoder_dir>etc/decoders</decoder_dir><rule_dir>etc/rules</rule_dir></ruleset></ossec_config>\n";
    fs::write(home.path().join("etc/ossec.conf"), conf).unwrap();
    let text: String = (0..rules)
        .map(|n| format!("<rule id=\"{}\" level=\"3\"><if_sid>1</if_sid><match>x</match><description>x</description></rule>\n", 100_000 + n))
        .collect();
    let root = "<group name=\"x,\"><rule id=\"1\" level=\"0\"><category>syslog</category><description>All.</description></rule></group>\n";
    fs::write(home.path().join("etc/rules/0_rules.xml"), root).unwrap();
    for name in ["a_rules.xml", "b_rules.xml"] {
        fs::write(home.path().join("etc/rules").join(name), format!("<group name=\"x,\">\n{text}</group>\n"))
            .unwrap();
    }
    home
}

#[test]
fn many_warnings_of_a_kind_are_summed_up_and_verbose_shows_all() {
    let home = home(20);
    let output = unchanged(home.path(), || check(home.path(), &[]));
    let shown = text(&output.stderr);
    assert!(output.status.success(), "{shown}");
    assert_eq!(shown.matches("exists already").count(), 1, "{shown}");
    assert!(shown.contains("and 19 more like this: etc/rules/b_rules.xml:3, 4, 5, 6, 7, …"), "{shown}");
    assert!(text(&output.stdout).contains("20 warnings"));
    let all = check(home.path(), &["--verbose"]);
    assert_eq!(text(&all.stderr).matches("exists already").count(), 20);
    let json: serde_json::Value = serde_json::from_slice(&check(home.path(), &["--json"]).stdout).unwrap();
    assert_eq!((json["ok"].as_bool(), json["diagnostics"].as_array().map(Vec::len)), (Some(true), Some(20)));
}

#[test]
fn few_warnings_and_all_errors_are_shown_in_full() {
    let home = home(3);
    assert_eq!(text(&check(home.path(), &[]).stderr).matches("exists already").count(), 3);
    let broken: String = (0..8).map(|n| format!("<rule id=\"{}\" level=\"77\"/>\n", 100_100 + n)).collect();
    fs::write(home.path().join("etc/rules/c_rules.xml"), format!("<group name=\"x,\">{broken}</group>"))
        .unwrap();
    let output = check(home.path(), &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).matches("c_rules.xml").count() >= 8, "{}", text(&output.stderr));
}

#[test]
fn an_existing_installation_is_checked_in_a_screenful_without_a_write() {
    let shared = std::env::var_os("TLD_SHARED").map(PathBuf::from);
    let shared = shared.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared"));
    let home = shared.join("conformance/home");
    if !home.is_dir() {
        common::skip("no conformance data");
        return;
    }
    let output = unchanged(&home, || check(&home, &[]));
    assert!(output.status.success());
    assert!(text(&output.stdout).contains("70 warnings"), "{}", text(&output.stdout));
    let lines = text(&output.stderr).lines().count();
    assert!(lines < 40, "{lines} lines for 70 warnings");
}

#[test]
fn before_the_first_start_nothing_is_missed_that_the_start_will_make() {
    let home = tempfile::tempdir().unwrap();
    fs::create_dir_all(home.path().join("etc/rules")).unwrap();
    let conf = "<ossec_config>
        <command><name>firewall-drop</name><executable>firewall-drop</executable></command>
        <command><name>own</name><executable>own.sh</executable></command>
        <ruleset><decoder_dir>ruleset/decoders</decoder_dir><rule_dir>ruleset/rules</rule_dir>
        <rule_exclude>0490-none_rules.xml</rule_exclude>
        <decoder_dir>etc/decoders</decoder_dir><rule_dir>etc/rules</rule_dir></ruleset></ossec_config>";
    fs::write(home.path().join("etc/ossec.conf"), conf).unwrap();
    let rule = "<group name=\"x,\"><rule id=\"100001\" level=\"3\"><if_sid>5716</if_sid><description>x</description></rule></group>";
    fs::write(home.path().join("etc/rules/local_rules.xml"), rule).unwrap();
    let output = unchanged(home.path(), || check(home.path(), &["--json"]));
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["ok"], true, "{json}");
    let messages = json["diagnostics"].as_array().unwrap();
    assert_eq!(messages.len(), 1, "{json}");
    assert!(messages[0]["message"].as_str().unwrap().contains("no executable `own.sh`"), "{json}");
    let rules: u32 = text(&check(home.path(), &[]).stdout).split(' ').nth(1).unwrap().parse().unwrap();
    assert!(rules > 100, "the shipped rules count: {rules}");
    // A ruleset of another product stays, and ours does not come beside it.
    fs::create_dir_all(home.path().join("ruleset/rules")).unwrap();
    assert!(text(&check(home.path(), &[]).stderr).contains("ruleset/decoders"));
}

#[test]
fn a_home_without_a_configuration_is_checked_with_the_one_that_a_start_writes() {
    let home = tempfile::tempdir().unwrap();
    let output = unchanged(home.path(), || check(home.path(), &[]));
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("a start writes the shipped one"), "{}", text(&output.stderr));
    let missing = check(&home.path().join("typo"), &[]);
    assert_eq!(missing.status.code(), Some(1), "{}", text(&missing.stdout));
}
