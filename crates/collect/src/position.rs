//! How far each source has been read, kept over restarts in one small JSON file.
//!
//! Invariant: an offset in here never lies beyond a message that was handed to the channel; so after a crash lines
//! can come twice (those of the last second), but none is left out.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tld_model::Timestamp;
use tld_sys::durable;

/// Version of the file's shape; others are not read.
const VERSION: u32 = 1;
/// Bytes of a file's beginning that take part in its identity.
pub(crate) const HEAD: usize = 256;
const MAX_FILE: usize = 64 * 1024 * 1024;
/// Places of files that have not been seen for so long are forgotten.
const KEEP: Duration = Duration::from_secs(30 * 86_400);

/// One generation of a file: the file itself or, after a rotation, the one that had its name before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Place {
    /// Device number.
    pub(crate) device: u64,
    /// Inode number.
    pub(crate) inode: u64,
    /// Everything before was handed on.
    pub(crate) offset: u64,
    /// Number of leading bytes that the digest covers.
    pub(crate) head: u64,
    /// SHA-256 of these bytes.
    pub(crate) digest: String,
}

/// What is known of one path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stored {
    /// When it was last written down, seconds since the epoch.
    pub(crate) seen: i64,
    /// Oldest first; the last is the file that has the name itself.
    pub(crate) places: Vec<Place>,
}

/// The whole file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Positions {
    version: u32,
    /// By [`key`].
    pub(crate) files: BTreeMap<String, Stored>,
    /// The journal's cursor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) journal: Option<String>,
}

impl Default for Positions {
    fn default() -> Self {
        Self { version: VERSION, files: BTreeMap::new(), journal: None }
    }
}

impl Positions {
    /// Reads the file; a missing one is a first start.
    pub(crate) fn load(path: &Path) -> io::Result<Self> {
        let bytes = match durable::read_bounded(path, MAX_FILE) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(error),
        };
        let positions: Self = serde_json::from_slice(&bytes)?;
        if positions.version != VERSION {
            let text = format!("version {} is not known", positions.version);
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        Ok(positions)
    }

    /// Replaces the file durably.
    pub(crate) fn save(&self, path: &Path) -> io::Result<()> {
        durable::replace(path, &serde_json::to_vec(self)?, 0o640)
    }

    /// Drops what has not been seen for long.
    pub(crate) fn prune(&mut self, now: Timestamp) {
        let oldest = now.secs().saturating_sub(i64::try_from(KEEP.as_secs()).unwrap_or(i64::MAX));
        self.files.retain(|_, stored| stored.seen >= oldest);
    }
}

/// A path as text; different paths have different keys, readable names stay readable.
pub(crate) fn key(path: &Path) -> String {
    match path.to_str() {
        Some(text) => text.to_owned(),
        None => format!("bytes:{}", path.as_os_str().as_bytes().escape_ascii()),
    }
}

/// Digest of a file's beginning.
pub(crate) fn digest(head: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(64);
    for byte in Sha256::digest(head) {
        let written = write!(text, "{byte:02x}");
        debug_assert!(written.is_ok(), "writing to a string");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Positions {
        let mut positions = Positions { journal: Some("s=1;i=2".to_owned()), ..Positions::default() };
        let place = Place { device: 1, inode: 2, offset: u64::MAX, head: 3, digest: digest(b"abc") };
        positions.files.insert("/a".to_owned(), Stored { seen: 1000, places: vec![place] });
        positions
    }

    #[test]
    fn what_is_saved_is_what_is_loaded() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("positions.json");
        assert_eq!(Positions::load(&path).unwrap(), Positions::default());
        sample().save(&path).unwrap();
        assert_eq!(Positions::load(&path).unwrap(), sample());
    }

    #[test]
    fn a_file_of_another_version_or_with_damage_is_an_error() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("positions.json");
        for text in ["{\"version\":2,\"files\":{}}", "{\"version\":1,", ""] {
            durable::replace(&path, text.as_bytes(), 0o600).unwrap();
            assert!(Positions::load(&path).is_err(), "{text}");
        }
    }

    #[test]
    fn files_unseen_for_a_month_are_forgotten() {
        let mut positions = sample();
        positions.prune(Timestamp::from_secs(1000 + 86_400));
        assert_eq!(positions.files.len(), 1);
        positions.prune(Timestamp::from_secs(1000 + 31 * 86_400));
        assert!(positions.files.is_empty());
    }

    #[test]
    fn names_that_are_no_text_have_keys_of_their_own() {
        let odd = std::ffi::OsStr::from_bytes(b"/a\xff");
        assert_eq!(key(Path::new(odd)), "bytes:/a\\xff");
        assert_eq!(key(Path::new("/ä")), "/ä");
    }
}
