//! What the manager ordered and what became of it, in `var/threatlockdown/manager/ledger.db` (SQLite, WAL, `synchronous=FULL`). One
//! thread writes; everybody may read.
//! Invariant: [`Ledger::write`] returns only after its steps are on the disk, all of them or none.

mod draft;
mod listed;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension as _, params};
use tld_model::{AgentId, OrderId, Outcome, OutcomeKind, Timestamp};
use tld_sys::durable;

pub use draft::{Audience, Draft};
pub use listed::{Filter, Listed, list};

/// Below the home.
const PATH: &str = "var/threatlockdown/manager/ledger.db";
/// Closed orders are kept so long,
const KEEP: Duration = Duration::from_secs(30 * 86_400);
/// and only so many of them,
const MOST_CLOSED: i64 = 1_000_000;
/// and only while the file is not larger.
const MOST_BYTES: i64 = 1 << 30;
/// Rows deleted by one call, so that no order waits for the tidying.
const AT_ONCE: i64 = 5_000;
/// Finished orders that a revert looks through for effects without end.
const ENDLESS: i64 = 10_000;
/// How long a reader's lock is waited for.
const PATIENCE: Duration = Duration::from_secs(5);

/// The ledger cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The directory cannot be made.
    #[error("cannot create `{path}`")]
    Directory {
        /// Directory.
        path: PathBuf,
        /// Reason.
        source: std::io::Error,
    },
    /// It cannot be told whether there is a ledger.
    #[error("cannot look at `{path}`; run as root or as the manager's user")]
    Unseen {
        /// Ledger.
        path: PathBuf,
        /// Reason.
        source: std::io::Error,
    },
    /// The database refuses.
    #[error("cannot use the ledger: {0}")]
    Database(#[from] rusqlite::Error),
    /// A value cannot be written as JSON.
    #[error("cannot encode a row of the ledger: {0}")]
    Encode(#[from] serde_json::Error),
    /// The thread that would write it.
    #[error("cannot start the thread of the ledger: {0}")]
    Thread(#[source] std::io::Error),
}

/// Where an order stands. The names are the ledger's text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// Written down; it waits for its agent.
    Stored,
    /// On its way to the agent.
    Sent,
    /// In the agent's journal.
    Received,
    /// In force until its end.
    Active,
    /// Nothing more is expected.
    Closed,
}

impl State {
    /// All of them, in the order of an order's life.
    pub const ALL: [Self; 5] = [Self::Stored, Self::Sent, Self::Received, Self::Active, Self::Closed];

    /// The ledger's word.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Stored => "stored",
            Self::Sent => "sent",
            Self::Received => "received",
            Self::Active => "active",
            Self::Closed => "closed",
        }
    }

    fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.name() == name)
    }
}

/// One order, without what its draft says.
#[derive(Debug, Clone)]
pub(super) struct Row {
    pub(super) id: i64,
    pub(super) order: OrderId,
    pub(super) draft: i64,
    pub(super) agent: AgentId,
    pub(super) state: State,
    pub(super) deadline: Timestamp,
    pub(super) ends: Option<Timestamp>,
    pub(super) plain: bool,
    pub(super) withdrawn: bool,
    pub(super) created: Timestamp,
}

/// One change. The steps of one [`Ledger::write`] become durable together.
#[derive(Debug)]
pub(super) enum Step {
    /// A new draft.
    Draft { id: i64, draft: Arc<Draft>, standing: Option<Timestamp> },
    /// An order, new or moved on; outcomes that were stored stay unless given.
    Put { row: Row, outcome: Option<Box<Outcome>>, ending: Option<Box<Outcome>> },
}

/// The one writer.
#[derive(Debug)]
pub(super) struct Ledger {
    db: Connection,
}

/// What was open when an earlier run ended.
#[derive(Debug, Default)]
pub(super) struct Open {
    pub(super) drafts: Vec<(i64, Arc<Draft>, Option<Timestamp>)>,
    pub(super) rows: Vec<Row>,
    pub(super) next_draft: i64,
    pub(super) next_row: i64,
}

impl Ledger {
    /// Opens or makes the ledger below `home`.
    pub(super) fn open(home: &Path) -> Result<Self, LedgerError> {
        let path = home.join(PATH);
        let folder = home.join(crate::registry::MANAGER_FOLDER);
        durable::create_dirs(&folder, 0o750)
            .map_err(|source| LedgerError::Directory { path: folder.clone(), source })?;
        let db = Connection::open(&path)?;
        db.busy_timeout(PATIENCE)?;
        db.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
        db.pragma_update(None, "journal_mode", "WAL")?;
        db.pragma_update(None, "synchronous", "FULL")?;
        db.execute_batch(include_str!("schema.sql"))?;
        db.set_prepared_statement_cache_capacity(16);
        Ok(Self { db })
    }

