//! Which file an order means, whether it is our own program under another name, and whether root may run it.
//! Invariant: a file that anyone but its trusted owner can change is never executed.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read as _;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, OFlags, Stat, fstat, openat};
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};

use crate::actions::{self, Ours};

/// Content hash of an executable.
pub type Hash = [u8; 32];

/// What stands behind a name in `active-response/bin`.
#[derive(Debug, Clone)]
pub(crate) enum Found {
    /// Our own program: the action runs in process.
    Ours(Ours),
    /// An operator's file that may be run.
    Operators,
}

/// Why nothing may be run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Denied {
    /// No such file, or no single one.
    Missing(String),
    /// It is there, but not fit to be run as root; the text holds the command that mends it.
    Unsafe(String),
    /// Our own program under a name that stands for no action.
    Unsupported(String),
}

impl Denied {
    /// The reason, for people.
    pub(crate) fn text(self) -> String {
        match self {
            Self::Missing(text) | Self::Unsafe(text) | Self::Unsupported(text) => text,
        }
    }
}

/// Recognises our own program, remembering content hashes by file identity.
#[derive(Debug)]
pub(crate) struct Recogniser {
    own: Option<Hash>,
    known: HashMap<Identity, Hash>,
}

type Identity = (u64, u64, u64, i64, i64);

impl Recogniser {
    pub(crate) fn new(own: Option<Hash>) -> Self {
        Self { own, known: HashMap::new() }
    }

    /// Decides about the file at `home`/`program`.
    pub(crate) fn decide(&mut self, home: &Path, program: &str) -> Result<Found, Denied> {
        let path = home.join(program);
        let seen = path.symlink_metadata().map_err(|error| missing(program, &error))?;
        if seen.file_type().is_symlink() {
            let text = format!("`{program}` is a symbolic link; put the file itself there");
            return Err(Denied::Unsafe(text));
        }
        if !seen.is_file() {
            return Err(Denied::Unsafe(format!("`{program}` is not a regular file")));
        }
        if self.is_ours(&path).map_err(|error| missing(program, &error))? {
            let name = program.rsplit('/').next().unwrap_or(program);
            return actions::of_name(name).map(Found::Ours).ok_or_else(|| {
                Denied::Unsupported(format!("this program has no action named `{name}` on this system"))
            });
        }
        fit(home, program).map(drop)?;
        Ok(Found::Operators)
    }

    /// Hashes what stands under the names of our actions, so that the first order need not wait for it.
    pub(crate) fn warm(&mut self, home: &Path) {
        for name in actions::names() {
            // What is wrong with a file is told when an order needs it.
            let _ = self.decide(home, &format!("active-response/bin/{name}"));
        }
    }

    fn is_ours(&mut self, path: &Path) -> std::io::Result<bool> {
        let Some(own) = self.own else { return Ok(false) };
        let mut file = File::open(path)?;
        let seen = file.metadata()?;
        // Change time, not only modification time: that one can be set.
        let changed = seen.ctime().wrapping_mul(1_000_000_000).wrapping_add(seen.ctime_nsec());
        let identity = (seen.dev(), seen.ino(), seen.size(), seen.mtime(), changed);
        if let Some(hash) = self.known.get(&identity) {
            return Ok(*hash == own);
        }
        let hash = hash(&mut file)?;
        if self.known.len() >= MOST_KNOWN {
            self.known.clear();
        }
        self.known.insert(identity, hash);
        Ok(hash == own)
    }
}

/// A file that may be run, held open with its home: what was checked is what runs.
#[derive(Debug)]
pub(crate) struct Fit {
    home: OwnedFd,
    file: File,
    /// Relative to the home.
    program: String,
    binary: bool,
}

impl Fit {
    /// What to give to the system. A binary is run by its descriptor. Behind `#!` the interpreter would see that
    /// descriptor's name in place of the file's own, so such a file is run by its path from the directory that is
    /// held; nobody else can change that way, as was checked.
    pub(crate) fn path(&self) -> PathBuf {
        if self.binary && held().is_dir() { by_descriptor(&self.file) } else { PathBuf::from(&self.program) }
    }

    /// The directory to run it in: the home.
    pub(crate) fn cwd(&self, home: &Path) -> PathBuf {
        if held().is_dir() { by_descriptor(&self.home) } else { home.to_path_buf() }
    }
}

fn held() -> &'static Path {
    Path::new("/proc/self/fd")
}

fn by_descriptor(file: &impl AsRawFd) -> PathBuf {
    held().join(file.as_raw_fd().to_string())
}

