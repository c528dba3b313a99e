//! Orders as shown to people, read without disturbing the manager.
//! Invariant: reading never makes, changes or locks up a ledger.

use std::path::Path;

use rusqlite::{Connection, OpenFlags, Row};
use tld_model::{AgentId, Order, OrderId, Outcome, Timestamp};

use super::{Draft, LedgerError, PATH, PATIENCE, State};

/// One order.
#[derive(Debug, Clone)]
pub struct Listed {
    /// The order as its agent got it.
    pub order: Order,
    /// The agent; `000` is the manager itself.
    pub agent: AgentId,
    /// Where it stands.
    pub state: State,
    /// Not applied later than that.
    pub deadline: Timestamp,
    /// End of its effect, once that is in place.
    pub ends: Option<Timestamp>,
    /// It went to a peer that confirms nothing.
    pub plain: bool,
    /// An operator took it back.
    pub withdrawn: bool,
    /// When it last moved.
    pub changed: Timestamp,
    /// What became of it.
    pub outcome: Option<Outcome>,
    /// How its effect ended.
    pub ending: Option<Outcome>,
}

/// Which orders are asked for.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Of one agent.
    pub agent: Option<AgentId>,
    /// One order.
    pub order: Option<OrderId>,
    /// Finished ones too, the newest so many.
    pub closed: u32,
}

/// Open orders in the order they were given, then the newest finished ones. An absent ledger is an empty one.
///
/// # Errors
/// When the database cannot be read. Single unreadable rows are left out.
pub fn list(home: &Path, filter: &Filter) -> Result<Vec<Listed>, LedgerError> {
    let path = home.join(PATH);
    let there = path.try_exists().map_err(|source| LedgerError::Unseen { path: path.clone(), source })?;
    if !there {
        return Ok(Vec::new());
    }
    let db = Connection::open_with_flags(&path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    db.busy_timeout(PATIENCE)?;
    let columns =
        "SELECT text, order_id, agent, state, deadline, ends, plain, withdrawn, changed, outcome, ending
                   FROM orders JOIN draft ON draft.id = orders.draft
                   WHERE (?1 IS NULL OR agent = ?1) AND (?2 IS NULL OR order_id = ?2)";
    let agent = filter.agent.map(|agent| agent.0);
    let order = filter.order.as_ref().map(|order| &order.0);
    let mut found = Vec::new();
    for tail in [
        "AND state <> 'closed' ORDER BY orders.id".to_owned(),
        format!("AND state = 'closed' ORDER BY changed DESC LIMIT {}", filter.closed),
    ] {
        let mut query = db.prepare(&format!("{columns} {tail}"))?;
        let mut rows = query.query(rusqlite::params![agent, order])?;
        while let Some(row) = rows.next()? {
            found.extend(read(row)?);
        }
    }
    Ok(found)
}

fn read(row: &Row<'_>) -> Result<Option<Listed>, LedgerError> {
    let outcome = |text: Option<String>| text.and_then(|text| serde_json::from_str(&text).ok());
    let Ok(draft) = serde_json::from_str::<Draft>(&row.get::<_, String>(0)?) else { return Ok(None) };
    let Some(state) = State::parse(&row.get::<_, String>(3)?) else { return Ok(None) };
    Ok(Some(Listed {
        order: Order { id: OrderId(row.get(1)?), ..draft.order },
        agent: AgentId(row.get(2)?),
        state,
        deadline: Timestamp::from_nanos(row.get(4)?),
        ends: row.get::<_, Option<i64>>(5)?.map(Timestamp::from_nanos),
        plain: row.get(6)?,
        withdrawn: row.get(7)?,
        changed: Timestamp::from_nanos(row.get(8)?),
        outcome: outcome(row.get(9)?),
        ending: outcome(row.get(10)?),
    }))
}
