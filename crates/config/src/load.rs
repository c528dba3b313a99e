//! Finding and reading `etc/ossec.conf`.
//!
//! Only regular files are read, and only up to a limit: a pipe or a device under that name must not
//! hang a start.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use tld_xml::Source;

use crate::parse::{Loaded, parse};
use crate::settings::Role;

const CONFIG_LIMIT: u64 = 16 * 1024 * 1024;

/// The configuration could not be read at all.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file is missing, too large or not readable.
    #[error("cannot read `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// Reads `etc/ossec.conf` below the home, or the given file.
pub fn load(home: &Path, config: Option<&Path>, role: Role) -> Result<Loaded, LoadError> {
    let path = config.map_or_else(|| home.join("etc/ossec.conf"), Path::to_path_buf);
    let text =
        read_file(&path, CONFIG_LIMIT).map_err(|source| LoadError::Read { path: path.clone(), source })?;
    let name = path.strip_prefix(home).unwrap_or(&path).display().to_string();
    Ok(parse(&Source::new(name, text), role))
}

/// A whole regular file of at most `limit` bytes.
pub(crate) fn read_file(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    if !std::fs::metadata(path)?.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    let mut text = Vec::new();
    let mut file = File::open(path)?.take(limit + 1);
    #[expect(clippy::disallowed_methods, reason = "limited by take")]
    file.read_to_end(&mut text)?;
    if text.len() as u64 > limit {
        return Err(io::Error::other(format!("larger than {limit} bytes")));
    }
    Ok(text)
}
