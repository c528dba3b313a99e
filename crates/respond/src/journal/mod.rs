//! What this endpoint was told, has done and still has to undo, in `var/threatlockdown/journal.db` (SQLite, WAL,
//! `synchronous=FULL`). One process writes, under a lock; everybody may read.
//! Invariant: [`Journal::write`] returns only after its steps are on the disk, all of them or none.

mod checkpoint;
mod life;
mod read;
mod rows;
#[cfg(test)]
mod tests;

pub use read::{Listed, about, count, find, list, unconfirmed};

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OptionalExtension as _, Row};
use tld_model::{Order, OrderId, Outcome, OutcomeKind, RawJson, Timestamp};
use tld_sys::clock::{Clock as _, SystemClock};
use tld_sys::durable::{self, FileLock};

use crate::escalation::Offender;
use checkpoint::Checkpointer;
use rows::{COLUMNS, LEAN};

/// The journal cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The directory cannot be made.
    #[error("cannot create `{path}`")]
    Directory {
        /// Directory.
        path: PathBuf,
        /// Reason.
        source: std::io::Error,
    },
    /// The lock file cannot be opened.
    #[error("cannot lock `{path}`")]
    Lock {
        /// Lock file.
        path: PathBuf,
        /// Reason.
        source: std::io::Error,
    },
    /// Another process is the responder of this home.
    #[error("{} holds `{path}`", holder(*pid))]
    Held {
        /// Lock file.
        path: PathBuf,
        /// That process, if it said so.
        pid: Option<u32>,
    },
    /// It cannot be told whether there is a journal.
    #[error("cannot look at `{path}`; run as root")]
    Unseen {
        /// Journal.
        path: PathBuf,
        /// Reason.
        source: std::io::Error,
    },
    /// The database refuses.
    #[error("journal `{path}`")]
    Database {
        /// Journal.
        path: PathBuf,
        /// Reason.
        source: rusqlite::Error,
    },
    /// A row does not hold what this version writes.
    #[error("row {id} of the journal `{path}` is not readable: {why}")]
    Unreadable {
        /// Journal.
        path: PathBuf,
        /// Row.
        id: i64,
        /// What is wrong.
        why: String,
    },
    /// A damaged journal cannot be moved out of the way.
    #[error("cannot set the damaged journal `{path}` aside")]
    Aside {
        /// Journal.
        path: PathBuf,
        /// Reason.
        source: std::io::Error,
    },
}

fn holder(pid: Option<u32>) -> String {
    pid.map_or_else(|| "another responder".into(), |pid| format!("the running responder (process {pid})"))
}

impl JournalError {
    /// With the reason, for a log line.
    pub(crate) fn in_full(&self) -> String {
        let source = std::error::Error::source(self).map(|source| format!(": {source}"));
        format!("{self}{}", source.unwrap_or_default())
    }

    /// Whether the file does not hold a journal any more.
    pub(crate) fn is_damage(&self) -> bool {
        let Self::Database { source, .. } = self else { return false };
        matches!(source.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
    }
}

/// What goes wrong inside, before it is known which file it was.
#[derive(Debug)]
enum Trouble {
    Sql(rusqlite::Error),
    Unreadable { id: i64, why: String },
}

impl From<rusqlite::Error> for Trouble {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sql(error)
    }
}

impl Trouble {
    fn at(self, path: &Path) -> JournalError {
        let path = path.to_owned();
        match self {
            Self::Sql(source) => JournalError::Database { path, source },
            Self::Unreadable { id, why } => JournalError::Unreadable { path, id, why },
        }
    }
}

/// Where an effect stands. The names are the journal's text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Known, nothing begun.
    Accepted,
    /// Begun; it may or may not be in place.
    Applying,
    /// In place until its end.
    Active,
    /// The undo has begun.
    Reverting,
    /// Nothing left to do.
    Closed,
}

impl State {
    /// The journal's word.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Applying => "applying",
            Self::Active => "active",
            Self::Reverting => "reverting",
            Self::Closed => "closed",
        }
    }

    fn parse(name: &str) -> Option<Self> {
        let every = [Self::Accepted, Self::Applying, Self::Active, Self::Reverting, Self::Closed];
        every.into_iter().find(|state| state.name() == name)
    }
}

/// Who acts: our own code or an operator's file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// An action of this program.
    Action,
    /// A file that is executed.
    Script,
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::Action => "action",
            Self::Script => "script",
        }
    }
}

