//! `quarantine-file`: the file that an alert names is moved out of reach, its hash, owner and mode recorded, and moved
//! back when the response ends.
//! Invariant: no symbolic link on the way is followed, so that nobody can aim the move at another file.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, Gid, Mode, OFlags, RenameFlags, ResolveFlags, Uid};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tld_sys::durable;

use super::{Call, Failure, Local, Proof, Subject, Takes};

/// See the module.
pub(crate) struct QuarantineFile;

/// What is remembered of the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Taken {
    sha256: String,
    size: u64,
    mode: u32,
    uid: u32,
    gid: u32,
    device: u64,
    inode: u64,
}

impl Taken {
    /// The same file with the same content. Its mode may have changed: the one we set stays when it is moved by others.
    fn is(&self, other: &Self) -> bool {
        (self.device, self.inode, &self.sha256) == (other.device, other.inode, &other.sha256)
    }

    /// Whether what lies in quarantine is it: the moved file, or a copy of it. A moved one may have been written to
    /// through a descriptor that somebody held.
    fn is_kept_as(&self, kept: &Self) -> bool {
        (self.device, self.inode) == (kept.device, kept.inode)
            || (&self.sha256, self.size) == (&kept.sha256, kept.size)
    }

    /// Its name in the quarantine.
    fn name(&self) -> String {
        format!("{}-{:x}-{:x}", self.sha256, self.device, self.inode)
    }
}

fn path(subject: &Subject) -> Result<(&Path, &OsStr), Failure> {
    let none = || Failure::Failed("no file".into());
    let Subject::File(path) = subject else { return Err(none()) };
    Ok((path.parent().ok_or_else(none)?, path.file_name().ok_or_else(none)?))
}

fn directory(path: &Path) -> Result<OwnedFd, Failure> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat2(rustix::fs::CWD, path, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS)
        .map_err(|error| Failure::io("open", path)(error.into()))
}

fn quarantine(call: &Call) -> PathBuf {
    call.state().join("quarantine")
}

fn take(parent: &OwnedFd, name: &OsStr, shown: &Path) -> Result<(File, Taken), Failure> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let opened = rustix::fs::openat(parent, name, flags, Mode::empty());
    let mut file = File::from(opened.map_err(|error| Failure::io("open", shown)(error.into()))?);
    let seen = file.metadata().map_err(Failure::io("look at", shown))?;
    if !seen.is_file() || seen.nlink() > 1 {
        let text = format!("`{}` is no regular file with one name", shown.display());
        return Err(Failure::Refused(text));
    }
    let mut digest = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    let mut left = MOST_HASHED;
    while left > 0 {
        let most = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        match file.read(&mut buffer[..most]).map_err(Failure::io("read", shown))? {
            0 => break,
            count => {
                digest.update(&buffer[..count]);
                left -= count as u64;
            }
        }
    }
    let taken = Taken {
        sha256: digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect(),
        size: seen.size(),
        mode: seen.mode() & 0o7777,
        uid: seen.uid(),
        gid: seen.gid(),
        device: seen.dev(),
        inode: seen.ino(),
    };
    Ok((file, taken))
}

/// Moves within a file system; between two, copies durably under another name first, so that a copy is whole or not
/// there, removes the original and returns the copy. Cut off anywhere it can be done again.
fn shift(
    from: (&OwnedFd, &OsStr),
    to: (&OwnedFd, &OsStr),
    taken: &Taken,
    shown: &Path,
) -> Result<Option<File>, Failure> {
    let failed = |what: &'static str| {
        move |error: rustix::io::Errno| Failure::io(what, shown)(std::io::Error::from(error))
    };
    match rustix::fs::renameat_with(from.0, from.1, to.0, to.1, RenameFlags::NOREPLACE) {
        Err(rustix::io::Errno::XDEV) => {}
        done => return done.map(|()| None).map_err(failed("move")),
    }
    if taken.size > MOST_HASHED {
        let text = format!("`{}` is too large to be copied to another file system", shown.display());
        return Err(Failure::Refused(text));
    }
    // Somebody may have put something else there meanwhile, which must neither hold us nor grow.
    let read = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let source = rustix::fs::openat(from.0, from.1, read, Mode::empty()).map_err(failed("open"))?;
    let partial = OsString::from(format!(".{}.partial", taken.name()));
    // Of an earlier try.
    let _ = rustix::fs::unlinkat(to.0, &partial, AtFlags::empty());
    let write = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let target = rustix::fs::openat(to.0, &partial, write, Mode::empty()).map_err(failed("copy"))?;
    let mut target = File::from(target);
    let copied = std::io::copy(&mut File::from(source).take(taken.size + 1), &mut target)
        .and_then(|_| target.sync_all())
        .map_err(Failure::io("copy", shown))
        .and_then(|()| take(to.0, &partial, shown));
    let whole = copied.as_ref().is_ok_and(|(_, copy)| taken.is_kept_as(copy));
    if !whole {
        let _ = rustix::fs::unlinkat(to.0, &partial, AtFlags::empty());
        copied?;
        return Err(Failure::Failed(format!("`{}` changed meanwhile", shown.display())));
    }
    rustix::fs::renameat_with(to.0, &partial, to.0, to.1, RenameFlags::NOREPLACE).map_err(failed("place"))?;
    rustix::fs::unlinkat(from.0, from.1, AtFlags::empty()).map_err(failed("remove"))?;
    Ok(Some(target))
}

