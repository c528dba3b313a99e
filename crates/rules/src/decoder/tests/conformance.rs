//! Pre-decoding and decoding of the reference's own test lines, field by field.

use std::path::PathBuf;

use serde_json::Value as Json;
use tld_xml::Source;

use super::{event, text};
use crate::StaticField;
use crate::decoder::{DecoderOptions, Decoders, Scratch};
use crate::predecode::{HostNames, predecode};

fn shared() -> Option<PathBuf> {
    let default = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared");
    let path = std::env::var_os("TLD_SHARED").map_or_else(|| default.into(), PathBuf::from);
    let path = path.join("conformance");
    if path.is_dir() {
        return Some(path);
    }
    let required = std::env::var_os("TLD_REQUIRE_ALL").is_some_and(|value| value == "1");
    assert!(!(required && std::env::var_os("TLD_SHARED").is_some()), "{} is missing", path.display());
    println!("skipped: no conformance data at {}", path.display());
    None
}

fn home_decoders(shared: &std::path::Path, directories: &[&str]) -> Decoders {
    let mut files: Vec<PathBuf> = directories
        .iter()
        .flat_map(|directory| std::fs::read_dir(shared.join("home").join(directory)).unwrap())
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "xml"))
        .collect();
    files.sort_by_key(|path| path.file_name().map(ToOwned::to_owned));
    let source = |path: &PathBuf| {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        Source::new(name, std::fs::read(path).unwrap())
    };
    let sources: Vec<Source> = files.iter().map(source).collect();
    let mut diagnostics = Vec::new();
    let decoders = Decoders::load(&sources, &DecoderOptions::default(), &mut diagnostics);
    let problems: Vec<String> = diagnostics.iter().map(|problem| problem.render(false)).collect();
    assert!(problems.is_empty(), "{}", problems.join("\n"));
    decoders
}

/// Scalars of a JSON object under their dotted paths.
fn flatten(prefix: &str, value: &Json, out: &mut Vec<(String, String)>) {
    match value {
        Json::Object(members) => {
            for (key, value) in members {
                let name = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
                flatten(&name, value, out);
            }
        }
        Json::String(text) => out.push((prefix.to_owned(), text.clone())),
        other => out.push((prefix.to_owned(), other.to_string())),
    }
}

/// Our fields as the alert would show them: no empty dynamic values, the first of equal keys, arrays as JSON.
fn rendered(decoded: &crate::Decoded<'_>) -> Vec<(String, String)> {
    let mut out: Vec<(String, String)> = Vec::new();
    for field in StaticField::ALL {
        if let Some(value) = decoded.field(field) {
            out.push((field.name().to_owned(), text(value)));
        }
    }
    for (key, value) in decoded.dynamic().filter(|(_, value)| !value.is_empty()) {
        let key = &text(&key);
        let taken = |known: &str| {
            let clash = |a: &str, b: &str| {
                a.len() > b.len() && a.as_bytes()[b.len()] == b'.' && a[..b.len()].eq_ignore_ascii_case(b)
            };
            known.eq_ignore_ascii_case(key) || clash(key, known) || clash(known, key)
        };
        if out.iter().any(|(known, _)| taken(known)) {
            continue;
        }
        let shown = match serde_json::from_slice::<Json>(value) {
            Ok(array @ Json::Array(_)) => array.to_string(),
            _ => text(value),
        };
        out.push((key.to_string(), shown));
    }
    out.sort();
    out
}

#[test]
fn the_shipped_files_give_the_tree_that_the_contract_counts() {
    let Some(shared) = shared() else { return };
    let decoders = home_decoders(&shared, &["ruleset/decoders"]);
    let tops: Vec<_> = decoders.with_program.iter().chain(&decoders.without_program).collect();
    // The contract counts 209: an installation's own example file holds one more.
    assert_eq!((tops.len(), tops.iter().map(|top| top.children.len()).sum::<usize>()), (208, 1564));
}

#[test]
fn every_reference_line_gets_its_header_its_decoder_and_its_fields() {
    let Some(shared) = shared() else { return };
    let decoders = home_decoders(&shared, &["ruleset/decoders", "etc/decoders"]);
    let hosts = HostNames::new("manager");
    let mut scratch = Scratch::new();
    let cases = std::fs::read_to_string(shared.join("analysis/reference-output-open.jsonl")).unwrap();
    let mut wrong = Vec::new();
    let mut fields = 0;
    for line in cases.lines() {
        let case: Json = serde_json::from_str(line).unwrap();
        let log = case["log"].as_str().unwrap();
        let event = event(b'1', log);
        let mut decoded = predecode(&event, &hosts);
        let mut expected = Vec::new();
        if case["data"].is_object() {
            flatten("", &case["data"], &mut expected);
        }
        fields += expected.len();
        expected.sort();
        let program = decoded.program_name.as_deref().map(text);
        let timestamp = decoded.timestamp.as_deref().map(text);
        decoders.decode(&mut decoded, &mut scratch, None);
        let info = decoded.decoder.map(|id| decoders.info(id));
        let name = info.map(|info| info.name.as_str());
        let parent = info.and_then(|info| info.parent.as_deref());
        let same = program.as_deref() == case["predecoder"]["program_name"].as_str()
            && timestamp.as_deref() == case["predecoder"]["timestamp"].as_str()
            && name == case["decoder"]["name"].as_str()
            && parent == case["decoder"]["parent"].as_str();
        let ours = rendered(&decoded);
        if !same || ours != expected {
            let show = format!("{log}\n  {program:?} {timestamp:?} {name:?} {parent:?} {ours:?}");
            wrong.push(format!("{show}\n  {} {} {expected:?}", case["predecoder"], case["decoder"]));
        }
    }
    let all = cases.lines().count();
    assert!(
        wrong.is_empty(),
        "{} of {all} differ:\n{}",
        wrong.len(),
        wrong[..wrong.len().min(20)].join("\n")
    );
    assert!(all > 1000 && fields > all, "{fields} fields in {all} lines");
}

