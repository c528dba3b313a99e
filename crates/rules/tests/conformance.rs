//! The shared conformance data: a ruleset of about 4,500 rules, 1,191 sessions, and what the running reference
//! answered. Data stays outside the project; without it the tests say so and pass.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test binary: a surprise in the data is a failure"
)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use serde_json::Value;
use tld_model::{Event, Timestamp};
use tld_rules::{Analyzer, Engine, Loaded, Mode, Options, Ruleset, Settings, Verdict};
use tld_xml::{Severity, Source};

const DIFFERENCES_SHOWN: usize = 12;

fn shared() -> Option<PathBuf> {
    let given = std::env::var_os("TLD_SHARED").map(PathBuf::from);
    let required = given.is_some() && std::env::var("TLD_REQUIRE_ALL").is_ok_and(|all| all == "1");
    let root = given.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared"));
    if root.join("conformance/home").is_dir() {
        return Some(root.join("conformance"));
    }
    assert!(!required, "no conformance data below {}", root.display());
    println!("skipped: no conformance data below {}", root.display());
    None
}

/// Files of both directories in the contract's order: by base name.
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

fn loaded(conformance: &Path) -> &'static Loaded {
    static LOADED: OnceLock<Loaded> = OnceLock::new();
    LOADED.get_or_init(|| {
        let home = conformance.join("home");
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
        let loaded = Ruleset::load(&sources(&home, "decoders"), &sources(&home, "rules"), &lists, &options);
        for diagnostic in loaded.diagnostics.iter().filter(|diagnostic| diagnostic.is_error()) {
            println!("{}", diagnostic.render(false));
        }
        loaded
    })
}

fn session(ruleset: &Arc<Ruleset>) -> Analyzer {
    let settings = Settings { mode: Mode::Logtest, short_host: "host".into(), ..Settings::default() };
    Analyzer::new(Arc::clone(ruleset), settings)
}

fn lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Lines grouped by session, in order.
fn sessions(lines: Vec<Value>) -> Vec<Vec<Value>> {
    let mut sessions: Vec<Vec<Value>> = Vec::new();
    let mut places = BTreeMap::new();
    for line in lines {
        let name = line["session_group"].as_str().unwrap().to_owned();
        let place = *places.entry(name).or_insert_with(|| {
            sessions.push(Vec::new());
            sessions.len() - 1
        });
        sessions[place].push(line);
    }
    sessions
}

fn event(line: &Value) -> Event {
    Event::local("stdin", line["log"].as_str().unwrap(), Timestamp::from_secs(1_772_446_530))
}

#[test]
fn an_existing_ruleset_loads_with_the_named_warnings_only() {
    let Some(conformance) = shared() else { return };
    let loaded = loaded(&conformance);
    let ruleset = loaded.ruleset.as_ref().expect("no errors");
    let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
    for diagnostic in loaded.diagnostics.iter().filter(|d| d.severity == Severity::Warning) {
        let kind: String = diagnostic.message.chars().filter(|c| !c.is_ascii_digit()).collect();
        *kinds.entry(kind).or_default() += 1;
    }
    println!("{:?}\n{kinds:#?}", ruleset.counts());
    assert_eq!(kinds.values().copied().max(), Some(68), "duplicate ids");
    assert_eq!(kinds.values().sum::<usize>(), 70);
}

fn triple(verdict: &Verdict<'_>) -> [String; 3] {
    let rule = verdict.rule.as_ref();
    [
        rule.map_or(String::new(), |rule| rule.id.to_string()),
        rule.map_or(String::new(), |rule| rule.level.to_string()),
        verdict.decoder().unwrap_or_default().to_owned(),
    ]
}

#[test]
fn every_open_case_ends_with_the_expected_triple() {
    let Some(conformance) = shared() else { return };
    let ruleset = loaded(&conformance).ruleset.as_ref().expect("no errors");
    let (mut satisfied, mut judged, mut shown) = (0, 0, 0);
    for session_lines in sessions(lines(&conformance.join("analysis/cases-open.jsonl"))) {
        if session_lines.iter().any(|line| line["needs_geoip"] == true) {
            continue;
        }
        let mut analyzer = session(ruleset);
        for line in &session_lines {
            let event = event(line);
            let found = triple(&analyzer.analyze(&event));
            if line["judged"] != true {
                continue;
            }
            judged += 1;
            let wanted = ["rule", "level", "decoder"].map(|part| line[part].as_str().unwrap_or_default());
            let equal = wanted == found.each_ref().map(String::as_str) && !wanted.contains(&"");
            if equal == (line["expect_pass"] == true) {
                satisfied += 1;
            } else if shown < DIFFERENCES_SHOWN {
                shown += 1;
                println!(
                    "{}: expected {wanted:?}, found {found:?}\n  {}",
                    line["session_group"], line["log"]
                );
            }
        }
    }
    println!("cases: {satisfied} of {judged} satisfied");
    assert_eq!((satisfied, judged), (1181, 1181));
}

