//! What plain peers' logs prove about their orders (see [`super`]).
//! Invariant: a line moves an order of its own agent only.

use std::collections::HashMap;
use std::time::Duration;

use tld_model::{AgentId, Outcome, OutcomeKind, Timestamp};

use super::super::evidence::{self, Claim, Line, Said, Verb};
use super::{Act, Book, Entry, GRACE, MOST_FOLLOWED, PLAIN, Trail, cut, made};
use crate::dispatch::ledger::State;

impl Book {
    pub(super) fn without_evidence(&mut self, id: i64, now: Timestamp) {
        let Some(entry) = self.entries.get(&id) else { return };
        let detail = match entry.trail {
            Trail::Nothing => "the agent's active-responses.log did not mention it in time".to_owned(),
            _ => "the agent's active-responses.log says that it was begun, but not that it was ended"
                .to_owned(),
        };
        let detail = entry.words.as_ref().map_or(detail.clone(), |words| format!("{detail}: {words}"));
        self.finish(id, OutcomeKind::Unconfirmed, &detail, now);
    }

    /// A line of an agent's `active-responses.log`.
    pub(in super::super) fn evidence(&mut self, agent: AgentId, text: &str, now: Timestamp) {
        let Some(line) = Line::parse(text) else { return };
        let key = (agent, line.program.to_owned());
        match line.said {
            Said::Starting => {
                self.followed.remove(&key);
            }
            Said::Told { verb, alert, text } => {
                let found = self.told(agent, line.program, verb, &Claim::of(alert, text));
                let Some(id) = found else { return };
                if self.followed.len() < MOST_FOLLOWED {
                    self.followed.insert(key, id);
                }
                self.note(id, verb, now);
            }
            Said::Words(words) => {
                if let Some(entry) = self.followed.get(&key).and_then(|id| self.entries.get_mut(id)) {
                    entry.words.get_or_insert_with(|| cut(words.to_owned()));
                }
            }
            Said::Ended | Said::Aborted => {
                if let Some(id) = self.followed.remove(&key) {
                    self.ended(id, now);
                }
            }
        }
    }

    fn told(&self, agent: AgentId, program: &str, verb: Verb, claim: &Claim<'_>) -> Option<i64> {
        let wanted = |entry: &&Entry| {
            let fits = match verb {
                Verb::Add => entry.row.state == State::Sent && entry.trail == Trail::Nothing,
                Verb::Continue | Verb::Abort => entry.row.state == State::Sent,
                Verb::Delete => entry.row.state == State::Active,
            };
            fits && entry.row.plain
                && evidence::runs(program, &entry.draft.order.executable)
                && claim.concerns(&entry.draft.order)
        };
        let of_agent = self.by_agent.get(&agent).into_iter().flatten();
        of_agent.filter_map(|id| self.entries.get(id)).find(wanted).map(|entry| entry.row.id)
    }

    fn note(&mut self, id: i64, verb: Verb, now: Timestamp) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        match verb {
            Verb::Add => entry.trail = Trail::Started,
            Verb::Continue => entry.trail = Trail::Continued,
            Verb::Delete => entry.trail = Trail::Undoing,
            Verb::Abort => {
                let until = now.plus(Duration::from_secs(entry.draft.order.timeout_secs));
                let said = "the agent's log says that it was in force already; it now lasts longer";
                let outcome =
                    Outcome { until: Some(until), ..made(entry, OutcomeKind::AlreadyActive, said, now) };
                self.prolong(entry_agent(&self.entries, id), id, until);
                return self.close(id, outcome, false);
            }
        }
        self.wake_at(id, now.plus(PLAIN));
    }

    /// The executable said that it is done.
    fn ended(&mut self, id: i64, now: Timestamp) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        let words = entry.words.take();
        let stateful = entry.draft.order.timeout_secs > 0;
        match (entry.trail, words) {
            (Trail::Undoing, None) => {
                self.finish(id, OutcomeKind::Reverted, "the agent's log says that it was undone", now);
            }
            (Trail::Undoing, Some(words)) => {
                self.finish(id, OutcomeKind::RevertFailed, &format!("the agent's log says: {words}"), now);
            }
            (_, Some(words)) => {
                self.finish(id, OutcomeKind::Failed, &format!("the agent's log says: {words}"), now);
            }
            (Trail::Continued, None) if stateful => {
                let until = now.plus(Duration::from_secs(entry.draft.order.timeout_secs));
                entry.trail = Trail::Nothing;
                let said = "the agent's log says that it was carried out";
                let outcome = Outcome { until: Some(until), ..made(entry, OutcomeKind::Applied, said, now) };
                let agent = entry.row.agent;
                self.activate(id, until);
                self.put(id, Some(Box::new(outcome.clone())), None);
                self.wake_at(id, until.plus(GRACE));
                self.acts.push(Act::Tell(agent, Box::new(outcome)));
            }
            (_, None) => {
                self.finish(id, OutcomeKind::Applied, "the agent's log says that it was carried out", now);
            }
        }
    }
}

fn entry_agent(entries: &HashMap<i64, Entry>, id: i64) -> AgentId {
    entries.get(&id).map_or(AgentId::MANAGER, |entry| entry.row.agent)
}
