//! The journal as people see it, read beside a running responder or without one.
//! Invariant: reading never changes the journal and never waits for its writer.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, OptionalExtension as _, Params, Row};
use tld_model::{Order, OrderId, Outcome, Timestamp};

use super::rows::{self, COLUMNS};
use super::{Entry, JournalError, Kind, PATH, State, Trouble};

/// One effect, as shown to people.
#[derive(Debug, Clone)]
pub struct Listed {
    /// The order; its alert is left out.
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
    read(home, |db| {
        let open = format!("SELECT {COLUMNS} FROM effect WHERE state <> 'closed' ORDER BY id");
        let done = format!(
            "SELECT {COLUMNS} FROM effect WHERE state = 'closed' ORDER BY changed DESC LIMIT {closed}"
        );
        let mut all = many(db, &open, [])?;
        if closed > 0 {
            all.extend(many(db, &done, [])?);
        }
        Ok(all)
    })
    .map(Option::unwrap_or_default)
}

/// How many outcomes a manager has not confirmed yet.
///
/// # Errors
/// When the database cannot be read.
pub fn unconfirmed(home: &Path) -> Result<usize, JournalError> {
    let count = read(home, |db| {
        let count: i64 = db.query_row("SELECT count(*) FROM untold", [], |row| row.get(0))?;
        Ok(usize::try_from(count).unwrap_or(0))
    });
    count.map(Option::unwrap_or_default)
}

/// The newest effects, at most `most`, whose order has this id or whose target shows as `target`.
///
/// # Errors
/// When the database cannot be read. Single unreadable rows are left out.
pub fn about(home: &Path, target: &str, most: usize) -> Result<Vec<Listed>, JournalError> {
    read(home, |db| {
        // The text of the order is the cheap first look; what it names is then compared exactly.
        let sql = format!(
            "SELECT {COLUMNS} FROM effect WHERE order_id = ?1 OR instr(order_json, ?1) > 0 OR instr(key, ?1) > 0
             ORDER BY (state = 'closed'), id DESC"
        );
        let mut all = many(db, &sql, [target])?;
        all.retain(|one| one.concerns(target));
        all.truncate(most);
        Ok(all)
    })
    .map(Option::unwrap_or_default)
}

impl Listed {
    /// Whom or what it is about, for people: a file or a process is only named by the key.
    #[must_use]
    pub fn shown_target(&self) -> String {
        let base = self.program.rsplit('/').next().unwrap_or_default();
        match self.key.as_deref().and_then(|key| key.strip_prefix(base)?.strip_prefix('-')) {
            Some(key) if self.order.target == tld_model::Target::None => key.to_owned(),
            _ => self.order.target.to_string(),
        }
    }

    /// Whether it is about this order, address, account or file.
    fn concerns(&self, target: &str) -> bool {
        let of_outcome = self.outcome.as_ref().is_some_and(|outcome| outcome.target.to_string() == target);
        let of_key = || {
            let base = self.program.rsplit('/').next().unwrap_or_default();
            let keys = self.key.as_deref().and_then(|key| key.strip_prefix(base)?.strip_prefix('-'));
            keys.is_some_and(|keys| keys.split([' ', '-']).next() == Some(target) || keys == target)
        };
        self.order.id.0 == target || self.order.target.to_string() == target || of_outcome || of_key()
    }
}

/// How many effects are not closed.
///
/// # Errors
/// When the database cannot be read.
pub fn count(home: &Path) -> Result<u64, JournalError> {
    let counted = read(home, |db| {
        let sql = "SELECT count(*) FROM effect WHERE state <> 'closed'";
        Ok(db.query_row(sql, [], |row| row.get::<_, i64>(0))?)
    })?;
    Ok(counted.map_or(0, i64::unsigned_abs))
}

/// The row of one order below `home`, whatever its state.
///
/// # Errors
/// When the database or the row cannot be read.
pub fn find(home: &Path, order: &OrderId) -> Result<Option<Listed>, JournalError> {
    let found = read(home, |db| {
        let sql = format!("SELECT {COLUMNS} FROM effect WHERE order_id = ?1");
        db.query_row(&sql, [&order.0], |row| Ok(rows::entry(row))).optional()?.transpose()
    })?;
    Ok(found.flatten().map(Listed::from))
}

/// Opens the journal, if there is one, for one look.
fn read<T>(
    home: &Path,
    look: impl FnOnce(&Connection) -> Result<T, Trouble>,
) -> Result<Option<T>, JournalError> {
    let path = home.join(PATH);
    if is_absent(&path)? {
        return Ok(None);
    }
    let looked = || {
        let db = Connection::open_with_flags(&path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        db.busy_timeout(Duration::from_secs(5))?;
        look(&db)
    };
    looked().map(Some).map_err(|trouble| trouble.at(&path))
}

fn many(db: &Connection, sql: &str, with: impl Params) -> Result<Vec<Listed>, Trouble> {
    let mut query = db.prepare(sql)?;
    let rows = query.query_map(with, |row: &Row<'_>| Ok(rows::entry(row)))?;
    let mut all = Vec::new();
    for row in rows {
        all.extend(row?.ok().map(Listed::from));
    }
    Ok(all)
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
