//! Files that survive a crash: whole replacement, single-write appends, locks, bounded reads.
//!
//! Invariant: after [`replace`] returns, a power cut leaves either the old content or the new, never a mixture;
//! and whoever reads the path at any moment sees one of the two.

use std::ffi::OsString;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

#[cfg(unix)]
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};

/// Puts `bytes` in place of `path` with exactly `mode`: temporary file beside it, flushed, renamed over it,
/// directory flushed. A symbolic link at `path` is replaced, not followed.
pub fn replace(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    replace_with(path, bytes, |file| set_mode(file, mode), || true).map(drop)
}

/// Like [`replace`], but an existing file keeps its owner, mode, access list and security label, and a
/// symbolic link its place: the file it names is replaced. A file that does not exist yet gets mode 0644.
pub fn replace_keeping(path: &Path, bytes: &[u8]) -> io::Result<()> {
    replace_keeping_if(path, bytes, || true).map(drop)
}

/// The same if `still` holds when everything but the last step is done: false, and nothing has changed, if it does not.
/// What others change between that step and the question is lost; the time is that of one system call.
pub fn replace_keeping_if(path: &Path, bytes: &[u8], still: impl FnOnce() -> bool) -> io::Result<bool> {
    let target = match std::fs::canonicalize(path) {
        Ok(target) => target,
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            return replace_with(path, bytes, |file| set_mode(file, 0o644), still);
        }
        Err(e) => return Err(e),
    };
    let old = open_reading(&target)?;
    replace_with(&target, bytes, |new| copy_attributes(&old, new), still)
}

fn replace_with(
    path: &Path,
    bytes: &[u8],
    dress: impl FnOnce(&File) -> io::Result<()>,
    still: impl FnOnce() -> bool,
) -> io::Result<bool> {
    let directory = parent(path);
    let (temporary, mut file) = temporary_beside(path, &directory)?;
    let written = dress(&file)
        .and_then(|()| file.write_all(bytes))
        .and_then(|()| file.sync_all())
        .and_then(|()| if still() { std::fs::rename(&temporary, path).map(|()| true) } else { Ok(false) });
    drop(file);
    if !matches!(written, Ok(true)) {
        // The first error is the one to report; a left-over temporary file harms nobody.
        let _ = std::fs::remove_file(&temporary);
        return written;
    }
    sync_directory(&directory).map(|()| true)
}

fn temporary_beside(path: &Path, directory: &Path) -> io::Result<(PathBuf, File)> {
    static COUNTER: AtomicU32 = AtomicU32::new(0);
    let name = path.file_name().ok_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidInput, format!("`{}` names no file", path.display()))
    })?;
    loop {
        let mut temporary = OsString::from(".");
        temporary.push(name);
        temporary.push(format!(".{}-{}.tmp", std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed)));
        let temporary = directory.join(temporary);
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        options.mode(0o600);
        match options.open(&temporary) {
            Ok(file) => return Ok((temporary, file)),
            // Left by a process that died and had our number.
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(e),
        }
    }
}

fn parent(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

#[cfg(unix)]
fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

#[cfg(not(unix))]
fn sync_directory(_directory: &Path) -> io::Result<()> {
    Ok(())
}

#[cfg(unix)]
fn set_mode(file: &File, mode: u32) -> io::Result<()> {
    file.set_permissions(std::fs::Permissions::from_mode(mode & 0o7777))
}

#[cfg(not(unix))]
fn set_mode(_file: &File, _mode: u32) -> io::Result<()> {
    Ok(())
}

#[cfg(unix)]
fn copy_attributes(old: &File, new: &File) -> io::Result<()> {
    let (was, is) = (old.metadata()?, new.metadata()?);
    if !was.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    if (was.uid(), was.gid()) != (is.uid(), is.gid()) {
        std::os::unix::fs::fchown(new, Some(was.uid()), Some(was.gid()))?;
    }
    set_mode(new, was.mode())?;
    copy_labels(old, new);
    Ok(())
}

#[cfg(not(unix))]
fn copy_attributes(_old: &File, _new: &File) -> io::Result<()> {
    Ok(())
}

/// Best effort: many file systems have neither, and a policy may refuse to set the label we inherit anyway.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn copy_labels(old: &File, new: &File) {
    for name in ["security.selinux", "system.posix_acl_access"] {
        let mut value = [0_u8; 4096];
        if let Ok(length) = rustix::fs::fgetxattr(old, name, &mut value) {
            let _ = rustix::fs::fsetxattr(new, name, &value[..length], rustix::fs::XattrFlags::empty());
        }
    }
}

