//! Analysis on several threads with the result of one. Each lane takes a batch of events, prepares it, waits for its turn to
//! compare it with what came before, makes the alerts, waits for its turn again and hands them on. The caller is a lane
//! too: it fills batches, and works off one itself when enough of them wait.
//!
//! The two turns follow the order in which events came in, so the analyzer and the sink see exactly what a single thread
//! would have shown them; everything else happens side by side. A batch stays with one lane, so nothing that borrows from
//! an event crosses threads. Invariants: verdicts leave in the order of the events; at most a few batches wait, then
//! [`Lanes::push`] works; an event that finds nothing on its way is handled at once by the caller.

use std::collections::VecDeque;
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use tld_model::{Event, Timestamp};
use tld_rules::{Analyzer, Preparer, Verdict};

use apart::Apart;

mod apart;

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
    /// Does all that follows from one verdict, and may take out of it what it wants: the rest is recycled when other lanes
    /// have their turn. The preparer is of the thread that calls.
    fn take(&mut self, arrival: &Arrival, verdict: &mut Verdict<'_>, preparer: &mut Preparer);
}

/// A batch that is smaller is not worth waking another thread.
const WORTH_WAKING: usize = 32;
/// Most events of a batch: with what is made of them they should stay in a core's own cache.
const BATCH: usize = 128;
/// Bytes that close a batch.
const BATCH_BYTES: usize = 1 << 20;
/// The memory of longer texts is not kept.
const LONGEST_SPARE: usize = 4 << 10;

/// Threads that share the analysis.
pub struct Lanes<S> {
    shared: Arc<Shared<S>>,
    /// Of the calling thread.
    preparer: Preparer,
    /// Threads asked for, the caller among them.
    wanted: usize,
    threads: Vec<JoinHandle<()>>,
    /// The next batch's ticket.
    next: u64,
    filling: Vec<Arrival>,
    filled: usize,
    apart: Apart,
}

struct Batch {
    ticket: u64,
    arrivals: Vec<Arrival>,
}

struct Shared<S> {
    analyzer: Ordered<Analyzer>,
    sink: Ordered<S>,
    waiting: Mutex<Waiting>,
    more: Condvar,
}

/// Batches that nobody has begun, in the order of their tickets.
#[derive(Default)]
struct Waiting {
    batches: VecDeque<Batch>,
    /// Batches that are done. Whoever made the events takes them apart again: their memory came from that thread.
    done: Vec<Vec<Arrival>>,
    /// Lanes without work.
    idle: usize,
    ended: bool,
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
        let shared = Shared {
            analyzer: Ordered::new(analyzer),
            sink: Ordered::new(sink),
            waiting: Mutex::default(),
            more: Condvar::new(),
        };
        Self {
            shared: Arc::new(shared),
            preparer,
            wanted: threads,
            threads: Vec::new(),
            next: 0,
            filling: Vec::new(),
            filled: 0,
            apart: Apart::default(),
        }
    }

    /// Takes an event. It may wait in a batch until [`Self::flush`], or until there are enough of them.
    pub fn push(&mut self, mut arrival: Arrival) {
        if self.wanted > 1 {
            self.apart.part(&mut arrival.event);
        }
        self.filled += arrival.event.text.len();
        self.filling.push(arrival);
        if self.filling.len() >= BATCH || self.filled >= BATCH_BYTES {
            self.send();
        }
    }

    /// Lets everything that was pushed go its way; with the help of the caller, until other lanes have the rest.
    pub fn flush(&mut self) {
        self.send();
        while let Some(batch) = self.shared.pop(0) {
            self.work(batch);
        }
    }

    /// Takes events from a source until it has no more, which it may be asked again behind its end. Each lane asks for its
    /// own batches, so that what an event takes is made, used and given back by one thread: the best way where nothing else
    /// makes the events. The source is handed an earlier event's text, empty, whose memory it may use.
    pub fn drain(&mut self, source: impl FnMut(Vec<u8>) -> Option<Arrival> + Send) {
        self.flush();
        let source = Mutex::new(Source { events: source, apart: Apart::default(), next: self.next });
        let shared = &*self.shared;
        std::thread::scope(|scope| {
            for number in 1..self.wanted {
                let mut preparer = shared.analyzer.peek(Analyzer::preparer);
                let source = &source;
                let named = std::thread::Builder::new().name(format!("analysis-{number}"));
                // Without a thread the others do its part.
                let _ = named.spawn_scoped(scope, move || shared.drain(&mut preparer, source));
            }
            shared.drain(&mut self.preparer, &source);
        });
        self.next = source.into_inner().unwrap_or_else(PoisonError::into_inner).next;
    }

    fn send(&mut self) {
        self.apart.forget();
        if self.filling.is_empty() {
            return;
        }
        self.filled = 0;
        let batch = Batch { ticket: self.next, arrivals: std::mem::take(&mut self.filling) };
        // What is handled here must not overtake what the lanes hold.
        let alone = self.wanted <= 1 || self.is_idle() && batch.arrivals.len() < WORTH_WAKING;
        self.next += 1;
        if !alone {
            self.spawn();
        }
        if alone || self.threads.is_empty() {
            self.work(batch);
            return;
        }
        self.filling = self.shared.put(batch);
        if let Some(oldest) = self.shared.pop(self.threads.len() * AHEAD) {
            self.work(oldest);
        }
    }

    fn work(&mut self, batch: Batch) {
        let mut arrivals = self.shared.work(&mut self.preparer, batch);
        arrivals.clear();
        if self.filling.capacity() == 0 {
            self.filling = arrivals;
        }
    }

    /// Nothing is on its way.
    pub fn is_idle(&self) -> bool {
        self.shared.sink.passed() == self.next
    }

    /// Shows analyzer and sink behind everything that was pushed, and before everything that will be.
    pub fn between<R>(&mut self, look: impl FnOnce(&mut Analyzer, &mut S) -> R) -> R {
        self.flush();
        drop(std::mem::take(&mut lock(&self.shared.waiting).done));
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
        lock(&self.shared.waiting).ended = true;
        self.shared.more.notify_all();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
        result
    }

    /// Starts the threads, if they are not there. Without them the caller does everything.
    fn spawn(&mut self) {
        if !self.threads.is_empty() {
            return;
        }
        for number in 1..self.wanted {
            let shared = Arc::clone(&self.shared);
            let preparer = self.shared.analyzer.peek(Analyzer::preparer);
            let work = move || shared.lane(preparer);
            let named = std::thread::Builder::new().name(format!("analysis-{number}"));
            self.threads.extend(named.spawn(work).ok());
        }
        if self.threads.is_empty() {
            self.wanted = 1;
        }
    }
}

