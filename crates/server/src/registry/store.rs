//! `var/threatlockdown/manager/manager.db`: what is known of agents beyond their keys, over restarts and for other processes.
//!
//! One row per agent. Groups are saved by themselves, because other processes change them too. A row counts only for an agent of the same id and name, so that what a purged
//! agent left behind never becomes a newcomer's.
//! Invariant: a failed save changes nothing.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags, Row, params};
use tld_model::{AgentId, Timestamp};

use super::agent::{Activity, Agent, State, Status};

/// How long another process's transaction is waited for.
const PATIENCE: Duration = Duration::from_secs(10);

const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS agent (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    state TEXT NOT NULL,
    status_code INTEGER NOT NULL,
    last_keep_alive INTEGER,
    disconnected_at INTEGER,
    version TEXT,
    os TEXT,
    ip TEXT,
    merged_sum TEXT,
    config_sum TEXT,
    node TEXT,
    groups TEXT NOT NULL,
    labels TEXT NOT NULL
) STRICT;";

const SAVE: &str = "
INSERT INTO agent (id, name, state, status_code, last_keep_alive, disconnected_at, version, os, ip, merged_sum,
    config_sum, node, groups, labels)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)
ON CONFLICT (id) DO UPDATE SET name = ?2, state = ?3, status_code = ?4, last_keep_alive = ?5,
    disconnected_at = ?6, version = ?7, os = ?8, ip = ?9, merged_sum = ?10, config_sum = ?11, node = ?12,
    labels = ?14, groups = CASE WHEN name = ?2 THEN groups ELSE ?13 END";

/// A stored agent.
#[derive(Debug, Clone)]
pub(super) struct Stored {
    pub(super) name: String,
    pub(super) activity: Activity,
}

/// The open database.
#[derive(Debug)]
pub(super) struct Store {
    connection: Mutex<Connection>,
}

impl Store {
    /// Opens or makes the database. A damaged one is set aside, so that the agents' keys alone suffice to go on;
    /// the path it went to is told.
    pub(super) fn open(path: &Path) -> rusqlite::Result<(Self, Option<PathBuf>)> {
        match open(path) {
            Err(error)
                if matches!(
                    error.sqlite_error_code(),
                    Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt)
                ) =>
            {
                let aside = path.with_extension("db.damaged");
                if std::fs::rename(path, &aside).is_err() {
                    return Err(error);
                }
                for tail in ["-wal", "-shm"] {
                    let mut name = path.as_os_str().to_owned();
                    name.push(tail);
                    let _ = std::fs::remove_file(name);
                }
                Ok((Self { connection: Mutex::new(open(path)?) }, Some(aside)))
            }
            other => Ok((Self { connection: Mutex::new(other?) }, None)),
        }
    }

    /// Every stored agent.
    pub(super) fn load(&self) -> rusqlite::Result<HashMap<AgentId, Stored>> {
        let connection = self.connection();
        let mut query = connection.prepare("SELECT * FROM agent")?;
        let rows = query.query_map([], stored)?;
        rows.collect()
    }

    /// Stores agents, all or none.
    pub(super) fn save(&self, agents: &[(&Agent, Activity)]) -> rusqlite::Result<()> {
        if agents.is_empty() {
            return Ok(());
        }
        let mut connection = self.connection();
        let transaction = connection.transaction()?;
        {
            let mut save = transaction.prepare_cached(SAVE)?;
            for (agent, activity) in agents {
                let labels = serde_json::to_string(&activity.labels).unwrap_or_default();
                save.execute(params![
                    agent.id.0,
                    agent.key.name,
                    activity.state.name(),
                    activity.status.code(),
                    activity.last_keep_alive.map(Timestamp::nanos),
                    activity.disconnected_at.map(Timestamp::nanos),
                    activity.version,
                    activity.os,
                    activity.ip,
                    activity.merged_sum,
                    activity.config_sum,
                    activity.node,
                    activity.groups.join(","),
                    labels,
                ])?;
            }
        }
        transaction.commit()
    }

    /// Stores one agent's groups.
    pub(super) fn save_groups(&self, id: AgentId, groups: &[String]) -> rusqlite::Result<()> {
        let groups = groups.join(",");
        self.connection().execute("UPDATE agent SET groups = ?2 WHERE id = ?1", params![id.0, groups])?;
        Ok(())
    }

    /// Forgets agents.
    pub(super) fn delete(&self, ids: &[AgentId]) -> rusqlite::Result<()> {
        let mut connection = self.connection();
        let transaction = connection.transaction()?;
        for id in ids {
            transaction.execute("DELETE FROM agent WHERE id = ?1", [id.0])?;
        }
        transaction.commit()
    }

    /// Differs from the last call's when another process changed something in between.
    pub(super) fn others_changes(&self) -> rusqlite::Result<i64> {
        self.connection().query_row("PRAGMA data_version", [], |row| row.get(0))
    }

    fn connection(&self) -> MutexGuard<'_, Connection> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn open(path: &Path) -> rusqlite::Result<Connection> {
    let flags =
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(PATIENCE)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.execute_batch(SCHEMA)?;
    Ok(connection)
}

fn stored(row: &Row<'_>) -> rusqlite::Result<(AgentId, Stored)> {
    let moment = |column| row.get(column).map(|nanos: Option<i64>| nanos.map(Timestamp::from_nanos));
    let groups: String = row.get("groups")?;
    let labels: String = row.get("labels")?;
    let activity = Activity {
        state: State::named(&row.get::<_, String>("state")?).unwrap_or_default(),
        status: Status::of_code(row.get("status_code")?).unwrap_or_default(),
        last_keep_alive: moment("last_keep_alive")?,
        disconnected_at: moment("disconnected_at")?,
        version: row.get("version")?,
        os: row.get("os")?,
        ip: row.get("ip")?,
        merged_sum: row.get("merged_sum")?,
        config_sum: row.get("config_sum")?,
        node: row.get("node")?,
        groups: groups.split(',').filter(|group| !group.is_empty()).map(str::to_owned).collect(),
        labels: serde_json::from_str(&labels).unwrap_or_default(),
    };
    Ok((AgentId(row.get("id")?), Stored { name: row.get("name")?, activity }))
}
