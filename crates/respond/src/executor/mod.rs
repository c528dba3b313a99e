//! The state machine of all effects of this endpoint, owned by one thread. A cycle takes what has arrived, makes the
//! intent durable in one transaction, changes the kernel in one, reads back, makes the result durable, and only then
//! tells. Files are run by threads of their own which report back as [`Input`]s.
//! Invariant: nothing is done before the journal says that it may have been done.

#[cfg(test)]
mod cut_tests;
mod firewall;
mod intake;
mod locals;
mod replay;
mod report;
mod scripts;
#[cfg(test)]
mod tests;

pub(crate) use intake::{BLOCKERS, check_keys_line, keys_line};
pub(crate) use locals::watch as watch_files;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender};
use std::time::Duration;

use tld_model::{
    Evidence, Order, OrderId, Outcome, OutcomeKind, RuleId, Stage, Target, Timestamp, Timings, Zone,
};
use tld_sys::clock::Clock;

use crate::actions::{Action, Local, Places, Subject};
use crate::control::{Reply, Request};
use crate::executable::Recogniser;
use crate::guard::Guard;
use crate::journal::{Journal, State, Step, Until};
use crate::kernel::{Kernel, Unable};
use crate::log::{Lines, Writer};
use crate::reconcile::Reconciler;
use crate::scheduler::Scheduler;
use crate::script::{Answer, Report, Verb};
use crate::{ActiveEffect, CrashPoint, Limits, LogFn, RevertSelector, escalation};

/// What reaches the executor.
#[derive(Debug)]
pub(crate) enum Input {
    Order(Box<Order>),
    Revert(RevertSelector),
    /// A file sent its key line and waits.
    Keys {
        effect: i64,
        line: Vec<u8>,
        /// What one of our own actions found before it changed anything.
        prior: Option<String>,
        reply: Sender<Answer>,
    },
    /// A file ended.
    Finished {
        effect: i64,
        verb: Verb,
        report: Report,
    },
    /// A manager has stored an outcome.
    Confirmed(OrderId, OutcomeKind),
    /// A manager withdraws an order.
    Withdrawn(OrderId),
    /// Somebody else, by this name if it is known, changed the firewall.
    KernelChanged(Option<String>),
    /// Something that a local action looks after changed.
    LocalChanged,
    /// What a look at local effects found: in place, gone, or not to be told.
    Looked(Vec<(i64, Result<bool, String>)>),
    Active(Sender<Vec<ActiveEffect>>),
    /// An operator's wish.
    Control(Request, Sender<Reply>),
    Stop,
}

/// What the executor is told at start and never changes.
#[derive(Clone)]
pub(crate) struct Settings {
    pub(crate) home: PathBuf,
    pub(crate) repeated_offenders: Vec<u32>,
    pub(crate) limits: Limits,
    pub(crate) zone: Zone,
    pub(crate) crash_at: Option<CrashPoint>,
    pub(crate) log: LogFn,
    pub(crate) boot_id: String,
    pub(crate) places: Places,
    /// Why there is no firewall.
    pub(crate) unable: Option<Unable>,
    /// Why the kernel is left alone.
    pub(crate) dry_run: Option<String>,
}

/// What an outcome needs of an order, so that thousands of alerts need not stay in memory.
#[derive(Debug, Clone)]
pub(crate) struct Head {
    pub(crate) order: OrderId,
    pub(crate) response: String,
    pub(crate) alert_id: String,
    pub(crate) rule: Option<RuleId>,
    pub(crate) target: Target,
    pub(crate) timings: Timings,
    pub(crate) timeout: u64,
    pub(crate) steps: Vec<u32>,
    pub(crate) reported: bool,
}

impl From<&Order> for Head {
    fn from(order: &Order) -> Self {
        Self {
            order: order.id.clone(),
            response: order.response.clone(),
            alert_id: order.alert_id.clone(),
            rule: order.rule,
            target: order.target.clone(),
            timings: order.timings,
            timeout: order.timeout_secs,
            steps: order.options.repeated_offenders.clone(),
            reported: order.options.reported,
        }
    }
}

