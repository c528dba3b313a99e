//! Lines per second of processor time through decoders and rules: an existing ruleset of about 4,500 rules and the shipped one,
//! on generated logs with 1,000 and with 98,000 attackers and on the conformance cases. Needs the shared data and python3.
//! Processor time instead of wall time, so that a busy machine does not count; each figure is the median of three runs.
//! `cargo bench -p tld-rules --bench engine`

#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a bench starts programs and prints"
)]

use std::collections::BTreeMap;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use rustix::time::{ClockId, clock_gettime};
use tld_model::{Event, Timestamp};
use tld_rules::{Analyzer, Options, Ruleset, Settings};
use tld_xml::Source;

/// 2026-11-22T21:00:00Z, the last second of the generated logs.
const END: i64 = 1_795_381_200;
const SPAN: i64 = 600;
const RUNS: usize = 3;

fn main() {
    if std::env::args().any(|argument| argument == "--test") {
        return;
    }
    let project = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let shared = std::env::var_os("TLD_SHARED").map_or_else(|| project.join("../shared"), PathBuf::from);
    if !shared.join("conformance/home").is_dir() {
        println!("skipped: no conformance data below {}", shared.display());
        return;
    }
    let folder = std::env::temp_dir().join(format!("tld-bench-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let logs = [
        ("sshd", generated(&shared, &folder, "gen_authlog.py", &["--attackers", "1000", "--light", "2000"])),
        (
            "sshd 100k",
            generated(&shared, &folder, "gen_authlog.py", &["--attackers", "98000", "--light", "2000"]),
        ),
        ("web", generated(&shared, &folder, "gen_weblog.py", &[])),
        ("cases", cases(&shared)),
    ];
    std::fs::remove_dir_all(&folder).unwrap();
    let rulesets = [
        ("existing", existing(&shared.join("conformance/home"))),
        ("shipped", shipped(&project.join("ruleset"))),
    ];
    for (log, text) in &logs {
        let lines: Vec<&[u8]> = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).collect();
        // What is left without any analysis: cutting a file into events.
        let reading = median(|| {
            lines.iter().enumerate().for_each(|(n, line)| drop(black_box(event(n, line, lines.len()))));
        });
        println!("{log:<9} reading   {:>10.0} lines/CPU-s", rate(&lines, reading));
        for (name, ruleset) in &rulesets {
            measure(log, name, ruleset, &lines, reading);
        }
    }
}

fn measure(log: &str, name: &str, ruleset: &Arc<Ruleset>, lines: &[&[u8]], reading: f64) {
    let mut alerts = 0;
    let mut memory = (0, 0, 0);
    let mut run = |plain| {
        let settings = Settings { with_plain: plain, ..Settings::default() };
        let mut analyzer = Analyzer::new(Arc::clone(ruleset), settings);
        alerts = 0;
        for (n, line) in lines.iter().enumerate() {
            let event = event(n, line, lines.len());
            let verdict = analyzer.analyze(&event);
            alerts += usize::from(verdict.alert.is_some());
            black_box(&verdict);
        }
        memory = analyzer.memory();
    };
    let spent = median(|| run(false));
    println!(
        "{log:<9} {name:<9} {:>10.0} lines/CPU-s, {:>6.2} CPU-s/million, {:>7.0} x reading, {alerts} alerts, {} events remembered in {} KiB, RSS {} MiB",
        rate(lines, spent),
        spent * 1e6 / lines.len() as f64,
        spent / reading,
        memory.0,
        memory.1 >> 10,
        resident() >> 20
    );
}

/// Lines spread evenly over the ten minutes that the logs cover.
fn event(n: usize, line: &[u8], all: usize) -> Event {
    let passed = SPAN * n as i64 / all as i64;
    Event::local("/var/log/auth.log", line, Timestamp::from_secs(END - SPAN + passed))
}

fn processor() -> f64 {
    let now = clock_gettime(ClockId::ProcessCPUTime);
    now.tv_sec as f64 + now.tv_nsec as f64 / 1e9
}

fn median(mut run: impl FnMut()) -> f64 {
    let mut times: Vec<f64> = (0..RUNS)
        .map(|_| {
            let start = processor();
            run();
            processor() - start
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times[RUNS / 2]
}

fn rate(lines: &[&[u8]], seconds: f64) -> f64 {
    lines.len() as f64 / seconds
}

fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_ascii_whitespace().nth(1).unwrap().parse::<usize>().unwrap() << 10
}

fn generated(shared: &Path, folder: &Path, generator: &str, extra: &[&str]) -> Vec<u8> {
    let log = folder.join("log");
    let status = Command::new("python3")
        .arg(shared.join("bench").join(generator))
        .args(["--lines", "200000", "--span", "600", "--seed", "1", "--end", &END.to_string()])
        .args(extra)
        .arg("--out")
        .arg(&log)
        .arg("--truth")
        .arg(folder.join("truth"))
        .env("TZ", "UTC")
        .status()
        .unwrap();
    assert!(status.success(), "{generator} runs");
    std::fs::read(log).unwrap()
}

/// The lines of many programs, repeated.
fn cases(shared: &Path) -> Vec<u8> {
    let text = std::fs::read_to_string(shared.join("conformance/analysis/cases-open.jsonl")).unwrap();
    let mut lines = Vec::new();
    for case in text.lines() {
        let case: serde_json::Value = serde_json::from_str(case).unwrap();
        let line = case["log"].as_str().unwrap();
        lines.extend(line.bytes().map(|byte| if byte == b'\n' { b' ' } else { byte }));
        lines.push(b'\n');
    }
    lines.repeat(30)
}

fn load(name: &str, decoders: &[Source], rules: &[Source], lists: &[Source]) -> Arc<Ruleset> {
    let mut ruleset = None;
    let before = resident();
    let spent = median(|| ruleset = Ruleset::load(decoders, rules, lists, &Options::default()).ruleset);
    let ruleset = ruleset.expect("the ruleset loads");
    println!(
        "load   {name:<9} {:>7.1} ms of processor time, {} rules, {} decoders, RSS +{} MiB",
        spent * 1e3,
        ruleset.counts().rules,
        ruleset.decoders().len(),
        resident().saturating_sub(before) >> 20
    );
    ruleset
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

fn existing(home: &Path) -> Arc<Ruleset> {
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
    load("existing", &both("decoders"), &both("rules"), &lists)
}

fn shipped(folder: &Path) -> Arc<Ruleset> {
    load("shipped", &sources(&[folder.join("decoders")]), &sources(&[folder.join("rules")]), &[])
}