#[test]
fn every_open_line_is_answered_as_the_reference_answered() {
    let Some(conformance) = shared() else { return };
    let ruleset = loaded(&conformance).ruleset.as_ref().expect("no errors");
    let (mut equal, mut all, mut shown) = (0, 0, 0);
    for session_lines in sessions(lines(&conformance.join("analysis/reference-output-open.jsonl"))) {
        let mut analyzer = session(ruleset);
        for line in &session_lines {
            let event = event(line);
            if event.text.is_empty() {
                continue;
            }
            let verdict = analyzer.analyze(&event);
            let mut json = Vec::new();
            analyzer.event_json(&verdict).write("1.2", &mut json);
            let mut found: Value = serde_json::from_slice(&json).unwrap();
            if let Some(rule) = found["rule"].as_object_mut() {
                rule.remove("mitre");
            }
            found["alert"] = verdict.alert_flag.into();
            all += 1;
            let mut differing = Vec::new();
            for part in ["predecoder", "decoder", "data", "rule", "alert"] {
                let (wanted, found) = (&line[part], &found[part]);
                let both_empty = *wanted == Value::Null && found.as_object().is_some_and(|o| o.is_empty());
                if wanted != found && !both_empty {
                    differing.push((part, wanted.clone(), found.clone()));
                }
            }
            let previous = &line["also"]["previous_output"];
            if *previous != found["previous_output"] {
                differing.push(("previous_output", previous.clone(), found["previous_output"].clone()));
            }
            if differing.is_empty() {
                equal += 1;
            } else if shown < DIFFERENCES_SHOWN {
                shown += 1;
                println!("{}\n  {}", line["session_group"], line["log"]);
                for (part, wanted, found) in differing {
                    println!("  {part}: expected {wanted}\n  {part}: found    {found}");
                }
            }
        }
    }
    println!("reference output: {equal} of {all} equal");
    assert_eq!(equal, all);
}

/// Lines of the shared cases, and lines made of pieces of two of them or changed in some bytes.
fn mixed_lines(conformance: &Path, spliced: usize) -> Vec<String> {
    let cases = lines(&conformance.join("analysis/cases-open.jsonl"));
    let mut all: Vec<String> = cases.iter().map(|line| line["log"].as_str().unwrap().to_owned()).collect();
    let plain: Vec<Vec<char>> = all.iter().map(|line| line.chars().collect()).collect();
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below.max(1) as u64) as usize
    };
    for _ in 0..spliced {
        let (one, other) = (&plain[random(plain.len())], &plain[random(plain.len())]);
        let (cut, from) = (random(one.len()), random(other.len()));
        let mut line: Vec<char> = one[..cut].iter().chain(&other[from..]).copied().collect();
        match random(4) {
            0 => line.truncate(random(line.len())),
            1 if !line.is_empty() => {
                let at = random(line.len());
                line[at] = ['\0', 'A', '%', '"', ' ', '\u{fc}'][random(6)];
            }
            2 => line = line.iter().map(char::to_ascii_uppercase).collect(),
            _ => line = one[..cut].iter().chain(&one[cut.saturating_sub(random(20))..]).copied().collect(),
        }
        all.push(line.into_iter().collect());
    }
    all
}

#[test]
fn leaving_out_rules_that_cannot_match_changes_no_answer() {
    let Some(conformance) = shared() else { return };
    let ruleset = loaded(&conformance).ruleset.as_ref().expect("no errors");
    let analyzer = |engine| {
        let settings = Settings { short_host: "host".into(), ..Settings::default() };
        Analyzer::with_engine(engine, Arc::clone(ruleset), settings)
    };
    let (mut served, mut plain) = (analyzer(Engine::Indexed), analyzer(Engine::Reference));
    for (at, line) in mixed_lines(&conformance, 6_000).into_iter().enumerate() {
        let event = Event::local("stdin", line, Timestamp::from_secs(1_772_446_530 + at as i64 / 20));
        let (found, wanted) = (served.analyze(&event), plain.analyze(&event));
        let told = |verdict: &Verdict<'_>| {
            let rule = verdict.rule.as_ref();
            (
                rule.map(|rule| (rule.id, rule.fired)),
                verdict.alert.clone(),
                verdict.last_events.clone(),
                verdict.effects.clone(),
            )
        };
        assert_eq!(told(&found), told(&wanted), "{}", String::from_utf8_lossy(&event.text));
    }
    let suppressed = |analyzer: &Analyzer| analyzer.suppressed().collect::<Vec<_>>();
    assert_eq!(suppressed(&served), suppressed(&plain));
}
