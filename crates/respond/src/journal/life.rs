//! Whether the last life of the journal ended in order. A process that is killed leaves its write-ahead log behind; a journal
//! that is marked as open, without such a log, has lost what was written last: somebody deleted the file, or put back a copy.
//! Invariant: while the mark stands, the log has something in it.

use std::io;
use std::path::{Path, PathBuf};

use rusqlite::Connection;
use tld_sys::durable;

fn mark(journal: &Path) -> PathBuf {
    journal.with_extension("open")
}

/// Marks the journal as open; true when it was so before, and its log is gone. To be asked before the database is opened,
/// which makes a log.
pub(super) fn begin(journal: &Path) -> bool {
    let mark = mark(journal);
    let mut log = journal.as_os_str().to_owned();
    log.push("-wal");
    let has_log = || std::fs::metadata(log).is_ok_and(|log| log.len() > 0);
    let cut = mark.exists() && !has_log();
    // A disk that is full keeps nobody from starting.
    let _: io::Result<()> = durable::replace(&mark, b"", 0o640);
    cut
}

/// Puts something into the log.
pub(super) fn touch(db: &Connection) {
    let lives = db.query_row("PRAGMA user_version", [], |row| row.get::<_, i32>(0)).unwrap_or(0);
    let _ = db.pragma_update(None, "user_version", lives.wrapping_add(1));
}

/// Takes the mark away.
pub(super) fn end(journal: &Path) {
    let _ = std::fs::remove_file(mark(journal));
}