/// An end, on both clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Until {
    pub(crate) boot: Duration,
    pub(crate) wall: Timestamp,
}

/// One row.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) id: i64,
    /// Without its alert.
    pub(crate) order: Order,
    /// The alert of a new row; rows are read without it.
    pub(crate) alert: Option<RawJson>,
    pub(crate) program: String,
    pub(crate) kind: Kind,
    pub(crate) state: State,
    pub(crate) key: Option<String>,
    pub(crate) boot_id: Option<String>,
    pub(crate) until: Option<Until>,
    pub(crate) length: u64,
    pub(crate) attempts: u32,
    pub(crate) failed: bool,
    pub(crate) prior: Option<String>,
    pub(crate) outcome: Option<Outcome>,
    /// Whether there is one; rows of what is open are read without it.
    pub(crate) told: bool,
    pub(crate) changed: Timestamp,
}

/// One change. The steps of one [`Journal::write`] become durable together.
#[derive(Debug)]
pub(crate) enum Step {
    /// A new order.
    Insert(Box<Entry>),
    /// An effect moves on; the row is set to these values, but keeps its outcome where none is given.
    Advance {
        id: i64,
        state: State,
        key: Option<String>,
        until: Option<Until>,
        length: u64,
        attempts: u32,
        failed: bool,
        prior: Option<String>,
        outcome: Option<Box<Outcome>>,
    },
    /// What was reported last.
    Report { id: i64, outcome: Box<Outcome> },
    /// A block of this key ended.
    Offend { key: String, offender: Offender },
    /// An outcome that a manager has to confirm.
    Untold(Box<Outcome>),
    /// The manager has confirmed it.
    Told { order: OrderId, kind: OutcomeKind },
}

/// The one writer.
#[derive(Debug)]
pub(crate) struct Journal {
    /// Ends before the writer's connection is closed, which then tidies up.
    checkpointer: Option<Checkpointer>,
    db: Connection,
    path: PathBuf,
    boot_id: String,
    next: i64,
    /// The file was there before.
    found: bool,
    /// It lacks what was written last before it was opened.
    cut: bool,
    _lock: FileLock,
}

impl Drop for Journal {
    fn drop(&mut self) {
        life::end(&self.path);
    }
}

impl Journal {
    /// Opens or creates the journal below `home` and takes its lock. A damaged one is set aside; the second value then
    /// says so.
    pub(crate) fn open(home: &Path, boot_id: &str) -> Result<(Self, Option<String>), JournalError> {
        let path = home.join(PATH);
        let directory = home.join(DIRECTORY);
        durable::create_dirs(&directory, 0o750)
            .map_err(|source| JournalError::Directory { path: directory.clone(), source })?;
        let lock = take_lock(&directory.join("journal.lock"))?;
        let (found, cut) = (path.exists(), life::begin(&path));
        let (opened, damage) = match connect(&path).map_err(|trouble| trouble.at(&path)) {
            Err(error) if error.is_damage() => {
                let aside = set_aside(&path)?;
                let damage = damage(&error, &aside);
                (connect(&path).map_err(|trouble| trouble.at(&path)), Some(damage))
            }
            opened => (opened, None),
        };
        let (db, next) = opened?;
        life::touch(&db);
        let checkpointer = Some(Checkpointer::start(&path));
        Ok((Self { checkpointer, db, path, boot_id: boot_id.into(), next, found, cut, _lock: lock }, damage))
    }

    /// Puts an empty journal in place of this one, which `error` shows to be damaged. Returns what to say about it.
    pub(crate) fn start_afresh(&mut self, error: &JournalError) -> Result<String, JournalError> {
        let at = |trouble: Trouble| trouble.at(&self.path);
        self.checkpointer = None;
        // Closes the damaged one, so that nothing of it is written back behind the rename.
        self.db = Connection::open_in_memory().map_err(|error| at(error.into()))?;
        let aside = set_aside(&self.path)?;
        let (db, next) = connect(&self.path).map_err(at)?;
        (self.db, self.next, self.cut) = (db, next, false);
        life::touch(&self.db);
        self.checkpointer = Some(Checkpointer::start(&self.path));
        Ok(damage(error, &aside))
    }

    /// Whether it was there when it was opened and knows nothing: it may have lost what was written last.
    pub(crate) fn is_blank(&self) -> bool {
        self.found && self.next <= 1
    }

