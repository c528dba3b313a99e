//! The orders that are not finished: a state machine without clock, disk or network. Each call takes what happened and leaves
//! behind what must be written ([`Book::steps`]) and what is to be done once that is written ([`Book::acts`]).
//! Invariant: an order leaves the book with exactly one outcome, and every order in it has a moment at which it leaves.

mod proof;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tld_model::{AgentId, Evidence, OrderId, Outcome, OutcomeKind, Timestamp, Timings};

use crate::dispatch::ledger::{Audience, Draft, Row, State, Step};
use crate::reach::{Queued, ReachError};
use crate::registry::{Agent, Table};

/// An agent that confirms has received an order within that time, or it is sent again.
const RESEND: Duration = Duration::from_secs(30);
/// A peer of the plain contract has forwarded lines about an order within that time.
const PLAIN: Duration = Duration::from_secs(120);
/// What is left to an agent, after the last moment to act, to say what it did: also for one that lost its connection.
const GRACE: Duration = Duration::from_secs(3_600);
/// The manager's own responder has answered by then: longer than any of its executables may run.
const OWN: Duration = Duration::from_secs(1_800);
/// Pauses between attempts at an agent whose queue is full.
const RETRY: Duration = Duration::from_secs(1);
const MOST_RETRY: Duration = Duration::from_secs(30);
/// Orders of one agent that have no outcome yet, unfinished ones of all agents, the bytes of their alerts, and answers that
/// agents get when they come back.
const MOST_OF_AGENT: usize = 4_096;
const MOST: usize = 500_000;
const MOST_BYTES: usize = 512 << 20;
const MOST_STANDING: usize = 4_096;
/// Executables that are followed at a time in agents' logs.
const MOST_FOLLOWED: usize = 65_536;
/// An agent's claim of how long an effect lasts is believed so far: what `repeated_offenders` can ask for.
const MOST_LASTING: Duration = Duration::from_secs(5_256_000 * 60);
/// Longest text of an agent that is kept.
const MOST_TEXT: usize = 4_096;

/// To be done once the steps are written.
#[derive(Debug)]
pub(super) enum Act {
    /// Give an order to the channel.
    Send(Box<Sending>),
    /// Give one to the manager's own responder.
    Carry(Arc<Draft>),
    /// Take one back.
    Cancel(AgentId, OrderId),
    /// Tell an agent that its report is stored.
    Confirm(AgentId, Box<Outcome>),
    /// People are told what became of an order.
    Tell(AgentId, Box<Outcome>),
}

/// An order for the channel.
#[derive(Debug)]
pub(super) struct Sending {
    pub(super) row: i64,
    pub(super) agent: AgentId,
    pub(super) order: OrderId,
    pub(super) draft: Arc<Draft>,
    pub(super) confirms: bool,
    /// It goes out late: its effect lasts as long as is left.
    pub(super) late: bool,
}

/// An order that its agent knows no way to take back.
pub(super) type Stuck = (OrderId, AgentId, Arc<Draft>);

/// What the lines of a plain peer have proved so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Trail {
    #[default]
    Nothing,
    Started,
    Continued,
    Undoing,
}

#[derive(Debug)]
struct Entry {
    row: Row,
    draft: Arc<Draft>,
    due: Timestamp,
    sending: bool,
    attempts: u32,
    trail: Trail,
    words: Option<String>,
}

#[derive(Debug)]
struct Standing {
    id: i64,
    draft: Arc<Draft>,
    until: Timestamp,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Book {
    entries: HashMap<i64, Entry>,
    by_order: HashMap<OrderId, i64>,
    by_agent: BTreeMap<AgentId, BTreeSet<i64>>,
    timers: BTreeSet<(i64, i64)>,
    /// Orders without an outcome, by agent.
    pending: BTreeMap<AgentId, usize>,
    /// Bytes of the alerts that are held.
    bytes: usize,
    /// Connected agents, and whether they confirm.
    present: BTreeMap<AgentId, bool>,
    standing: Vec<Standing>,
    /// Whose lines are being followed: agent and executable lead to an order.
    followed: HashMap<(AgentId, String), i64>,
    next_draft: i64,
    next_row: i64,
    pub(super) steps: Vec<Step>,
    pub(super) acts: Vec<Act>,
}

impl Book {
    /// Goes on from what an earlier run left.
    pub(super) fn restore(open: crate::dispatch::ledger::Open, now: Timestamp) -> Self {
        let mut book = Self { next_draft: open.next_draft, next_row: open.next_row, ..Self::default() };
        let mut drafts = HashMap::new();
        for (id, draft, standing) in open.drafts {
            if let Some(until) = standing {
                book.standing.push(Standing { id, draft: Arc::clone(&draft), until });
            }
            drafts.insert(id, draft);
        }
        for row in open.rows {
            let Some(draft) = drafts.get(&row.draft) else { continue };
            let own = row.agent == AgentId::MANAGER;
            if own && row.state != State::Active && now < row.deadline {
                book.acts.push(Act::Carry(Arc::clone(draft)));
            }
            let due = match row.state {
                _ if own && row.state != State::Active => now.plus(OWN),
                State::Sent if row.plain => now.plus(PLAIN),
                State::Active => row.ends.unwrap_or(now).plus(GRACE),
                State::Received => row.deadline.plus(GRACE),
                _ => row.deadline,
            };
            book.insert(row, Arc::clone(draft), due);
        }
        book
    }

