//! `queue/agents-timestamp`: when each agent was registered, in the manager's local time.
//! Invariant: a line that is not understood costs only its own date.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use tld_model::{AgentId, Timestamp, Zone};

use super::Table;

/// Reads the file's text.
pub(super) fn parse(text: &str, zone: &Zone) -> BTreeMap<AgentId, Timestamp> {
    text.lines().filter_map(|line| entry(line, zone)).collect()
}

fn entry(line: &str, zone: &Zone) -> Option<(AgentId, Timestamp)> {
    let mut fields = line.split_ascii_whitespace();
    let id = fields.next()?.parse().ok()?;
    let (_name, _ip, date, time) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
    let mut date = date.splitn(3, '-');
    let mut time = time.splitn(3, ':');
    let year = date.next()?.parse().ok()?;
    let (month, day) = (small(date.next()?)?, small(date.next()?)?);
    let (hour, minute, second) = (small(time.next()?)?, small(time.next()?)?, small(time.next()?)?);
    Some((id, zone.moment(year, month, day, hour, minute, second)?))
}

fn small(text: &str) -> Option<i8> {
    text.parse().ok()
}

/// The file's text for these agents.
pub(super) fn print(table: &Table, zone: &Zone) -> String {
    let mut text = String::new();
    for agent in table.agents() {
        let Some(at) = agent.registered else { continue };
        let at = zone.local(at);
        let _ = writeln!(
            text,
            "{} {} {} {:04}-{:02}-{:02} {:02}:{:02}:{:02}",
            agent.key.id,
            agent.key.name,
            agent.key.ip,
            at.year,
            at.month,
            at.day,
            at.hour,
            at.minute,
            at.second
        );
    }
    text
}
