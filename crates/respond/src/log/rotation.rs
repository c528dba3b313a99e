//! Keeps the log of responses from growing for ever: when it is large enough, or another day begins where that is asked
//! for, it becomes `active-responses.log.1`, that one `.2`, and the last one goes.
//! Invariant: no line is lost to it. Others append to the same log meanwhile (operators' scripts, our executables that
//! another daemon started): whoever still has the old file open writes its last line there, whoever opens it anew
//! finds a file with the same owner and mode.

use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::OFlags;
use tld_config::InternalOptions;
use tld_model::{Timestamp, Zone};
use tld_sys::clock::{Clock, SystemClock};
use tld_sys::durable;

/// When the log of responses is put aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rotation {
    /// From this size on, in bytes; 0 = never for its size.
    pub size: u64,
    /// When a day of the calendar has passed.
    pub daily: bool,
    /// So many former files are kept.
    pub keep: u32,
}

impl Default for Rotation {
    fn default() -> Self {
        Self { size: 64 << 20, daily: false, keep: 9 }
    }
}

impl Rotation {
    /// As the tunables of the installation say.
    pub fn of(options: &InternalOptions) -> Self {
        let defaults = Self::default();
        Self {
            size: options
                .value("execd.log_size")
                .map_or(defaults.size, |megabytes| u64::from(megabytes) << 20),
            daily: options.value("execd.log_daily").map_or(defaults.daily, |value| value == 1),
            keep: options.value("execd.log_keep").unwrap_or(defaults.keep),
        }
    }
}

/// Puts one log aside in time.
#[derive(Clone)]
pub(crate) struct Keeper {
    log: PathBuf,
    lock: PathBuf,
    rotation: Rotation,
    zone: Zone,
    clock: Arc<dyn Clock>,
}

impl Keeper {
    /// For the log below `home`.
    pub(crate) fn new(home: &Path, rotation: Rotation, zone: &Zone, clock: Arc<dyn Clock>) -> Self {
        let lock = home.join("var/threatlockdown/responses-log.lock");
        Self { log: home.join(super::PATH), lock, rotation, zone: zone.clone(), clock }
    }

