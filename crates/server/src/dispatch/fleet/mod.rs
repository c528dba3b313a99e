//! Orders to agents: written down, sent, and followed until it is known what became of them.
//!
//! One thread keeps the book and writes the ledger; whatever comes while it writes is written together with the next write, so
//! that a burst of orders costs one flush. Another thread gives what is written to the channel, because sealing for thousands
//! of agents takes time that the next order must not wait.
//! Invariant: no order is sent before it is on the disk, and nobody who brings news waits for the disk, an agent or the network.

mod book;
pub mod control;
mod evidence;
#[cfg(test)]
pub(crate) mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::Duration;

use tld_model::{AgentId, Event, Order, OrderId, Outcome, OutcomeKind, Timestamp};
use tld_policy::Policy;
use tld_respond::carrier::{Carrier, DeliverError};
use tld_sys::clock::Clock;
use tld_wire::extension::Ticket;

use super::ledger::{Draft, Ledger, LedgerError, Step};
use crate::log::{Level, Log};
use crate::reach::{Attendant, Queued, Reach, ReachError};
use crate::registry::{Agent, Registry};
use book::{Act, Book, Sending};
use control::{Reply, Request};

pub(crate) use evidence::is_one as is_evidence;

/// News that may wait for the book; then who brings more waits.
const INBOX: usize = 16_384;
/// News taken in one go, and written with one flush.
const BATCH: usize = 4_096;
/// Longest sleep: the doorbell is looked at that often even if nobody rings.
const NAP: Duration = Duration::from_millis(500);
/// Between tidyings of the ledger.
const TIDYING: Duration = Duration::from_secs(60);
/// Steps that a full disk keeps from being written and that are kept for later.
const MOST_UNWRITTEN: usize = 100_000;
/// Outcomes told one by one; more at once are summed up.
const MOST_TOLD: usize = 20;

/// Where the manager's own responder takes orders.
#[derive(Clone)]
pub struct Own(Arc<Mutex<Box<dyn Carrier>>>);

impl fmt::Debug for Own {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Own").finish_non_exhaustive()
    }
}

impl Own {
    /// By that carrier.
    pub fn new(carrier: Box<dyn Carrier>) -> Self {
        Self(Arc::new(Mutex::new(carrier)))
    }
}

impl Carrier for Own {
    fn deliver(&self, order: &Order) -> Result<(), DeliverError> {
        lock(&self.0).deliver(order)
    }
}

/// What the fleet's orders need.
pub struct Setup {
    /// Home directory.
    pub home: PathBuf,
    /// The agents.
    pub registry: Arc<Registry>,
    /// The manager's own responder.
    pub own: Own,
    /// The allow list, for orders by hand.
    pub policy: Arc<Policy>,
    /// Clock.
    pub clock: Arc<dyn Clock>,
    /// The service's log.
    pub log: Log,
}

impl fmt::Debug for Setup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Setup").field("home", &self.home).finish_non_exhaustive()
    }
}

enum Input {
    Submit(Box<Draft>, bool),
    Refused(Box<Draft>, AgentId, String),
    Sent(i64, Result<Queued, ReachError>),
    Received(AgentId, OrderId),
    Outcome(AgentId, Box<Outcome>),
    Evidence(AgentId, Vec<u8>),
    Control(Request, Arc<Policy>, Sender<Reply>),
    Rung,
    Stop,
}

/// The orders of a manager. Share it in an [`Arc`]: the pipeline submits, the channel attends.
pub struct Fleet {
    inbox: SyncSender<Input>,
    doorbell: Arc<Doorbell>,
    registry: Arc<Registry>,
    policy: RwLock<Arc<Policy>>,
    own: Own,
    reach: Arc<Mutex<Option<Arc<dyn Reach>>>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    clock: Arc<dyn Clock>,
}

impl fmt::Debug for Fleet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fleet").finish_non_exhaustive()
    }
}

/// Who came and went since the book was last told: only the last counts, so that reconnecting storms are bounded by the number
/// of agents.
#[derive(Default)]
struct Doorbell(Mutex<BTreeMap<AgentId, Option<Arrival>>>);

