//! Lines of web and FTP servers in which a client writes what looks like the server's own words: nobody else is accused,
//! and a blank in a name hides nobody.

#![expect(clippy::unwrap_used, reason = "a failed test is told by panicking")]

use std::path::Path;
use std::sync::Arc;

use tld_model::{Event, Timestamp};
use tld_rules::{Analyzer, Options, Ruleset, Settings, StaticField};
use tld_xml::Source;

const VICTIM: &str = "203.0.113.9";
const ATTACKER: &str = "198.51.100.5";

fn sources(kind: &str) -> Vec<Source> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../ruleset").join(kind);
    let mut paths: Vec<_> =
        std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.iter().map(|path| Source::new(path.display().to_string(), std::fs::read(path).unwrap())).collect()
}

fn addresses(lines: &[String]) -> Vec<String> {
    let loaded = Ruleset::load(&sources("decoders"), &sources("rules"), &[], &Options::default());
    let ruleset: Arc<Ruleset> = loaded.ruleset.unwrap();
    let mut analyzer = Analyzer::new(ruleset, Settings::default());
    let mut address = |line: &String| {
        let event = Event::local("/var/log/x.log", line.as_str(), Timestamp::from_secs(1_700_000_000));
        let verdict = analyzer.analyze(&event);
        String::from_utf8_lossy(verdict.decoded.field(StaticField::SrcIp).unwrap_or_default()).into_owned()
    };
    lines.iter().map(&mut address).collect()
}

#[test]
fn blanks_in_a_web_login_and_virtual_hosts_hide_nobody_and_accuse_nobody() {
    let openings = [
        "198.51.100.5 - -",
        "198.51.100.5 - a b",
        "198.51.100.5 - 203.0.113.9 - -",
        "198.51.100.5 - 203.0.113.9 - - [23/Nov/2026:00:41:00 +0000] x",
        "203.0.113.9 198.51.100.5 - a b",
        "203.0.113.9:80 198.51.100.5 - -",
        "fade.example:443 198.51.100.5 - a b",
    ];
    let line = |opening: &&str| format!("{opening} [23/Nov/2026:00:41:00 +0000] \"GET /x HTTP/1.1\" 404 1");
    let lines: Vec<String> = openings.iter().map(line).collect();
    assert_eq!(addresses(&lines), vec![ATTACKER; lines.len()]);
}

#[test]
fn a_name_that_pushes_the_address_out_of_nginx_error_log_accuses_nobody() {
    let opening = "2026/11/23 00:41:00 [error] 12#12: *1 user \"a\": password mismatch, client: ";
    let whole = format!("{opening}{ATTACKER}, server: x, request: \"GET / HTTP/1.1\", host: \"x\"");
    let mut cut = format!("{opening}{VICTIM}, server: {}", "A".repeat(2_000));
    cut.truncate(2_047);
    assert_eq!(addresses(&[whole, cut]), [ATTACKER, ""]);
}

#[test]
fn an_anonymous_ftp_password_accuses_nobody() {
    let texts = [
        (r#"[bob] FAIL LOGIN: Client "198.51.100.5""#, ATTACKER),
        (r#"[ftp] OK LOGIN: Client "198.51.100.5", anon password "me@x""#, ATTACKER),
        (r#"[ftp] OK LOGIN: Client "198.51.100.5", anon password "a] FAIL LOGIN: Client "203.0.113.9""#, ""),
        (r#"[] FAIL LOGIN: Client "203.0.113.9"] FAIL LOGIN: Client "198.51.100.5""#, ATTACKER),
        (r#"[x] OK LOGIN: Client "203.0.113.9", anon password "] FAIL LOGIN: Client "198.51.100.5""#, ""),
    ];
    let lines: Vec<String> =
        texts.iter().map(|(text, _)| format!("Mon Nov 23 00:41:00 2026 [pid 5] {text}")).collect();
    assert_eq!(addresses(&lines), texts.map(|(_, address)| address));
}
