//! The recorded answers of the original engines, read from the shared data beside the project.

#![expect(clippy::print_stdout, reason = "a skipped test says so")]

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tld_pattern::{Captures, Known, OsMatch, OsRegex, Pcre, Text};

/// A file of the shared data; `None` (and a line that says so) where there is none.
fn shared(path: &str) -> Option<PathBuf> {
    let default = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared");
    let set = std::env::var_os("TLD_SHARED");
    let file = PathBuf::from(set.clone().unwrap_or_else(|| default.into())).join(path);
    if file.exists() {
        return Some(file);
    }
    println!("skipped: {} is absent", file.display());
    let required = set.is_some() && std::env::var_os("TLD_REQUIRE_ALL").is_some_and(|value| value == "1");
    assert!(!required, "{} is required", file.display());
    None
}

fn text<'a>(vector: &'a Value, key: &str) -> &'a str {
    vector[key].as_str().expect("a string in the vector")
}

/// What our engine answers, in the words of a vector.
fn answer(vector: &Value) -> Value {
    let (pattern, input) = (text(vector, "pattern").as_bytes(), text(vector, "input").as_bytes());
    let refused = |code: u16| serde_json::json!([false, [], null, code]);
    if text(vector, "kind") == "osmatch" {
        return match OsMatch::compile(pattern) {
            Ok(matcher) => serde_json::json!([matcher.is_match(input), [], null, null]),
            Err(error) => refused(error.code),
        };
    }
    let regex = match OsRegex::compile(pattern) {
        Ok(regex) => regex,
        Err(error) => return refused(error.code),
    };
    let mut captures = Captures::new();
    let place = regex.find(Text::new(input), &mut captures, |_| Known::Nothing);
    let groups: Vec<_> = captures.iter().map(|range| String::from_utf8_lossy(&input[range])).collect();
    serde_json::json!([place.is_some(), groups, place, null])
}

#[test]
fn every_recorded_answer_of_the_original_engines_is_ours_too() {
    let Some(file) = shared("conformance/analysis/osregex-vectors.jsonl") else { return };
    let lines = fs::read_to_string(file).expect("readable vectors");
    let mut wrong = Vec::new();
    let mut count = 0;
    for line in lines.lines() {
        let vector: Value = serde_json::from_str(line).expect("a vector is JSON");
        let wanted = serde_json::json!([
            vector["matches"],
            vector["captures"],
            vector["end"],
            vector.get("compile_error")
        ]);
        count += 1;
        if answer(&vector) != wanted {
            wrong.push(format!("{line}\n   ours: {}", answer(&vector)));
        }
    }
    println!("{count} vectors, {} differ", wrong.len());
    assert!(
        wrong.is_empty(),
        "{} of {count} differ:\n{}",
        wrong.len(),
        wrong[..wrong.len().min(20)].join("\n")
    );
}

/// Every text of an element with `type="pcre2"` in `file`; a search is enough, the XML room reads it properly.
fn pcre_patterns(file: &str) -> Vec<String> {
    let mut patterns = Vec::new();
    let mut rest = file;
    while let Some(at) = rest.find("type=\"pcre2\"") {
        rest = &rest[at..];
        let Some(start) = rest.find('>') else { break };
        rest = &rest[start + 1..];
        let Some(end) = rest.find("</") else { break };
        patterns.push(
            rest[..end].replace("\\<", "<").replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"),
        );
        rest = &rest[end..];
    }
    patterns
}

fn xml_files(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a readable folder") {
        let path = entry.expect("a readable entry").path();
        if path.is_dir() {
            xml_files(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "xml") {
            files.push(path);
        }
    }
}

#[test]
fn every_pcre2_pattern_of_the_recorded_ruleset_compiles() {
    let Some(home) = shared("conformance/home") else { return };
    let mut files = Vec::new();
    xml_files(&home, &mut files);
    let (mut count, mut refused) = (0, Vec::new());
    for file in files {
        let text = String::from_utf8_lossy(&fs::read(&file).expect("a readable file")).into_owned();
        for pattern in pcre_patterns(&text) {
            count += 1;
            if let Err(error) = Pcre::compile(pattern.as_bytes()) {
                refused.push(format!("{}: {pattern}: {error}", file.display()));
            }
        }
    }
    println!("{count} PCRE2 patterns, {} refused", refused.len());
    assert!(refused.is_empty(), "refused:\n{}", refused.join("\n"));
    assert!(count > 500, "only {count} patterns were found");
}
