//! How far each agent's messages are taken, over restarts: our agents keep what they sent until they are told.
//!
//! A pair is stored, and told, only a while after its message went to the pipeline, so that a crash in between makes the
//! agent send again instead of losing the event.
//! Invariant: what the file claims was taken is not in any queue of this process.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use tld_model::AgentId;
use tld_sys::durable;
use tld_wire::counter::Counter;

use super::lock;
use crate::registry::MANAGER_FOLDER;

/// Half a million agents.
const LIMIT: usize = 16 << 20;

#[derive(Debug)]
pub(super) struct TakenPairs {
    path: PathBuf,
    known: Mutex<BTreeMap<AgentId, Counter>>,
}

impl TakenPairs {
    /// As the last run left it. Lines that are not understood claim nothing.
    pub(super) fn open(home: &Path) -> Self {
        let path = home.join(MANAGER_FOLDER).join("taken");
        let bytes = durable::read_bounded(&path, LIMIT).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let pair = |line: &str| {
            let (id, pair) = line.split_once(' ')?;
            Some((id.parse().ok()?, pair.parse().ok()?))
        };
        Self { path, known: Mutex::new(text.lines().filter_map(pair).collect()) }
    }

    /// What the last run knew of an agent.
    pub(super) fn of(&self, id: AgentId) -> Option<Counter> {
        lock(&self.known).get(&id).copied()
    }

    /// Stores what is known by now; `gone` are agents that are no longer registered.
    pub(super) fn store(
        &self,
        fresh: impl IntoIterator<Item = (AgentId, Counter)>,
        registered: impl Fn(AgentId) -> bool,
    ) -> io::Result<()> {
        let mut known = lock(&self.known);
        let before = known.clone();
        known.extend(fresh);
        known.retain(|id, _| registered(*id));
        if *known == before {
            return Ok(());
        }
        let text: String = known.iter().map(|(id, pair)| format!("{id} {pair}\n")).collect();
        durable::replace(&self.path, text.as_bytes(), 0o640)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_survive_a_restart_and_leave_with_their_agents() {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(home.path().join(MANAGER_FOLDER)).unwrap();
        let pair = |global, local| Counter { global, local };
        let taken = TakenPairs::open(home.path());
        taken.store([(AgentId(1), pair(0, 5)), (AgentId(2), pair(1, 9))], |_| true).unwrap();
        let taken = TakenPairs::open(home.path());
        assert_eq!((taken.of(AgentId(1)), taken.of(AgentId(3))), (Some(pair(0, 5)), None));
        taken.store([(AgentId(1), pair(0, 6))], |id| id == AgentId(1)).unwrap();
        let taken = TakenPairs::open(home.path());
        assert_eq!((taken.of(AgentId(1)), taken.of(AgentId(2))), (Some(pair(0, 6)), None));
    }
}