    /// Before an append: puts the file aside if it is time. Never waits: another process that is at it does the same.
    pub(crate) fn rotate(&self) -> io::Result<()> {
        if self.due().is_none() {
            return Ok(());
        }
        if let Some(directory) = self.lock.parent() {
            durable::create_dirs(directory, 0o750)?;
        }
        let Some(_lock) = durable::try_lock(&self.lock)? else { return Ok(()) };
        // Another process may just have done it.
        let Some(old) = self.due() else { return Ok(()) };
        for number in (1..self.rotation.keep.max(1)).rev() {
            match std::fs::rename(self.aside(number), self.aside(number + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        std::fs::rename(&self.log, self.aside(1))?;
        self.begin(&old)
    }

    fn due(&self) -> Option<Metadata> {
        let seen = self.log.symlink_metadata().ok().filter(|seen| seen.is_file() && seen.size() > 0)?;
        let large = self.rotation.size > 0 && seen.size() >= self.rotation.size;
        let day = |at: Timestamp| {
            let stamp = self.zone.local(at).log_stamp().to_string();
            stamp.split(' ').next().map(String::from)
        };
        let now = Timestamp::from_nanos(self.clock.wall_nanos());
        let other_day = self.rotation.daily && day(Timestamp::from_secs(seen.mtime())) != day(now);
        (large || other_day).then_some(seen)
    }

    fn aside(&self, number: u32) -> PathBuf {
        let mut name = self.log.clone().into_os_string();
        name.push(format!(".{number}"));
        name.into()
    }

    /// A new file like the old one: collectors that run as another user must be able to read on.
    fn begin(&self, old: &Metadata) -> io::Result<()> {
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
        let mut options = OpenOptions::new();
        options.append(true).create(true).mode(old.mode() & 0o777).custom_flags(flags.bits().cast_signed());
        let file: File = options.open(&self.log)?;
        let seen = file.metadata()?;
        // The directory may belong to an unprivileged user: nothing but what was just made changes hands.
        let fresh = seen.is_file() && seen.nlink() == 1 && seen.uid() == rustix::process::geteuid().as_raw();
        if fresh && (seen.uid(), seen.gid()) != (old.uid(), old.gid()) {
            fchown(&file, Some(old.uid()), Some(old.gid()))?;
        }
        if fresh {
            file.set_permissions(std::fs::Permissions::from_mode(old.mode() & 0o777))?;
        }
        Ok(())
    }
}

/// The same for a process that was started for one line: by the tunables of the home.
pub(crate) fn keep_default(home: &Path) -> Keeper {
    let rotation = Rotation::of(&tld_config::internal_options(home).0);
    Keeper::new(home, rotation, &Zone::system(), Arc::new(SystemClock))
}

impl std::fmt::Debug for Keeper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keeper")
            .field("log", &self.log)
            .field("rotation", &self.rotation)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::append;

    fn keeper(home: &Path, size: u64, daily: bool) -> Keeper {
        std::fs::create_dir_all(home.join("logs")).unwrap();
        Keeper::new(home, Rotation { size, daily, keep: 3 }, &Zone::utc(), Arc::new(SystemClock))
    }

    fn read(home: &Path, name: &str) -> String {
        std::fs::read_to_string(home.join("logs").join(name)).unwrap_or_default()
    }

    #[test]
    fn a_large_log_is_put_aside_with_its_mode_and_the_oldest_goes() {
        let home = tempfile::tempdir().unwrap();
        let keeper = keeper(home.path(), 4, false);
        for text in ["one\n", "two\n", "three\n", "four\n", "five\n"] {
            keeper.rotate().unwrap();
            append(&keeper.log, text).unwrap();
            std::fs::set_permissions(&keeper.log, std::fs::Permissions::from_mode(0o664)).unwrap();
        }
        let names = [
            "active-responses.log",
            "active-responses.log.1",
            "active-responses.log.2",
            "active-responses.log.3",
        ];
        assert_eq!(names.map(|name| read(home.path(), name)), ["five\n", "four\n", "three\n", "two\n"]);
        assert!(!home.path().join("logs/active-responses.log.4").exists());
        assert_eq!(keeper.log.metadata().unwrap().mode() & 0o777, 0o664);
    }

    #[test]
    fn another_day_begins_another_file_only_where_that_is_asked_for() {
        let home = tempfile::tempdir().unwrap();
        let yesterday = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_772_446_531);
        for (daily, aside) in [(false, ""), (true, "old\n")] {
            let keeper = keeper(home.path(), 0, daily);
            append(&keeper.log, "old\n").unwrap();
            File::options().append(true).open(&keeper.log).unwrap().set_modified(yesterday).unwrap();
            keeper.rotate().unwrap();
            assert_eq!(read(home.path(), "active-responses.log.1"), aside);
            std::fs::remove_file(&keeper.log).unwrap();
        }
    }

    #[test]
    fn writers_at_once_lose_no_line_and_tear_none() {
        let home = tempfile::tempdir().unwrap();
        let keeper = Keeper {
            rotation: Rotation { size: 100, daily: false, keep: 2_000 },
            ..keeper(home.path(), 0, false)
        };
        std::thread::scope(|scope| {
            for writer in 0..4 {
                let keeper = &keeper;
                scope.spawn(move || {
                    for line in 0..300 {
                        keeper.rotate().unwrap();
                        append(&keeper.log, &format!("{writer} {line}\n")).unwrap();
                    }
                });
            }
        });
        let mut lines: Vec<String> = Vec::new();
        for file in std::fs::read_dir(home.path().join("logs")).unwrap() {
            lines.extend(std::fs::read_to_string(file.unwrap().path()).unwrap().lines().map(String::from));
        }
        lines.sort();
        let mut expected: Vec<String> =
            (0..4).flat_map(|writer| (0..300).map(move |line| format!("{writer} {line}"))).collect();
        expected.sort();
        assert_eq!(lines, expected);
        // How often depends on who runs when: nobody waits for one who is at it.
        assert!(home.path().join("logs/active-responses.log.1").exists());
    }

    #[test]
    fn a_link_in_place_of_the_log_is_left_alone() {
        let home = tempfile::tempdir().unwrap();
        let keeper = keeper(home.path(), 1, false);
        let target = home.path().join("target");
        durable::replace(&target, b"much\n", 0o600).unwrap();
        std::os::unix::fs::symlink(&target, &keeper.log).unwrap();
        keeper.rotate().unwrap();
        assert!(keeper.log.is_symlink() && !keeper.aside(1).exists());
    }
}
