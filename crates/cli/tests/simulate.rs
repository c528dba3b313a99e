//! `threatlockdown simulate` as a black box: the real binary, logs in, tables or JSON out, and nothing written.

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
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::SystemTime;

use common::{BINARY, shared};
use serde_json::Value;

/// Blocks for a minute on failed logins of one address, and longer if it comes back.
const CONF: &str = "<ossec_config>
  <global><white_list>192.0.2.0/24</white_list></global>
  <command><name>firewall-drop</name><executable>firewall-drop</executable><timeout_allowed>yes</timeout_allowed></command>
  <active-response><command>firewall-drop</command><location>local</location><rules_id>5710</rules_id>
    <timeout>60</timeout><repeated_offenders>5</repeated_offenders><protected>198.51.100.7</protected></active-response>
</ossec_config>
";

struct Ground(tempfile::TempDir);

impl Ground {
    fn new() -> Self {
        let ground = Self(tempfile::tempdir().unwrap());
        ground.write("conf.xml", CONF);
        ground
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        let path = self.0.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path.display().to_string()
    }

    fn run(&self, arguments: &[&str], input: &[u8]) -> Output {
        let mut child = Command::new(BINARY)
            .arg("simulate")
            .args(arguments)
            .current_dir(self.0.path())
            .env("TZ", "UTC")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let input = input.to_vec();
        let feeder = std::thread::spawn(move || stdin.write_all(&input).is_ok());
        let output = child.wait_with_output().unwrap();
        feeder.join().unwrap();
        output
    }

    /// A home with a decoder that takes the first address of a line, and responses to its rule 100.
    fn home(&self) -> String {
        self.write("home/etc/ossec.conf", CONF.replace("5710", "100"));
        self.write(
            "home/ruleset/decoders/d.xml",
            "<decoder name=\"door\"><program_name>^door</program_name></decoder>\n\
             <decoder name=\"door-by\"><parent>door</parent><regex>from (\\S+)</regex><order>srcip</order></decoder>\n",
        );
        self.write(
            "home/ruleset/rules/r.xml",
            "<group name=\"door,\"><rule id=\"1\" level=\"0\"><category>syslog</category><description>All.</description></rule>\n\
             <rule id=\"100\" level=\"7\"><if_sid>1</if_sid><decoded_as>door</decoded_as><description>Door.</description></rule></group>\n",
        );
        self.0.path().join("home").display().to_string()
    }