    /// Whether it lost its log, with what was written last.
    pub(crate) fn is_cut(&self) -> bool {
        self.cut
    }

    /// A number for a new row.
    pub(crate) fn fresh_id(&mut self) -> i64 {
        self.next += 1;
        self.next - 1
    }

    /// Makes all `steps` durable.
    pub(crate) fn write(&mut self, steps: &[Step], now: Timestamp) -> Result<(), JournalError> {
        if steps.is_empty() {
            return Ok(());
        }
        let Self { db, boot_id, path, checkpointer, .. } = self;
        let mut written = || {
            let tx = db.transaction()?;
            for step in steps {
                rows::write(&tx, step, boot_id, now)?;
            }
            Ok(tx.commit()?)
        };
        written().map_err(|trouble: Trouble| trouble.at(path))?;
        if let Some(checkpointer) = checkpointer {
            checkpointer.written(steps.len());
        }
        Ok(())
    }

    /// The effects behind `after` that are not closed, in the order they came, at most `most`.
    pub(crate) fn live(
        &self,
        after: i64,
        most: usize,
    ) -> Result<Vec<Result<Entry, JournalError>>, JournalError> {
        let sql =
            format!("SELECT {LEAN} FROM effect WHERE state <> 'closed' AND id > ?1 ORDER BY id LIMIT ?2");
        let all = || {
            let mut query = self.db.prepare_cached(&sql)?;
            let most = i64::try_from(most).unwrap_or(i64::MAX);
            let rows = query.query_map([after, most], |row: &Row<'_>| {
                Ok(rows::entry(row).map_err(|trouble| trouble.at(&self.path)))
            })?;
            Ok(rows.collect::<Result<Vec<_>, _>>()?)
        };
        all().map_err(|trouble: Trouble| trouble.at(&self.path))
    }

    /// The row of an order, whatever its state.
    pub(crate) fn of_order(&self, order: &OrderId) -> Result<Option<Entry>, JournalError> {
        let sql = format!("SELECT {COLUMNS} FROM effect WHERE order_id = ?1");
        let found = || {
            let mut query = self.db.prepare_cached(&sql)?;
            query.query_row([&order.0], |row| Ok(rows::entry(row))).optional()?.transpose()
        };
        found().map_err(|trouble: Trouble| trouble.at(&self.path))
    }

    /// The number of an order's row.
    pub(crate) fn id_of(&self, order: &OrderId) -> Result<Option<i64>, JournalError> {
        let found = || {
            let mut query = self.db.prepare_cached("SELECT id FROM effect WHERE order_id = ?1")?;
            Ok(query.query_row([&order.0], |row| row.get(0)).optional()?)
        };
        found().map_err(|trouble: Trouble| trouble.at(&self.path))
    }

    /// The order of a row with its alert.
    pub(crate) fn order(&self, id: i64) -> Result<Order, JournalError> {
        let read = || {
            let mut query = self.db.prepare_cached(
                "SELECT order_json, text FROM effect LEFT JOIN alert USING (id) WHERE effect.id = ?1",
            )?;
            let (order, alert): (String, Option<String>) =
                query.query_row([id], |row| Ok((row.get(0)?, row.get(1)?)))?;
            let mut order = rows::order(id, &order)?;
            if let Some(text) = alert {
                order.alert = rows::alert(id, text)?;
            }
            Ok(order)
        };
        read().map_err(|trouble: Trouble| trouble.at(&self.path))
    }

    /// Makes many reads cheap while it is held: each alone would lock the file and let it go. Nothing can be written
    /// meanwhile.
    pub(crate) fn reading(&self) -> Option<rusqlite::Transaction<'_>> {
        self.db.unchecked_transaction().ok()
    }

    /// Makes the reads that follow cheap, until [`Journal::end_reading`], which must come before the next write.
    pub(crate) fn begin_reading(&self) {
        // Reads work without it, only slower.
        let _ = self.db.execute_batch("BEGIN");
    }

    /// See [`Journal::begin_reading`].
    pub(crate) fn end_reading(&self) {
        if !self.db.is_autocommit() {
            // Nothing was written, so nothing can be lost.
            let _ = self.db.execute_batch("ROLLBACK");
        }
    }

    /// Outcomes that were not confirmed, the oldest first.
    pub(crate) fn untold(&self) -> Result<Vec<Outcome>, JournalError> {
        let read = || {
            let mut query = self.db.prepare_cached("SELECT outcome FROM untold ORDER BY rowid LIMIT ?1")?;
            let texts = query.query_map([MOST_UNTOLD], |row| row.get::<_, String>(0))?;
            let texts = texts.collect::<Result<Vec<_>, _>>()?;
            // What an earlier build wrote and this one cannot read is nothing that it could report.
            Ok(texts.iter().filter_map(|text| serde_json::from_str(text).ok()).collect())
        };
        read().map_err(|trouble: Trouble| trouble.at(&self.path))
    }

    /// What is remembered of a key.
    pub(crate) fn offender(&self, key: &str) -> Result<Option<Offender>, JournalError> {
        let found = || {
            let mut query =
                self.db.prepare_cached("SELECT count, ended, length FROM offender WHERE key = ?1")?;
            let found = query.query_row([key], |row| {
                let ended = Timestamp::from_nanos(row.get(1)?);
                Ok(Offender { count: row.get(0)?, ended, length: row.get::<_, i64>(2)?.unsigned_abs() })
            });
            Ok(found.optional()?)
        };
        found().map_err(|trouble: Trouble| trouble.at(&self.path))
    }

    /// Forgets closed effects that are old, or too many, or too large together, and the oldest of too many repeat
    /// offenders. Does a bounded piece of that work; true when there is more.
    pub(crate) fn prune(&mut self, now: Timestamp) -> Result<bool, JournalError> {
        self.prune_to(now, MOST_CLOSED, MOST_CLOSED_BYTES)
    }

    fn prune_to(&mut self, now: Timestamp, most: u64, bytes: u64) -> Result<bool, JournalError> {
        let Self { db, path, .. } = self;
        let mut pruned = || {
            let tx = db.transaction()?;
            let mut oldest = now.nanos().saturating_sub(i64::try_from(KEEP.as_nanos()).unwrap_or(i64::MAX));
            {
                // Only the index is read: moment and size of each closed row, the newest first.
                let mut query = tx.prepare_cached(
                    "SELECT changed, size FROM effect WHERE state = 'closed' ORDER BY changed DESC",
                )?;
                let mut closed = query.query([])?;
                let (mut count, mut sum) = (0_u64, 0_u64);
                while let Some(row) = closed.next()? {
                    let (changed, size): (i64, i64) = (row.get(0)?, row.get(1)?);
                    (count, sum) = (count + 1, sum.saturating_add(size.unsigned_abs()));
                    if count > most || sum > bytes || changed < oldest {
                        oldest = oldest.max(changed.saturating_add(1));
                        break;
                    }
                }
            }
            let gone = tx.execute(
                "DELETE FROM effect WHERE id IN
                   (SELECT id FROM effect WHERE state = 'closed' AND changed < ?1 ORDER BY changed LIMIT ?2)",
                [oldest, PIECE],
            )?;
            let count: i64 = tx.query_row("SELECT count(*) FROM untold", [], |row| row.get(0))?;
            tx.execute(
                "DELETE FROM untold WHERE rowid IN (SELECT rowid FROM untold ORDER BY rowid LIMIT ?1)",
                [(count - MOST_UNTOLD).clamp(0, PIECE)],
            )?;
            let count: i64 = tx.query_row("SELECT count(*) FROM offender", [], |row| row.get(0))?;
            tx.execute(
                "DELETE FROM offender WHERE key IN (SELECT key FROM offender ORDER BY ended LIMIT ?1)",
                [(count - MOST_OFFENDERS).clamp(0, PIECE)],
            )?;
            tx.commit()?;
            Ok(i64::try_from(gone).is_ok_and(|gone| gone >= PIECE))
        };
        pruned().map_err(|trouble: Trouble| trouble.at(path))
    }

    /// Lets the database hold no more pages than it has now, or any number again: a full disk for tests.
    #[cfg(test)]
    pub(crate) fn set_full(&self, full: bool) {
        let pages: i64 = self.db.query_row("PRAGMA page_count", [], |row| row.get(0)).unwrap();
        let most = if full { pages } else { 1 << 30 };
        self.db
            .query_row(&format!("PRAGMA max_page_count = {most}"), [], |row| row.get::<_, i64>(0))
            .unwrap();
    }
}

