//! Which file an order means, whether it is our own program under another name, and whether root may run it.
//! Invariant: a file that anyone but its trusted owner can change is never executed.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use sha2::{Digest as _, Sha256};

use crate::actions::{self, Ours};

/// Content hash of an executable.
pub type Hash = [u8; 32];

/// What stands behind a name in `active-response/bin`.
#[derive(Debug)]
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
        fit(home, program)?;
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

/// Checks owner, mode and type before a file is run (again: it may have changed since its `add`).
pub(crate) fn fit(home: &Path, program: &str) -> Result<(), Denied> {
    let path = home.join(program);
    let seen = path.symlink_metadata().map_err(|error| missing(program, &error))?;
    if !seen.is_file() {
        return Err(Denied::Unsafe(format!("`{program}` is not a regular file")));
    }
    let uid = rustix::process::geteuid().as_raw();
    let shown = path.display();
    if seen.uid() != 0 && seen.uid() != uid {
        let text = format!("`{program}` belongs to user {}: run `chown root:wazuh {shown}`", seen.uid());
        return Err(Denied::Unsafe(text));
    }
    if seen.mode() & 0o022 != 0 {
        let text = format!(
            "`{program}` has mode {:04o}, others could change what runs as root: run `chmod 750 {shown}`",
            seen.mode() & 0o7777
        );
        return Err(Denied::Unsafe(text));
    }
    if seen.mode() & 0o111 == 0 {
        let text = format!("`{program}` is not executable: run `chmod 750 {shown}`");
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