    /// The JSON summary with the configuration above.
    fn summary(&self, arguments: &[&str]) -> Value {
        let output = self.run(&[&["--config", "conf.xml", "--summary", "json"], arguments].concat(), b"");
        assert!(output.status.success(), "{}", text(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// A login with an unknown name, `at` seconds into an hour of 2026-11-20.
fn invalid(at: u32, address: &str) -> String {
    format!(
        "2026-11-20T10:{:02}:{:02}.000000+00:00 web01 sshd[7]: Invalid user eve from {address} port 4242\n",
        at / 60,
        at % 60
    )
}

fn alerts(summary: &Value) -> BTreeMap<String, u64> {
    let rules = summary["alerts"]["rules"].as_array().unwrap();
    rules.iter().map(|rule| (rule["id"].to_string(), rule["count"].as_u64().unwrap())).collect()
}

fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

fn zstandard(text: &str) -> Vec<u8> {
    ruzstd::encoding::compress_to_vec(text.as_bytes(), ruzstd::encoding::CompressionLevel::Fastest)
}

#[test]
fn responses_are_told_with_target_times_ends_and_repetition() {
    let ground = Ground::new();
    let lines = [
        invalid(0, "203.0.113.9"),
        invalid(30, "203.0.113.9"),
        invalid(40, "203.0.113.10"),
        // The block of a minute moved out by the second line is over.
        invalid(95, "203.0.113.9"),
    ];
    let log = ground.write("auth.log", lines.concat());
    let summary = ground.summary(&["--log", &log]);
    let responses = &summary["responses"];
    assert_eq!(
        (&responses["began"], &responses["extended"], &responses["escalated"]),
        (&3.into(), &1.into(), &1.into())
    );
    assert_eq!(responses["most_at_once"]["count"], 2);
    assert_eq!(responses["most_at_once"]["at"], "2026-11-20T10:00:40.000+0000");
    let first = &responses["targets"][0];
    assert_eq!(first["target"], "203.0.113.9");
    assert_eq!(
        (&first["times"], &first["extended"], &first["longest_seconds"]),
        (&2.into(), &1.into(), &300.into())
    );
    assert_eq!(
        (&first["first"], &first["last"]),
        (&"2026-11-20T10:00:00.000+0000".into(), &"2026-11-20T10:01:35.000+0000".into())
    );
    assert_eq!(
        (&first["response"], &first["rule"]),
        (&"firewall-drop60".into(), &summary["alerts"]["rules"][0]["id"])
    );
}

#[test]
fn allow_listed_protected_and_contested_targets_are_refused_with_the_reason() {
    let ground = Ground::new();
    let lines = [invalid(0, "192.0.2.8"), invalid(1, "198.51.100.7"), invalid(2, "127.0.0.1")];
    let summary = ground.summary(&["--log", &ground.write("auth.log", lines.concat())]);
    let reason = |summary: &Value, kind: &str, target: &str| {
        let refusals = summary["responses"]["refusals"].as_array().unwrap();
        let found = refusals.iter().find(|one| one["kind"] == kind && one["target"] == target);
        found.unwrap_or_else(|| panic!("no {kind} {target} in {refusals:#?}"))["reason"].to_string()
    };
    assert!(reason(&summary, "allow-listed", "192.0.2.8").contains("<white_list>192.0.2.0/24</white_list>"));
    assert!(
        reason(&summary, "endpoint", "198.51.100.7").contains("protected by the configuration (198.51.100.7")
    );
    assert!(reason(&summary, "endpoint", "127.0.0.1").contains("loopback"));
    assert_eq!((&summary["responses"]["began"], &summary["responses"]["refused"]), (&0.into(), &3.into()));
    let forged =
        "2026-11-20T10:05:00.000000+00:00 web01 door[7]: opened from 203.0.113.9 from 198.51.100.5\n";
    let (home, log) = (ground.home(), ground.write("door.log", forged));
    let output = ground.run(&["--home", &home, "--summary", "json", "--log", &log], b"");
    let summary: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(reason(&summary, "contested", "203.0.113.9").contains("198.51.100.5"));
}

#[test]
fn packed_files_and_standard_input_give_the_same_result_as_a_plain_file() {
    let ground = Ground::new();
    let lines: String = (0..40).map(|n| invalid(n, "203.0.113.9")).collect();
    let wanted = ground.summary(&["--log", &ground.write("plain", &lines)]);
    assert_eq!(wanted["input"]["lines"], 40);
    for path in [ground.write("x.gz", gzip(&lines)), ground.write("x.zst", zstandard(&lines))] {
        let found = ground.summary(&["--log", &path]);
        for part in ["alerts", "responses", "input", "over_time", "time"] {
            assert_eq!(found[part], wanted[part], "{part} of {path}");
        }
    }
    for input in [lines.clone().into_bytes(), gzip(&lines)] {
        let output = ground.run(&["--config", "conf.xml", "--summary", "json", "--log", "-"], &input);
        let found: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!((&found["alerts"], &found["input"]), (&wanted["alerts"], &wanted["input"]));
    }
}

#[test]
fn rotated_files_are_put_in_order_and_several_logs_are_read_side_by_side() {
    let ground = Ground::new();
    let (mut parts, mut plain) = (vec![String::new(); 3], String::new());
    for n in 0..90 {
        let line = invalid(n, "203.0.113.9");
        parts[n as usize / 30].push_str(&line);
        plain.push_str(&line);
    }
    let wanted = ground.summary(&["--log", &ground.write("whole.log", &plain)]);
    let files = [
        ground.write("auth.log", &parts[2]),
        ground.write("auth.log.1", &parts[1]),
        ground.write("auth.log.2.gz", gzip(&parts[0])),
    ];
    let files: Vec<&str> = files.iter().map(String::as_str).collect();
    let found = ground.summary(&[&["--log"], files.as_slice()].concat());
    assert_eq!((&found["alerts"], &found["responses"]), (&wanted["alerts"], &wanted["responses"]));
    assert_eq!(found["input"]["backwards"], 0);
    // The same lines dealt to two logs.
    let deal =
        |side: usize| plain.lines().skip(side).step_by(2).map(|line| format!("{line}\n")).collect::<String>();
    let logs = [ground.write("one/auth.log", deal(0)), ground.write("two/auth.log", deal(1))];
    let found = ground.summary(&["--log", &logs[0], "--log", &logs[1], "--location", "same"]);
    assert_eq!((&found["alerts"], &found["responses"]), (&wanted["alerts"], &wanted["responses"]));
    assert_eq!(found["input"]["backwards"], 0);
}

#[test]
fn the_number_of_threads_changes_nothing_but_the_cost() {
    let ground = Ground::new();
    let lines: String = (0..3_000).map(|n| invalid(n, &format!("203.0.113.{}", n % 90))).collect();
    let log = ground.write("auth.log", lines);
    let run = |threads: &str| {
        let mut summary = ground.summary(&["--threads", threads, "--log", &log]);
        summary["cost"] = Value::Null;
        summary
    };
    let one = run("1");
    assert!(one["responses"]["began"].as_u64() > Some(0));
    for threads in ["2", "3", "8"] {
        assert_eq!(run(threads), one, "{threads} threads");
    }
    let refused = ground.run(&["--threads", "0", "--log", &log], b"");
    assert!(text(&refused.stderr).contains("0 is not in 1..=64"), "{}", text(&refused.stderr));
}

#[test]
fn rules_count_by_the_logs_own_time_or_by_arrival_as_asked() {
    let ground = Ground::new();
    // One failure a minute is no brute force; eight at once are.
    let lines: String = (0..30).map(|n| invalid(n * 100, "203.0.113.9")).collect();
    let log = ground.write("auth.log", lines);
    assert!(!alerts(&ground.summary(&["--log", &log])).contains_key("5712"));
    let arrived = ground.summary(&["--arrival", "--log", &log]);
    assert!(alerts(&arrived).contains_key("5712"), "{arrived:#}");
    assert_eq!(arrived["time"]["by"], "arrival");
}

#[test]
fn stamps_without_a_year_take_it_from_the_age_of_the_file() {
    let ground = Ground::new();
    let log = ground
        .write("auth.log", "Dec 31 23:59:59 web01 sshd[7]: Invalid user eve from 203.0.113.9 port 4242\n");
    // 2024-01-02
    let changed = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_704_153_600);
    fs::File::options().write(true).open(&log).unwrap().set_modified(changed).unwrap();
    assert_eq!(ground.summary(&["--log", &log])["time"]["first"], "2023-12-31T23:59:59.000+0000");
}

#[test]
fn lines_that_are_odd_are_counted_and_do_no_harm() {
    let ground = Ground::new();
    let mut bytes = invalid(0, "203.0.113.9").into_bytes();
    bytes.extend_from_slice(b"\nno stamp\n\xff\xfe\0\n");
    bytes.extend(std::iter::repeat_n(b'x', 70_000));
    bytes.extend_from_slice(b"\n2026-11-20T09:00:00Z web01 old: x");
    let input = &ground.summary(&["--log", &ground.write("odd.log", bytes)])["input"];
    let number = |name: &str| input[name].as_u64().unwrap();
    assert_eq!(["lines", "events", "empty", "unstamped", "cut", "backwards"].map(number), [6, 5, 1, 3, 1, 1]);
}

/// Every file below a folder with content and time of change.
fn picture(folder: &Path) -> BTreeMap<PathBuf, (Vec<u8>, SystemTime)> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let changed = fs::metadata(&path).unwrap().modified().unwrap();
        if path.is_dir() {
            found.extend(picture(&path));
            found.insert(path, (Vec::new(), changed));
        } else {
            found.insert(path.clone(), (fs::read(&path).unwrap(), changed));
        }
    }
    found
}

#[test]
fn a_home_is_only_read_and_its_rules_and_responses_are_used() {
    let ground = Ground::new();
    ground.home();
    let log = ground.write(
        "door.log",
        "2026-11-20T10:00:00.000000+00:00 web01 door[7]: opened from 203.0.113.9\n".repeat(3),
    );
    let home = ground.0.path().join("home");
    let before = picture(&home);
    let output = ground.run(&["--home", home.to_str().unwrap(), "--summary", "json", "--log", &log], b"");
    assert_eq!(picture(&home), before);
    let summary: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(alerts(&summary), BTreeMap::from([("100".to_owned(), 3)]));
    assert_eq!(summary["responses"]["targets"][0]["target"], "203.0.113.9");
    assert_eq!(summary["ruleset"]["rules"], 2);
}

#[test]
fn what_cannot_be_read_is_named_with_a_mend() {
    let ground = Ground::new();
    let refused = |arguments: &[&str]| {
        let output = ground.run(&[&["--log"], arguments].concat(), b"");
        assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0));
        text(&output.stderr)
    };
    assert!(refused(&["absent.log"]).contains("cannot read `absent.log`: No such file"));
    assert!(refused(&["."]).contains("name the files in it (`--log DIR/*`)"));
    let packed = ground.write("x.xz", b"\xfd7zXZ\0\0\0");
    assert!(refused(&[&packed]).contains("`xz -dc FILE | threatlockdown simulate --log -`"));
    let broken = ground.write("broken.xml", "<ossec_config><global></ossec_config>");
    let said = refused(&["conf.xml", "--config", &broken]);
    assert!(said.contains("broken.xml:1:") && said.contains("nothing was replayed"), "{said}");
}