    /// When [`Self::tick`] has something to do.
    pub(super) fn next_due(&self) -> Option<Timestamp> {
        self.timers.first().map(|(due, _)| Timestamp::from_nanos(*due))
    }

    /// Whether that agent has orders open, so that its log may be evidence.
    pub(super) fn awaits(&self, agent: AgentId) -> bool {
        self.by_agent.contains_key(&agent)
    }

    /// Takes a draft in, which makes an order for each agent that is meant. `carried`: the manager's own responder has it.
    pub(super) fn submit(&mut self, draft: Draft, carried: bool, table: &Table, now: Timestamp) {
        let draft = Arc::new(draft);
        let id = self.next_draft;
        self.next_draft += 1;
        let until = match draft.audience {
            Audience::All { .. } => Some(draft.deadline()),
            Audience::One(_) => None,
        };
        self.steps.push(Step::Draft { id, draft: Arc::clone(&draft), standing: until });
        match (until, draft.audience.clone()) {
            (Some(until), _) => {
                let meant = |agent: &Agent| draft.audience.includes(agent);
                let there: Vec<AgentId> = self.present.keys().copied().collect();
                for agent in there {
                    if table.by_id(agent).is_some_and(|agent| meant(agent)) {
                        self.open(id, &draft, agent, now);
                    }
                }
                self.standing.retain(|one| one.until > now);
                if self.standing.len() >= MOST_STANDING {
                    self.standing.remove(0);
                }
                self.standing.push(Standing { id, draft, until });
            }
            (None, Audience::One(0)) => self.own(id, draft, carried, now),
            (None, Audience::One(agent)) if table.by_id(AgentId(agent)).is_some() => {
                self.open(id, &draft, AgentId(agent), now);
            }
            (None, Audience::One(agent)) => {
                let reason = format!("no agent {} is registered", AgentId(agent));
                self.refuse(id, &draft, AgentId(agent), &reason, now);
            }
            (None, Audience::All { .. }) => {}
        }
    }

    /// The open orders of a draft for all.
    pub(super) fn of_draft(&self, base: &OrderId) -> Vec<OrderId> {
        let of_it = |entry: &&Entry| entry.draft.order.id == *base;
        self.entries.values().filter(of_it).map(|entry| entry.row.order.clone()).collect()
    }

    /// Writes down that a draft was refused, by the guards of the manager.
    pub(super) fn refused(&mut self, draft: Draft, agent: AgentId, reason: &str, now: Timestamp) {
        let id = self.next_draft;
        self.next_draft += 1;
        let draft = Arc::new(draft);
        self.steps.push(Step::Draft { id, draft: Arc::clone(&draft), standing: None });
        self.refuse(id, &draft, agent, reason, now);
    }

    fn refuse(&mut self, id: i64, draft: &Arc<Draft>, agent: AgentId, reason: &str, now: Timestamp) {
        let row = self.row(id, draft, agent, now);
        let row_id = row.id;
        self.insert(row, Arc::clone(draft), now);
        self.finish(row_id, OutcomeKind::Refused, reason, now);
    }

    fn row(&mut self, draft: i64, of: &Draft, agent: AgentId, now: Timestamp) -> Row {
        let id = self.next_row;
        self.next_row += 1;
        Row {
            id,
            order: of.id_for(agent),
            draft,
            agent,
            state: State::Stored,
            deadline: of.deadline(),
            ends: None,
            plain: false,
            withdrawn: false,
            created: now,
        }
    }