/// One effect that is not closed.
#[derive(Debug)]
pub(crate) struct Effect {
    pub(crate) id: i64,
    pub(crate) head: Head,
    pub(crate) program: String,
    pub(crate) action: Option<(&'static dyn Action, Subject)>,
    /// One of our own actions outside the firewall.
    pub(crate) local: Option<(&'static dyn Local, Subject)>,
    /// What it found before it changed anything.
    pub(crate) prior: Option<String>,
    /// It is put back, not begun: no word of it in the log of responses.
    pub(crate) quiet: bool,
    pub(crate) key: Option<String>,
    pub(crate) state: State,
    pub(crate) until: Option<Until>,
    pub(crate) length: u64,
    pub(crate) attempts: u32,
    pub(crate) failed: bool,
    /// The file was told to abort: another effect of this key is active until then.
    pub(crate) aborted: Option<Aborted>,
    /// Lifted by hand: ends as soon as it may, and does not count as a finished block.
    pub(crate) lifted: bool,
    /// After a crash: once its `delete` ran, it is added again.
    pub(crate) again: bool,
    /// Its first outcome was told before a restart.
    pub(crate) told: bool,
    /// Begun although the journal could not be written: the kernel itself will end it.
    pub(crate) unjournaled: bool,
}

impl Effect {
    /// Whom one of our own actions acts on.
    pub(crate) fn subject(&self) -> Option<&Subject> {
        let local = || self.local.as_ref().map(|(_, subject)| subject);
        self.action.as_ref().map(|(_, subject)| subject).or_else(local)
    }
}

/// Why a file was told to abort.
#[derive(Debug, Clone)]
pub(crate) enum Aborted {
    Active(Option<Until>),
    Refused(String),
}

struct Parked {
    effect: i64,
    reply: Sender<Answer>,
}

enum After {
    Tell(Box<Outcome>),
    Answer(Sender<Answer>, Answer),
    Start(i64, Verb),
    Log(String),
    /// A reported order is in the journal.
    Received(OrderId),
}

/// See the module.
pub(crate) struct Executor {
    settings: Settings,
    clock: Arc<dyn Clock>,
    journal: Journal,
    kernel: Option<Box<dyn Kernel>>,
    guard: Guard,
    recogniser: Recogniser,
    writer: Writer,
    scheduler: Scheduler,
    effects: HashMap<i64, Effect>,
    keys: HashMap<String, i64>,
    orders: HashMap<OrderId, i64>,
    subjects: HashMap<Subject, BTreeSet<i64>>,
    parked: HashMap<String, VecDeque<Parked>>,
    waiting: VecDeque<i64>,
    waiting_reverts: VecDeque<i64>,
    running: usize,
    running_reverts: usize,
    waiting_locals: VecDeque<(i64, Verb)>,
    running_locals: usize,
    looking: bool,
    look_due: Option<Duration>,
    /// By an operator: nothing new is begun, nothing put back.
    paused: bool,
    reconciler: Reconciler,
    outcomes: Sender<Outcome>,
    reporter: report::Reporter,
    inbox: SyncSender<Input>,
    steps: Vec<Step>,
    /// Where among the pending steps the last one on a row stands.
    dirty: HashMap<i64, usize>,
    /// Why the journal was not to be written last time, and when it is tried again.
    unwritable: Option<(String, Duration)>,
    after: Vec<After>,
    pruned: Duration,
}

/// The parts an executor is put together from.
pub(crate) struct Parts {
    pub(crate) settings: Settings,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) journal: Journal,
    pub(crate) kernel: Option<Box<dyn Kernel>>,
    pub(crate) guard: Guard,
    pub(crate) recogniser: Recogniser,
    pub(crate) writer: Writer,
    pub(crate) outcomes: Sender<Outcome>,
    pub(crate) inbox: SyncSender<Input>,
}

impl Executor {
    pub(crate) fn new(parts: Parts) -> Self {
        let pruned = parts.clock.boot();
        let paused = crate::control::is_paused(&parts.settings.home);
        Self {
            settings: parts.settings,
            clock: parts.clock,
            journal: parts.journal,
            kernel: parts.kernel,
            guard: parts.guard,
            recogniser: parts.recogniser,
            writer: parts.writer,
            scheduler: Scheduler::default(),
            effects: HashMap::new(),
            keys: HashMap::new(),
            orders: HashMap::new(),
            subjects: HashMap::new(),
            parked: HashMap::new(),
            waiting: VecDeque::new(),
            waiting_reverts: VecDeque::new(),
            running: 0,
            running_reverts: 0,
            waiting_locals: VecDeque::new(),
            running_locals: 0,
            looking: false,
            look_due: None,
            paused,
            reconciler: Reconciler::default(),
            outcomes: parts.outcomes,
            reporter: report::Reporter::default(),
            inbox: parts.inbox,
            steps: Vec::new(),
            dirty: HashMap::new(),
            unwritable: None,
            after: Vec::new(),
            pruned,
        }
    }

