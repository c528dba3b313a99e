//! The ruleset that we ship, judged by the engine that loads it: which rule wins, and above all whose address it
//! names. The generator of attack logs and the collected log lines come from the shared data, where there is any.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "helpers of tests: a failure is told by panicking"
)]

mod tables;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, OnceLock};

use serde_json::Value;
use tld_model::{Event, Timestamp};
use tld_rules::{Analyzer, Mode, Options, Ruleset, Settings, StaticField};
use tld_xml::Source;

use tables::{A, FRAGMENTS, FRAMING, LOCAL, PAM, SSHD, TEMPLATES, VICTIM};

const NOON: i64 = 1_700_000_000;

fn project() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn sources(kind: &str) -> Vec<Source> {
    let directory = project().join("ruleset").join(kind);
    let mut names: Vec<_> = std::fs::read_dir(&directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".xml"))
        .collect();
    names.sort();
    let read = |name: String| {
        let text = std::fs::read(directory.join(&name)).unwrap();
        Source::new(format!("ruleset/{kind}/{name}"), text)
    };
    names.into_iter().map(read).collect()
}

fn ruleset() -> Arc<Ruleset> {
    static RULESET: OnceLock<Arc<Ruleset>> = OnceLock::new();
    let load = || {
        let options = Options { log_alert_level: 3, email_alert_level: 12, ..Options::default() };
        let loaded = Ruleset::load(&sources("decoders"), &sources("rules"), &[], &options);
        let said: Vec<String> = loaded.diagnostics.iter().map(|one| one.render(false)).collect();
        assert!(said.is_empty(), "the shipped ruleset loads without a word:\n{}", said.join("\n"));
        loaded.ruleset.unwrap()
    };
    Arc::clone(RULESET.get_or_init(load))
}

fn analyzer(mode: Mode) -> Analyzer {
    Analyzer::new(ruleset(), Settings { mode, with_plain: false, ..Settings::default() })
}

fn shared(part: &str) -> Option<PathBuf> {
    let given = std::env::var_os("TLD_SHARED").map(PathBuf::from);
    let required = given.is_some() && std::env::var("TLD_REQUIRE_ALL").is_ok_and(|all| all == "1");
    let path = given.unwrap_or_else(|| project().join("../shared")).join(part);
    if path.exists() {
        return Some(path);
    }
    assert!(!required, "no {}", path.display());
    println!("skipped: no {}", path.display());
    None
}

/// What one line alone makes of a fresh analyzer.
#[derive(Debug, Default, PartialEq, Eq)]
struct Seen {
    rule: u32,
    level: u8,
    srcip: String,
    dstuser: String,
    srcuser: String,
    contested: bool,
}

fn judge(line: &str) -> Seen {
    let mut analyzer = analyzer(Mode::Logtest);
    let event = Event::local("/var/log/auth.log", line, Timestamp::from_secs(NOON));
    let verdict = analyzer.analyze(&event);
    let field =
        |field| String::from_utf8_lossy(verdict.decoded.field(field).unwrap_or_default()).into_owned();
    let rule = verdict.rule.as_ref();
    Seen {
        rule: rule.map_or(0, |rule| rule.id.to_string().parse().unwrap()),
        level: rule.map_or(0, |rule| rule.level),
        srcip: field(StaticField::SrcIp),
        dstuser: field(StaticField::DstUser),
        srcuser: field(StaticField::SrcUser),
        contested: verdict.alert.as_ref().is_some_and(|alert| !alert.contested.is_empty()),
    }
}

fn headers() -> [&'static str; 4] {
    [
        "Nov 11 08:04:51 web01 sshd[2737]: ",
        "Nov 11 08:04:51 web01 sshd-session[2737]: ",
        "2025-11-11T08:04:51.123456+00:00 web01 sshd-session[2737]: ",
        "2025-11-11T08:04:51+02:00 web01 sshd-auth[2737]: ",
    ]
}

#[test]
fn every_message_of_sshd_gives_its_rule_address_and_user_under_every_header() {
    for (message, rule, address, user) in SSHD {
        for header in headers() {
            let seen = judge(&format!("{header}{message}"));
            assert_eq!((seen.rule, seen.srcip.as_str()), (*rule, *address), "{header}{message}");
            let named = if seen.dstuser.is_empty() { &seen.srcuser } else { &seen.dstuser };
            assert_eq!(named, user, "{header}{message}");
            assert!(!seen.contested, "{message}");
        }
    }
}