/// An agent that came, and whether it confirms.
type Arrival = (Arc<Agent>, bool);

impl Fleet {
    /// Opens the ledger, goes on with what an earlier run left, and starts the threads.
    ///
    /// # Errors
    /// The ledger or a thread is not to be had.
    pub fn start(setup: Setup) -> Result<Arc<Self>, LedgerError> {
        let Setup { home, registry, own, policy, clock, log } = setup;
        let mut ledger = Ledger::open(&home)?;
        let now = Timestamp::from_nanos(clock.wall_nanos());
        let open = ledger.unfinished(now)?;
        if !open.rows.is_empty() {
            log.info(&format!("{} orders of an earlier run are not finished, they go on", open.rows.len()));
        }
        let book = Book::restore(open, now);
        // Tidying at once keeps a ledger in bounds whose manager is started often.
        ledger.prune(now)?;
        let (inbox, news) = sync_channel(INBOX);
        let (sendings, outgoing) = channel();
        let (doorbell, reach) = (Arc::<Doorbell>::default(), Arc::<Mutex<Option<Arc<dyn Reach>>>>::default());
        let keeper = Keeper {
            book,
            ledger,
            unwritten: Vec::new(),
            sendings,
            reach: Arc::clone(&reach),
            own: own.clone(),
            registry: Arc::clone(&registry),
            doorbell: Arc::clone(&doorbell),
            clock: Arc::clone(&clock),
            log,
            tidied: now,
            troubled: false,
        };
        let spawn = |name: &str, work: Box<dyn FnOnce() + Send>| {
            std::thread::Builder::new().name(name.into()).spawn(work).map_err(LedgerError::Thread)
        };
        let (answers, way) = (inbox.clone(), Arc::clone(&reach));
        let threads = vec![
            spawn("ledger", Box::new(move || keeper.run(&news)))?,
            spawn("dispatch", Box::new(move || send_all(&outgoing, &way, &answers)))?,
        ];
        Ok(Arc::new(Self {
            inbox,
            doorbell,
            registry,
            policy: RwLock::new(policy),
            own,
            reach,
            threads: Mutex::new(threads),
            clock,
        }))
    }

    /// The way to agents. Until it is set, orders wait.
    pub fn connect(&self, reach: Arc<dyn Reach>) {
        *lock(&self.reach) = Some(reach);
    }

    /// Forgets the way: orders are still written down, and wait for the next start.
    pub fn disconnect(&self) {
        *lock(&self.reach) = None;
    }

