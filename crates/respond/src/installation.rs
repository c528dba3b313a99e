//! What a home needs for responses: the log, and this program under the name of every response that it carries out.
//! Invariant: a file that is not of ours is the operator's and stays as it is.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tld_sys::durable;

const BIN: &str = "active-response/bin";
const LOG: &str = "logs/active-responses.log";
/// Tells which files are of ours.
const NOTED: &str = ".threatlockdown";

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

/// A file of the home cannot be made.
#[derive(Debug, thiserror::Error)]
#[error("cannot prepare `{}`: {source}", path.display())]
pub struct InstallError {
    /// The file.
    pub path: PathBuf,
    /// What the system said.
    pub source: io::Error,
}

/// Makes what is missing below `active-response/bin` and the log of responses; their directories must be there.
/// Our own executables of an older build are replaced.
///
/// # Errors
/// A file cannot be made.
pub fn install(home: &Path) -> Result<(), InstallError> {
    let log = home.join(LOG);
    // The directory may belong to the service user: a link that it put there must not make root create files.
    if fs::symlink_metadata(&log).is_err() {
        fs::OpenOptions::new()
            .append(true)
            .create_new(true)
            .mode(0o660)
            .open(&log)
            .map_err(|source| InstallError { path: log, source })?;
    }
    executables(home)
}

/// Hard links, or copies across file systems; never symlinks.
fn executables(home: &Path) -> Result<(), InstallError> {
    let bin = home.join(BIN);
    let failed = |path: &Path| {
        let path = path.to_path_buf();
        move |source| InstallError { path, source }
    };
    let own = std::env::current_exe().map_err(failed(&bin))?;
    let noted = fs::read_to_string(bin.join(NOTED)).unwrap_or_default();
    let mut lines = String::new();
    let mut copied: Option<PathBuf> = None;
    for name in OWN_RESPONSES {
        let path = bin.join(name);
        if let Ok(file) = fs::symlink_metadata(&path) {
            let known = line(name, &file);
            let ours = noted.lines().any(|noted| noted == known.trim_end());
            if ours && is_this_build(&file, &own) {
                lines.push_str(&known);
            }
            if !ours || is_this_build(&file, &own) {
                continue;
            }
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
        lines.push_str(&line(name, &fs::metadata(&path).map_err(failed(&path))?));
    }
    durable::replace(&bin.join(NOTED), lines.as_bytes(), 0o640).map_err(failed(&bin))
}

fn may_link(own: &Path, bin: &Path) -> bool {
    let owner = fs::metadata(bin).map(|folder| folder.uid());
    fs::metadata(own)
        .is_ok_and(|file| file.mode() & 0o022 == 0 && owner.is_ok_and(|owner| owner == file.uid()))
}
/// A file as it is noted.
fn line(name: &str, file: &fs::Metadata) -> String {
    format!("{name} {} {} {}\n", file.ino(), file.len(), file.mtime())
}

fn is_this_build(file: &fs::Metadata, own: &Path) -> bool {
    fs::metadata(own).is_ok_and(|own| own.len() == file.len() && own.mtime() <= file.mtime())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn on_another_file_system_one_copy_of_the_program_serves_all_names() {
        let Ok(other) = tempfile::tempdir_in("/dev/shm") else { return };
        let bin = other.path().join(BIN);
        durable::create_dirs(&bin, 0o750).unwrap();
        executables(other.path()).unwrap();
        let inodes: Vec<u64> =
            OWN_RESPONSES.iter().map(|name| fs::metadata(bin.join(name)).unwrap().ino()).collect();
        assert!(inodes.windows(2).all(|pair| pair[0] == pair[1]), "{inodes:?}");
    }

    #[test]
    fn an_operators_file_under_one_of_the_names_stays_over_any_number_of_starts() {
        let home = tempfile::tempdir().unwrap();
        for folder in [BIN, "logs"] {
            durable::create_dirs(&home.path().join(folder), 0o750).unwrap();
        }
        let theirs = home.path().join(BIN).join("firewall-drop");
        durable::replace(&theirs, b"#!/bin/sh\n", 0o750).unwrap();
        for _ in 0..3 {
            install(home.path()).unwrap();
            assert_eq!(fs::read_to_string(&theirs).unwrap(), "#!/bin/sh\n");
        }
        assert!(home.path().join(BIN).join("block-ip").exists() && home.path().join(LOG).exists());
        // One of ours from an earlier build is replaced.
        let ours = home.path().join(BIN).join("host-deny");
        fs::remove_file(&ours).unwrap();
        durable::replace(&ours, b"old", 0o750).unwrap();
        let old = line("host-deny", &fs::metadata(&ours).unwrap());
        durable::replace(&home.path().join(BIN).join(NOTED), old.as_bytes(), 0o640).unwrap();
        install(home.path()).unwrap();
        assert_ne!(fs::metadata(&ours).unwrap().len(), 3);
    }
}