/// Where lanes that drain get their events.
struct Source<F> {
    events: F,
    apart: Apart,
    /// The next batch's ticket.
    next: u64,
}

impl<S: Sink> Shared<S> {
    fn drain(&self, preparer: &mut Preparer, source: &Mutex<Source<impl FnMut(Vec<u8>) -> Option<Arrival>>>) {
        let mut arrivals = Vec::with_capacity(BATCH);
        let mut texts = Vec::with_capacity(BATCH);
        loop {
            let ticket = lock(source).fill(&mut arrivals, &mut texts);
            if arrivals.is_empty() {
                return;
            }
            arrivals = self.work(preparer, Batch { ticket, arrivals });
            texts.clear();
            let done = arrivals.drain(..).map(|arrival| arrival.event.text);
            texts.extend(done.filter(|text| text.capacity() <= LONGEST_SPARE));
            texts.iter_mut().for_each(Vec::clear);
        }
    }

    fn lane(&self, mut preparer: Preparer) {
        while let Some(batch) = self.take() {
            let done = self.work(&mut preparer, batch);
            lock(&self.waiting).done.push(done);
        }
    }

    /// Leaves a batch to whoever comes first. Gives back an empty vector.
    fn put(&self, batch: Batch) -> Vec<Arrival> {
        let mut waiting = lock(&self.waiting);
        waiting.batches.push_back(batch);
        let wake = waiting.idle > 0;
        let done = std::mem::take(&mut waiting.done);
        drop(waiting);
        if wake {
            self.more.notify_one();
        }
        let mut emptied = done.into_iter().map(|mut arrivals| {
            arrivals.clear();
            arrivals
        });
        let first = emptied.next();
        emptied.for_each(drop);
        first.unwrap_or_else(|| Vec::with_capacity(BATCH))
    }

    /// The oldest batch, if more than so many wait. Batches leave in the order of their tickets, so the lowest one is
    /// always at work.
    fn pop(&self, over: usize) -> Option<Batch> {
        let mut waiting = lock(&self.waiting);
        if waiting.batches.len() > over { waiting.batches.pop_front() } else { None }
    }

    /// The oldest batch, or none at the end.
    fn take(&self) -> Option<Batch> {
        let mut waiting = lock(&self.waiting);
        loop {
            if let Some(batch) = waiting.batches.pop_front() {
                return Some(batch);
            }
            if waiting.ended {
                return None;
            }
            waiting.idle += 1;
            waiting = self.more.wait(waiting).unwrap_or_else(PoisonError::into_inner);
            waiting.idle -= 1;
        }
    }

    /// All steps of one batch. Gives it back.
    fn work(&self, preparer: &mut Preparer, batch: Batch) -> Vec<Arrival> {
        let Batch { ticket, arrivals } = batch;
        let mut fresh = None;
        let mut events: Vec<_> = arrivals.iter().map(|arrival| preparer.prepare(&arrival.event)).collect();
        let mut analyzer = self.analyzer.enter(ticket);
        events.iter_mut().for_each(|event| analyzer.judge(event));
        if !analyzer.owns(preparer) {
            fresh = Some(analyzer.preparer());
        }
        drop(analyzer);
        if let Some(fresh) = fresh {
            *preparer = fresh;
        }
        events.iter_mut().for_each(|event| preparer.finish(event));
        let mut sink = self.sink.enter(ticket);
        for (arrival, event) in arrivals.iter().zip(&mut events) {
            sink.take(arrival, event.verdict(), preparer);
        }
        drop(sink);
        events.into_iter().for_each(|event| preparer.recycle(event.into_verdict()));
        arrivals
    }
}

impl<F: FnMut(Vec<u8>) -> Option<Arrival>> Source<F> {
    /// Fills the next batch and gives its ticket.
    fn fill(&mut self, arrivals: &mut Vec<Arrival>, texts: &mut Vec<Vec<u8>>) -> u64 {
        let mut filled = 0;
        while arrivals.len() < BATCH && filled < BATCH_BYTES {
            let Some(mut arrival) = (self.events)(texts.pop().unwrap_or_default()) else { break };
            self.apart.part(&mut arrival.event);
            filled += arrival.event.text.len();
            arrivals.push(arrival);
        }
        self.apart.forget();
        let ticket = self.next;
        self.next += u64::from(!arrivals.is_empty());
        ticket
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

/// Batches that wait for each thread before the caller works itself, so that none has to wait for the caller.
const AHEAD: usize = 2;

/// Beyond this the part that keeps the order is the limit.
const MOST_LANES: usize = 4;

/// A thread that died while it held the lock has taken the process with it (`panic = "abort"`), except in tests.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