/// Opens the database and makes it what this build expects; also tells the number of the next row.
fn connect(path: &Path) -> Result<(Connection, i64), Trouble> {
    let db = Connection::open(path)?;
    db.pragma_update(None, "journal_mode", "WAL")?;
    db.pragma_update(None, "synchronous", "FULL")?;
    db.pragma_update(None, "cache_size", -CACHE_KIB)?;
    db.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
    db.busy_timeout(Duration::from_secs(5))?;
    // Else every new value of a parameter may have its statement parsed again.
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    db.execute_batch(include_str!("schema.sql"))?;
    // Journals of earlier builds lack these columns.
    for (column, kind) in [("prior", "TEXT"), ("size", "INTEGER NOT NULL DEFAULT 0")] {
        if db.prepare(&format!("SELECT {column} FROM effect LIMIT 0")).is_err() {
            db.execute_batch(&format!("ALTER TABLE effect ADD COLUMN {column} {kind}"))?;
        }
    }
    db.execute_batch(include_str!("indexes.sql"))?;
    db.set_prepared_statement_cache_capacity(32);
    let small = std::fs::metadata(path).is_ok_and(|data| data.len() <= CHECKED_BYTES);
    if small {
        let said: String = db.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
        if said != "ok" {
            let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT);
            return Err(Trouble::Sql(rusqlite::Error::SqliteFailure(code, Some(said))));
        }
    }
    let next = db.query_row("SELECT coalesce(max(id), 0) + 1 FROM effect", [], |row| row.get(0))?;
    Ok((db, next))
}