#[test]
fn only_forged_lines_are_contested() {
    let Some(shared) = shared() else { return };
    let decoders = home_decoders(&shared, &["ruleset/decoders"]);
    let hosts = HostNames::new("manager");
    let mut scratch = Scratch::new();
    let mut contested = Vec::new();
    let (mut all, mut with_target) = (0, 0);
    for file in ["analysis/reference-output-open.jsonl", "attack-logs/open.jsonl"] {
        let cases = std::fs::read_to_string(shared.join(file)).unwrap();
        for line in cases.lines() {
            let case: Json = serde_json::from_str(line).unwrap();
            let Some(log) = case["log"].as_str().or_else(|| case["line"].as_str()) else { continue };
            let event = event(b'1', log);
            let mut decoded = predecode(&event, &hosts);
            decoders.decode(&mut decoded, &mut scratch, None);
            all += 1;
            with_target += usize::from(decoded.field(StaticField::SrcIp).is_some());
            for (field, others) in decoders.contested(&decoded) {
                let others: Vec<String> = others.iter().map(|other| text(other)).collect();
                contested.push(format!("{} {}", field.name(), others.join(",")));
            }
        }
    }
    assert!(all > 1500 && with_target > 300, "{with_target} of {all} lines have a source");
    // Four samples forge a second address inside a user name: nginx, PAM, proftpd and sshd, in this order.
    let forged = ["srcip 192.0.2.2", "srcip 192.0.2.152", "srcip 1.2.3.44", "srcip 10.10.1.2"];
    assert_eq!(contested, forged);
}

#[test]
fn names_that_imitate_the_rest_of_their_message_are_contested_with_the_shipped_decoders() {
    let Some(shared) = shared() else { return };
    let decoders = home_decoders(&shared, &["ruleset/decoders"]);
    let hosts = HostNames::new("manager");
    for message in [
        "Invalid user x from 203.0.113.9 port 22 from 198.51.100.5 port 40022",
        "Invalid user x from 203.0.113.9 from 198.51.100.5 port 40022",
        "Failed password for invalid user x from 203.0.113.9 port 22 from 198.51.100.5 port 40022 ssh2",
        "Failed password for invalid user x from 203.0.113.9 from 198.51.100.5 port 40022 ssh2",
    ] {
        let event = event(b'1', &format!("Dec 29 10:00:01 gate sshd[4]: {message}"));
        let mut decoded = predecode(&event, &hosts);
        decoders.decode(&mut decoded, &mut Scratch::new(), None);
        assert_eq!(decoded.field(StaticField::SrcIp), Some(&b"203.0.113.9"[..]), "{message}");
        let expected = vec![(StaticField::SrcIp, vec![b"198.51.100.5".to_vec()])];
        assert_eq!(decoders.contested(&decoded), expected, "{message}");
    }
}

/// Lines for the comparison below: the shared ones, cut and spliced so that prematches nearly match.
fn spliced(lines: &[String], left: usize, right: usize, cut: usize) -> Vec<u8> {
    let pick = |at: usize| lines[at % lines.len()].as_bytes();
    let (head, end) = (pick(left), pick(right));
    [&head[..cut % (head.len() + 1)], &end[cut % (end.len() + 1)..]].concat()
}

#[test]
fn shortcuts_choose_the_same_decoder_as_asking_all() {
    let Some(shared) = shared() else { return };
    let decoders = home_decoders(&shared, &["ruleset/decoders", "etc/decoders"]);
    let hosts = HostNames::new("manager");
    let cases = std::fs::read_to_string(shared.join("analysis/reference-output-open.jsonl")).unwrap();
    let lines: Vec<String> = cases
        .lines()
        .map(|line| serde_json::from_str::<Json>(line).unwrap()["log"].as_str().unwrap().to_owned())
        .collect();
    let mut scratch = Scratch::new();
    for round in 0..lines.len() * 4 {
        let mut event = event(b'1', "");
        event.text = spliced(&lines, round, round * 31 + 7, if round < lines.len() { 0 } else { round * 13 });
        let (mut quick, mut slow) = (predecode(&event, &hosts), predecode(&event, &hosts));
        let mut steps = Vec::new();
        decoders.decode(&mut quick, &mut scratch, None);
        decoders.decode(&mut slow, &mut scratch, Some(&mut steps));
        assert_eq!(quick.decoder, slow.decoder, "{}", text(&event.text));
        assert_eq!(rendered(&quick), rendered(&slow), "{}", text(&event.text));
    }
}