    /// What is not closed. A row that this version cannot read is left alone.
    pub(super) fn unfinished(&self, now: Timestamp) -> Result<Open, LedgerError> {
        let mut open =
            Open { next_draft: self.next("draft")?, next_row: self.next("orders")?, ..Open::default() };
        let mut query = self.db.prepare(
            "SELECT id, text, standing FROM draft WHERE standing > ?1
               OR id IN (SELECT draft FROM orders WHERE state <> 'closed') ORDER BY id",
        )?;
        let mut rows = query.query([now.nanos()])?;
        while let Some(row) = rows.next()? {
            let text: String = row.get(1)?;
            let Ok(draft) = serde_json::from_str::<Draft>(&text) else { continue };
            let standing = row.get::<_, Option<i64>>(2)?.map(Timestamp::from_nanos);
            open.drafts.push((row.get(0)?, Arc::new(draft), standing.filter(|until| *until > now)));
        }
        let mut query = self.db.prepare(
            "SELECT id, order_id, draft, agent, state, deadline, ends, plain, withdrawn, created FROM orders
             WHERE state <> 'closed' ORDER BY id",
        )?;
        let mut rows = query.query([])?;
        while let Some(row) = rows.next()? {
            let Some(state) = State::parse(&row.get::<_, String>(4)?) else { continue };
            open.rows.push(Row {
                id: row.get(0)?,
                order: OrderId(row.get(1)?),
                draft: row.get(2)?,
                agent: AgentId(row.get(3)?),
                state,
                deadline: Timestamp::from_nanos(row.get(5)?),
                ends: row.get::<_, Option<i64>>(6)?.map(Timestamp::from_nanos),
                plain: row.get(7)?,
                withdrawn: row.get(8)?,
                created: Timestamp::from_nanos(row.get(9)?),
            });
        }
        drop(rows);
        drop(query);
        Ok(open)
    }

    fn next(&self, table: &str) -> Result<i64, LedgerError> {
        let sql = format!("SELECT coalesce(max(id), 0) + 1 FROM {table}");
        Ok(self.db.query_row(&sql, [], |row| row.get(0))?)
    }

    /// Whether that order was ever written down.
    pub(super) fn knows(&self, order: &OrderId) -> Result<bool, LedgerError> {
        let mut query = self.db.prepare_cached("SELECT 1 FROM orders WHERE order_id = ?1")?;
        Ok(query.exists([&order.0])?)
    }

    /// A closed order with its draft and its last outcome.
    pub(super) fn closed(&self, order: &OrderId) -> Result<Option<(Row, Draft, OutcomeKind)>, LedgerError> {
        let mut query = self.db.prepare_cached(
            "SELECT orders.id, draft, agent, deadline, ends, plain, created, text, coalesce(ending, outcome)
             FROM orders JOIN draft ON draft.id = draft WHERE order_id = ?1 AND state = 'closed'",
        )?;
        let found = query.query_row([&order.0], |row| {
            let row_found = Row {
                id: row.get(0)?,
                order: order.clone(),
                draft: row.get(1)?,
                agent: AgentId(row.get(2)?),
                state: State::Closed,
                deadline: Timestamp::from_nanos(row.get(3)?),
                ends: row.get::<_, Option<i64>>(4)?.map(Timestamp::from_nanos),
                plain: row.get(5)?,
                withdrawn: false,
                created: Timestamp::from_nanos(row.get(6)?),
            };
            Ok((row_found, row.get::<_, String>(7)?, row.get::<_, Option<String>>(8)?))
        });
        let Some((row, text, last)) = found.optional()? else { return Ok(None) };
        let last: Option<Outcome> = last.and_then(|text| serde_json::from_str(&text).ok());
        let draft: Option<Draft> = serde_json::from_str(&text).ok();
        Ok(draft.zip(last).map(|(draft, last)| (row, draft, last.kind)))
    }

