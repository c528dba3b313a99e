//! Files that the manager pushes, below `etc/shared`.
//! Invariant: nothing is written outside of that directory, and a bundle is unpacked only after all of it was checked.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use tld_sys::durable;
use tld_wire::key::md5_text;
use tld_wire::merged::{BUNDLE_LIMIT, BundleError, parse, pushed_name};

const FOLDER: &str = "etc/shared";
const BUNDLE: &str = "merged.mg";
const TABLE: &str = "ar.conf";
/// Directories that are looked into below one another for files that are not in the bundle.
const DEEP: usize = 8;

/// The file is not used.
#[derive(Debug, thiserror::Error)]
pub(super) enum TakeError {
    #[error(transparent)]
    Bundle(#[from] BundleError),
    #[error("cannot write `{}`: {source}", path.display())]
    Write { path: PathBuf, source: io::Error },
}

/// MD5 of a file, if it is there.
pub(super) fn sum(home: &Path, name: &str) -> Option<String> {
    let content = durable::read_bounded(&home.join(FOLDER).join(name), BUNDLE_LIMIT).ok()?;
    Some(md5_text(&content))
}

/// Whether a file can bring what the names of orders stand for.
pub(super) fn tells_orders(name: &str) -> bool {
    [BUNDLE, TABLE].contains(&name)
}

/// A file came damaged: what stands under its name cannot be what the manager wants.
pub(super) fn forget(home: &Path, announced: &str) {
    if let Some(name) = pushed_name(announced) {
        let _ = fs::remove_file(home.join(FOLDER).join(name));
    }
}

/// Stores a file; a bundle is also unpacked. True if the agent's own configuration changed.
pub(super) fn take(home: &Path, name: &str, content: &[u8]) -> Result<bool, TakeError> {
    let folder = home.join(FOLDER);
    if name != BUNDLE {
        put(&folder.join(name), content)?;
        return Ok(name == "agent.conf");
    }
    let files = parse(content)?;
    let before = sum(home, "agent.conf");
    for file in &files {
        let path = folder.join(file.name);
        directories(&folder, file.name)?;
        let same = durable::read_bounded(&path, file.content.len()).is_ok_and(|old| old == file.content);
        if !same {
            put(&path, file.content)?;
        }
    }
    let kept: BTreeSet<PathBuf> =
        files.iter().map(|file| folder.join(file.name)).chain([folder.join(BUNDLE)]).collect();
    sweep(&folder, &kept, DEEP);
    // Last, since its sum tells the manager that all of this is done.
    put(&folder.join(BUNDLE), content)?;
    Ok(before != sum(home, "agent.conf"))
}

fn put(path: &Path, content: &[u8]) -> Result<(), TakeError> {
    durable::replace(path, content, 0o660)
        .map_err(|source| TakeError::Write { path: path.to_path_buf(), source })
}

/// Makes the directories of a name; a link in the place of one is refused.
fn directories(folder: &Path, name: &str) -> Result<(), TakeError> {
    let mut path = folder.to_path_buf();
    let Some((parents, _)) = name.rsplit_once('/') else { return Ok(()) };
    for part in parents.split('/') {
        path.push(part);
        let failed = |source| TakeError::Write { path: path.clone(), source };
        match fs::symlink_metadata(&path) {
            Ok(meta) if meta.is_dir() => {}
            Ok(_) => return Err(failed(io::Error::other("it is no directory"))),
            Err(_) => durable::create_dirs(&path, 0o770).map_err(failed)?,
        }
    }
    Ok(())
}

/// Removes files that are not in the bundle, and directories that are empty then.
fn sweep(folder: &Path, kept: &BTreeSet<PathBuf>, deep: usize) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        match entry.file_type() {
            Ok(kind) if kind.is_dir() && deep > 0 => {
                sweep(&path, kept, deep - 1);
                // Only an empty one goes.
                let _ = fs::remove_dir(&path);
            }
            Ok(kind) if kind.is_dir() => {}
            Ok(_) if !kept.contains(&path) => drop(fs::remove_file(&path)),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use tld_wire::merged::{Entry, build};

    use super::*;

    fn home() -> tempfile::TempDir {
        let home = tempfile::tempdir().unwrap();
        durable::create_dirs(&home.path().join(FOLDER), 0o770).unwrap();
        home
    }

    fn read(home: &Path, name: &str) -> Option<String> {
        fs::read_to_string(home.join(FOLDER).join(name)).ok()
    }

    #[test]
    fn a_bundle_replaces_what_was_there_and_says_whether_the_configuration_changed() {
        let home = home();
        let entry = |name, content| Entry { name, content };
        let one = build("default", &[entry("ar.conf", b"a - a - 0\n"), entry("lists/x", b"1")]).unwrap();
        assert!(!take(home.path(), BUNDLE, &one).unwrap());
        assert_eq!(read(home.path(), "lists/x").as_deref(), Some("1"));
        assert_eq!(sum(home.path(), BUNDLE), Some(md5_text(&one)));
        let two = build("default", &[entry("agent.conf", b"<agent_config/>")]).unwrap();
        assert!(take(home.path(), BUNDLE, &two).unwrap());
        assert_eq!(read(home.path(), "ar.conf"), None);
        assert!(!home.path().join(FOLDER).join("lists").exists());
        assert!(!take(home.path(), BUNDLE, &two).unwrap());
    }

    #[test]
    fn a_bad_bundle_changes_nothing() {
        let home = home();
        let good = build("default", &[Entry { name: "ar.conf", content: b"x" }]).unwrap();
        take(home.path(), BUNDLE, &good).unwrap();
        for bad in [&b"#g\n!1 ../x\ny"[..], b"#g\n!1 a\nx!9 b\nx"] {
            assert!(take(home.path(), BUNDLE, bad).is_err());
        }
        assert_eq!(read(home.path(), "ar.conf").as_deref(), Some("x"));
        assert_eq!(read(home.path(), "a"), None);
    }

    #[test]
    fn a_link_in_the_directory_leads_nowhere() {
        let (home, other) = (home(), tempfile::tempdir().unwrap());
        let folder = home.path().join(FOLDER);
        std::os::unix::fs::symlink(other.path(), folder.join("lists")).unwrap();
        std::os::unix::fs::symlink(other.path().join("file"), folder.join("ar.conf")).unwrap();
        let bundle = build("default", &[Entry { name: "lists/x", content: b"1" }]).unwrap();
        assert!(take(home.path(), BUNDLE, &bundle).is_err());
        let bundle = build("default", &[Entry { name: "ar.conf", content: b"1" }]).unwrap();
        take(home.path(), BUNDLE, &bundle).unwrap();
        assert_eq!(fs::read_dir(other.path()).unwrap().count(), 0);
        assert_eq!(read(home.path(), "ar.conf").as_deref(), Some("1"));
    }
}
