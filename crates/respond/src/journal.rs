//! What this endpoint was told, has done and still has to undo, in `var/threatlockdown/journal.db` (SQLite, WAL,
//! `synchronous=FULL`). One process writes, under a lock; everybody may read.
//! Invariant: [`Journal::write`] returns only after its steps are on the disk, all of them or none.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, OptionalExtension as _, Row, params};
use tld_model::{Order, OrderId, Outcome, Timestamp};
use tld_sys::durable::{self, FileLock};

use crate::escalation::Offender;

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
    #[error("another responder holds `{path}`")]
    Held {
        /// Lock file.
        path: PathBuf,
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
    #[error("journal database: {0}")]
    Database(#[from] rusqlite::Error),
    /// A row does not hold what this version writes.
    #[error("journal row {id} is not readable: {why}")]
    Unreadable {
        /// Row.
        id: i64,
        /// What is wrong.
        why: String,
    },
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
    pub(crate) order: Order,
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
    pub(crate) changed: Timestamp,
}

/// One change. The steps of one [`Journal::write`] become durable together.
#[derive(Debug)]
pub(crate) enum Step {
    /// A new order.
    Insert(Box<Entry>),
    /// An effect moves on; the row is set to these values.
    Advance {
        id: i64,
        state: State,
        key: Option<String>,
        until: Option<Until>,
        length: u64,
        attempts: u32,
        failed: bool,
        prior: Option<String>,
    },
    /// What was reported last.
    Report { id: i64, outcome: Box<Outcome> },
    /// A block of this key ended.
    Offend { key: String, offender: Offender },
}

/// The one writer.
#[derive(Debug)]
pub(crate) struct Journal {
    db: Connection,
    boot_id: String,
    next: i64,
    _lock: FileLock,
}

impl Journal {
    /// Opens or creates the journal below `home` and takes its lock.
    pub(crate) fn open(home: &Path, boot_id: &str) -> Result<Self, JournalError> {
        let path = home.join(PATH);
        let directory = home.join(DIRECTORY);
        durable::create_dirs(&directory, 0o750)
            .map_err(|source| JournalError::Directory { path: directory.clone(), source })?;
        let lock_path = directory.join("journal.lock");
        let lock = take_lock(&lock_path)?;
        let db = Connection::open(&path)?;
        db.pragma_update(None, "journal_mode", "WAL")?;
        db.pragma_update(None, "synchronous", "FULL")?;
        db.busy_timeout(Duration::from_secs(5))?;
        db.execute_batch(include_str!("schema.sql"))?;
        // Journals of the first builds lack this column.
        if db.prepare("SELECT prior FROM effect LIMIT 0").is_err() {
            db.execute_batch("ALTER TABLE effect ADD COLUMN prior TEXT")?;
        }
        db.set_prepared_statement_cache_capacity(32);
        let next = db.query_row("SELECT coalesce(max(id), 0) + 1 FROM effect", [], |row| row.get(0))?;
        Ok(Self { db, boot_id: boot_id.into(), next, _lock: lock })
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
        let tx = self.db.transaction()?;
        for step in steps {
            write_step(&tx, step, &self.boot_id, now)?;
        }
        Ok(tx.commit()?)
    }

    /// All effects that are not closed, in the order they came.
    pub(crate) fn live(&self) -> Result<Vec<Result<Entry, JournalError>>, JournalError> {
        let sql = format!("SELECT {COLUMNS} FROM effect WHERE state <> 'closed' ORDER BY id");
        entries(&self.db, &sql)
    }

    /// The row of an order, whatever its state.
    pub(crate) fn of_order(&self, order: &OrderId) -> Result<Option<Entry>, JournalError> {
        let sql = format!("SELECT {COLUMNS} FROM effect WHERE order_id = ?1");
        let mut query = self.db.prepare_cached(&sql)?;
        query.query_row([&order.0], |row| Ok(entry(row))).optional()?.transpose()
    }

    /// The order of a row.
    pub(crate) fn order(&self, id: i64) -> Result<Order, JournalError> {
        let mut query = self.db.prepare_cached("SELECT order_json FROM effect WHERE id = ?1")?;
        let json: String = query.query_row([id], |row| row.get(0))?;
        serde_json::from_str(&json).map_err(|error| JournalError::Unreadable { id, why: error.to_string() })
    }

    /// What is remembered of a key.
    pub(crate) fn offender(&self, key: &str) -> Result<Option<Offender>, JournalError> {
        let mut query = self.db.prepare_cached("SELECT count, ended, length FROM offender WHERE key = ?1")?;
        let found = query.query_row([key], |row| {
            let ended = Timestamp::from_nanos(row.get(1)?);
            Ok(Offender { count: row.get(0)?, ended, length: row.get::<_, i64>(2)?.unsigned_abs() })
        });
        Ok(found.optional()?)
    }

    /// Forgets closed effects older than a week, and all but the newest of what is kept only for memory.
    pub(crate) fn prune(&mut self, now: Timestamp) -> Result<(), JournalError> {
        let oldest = now.nanos().saturating_sub(KEEP.as_nanos() as i64);
        let tx = self.db.transaction()?;
        tx.execute("DELETE FROM effect WHERE state = 'closed' AND changed < ?1", [oldest])?;
        tx.execute(
            "DELETE FROM effect WHERE state = 'closed' AND id IN
               (SELECT id FROM effect WHERE state = 'closed' ORDER BY changed DESC LIMIT -1 OFFSET ?1)",
            [MOST_CLOSED],
        )?;
        tx.execute(
            "DELETE FROM offender WHERE key IN
               (SELECT key FROM offender ORDER BY ended DESC LIMIT -1 OFFSET ?1)",
            [MOST_OFFENDERS],
        )?;
        Ok(tx.commit()?)
    }
}

/// One effect, as shown to people.
#[derive(Debug, Clone)]
pub struct Listed {
    /// The order.
    pub order: Order,
    /// Executable relative to the home.
    pub program: String,
    /// Who acts.
    pub kind: Kind,
    /// Where it stands.
    pub state: State,
    /// Its key, once known.
    pub key: Option<String>,
    /// When it ends by the wall clock as last computed; none = no end, or not begun.
    pub until: Option<Timestamp>,
    /// What was reported last.
    pub outcome: Option<Outcome>,
    /// When it last moved.
    pub changed: Timestamp,
}

/// What the journal below `home` holds that is not closed, read without disturbing a running responder; with
/// `closed`, also the newest `closed` finished ones. An absent journal is an empty one.
///
/// # Errors
/// When the database cannot be read. Single unreadable rows are left out.
pub fn list(home: &Path, closed: u32) -> Result<Vec<Listed>, JournalError> {
    let path = home.join(PATH);
    if is_absent(&path)? {
        return Ok(Vec::new());
    }
    let db = Connection::open_with_flags(&path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    db.busy_timeout(Duration::from_secs(5))?;
    let open = format!("SELECT {COLUMNS} FROM effect WHERE state <> 'closed' ORDER BY id");
    let done =
        format!("SELECT {COLUMNS} FROM effect WHERE state = 'closed' ORDER BY changed DESC LIMIT {closed}");
    let rows = entries(&db, &open)?.into_iter().chain(entries(&db, &done)?);
    Ok(rows.flatten().map(Listed::from).collect())
}

/// The row of one order below `home`, whatever its state.
///
/// # Errors
/// When the database or the row cannot be read.
pub fn find(home: &Path, order: &OrderId) -> Result<Option<Listed>, JournalError> {
    let path = home.join(PATH);
    if is_absent(&path)? {
        return Ok(None);
    }
    let db = Connection::open_with_flags(&path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    db.busy_timeout(Duration::from_secs(5))?;
    let sql = format!("SELECT {COLUMNS} FROM effect WHERE order_id = ?1");
    let found = db.query_row(&sql, [&order.0], |row| Ok(entry(row))).optional()?.transpose()?;
    Ok(found.map(Listed::from))
}

/// Whether there is no journal. One that may not be looked at is not an empty one.
fn is_absent(path: &Path) -> Result<bool, JournalError> {
    let there = path.try_exists();
    there.map(|there| !there).map_err(|source| JournalError::Unseen { path: path.into(), source })
}

impl From<Entry> for Listed {
    fn from(entry: Entry) -> Self {
        Self {
            order: entry.order,
            program: entry.program,
            kind: entry.kind,
            state: entry.state,
            key: entry.key,
            until: entry.until.map(|until| until.wall),
            outcome: entry.outcome,
            changed: entry.changed,
        }
    }
}

/// Waits a moment for the lock: a child that our predecessor was just starting holds it between its fork and exec.
fn take_lock(path: &Path) -> Result<FileLock, JournalError> {
    for _ in 0..LOCK_TRIES {
        let held =
            durable::try_lock(path).map_err(|source| JournalError::Lock { path: path.into(), source })?;
        match held {
            Some(lock) => return Ok(lock),
            None => std::thread::sleep(LOCK_PAUSE),
        }
    }
    Err(JournalError::Held { path: path.into() })
}

fn write_step(db: &Connection, step: &Step, boot_id: &str, now: Timestamp) -> Result<(), JournalError> {
    match step {
        Step::Insert(entry) => insert(db, entry, boot_id, now)?,
        Step::Advance { id, state, key, until, length, attempts, failed, prior } => {
            let (boot, wall) = columns(*until);
            db.prepare_cached(
                "UPDATE effect SET state = ?2, key = ?3, boot_id = ?4, until_boot = ?5, until_wall = ?6,
                 length = ?7, attempts = ?8, failed = ?9, changed = ?10, prior = ?11 WHERE id = ?1",
            )?
            .execute(params![
                id,
                state.name(),
                key,
                boot_id,
                boot,
                wall,
                length.cast_signed(),
                attempts,
                failed,
                now.nanos(),
                prior
            ])?;
        }
        Step::Report { id, outcome } => {
            db.prepare_cached("UPDATE effect SET outcome = ?2 WHERE id = ?1")?
                .execute(params![id, json(*id, outcome)?])?;
        }
        Step::Offend { key, offender } => {
            db.prepare_cached(
                "INSERT OR REPLACE INTO offender (key, count, ended, length) VALUES (?1, ?2, ?3, ?4)",
            )?
            .execute(params![
                key,
                offender.count,
                offender.ended.nanos(),
                offender.length.cast_signed()
            ])?;
        }
    }
    Ok(())
}

fn insert(db: &Connection, entry: &Entry, boot_id: &str, now: Timestamp) -> Result<(), JournalError> {
    let (boot, wall) = columns(entry.until);
    let outcome = entry.outcome.as_ref().map(|outcome| json(entry.id, outcome)).transpose()?;
    db.prepare_cached(
        "INSERT INTO effect (id, order_id, order_json, program, kind, state, key, boot_id, until_boot, until_wall,
         length, attempts, failed, outcome, changed, prior)
         VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12,?13,?14,?15,?16)
         ON CONFLICT (order_id) DO NOTHING",
    )?
    .execute(params![
        entry.id,
        entry.order.id.0,
        json(entry.id, &entry.order)?,
        entry.program,
        entry.kind.name(),
        entry.state.name(),
        entry.key,
        boot_id,
        boot,
        wall,
        entry.length.cast_signed(),
        entry.attempts,
        entry.failed,
        outcome,
        now.nanos(),
        entry.prior
    ])?;
    Ok(())
}

fn json(id: i64, value: &impl serde::Serialize) -> Result<String, JournalError> {
    serde_json::to_string(value).map_err(|error| JournalError::Unreadable { id, why: error.to_string() })
}

fn columns(until: Option<Until>) -> (Option<i64>, Option<i64>) {
    let boot = until.map(|until| i64::try_from(until.boot.as_nanos()).unwrap_or(i64::MAX));
    (boot, until.map(|until| until.wall.nanos()))
}

fn entries(db: &Connection, sql: &str) -> Result<Vec<Result<Entry, JournalError>>, JournalError> {
    let mut query = db.prepare(sql)?;
    let rows = query.query_map([], |row| Ok(entry(row)))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn entry(row: &Row<'_>) -> Result<Entry, JournalError> {
    let id: i64 = row.get("id")?;
    let unreadable = |why: String| JournalError::Unreadable { id, why };
    let order: String = row.get("order_json")?;
    let state: String = row.get("state")?;
    let kind: String = row.get("kind")?;
    let outcome: Option<String> = row.get("outcome")?;
    let boot: Option<i64> = row.get("until_boot")?;
    let wall: Option<i64> = row.get("until_wall")?;
    Ok(Entry {
        id,
        order: serde_json::from_str(&order).map_err(|error| unreadable(error.to_string()))?,
        program: row.get("program")?,
        kind: if kind == Kind::Action.name() { Kind::Action } else { Kind::Script },
        state: State::parse(&state).ok_or_else(|| unreadable(format!("state `{state}`")))?,
        key: row.get("key")?,
        boot_id: row.get("boot_id")?,
        until: boot.zip(wall).map(|(boot, wall)| Until {
            boot: Duration::from_nanos(u64::try_from(boot).unwrap_or(0)),
            wall: Timestamp::from_nanos(wall),
        }),
        length: row.get::<_, i64>("length")?.unsigned_abs(),
        attempts: row.get("attempts")?,
        failed: row.get("failed")?,
        prior: row.get("prior")?,
        outcome: outcome.and_then(|text| serde_json::from_str(&text).ok()),
        changed: Timestamp::from_nanos(row.get("changed")?),
    })
}

const DIRECTORY: &str = "var/threatlockdown";
const PATH: &str = "var/threatlockdown/journal.db";
const COLUMNS: &str = "id, order_json, program, kind, state, key, boot_id, until_boot, until_wall, length, attempts, \
                       failed, outcome, changed, prior";
const KEEP: Duration = Duration::from_secs(7 * 86_400);
const MOST_CLOSED: i64 = 200_000;
const MOST_OFFENDERS: i64 = 100_000;
const LOCK_TRIES: u32 = 50;
const LOCK_PAUSE: Duration = Duration::from_millis(20);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_journal_that_cannot_be_looked_at_is_not_an_empty_one() {
        let home = tempfile::tempdir().unwrap();
        assert!(list(home.path(), 0).unwrap().is_empty());
        // What a missing right does to others, this does to root too.
        durable::replace(&home.path().join("var"), b"", 0o600).unwrap();
        assert!(matches!(list(home.path(), 0), Err(JournalError::Unseen { .. })));
    }
}