#[test]
fn no_name_makes_sshd_accuse_somebody_else() {
    assert!(FRAMING.len() >= 40);
    for (message, may_be_missing) in FRAMING {
        for header in headers() {
            let seen = judge(&format!("{header}{message}"));
            assert_ne!(seen.srcip, VICTIM, "{message}");
            assert!(!seen.contested, "a framing name must not keep the response from its sender: {message}");
            let right = seen.srcip == A || seen.srcip == "2001:db8::7";
            assert!(right || (*may_be_missing && seen.srcip.is_empty()), "{message}: {seen:?}");
        }
    }
}

#[test]
fn no_name_made_of_dangerous_words_accuses_somebody_else() {
    let mut state = 7_u64;
    let mut next = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).unwrap() % below
    };
    let mut analyzer = analyzer(Mode::Logtest);
    let mut wrong = BTreeMap::new();
    for _ in 0..400 {
        for (template, must_be_found) in TEMPLATES {
            let mut line = String::new();
            for part in template.split_inclusive('@') {
                let Some(fixed) = part.strip_suffix('@') else {
                    line.push_str(part);
                    continue;
                };
                line.push_str(fixed);
                // The one place where "@" is the server's own.
                if fixed == "'" {
                    line.push('@');
                    continue;
                }
                (0..=next(5)).for_each(|_| line.push_str(FRAGMENTS[next(FRAGMENTS.len())]));
            }
            let event = Event::local("/var/log/auth.log", line.as_str(), Timestamp::from_secs(NOON));
            let verdict = analyzer.analyze(&event);
            let address = verdict.decoded.field(StaticField::SrcIp).unwrap_or_default();
            let right = address == A.as_bytes() || (address.is_empty() && !must_be_found);
            if !right {
                wrong
                    .entry(*template)
                    .or_insert_with(|| (String::from_utf8_lossy(address).into_owned(), line.clone()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn pam_lines_give_the_address_that_the_program_set() {
    for (line, rule, address, user) in PAM {
        let seen = judge(&format!("Nov 11 08:04:51 web01 {line}"));
        assert_eq!(
            (seen.rule, seen.srcip.as_str(), seen.dstuser.as_str()),
            (*rule, *address, *user),
            "{line}"
        );
    }
}

#[test]
fn neither_a_referrer_nor_a_long_request_hides_a_client_of_nginx() {
    let line = |message: &str, request: &str, referrer: &str| {
        format!(
            "2025/11/11 08:04:51 [error] 7#7: *3 {message}, client: {A}, server: s, request: \"GET /{request} HTTP/1.1\", \
             host: \"h\", referrer: \"{referrer}\""
        )
    };
    let missing = "open() \"/www/cgi-bin/x\" failed (2: No such file or directory)";
    for referrer in ["a, cl", ", client:", ", client, client", ",", ", client :"] {
        assert_eq!(judge(&line(missing, "cgi-bin/x", referrer)).srcip, A, "{referrer}");
    }
    let long = "y".repeat(4000);
    let forged = format!(", client: {VICTIM}, server: s");
    for own in [
        "access forbidden by rule",
        "limiting requests, excess: 5.020 by zone \"one\"",
        "delaying request, excess: 0.560, by zone \"one\"",
        "limiting connections by zone \"addr\"",
        "no user/password was provided for basic authentication",
        "client intended to send too large body: 10 bytes",
        "connect() failed (111: Connection refused) while connecting to upstream",
        "SSL_do_handshake() failed (SSL: error:0A00006C:SSL routines::bad key share) while SSL handshaking",
    ] {
        assert_eq!(judge(&line(own, &long, &forged)).srcip, A, "{own}");
    }
    assert_eq!(judge(&line(missing, &long, "x")).srcip, "", "its end may be cut off");
    let imitation = format!("open() \"/www/x\" failed (2: No such file or directory){forged}");
    assert_eq!(judge(&line(&imitation, "x", "x")).srcip, "", "nobody can tell which is real");
}

#[test]
fn sudo_and_su_tell_who_became_whom() {
    for (line, rule, user) in LOCAL {
        let seen = judge(&format!("Nov 11 08:04:51 web01 {line}"));
        assert_eq!((seen.rule, seen.dstuser.as_str()), (*rule, *user), "{line}");
    }
}

fn response(program: &str, command: &str, data: &str) -> String {
    format!(
        "2026/03/02 10:15:31 active-response/bin/{program}: {{\"version\":1,\"origin\":{{\"name\":\"node01\",\"module\":\
         \"wazuh-execd\"}},\"command\":\"{command}\",\"parameters\":{{\"extra_args\":[],\"alert\":{{\"full_log\":\
         \"Invalid user \\\"data\\\":{{\\\"srcip\\\":\\\"{VICTIM}\\\" from {A} port 4\",\"data\":{data}}},\
         \"program\":\"active-response/bin/{program}\"}}}}"
    )
}

#[test]
fn the_log_of_our_responses_is_told_and_answers_itself_never() {
    let data = format!("{{\"srcip\":\"{A}\",\"dstuser\":\"bob\"}}");
    for (program, command, rule) in [
        ("firewall-drop", "add", 651),
        ("firewall-drop", "delete", 652),
        ("host-deny", "add", 653),
        ("host-deny", "delete", 654),
        ("route-null", "add", 655),
        ("route-null", "delete", 656),
        ("own-script", "add", 657),
        ("own-script", "delete", 657),
        ("firewall-drop", "continue", 650),
        ("firewall-drop", "abort", 650),
    ] {
        let line = response(program, command, &data);
        let seen = judge(&line);
        assert_eq!((seen.rule, seen.srcip.as_str()), (rule, A), "{line}");
        let mut analyzer = analyzer(Mode::Daemon);
        let event = Event::local("/var/ossec/logs/active-responses.log", line, Timestamp::from_secs(NOON));
        let alert = analyzer.analyze(&event).alert;
        assert!(alert.is_none_or(|alert| alert.no_response), "{program} {command}");
    }
    for text in ["Starting", "Ended", "Aborted", "Cannot read 'srcip' from data"] {
        let seen = judge(&format!("2026/03/02 10:15:31 active-response/bin/firewall-drop: {text}"));
        assert_eq!((seen.level, seen.srcip.as_str()), (0, ""));
    }
}

fn feed(analyzer: &mut Analyzer, second: i64, line: &str) -> (u32, String) {
    let event = Event::local("/var/log/auth.log", line, Timestamp::from_secs(second));
    let verdict = analyzer.analyze(&event);
    let address = verdict.decoded.field(StaticField::SrcIp).unwrap_or_default();
    let rule = verdict.rule.as_ref().map_or(0, |rule| rule.id.to_string().parse().unwrap());
    (rule, String::from_utf8_lossy(address).into_owned())
}

const ANSWERED: [u32; 4] = [5712, 5720, 5763, 5551];

#[test]
fn one_attacker_does_not_hide_another() {
    let mut analyzer = analyzer(Mode::Daemon);
    let mut answered = BTreeMap::<String, usize>::new();
    for attempt in 0..20 {
        for host in 1..=5 {
            let line = format!(
                "Nov 11 08:04:51 web01 sshd[1]: Failed password for root from 198.51.100.{host} port 4 ssh2"
            );
            let (rule, address) = feed(&mut analyzer, NOON + attempt, &line);
            if ANSWERED.contains(&rule) {
                *answered.entry(address).or_default() += 1;
            }
        }
    }
    assert_eq!(answered.len(), 5, "{answered:?}");
    assert!(answered.values().all(|times| *times == 2), "{answered:?}");
}

#[test]
fn a_mix_of_names_is_counted_together_without_help_of_pam() {
    for known in 0..=10 {
        let mut analyzer = analyzer(Mode::Daemon);
        let mut hit = false;
        for attempt in 0..10 {
            let header = "Nov 11 08:04:51 web01 sshd[1]:";
            let mut lines = vec![format!("{header} Failed password for root from {A} port 4 ssh2")];
            if attempt >= known {
                lines = vec![
                    format!("{header} Invalid user x from {A} port 4"),
                    format!("{header} Failed password for invalid user x from {A} port 4 ssh2"),
                ];
            }
            for line in lines {
                hit |= ANSWERED.contains(&feed(&mut analyzer, NOON + attempt * 6, &line).0);
            }
        }
        assert!(hit, "{known} attempts with a known name");
    }
}

#[test]
fn three_wrong_passwords_and_a_login_are_nobodys_attack() {
    let mut analyzer = analyzer(Mode::Daemon);
    let header = "Nov 11 08:04:51 web01 sshd[1]:";
    let failure =
        "authentication failure; logname= uid=0 euid=0 tty=ssh ruser= rhost=198.51.100.7  user=alice";
    for line in [
        format!("{header} pam_unix(sshd:auth): {failure}"),
        format!("{header} Failed password for alice from {A} port 4 ssh2"),
        format!("{header} Failed password for alice from {A} port 4 ssh2"),
        format!("{header} Failed password for alice from {A} port 4 ssh2"),
        format!("{header} Connection closed by authenticating user alice {A} port 4 [preauth]"),
        format!("{header} PAM 2 more {}", failure.replace("failure;", "failures;")),
        format!("{header} Accepted password for alice from {A} port 5 ssh2"),
    ] {
        let (rule, _) = feed(&mut analyzer, NOON, &line);
        assert!(rule != 5700 && rule != 5500, "{line} is unknown");
        assert!(!ANSWERED.contains(&rule) && rule != 5798, "{line}");
    }
}

/// Makes a log with a shared generator: its lines and the truth about them.
#[expect(clippy::disallowed_methods, reason = "the generator is a script, and this room may not use sys")]
fn generated(generator: &str, end: i64, arguments: &[&str]) -> Option<(String, Value)> {
    let generator = shared(&format!("bench/{generator}"))?;
    let directory = tempdir();
    let (log, truth) = (directory.join("log"), directory.join("truth"));
    let made = Command::new("python3")
        .arg(generator)
        .args(["--end", &end.to_string(), "--out"])
        .arg(&log)
        .arg("--truth")
        .arg(&truth)
        .args(arguments)
        .env("TZ", "UTC")
        .output();
    let Ok(made) = made else {
        println!("skipped: no python3");
        return None;
    };
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let truth: Value = serde_json::from_slice(&std::fs::read(&truth).unwrap()).unwrap();
    let log = std::fs::read_to_string(&log).unwrap();
    std::fs::remove_dir_all(&directory).unwrap();
    Some((log, truth))
}

fn hosts(value: &Value) -> BTreeSet<String> {
    match value {
        Value::Object(map) => map.keys().cloned().collect(),
        Value::Array(list) => list.iter().map(|host| host.as_str().unwrap().to_owned()).collect(),
        _ => BTreeSet::new(),
    }
}

/// Feeds an authentication log, each line at its own time.
fn against_the_truth(arguments: &[&str]) {
    let end = NOON + 3600;
    let Some((log, truth)) = generated("gen_authlog.py", end, arguments) else { return };
    let midnight = end - end.rem_euclid(86_400);
    let mut analyzer = analyzer(Mode::Daemon);
    let (mut answered, mut severe) = (BTreeSet::new(), BTreeSet::new());
    let mut last = 0;
    for line in log.lines() {
        let clock = if line.starts_with('2') { &line[11..19] } else { &line[7..15] };
        let mut parts = clock.split(':').map(|part| part.parse::<i64>().unwrap());
        let of_day = parts.by_ref().fold(0, |sum, part| sum * 60 + part);
        let mut second = midnight + of_day;
        if second > end {
            second -= 86_400;
        }
        assert!(second >= last, "the log goes on in time: {line}");
        last = second;
        let event = Event::local("/var/log/auth.log", line, Timestamp::from_secs(second));
        let verdict = analyzer.analyze(&event);
        let Some(alert) = verdict.alert else { continue };
        let Some(address) = alert.srcip else { continue };
        let address = String::from_utf8(address).unwrap();
        assert!(alert.contested.is_empty() || alert.rule.level < 10, "{line}");
        if ANSWERED.contains(&alert.rule.id.to_string().parse().unwrap()) {
            answered.insert(address.clone());
        }
        if alert.rule.level >= 10 {
            severe.insert(address);
        }
    }
    let must = hosts(&truth["must_ban"]);
    let missed: Vec<_> = must.difference(&answered).collect();
    assert!(missed.is_empty(), "{} of {} missed: {missed:?}", missed.len(), must.len());
    for set in ["must_not", "injected_victims"] {
        let wrong: Vec<_> = hosts(&truth[set]).intersection(&severe).cloned().collect();
        assert!(wrong.is_empty(), "{set}: {wrong:?}");
    }
    println!("{arguments:?}: {} answered, {} had to be", answered.len(), must.len());
}

fn tempdir() -> PathBuf {
    static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let path = std::env::temp_dir().join(format!("tld-shipped-{}-{number}", std::process::id()));
    std::fs::create_dir_all(&path).unwrap();
    path
}

#[test]
fn web_scanners_and_floods_are_found_and_nobody_else() {
    let end = NOON + 3600;
    let Some((log, truth)) = generated("gen_weblog.py", end, &["--lines", "40000"]) else { return };
    let midnight = end - end.rem_euclid(86_400);
    let mut analyzer = analyzer(Mode::Daemon);
    let mut severe = BTreeSet::new();
    for line in log.lines() {
        let clock = line.split('[').nth(1).unwrap();
        let of_day = clock[12..20].split(':').fold(0, |sum, part| sum * 60 + part.parse::<i64>().unwrap());
        let event = Event::local("/var/log/nginx/access.log", line, Timestamp::from_secs(midnight + of_day));
        let Some(alert) = analyzer.analyze(&event).alert else { continue };
        if alert.rule.level >= 10 {
            severe.insert(String::from_utf8(alert.srcip.unwrap()).unwrap());
        }
    }
    let must = hosts(&truth["must_ban"]);
    let missed: Vec<_> = must.difference(&severe).collect();
    assert!(missed.is_empty(), "{} of {} missed: {missed:?}", missed.len(), must.len());
    for set in ["must_not", "injected_victims"] {
        let wrong: Vec<_> = hosts(&truth[set]).intersection(&severe).cloned().collect();
        assert!(wrong.is_empty(), "{set}: {wrong:?}");
    }
}

#[test]
fn thirty_attackers_are_answered_and_nobody_else() {
    against_the_truth(&[
        "--lines",
        "20000",
        "--attackers",
        "30",
        "--slow",
        "20",
        "--edge",
        "20",
        "--inject",
        "40",
    ]);
}

#[test]
fn thirty_attackers_are_answered_in_the_new_format() {
    let new = ["--format", "iso", "--ssh-program", "sshd-session", "--seed", "7"];
    let size = ["--lines", "20000", "--attackers", "30", "--slow", "20", "--edge", "20", "--inject", "40"];
    against_the_truth(&[&new[..], &size[..]].concat());
}

#[test]
fn a_thousand_attackers_at_once_are_answered() {
    let shape = ["--shape", "simultaneous", "--light", "2000", "--slow", "50", "--edge", "50"];
    against_the_truth(&[&["--lines", "60000", "--attackers", "1000"][..], &shape[..]].concat());
}

#[test]
fn a_thousand_attackers_at_once_are_answered_in_the_new_format() {
    let new = ["--format", "iso", "--ssh-program", "sshd-session", "--seed", "3"];
    let size = ["--lines", "60000", "--attackers", "1000", "--slow", "50", "--edge", "50"];
    against_the_truth(&[&new[..], &size[..]].concat());
}

#[test]
fn collected_log_lines_are_covered_service_by_service() {
    let Some(path) = shared("conformance/attack-logs/open.jsonl") else { return };
    // service -> attacks found, attacks, silent when nothing happened, such lines
    let mut services = BTreeMap::<String, [u32; 4]>::new();
    let mut strangers = Vec::new();
    for line in std::fs::read_to_string(path).unwrap().lines() {
        let case: Value = serde_json::from_str(line).unwrap();
        let (service, log) = (case["service"].as_str().unwrap(), case["log"].as_str().unwrap());
        let seen = judge(log);
        let counts = services.entry(service.to_owned()).or_default();
        if case["match"].as_bool().unwrap() {
            counts[1] += 1;
            let host = case["host"].as_str().unwrap_or_default();
            let bare = seen.srcip.strip_prefix("::ffff:").unwrap_or(&seen.srcip);
            if seen.level >= 5 && bare == host {
                counts[0] += 1;
            } else if seen.level >= 5 && !seen.srcip.is_empty() {
                strangers.push(format!("{service} {}: {} instead of {host}", case["n"], seen.srcip));
            } else if std::env::var_os("TLD_VERBOSE").is_some() {
                println!("missed {service} {}: {} {log}", case["n"], seen.rule);
            }
        } else {
            counts[3] += 1;
            counts[2] += u32::from(seen.level < 5);
            if seen.level >= 5 && std::env::var_os("TLD_VERBOSE").is_some() {
                println!("loud {service} {}: {} {log}", case["n"], seen.rule);
            }
        }
    }
    let mut sum = [0; 4];
    for (service, counts) in &services {
        println!("{service}: {}/{} found, {}/{} silent", counts[0], counts[1], counts[2], counts[3]);
        sum.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
    }
    println!("all: {}/{} found, {}/{} silent; {strangers:#?}", sum[0], sum[1], sum[2], sum[3]);
    let sshd = services.get("sshd").copied().unwrap_or_default();
    assert!(sshd[0] >= 36 && sshd[2] >= 24, "sshd: {sshd:?}");
}