#[cfg(all(unix, not(any(target_os = "linux", target_os = "android"))))]
fn copy_labels(_old: &File, _new: &File) {}

/// Adds one line in a single write, so that writers of several processes never mix within a line. The newline
/// is added if `line` has none; a file made by this call gets exactly `mode`. Symbolic links are refused.
pub fn append_line(path: &Path, line: &[u8], mode: u32) -> io::Result<()> {
    let mut file = open_appending(path, mode)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    let with_newline;
    let line = if line.ends_with(b"\n") {
        line
    } else {
        with_newline = [line, b"\n"].concat();
        &with_newline
    };
    let written = loop {
        match file.write(line) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            other => break other?,
        }
    };
    if written == line.len() {
        Ok(())
    } else {
        Err(io::Error::new(io::ErrorKind::WriteZero, "only part of the line was written"))
    }
}

pub(crate) fn open_appending(path: &Path, mode: u32) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.append(true);
    // NONBLOCK: opening a pipe somebody planted must not hang us.
    #[cfg(unix)]
    options.mode(0o600).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY);
    for _ in 0..16 {
        match options.clone().open(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            other => return other,
        }
        match options.clone().create_new(true).open(path) {
            Ok(file) => {
                set_mode(&file, mode)?;
                return Ok(file);
            }
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(e),
        }
    }
    Err(io::Error::other("the file appears and disappears"))
}

/// Makes `path` and its missing parents, each with exactly `mode`; existing ones are left as they are.
pub fn create_dirs(path: &Path, mode: u32) -> io::Result<()> {
    if path.is_dir() || path.as_os_str().is_empty() {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        create_dirs(parent, mode)?;
    }
    match std::fs::create_dir(path) {
        Ok(()) => {}
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => return Ok(()),
        Err(e) => return Err(e),
    }
    #[cfg(unix)]
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode & 0o7777))?;
    sync_directory(&parent(path))
}

/// A held advisory lock; dropping it, or dying, releases it.
#[derive(Debug)]
pub struct FileLock {
    file: File,
}

impl FileLock {
    /// Writes `text` into the locked file, for people who wonder who holds it.
    pub fn note(&self, text: &str) -> io::Result<()> {
        self.file.set_len(0)?;
        (&self.file).write_all(text.as_bytes())
    }
}

impl Drop for FileLock {
    fn drop(&mut self) {
        // Closing alone would leave it held for an instant where another thread has just started a child, which has all
        // our descriptors until it execs.
        let _ = self.file.unlock();
    }
}

/// Waits for the lock on `path`, a file made if missing (mode 0600). Waits as long as the holder holds.
pub fn lock_exclusive(path: &Path) -> io::Result<FileLock> {
    let file = open_lock(path)?;
    file.lock()?;
    Ok(FileLock { file })
}

/// Takes the lock on `path` if nobody holds it; `None` if somebody does.
pub fn try_lock(path: &Path) -> io::Result<Option<FileLock>> {
    let file = open_lock(path)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(FileLock { file })),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(e)) => Err(e),
    }
}

fn open_lock(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    options.mode(0o600).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
    options.open(path)
}

fn open_reading(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true);
    #[cfg(unix)]
    options.custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY);
    options.open(path)
}

/// The whole content of `path`, or [`io::ErrorKind::FileTooLarge`] if it has more than `max` bytes.
pub fn read_bounded(path: &Path, max: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let limit = u64::try_from(max).unwrap_or(u64::MAX).saturating_add(1);
    #[expect(clippy::disallowed_methods, reason = "bounded by `take`")]
    open_reading(path)?.take(limit).read_to_end(&mut bytes)?;
    if bytes.len() > max {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("more than {max} bytes")));
    }
    Ok(bytes)
}

#[cfg(unix)]
#[cfg(test)]
mod tests;