    /// Works until it is told to stop. Blocks stay where they are.
    pub(crate) fn run(mut self, inbox: &Receiver<Input>) {
        let mut stop_at = None;
        loop {
            let mut batch = Vec::new();
            match inbox.recv_timeout(self.wait()) {
                Ok(input) => batch.push(input),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            batch.extend(inbox.try_iter().take(BATCH));
            let stop = batch.iter().any(|input| matches!(input, Input::Stop));
            self.cycle(batch);
            if stop {
                stop_at = Some(self.clock.boot() + STOP_GRACE);
            }
            // Files that run now get a moment to end, so that their state is known at the next start.
            let busy = self.running + self.running_reverts + self.running_locals > 0;
            if stop_at.is_some_and(|at| !busy || self.clock.boot() >= at) {
                self.commit();
                return;
            }
        }
    }

    /// How long nothing is due. Never long: the timer of the wait stands still while the machine sleeps.
    fn wait(&mut self) -> Duration {
        let now = self.clock.boot();
        let longest = if self.reconciler.is_pending() { crate::reconcile::SETTLE } else { LONGEST_WAIT };
        self.scheduler.next().map_or(longest, |due| due.saturating_sub(now).min(longest))
    }

    /// One round: what arrived, what is due, what must be healed.
    pub(crate) fn cycle(&mut self, batch: Vec<Input>) {
        let mut orders = Vec::new();
        let mut lifted = Vec::new();
        let mut changed = false;
        let mut replies: Vec<(Sender<Reply>, Reply)> = Vec::new();
        for input in batch {
            match input {
                Input::Order(order) => orders.push((*order, None)),
                Input::Revert(selector) => lifted.extend(self.select(&selector)),
                Input::Keys { effect, line, prior, reply } => self.keys_told(effect, &line, prior, reply),
                Input::Confirmed(order, kind) => self.confirmed(order, kind),
                Input::Withdrawn(order) => match self.call_off(order) {
                    Ok(ids) => lifted.extend(ids),
                    Err(order) => orders.push((*order, None)),
                },
                Input::LocalChanged => self.look_due = Some(Duration::ZERO),
                Input::Looked(found) => self.looked(&found),
                Input::Finished { effect, verb: Verb::Add, report } => self.add_finished(effect, &report),
                Input::Finished { effect, verb: Verb::Delete, report } => {
                    self.delete_finished(effect, &report);
                }
                Input::KernelChanged(by) => {
                    changed = true;
                    self.reconciler.culprit(by);
                }
                Input::Control(request, reply) => match request {
                    Request::Add(order) => {
                        let taken = Reply::Taken(vec![order.id.clone()]);
                        orders.push((*order, None));
                        replies.push((reply, taken));
                    }
                    Request::Revert(selector) => {
                        let chosen = self.select(&selector);
                        replies.push((reply, Reply::Taken(self.orders_of(&chosen))));
                        lifted.extend(chosen);
                    }
                    Request::Extend(selector, secs) => {
                        let chosen = self.extend_by_hand(&selector, secs);
                        replies.push((reply, Reply::Taken(self.orders_of(&chosen))));
                    }
                    Request::Pause => replies.push((reply, self.pause(true))),
                    Request::Resume => replies.push((reply, self.pause(false))),
                },
                Input::Active(reply) => {
                    let _ = reply.send(self.active());
                }
                Input::Stop => {}
            }
        }
        self.take_in(orders);
        for (reply, word) in replies {
            let _ = reply.send(word);
        }
        let now = self.clock.boot();
        let mut due = self.scheduler.due(now, BATCH);
        due.extend(lifted);
        self.revert(&due);
        self.pump();
        self.finish_step();
        if !self.paused {
            self.reconcile(changed);
            self.look_at_locals();
        }
        if now.saturating_sub(self.pruned) > PRUNE {
            self.pruned = now;
            match self.journal.prune(self.now()) {
                // The rest follows within a second, so that orders never wait long.
                Ok(true) => self.pruned = (now + PRUNE_PAUSE).saturating_sub(PRUNE),
                Ok(false) => {}
                Err(error) => self.say(&format!("cannot prune the journal: {}", error.in_full())),
            }
        }
    }

    /// Commits what is pending, then does what was waiting for it.
    fn finish_step(&mut self) {
        let durable = self.commit();
        for after in std::mem::take(&mut self.after) {
            match after {
                // What would not be found after a crash is not begun. A file waits for its answer, in vain if need be.
                After::Start(_, Verb::Add) | After::Answer(_, Answer::Continue) if !durable => {
                    self.after.push(after);
                }
                // Nobody listening is no reason to stop protecting.
                After::Tell(outcome) => {
                    self.report(&outcome);
                    drop(self.outcomes.send(*outcome));
                }
                After::Received(order) if durable => self.received(order),
                After::Received(_) => {}
                After::Answer(reply, answer) => drop(reply.send(answer)),
                After::Start(effect, verb) => self.start(effect, verb),
                After::Log(text) => self.writer.append(text),
            }
        }
        if self.settings.crash_at == Some(CrashPoint::WhileActive)
            && self.effects.values().any(|effect| effect.state == State::Active)
        {
            self.crash(CrashPoint::WhileActive);
        }
    }

    /// Makes the pending steps durable. If that fails they stay pending and are tried again, at most once a second.
    fn commit(&mut self) -> bool {
        let boot = self.clock.boot();
        if self.steps.is_empty() {
            return true;
        }
        if self.unwritable.as_ref().is_some_and(|(_, again)| boot < *again) {
            return false;
        }
        match self.journal.write(&self.steps, self.now()) {
            Ok(()) => {
                if self.unwritable.take().is_some() {
                    self.say(&format!(
                        "the journal is written again, {} steps were made up for",
                        self.steps.len()
                    ));
                }
                self.steps.clear();
                self.dirty.clear();
                true
            }
            Err(error) => {
                let why = error.in_full();
                if self.unwritable.is_none() {
                    self.say(&format!(
                        "ALARM: the journal cannot be written: {why}; blocks that the kernel ends by itself are applied \
                         without it, every other response is refused until it can"
                    ));
                }
                self.unwritable = Some((why, boot + WRITE_AGAIN));
                false
            }
        }
    }

    /// A step on a row that waits to be written takes the later one in.
    fn pending(&mut self, id: i64) -> Option<&mut Step> {
        let at = *self.dirty.get(&id)?;
        self.steps.get_mut(at)
    }

    fn push(&mut self, id: i64, step: Step) {
        self.dirty.insert(id, self.steps.len());
        self.steps.push(step);
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_nanos(self.clock.wall_nanos())
    }

    fn until(&self, length: u64) -> Option<Until> {
        let length = Duration::from_secs(length.min(MOST_SECS));
        (!length.is_zero()).then(|| Until { boot: self.clock.boot() + length, wall: self.now().plus(length) })
    }

    /// Seconds that a new block of `key` lasts.
    fn length(&self, head: &Head, key: &str) -> u64 {
        let own = &self.settings.repeated_offenders;
        let steps = if head.steps.is_empty() { own } else { &head.steps };
        if steps.is_empty() || head.timeout == 0 {
            return head.timeout;
        }
        let offender = self.journal.offender(key).unwrap_or_else(|error| {
            (self.settings.log)(&format!("cannot read the repeat offenders: {error}"));
            None
        });
        escalation::effective(head.timeout, steps, offender.as_ref(), self.now())
    }

    /// Writes where an effect stands.
    fn note(&mut self, id: i64) {
        let Some(effect) = self.effects.get(&id) else { return };
        let (state, key, until, prior) =
            (effect.state, effect.key.clone(), effect.until, effect.prior.clone());
        let (length, attempts, failed) = (effect.length, effect.attempts, effect.failed);
        let told = match self.pending(id) {
            Some(Step::Insert(entry)) => {
                (entry.state, entry.key, entry.until, entry.prior) = (state, key, until, prior);
                (entry.length, entry.attempts, entry.failed) = (length, attempts, failed);
                return;
            }
            Some(Step::Advance { outcome, .. }) => outcome.take(),
            _ => None,
        };
        let step = Step::Advance { id, state, key, until, length, attempts, failed, prior, outcome: told };
        match self.pending(id) {
            Some(pending @ Step::Advance { .. }) => *pending = step,
            _ => self.push(id, step),
        }
    }

    /// Reports an outcome once it is durable.
    fn tell(&mut self, id: i64, outcome: Outcome) {
        self.keep_untold(&outcome);
        let told = Box::new(outcome.clone());
        match self.pending(id) {
            Some(Step::Insert(entry)) => entry.outcome = Some(*told),
            Some(Step::Advance { outcome, .. }) => *outcome = Some(told),
            Some(Step::Report { outcome, .. }) => *outcome = told,
            _ => self.push(id, Step::Report { id, outcome: told }),
        }
        self.after.push(After::Tell(Box::new(outcome)));
    }

    fn outcome(&self, effect: &Effect, kind: OutcomeKind, detail: String, evidence: Evidence) -> Outcome {
        let now = self.now();
        let mut timings = effect.head.timings;
        if kind == OutcomeKind::Applied {
            if timings.applied == 0 {
                timings.mark(Stage::Applied, now);
            }
            timings.mark(Stage::Verified, now);
        }
        let running = matches!(kind, OutcomeKind::Applied | OutcomeKind::AlreadyActive);
        Outcome {
            order: effect.head.order.clone(),
            kind,
            response: effect.head.response.clone(),
            program: effect.program.clone(),
            target: effect.head.target.clone(),
            alert_id: effect.head.alert_id.clone(),
            rule: effect.head.rule,
            detail,
            evidence,
            at: now,
            until: effect.until.filter(|_| running).map(|until| until.wall),
            timings,
        }
    }

    /// Tells the last word on an effect and forgets it.
    fn close(&mut self, id: i64, kind: OutcomeKind, detail: String, evidence: Evidence) {
        let Some(effect) = self.effects.get(&id) else { return };
        let outcome = self.outcome(effect, kind, detail, evidence);
        self.shut(id);
        self.tell(id, outcome);
    }

    /// Forgets an effect without a word.
    fn shut(&mut self, id: i64) {
        if let Some(effect) = self.effects.get_mut(&id) {
            effect.state = State::Closed;
        }
        self.note(id);
        let Some(effect) = self.effects.remove(&id) else { return };
        self.scheduler.cancel(id);
        self.orders.remove(&effect.head.order);
        if let Some(key) = &effect.key
            && self.keys.get(key) == Some(&id)
        {
            self.keys.remove(key);
        }
        if let Some((_, subject)) = &effect.action
            && let Some(holders) = self.subjects.get_mut(subject)
        {
            holders.remove(&id);
            if holders.is_empty() {
                self.subjects.remove(subject);
            }
        }
    }

    /// Remembers an effect in every index.
    fn keep(&mut self, effect: Effect) {
        self.reporter.follow(&effect.head.order, effect.head.reported);
        self.orders.insert(effect.head.order.clone(), effect.id);
        if let Some(key) = &effect.key {
            self.keys.insert(key.clone(), effect.id);
        }
        if let Some((_, subject)) = &effect.action {
            self.subjects.entry(subject.clone()).or_default().insert(effect.id);
        }
        self.effects.insert(effect.id, effect);
    }

    fn orders_of(&self, ids: &[i64]) -> Vec<OrderId> {
        ids.iter().filter_map(|id| Some(self.effects.get(id)?.head.order.clone())).collect()
    }

    /// Moves ends out by an operator's hand.
    fn extend_by_hand(&mut self, selector: &RevertSelector, secs: u64) -> Vec<i64> {
        let mut chosen = self.chosen(selector);
        chosen.retain(|id| self.is(*id, State::Active));
        let asked = self.until(secs);
        for id in &chosen {
            self.move_end(*id, asked);
        }
        self.commit();
        for (id, result) in self.enforce(&chosen) {
            if let Err(why) = result {
                self.say(&format!("ALARM: the new end of effect {id} is not in the firewall: {why}"));
            }
        }
        chosen
    }

    fn pause(&mut self, paused: bool) -> Reply {
        match crate::control::mark_paused(&self.settings.home, paused) {
            Ok(()) => {
                self.paused = paused;
                let word = if paused { "paused" } else { "resumed" };
                self.say(&format!("responses are {word} by an operator"));
                if !paused {
                    self.look_due = None;
                    self.compare("responses were resumed");
                }
                Reply::Taken(Vec::new())
            }
            Err(error) => Reply::Refused(format!("the pause cannot be recorded: {error}")),
        }
    }

    fn select(&mut self, selector: &RevertSelector) -> Vec<i64> {
        let chosen = self.chosen(selector);
        for id in &chosen {
            if let Some(effect) = self.effects.get_mut(id) {
                effect.lifted = true;
            }
        }
        chosen
    }

    fn chosen(&self, selector: &RevertSelector) -> Vec<i64> {
        match selector {
            RevertSelector::Order(order) => self.orders.get(order).copied().into_iter().collect(),
            RevertSelector::Address(address) => {
                let address = address.to_canonical();
                let every = self.effects.values().filter(|effect| {
                    effect.subject().map_or_else(
                        || effect.head.target == Target::Address(address),
                        |subject| subject.address() == Some(address),
                    )
                });
                every.map(|effect| effect.id).collect()
            }
            RevertSelector::All => self.effects.keys().copied().collect(),
        }
    }

    fn active(&self) -> Vec<ActiveEffect> {
        let mut active: Vec<_> = self
            .effects
            .values()
            .filter(|effect| matches!(effect.state, State::Active | State::Reverting))
            .map(|effect| ActiveEffect {
                order: effect.head.order.clone(),
                response: effect.head.response.clone(),
                program: effect.program.clone(),
                key: effect.key.clone().unwrap_or_default(),
                target: effect.head.target.clone(),
                state: effect.state,
                until: effect.until.map(|until| until.wall),
            })
            .collect();
        active.sort_by(|one, other| one.order.cmp(&other.order));
        active
    }

    fn lines<'a>(&self, program: &'a str) -> Lines<'a> {
        Lines::new(program, &self.settings.zone, self.now())
    }

    fn crash(&self, point: CrashPoint) {
        if self.settings.crash_at == Some(point) {
            let own = rustix::process::getpid();
            let _ = rustix::process::kill_process(own, rustix::process::Signal::KILL);
        }
    }

    /// The next try of a revert that failed: soon, then ever more rarely, but always.
    fn plan_retry(&mut self, id: i64) {
        let Some(effect) = self.effects.get(&id) else { return };
        let pause = Duration::from_secs(1 << effect.attempts.min(8)).min(LONGEST_PAUSE);
        self.scheduler.plan(id, self.clock.boot() + pause);
    }
}

const BATCH: usize = 512;
const LONGEST_WAIT: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(300);
const STOP_GRACE: Duration = Duration::from_secs(3);
const PRUNE: Duration = Duration::from_secs(3_600);
const PRUNE_PAUSE: Duration = Duration::from_secs(1);
const WRITE_AGAIN: Duration = Duration::from_secs(1);
/// A hundred years: a longer timeout would overflow clocks.
const MOST_SECS: u64 = 100 * 365 * 86_400;