    fn own(&mut self, id: i64, draft: Arc<Draft>, carried: bool, now: Timestamp) {
        let row = Row { state: State::Sent, ..self.row(id, &draft, AgentId::MANAGER, now) };
        let row_id = row.id;
        self.insert(row, Arc::clone(&draft), now.plus(OWN));
        self.put(row_id, None, None);
        if !carried {
            self.acts.push(Act::Carry(draft));
        }
    }

    fn open(&mut self, id: i64, draft: &Arc<Draft>, agent: AgentId, now: Timestamp) {
        if self.by_order.contains_key(&draft.id_for(agent)) {
            return;
        }
        let waiting = self.pending.get(&agent).copied().unwrap_or_default();
        if waiting >= MOST_OF_AGENT || self.entries.len() >= MOST || self.bytes >= MOST_BYTES {
            let reason = format!(
                "too many orders are open: {} in all, {waiting} of this agent without an outcome",
                self.entries.len()
            );
            return self.refuse(id, draft, agent, &reason, now);
        }
        let row = self.row(id, draft, agent, now);
        let (row_id, deadline) = (row.id, row.deadline);
        self.insert(row, Arc::clone(draft), deadline);
        self.put(row_id, None, None);
        if self.present.contains_key(&agent) {
            self.send(row_id, now);
        }
    }

    fn insert(&mut self, row: Row, draft: Arc<Draft>, due: Timestamp) {
        let (id, agent) = (row.id, row.agent);
        self.by_order.insert(row.order.clone(), id);
        self.by_agent.entry(agent).or_default().insert(id);
        self.timers.insert((due.nanos(), id));
        if row.state != State::Active {
            *self.pending.entry(agent).or_default() += 1;
        }
        self.bytes += weight(&draft);
        let has_it = matches!(row.state, State::Received | State::Active);
        let entry =
            Entry { row, draft, due, sending: false, attempts: 0, trail: Trail::Nothing, words: None };
        self.entries.insert(id, entry);
        if has_it {
            self.slim(id);
        }
    }

    /// What lies in an agent's journal is not sent again: its alert need not be held any longer.
    fn slim(&mut self, id: i64) {
        let Some(entry) = self.entries.get_mut(&id).filter(|entry| !entry.row.plain) else { return };
        let alert = serde_json::value::RawValue::NULL.to_owned();
        let before = weight(&entry.draft);
        let order = &entry.draft.order;
        let order = tld_model::Order {
            id: order.id.clone(),
            response: order.response.clone(),
            executable: order.executable.clone(),
            node: String::new(),
            extra_args: Vec::new(),
            alert,
            alert_id: order.alert_id.clone(),
            target: order.target.clone(),
            options: tld_model::OrderOptions::default(),
            ..*order
        };
        let (audience, origin) = (entry.draft.audience.clone(), entry.draft.origin.clone());
        entry.draft = Arc::new(Draft { order, audience, origin, verbatim: None });
        self.bytes = self.bytes + weight(&entry.draft) - before;
    }

    /// The order's effect is in place.
    fn activate(&mut self, id: i64, until: Timestamp) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        let was = std::mem::replace(&mut entry.row.state, State::Active);
        entry.row.ends = Some(until);
        let agent = entry.row.agent;
        if was != State::Active {
            self.no_longer_pending(agent);
        }
        self.slim(id);
    }

    fn no_longer_pending(&mut self, agent: AgentId) {
        if let Some(count) = self.pending.get_mut(&agent) {
            *count -= 1;
            if *count == 0 {
                self.pending.remove(&agent);
            }
        }
    }

    fn remove(&mut self, id: i64) {
        let Some(entry) = self.entries.remove(&id) else { return };
        self.bytes -= weight(&entry.draft);
        // Only `activate` makes an order active, and a closed one remembers whether it was by its end.
        if entry.row.ends.is_none() {
            self.no_longer_pending(entry.row.agent);
        }
        self.by_order.remove(&entry.row.order);
        if let Some(of_agent) = self.by_agent.get_mut(&entry.row.agent) {
            of_agent.remove(&id);
            if of_agent.is_empty() {
                self.by_agent.remove(&entry.row.agent);
            }
        }
        self.timers.remove(&(entry.due.nanos(), id));
    }

    fn wake_at(&mut self, id: i64, due: Timestamp) {
        if let Some(entry) = self.entries.get_mut(&id) {
            self.timers.remove(&(entry.due.nanos(), id));
            entry.due = due;
            self.timers.insert((due.nanos(), id));
        }
    }

