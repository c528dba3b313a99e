//! Analysis on several threads with the result of one. Each lane takes a batch of events, prepares it, waits for its turn to
//! compare it with what came before, makes the alerts, waits for its turn again and hands them on.
//!
//! The two turns follow the order in which events came in, so the analyzer and the sink see exactly what a single thread
//! would have shown them; everything else happens side by side. A batch stays with one lane, so nothing that borrows from
//! an event crosses threads. Invariants: verdicts leave in the order of the events; at most a few batches wait, then
//! [`Lanes::push`] does; an event that finds nothing on its way is handled at once by the caller.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use tld_model::{Event, Timestamp};
use tld_rules::{Analyzer, Preparer, Verdict};

/// An event on its way.
#[derive(Debug, Clone)]
pub struct Arrival {
    /// The event; its time may be the one that its text states.
    pub event: Event,
    /// When it really came in.
    pub at: Timestamp,
}

/// Takes verdicts in the order of the events.
pub trait Sink: Send + 'static {
    /// Does all that follows from one verdict. The preparer is of the thread that calls.
    fn take(&mut self, arrival: &Arrival, verdict: Verdict<'_>, preparer: &mut Preparer);
}

/// A batch that is smaller is not worth waking another thread.
const WORTH_WAKING: usize = 32;
/// Most events of a batch: the others of the same burst begin while it is prepared.
const BATCH: usize = 256;
/// Bytes that close a batch.
const BATCH_BYTES: usize = 1 << 20;

/// Threads that share the analysis.
pub struct Lanes<S> {
    shared: Arc<Shared<S>>,
    /// Of the calling thread.
    preparer: Preparer,
    batches: Option<SyncSender<Batch>>,
    /// Threads asked for.
    wanted: usize,
    threads: Vec<JoinHandle<()>>,
    /// The next batch's ticket.
    next: u64,
    filling: Vec<Arrival>,
    filled: usize,
}

struct Batch {
    ticket: u64,
    arrivals: Vec<Arrival>,
}

struct Shared<S> {
    analyzer: Ordered<Analyzer>,
    sink: Ordered<S>,
}

impl<S> fmt::Debug for Lanes<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lanes")
            .field("threads", &self.threads.len())
            .field("next", &self.next)
            .finish_non_exhaustive()
    }
}

impl<S: Sink> Lanes<S> {
    /// Shares the work between so many threads; with one there is none beside the caller. They are started once there is
    /// enough to do, since most hosts never have it.
    pub fn new(analyzer: Analyzer, sink: S, threads: usize) -> Self {
        let preparer = analyzer.preparer();
        let shared = Arc::new(Shared { analyzer: Ordered::new(analyzer), sink: Ordered::new(sink) });
        Self {
            shared,
            preparer,
            wanted: threads,
            batches: None,
            threads: Vec::new(),
            next: 0,
            filling: Vec::new(),
            filled: 0,
        }
    }

    /// Takes an event. It may wait in a batch until [`Self::flush`], or until there are enough of them.
    pub fn push(&mut self, arrival: Arrival) {
        self.filled += arrival.event.text.len();
        self.filling.push(arrival);
        if self.filling.len() >= BATCH || self.filled >= BATCH_BYTES {
            self.flush();
        }
    }

    /// Lets everything that was pushed go its way.
    pub fn flush(&mut self) {
        if self.filling.is_empty() {
            return;
        }
        self.filled = 0;
        let arrivals = std::mem::take(&mut self.filling);
        // What is handled here must not overtake what the lanes hold.
        let idle = self.is_idle();
        let batch = Batch { ticket: self.next, arrivals };
        self.next += 1;
        if self.wanted > 1 && !(idle && batch.arrivals.len() < WORTH_WAKING) {
            self.spawn();
        }
        match &self.batches {
            Some(batches) if !(idle && batch.arrivals.len() < WORTH_WAKING) => {
                self.filling = Vec::with_capacity(BATCH);
                // The lanes end after the sender, so there is always one that receives.
                let _ = batches.send(batch);
            }
            _ => self.filling = self.shared.work(&mut self.preparer, batch),
        }
    }

    /// Nothing is on its way.
    pub fn is_idle(&self) -> bool {
        self.shared.sink.passed() == self.next
    }

    /// Shows analyzer and sink behind everything that was pushed, and before everything that will be.
    pub fn between<R>(&mut self, look: impl FnOnce(&mut Analyzer, &mut S) -> R) -> R {
        self.flush();
        let ticket = self.next;
        self.next += 1;
        let mut analyzer = self.shared.analyzer.enter(ticket);
        let mut sink = self.shared.sink.enter(ticket);
        let result = look(&mut analyzer, &mut sink);
        if !analyzer.owns(&self.preparer) {
            self.preparer = analyzer.preparer();
        }
        result
    }