/// Whether the process that all others come from, or this one, runs on this file: programs, loader, libraries.
fn is_in_use(path: &Path) -> bool {
    ["/proc/1/maps", "/proc/self/maps"].iter().any(|maps| {
        let bytes = durable::read_bounded(Path::new(maps), MAPS).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let files = text.lines().filter_map(|line| line.find('/').and_then(|at| line.get(at..)));
        files.map(|file| Path::new(file.trim_end_matches(" (deleted)"))).any(|file| file == path)
    })
}

fn exists(parent: &OwnedFd, name: &OsStr) -> bool {
    rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW).is_ok()
}

fn remembered(prior: &str) -> Option<Taken> {
    serde_json::from_str(prior).ok()
}

impl Local for QuarantineFile {
    fn names(&self) -> &'static [&'static str] {
        &["quarantine-file"]
    }

    fn takes(&self) -> Option<Takes> {
        Some(Takes::File)
    }

    fn subject(&self, call: &Call) -> Result<Subject, String> {
        let places = ["syscheck/path", "data/virustotal/source/file", "data/file", "data/path"];
        let text = places.iter().find_map(|place| call.text(place)).unwrap_or_default();
        let path = Path::new(text);
        let plain = path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
        if !path.is_absolute() || !plain || path.file_name().is_none() || text.contains('\0') {
            return Err("Cannot read the path of a file from the alert".into());
        }
        Ok(Subject::File(path.components().collect()))
    }

    fn prior(&self, call: &Call, subject: &Subject) -> Result<String, Failure> {
        let (parent, name) = path(subject)?;
        let shown = parent.join(name);
        // Anybody may put files into the shared memory.
        let kept = NEVER.iter().any(|kept| shown.starts_with(kept)) && !shown.starts_with("/dev/shm");
        let needed = kept || shown.starts_with(&call.home) || is_in_use(&shown);
        if needed {
            return Err(Failure::Refused(format!("`{}` belongs to what this host needs", shown.display())));
        }
        let (_, taken) = take(&directory(parent)?, name, &shown)?;
        serde_json::to_string(&taken).map_err(|error| Failure::Failed(error.to_string()))
    }

    fn apply(&self, call: &Call, subject: &Subject, prior: &str) -> Result<Proof, Failure> {
        let (parent, name) = path(subject)?;
        let shown = parent.join(name);
        let taken =
            remembered(prior).ok_or_else(|| Failure::Failed("nothing is known of the file".into()))?;
        let place = quarantine(call);
        durable::create_dirs(&place, 0o700).map_err(Failure::io("create", &place))?;
        let (from, to, kept) = (directory(parent)?, directory(&place)?, taken.name());
        let kept = OsStr::new(&kept);
        if !exists(&to, kept) {
            let (_, now) = take(&from, name, &shown)?;
            if !now.is(&taken) {
                return Err(Failure::Failed(format!("`{}` changed meanwhile", shown.display())));
            }
            shift((&from, name), (&to, kept), &taken, &shown)?;
            // Between the look and the move somebody may have put another file there, which is none of our business.
            if !take_kept(&to, kept, &place).is_ok_and(|(_, moved)| taken.is_kept_as(&moved)) {
                let back = rustix::fs::renameat_with(&to, kept, &from, name, RenameFlags::NOREPLACE);
                let left = if back.is_ok() { "" } else { ", what took its place is kept in quarantine" };
                return Err(Failure::Failed(format!("`{}` changed meanwhile{left}", shown.display())));
            }
        }
        let (file, now) = take_kept(&to, kept, &place)?;
        rustix::fs::fchmod(&file, Mode::empty())
            .map_err(|error| Failure::io("lock", &place)(error.into()))?;
        let _ = rustix::fs::fsync(File::open(&place).map_err(Failure::io("open", &place))?);
        if take(&from, name, &shown).is_ok_and(|(_, other)| other.is(&taken)) {
            // We died when the copy was made and the original was not removed yet.
            rustix::fs::unlinkat(&from, name, AtFlags::empty())
                .map_err(|error| Failure::io("remove", &shown)(error.into()))?;
        }
        let part = if now.size > MOST_HASHED { " of its beginning" } else { "" };
        Ok(format!("`{}` is in quarantine, sha256{part} {}", shown.display(), now.sha256))
    }

    fn revert(&self, call: &Call, subject: &Subject, prior: &str) -> Result<Proof, Failure> {
        let (parent, name) = path(subject)?;
        let shown = parent.join(name);
        let Some(taken) = remembered(prior) else { return Ok("nothing was moved".into()) };
        let place = quarantine(call);
        let kept = taken.name();
        let kept = OsStr::new(&kept);
        let from = match directory(&place) {
            Ok(from) if exists(&from, kept) => from,
            // Never moved, or moved back already.
            _ => return Ok(format!("`{}` is not in quarantine", shown.display())),
        };
        let to = directory(parent)?;
        let (file, now) = take_kept(&from, kept, &place)?;
        if !taken.is_kept_as(&now) {
            // It would be given to somebody whose it may not be.
            return Err(Failure::Failed(format!(
                "`{}` in quarantine is not what was taken",
                shown.display()
            )));
        }
        let failed = |error: rustix::io::Errno| Failure::io("restore", &shown)(std::io::Error::from(error));
        // A copy that nobody else can have made: before it is given back it is ours, and nobody may touch it.
        let ours = |there: &Taken| there.uid == rustix::process::geteuid().as_raw() && there.mode == 0;
        let placed = take(&to, name, &shown);
        let restored = if placed.is_ok_and(|(_, there)| ours(&there) && taken.is_kept_as(&there)) {
            // We died when it was in its place and the one in quarantine was not removed yet.
            rustix::fs::unlinkat(&from, kept, AtFlags::empty()).map_err(failed)?;
            take(&to, name, &shown)?.0
        } else {
            // Not by its name, where somebody may have put another file by now.
            shift((&from, kept), (&to, name), &now, &shown)?.unwrap_or(file)
        };
        rustix::fs::fchown(&restored, Some(Uid::from_raw(taken.uid)), Some(Gid::from_raw(taken.gid)))
            .map_err(failed)?;
        rustix::fs::fchmod(&restored, Mode::from_raw_mode(taken.mode)).map_err(failed)?;
        Ok(format!("`{}` is back in its place", shown.display()))
    }

    /// What stands at the old place by now is another file, and another matter; one that somebody removed from the
    /// quarantine as well is out of reach all the same.
    fn verify(&self, call: &Call, subject: &Subject, prior: &str) -> Result<bool, Failure> {
        let Some(taken) = remembered(prior) else { return Ok(false) };
        let place = quarantine(call);
        if directory(&place).is_ok_and(|place| exists(&place, OsStr::new(&taken.name()))) {
            return Ok(true);
        }
        let (parent, name) = path(subject)?;
        let Ok(folder) = directory(parent) else { return Ok(true) };
        // What is plainly another file need not be read.
        let same = rustix::fs::statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW).is_ok_and(|there| {
            (there.st_dev, there.st_ino, u64::try_from(there.st_size))
                == (taken.device, taken.inode, Ok(taken.size))
        });
        Ok(!same || take(&folder, name, parent).map_or(true, |(_, there)| !taken.is(&there)))
    }
}

