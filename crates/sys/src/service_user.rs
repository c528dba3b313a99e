//! The account that everything but the responder runs as: what reads attackers' text must not be root.
//! Invariant: nothing that this account could have put there is given to it, so it gains no file of somebody else's.

use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, lchown};
use std::path::{Path, PathBuf};

use crate::{durable, privilege};

/// Groups whose members may read logs on common systems.
const LOG_GROUPS: [&str; 2] = ["adm", "systemd-journal"];

/// Such an account.
#[derive(Debug, Clone, Copy)]
pub struct ServiceUser {
    uid: u32,
    gid: u32,
}

/// A part of the home cannot be handed over.
#[derive(Debug, thiserror::Error)]
#[error("cannot give `{}` to the service user", path.display())]
pub struct GiveError {
    path: PathBuf,
    #[source]
    source: io::Error,
}

impl ServiceUser {
    /// The local account `name`; none when there is nothing to drop (we are not root) or nobody to become.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        if !privilege::is_root() {
            return None;
        }
        privilege::user(name).filter(|(uid, gid)| *uid != 0 && *gid != 0).map(|(uid, gid)| Self { uid, gid })
    }

    /// Makes `written` of `home` the account's, and opens `read` to its group; what is absent is passed over, except `log`,
    /// which is made: whoever writes its first line would own it, and that may be root.
    ///
    /// # Errors
    /// When an owner cannot be changed, or the log cannot be made.
    pub fn give<'a>(
        self,
        home: &Path,
        log: &'a str,
        written: impl IntoIterator<Item = &'a str>,
        read: impl IntoIterator<Item = &'a str>,
    ) -> Result<(), GiveError> {
        let path = home.join(log);
        durable::open_appending(&path, 0o640).map_err(|source| GiveError { path, source })?;
        let written = written.into_iter().chain([log]);
        let written = written.into_iter().map(|path| (path, self.uid));
        for (path, uid) in written.chain(read.into_iter().map(|path| (path, 0))) {
            let path = home.join(path);
            match change_owner(&path, uid, self.gid) {
                Err(source) if source.kind() != io::ErrorKind::NotFound => {
                    return Err(GiveError { path, source });
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Lets the account's group make files in `folders` of `home`, which stay root's.
    ///
    /// # Errors
    /// When a mode cannot be changed.
    pub fn open(self, home: &Path, folders: &[&str]) -> Result<(), GiveError> {
        for folder in folders {
            let path = home.join(folder);
            open_to_group(&path).map_err(|source| GiveError { path, source })?;
        }
        Ok(())
    }

    /// Becomes the account for good, with the right to read every log. Call it while the process has a single thread.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn become_it(self) -> io::Result<()> {
        let groups: Vec<_> = LOG_GROUPS.iter().filter_map(|name| privilege::group(name)).collect();
        privilege::drop_to_with_groups(self.uid, self.gid, &groups, true)
    }
}

fn open_to_group(folder: &Path) -> io::Result<()> {
    let mode = std::fs::symlink_metadata(folder)?.permissions().mode();
    if mode & 0o070 == 0o070 {
        return Ok(());
    }
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(mode & 0o7777 | 0o070))
}

/// Links are followed only where none but root can make one: in a directory of the service user, a link or a second name
/// of somebody else's file would hand that file over.
fn change_owner(path: &Path, uid: u32, gid: u32) -> io::Result<()> {
    let parent = std::fs::metadata(path.parent().unwrap_or(path))?;
    if parent.uid() == 0 && parent.mode() & 0o022 == 0 {
        return chown(path, Some(uid), Some(gid));
    }
    let seen = path.symlink_metadata()?;
    if seen.is_file() && seen.nlink() > 1 {
        return Err(io::Error::other("the file has a second name; remove it and start again"));
    }
    lchown(path, Some(uid), Some(gid))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn what_the_service_user_links_to_is_not_handed_over() {
        if !privilege::is_root() {
            assert!(std::env::var_os("TLD_REQUIRE_ALL").is_none(), "needs root");
            println!("skipped: needs root");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let (logs, secret) = (dir.path().join("logs"), dir.path().join("secret"));
        std::fs::create_dir(&logs).unwrap();
        std::fs::File::create(&secret).unwrap();
        chown(&logs, Some(65534), Some(65534)).unwrap();
        symlink(&secret, logs.join("link")).unwrap();
        std::fs::hard_link(&secret, logs.join("second")).unwrap();
        change_owner(&logs.join("link"), 65534, 65534).unwrap();
        change_owner(&logs.join("second"), 65534, 65534).unwrap_err();
        assert_eq!(secret.metadata().unwrap().uid(), 0);

        let own = dir.path().join("own");
        std::fs::create_dir(&own).unwrap();
        std::fs::set_permissions(&own, std::fs::Permissions::from_mode(0o750)).unwrap();
        symlink(&secret, own.join("link")).unwrap();
        change_owner(&own.join("link"), 65534, 65534).unwrap();
        assert_eq!(secret.metadata().unwrap().uid(), 65534, "root's own link is followed");
    }

    #[test]
    fn the_log_belongs_to_the_service_user_before_anybody_writes_to_it() {
        if !privilege::is_root() {
            assert!(std::env::var_os("TLD_REQUIRE_ALL").is_none(), "needs root");
            println!("skipped: needs root");
            return;
        }
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir(home.path().join("logs")).unwrap();
        let user = ServiceUser { uid: 65534, gid: 65534 };
        user.give(home.path(), "logs/ossec.log", ["logs", "absent"], [""]).unwrap();
        let about = home.path().join("logs/ossec.log").metadata().unwrap();
        assert_eq!((about.uid(), about.mode() & 0o777), (65534, 0o640));
    }
}
