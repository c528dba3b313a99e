//! Rules of the house that neither rustc nor clippy holds: size of files, lints in every manifest, no test put aside.

#![expect(clippy::unwrap_used, reason = "helpers of tests: a failure is told by panicking")]

use std::path::{Path, PathBuf};

const LIMIT: usize = 800;
/// Generated or plain tables, where splitting would only scatter data.
const TABLES: &[&str] = &["crates/rules/src/alert/mitre_table.rs"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn find(folder: &Path, wanted: &dyn Fn(&Path) -> bool, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            if path.file_name().is_none_or(|name| name != "target") {
                find(&path, wanted, found);
            }
        } else if wanted(&path) {
            found.push(path);
        }
    }
}

/// Matching files with their text, by path from the root.
fn files(wanted: &dyn Fn(&Path) -> bool) -> Vec<(String, String)> {
    let root = root();
    let mut found = Vec::new();
    for folder in ["crates", "fuzz", "xtask"] {
        find(&root.join(folder), wanted, &mut found);
    }
    assert!(!found.is_empty());
    let read = |path: &PathBuf| std::fs::read_to_string(path).unwrap();
    found.iter().map(|path| (path.strip_prefix(&root).unwrap().display().to_string(), read(path))).collect()
}

fn sources() -> Vec<(String, String)> {
    files(&|path| path.extension().is_some_and(|extension| extension == "rs"))
}

fn manifests() -> Vec<(String, String)> {
    files(&|path| path.file_name().is_some_and(|name| name == "Cargo.toml"))
}

#[test]
fn no_file_is_longer_than_a_reader_bears() {
    let long: Vec<_> = sources()
        .into_iter()
        .filter(|(path, text)| text.lines().count() > LIMIT && !TABLES.contains(&path.as_str()))
        .map(|(path, _)| path)
        .collect();
    assert!(long.is_empty(), "above {LIMIT} lines: {long:?}");
}

/// Lint lines of a manifest without comments; the one difference that `tld-sys` needs is left out.
fn lints(manifest: &str, table: &str) -> Vec<String> {
    let mut inside = false;
    let mut lints = Vec::new();
    for line in manifest.lines() {
        let line = line.split('#').next().unwrap_or_default().trim();
        if line.starts_with('[') {
            inside = line.starts_with(&format!("[{table}"));
        } else if inside && !line.is_empty() && !line.starts_with("unsafe_code") {
            lints.push(line.to_owned());
        }
    }
    lints
}

#[test]
fn every_package_has_the_lints_of_the_workspace() {
    let workspace = lints(&std::fs::read_to_string(root().join("Cargo.toml")).unwrap(), "workspace.lints");
    assert!(workspace.len() > 10);
    for (path, text) in manifests() {
        match path.as_str() {
            // Its own workspace, of generated one-line programs.
            "fuzz/libfuzzer/Cargo.toml" => {}
            "crates/sys/Cargo.toml" => assert_eq!(lints(&text, "lints"), workspace, "{path}"),
            _ => assert_eq!(lints(&text, "lints"), ["workspace = true"], "{path}"),
        }
    }
}

#[test]
fn no_test_is_put_aside_and_no_work_is_left_open() {
    // Put together here, so that this file is not found itself.
    let words = [["#[ign", "ore"], ["tod", "o!("], ["unimplemen", "ted!("]].map(|halves| halves.concat());
    for (path, text) in sources() {
        for (number, line) in text.lines().enumerate() {
            let found = words.iter().find(|word| line.contains(word.as_str()));
            assert!(found.is_none(), "{path}:{}: {line}", number + 1);
        }
    }
}