fn take_kept(place: &OwnedFd, kept: &OsStr, shown: &Path) -> Result<(File, Taken), Failure> {
    take(place, kept, &shown.join(kept))
}

/// What is hashed and copied of a file at the most, so that nobody keeps us busy with a large one.
const MOST_HASHED: u64 = 1 << 30;
const MAPS: usize = 4 << 20;
/// Without these the host does not boot or cannot be logged in to.
const NEVER: [&str; 33] = [
    "/bin/sh",
    "/etc/fstab",
    "/etc/gshadow",
    "/etc/hosts",
    "/etc/ld.so.cache",
    "/etc/netplan",
    "/etc/network",
    "/etc/NetworkManager",
    "/etc/nsswitch.conf",
    "/etc/resolv.conf",
    "/etc/security",
    "/etc/systemd",
    "/lib/modules",
    "/lib/systemd",
    "/sbin/init",
    "/usr/bin/bash",
    "/usr/bin/dash",
    "/usr/bin/login",
    "/usr/bin/su",
    "/usr/bin/sudo",
    "/usr/lib/modules",
    "/proc",
    "/sys",
    "/dev",
    "/boot",
    "/etc/passwd",
    "/etc/shadow",
    "/etc/group",
    "/etc/ssh",
    "/etc/pam.d",
    "/etc/sudoers",
    "/usr/lib/systemd",
    "/usr/sbin/sshd",
];