#[test]
fn a_cut_archive_is_replayed_as_far_as_it_goes_and_ends_with_status_one() {
    let ground = Ground::new();
    let lines: String = (0..2_000).map(|n| invalid(n % 3_600, &format!("203.0.113.{}", n % 250))).collect();
    let mut packed = gzip(&lines);
    packed.truncate(packed.len() / 2);
    let (cut, whole) = (ground.write("cut.gz", packed), ground.write("whole.log", invalid(0, "203.0.113.9")));
    let output = ground.run(&["--summary", "json", "--log", &cut, &whole], b"");
    assert_eq!(output.status.code(), Some(1));
    let summary: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(summary["problems"][0]["file"].as_str().unwrap().ends_with("cut.gz"));
    assert!(summary["input"]["events"].as_u64().unwrap() > 1);
    let said = text(&ground.run(&["--log", &cut], b"").stdout);
    assert!(said.contains("cut.gz: the archive is cut off; what it held so far was replayed"), "{said}");
}

#[test]
fn the_table_shows_rules_responses_refusals_and_a_chart_without_colour_or_control_characters() {
    let ground = Ground::new();
    let mut lines: String = (0..200).map(|n| invalid(n * 10, &format!("203.0.113.{}", n % 50))).collect();
    lines.push_str(&invalid(2_001, "192.0.2.8"));
    let log = ground.write("auth\x1b[2J.log", lines);
    let output = ground.run(&["--config", "conf.xml", "--rows", "5", "--log", &log], b"");
    let said = text(&output.stdout);
    assert!(output.status.success() && !said.contains('\x1b'), "{said}");
    for part in [
        "\nAlerts: ",
        "\n  LEVEL  RULE",
        "\nResponses: ",
        "\n  RESPONSE         ON ",
        "TIMES  RULE  FIRST           LAST            LONGEST  EXTENDED\n",
        "  firewall-drop60  203.0.113.",
        "`--rows 0` shows all",
        "\nRefused: 1 would not have run\n",
        "allow-listed by <white_list>192.0.2.0/24</white_list>",
        "\nOver time, 5 min a row\n",
        "\n  2026-11-20 10:05:00",
        "\nNotes\n",
    ] {
        assert!(said.contains(part), "{part:?} in\n{said}");
    }
    assert!(output.stderr.is_empty(), "no progress where no terminal is: {}", text(&output.stderr));
    let none = text(&ground.run(&["--log", &log], b"").stdout);
    assert!(none.contains("Responses: none is configured"), "{none}");
}

