//! The home directory's tree, as the contract has it, plus `var/threatlockdown` of ours.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
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

/// Executables of the contract that this build carries out in its own process.
pub const OWN_RESPONSES: [&str; 15] = [
    "firewall-drop",
    "default-firewall-drop",
    "block-ip",
    "firewalld-drop",
    "host-deny",
    "route-null",
    "ip-customblock",
    "disable-account",
    "restart-wazuh",
    "wazuh-slack",
    "webhook",
    "kaspersky",
    "kill-process",
    "quarantine-file",
    "isolate-host",
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
    let log = home.join("logs/active-responses.log");
    // The directory may belong to the service user: a link that it put there must not make root create files.
    if fs::symlink_metadata(&log).is_err() {
        fs::OpenOptions::new().append(true).create_new(true).mode(0o660).open(&log).map_err(at(&log))?;
    }
    ship_ruleset(home)?;
    install_responses(home)
}

/// Writes the shipped ruleset where none is, or where an earlier build of ours wrote it. A home of another product keeps its own.
fn ship_ruleset(home: &Path) -> Result<(), PrepareHome> {
    let mark = home.join("ruleset/.threatlockdown");
    let foreign = ["decoders", "rules"].iter().any(|folder| home.join("ruleset").join(folder).exists());
    if foreign && !mark.exists() {
        return Ok(());
    }
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

/// Puts this executable under the names of its responses: hard links, or copies across file systems; never symlinks.
/// A file that is not ours is the operator's and stays.
fn install_responses(home: &Path) -> Result<(), PrepareHome> {
    let bin = home.join("active-response/bin");
    let failed = |path: &Path| {
        let path = path.to_path_buf();
        move |source| PrepareHome { path, source }
    };
    let own = std::env::current_exe().map_err(failed(&bin))?;
    let mut copied: Option<PathBuf> = None;
    for name in OWN_RESPONSES {
        let path = bin.join(name);
        if fs::symlink_metadata(&path).is_ok() && !is_older_build(&path, &own) {
            continue;
        }
        let fresh = bin.join(format!(".{name}.new"));
        let _ = fs::remove_file(&fresh);
        // A link shares owner and mode with the original; only a root-owned one may serve as a root-executed file.
        let linked = may_link(&own, &bin) && fs::hard_link(&own, &fresh).is_ok();
        let linked = linked || copied.as_ref().is_some_and(|first| fs::hard_link(first, &fresh).is_ok());
        if !linked {
            fs::copy(&own, &fresh).map_err(failed(&fresh))?;
            fs::set_permissions(&fresh, fs::Permissions::from_mode(0o750)).map_err(failed(&fresh))?;
            // One copy has room for all names.
            copied = Some(path.clone());
        }
        fs::rename(&fresh, &path).map_err(failed(&path))?;
    }
    note_build(&bin).map_err(failed(&bin))
}

fn may_link(own: &Path, bin: &Path) -> bool {
    let owner = fs::metadata(bin).map(|folder| folder.uid());
    fs::metadata(own)
        .is_ok_and(|file| file.mode() & 0o022 == 0 && owner.is_ok_and(|owner| owner == file.uid()))
}

fn note_build(bin: &Path) -> io::Result<()> {
    let mut lines = String::new();
    for name in OWN_RESPONSES {
        let file = fs::metadata(bin.join(name))?;
        lines.push_str(&format!("{name} {} {} {}\n", file.ino(), file.len(), file.mtime()));
    }
    durable::replace(&bin.join(".threatlockdown"), lines.as_bytes(), 0o640)
}

/// True when the file is one that an earlier start of ours put there and it differs from this build.
fn is_older_build(path: &Path, own: &Path) -> bool {
    let Some(name) = path.file_name().and_then(|name| name.to_str()) else { return false };
    let Ok(file) = fs::metadata(path) else { return false };
    let noted = path.with_file_name(".threatlockdown");
    let line = format!("{name} {} {} {}", file.ino(), file.len(), file.mtime());
    let ours = fs::read_to_string(noted).is_ok_and(|text| text.lines().any(|noted| noted == line));
    let same = fs::metadata(own).is_ok_and(|own| own.len() == file.len() && own.mtime() <= file.mtime());
    ours && !same
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn on_another_file_system_one_copy_of_the_program_serves_all_names() {
        let Ok(other) = tempfile::tempdir_in("/dev/shm") else { return };
        let bin = other.path().join("active-response/bin");
        durable::create_dirs(&bin, 0o750).unwrap();
        install_responses(other.path()).unwrap();
        let inodes: Vec<u64> =
            OWN_RESPONSES.iter().map(|name| fs::metadata(bin.join(name)).unwrap().ino()).collect();
        assert!(inodes.windows(2).all(|pair| pair[0] == pair[1]), "{inodes:?}");
    }
}