/// Moves the database and what belongs to it out of the way; returns the new path.
fn set_aside(path: &Path) -> Result<PathBuf, JournalError> {
    let stamp = Timestamp::from_nanos(SystemClock.wall_nanos()).secs();
    let with = |suffix: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        PathBuf::from(name)
    };
    let mut bad = with(&format!(".bad-{stamp}"));
    for n in 1..100 {
        if !bad.exists() {
            break;
        }
        bad = with(&format!(".bad-{stamp}-{n}"));
    }
    // The log first: a new database must never find the old one's log.
    for suffix in ["-wal", "-shm", ""] {
        let mut to = bad.as_os_str().to_owned();
        to.push(suffix);
        match std::fs::rename(with(suffix), PathBuf::from(to)) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                return Err(JournalError::Aside { path: path.into(), source });
            }
            _ => {}
        }
    }
    Ok(bad)
}

fn damage(error: &JournalError, aside: &Path) -> String {
    format!(
        "{}: it is damaged and was set aside as `{}`; what it knew beyond the firewall is lost: responses that are \
         files' or accounts' must be undone by hand",
        error.in_full(),
        aside.display()
    )
}

/// Waits a moment for the lock: a child that our predecessor was just starting holds it between its fork and exec.
fn take_lock(path: &Path) -> Result<FileLock, JournalError> {
    let failed = |source| JournalError::Lock { path: path.into(), source };
    for _ in 0..LOCK_TRIES {
        if let Some(lock) = durable::try_lock(path).map_err(failed)? {
            // Who holds it is a courtesy to people; the lock itself is what counts.
            let _ = lock.note(&format!("{}\n", std::process::id()));
            return Ok(lock);
        }
        std::thread::sleep(LOCK_PAUSE);
    }
    let pid = durable::read_bounded(path, 32)
        .ok()
        .and_then(|said| String::from_utf8(said).ok()?.trim().parse().ok());
    Err(JournalError::Held { path: path.into(), pid })
}

const DIRECTORY: &str = "var/threatlockdown";
const PATH: &str = "var/threatlockdown/journal.db";
const KEEP: Duration = Duration::from_secs(7 * 86_400);
const MOST_CLOSED: u64 = 200_000;
const MOST_CLOSED_BYTES: u64 = 256 << 20;
/// Outcomes kept for a manager that never confirms.
const MOST_UNTOLD: i64 = 100_000;
const MOST_OFFENDERS: i64 = 100_000;
/// Rows that one pruning deletes, so that orders never wait long for it.
const PIECE: i64 = 5_000;
const CACHE_KIB: i64 = 16 << 10;
/// Pages of the log at which the writer itself moves them: 128 MiB, which the thread for it should never let gather.
const CHECKPOINT_PAGES: i64 = 32_000;
/// A journal up to this size is checked as a whole at start; that takes a fraction of a second.
const CHECKED_BYTES: u64 = 64 << 20;
const LOCK_TRIES: u32 = 50;
const LOCK_PAUSE: Duration = Duration::from_millis(20);