    /// Waits for everything on its way and ends the threads.
    pub fn finish<R>(mut self, look: impl FnOnce(&mut Analyzer, &mut S) -> R) -> R {
        let result = self.between(look);
        self.batches = None;
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
        result
    }

    /// Starts the threads, if they are not there. Without them the caller does everything.
    fn spawn(&mut self) {
        if self.batches.is_some() {
            return;
        }
        let (sender, receiver) = sync_channel(self.wanted);
        let receiver = Arc::new(Mutex::new(receiver));
        for number in 0..self.wanted {
            let (shared, receiver) = (Arc::clone(&self.shared), Arc::clone(&receiver));
            let preparer = self.shared.analyzer.peek(Analyzer::preparer);
            let work = move || shared.lane(preparer, &receiver);
            let named = std::thread::Builder::new().name(format!("analysis-{number}"));
            self.threads.extend(named.spawn(work).ok());
        }
        if self.threads.is_empty() {
            self.wanted = 1;
        } else {
            self.batches = Some(sender);
        }
    }
}

impl<S: Sink> Shared<S> {
    fn lane(&self, mut preparer: Preparer, batches: &Mutex<Receiver<Batch>>) {
        loop {
            // Batches are received in the order of their tickets, so the lowest one is always at work.
            let batch = lock(batches).recv();
            let Ok(batch) = batch else { return };
            self.work(&mut preparer, batch);
        }
    }

    /// All steps of one batch. Gives back the emptied vector.
    fn work(&self, preparer: &mut Preparer, batch: Batch) -> Vec<Arrival> {
        let Batch { ticket, mut arrivals } = batch;
        let mut fresh = None;
        let prepared: Vec<_> = arrivals.iter().map(|arrival| preparer.prepare(&arrival.event)).collect();
        let mut analyzer = self.analyzer.enter(ticket);
        let judged: Vec<_> = prepared.into_iter().map(|prepared| analyzer.judge(prepared)).collect();
        if !analyzer.owns(preparer) {
            fresh = Some(analyzer.preparer());
        }
        drop(analyzer);
        if let Some(fresh) = fresh {
            *preparer = fresh;
        }
        let verdicts: Vec<_> = judged.into_iter().map(|judged| preparer.finish(judged)).collect();
        let mut sink = self.sink.enter(ticket);
        for (arrival, verdict) in arrivals.iter().zip(verdicts) {
            sink.take(arrival, verdict, preparer);
        }
        drop(sink);
        arrivals.clear();
        arrivals
    }
}

/// A value that is entered in the order of tickets, each of which is used once.
struct Ordered<T> {
    state: Mutex<State<T>>,
    turn: Condvar,
    passed: AtomicU64,
}

struct State<T> {
    /// The ticket whose turn it is.
    next: u64,
    /// Waking costs a system call, so it is done only for somebody who waits.
    waiting: usize,
    value: T,
}

impl<T> Ordered<T> {
    fn new(value: T) -> Self {
        let state = State { next: 0, waiting: 0, value };
        Self { state: Mutex::new(state), turn: Condvar::new(), passed: AtomicU64::new(0) }
    }

    /// Waits until every earlier ticket has left.
    fn enter(&self, ticket: u64) -> Entered<'_, T> {
        let mut state = lock(&self.state);
        while state.next != ticket {
            state.waiting += 1;
            state = self.turn.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.waiting -= 1;
        }
        Entered { state: Some(state), place: self }
    }

    /// Looks at the value out of turn.
    fn peek<R>(&self, look: impl FnOnce(&T) -> R) -> R {
        look(&lock(&self.state).value)
    }

    /// Tickets that have left.
    fn passed(&self) -> u64 {
        self.passed.load(Ordering::Acquire)
    }
}

struct Entered<'o, T> {
    /// None only while it is dropped.
    state: Option<MutexGuard<'o, State<T>>>,
    place: &'o Ordered<T>,
}

impl<T> Deref for Entered<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.state.as_ref().expect("held until dropped").value
    }
}

impl<T> DerefMut for Entered<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.state.as_mut().expect("held until dropped").value
    }
}

impl<T> Drop for Entered<'_, T> {
    fn drop(&mut self) {
        let Some(mut state) = self.state.take() else { return };
        state.next += 1;
        self.place.passed.store(state.next, Ordering::Release);
        let waiting = state.waiting > 0;
        drop(state);
        if waiting {
            // Each waiter waits for another ticket, and there are only as many as lanes.
            self.place.turn.notify_all();
        }
    }
}

/// How many threads a service gives to the analysis: not more than the work divides into.
pub fn usual() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from).min(MOST_LANES)
}

/// Beyond this the part that keeps the order is the limit.
const MOST_LANES: usize = 4;

/// A thread that died while it held the lock has taken the process with it (`panic = "abort"`), except in tests.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
