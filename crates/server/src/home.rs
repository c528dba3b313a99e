//! The home directory's tree, as the contract has it, plus `var/threatlockdown` of ours.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use tld_sys::durable;

use crate::shipped;

/// The tree could not be made.
#[derive(Debug, thiserror::Error)]
#[error("cannot prepare `{path}`; run as root, or choose another directory with --home")]
pub struct PrepareHome {
    path: PathBuf,
    source: io::Error,
}

/// Tells that the ruleset is of ours.
const MARK: &str = "ruleset/.threatlockdown";
const FOLDERS: [(&str, u32); 22] = [
    ("active-response", 0o750),
    ("active-response/bin", 0o750),
    ("etc", 0o770),
    ("etc/decoders", 0o770),
    ("etc/rules", 0o770),
    ("etc/lists", 0o770),
    ("etc/shared", 0o770),
    ("logs", 0o770),
    ("logs/alerts", 0o770),
    ("logs/archives", 0o770),
    ("queue", 0o770),
    ("queue/alerts", 0o770),
    ("queue/sockets", 0o770),
    ("queue/fts", 0o750),
    ("queue/diff", 0o750),
    ("queue/logcollector", 0o750),
    ("queue/rids", 0o770),
    ("var/multigroups", 0o770),
    ("ruleset", 0o750),
    ("var/threatlockdown", 0o750),
    (crate::registry::MANAGER_FOLDER, 0o750),
    (crate::presence::REPORT_FOLDER, 0o750),
];

/// Makes what is missing of the tree. What is there is left alone, except the shipped ruleset, which belongs to us and follows
/// the binary (operators' own files stand in `etc/`), and our own executables of an older build.
///
/// # Errors
/// A directory or file cannot be made.
pub fn prepare(home: &Path, conf: &str) -> Result<(), PrepareHome> {
    let at = |path: &Path| {
        let path = path.to_path_buf();
        move |source| PrepareHome { path, source }
    };
    durable::create_dirs(home, 0o750).map_err(at(home))?;
    for (folder, mode) in FOLDERS {
        let folder = home.join(folder);
        durable::create_dirs(&folder, mode).map_err(at(&folder))?;
    }
    let file = home.join("etc/ossec.conf");
    if !file.exists() {
        durable::replace(&file, conf.as_bytes(), 0o640).map_err(at(&file))?;
    }
    ship_ruleset(home)?;
    tld_respond::installation::install(home)
        .map_err(|failed| PrepareHome { path: failed.path, source: failed.source })
}

/// Directories of the ruleset that [`prepare`] will make in a home where they are missing, with what it puts there.
pub(crate) fn supplied(home: &Path) -> Vec<tld_config::Supplied> {
    use tld_config::Supplied;
    let empty = |directory| Supplied { directory, files: &[] };
    let mut supplied = vec![empty("etc/decoders"), empty("etc/rules")];
    if !is_foreign(home) {
        supplied.push(Supplied { directory: "ruleset/decoders", files: shipped::decoders() });
        supplied.push(Supplied { directory: "ruleset/rules", files: shipped::rules() });
    }
    supplied
}

/// Whether the home has a ruleset that is not of ours.
fn is_foreign(home: &Path) -> bool {
    let there = |folder: &&str| home.join("ruleset").join(folder).exists();
    ["decoders", "rules"].iter().any(there) && !home.join(MARK).exists()
}

/// Writes the shipped ruleset where none is, or where an earlier build of ours wrote it. A home of another product keeps its own.
fn ship_ruleset(home: &Path) -> Result<(), PrepareHome> {
    if is_foreign(home) {
        return Ok(());
    }
    let mark = home.join(MARK);
    let failed = |path: PathBuf| move |source| PrepareHome { path, source };
    for (folder, files) in [("decoders", shipped::decoders()), ("rules", shipped::rules())] {
        let folder = home.join("ruleset").join(folder);
        durable::create_dirs(&folder, 0o750).map_err(failed(folder.clone()))?;
        for (name, text) in files {
            let path = folder.join(name);
            if fs::read(&path).is_ok_and(|old| old == *text) {
                continue;
            }
            durable::replace(&path, text, 0o640).map_err(failed(path.clone()))?;
        }
    }
    let note =
        "This ruleset belongs to ThreatLockDown and follows its version; your own files belong into etc/.\n";
    durable::replace(&mark, note.as_bytes(), 0o640).map_err(failed(mark.clone()))
}
