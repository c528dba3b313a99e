//! The state machine of all effects of this endpoint, owned by one thread. A cycle takes what has arrived, makes the
//! intent durable in one transaction, changes the kernel in one, reads back, makes the result durable, and only then
//! tells. Files are run by threads of their own which report back as [`Input`]s.
//! Invariant: nothing is done before the journal says that it may have been done.

#[cfg(test)]
mod cut_tests;
mod effect;
mod firewall;
mod intake;
mod locals;
mod operator;
mod record;
mod replay;
mod report;
mod scripts;
mod slots;
#[cfg(test)]
mod tests;

pub(crate) use effect::{Aborted, Effect, Head, Holders};
pub(crate) use intake::{BLOCKERS, check_keys_line, keys_line};
pub(crate) use locals::watch as watch_files;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender};
use std::time::Duration;

use tld_model::{Evidence, Order, OrderId, Outcome, OutcomeKind, Stage, Timestamp, Zone};
use tld_sys::child;
use tld_sys::clock::Clock;
use tld_sys::group::Groups;
use tld_sys::nft::Spot;

use crate::actions::Places;
use crate::control::{Reply, Request};
use crate::executable::Recogniser;
use crate::guard::Guard;
use crate::journal::{Journal, State, Step, Until};
use crate::kernel::{Kernel, Unable};
use crate::log::{Lines, Render, Writer};
use crate::reconcile::{Disturbance, Reconciler};
use crate::scheduler::Scheduler;
use crate::script::{Answer, Report, Verb};
use crate::{ActiveEffect, CrashPoint, Limits, LogFn, RevertSelector, escalation};
use slots::Slots;

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
    KernelChanged(Disturbance),
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
    /// Where files are kept together with all that they start.
    pub(crate) groups: Groups,
    /// Why there is no firewall.
    pub(crate) unable: Option<Unable>,
    /// Why the kernel is left alone.
    pub(crate) dry_run: Option<String>,
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
    /// The same, of about so many bytes, put into words by the log's thread.
    LogLater(usize, Render),
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
    effects: BTreeMap<i64, Box<Effect>>,
    /// Those outside the firewall.
    others: BTreeSet<i64>,
    /// Which of those holds a key.
    keys: HashMap<String, i64>,
    /// Which effects hold a spot of the firewall.
    spots: BTreeMap<Spot, Holders>,
    /// One text for each file name, however many effects it has.
    programs: HashSet<Arc<str>>,
    /// Begun while the journal cannot be written, so that it does not know them.
    unwritten: HashMap<OrderId, i64>,
    /// Blocks that stand since the steps that are pending.
    settled: Vec<i64>,
    /// Rows whose end is still told by the clock of another boot.
    stale: Vec<i64>,
    /// Files that are to add and to undo something: undos have room of their own.
    adds: Slots,
    undos: Slots,
    parked: HashMap<String, VecDeque<Parked>>,
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
    /// Undos that failed since the start.
    failed_reverts: u64,
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
        let (adds, undos) = scripts::room(&parts.settings.limits);
        Self {
            settings: parts.settings,
            clock: parts.clock,
            journal: parts.journal,
            kernel: parts.kernel,
            guard: parts.guard,
            recogniser: parts.recogniser,
            writer: parts.writer,
            scheduler: Scheduler::default(),
            effects: BTreeMap::new(),
            others: BTreeSet::new(),
            keys: HashMap::new(),
            spots: BTreeMap::new(),
            programs: HashSet::new(),
            unwritten: HashMap::new(),
            settled: Vec::new(),
            stale: Vec::new(),
            adds,
            undos,
            parked: HashMap::new(),
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
            failed_reverts: 0,
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
            let busy = self.adds.busy() + self.undos.busy() + self.running_locals > 0;
            if stop_at.is_some_and(|at| !busy || self.clock.boot() >= at) {
                self.end_files();
                self.commit();
                return;
            }
        }
    }

    /// A file that acts after this process would meet the next start's undo of it. One that nothing undoes is let go on:
    /// perhaps it is what restarts this service.
    fn end_files(&self) {
        for (id, number) in self.adds.processes().chain(self.undos.processes()) {
            let undone = self.effects.get(&id).is_some_and(|effect| effect.head().timeout > 0);
            if undone && let Some(group) = i32::try_from(number).ok().and_then(rustix::process::Pid::from_raw)
            {
                let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
            }
        }
    }

    /// How long nothing is due. Never long: the timer of the wait stands still while the machine sleeps.
    fn wait(&mut self) -> Duration {
        let now = self.clock.boot();
        let longest =
            self.reconciler.pause().filter(|_| !self.paused).unwrap_or(LONGEST_WAIT).min(LONGEST_WAIT);
        let looks = [self.adds.next_look(), self.undos.next_look()];
        let longest =
            looks.into_iter().flatten().fold(longest, |longest, at| at.saturating_sub(now).min(longest));
        self.scheduler.next().map_or(longest, |due| due.saturating_sub(now).min(longest))
    }

    /// One round: what arrived, what is due, what must be healed.
    pub(crate) fn cycle(&mut self, batch: Vec<Input>) {
        let mut orders = Vec::new();
        let mut replies: Vec<(Sender<Reply>, Reply)> = Vec::new();
        for input in batch {
            match input {
                Input::Order(order) => orders.push((*order, None)),
                Input::Revert(selector) => drop(self.select(&selector)),
                Input::Keys { effect, line, prior, reply } => self.keys_told(effect, &line, prior, reply),
                Input::Confirmed(order, kind) => self.confirmed(order, kind),
                Input::Withdrawn(order) => match self.call_off(order) {
                    Ok(_) => {}
                    Err(order) => orders.push((*order, None)),
                },
                Input::LocalChanged => self.look_due = Some(Duration::ZERO),
                Input::Looked(found) => self.looked(&found),
                Input::Finished { effect, verb: Verb::Add, report } => self.add_finished(effect, &report),
                Input::Finished { effect, verb: Verb::Delete, report } => {
                    self.delete_finished(effect, &report);
                }
                Input::KernelChanged(what) => self.reconciler.disturbed(what),
                Input::Control(request, reply) => match request {
                    Request::Add(order) => {
                        let taken = Reply::Taken(vec![order.id.clone()]);
                        orders.push((*order, None));
                        replies.push((reply, taken));
                    }
                    Request::Revert(selector) => {
                        let chosen = self.select(&selector);
                        replies.push((reply, self.taken(&chosen)));
                    }
                    Request::Extend(selector, secs) => {
                        let chosen = self.extend_by_hand(&selector, secs);
                        replies.push((reply, self.taken(&chosen)));
                    }
                    Request::Pause => replies.push((reply, self.pause(true))),
                    Request::Resume => replies.push((reply, self.pause(false))),
                    Request::Status => replies.push((reply, Reply::Status(self.status()))),
                },
                Input::Active(reply) => {
                    let _ = reply.send(self.active());
                }
                Input::Stop => {}
            }
        }
        let idle = orders.is_empty();
        self.take_in(orders);
        for (reply, word) in replies {
            let _ = reply.send(word);
        }
        let now = self.clock.boot();
        let due = self.scheduler.due(now, BATCH);
        self.revert(&due);
        self.adds.make_room(now, child::resting);
        self.undos.make_room(now, child::resting);
        self.pump();
        if idle {
            for id in self.stale.split_off(self.stale.len().saturating_sub(IDLE_PIECE)) {
                self.note(id);
            }
        }
        self.finish_step();
        if !self.paused {
            self.reconcile(idle);
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
        if durable {
            for id in std::mem::take(&mut self.settled) {
                if let Some(effect) = self.effects.get_mut(&id).filter(|effect| effect.state == State::Active)
                {
                    effect.head = None;
                }
            }
        }
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
                After::LogLater(length, render) => self.writer.append_later(length, render),
            }
        }
        if self.settings.crash_at == Some(CrashPoint::WhileActive)
            && self.effects.values().any(|effect| effect.state == State::Active)
        {
            self.crash(CrashPoint::WhileActive);
        }
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_nanos(self.clock.wall_nanos())
    }

    fn until(&self, length: u64) -> Option<Until> {
        let length = Duration::from_secs(length.min(MOST_SECS));
        (!length.is_zero()).then(|| Until { boot: self.clock.boot() + length, wall: self.now().plus(length) })
    }

    /// Seconds that a new block of `key` lasts.
    fn length(&self, head: &Head, key: impl FnOnce() -> String) -> u64 {
        let own = &self.settings.repeated_offenders;
        let steps = if head.steps.is_empty() { own } else { &head.steps };
        if steps.is_empty() || head.timeout == 0 {
            return head.timeout;
        }
        let offender = self.journal.offender(&key()).unwrap_or_else(|error| {
            (self.settings.log)(&format!("cannot read the repeat offenders: {error}"));
            None
        });
        escalation::effective(head.timeout, steps, offender.as_ref(), self.now())
    }

    fn outcome(&self, effect: &Effect, kind: OutcomeKind, detail: String, evidence: Evidence) -> Outcome {
        let now = self.now();
        let head = effect.head();
        let mut timings = head.timings;
        if kind == OutcomeKind::Applied {
            if timings.applied == 0 {
                timings.mark(Stage::Applied, now);
            }
            timings.mark(Stage::Verified, now);
        }
        let running = matches!(kind, OutcomeKind::Applied | OutcomeKind::AlreadyActive);
        Outcome {
            order: head.order.clone(),
            kind,
            response: head.response.clone(),
            program: effect.program.to_string(),
            target: head.target.clone(),
            alert_id: head.alert_id.clone(),
            rule: head.rule,
            detail,
            evidence,
            at: now,
            until: effect.until.filter(|_| running).map(|until| until.wall),
            timings,
        }
    }

    /// Tells the last word on an effect and forgets it.
    fn close(&mut self, id: i64, kind: OutcomeKind, detail: String, evidence: Evidence) {
        self.wake(id);
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
        self.others.remove(&id);
        self.reconciler.over(id);
        if let Some(key) = effect.key.as_deref()
            && self.keys.get(key) == Some(&id)
        {
            self.keys.remove(key);
        }
        for spot in effect.action.iter().flat_map(|(_, subject)| subject.spots()) {
            if self.spots.get_mut(&spot).is_some_and(|holders| holders.remove(id)) {
                self.spots.remove(&spot);
            }
        }
    }

    /// Remembers an effect in every index.
    fn keep(&mut self, effect: Effect) {
        let id = effect.id;
        if let Some(head) = effect.head.as_deref() {
            self.reporter.follow(&head.order, head.reported);
        }
        if let Some(key) = effect.key.as_deref() {
            self.keys.insert(key.to_owned(), id);
        }
        match &effect.action {
            Some((_, subject)) => {
                for spot in subject.spots() {
                    self.spots.entry(spot).or_insert(Holders::One(id)).add(id);
                }
            }
            None => drop(self.others.insert(id)),
        }
        self.effects.insert(id, Box::new(effect));
    }

    /// Reads again what is to be said of an effect that just stood.
    fn wake(&mut self, id: i64) {
        if self.effects.get(&id).is_none_or(|effect| effect.head.is_some()) {
            return;
        }
        match self.journal.order(id) {
            Ok(order) => {
                if let Some(effect) = self.effects.get_mut(&id) {
                    effect.head = Some(Box::new(Head::from(&order)));
                }
            }
            Err(error) => self.say(&format!("ALARM: {}; its outcome lacks its order", error.in_full())),
        }
    }

    /// Effects that hold a spot.
    pub(crate) fn holders(&self, spot: Spot) -> &[i64] {
        self.spots.get(&spot).map_or(&[], Holders::ids)
    }

    pub(crate) fn effect_of(&self, id: i64) -> Option<&Effect> {
        self.effects.get(&id).map(AsRef::as_ref)
    }

    /// The numbers of up to `most` effects behind `id`, in order.
    pub(crate) fn after(&self, id: i64, most: usize) -> Vec<i64> {
        let behind = (std::ops::Bound::Excluded(id), std::ops::Bound::Unbounded);
        self.effects.range(behind).take(most).map(|(id, _)| *id).collect()
    }

    fn intern(&mut self, program: &str) -> Arc<str> {
        if let Some(known) = self.programs.get(program) {
            return Arc::clone(known);
        }
        // Names come from a directory of the operator; orders for files that are not there must not pile up.
        if self.programs.len() >= MOST_PROGRAMS {
            self.programs.clear();
        }
        let text: Arc<str> = program.into();
        self.programs.insert(Arc::clone(&text));
        text
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

const BATCH: usize = 2_048;
const MOST_PROGRAMS: usize = 1_024;
const IDLE_PIECE: usize = 1_000;
const LONGEST_WAIT: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(300);
const STOP_GRACE: Duration = Duration::from_secs(3);
const PRUNE: Duration = Duration::from_secs(3_600);
const PRUNE_PAUSE: Duration = Duration::from_secs(1);
/// A hundred years: a longer timeout would overflow clocks.
const MOST_SECS: u64 = 100 * 365 * 86_400;
