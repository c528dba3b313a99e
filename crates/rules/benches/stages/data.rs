//! Logs and rulesets of the stage bench, each made once.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, OnceLock};

use tld_model::{Event, Timestamp};
use tld_rules::{Options, Ruleset};
use tld_xml::Source;

/// Lines of each log.
const LINES: usize = 2_000;
/// 2026-11-22T21:00:00Z, the last second of the generated logs.
const END: i64 = 1_795_381_200;

/// A log with the rules that judge it.
#[derive(Debug)]
pub(crate) struct Set {
    pub(crate) name: String,
    pub(crate) events: Vec<Event>,
    pub(crate) ruleset: Arc<Ruleset>,
}

/// Every log with every ruleset; empty where the shared data or python3 is missing.
pub(crate) fn sets() -> &'static [Set] {
    static SETS: OnceLock<Vec<Set>> = OnceLock::new();
    SETS.get_or_init(|| {
        let project = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let shared = std::env::var_os("TLD_SHARED").map_or_else(|| project.join("../shared"), PathBuf::from);
        let home = shared.join("conformance/home");
        if !home.is_dir() {
            return Vec::new();
        }
        let both = |kind: &str| sources(&[home.join("ruleset").join(kind), home.join("etc").join(kind)]);
        let own = |kind: &str| sources(&[project.join("ruleset").join(kind)]);
        let rulesets = [
            ("existing", load(&both("decoders"), &both("rules"))),
            ("shipped", load(&own("decoders"), &own("rules"))),
        ];
        let sshd = generated(&shared, "gen_authlog.py", &["--attackers", "1000", "--light", "2000"]);
        let logs =
            [("sshd", sshd), ("web", generated(&shared, "gen_weblog.py", &[])), ("cases", cases(&shared))];
        let mut sets = Vec::new();
        for (log, text) in logs {
            for (name, ruleset) in &rulesets {
                let (name, ruleset) = (format!("{log} {name}"), Arc::clone(ruleset));
                sets.push(Set { name, events: events(&text), ruleset });
            }
        }
        sets.retain(|set| !set.events.is_empty());
        sets
    })
}

/// Lines from all over the log, a tenth of a second apart.
fn events(text: &str) -> Vec<Event> {
    let lines: Vec<&str> = text.lines().filter(|line| !line.is_empty()).collect();
    let step = (lines.len() / LINES).max(1);
    let chosen = lines.iter().step_by(step).take(LINES).enumerate();
    chosen
        .map(|(n, line)| Event::local("/var/log/auth.log", *line, Timestamp::from_secs(END + n as i64 / 10)))
        .collect()
}

fn load(decoders: &[Source], rules: &[Source]) -> Arc<Ruleset> {
    Ruleset::load(decoders, rules, &[], &Options::default()).ruleset.expect("the ruleset loads")
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

fn generated(shared: &Path, generator: &str, extra: &[&str]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let made = Command::new("python3")
        .arg(shared.join("bench").join(generator))
        .args(["--lines", "20000", "--span", "600", "--seed", "1", "--end", &END.to_string()])
        .args(extra)
        .arg("--out")
        .arg(&log)
        .arg("--truth")
        .arg(folder.path().join("truth"))
        .env("TZ", "UTC")
        .stdout(Stdio::null())
        .status();
    if made.is_ok_and(|status| status.success()) {
        std::fs::read_to_string(log).unwrap()
    } else {
        String::new()
    }
}

/// The lines of many programs.
fn cases(shared: &Path) -> String {
    let text = std::fs::read_to_string(shared.join("conformance/analysis/cases-open.jsonl")).unwrap();
    let mut lines = String::new();
    for case in text.lines() {
        let case: serde_json::Value = serde_json::from_str(case).unwrap();
        lines.push_str(&case["log"].as_str().unwrap().replace('\n', " "));
        lines.push('\n');
    }
    lines
}
