//! Who serves a home, and what became of the last reload: a held lock, a process id, a report.
//!
//! The outermost process of the service holds the lock and writes the id; the part that runs the analysis writes the report,
//! as another user where privileges are split, therefore into a folder of its own.
//! Invariant: an id is only believed while the lock is held, so a file left by a crash never aims a signal at a stranger.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tld_model::RuleId;
use tld_rules::Differences;
use tld_sys::durable::{self, FileLock};

const LOCK: &str = "var/threatlockdown/service.lock";
const PID: &str = "var/threatlockdown/service.pid";
/// Folder of the report, which belongs to whoever runs the analysis.
pub const REPORT_FOLDER: &str = "var/threatlockdown/service";
const REPORT: &str = "var/threatlockdown/service/reload.json";
/// A caller that only looks holds the lock for a moment; then we try again.
const TRIES: u32 = 50;
const PAUSE: Duration = Duration::from_millis(20);
/// Longest files we read back.
const PID_LIMIT: usize = 32;
const REPORT_LIMIT: usize = 1 << 20;
/// Rule ids of each kind that a report names.
const NAMED: usize = 50;

/// The home cannot be marked as served.
#[derive(Debug, thiserror::Error)]
pub enum PresenceError {
    /// Somebody else serves it.
    #[error("another service already runs in `{0}`")]
    Taken(PathBuf),
    /// A file.
    #[error("cannot use `{path}`: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Held by a running service; dropping it takes the mark away.
#[derive(Debug)]
pub struct Presence {
    pid: PathBuf,
    _lock: FileLock,
}

impl Presence {
    /// Marks the home as served by this process.
    ///
    /// # Errors
    /// It is served already, or the files cannot be written.
    pub fn take(home: &Path) -> Result<Self, PresenceError> {
        let at = |path: &Path| {
            let path = path.to_path_buf();
            move |source| PresenceError::File { path, source }
        };
        let path = home.join(LOCK);
        let mut tries = 0;
        let lock = loop {
            if let Some(lock) = durable::try_lock(&path).map_err(at(&path))? {
                break lock;
            }
            tries += 1;
            if tries == TRIES {
                return Err(PresenceError::Taken(home.to_path_buf()));
            }
            std::thread::sleep(PAUSE);
        };
        let report = home.join(REPORT);
        match std::fs::remove_file(&report) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(at(&report)(error)),
            _ => {}
        }
        let pid = home.join(PID);
        durable::replace(&pid, format!("{}\n", std::process::id()).as_bytes(), 0o644).map_err(at(&pid))?;
        Ok(Self { pid, _lock: lock })
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        // Without the lock the file means nothing, so a failure harms nobody.
        let _ = std::fs::remove_file(&self.pid);
    }
}

/// Process id of the service in this home, if one runs.
///
/// # Errors
/// The files cannot be read, for want of rights most of all.
pub fn serving(home: &Path) -> Result<Option<u32>, PresenceError> {
    let path = home.join(PID);
    let text = match durable::read_bounded(&path, PID_LIMIT) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(PresenceError::File { path, source }),
    };
    let lock = home.join(LOCK);
    let held = durable::try_lock(&lock).map_err(|source| PresenceError::File { path: lock, source })?;
    let pid = std::str::from_utf8(&text).ok().and_then(|text| text.trim().parse().ok());
    Ok(pid.filter(|_| held.is_none()))
}

/// How many rules, and the first of them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Rules {
    /// All of them.
    pub count: usize,
    /// The first ones.
    pub first: Vec<u32>,
}

impl From<Vec<RuleId>> for Rules {
    fn from(ids: Vec<RuleId>) -> Self {
        Self { count: ids.len(), first: ids.iter().take(NAMED).map(|id| id.0).collect() }
    }
}

/// What became of the last reload. Written by the service, read by `threatlockdown reload`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Report {
    /// Reloads asked for since the start; 0 = just started.
    pub attempt: u64,
    /// The last one is in force; otherwise the rules before it still are.
    pub in_force: bool,
    /// Rules in force.
    pub rules: usize,
    /// Responses in force.
    pub responses: usize,
    /// Rules that are new.
    pub added: Rules,
    /// Rules that are gone.
    pub removed: Rules,
    /// Rules with another text.
    pub changed: Rules,
    /// Parts of the configuration that changed and take a restart.
    pub restart: Vec<String>,
}

impl Report {
    /// Takes over what differs between the rules.
    pub fn with(mut self, differences: Differences) -> Self {
        self.added = differences.added.into();
        self.removed = differences.removed.into();
        self.changed = differences.changed.into();
        self
    }

    /// Writes it for others to read.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, home: &Path) -> io::Result<()> {
        durable::replace(&home.join(REPORT), &serde_json::to_vec(self)?, 0o644)
    }

    /// The last one of the running service; none before it finished starting.
    pub fn read(home: &Path) -> Option<Self> {
        let text = durable::read_bounded(&home.join(REPORT), REPORT_LIMIT).ok()?;
        serde_json::from_slice(&text).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn home() -> tempfile::TempDir {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(home.path().join(REPORT_FOLDER)).unwrap();
        home
    }

    #[test]
    fn a_home_is_served_by_one_process_until_it_lets_go() {
        let home = home();
        assert_eq!(serving(home.path()).unwrap(), None);
        let presence = Presence::take(home.path()).unwrap();
        assert_eq!(serving(home.path()).unwrap(), Some(std::process::id()));
        assert!(matches!(Presence::take(home.path()), Err(PresenceError::Taken(_))));
        drop(presence);
        assert_eq!(serving(home.path()).unwrap(), None);
    }

    #[test]
    fn a_process_id_without_the_lock_is_not_believed() {
        let home = home();
        durable::replace(&home.path().join(PID), b"1\n", 0o644).unwrap();
        assert_eq!(serving(home.path()).unwrap(), None);
    }

    #[test]
    fn a_report_is_read_as_written_and_a_start_forgets_the_one_before() {
        let home = home();
        let ids: Vec<RuleId> = (0..70).map(RuleId).collect();
        let differences = Differences { added: ids, ..Differences::default() };
        let report = Report { attempt: 3, in_force: true, ..Report::default() }.with(differences);
        assert_eq!((report.added.count, report.added.first.len()), (70, 50));
        report.write(home.path()).unwrap();
        assert_eq!(Report::read(home.path()), Some(report));
        let _presence = Presence::take(home.path()).unwrap();
        assert_eq!(Report::read(home.path()), None);
    }
}