/// Checks owner, mode and type of a file and of every directory from the home down to it, each step from the one
/// before, so that nothing can be exchanged in between. Done before each run: it may have changed since its `add`.
pub(crate) fn fit(home: &Path, program: &str) -> Result<Fit, Denied> {
    let failed = |error: Errno| missing(program, &error.into());
    let directory = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
    let top = openat(CWD, home, directory, Mode::empty()).map_err(failed)?;
    trusted(&fstat(&top).map_err(failed)?, home, true)?;
    let mut at = top.try_clone().map_err(|error| missing(program, &error))?;
    let mut shown = home.to_path_buf();
    let (folders, name) = program.rsplit_once('/').unwrap_or(("", program));
    for folder in folders.split('/').filter(|folder| !folder.is_empty()) {
        shown.push(folder);
        at = openat(&at, folder, directory | OFlags::NOFOLLOW, Mode::empty()).map_err(
            |error| match error {
                Errno::LOOP | Errno::NOTDIR => {
                    Denied::Unsafe(format!("`{}` is not a directory of its own", shown.display()))
                }
                other => failed(other),
            },
        )?;
        trusted(&fstat(&at).map_err(failed)?, &shown, true)?;
    }
    shown.push(name);
    // A pipe in its place must not make us wait.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = openat(&at, name, flags, Mode::empty()).map_err(|error| match error {
        Errno::LOOP => Denied::Unsafe(format!("`{program}` is a symbolic link; put the file itself there")),
        Errno::NXIO => Denied::Unsafe(format!("`{program}` is not a regular file")),
        other => failed(other),
    })?;
    let seen = fstat(&file).map_err(failed)?;
    if FileType::from_raw_mode(seen.st_mode) != FileType::RegularFile {
        return Err(Denied::Unsafe(format!("`{program}` is not a regular file")));
    }
    trusted(&seen, &shown, false)?;
    if seen.st_mode & 0o111 == 0 {
        let text = format!("`{program}` is not executable: run `chmod 750 {}`", shown.display());
        return Err(Denied::Unsafe(text));
    }
    let mut file = File::from(file);
    let mut begin = [0; 4];
    let binary = file.read_exact(&mut begin).is_ok() && begin == *b"\x7fELF";
    Ok(Fit { home: top, file, program: program.into(), binary })
}

/// Owner and mode as for everything that root runs.
fn trusted(seen: &Stat, path: &Path, directory: bool) -> Result<(), Denied> {
    let uid = rustix::process::geteuid().as_raw();
    let shown = path.display();
    if seen.st_uid != 0 && seen.st_uid != uid {
        let text = format!("`{shown}` belongs to user {}: run `chown root:wazuh {shown}`", seen.st_uid);
        return Err(Denied::Unsafe(text));
    }
    if seen.st_mode & 0o022 != 0 {
        let mode = seen.st_mode & 0o7777;
        let mend = if directory { "go-w" } else { "750" };
        let text = format!(
            "`{shown}` has mode {mode:04o}, others could change what runs as root: run `chmod {mend} {shown}`"
        );
        return Err(Denied::Unsafe(text));
    }
    Ok(())
}

/// Hash of the running program. Computed once, at start.
///
/// # Errors
/// When `/proc/self/exe` cannot be read.
pub fn self_hash() -> std::io::Result<Hash> {
    hash(&mut File::open("/proc/self/exe")?)
}

fn hash(file: &mut File) -> std::io::Result<Hash> {
    let mut digest = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(digest.finalize().into()),
            count => digest.update(&buffer[..count]),
        }
    }
}

fn missing(program: &str, error: &std::io::Error) -> Denied {
    Denied::Missing(format!("`{program}`: {error}"))
}

const MOST_KNOWN: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_checked_runs_although_its_path_leads_elsewhere_by_then() {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("active-response/bin/tool");
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::copy("/bin/cat", &file).unwrap();
        let fit = fit(home.path(), "active-response/bin/tool").unwrap();
        std::fs::rename(&file, file.with_file_name("gone")).unwrap();
        tld_sys::durable::replace(&file, b"#!/bin/sh\nexit 7\n", 0o755).unwrap();
        let (program, cwd) = (fit.path(), fit.cwd(home.path()));
        let spec = tld_sys::child::Spec { cwd: Some(&cwd), ..tld_sys::child::Spec::new(&program) };
        let ended = tld_sys::child::run_capture(&spec, b"as before", 100, std::time::Duration::from_secs(20));
        assert_eq!(ended.unwrap().stdout, b"as before");
    }

    #[test]
    fn a_pipe_or_a_directory_is_no_file_and_nobody_waits_for_it() {
        let home = tempfile::tempdir().unwrap();
        rustix::fs::mknodat(CWD, home.path().join("pipe"), FileType::Fifo, 0o700.into(), 0).unwrap();
        std::fs::create_dir(home.path().join("folder")).unwrap();
        for name in ["pipe", "folder", "pipe/x"] {
            let denied = fit(home.path(), name).unwrap_err();
            assert!(matches!(denied, Denied::Unsafe(_)), "{name}: {denied:?}");
        }
        assert!(matches!(fit(home.path(), "absent").unwrap_err(), Denied::Missing(_)));
    }
}