    fn put(&mut self, id: i64, outcome: Option<Box<Outcome>>, ending: Option<Box<Outcome>>) {
        if let Some(entry) = self.entries.get(&id) {
            self.steps.push(Step::Put { row: entry.row.clone(), outcome, ending });
        }
    }

    fn send(&mut self, id: i64, now: Timestamp) {
        let Some(entry) = self.entries.get_mut(&id).filter(|entry| !entry.sending) else { return };
        entry.sending = true;
        self.acts.push(Act::Send(Box::new(Sending {
            row: id,
            agent: entry.row.agent,
            order: entry.row.order.clone(),
            draft: Arc::clone(&entry.draft),
            confirms: self.present.get(&entry.row.agent).copied().unwrap_or_default(),
            late: now.since(entry.row.created).max(now.since(entry.draft.order.created)) > RETRY * 5,
        })));
    }

    /// The channel took an order, or did not.
    pub(super) fn sent(&mut self, id: i64, result: Result<Queued, ReachError>, now: Timestamp) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        entry.sending = false;
        if !matches!(entry.row.state, State::Stored | State::Sent) {
            return;
        }
        if entry.row.withdrawn {
            // It was taken back while it was given to the channel.
            match result {
                Ok(_) => self.acts.push(Act::Cancel(entry.row.agent, entry.row.order.clone())),
                Err(_) if entry.row.state == State::Stored => {
                    return self.finish(id, OutcomeKind::Cancelled, "withdrawn before it was sent", now);
                }
                Err(_) => {}
            }
        }
        let Some(entry) = self.entries.get_mut(&id) else { return };
        match result {
            Ok(queued) => {
                entry.row.state = State::Sent;
                entry.row.plain = queued == Queued::Plain;
                let wait = if entry.row.plain { PLAIN } else { RESEND };
                self.put(id, None, None);
                self.wake_at(id, now.plus(wait));
            }
            Err(ReachError::Away | ReachError::Full) => {
                entry.attempts = entry.attempts.saturating_add(1);
                let pause = RETRY.saturating_mul(1 << entry.attempts.min(5)).min(MOST_RETRY);
                let due = now.plus(pause).min(entry.row.deadline);
                self.wake_at(id, due);
            }
            Err(error @ ReachError::TooOld) => {
                self.finish(id, OutcomeKind::Unsupported, &error.to_string(), now);
            }
            Err(error @ ReachError::Encode) => {
                self.finish(id, OutcomeKind::Failed, &error.to_string(), now);
            }
        }
    }

    /// An agent is there and can be sent to. `known` tells of orders that are finished.
    pub(super) fn ready(
        &mut self,
        agent: &Agent,
        confirms: bool,
        known: impl Fn(&OrderId) -> bool,
        now: Timestamp,
    ) {
        self.present.insert(agent.id, confirms);
        let open: Vec<i64> = self.by_agent.get(&agent.id).into_iter().flatten().copied().collect();
        for id in open {
            let Some(entry) = self.entries.get(&id) else { continue };
            let (row, stateful) = (&entry.row, entry.draft.order.timeout_secs > 0);
            match row.state {
                _ if row.withdrawn => self.acts.push(Act::Cancel(agent.id, row.order.clone())),
                State::Stored => self.send(id, now),
                // Its journal knows the order's id, so that once more acts once.
                State::Sent if !row.plain && confirms => self.send(id, now),
                // Such a peer knows what is in force by executable and target, but would repeat what leaves no state.
                State::Sent if row.plain && stateful && entry.trail == Trail::Nothing => self.send(id, now),
                _ => {}
            }
        }
        self.standing.retain(|one| one.until > now);
        let missed: Vec<(i64, Arc<Draft>)> = self
            .standing
            .iter()
            .filter(|one| one.draft.audience.includes(agent))
            .filter(|one| {
                let order = one.draft.id_for(agent.id);
                !self.by_order.contains_key(&order) && !known(&order)
            })
            .map(|one| (one.id, Arc::clone(&one.draft)))
            .collect();
        for (id, draft) in missed {
            self.open(id, &draft, agent.id, now);
        }
    }

    /// Takes orders back: those that wait are cancelled, those that an agent of ours may have are withdrawn there. Returns what
    /// was begun, and for what cannot be undone the reason.
    pub(super) fn withdraw(
        &mut self,
        which: impl Fn(&OrderId, AgentId, &tld_model::Order) -> bool,
        now: Timestamp,
    ) -> (Vec<OrderId>, Vec<Stuck>) {
        let meant = |entry: &&Entry| {
            entry.row.agent != AgentId::MANAGER
                && which(&entry.row.order, entry.row.agent, &entry.draft.order)
        };
        let mut found: Vec<i64> = self.entries.values().filter(meant).map(|entry| entry.row.id).collect();
        found.sort_unstable();
        let (mut begun, mut stuck) = (Vec::new(), Vec::new());
        for id in found {
            let Some(entry) = self.entries.get_mut(&id) else { continue };
            let (order, agent) = (entry.row.order.clone(), entry.row.agent);
            match entry.row.state {
                State::Stored if !entry.sending => {
                    self.finish(id, OutcomeKind::Cancelled, "withdrawn before it was sent", now);
                }
                _ if entry.row.plain => {
                    stuck.push((order, agent, Arc::clone(&entry.draft)));
                    continue;
                }
                _ => {
                    entry.row.withdrawn = true;
                    self.put(id, None, None);
                    self.acts.push(Act::Cancel(agent, order.clone()));
                }
            }
            begun.push(order);
        }
        self.standing.retain(|one| !which(&one.draft.order.id, AgentId::MANAGER, &one.draft.order));
        (begun, stuck)
    }

    /// An agent's connection is gone.
    pub(super) fn gone(&mut self, agent: AgentId) {
        self.present.remove(&agent);
    }

    /// An order lies in its agent's journal.
    pub(super) fn received(&mut self, agent: AgentId, order: &OrderId) {
        let Some((id, entry)) = self.of(agent, order) else { return };
        if matches!(entry.row.state, State::Stored | State::Sent) {
            entry.row.state = State::Received;
            let due = entry.row.deadline.plus(GRACE);
            self.slim(id);
            self.put(id, None, None);
            self.wake_at(id, due);
        }
    }

    /// The order of that id, if it is that agent's.
    fn of(&mut self, agent: AgentId, order: &OrderId) -> Option<(i64, &mut Entry)> {
        let id = *self.by_order.get(order)?;
        self.entries.get_mut(&id).filter(|entry| entry.row.agent == agent).map(|entry| (id, entry))
    }

    /// An agent, or the manager's own responder, reports. False if no open order of it is meant.
    pub(super) fn outcome(&mut self, agent: AgentId, outcome: &Outcome, now: Timestamp) -> bool {
        let Some((id, entry)) = self.of(agent, &outcome.order) else { return false };
        let outcome = complete(outcome.clone(), &entry.draft);
        let is_ending = matches!(outcome.kind, OutcomeKind::Reverted | OutcomeKind::RevertFailed);
        let lasts = outcome.until.filter(|_| outcome.kind == OutcomeKind::Applied);
        if let Some(until) = lasts {
            let news = entry.row.state != State::Active;
            let until = until.min(now.plus(MOST_LASTING));
            self.activate(id, until);
            self.put(id, Some(Box::new(outcome.clone())), None);
            self.wake_at(id, until.plus(GRACE));
            if news {
                self.acts.push(Act::Tell(agent, Box::new(outcome)));
            }
        } else if outcome.kind == OutcomeKind::RevertFailed {
            let due = entry.due.max(now.plus(GRACE));
            self.put(id, None, Some(Box::new(outcome.clone())));
            self.wake_at(id, due);
            self.acts.push(Act::Tell(agent, Box::new(outcome)));
        } else {
            if let (OutcomeKind::AlreadyActive, Some(until)) = (outcome.kind, outcome.until) {
                self.prolong(agent, id, until);
            }
            self.close(id, outcome, is_ending);
        }
        true
    }

    /// The effect that an order met is another order's, which now lasts longer.
    fn prolong(&mut self, agent: AgentId, met_by: i64, until: Timestamp) {
        let Some(met) = self.entries.get(&met_by).map(|entry| Arc::clone(&entry.draft)) else { return };
        let same = |entry: &&Entry| {
            entry.row.state == State::Active
                && entry.draft.order.executable == met.order.executable
                && entry.draft.order.target == met.order.target
        };
        let of_agent = self.by_agent.get(&agent).into_iter().flatten();
        let found = of_agent.filter_map(|id| self.entries.get(id)).find(same).map(|entry| entry.row.id);
        if let Some(id) = found
            && let Some(entry) = self.entries.get_mut(&id)
        {
            // Ours never shorten an effect; a plain peer takes over the time of what came last.
            let until = if entry.row.plain { until } else { entry.row.ends.unwrap_or(until).max(until) };
            entry.row.ends = Some(until);
            self.put(id, None, None);
            self.wake_at(id, until.plus(GRACE));
        }
    }

    /// Ends an order of which nobody else reports.
    fn finish(&mut self, id: i64, kind: OutcomeKind, detail: &str, now: Timestamp) {
        let Some(entry) = self.entries.get(&id) else { return };
        let is_ending = entry.row.state == State::Active;
        let outcome = made(entry, kind, detail, now);
        self.close(id, outcome, is_ending);
    }

    fn close(&mut self, id: i64, outcome: Outcome, is_ending: bool) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        entry.row.state = State::Closed;
        let agent = entry.row.agent;
        let stored = Some(Box::new(outcome.clone()));
        let (became, ending) = if is_ending { (None, stored) } else { (stored, None) };
        self.put(id, became, ending);
        self.remove(id);
        self.acts.push(Act::Tell(agent, Box::new(outcome)));
    }

    /// Time has passed.
    pub(super) fn tick(&mut self, now: Timestamp) {
        while let Some(&(due, id)) = self.timers.first() {
            if due > now.nanos() {
                return;
            }
            // Each branch either ends the order or moves its moment ahead; this one makes sure of it.
            self.wake_at(id, now.plus(RESEND));
            self.lapse(id, now);
        }
    }

    fn lapse(&mut self, id: i64, now: Timestamp) {
        let Some(entry) = self.entries.get(&id) else { return };
        let (row, over) = (&entry.row, now >= entry.row.deadline);
        let present = self.present.contains_key(&row.agent);
        match row.state {
            State::Stored if over && entry.attempts > 0 => {
                self.finish(id, OutcomeKind::Expired, "the agent did not read it in time", now);
            }
            State::Stored if over => {
                self.finish(id, OutcomeKind::Expired, "the agent was away until it was too late to act", now);
            }
            State::Sent if row.agent == AgentId::MANAGER => {
                self.finish(id, OutcomeKind::Unconfirmed, "the manager's responder did not answer", now);
            }
            State::Sent if row.plain => self.without_evidence(id, now),
            State::Sent if over => {
                self.finish(
                    id,
                    OutcomeKind::Unconfirmed,
                    "it was sent, but the agent did not confirm it",
                    now,
                );
            }
            State::Stored | State::Sent if present && !row.withdrawn => self.send(id, now),
            State::Stored | State::Sent => {
                let deadline = row.deadline;
                self.wake_at(id, deadline);
            }
            State::Received => {
                self.finish(
                    id,
                    OutcomeKind::Unconfirmed,
                    "the agent has it, but did not say what it did",
                    now,
                );
            }
            State::Active => {
                self.finish(id, OutcomeKind::Unconfirmed, "nobody told that its effect has ended", now);
            }
            State::Closed => self.remove(id),
        }
    }
}