#[test]
fn every_attacker_of_a_generated_log_is_answered_and_no_innocent_host_is() {
    let Some(generator) = shared("bench/gen_authlog.py") else { return };
    let ground = Ground::new();
    let conf =
        CONF.replace("5710", "5712,5720,5551,5763").replace("<white_list>192.0.2.0/24</white_list>", "");
    ground.write("conf.xml", conf);
    let made = Command::new("python3")
        .arg(generator)
        .args([
            "--lines",
            "20000",
            "--attackers",
            "30",
            "--span",
            "600",
            "--seed",
            "1",
            "--end",
            "1795381200",
        ])
        .args(["--out", "a.log", "--truth", "a.json"])
        .env("TZ", "UTC")
        .current_dir(ground.0.path())
        .stdout(Stdio::null())
        .status();
    if !made.is_ok_and(|status| status.success()) {
        common::skip("`python3` is not installed (package python3)");
        return;
    }
    let summary = ground.summary(&["--log", "a.log"]);
    let truth: Value = serde_json::from_slice(&fs::read(ground.0.path().join("a.json")).unwrap()).unwrap();
    let listed: Vec<&str> = summary["responses"]["targets"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["target"].as_str().unwrap())
        .collect();
    let hosts = |name: &str| match &truth[name] {
        Value::Array(list) => list.iter().map(|one| one.as_str().unwrap().to_owned()).collect::<Vec<_>>(),
        Value::Object(map) => map.keys().cloned().collect(),
        other => panic!("{name}: {other}"),
    };
    let missed: Vec<_> =
        hosts("must_ban").into_iter().filter(|host| !listed.contains(&host.as_str())).collect();
    let wrong: Vec<_> =
        hosts("must_not").into_iter().filter(|host| listed.contains(&host.as_str())).collect();
    assert!(missed.is_empty() && wrong.is_empty(), "missed {missed:?}, wrong {wrong:?}");
}