    /// The agents.
    pub fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }

    /// The manager's own responder.
    pub fn own(&self) -> &Own {
        &self.own
    }

    /// The allow list and responses in force.
    pub fn policy(&self) -> Arc<Policy> {
        Arc::clone(&self.policy.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes over a reloaded policy.
    pub fn swap(&self, policy: Arc<Policy>) {
        *self.policy.write().unwrap_or_else(PoisonError::into_inner) = policy;
    }

    pub(super) fn now(&self) -> Timestamp {
        Timestamp::from_nanos(self.clock.wall_nanos())
    }

    /// Takes an answer to an alert, or one by hand. `carried`: it is for the manager itself, whose responder has it already.
    /// Waits only while thousands of others are waiting.
    pub fn submit(&self, draft: Draft, carried: bool) {
        // After the stop nobody is left to be answered.
        let _ = self.inbox.send(Input::Submit(Box::new(draft), carried));
    }

    /// Writes down an answer that a guard refused.
    pub fn refuse(&self, draft: Draft, agent: AgentId, reason: String) {
        let _ = self.inbox.send(Input::Refused(Box::new(draft), agent, reason));
    }

    /// Tells of an outcome of the manager's own responder.
    pub fn own_outcome(&self, outcome: Outcome) {
        let _ = self.inbox.send(Input::Outcome(AgentId::MANAGER, Box::new(outcome)));
    }

    /// Writes down that the manager's own responder did not take an order.
    pub(super) fn own_failed(&self, order: &Order, why: &str) {
        self.own_outcome(Outcome {
            order: order.id.clone(),
            kind: OutcomeKind::Failed,
            response: order.response.clone(),
            program: order.executable.clone(),
            target: order.target.clone(),
            alert_id: order.alert_id.clone(),
            rule: order.rule,
            detail: why.to_owned(),
            evidence: tld_model::Evidence::default(),
            at: self.now(),
            until: None,
            timings: order.timings,
        });
    }

    /// Shows an event of an agent; lines of its responses' log prove what became of orders.
    pub fn watch(&self, event: &Event) {
        if event.agent.id != AgentId::MANAGER && is_evidence(event) {
            let _ = self.inbox.send(Input::Evidence(event.agent.id, event.text.clone()));
        }
    }

    /// Carries out an operator's wish.
    pub fn control(&self, request: Request) -> Reply {
        let (reply, answer) = channel();
        if self.inbox.send(Input::Control(request, self.policy(), reply)).is_err() {
            return Reply::Refused("the manager is stopping".into());
        }
        answer
            .recv_timeout(control::PATIENCE)
            .unwrap_or_else(|_| Reply::Refused("the manager is too busy".into()))
    }

    /// Passes on what another tool of this host sends to agents as it is (wire 5.1); true if it was queued.
    pub fn relay(&self, agent: AgentId, payload: &[u8]) -> Result<Queued, ReachError> {
        let reach = lock(&self.reach).clone();
        reach.map_or(Err(ReachError::Away), |reach| reach.relay(agent, payload))
    }

    /// Writes what is left and ends the threads. Orders stay; the next start goes on with them.
    pub fn stop(&self) {
        let _ = self.inbox.send(Input::Stop);
        for thread in lock(&self.threads).drain(..) {
            let _ = thread.join();
        }
        self.disconnect();
    }

    fn ring(&self, agent: AgentId, news: Option<Arrival>) {
        lock(&self.doorbell.0).insert(agent, news);
        // With a full inbox the keeper is awake anyway.
        let _ = self.inbox.try_send(Input::Rung);
    }
}

impl Attendant for Fleet {
    fn ready(&self, agent: &Arc<Agent>, confirms: bool) {
        self.ring(agent.id, Some((Arc::clone(agent), confirms)));
    }

    fn gone(&self, agent: AgentId) {
        self.ring(agent, None);
    }

    fn received(&self, agent: AgentId, order: &OrderId) {
        // Lost, it is asked for again.
        let _ = self.inbox.try_send(Input::Received(agent, order.clone()));
    }

    fn outcome(&self, agent: AgentId, outcome: Outcome) {
        // Lost, the agent reports it again, since nobody confirms it.
        let _ = self.inbox.try_send(Input::Outcome(agent, Box::new(outcome)));
    }
}

/// The thread that keeps the book.
struct Keeper {
    book: Book,
    ledger: Ledger,
    unwritten: Vec<Step>,
    sendings: Sender<Box<Sending>>,
    reach: Arc<Mutex<Option<Arc<dyn Reach>>>>,
    own: Own,
    registry: Arc<Registry>,
    doorbell: Arc<Doorbell>,
    clock: Arc<dyn Clock>,
    log: Log,
    tidied: Timestamp,
    troubled: bool,
}

impl Keeper {
    fn run(mut self, news: &Receiver<Input>) {
        loop {
            let first = match news.recv_timeout(self.nap()) {
                Ok(input) => Some(input),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            let mut replies = Vec::new();
            let mut stop = false;
            for input in first.into_iter().chain(std::iter::from_fn(|| news.try_recv().ok())).take(BATCH) {
                stop |= matches!(input, Input::Stop);
                self.take(input, &mut replies);
            }
            self.answer_the_door();
            let now = self.now();
            self.book.tick(now);
            self.write(now);
            for (reply, text) in replies {
                let _: Result<(), _> = reply.send(text);
            }
            self.act();
            if stop {
                return;
            }
            self.tidy(now);
        }
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_nanos(self.clock.wall_nanos())
    }

    fn nap(&self) -> Duration {
        self.book.next_due().map_or(NAP, |due| due.since(self.now()).min(NAP))
    }

    fn take(&mut self, input: Input, replies: &mut Vec<(Sender<Reply>, Reply)>) {
        let now = self.now();
        match input {
            Input::Submit(draft, carried) => self.book.submit(*draft, carried, &self.registry.table(), now),
            Input::Refused(draft, agent, reason) => self.book.refused(*draft, agent, &reason, now),
            Input::Sent(row, result) => self.book.sent(row, result, now),
            Input::Received(agent, order) => self.book.received(agent, &order),
            Input::Outcome(agent, outcome) => self.outcome(agent, outcome, now),
            Input::Evidence(agent, text) => {
                if self.book.awaits(agent) {
                    self.book.evidence(agent, &String::from_utf8_lossy(&text), now);
                }
            }
            Input::Control(request, policy, reply) => {
                let table = self.registry.table();
                let endless = match &request {
                    // What cannot be looked up is not undone, and the operator is told nothing wrong.
                    Request::Revert { .. } => self.ledger.endless().unwrap_or_default(),
                    Request::Add(_) => Vec::new(),
                };
                let text = control::carry_out(&mut self.book, request, endless, &policy, &table, now);
                replies.push((reply, text));
            }
            Input::Rung | Input::Stop => {}
        }
    }

    fn outcome(&mut self, agent: AgentId, outcome: Box<Outcome>, now: Timestamp) {
        if !self.book.outcome(agent, &outcome, now) {
            self.late(agent, &outcome);
        }
        // Also for an order that is not known any more, or the agent would report it for ever.
        if agent != AgentId::MANAGER {
            self.book.acts.push(Act::Confirm(agent, outcome));
        }
    }

    /// An agent tells after all what became of an order that was given up, or that an effect without end was undone.
    fn late(&mut self, agent: AgentId, outcome: &Outcome) {
        let Ok(Some((row, draft, last))) = self.ledger.closed(&outcome.order) else { return };
        let is_ending = matches!(outcome.kind, OutcomeKind::Reverted | OutcomeKind::RevertFailed);
        let in_force = matches!(last, OutcomeKind::Applied | OutcomeKind::AlreadyActive);
        let is_news = last == OutcomeKind::Unconfirmed || (is_ending && in_force);
        if row.agent != agent || !is_news {
            return;
        }
        let outcome = Box::new(book::complete(outcome.clone(), &draft));
        self.book.acts.push(Act::Tell(agent, outcome.clone()));
        let (outcome, ending) = if is_ending { (None, Some(outcome)) } else { (Some(outcome), None) };
        self.book.steps.push(Step::Put { row, outcome, ending });
    }

    fn answer_the_door(&mut self) {
        let now = self.now();
        for (agent, news) in std::mem::take(&mut *lock(&self.doorbell.0)) {
            match news {
                Some((agent, confirms)) => {
                    let ledger = &self.ledger;
                    // An order that cannot be looked up is taken for known: twice is worse than a moment later.
                    self.book.ready(&agent, confirms, |order| ledger.knows(order).unwrap_or(true), now);
                }
                None => self.book.gone(agent),
            }
        }
    }

    /// What cannot be written is kept for the next time: a full disk must not disarm the responses.
    fn write(&mut self, now: Timestamp) {
        self.unwritten.append(&mut self.book.steps);
        match self.ledger.write(&self.unwritten, now) {
            Ok(()) => {
                self.unwritten.clear();
                if std::mem::take(&mut self.troubled) {
                    self.log.info("the ledger of orders is written again");
                }
            }
            Err(error) => {
                if !std::mem::replace(&mut self.troubled, true) {
                    self.log.error(&format!("orders are sent without being written down: {error}"));
                }
                let over = self.unwritten.len().saturating_sub(MOST_UNWRITTEN);
                self.unwritten.drain(..over);
            }
        }
    }

    fn act(&mut self) {
        let reach = lock(&self.reach).clone();
        let mut told = Vec::new();
        for act in std::mem::take(&mut self.book.acts) {
            match act {
                Act::Send(sending) => {
                    let _ = self.sendings.send(sending);
                }
                Act::Carry(draft) => self.carry(&draft),
                Act::Cancel(agent, order) => {
                    // Not queued, it is asked for again when the agent is back.
                    if let Some(reach) = &reach {
                        let _ = reach.cancel(agent, &order);
                    }
                }
                Act::Confirm(agent, outcome) => {
                    // What could not be written is not confirmed: the agent reports it again.
                    if let Some(reach) = reach.as_ref().filter(|_| !self.troubled) {
                        let _ = reach.confirm(agent, &outcome);
                    }
                }
                Act::Tell(agent, outcome) => told.push((agent, outcome)),
            }
        }
        tell(&self.log, &told);
    }

    fn carry(&mut self, draft: &Draft) {
        if let Err(error) = self.own.deliver(&draft.order) {
            self.log
                .error(&format!("the manager's responder did not take order {}: {error}", draft.order.id));
        }
    }

    fn tidy(&mut self, now: Timestamp) {
        if now.since(self.tidied) < TIDYING {
            return;
        }
        match self.ledger.prune(now) {
            Ok(true) => {}
            Ok(false) => self.tidied = now,
            Err(error) => {
                self.tidied = now;
                self.log.warning(&format!("old orders stay in the ledger: {error}"));
            }
        }
    }
}

/// Tells the log of outcomes; of many at once only how many there are of each kind.
fn tell(log: &Log, told: &[(AgentId, Box<Outcome>)]) {
    // The manager's own outcomes are reported by whoever runs its responder.
    let of_agents = || told.iter().filter(|(agent, _)| *agent != AgentId::MANAGER);
    if of_agents().count() > MOST_TOLD {
        let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
        for (_, outcome) in of_agents() {
            *kinds.entry(outcome.kind.name()).or_default() += 1;
        }
        let kinds: Vec<_> = kinds.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
        return log.info(&format!("outcomes of orders to agents: {}", kinds.join(", ")));
    }
    for (agent, outcome) in of_agents() {
        let level = match outcome.kind {
            OutcomeKind::RevertFailed | OutcomeKind::Failed => Level::Error,
            OutcomeKind::TimedOut
            | OutcomeKind::NotFound
            | OutcomeKind::Refused
            | OutcomeKind::Unsupported
            | OutcomeKind::Unconfirmed
            | OutcomeKind::Expired => Level::Warning,
            _ => Level::Info,
        };
        let proof = outcome.evidence.read_back.as_deref().unwrap_or(&outcome.detail);
        log.line(
            level,
            &format!(
                "{} {} on {} by agent {agent} (alert {}, order {}): {proof}",
                outcome.kind, outcome.response, outcome.target, outcome.alert_id, outcome.order
            ),
        );
    }
}

/// The thread that gives orders to the channel.
fn send_all(
    outgoing: &Receiver<Box<Sending>>,
    way: &Mutex<Option<Arc<dyn Reach>>>,
    answers: &SyncSender<Input>,
) {
    for sending in outgoing {
        let reach = lock(way).clone();
        let result = reach.map_or(Err(ReachError::Away), |reach| give(&sending, &*reach));
        if answers.send(Input::Sent(sending.row, result)).is_err() {
            return;
        }
    }
}

fn give(sending: &Sending, reach: &dyn Reach) -> Result<Queued, ReachError> {
    let draft = &sending.draft;
    if let Some(text) = draft.verbatim.as_ref().filter(|_| !sending.confirms) {
        return reach.relay(sending.agent, &[b"#!-execd ", text.as_bytes()].concat());
    }
    let deadline = draft.deadline();
    let ticket = Ticket {
        deadline_ns: Some(deadline.nanos()),
        ends_ns: (sending.late && draft.order.timeout_secs > 0).then(|| deadline.nanos()),
        options: draft.order.options.clone(),
        ..Ticket::new(sending.order.clone())
    };
    reach.order(sending.agent, &draft.message(), &ticket)
}

fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