/// Bytes that a draft holds by itself; one for all is shared.
fn weight(draft: &Draft) -> usize {
    match draft.audience {
        Audience::One(_) => draft.order.alert.get().len(),
        Audience::All { .. } => 0,
    }
}

/// An outcome that the manager itself states.
fn made(entry: &Entry, kind: OutcomeKind, detail: &str, now: Timestamp) -> Outcome {
    let order = &entry.draft.order;
    Outcome {
        order: entry.row.order.clone(),
        kind,
        response: order.response.clone(),
        program: order.executable.clone(),
        target: order.target.clone(),
        alert_id: order.alert_id.clone(),
        rule: order.rule,
        detail: cut(detail.to_owned()),
        evidence: Evidence::default(),
        at: now,
        until: None,
        timings: order.timings,
    }
}

/// What an agent reports, with the stages that only the manager knows, and no longer than it may be.
pub(super) fn complete(mut outcome: Outcome, draft: &Draft) -> Outcome {
    let Timings { event, alert, dispatched, .. } = draft.order.timings;
    let timings = &mut outcome.timings;
    (timings.event, timings.alert, timings.dispatched) = (event, alert, dispatched);
    outcome.response.clone_from(&draft.order.response);
    outcome.alert_id.clone_from(&draft.order.alert_id);
    outcome.rule = draft.order.rule;
    outcome.detail = cut(outcome.detail);
    outcome.program = cut(outcome.program);
    outcome.evidence.read_back = outcome.evidence.read_back.map(cut);
    outcome.evidence.stderr = outcome.evidence.stderr.map(cut);
    outcome
}

fn cut(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(MOST_TEXT));
    text
}
