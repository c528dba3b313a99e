//! Rows and their texts. Invariant: what one build wrote, every later one reads.

use std::time::Duration;

use rusqlite::{Connection, Row, params};
use tld_model::{Order, RawJson, Timestamp};

use super::{Entry, Kind, State, Step, Trouble, Until};

/// Columns that [`entry`] reads.
pub(super) const COLUMNS: &str = "id, order_json, program, kind, state, key, boot_id, until_boot, until_wall, length, \
                                  attempts, failed, outcome, outcome IS NOT NULL AS told, changed, prior";
/// The same without the text of the outcome.
pub(super) const LEAN: &str = "id, order_json, program, kind, state, key, boot_id, until_boot, until_wall, length, \
                               attempts, failed, NULL AS outcome, outcome IS NOT NULL AS told, changed, prior";

/// Writes one step.
pub(super) fn write(db: &Connection, step: &Step, boot_id: &str, now: Timestamp) -> Result<(), Trouble> {
    match step {
        Step::Insert(entry) => insert(db, entry, boot_id, now)?,
        Step::Advance { .. } => advance(db, step, boot_id, now)?,
        Step::Report { id, outcome } => {
            db.prepare_cached("UPDATE effect SET outcome = ?2 WHERE id = ?1")?
                .execute(params![id, json(*id, outcome)?])?;
        }
        Step::Untold(outcome) => {
            db.prepare_cached("INSERT OR REPLACE INTO untold (order_id, kind, outcome) VALUES (?1, ?2, ?3)")?
                .execute(params![outcome.order.0, outcome.kind.name(), json(0, outcome)?])?;
        }
        Step::Told { order, kind } => {
            db.prepare_cached("DELETE FROM untold WHERE order_id = ?1 AND kind = ?2")?
                .execute(params![order.0, kind.name()])?;
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

fn advance(db: &Connection, step: &Step, boot_id: &str, now: Timestamp) -> Result<(), Trouble> {
    let Step::Advance { id, state, key, until, length, attempts, failed, prior, outcome } = step else {
        return Ok(());
    };
    let (boot, wall) = columns(*until);
    let outcome = outcome.as_ref().map(|outcome| json(*id, outcome)).transpose()?;
    db.prepare_cached(
        "UPDATE effect SET state = ?2, key = ?3, boot_id = ?4, until_boot = ?5, until_wall = ?6,
         length = ?7, attempts = ?8, failed = ?9, changed = ?10, prior = ?11,
         outcome = coalesce(?12, outcome),
         size = CASE ?2 WHEN 'closed' THEN length(order_json) + length(coalesce(?12, outcome, '')) ELSE 0 END
         WHERE id = ?1",
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
        prior,
        outcome
    ])?;
    if *state == State::Closed {
        db.prepare_cached("DELETE FROM alert WHERE id = ?1")?.execute([id])?;
    }
    Ok(())
}

fn insert(db: &Connection, entry: &Entry, boot_id: &str, now: Timestamp) -> Result<(), Trouble> {
    let (boot, wall) = columns(entry.until);
    let outcome = entry.outcome.as_ref().map(|outcome| json(entry.id, outcome)).transpose()?;
    let order = json(entry.id, &entry.order)?;
    let closed = entry.state == State::Closed;
    let size = if closed { order.len() + outcome.as_ref().map_or(0, String::len) } else { 0 };
    let rows = db
        .prepare_cached(
            "INSERT INTO effect (id, order_id, order_json, program, kind, state, key, boot_id, until_boot, until_wall,
         length, attempts, failed, outcome, changed, prior, size)
         VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12,?13,?14,?15,?16,?17)
         ON CONFLICT (order_id) DO NOTHING",
        )?
        .execute(params![
            entry.id,
            entry.order.id.0,
            order,
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
            entry.prior,
            i64::try_from(size).unwrap_or(i64::MAX)
        ])?;
    if let Some(alert) = entry.alert.as_ref().filter(|_| rows > 0 && !closed) {
        db.prepare_cached("INSERT INTO alert (id, text) VALUES (?1, ?2)")?
            .execute(params![entry.id, alert.get()])?;
    }
    Ok(())
}

fn json(id: i64, value: &impl serde::Serialize) -> Result<String, Trouble> {
    let mut text = Vec::with_capacity(COMMON);
    let unwritable = |why: String| Trouble::Unreadable { id, why };
    serde_json::to_writer(&mut text, value).map_err(|error| unwritable(error.to_string()))?;
    String::from_utf8(text).map_err(|error| unwritable(error.to_string()))
}

/// Bytes that nearly every order and outcome fits in. Above a thousand the C library's allocator goes the long way.
const COMMON: usize = 960;

fn columns(until: Option<Until>) -> (Option<i64>, Option<i64>) {
    let boot = until.map(|until| i64::try_from(until.boot.as_nanos()).unwrap_or(i64::MAX));
    (boot, until.map(|until| until.wall.nanos()))
}

/// The text of an order, without its alert.
pub(super) fn order(id: i64, text: &str) -> Result<Order, Trouble> {
    serde_json::from_str(text).map_err(|error| Trouble::Unreadable { id, why: error.to_string() })
}

/// The text of an alert.
pub(super) fn alert(id: i64, text: String) -> Result<RawJson, Trouble> {
    let raw = serde_json::value::RawValue::from_string(text);
    raw.map_err(|error| Trouble::Unreadable { id, why: error.to_string() })
}

/// One row without its alert. The columns are read by their place in [`COLUMNS`], since a start reads a million of them.
pub(super) fn entry(row: &Row<'_>) -> Result<Entry, Trouble> {
    let id: i64 = row.get(0)?;
    let state: String = row.get(4)?;
    let kind: String = row.get(3)?;
    let outcome: Option<String> = row.get(12)?;
    let boot: Option<i64> = row.get(7)?;
    let wall: Option<i64> = row.get(8)?;
    Ok(Entry {
        id,
        order: order(id, row.get_ref(1)?.as_str().map_err(rusqlite::Error::from)?)?,
        alert: None,
        program: row.get(2)?,
        kind: if kind == Kind::Action.name() { Kind::Action } else { Kind::Script },
        state: State::parse(&state)
            .ok_or_else(|| Trouble::Unreadable { id, why: format!("state `{state}`") })?,
        key: row.get(5)?,
        boot_id: row.get(6)?,
        until: boot.zip(wall).map(|(boot, wall)| Until {
            boot: Duration::from_nanos(u64::try_from(boot).unwrap_or(0)),
            wall: Timestamp::from_nanos(wall),
        }),
        length: row.get::<_, i64>(9)?.unsigned_abs(),
        attempts: row.get(10)?,
        failed: row.get(11)?,
        prior: row.get(15)?,
        told: row.get(13)?,
        outcome: outcome.and_then(|text| serde_json::from_str(&text).ok()),
        changed: Timestamp::from_nanos(row.get(14)?),
    })
}
