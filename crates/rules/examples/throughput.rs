//! Lines per CPU-second of the whole engine on one log, with the ruleset of the shared conformance data.
//!
//! `throughput LOG [passes] [--print] [--slow] [--hash] [--reference]`: the hash over all alerts tells whether two
//! builds judge alike. A file that ends in `.jsonl` holds conformance cases, whose logs are the lines.

#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a tool for developers"
)]

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use tld_model::{Event, Timestamp};
use tld_rules::{Analyzer, Engine, Mode, Options, Ruleset, Settings};
use tld_xml::Source;

fn home() -> PathBuf {
    let root = std::env::var_os("TLD_SHARED").map(PathBuf::from);
    let root = root.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared"));
    root.join("conformance/home")
}

fn sources(home: &Path, kind: &str) -> Vec<Source> {
    let mut files = BTreeMap::new();
    for directory in [format!("ruleset/{kind}"), format!("etc/{kind}")] {
        for entry in std::fs::read_dir(home.join(&directory)).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            if name.ends_with(".xml") && name != "0215-policy_rules.xml" {
                files.insert(name.clone(), format!("{directory}/{name}"));
            }
        }
    }
    files.into_values().map(|path| source(home, &path)).collect()
}

fn source(home: &Path, path: &str) -> Source {
    Source::new(path, std::fs::read(home.join(path)).unwrap())
}

fn ruleset() -> Arc<Ruleset> {
    let home = home();
    let lists = [
        "etc/lists/audit-keys",
        "etc/lists/amazon/aws-eventnames",
        "etc/lists/security-eventchannel",
        "etc/lists/malicious-ioc/malware-hashes",
        "etc/lists/malicious-ioc/malicious-ip",
        "etc/lists/malicious-ioc/malicious-domains",
    ];
    let lists: Vec<Source> = lists.iter().map(|path| source(&home, path)).collect();
    let options = Options { log_alert_level: 3, email_alert_level: 12, ..Options::default() };
    Ruleset::load(&sources(&home, "decoders"), &sources(&home, "rules"), &lists, &options).ruleset.unwrap()
}

/// Nanoseconds that this thread ran.
fn cpu() -> u64 {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    stat.split(' ').next().unwrap().parse().unwrap()
}

fn lines(path: &str) -> Vec<Vec<u8>> {
    let text = std::fs::read(path).unwrap();
    let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    if !path.ends_with(".jsonl") {
        return lines.map(<[u8]>::to_vec).collect();
    }
    let case = |line| serde_json::from_slice::<serde_json::Value>(line).unwrap();
    lines.map(|line| case(line)["log"].as_str().unwrap().as_bytes().to_vec()).collect()
}

/// Seconds of the day in a classic header; lines without one keep the time of the line before.
fn time(line: &[u8]) -> Option<i64> {
    let digit = |at: usize| Some(i64::from(line.get(at)?.checked_sub(b'0').filter(|digit| *digit < 10)?));
    let two = |at| Some(digit(at)? * 10 + digit(at + 1)?);
    (line.get(9) == Some(&b':') && line.get(12) == Some(&b':'))
        .then(|| Some(two(7)? * 3600 + two(10)? * 60 + two(13)?))
        .flatten()
}

fn main() {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    let mut flag = |name: &str| {
        let before = arguments.len();
        arguments.retain(|argument| argument != name);
        arguments.len() != before
    };
    let (print, reference, slow, hash) =
        (flag("--print"), flag("--reference"), flag("--slow"), flag("--hash"));
    let passes: usize = arguments.get(1).map_or(1, |passes| passes.parse().unwrap());
    let started = Instant::now();
    let ruleset = ruleset();
    let loading = started.elapsed();
    let engine = if reference { Engine::Reference } else { Engine::Indexed };
    let settings = Settings { mode: Mode::Daemon, short_host: "host".into(), ..Settings::default() };
    let mut analyzer = Analyzer::with_engine(engine, ruleset, settings);
    let mut at = 1_795_305_600;
    let events: Vec<Event> = lines(&arguments[0])
        .into_iter()
        .map(|line| {
            at = time(&line).map_or(at, |seconds| (1_795_305_600 + seconds).max(at));
            Event::local("/var/log/auth.log", line, Timestamp::from_secs(at))
        })
        .collect();
    let (mut alerts, mut bytes, mut hasher) = (0_u64, 0_u64, DefaultHasher::new());
    let mut out = Vec::new();
    let (begin, wall) = (cpu(), Instant::now());
    for _ in 0..passes {
        for event in &events {
            let before = slow.then(Instant::now);
            let verdict = analyzer.analyze(event);
            if let Some(before) = before {
                println!("{} ns {}", before.elapsed().as_nanos(), String::from_utf8_lossy(&event.text));
            }
            if print {
                let rule = verdict.rule.as_ref().map_or(0, |rule| rule.id.0);
                println!("{rule} {}", String::from_utf8_lossy(&event.text));
            }
            if let Some(alert) = &verdict.alert {
                out.clear();
                alert.json.write("1.2", &mut out);
                alert.plain.write("1.2", &mut out);
                bytes += out.len() as u64;
                alerts += 1;
                if hash {
                    (&out, &alert.contested, &alert.srcip, &alert.dstuser).hash(&mut hasher);
                }
            }
        }
    }
    let (cpu, wall) = (cpu() - begin, wall.elapsed());
    let count = events.len() * passes;
    let rate = count as f64 / (cpu as f64 / 1e9);
    println!(
        "{rate:.0} lines/CPU-s, {:.0} ns/line, {count} lines, {alerts} alerts, {bytes} bytes, wall {:.2} s, load {:.2} s",
        1e9 / rate,
        wall.as_secs_f64(),
        loading.as_secs_f64(),
    );
    println!("hash {:016x}, memory {:?}", hasher.finish(), analyzer.memory());
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    for line in status.lines().filter(|line| line.starts_with("VmHWM") || line.starts_with("VmRSS")) {
        println!("{line}");
    }
}