    /// The newest orders of agents of ours whose effects have no end and were not undone.
    pub(super) fn endless(&self) -> Result<Vec<(OrderId, AgentId, Draft)>, LedgerError> {
        let mut query = self.db.prepare_cached(
            "SELECT order_id, agent, text FROM orders JOIN draft ON draft.id = draft
             WHERE state = 'closed' AND agent > 0 AND plain = 0 AND ends IS NULL AND ending IS NULL
               AND json_extract(outcome, '$.kind') IN ('applied', 'already-active')
             ORDER BY changed DESC LIMIT ?1",
        )?;
        let rows = query.query_map([ENDLESS], |row| {
            Ok((OrderId(row.get(0)?), AgentId(row.get(1)?), row.get::<_, String>(2)?))
        })?;
        let mut found = Vec::new();
        for row in rows {
            let (order, agent, text) = row?;
            found.extend(serde_json::from_str(&text).ok().map(|draft| (order, agent, draft)));
        }
        Ok(found)
    }

    /// Makes all `steps` durable.
    pub(super) fn write(&mut self, steps: &[Step], now: Timestamp) -> Result<(), LedgerError> {
        if steps.is_empty() {
            return Ok(());
        }
        let tx = self.db.transaction()?;
        for step in steps {
            write_step(&tx, step, now)?;
        }
        Ok(tx.commit()?)
    }

    /// Forgets closed orders that are old or too many, a bounded number of them; true if there are more.
    pub(super) fn prune(&mut self, now: Timestamp) -> Result<bool, LedgerError> {
        let oldest = now.nanos().saturating_sub(i64::try_from(KEEP.as_nanos()).unwrap_or(i64::MAX));
        let bytes: i64 = self.db.query_row(
            "SELECT (page_count - freelist_count) * page_size FROM pragma_page_count, pragma_freelist_count, pragma_page_size",
            [],
            |row| row.get(0),
        )?;
        let tx = self.db.transaction()?;
        let aged = tx.execute(
            "DELETE FROM orders WHERE id IN (SELECT id FROM orders WHERE state = 'closed' AND changed < ?1 LIMIT ?2)",
            [oldest, AT_ONCE],
        )?;
        let closed: i64 =
            tx.query_row("SELECT count(*) FROM orders WHERE state = 'closed'", [], |row| row.get(0))?;
        let over = if bytes > MOST_BYTES { AT_ONCE } else { (closed - MOST_CLOSED).clamp(0, AT_ONCE) };
        let many = tx.execute(
            "DELETE FROM orders WHERE id IN (SELECT id FROM orders WHERE state = 'closed' ORDER BY changed LIMIT ?1)",
            [over],
        )?;
        let bare = tx.execute(
            "DELETE FROM draft WHERE id IN (SELECT draft.id FROM draft LEFT JOIN orders ON orders.draft = draft.id
               WHERE orders.id IS NULL AND coalesce(standing, 0) < ?1 LIMIT ?2)",
            [now.nanos(), AT_ONCE],
        )?;
        tx.commit()?;
        self.db.execute_batch("PRAGMA incremental_vacuum(2000)")?;
        Ok([aged, many, bare].iter().any(|count| i64::try_from(*count).is_ok_and(|count| count >= AT_ONCE)))
    }
}

fn write_step(db: &Connection, step: &Step, now: Timestamp) -> Result<(), LedgerError> {
    match step {
        Step::Draft { id, draft, standing } => {
            db.prepare_cached("INSERT INTO draft (id, text, standing) VALUES (?1, ?2, ?3)")?
                .execute(params![id, serde_json::to_string(&**draft)?, standing.map(Timestamp::nanos)])?;
        }
        Step::Put { row, outcome, ending } => {
            let json =
                |outcome: &Option<Box<Outcome>>| outcome.as_ref().map(serde_json::to_string).transpose();
            db.prepare_cached(
                "INSERT INTO orders (id, order_id, draft, agent, state, deadline, ends, plain, withdrawn, created, changed,
                   outcome, ending)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)
                 ON CONFLICT (id) DO UPDATE SET state = ?5, ends = ?7, plain = ?8, withdrawn = ?9, changed = ?11,
                   outcome = coalesce(?12, outcome), ending = coalesce(?13, ending)",
            )?
            .execute(params![
                row.id,
                row.order.0,
                row.draft,
                row.agent.0,
                row.state.name(),
                row.deadline.nanos(),
                row.ends.map(Timestamp::nanos),
                row.plain,
                row.withdrawn,
                row.created.nanos(),
                now.nanos(),
                json(outcome)?,
                json(ending)?
            ])?;
        }
    }
    Ok(())
}
