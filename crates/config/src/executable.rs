//! From the name in `<executable>` to the file that runs.
//!
//! A name is given with or without its extension; without one, exactly one file may answer. Invariant: the
//! result lies directly in the directory given, and leftovers of editors and packages never answer.

use std::io;
use std::path::{Path, PathBuf};

/// Entries of the directory that are looked at.
const MAX_ENTRIES: usize = 10_000;
/// Endings of leftovers.
const LEFTOVERS: &[&str] = &["~", ".bak", ".orig", ".rpmsave"];

/// Why a name leads to no file.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    /// The name is empty, leaves the directory or holds control characters.
    #[error("`{name}` is not the bare name of a file")]
    Name {
        /// The name.
        name: String,
    },
    /// No file answers to the name.
    #[error("no executable `{name}` in `{}`", dir.display())]
    NotFound {
        /// The name.
        name: String,
        /// The directory.
        dir: PathBuf,
    },
    /// Several files answer to the name.
    #[error("`{name}` may be {}; give the extension", quoted(candidates))]
    Ambiguous {
        /// The name.
        name: String,
        /// The files, sorted.
        candidates: Vec<String>,
    },
    /// The directory cannot be read.
    #[error("cannot read `{}`", dir.display())]
    Read {
        /// The directory.
        dir: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// Finds the file of a name: the exact name first, else the one executable file with any extension.
pub fn resolve(dir: &Path, name: &str) -> Result<PathBuf, ResolveError> {
    if is_unsafe(name) {
        return Err(ResolveError::Name { name: name.to_owned() });
    }
    let exact = dir.join(name);
    if std::fs::metadata(&exact).is_ok_and(|m| m.is_file()) {
        return Ok(exact);
    }
    let entries = std::fs::read_dir(dir).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => ResolveError::NotFound { name: name.to_owned(), dir: dir.to_owned() },
        _ => ResolveError::Read { dir: dir.to_owned(), source },
    })?;
    let mut candidates: Vec<String> = entries
        .take(MAX_ENTRIES)
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|file| answers(file, name) && is_executable(&dir.join(file), file))
        .collect();
    candidates.sort();
    match candidates.as_slice() {
        [] => Err(ResolveError::NotFound { name: name.to_owned(), dir: dir.to_owned() }),
        [one] => Ok(dir.join(one)),
        _ => Err(ResolveError::Ambiguous { name: name.to_owned(), candidates }),
    }
}

/// Names that could leave the directory or break a line of `ar.conf`.
pub(crate) fn is_unsafe(name: &str) -> bool {
    let special = name.is_empty() || name == "." || name == "..";
    special || name.contains(['/', '\\']) || name.chars().any(char::is_control)
}

fn answers(file: &str, name: &str) -> bool {
    if LEFTOVERS.iter().any(|end| file.ends_with(end)) {
        return false;
    }
    let Some((stem, extension)) = file.rsplit_once('.') else { return false };
    if extension.starts_with("dpkg-") {
        return false;
    }
    if cfg!(windows) { stem.eq_ignore_ascii_case(name) } else { stem == name }
}

#[cfg(unix)]
fn is_executable(path: &Path, _file: &str) -> bool {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
}

#[cfg(not(unix))]
fn is_executable(path: &Path, file: &str) -> bool {
    let lower = file.to_ascii_lowercase();
    let runs = [".exe", ".bat", ".cmd", ".ps1"].iter().any(|end| lower.ends_with(end));
    runs && std::fs::metadata(path).is_ok_and(|m| m.is_file())
}

fn quoted(names: &[String]) -> String {
    let names: Vec<String> = names.iter().map(|n| format!("`{n}`")).collect();
    names.join(" or ")
}
