//! Rulesets and logs that the benches share, and how they count processor time. Not every bench needs all of it.
//! Needs the shared data and python3.

#![allow(dead_code, reason = "each bench uses its part")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use rustix::time::{ClockId, clock_gettime};
use tld_rules::{Options, Ruleset};
use tld_xml::Source;

/// 2026-11-22T21:00:00Z, the last second of the generated logs.
pub(crate) const END: i64 = 1_795_381_200;
/// Seconds that they cover.
pub(crate) const SPAN: i64 = 600;

/// The project's root.
pub(crate) fn project() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The shared data; without it nothing can be measured, which is said.
pub(crate) fn shared() -> Option<PathBuf> {
    let shared = std::env::var_os("TLD_SHARED").map_or_else(|| project().join("../shared"), PathBuf::from);
    let there = shared.join("conformance/home").is_dir();
    if !there {
        println!("skipped: no conformance data below {} (TLD_SHARED)", shared.display());
    }
    there.then_some(shared)
}

/// Decoders, rules and lists.
pub(crate) struct Sources {
    decoders: Vec<Source>,
    rules: Vec<Source>,
    lists: Vec<Source>,
}

impl Sources {
    /// The conformance ruleset: about 4,700 rules.
    pub(crate) fn existing(shared: &Path) -> Self {
        let home = shared.join("conformance/home");
        let both = |kind: &str| sources(&[home.join("ruleset").join(kind), home.join("etc").join(kind)]);
        let lists = [
            "etc/lists/audit-keys",
            "etc/lists/amazon/aws-eventnames",
            "etc/lists/security-eventchannel",
            "etc/lists/malicious-ioc/malware-hashes",
            "etc/lists/malicious-ioc/malicious-ip",
            "etc/lists/malicious-ioc/malicious-domains",
        ];
        let lists = lists.map(|path| Source::new(path, std::fs::read(home.join(path)).unwrap()));
        Self { decoders: both("decoders"), rules: both("rules"), lists: lists.into() }
    }

    /// Our own.
    pub(crate) fn shipped() -> Self {
        let own = |kind: &str| sources(&[project().join("ruleset").join(kind)]);
        Self { decoders: own("decoders"), rules: own("rules"), lists: Vec::new() }
    }

    pub(crate) fn load(&self) -> Arc<Ruleset> {
        let Self { decoders, rules, lists } = self;
        Ruleset::load(decoders, rules, lists, &Options::default()).ruleset.expect("the ruleset loads")
    }
}

/// Files of some folders in the contract's order: by base name.
fn sources(folders: &[PathBuf]) -> Vec<Source> {
    let mut files = BTreeMap::new();
    for folder in folders {
        for entry in std::fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            if name.ends_with(".xml") && name != "0215-policy_rules.xml" {
                files.insert(name, entry.path());
            }
        }
    }
    files.into_iter().map(|(name, path)| Source::new(name, std::fs::read(path).unwrap())).collect()
}

/// What a generator of the shared data writes into a file of `folder`; none where it does not run.
pub(crate) fn generated(
    shared: &Path,
    folder: &Path,
    generator: &str,
    lines: usize,
    extra: &[&str],
) -> Option<PathBuf> {
    let log = folder.join(format!("{generator}{}", extra.concat()));
    let made = Command::new("python3")
        .arg(shared.join("bench").join(generator))
        .args(["--lines", &lines.to_string(), "--span", &SPAN.to_string(), "--seed", "1"])
        .args(["--end", &END.to_string(), "--truth", "/dev/null"])
        .args(extra)
        .arg("--out")
        .arg(&log)
        .env("TZ", "UTC")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    made.is_ok_and(|status| status.success()).then_some(log)
}

/// A sshd log with so many attackers that try often.
pub(crate) fn sshd(shared: &Path, folder: &Path, lines: usize, attackers: usize) -> Option<PathBuf> {
    let attackers = attackers.to_string();
    generated(shared, folder, "gen_authlog.py", lines, &["--attackers", &attackers, "--light", "2000"])
}

/// The lines of the open conformance cases: nearly every one of another program than the last.
pub(crate) fn cases(shared: &Path) -> Vec<u8> {
    let text = std::fs::read_to_string(shared.join("conformance/analysis/cases-open.jsonl")).unwrap();
    let mut lines = Vec::new();
    for case in text.lines() {
        let case: serde_json::Value = serde_json::from_str(case).unwrap();
        let line = case["log"].as_str().unwrap();
        lines.extend(line.bytes().map(|byte| if byte == b'\n' { b' ' } else { byte }));
        lines.push(b'\n');
    }
    lines
}

/// A log's lines.
pub(crate) fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty())
}

/// Seconds of processor time that this process has taken.
pub(crate) fn processor() -> f64 {
    let now = clock_gettime(ClockId::ProcessCPUTime);
    now.tv_sec as f64 + now.tv_nsec as f64 / 1e9
}

/// Resident memory in bytes.
pub(crate) fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_ascii_whitespace().nth(1).unwrap().parse::<usize>().unwrap() << 10
}
