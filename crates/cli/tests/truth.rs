//! Generated logs with known attackers, through the running service into the kernel: every attacker is blocked, no one else.

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "tests start programs"
)]

mod common;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use common::{Home, Host, namespaces, shared, until};

const RESPONSE: &str = "<active-response><command>firewall-drop</command><location>local</location>\
    <rules_id>5712,5720,5763,5551</rules_id><timeout>3600</timeout></active-response>";
const END: &str = "1795381200";
const SENTINEL: &str = "203.0.113.255";

fn generate(generator: &Path, folder: &Path, extra: &[&str]) -> (String, serde_json::Value) {
    let (log, truth) = (folder.join("made.log"), folder.join("truth.json"));
    let status = Command::new("python3")
        .arg(generator)
        .args(["--end", END, "--slow", "5", "--edge", "5", "--inject", "20", "--span", "600"])
        .args(extra)
        .arg("--out")
        .arg(&log)
        .arg("--truth")
        .arg(&truth)
        .env("TZ", "UTC")
        .status()
        .expect("python3 starts");
    assert!(status.success(), "the generator runs");
    let truth = serde_json::from_slice(&std::fs::read(truth).unwrap()).unwrap();
    (std::fs::read_to_string(log).unwrap(), truth)
}

fn addresses(list: &serde_json::Value) -> BTreeSet<IpAddr> {
    let parse = |text: &str| text.parse::<IpAddr>().expect("an address");
    match list {
        serde_json::Value::Array(list) => list.iter().filter_map(|one| one.as_str()).map(parse).collect(),
        serde_json::Value::Object(map) => map.keys().map(|text| parse(text)).collect(),
        other => panic!("not a list: {other}"),
    }
}

fn serve(extra: &[&str]) {
    if !namespaces() {
        return;
    }
    let Some(generator) = shared("bench/gen_authlog.py") else { return };
    let (host, home) = (Host::new("srv"), Home::new(RESPONSE));
    let (log, truth) = generate(&generator, home.path.path(), extra);
    let _service = home.start(Some(&host), &["--log-time"], &[("TZ", "UTC")]);
    home.log(&log);
    let sentinel: String = (0..12)
        .map(|n| format!("Nov 22 21:00:01 web01 sshd[7{n:02}]: Failed password for root from {SENTINEL} port {n} ssh2\n"))
        .collect();
    home.log(&sentinel);
    let sentinel: IpAddr = SENTINEL.parse().unwrap();
    let mut blocked = BTreeSet::new();
    until(Duration::from_secs(240), "the last line is judged and answered", || {
        blocked = host.blocked().into_iter().collect();
        blocked.contains(&sentinel)
    });
    blocked.remove(&sentinel);
    let must = addresses(&truth["must_ban"]);
    let innocent: BTreeSet<_> =
        addresses(&truth["must_not"]).union(&addresses(&truth["injected_victims"])).copied().collect();
    let missed: Vec<_> = must.difference(&blocked).collect();
    let wrong: Vec<_> = innocent.intersection(&blocked).collect();
    println!(
        "{extra:?}: {} of {} attackers blocked, {} wrongly",
        must.len() - missed.len(),
        must.len(),
        wrong.len()
    );
    assert!(missed.is_empty(), "not blocked: {missed:?}");
    assert!(wrong.is_empty(), "blocked without cause: {wrong:?}");
}

#[test]
fn thirty_attackers_with_classic_stamps() {
    serve(&["--lines", "20000", "--attackers", "30"]);
}

#[test]
fn thirty_attackers_with_iso_stamps_and_sshd_session() {
    serve(&["--lines", "20000", "--attackers", "30", "--format", "iso", "--ssh-program", "sshd-session"]);
}

#[test]
fn a_thousand_attackers_with_classic_stamps() {
    serve(&["--lines", "200000", "--attackers", "1000", "--light", "2000"]);
}

#[test]
fn a_thousand_attackers_with_iso_stamps_and_sshd_session() {
    serve(&[
        "--lines",
        "200000",
        "--attackers",
        "1000",
        "--light",
        "2000",
        "--format",
        "iso",
        "--ssh-program",
        "sshd-session",
    ]);
}
