//! State files of the contract: first-time-seen keys, ignore lines, last entries of `check_diff`; written by the outputs' thread,
//! read back at start. Invariant: what senders chose never names a path outside `queue/`.

use std::fs;
use std::io;
use std::path::Path;

use tld_model::RuleId;
use tld_rules::Effect;

use super::Note;

const DIFF: &str = "queue/diff";
const LAST: &str = "last-entry";
/// Entries read back, their bytes in all, and the longest one.
const MOST_ENTRIES: usize = 10_000;
const MOST_BYTES: usize = 64 << 20;
const LONGEST: usize = 1 << 17;

/// Writes one piece of state down.
pub(super) fn keep(home: &Path, effect: &Effect) -> io::Result<()> {
    match effect {
        Effect::Fts(line) => append(&home.join("queue/fts/fts-queue"), line),
        Effect::Ignore(line) => append(&home.join("queue/fts/ig-queue"), line),
        Effect::Diff { host, rule, text } => {
            let folder = home.join(DIFF).join(file_name(host)).join(rule.to_string());
            fs::create_dir_all(&folder)?;
            tld_sys::durable::replace(&folder.join(LAST), text, 0o640)
        }
    }
}

/// Writes a file of the product's own.
pub(super) fn note(home: &Path, note: &Note) -> io::Result<()> {
    let (Note::Append { path, text } | Note::Replace { path, text }) = note;
    let path = home.join(path);
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    match note {
        Note::Append { .. } => tld_sys::durable::append_line(&path, text, 0o640),
        Note::Replace { .. } => tld_sys::durable::replace(&path, text, 0o640),
    }
}

/// A host's name, which the sender of a line chose, as one harmless path component.
fn file_name(host: &[u8]) -> String {
    let text = String::from_utf8_lossy(host);
    let safe = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '_' };
    let name: String = text.chars().take(200).map(safe).collect();
    if name.is_empty() || name.starts_with('.') { format!("_{name}") } else { name }
}

fn append(path: &Path, line: &[u8]) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let mut text = line.to_vec();
    text.push(b'\n');
    tld_sys::durable::append_line(path, &text, 0o640)
}

/// Host, rule and text of each `queue/diff/<host>/<rule>/last-entry`, in order of names.
pub(crate) fn last_entries(home: &Path) -> Vec<(String, RuleId, Vec<u8>)> {
    let mut entries = Vec::new();
    let mut bytes = 0;
    for host in names(&home.join(DIFF)) {
        for rule in names(&home.join(DIFF).join(&host)) {
            let path = home.join(DIFF).join(&host).join(&rule).join(LAST);
            let Ok(id) = rule.parse::<RuleId>() else { continue };
            let Ok(text) = tld_sys::durable::read_bounded(&path, LONGEST) else { continue };
            bytes += text.len();
            if entries.len() == MOST_ENTRIES || bytes > MOST_BYTES {
                return entries;
            }
            entries.push((host.clone(), id, text));
        }
    }
    entries
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().take(MOST_ENTRIES);
    let mut names: Vec<_> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort_unstable();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    fn diff(host: &str, rule: u32, text: &str) -> Effect {
        Effect::Diff { host: host.into(), rule: RuleId(rule), text: text.into() }
    }

    #[test]
    fn the_last_text_of_each_host_and_rule_is_read_back() {
        let home = tempfile::tempdir().unwrap();
        for effect in [diff("web01", 7, "old"), diff("web01", 7, "new"), diff("db", 9, "x\0y")] {
            keep(home.path(), &effect).unwrap();
        }
        fs::create_dir_all(home.path().join("queue/diff/db/none")).unwrap();
        let found = last_entries(home.path());
        let entry = |host: &str, rule, text: &str| (host.to_owned(), RuleId(rule), text.as_bytes().to_vec());
        assert_eq!(found, [entry("db", 9, "x\0y"), entry("web01", 7, "new")]);
    }

    #[test]
    fn a_host_that_names_a_path_stays_below_the_folder() {
        let home = tempfile::tempdir().unwrap();
        for host in ["../../etc", "..", "", "a/b", "\0"] {
            keep(home.path(), &diff(host, 7, "x")).unwrap();
        }
        assert_eq!(names(home.path()), ["queue"]);
        assert_eq!(names(&home.path().join("queue")), ["diff"]);
        assert_eq!(names(&home.path().join(DIFF)), ["_", "_..", "_.._.._etc", "a_b"]);
    }

    #[test]
    fn first_time_keys_and_ignore_lines_are_appended() {
        let home = tempfile::tempdir().unwrap();
        for line in ["a", "b"] {
            keep(home.path(), &Effect::Fts(line.into())).unwrap();
            keep(home.path(), &Effect::Ignore(line.into())).unwrap();
        }
        for file in ["fts-queue", "ig-queue"] {
            assert_eq!(fs::read_to_string(home.path().join("queue/fts").join(file)).unwrap(), "a\nb\n");
        }
    }
}
